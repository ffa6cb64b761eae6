package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/api/server"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/datadir"
	"github.com/seed-2f228079/neargate/internal/trust"
)

// serverFlags are what `neargate server` can be told.
type serverFlags struct {
	data, listen, peerListen, joinToken string
	bootstrapExpect                     int
	join                                []string
	insecure, verbose                   bool
	tlsCert, tlsKey                     string
	publicName, domain, account, region string
	state                               stateFlags
}

func serverCommand() *cobra.Command {
	var f serverFlags
	cmd := &cobra.Command{
		Use: "server", Short: "Run a server: the API, the registry and the control plane", Args: cobra.NoArgs,
		Long: `Run a server. It runs no tasks itself: agents on other hosts, or on this one, join it with the same join token.

The public port speaks TLS with a certificate of the cluster's own authority, whose certificate is DIR/keys/ca.pem (point AWS_CA_BUNDLE at
it), or with --tls-cert. The root credentials are NEARGATE_ROOT_ACCESS_KEY_ID and NEARGATE_ROOT_SECRET_ACCESS_KEY, or are made
at the first start and printed once. Tasks go on running while no server is there.
` + stateHelp,
		Example: `  neargate server --data /var/lib/neargate --listen 10.0.0.5:4566 --peer-listen 10.0.0.5:4646
  neargate server --data ./server --listen 127.0.0.1:4566 --peer-listen 127.0.0.1:4646 --join-token "$TOKEN" --insecure
  neargate server --data /var/lib/neargate --state etcd --etcd-endpoints https://10.0.0.9:2379 --etcd-ca ca.pem --etcd-cert me.pem --etcd-key me.key`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runServer(cmd.Context(), f, cmd.ErrOrStderr()) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.data, "data", defaultData(), "data directory (default $NEARGATE_DATA, ~/.neargate)")
	fl.StringVar(&f.listen, "listen", "127.0.0.1:4566", "address of the public port")
	fl.StringVar(&f.peerListen, "peer-listen", "127.0.0.1:4646", "address for agents and other servers")
	fl.StringVar(&f.joinToken, "join-token", os.Getenv("NEARGATE_JOIN_TOKEN"), "the cluster's bootstrap secret, by which agents join; kept from the first start on (default $NEARGATE_JOIN_TOKEN)")
	fl.Lookup("join-token").DefValue = "" // not for help's eyes
	fl.IntVar(&f.bootstrapExpect, "bootstrap-expect", 1, "number of servers that form the cluster")
	fl.StringSliceVar(&f.join, "join", nil, "peer addresses of the other servers")
	fl.BoolVar(&f.insecure, "insecure", false, "plain HTTP on the public port, which must be on loopback; the root credentials are test/test unless given")
	fl.StringVar(&f.tlsCert, "tls-cert", "", "certificate chain of the public port (PEM) instead of one of the cluster's authority")
	fl.StringVar(&f.tlsKey, "tls-key", "", "its key (PEM)")
	fl.StringVar(&f.publicName, "public-name", "", "host:port by which clients know the public port (default: --listen, with the host's name where that has no address)")
	fl.StringVar(&f.domain, "domain", "localhost", "domain of load balancers' names")
	f.state.add(fl)
	fl.StringVar(&f.account, "account-id", "000000000000", "account of the root credentials")
	fl.StringVar(&f.region, "region", "us-east-1", "default region")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log what is done, not only what goes wrong")
	return cmd
}

// check refuses what cannot work.
func (f serverFlags) check() error {
	others := slices.DeleteFunc(slices.Clone(f.join), func(a string) bool { return a == f.peerListen })
	switch {
	case f.bootstrapExpect != 1 || len(others) > 0:
		return errors.New("not implemented yet: more than one server; leave --bootstrap-expect at 1 and --join empty")
	case f.insecure && !server.IsLoopback(f.listen):
		return fmt.Errorf("--insecure is for loopback only, and --listen is %s", f.listen)
	case (f.tlsCert == "") != (f.tlsKey == ""):
		return errors.New("--tls-cert and --tls-key go together")
	case f.insecure && f.tlsCert != "":
		return errors.New("--insecure is plain HTTP: it goes with no --tls-cert")
	}
	return f.state.check()
}

// logger writes to out: what is done as well if verbose, otherwise only what goes wrong.
func logger(out io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level}))
}

// runServer runs until ctx ends.
func runServer(ctx context.Context, f serverFlags, out io.Writer) (err error) {
	began := time.Now()
	if err := f.check(); err != nil {
		return err
	}
	log := logger(out, f.verbose)
	public, err := net.Listen("tcp", f.listen)
	if err != nil {
		return fmt.Errorf("public port: %w", err)
	}
	defer public.Close() // a second time, if it has been served
	peers, err := net.Listen("tcp", f.peerListen)
	if err != nil {
		return fmt.Errorf("peer port: %w", err)
	}
	defer peers.Close()
	if f.publicName == "" {
		if f.publicName, err = publicName(public.Addr()); err != nil {
			return err
		}
	}
	dir, err := datadir.Open(f.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()

	fallback := func() (string, string, error) { return keptRoot(dir.Keys(), out) }
	if f.insecure {
		fallback = testRoot
	}
	credentials, err := roots(f.account, fallback)
	if err != nil {
		return err
	}
	for _, r := range credentials {
		if err := server.CheckListen(f.listen, r.AccessKeyID, r.SecretAccessKey); err != nil {
			return err
		}
	}
	authority, err := trust.OpenAuthority(dir.Keys(), clock.Real{})
	if err != nil {
		return err
	}
	port, trustParts, err := peerPort(f, dir, authority, log)
	if err != nil {
		return err
	}
	control, err := newControlPlane(controlConfig{
		dir: dir, state: f.state, account: f.account, region: f.region, publicName: f.publicName, tls: !f.insecure, domain: f.domain, roots: credentials,
		guard: f.insecure, authorize: trust.AuthorizeNode, ready: func() []server.Check { return nil }, log: log,
		// Until there is a pool of its own, every host runs FARGATE tasks beside those of its cluster.
		rule: capacity.Rule{Account: f.account, Region: f.region, Serverless: true},
	})
	if err != nil {
		return err
	}
	scheme := "http"
	if !f.insecure {
		scheme = "https"
		config, keep, err := publicTLS(f, authority, log)
		if err != nil {
			return errors.Join(err, control.engine.Close())
		}
		public = tls.NewListener(public, config)
		trustParts = append(trustParts, keep...)
	}
	parts := slices.Concat(control.parts, trustParts, []part{
		control.remote(port.Handle(trust.ProtocolGRPC, trust.Agent)),
		{"peer port", func(ctx context.Context) error { return port.Serve(ctx, peers) }},
		{"public port", func(ctx context.Context) error { return control.public.Run(ctx, public) }},
		{"ready", func(ctx context.Context) error {
			if control.waitReady(ctx, nil) == nil {
				fmt.Fprintf(out, "neargate server is ready at %s://%s after %d ms (peers at %s, data in %s)\n",
					scheme, public.Addr(), time.Since(began).Milliseconds(), peers.Addr(), dir.Path())
			}
			<-ctx.Done()
			return nil
		}},
	})
	return runParts(ctx, parts...)
}

// peerPort is the port for agents with admission on it; the caller adds protocols and serves it.
func peerPort(f serverFlags, dir *datadir.Dir, authority *trust.Authority, log *slog.Logger) (*trust.Port, []part, error) {
	secret, ignored, err := trust.KeepSecret(dir.Keys(), f.joinToken)
	switch {
	case err != nil:
		return nil, nil, err
	case ignored:
		log.Warn("--join-token is ignored: this cluster has another one from its first start")
	case secret == nil:
		log.Warn("no host can join: this cluster has no join token")
	case f.joinToken != "" && len(f.joinToken) < trust.WeakToken:
		log.Warn("the join token is short: take one of 16 random characters or more")
	}
	credential, err := authority.ServerCredential(dir.ID(), log)
	if err != nil {
		return nil, nil, err
	}
	port := trust.NewPort(credential, log)
	admission := trust.NewAdmission(port, trust.AdmissionConfig{Authority: authority, Clock: clock.Real{}, Log: log,
		Secret: func(token string) *trust.Secret {
			if token != "" {
				return nil
			}
			return secret
		}})
	return port, []part{{"admission", admission.Run}, {"certificate", credential.Run}}, nil
}

// publicTLS is the public port's certificate: the one that was given, or one of the authority for every name of this server.
func publicTLS(f serverFlags, authority *trust.Authority, log *slog.Logger) (*tls.Config, []part, error) {
	if f.tlsCert != "" {
		cert, err := tls.LoadX509KeyPair(f.tlsCert, f.tlsKey)
		if err != nil {
			return nil, nil, fmt.Errorf("certificate of the public port: %w", err)
		}
		return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{cert}}, nil, nil
	}
	names, err := publicNames(f)
	if err != nil {
		return nil, nil, err
	}
	credential, err := authority.PublicCredential(names, log)
	if err != nil {
		return nil, nil, err
	}
	return credential.PublicTLS(), []part{{"public certificate", credential.Run}}, nil
}

// publicNames are the names and addresses that clients may know this server by.
func publicNames(f serverFlags) ([]string, error) {
	names := []string{"localhost", f.domain, "*." + f.domain, "*.dkr.ecr." + f.region + "." + f.domain}
	for _, hostport := range []string{f.publicName, f.listen} {
		if host, _, err := net.SplitHostPort(hostport); err == nil && host != "" {
			names = append(names, host)
		}
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	names = append(names, host)
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			names = append(names, n.IP.String())
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// publicName is host:port of a listening address; a wildcard stands for this host's name.
func publicName(a net.Addr) (string, error) {
	tcp := a.(*net.TCPAddr)
	if !tcp.IP.IsUnspecified() {
		return a.String(), nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, fmt.Sprint(tcp.Port)), nil
}

// remote serves the agents that come by the peer port.
func (c *controlPlane) remote(l net.Listener) part {
	g := grpc.NewServer(trust.GRPCServerOptions()...)
	agentapi.RegisterDispatcherServer(g, c.dispatcher)
	return part{"agents' port", func(ctx context.Context) error {
		done := make(chan error, 1)
		go func() { done <- g.Serve(l) }()
		<-ctx.Done()
		g.Stop()
		return <-done
	}}
}
