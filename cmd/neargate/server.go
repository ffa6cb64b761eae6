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
	"github.com/seed-2f228079/neargate/internal/addressing"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/datadir"
	"github.com/seed-2f228079/neargate/internal/trust"
)

// serverFlags are what `neargate server` can be told.
type serverFlags struct {
	data, listen, peerListen, joinToken string
	bootstrapExpect                     int
	blobCopies, logCopies, hostBlock    int
	copiesGiven                         bool // blobCopies is not only its default
	deadAfter                           time.Duration
	join                                []string
	insecure, verbose                   bool
	tlsCert, tlsKey                     string
	publicName, domain, account, region string
	remoteRegions                       string
	scan                                scanFlags
	sign                                signFlags
	state                               stateFlags
	objects                             objectsFlags
	blobs                               blobStoreFlags
	rates                               server.Rates
}

func serverCommand() *cobra.Command {
	var f serverFlags
	cmd := &cobra.Command{
		Use: "server", Short: "Run a server: the API, the registry and the control plane", Args: cobra.NoArgs,
		Long: `Run a server. It runs no tasks itself: agents on other hosts, or on this one, join it with the same join token.

The public port speaks TLS with a certificate of the cluster's own authority, whose certificate is DIR/keys/ca.pem (point AWS_CA_BUNDLE at
it), or with --tls-cert. The root credentials are NEARGATE_ROOT_ACCESS_KEY_ID and NEARGATE_ROOT_SECRET_ACCESS_KEY, or are made
at the first start and printed once. Tasks go on running while no server is there.

Three or five servers form a cluster, which lives through the loss of one or two: start each with the same --bootstrap-expect, --join and --join-token.
Any of them takes any request. A further one joins by a token of "neargate operator token --role server". Once a server has its cluster these flags are
ignored.
` + stateHelp,
		Example: `  neargate server --data /var/lib/neargate --listen 10.0.0.5:4566 --peer-listen 10.0.0.5:4646
  neargate server --data /var/lib/neargate --listen 10.0.0.5:4566 --peer-listen 10.0.0.5:4646 --bootstrap-expect 3 \
    --join 10.0.0.5:4646,10.0.0.6:4646,10.0.0.7:4646 --join-token "$TOKEN"
  neargate server --data ./server --listen 127.0.0.1:4566 --peer-listen 127.0.0.1:4646 --join-token "$TOKEN" --insecure
  neargate server --data /var/lib/neargate --state etcd --etcd-endpoints https://10.0.0.9:2379 --etcd-ca ca.pem --etcd-cert me.pem --etcd-key me.key`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.copiesGiven = cmd.Flags().Changed("blob-copies")
			return runServer(cmd.Context(), f, cmd.ErrOrStderr())
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.data, "data", defaultData(), "data directory (default $NEARGATE_DATA, ~/.neargate)")
	fl.StringVar(&f.listen, "listen", "127.0.0.1:4566", "address of the public port")
	fl.StringVar(&f.peerListen, "peer-listen", "127.0.0.1:4646", "address for agents and other servers")
	fl.StringVar(&f.joinToken, "join-token", os.Getenv("NEARGATE_JOIN_TOKEN"), "the cluster's bootstrap secret, by which its first servers find one another and agents join, kept from the first start on; or a token for a server that joins later (default $NEARGATE_JOIN_TOKEN)")
	fl.Lookup("join-token").DefValue = "" // not for help's eyes
	fl.IntVar(&f.bootstrapExpect, "bootstrap-expect", 1, "number of servers that form the cluster")
	fl.StringSliceVar(&f.join, "join", nil, "peer addresses of the servers, HOST:PORT,...; this one's own may be among them")
	fl.IntVar(&f.blobCopies, "blob-copies", 2, "number of servers that have an image's layer before its push is acknowledged; the others copy it afterwards. Of no effect with --blob-store")
	fl.IntVar(&f.logCopies, "log-copies", 2, "number of servers that have a log event before it is acknowledged; the others copy it afterwards")
	fl.IntVar(&f.hostBlock, "host-block", addressing.HostBits, "length of the block of addresses that a host gets for its tasks when it joins: 22, for 1,021 tasks of network mode awsvpc on each of 4,096 hosts, to 26, for 61 on each of 65,536")
	fl.DurationVar(&f.deadAfter, "remove-dead-after", 72*time.Hour, "how long a server must have been silent before the others remove it by themselves, if at least three stay; 0: never")
	fl.BoolVar(&f.insecure, "insecure", false, "plain HTTP on the public port, which must be on loopback; the root credentials are test/test unless given")
	fl.StringVar(&f.tlsCert, "tls-cert", "", "certificate chain of the public port (PEM) instead of one of the cluster's authority")
	fl.StringVar(&f.tlsKey, "tls-key", "", "its key (PEM)")
	fl.StringVar(&f.publicName, "public-name", "", "host:port by which clients know the public port; with several servers the same on all, a name that leads to any of them (default: --listen, with the host's name where that has no address)")
	fl.StringVar(&f.domain, "domain", "localhost", "domain of load balancers' names")
	f.state.add(fl)
	rateFlags(fl, &f.rates)
	fl.StringVar(&f.account, "account-id", "000000000000", "account of the root credentials")
	fl.StringVar(&f.region, "region", "us-east-1", "default region")
	remoteFlag(fl, &f.remoteRegions)
	f.scan.add(fl)
	f.sign.add(fl)
	f.objects.add(fl)
	f.blobs.add(fl)
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log what is done, not only what goes wrong")
	return cmd
}

// minDeadAfter is more than it takes to start a host anew.
const minDeadAfter = 10 * time.Minute

// check refuses what cannot work.
func (f serverFlags) check() error {
	switch {
	case f.bootstrapExpect != 1 && f.bootstrapExpect != 3 && f.bootstrapExpect != 5:
		return fmt.Errorf("--bootstrap-expect is 1, 3 or 5, not %d: an even number survives the loss of no more servers than the one below it", f.bootstrapExpect)
	case f.blobCopies < 1 || f.blobCopies > 5:
		return fmt.Errorf("--blob-copies is between 1 and 5, not %d", f.blobCopies)
	case f.logCopies < 1 || f.logCopies > 5:
		return fmt.Errorf("--log-copies is between 1 and 5, not %d", f.logCopies)
	case f.hostBlock < addressing.HostBits || f.hostBlock > 26:
		return fmt.Errorf("--host-block is between %d and 26, not %d", addressing.HostBits, f.hostBlock)
	case f.deadAfter != 0 && f.deadAfter < minDeadAfter:
		return fmt.Errorf("--remove-dead-after is 0 or at least %v, not %v: a server that is started anew is not dead", minDeadAfter, f.deadAfter)
	case f.insecure && !server.IsLoopback(f.listen):
		return fmt.Errorf("--insecure is for loopback only, and --listen is %s", f.listen)
	case (f.tlsCert == "") != (f.tlsKey == ""):
		return errors.New("--tls-cert and --tls-key go together")
	case f.insecure && f.tlsCert != "":
		return errors.New("--insecure is plain HTTP: it goes with no --tls-cert")
	}
	return errors.Join(f.rates.Check(), f.state.check(), f.blobs.check())
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
	paceCollector()
	if err := f.check(); err != nil {
		return err
	}
	log := logger(out, f.verbose)
	if f.tlsCert != "" { // before the first start has made anything
		if _, err := tls.LoadX509KeyPair(f.tlsCert, f.tlsKey); err != nil {
			return fmt.Errorf("certificate of the public port: %w", err)
		}
	}
	remotes, err := readRemotes(f.remoteRegions, f.region)
	if err != nil {
		return err
	}
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
	named := f.publicName != ""
	if !named {
		if f.publicName, err = publicName(public.Addr()); err != nil {
			return err
		}
	}
	dir, err := datadir.Open(f.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()

	founding, err := f.found(ctx, dir, peers.(*net.TCPListener), out, log)
	if err != nil {
		return err
	}
	if founding != nil && !named {
		log.Warn("without --public-name image names hold the address of one server: agents get no credentials for them from the others, and cannot pull when it is lost; " +
			"give all servers the same --public-name, a name that leads to any of them")
	}
	fallback := func() (string, string, error) { return keptRoot(dir.Keys(), out) }
	switch {
	case f.insecure:
		fallback = testRoot
	case founding != nil && len(founding.Root) == 0:
		fallback = func() (string, string, error) {
			return "", "", errors.New("the root credentials of this cluster come from the environment: set NEARGATE_ROOT_ACCESS_KEY_ID and NEARGATE_ROOT_SECRET_ACCESS_KEY as on its other servers")
		}
	}
	objects, err := f.objects.open(f.region)
	if err != nil {
		return err
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
	port, err := newPeerPort(f, dir, authority, founding, log)
	if err != nil {
		return err
	}
	trustParts := port.parts
	cluster, err := port.cluster(dir, founding, peers.Addr())
	if err != nil {
		return err
	}
	cluster.blobCopies, cluster.logCopies, cluster.deadAfter = f.blobCopies, f.logCopies, f.deadAfter
	if f.blobs.url != "" && f.copiesGiven {
		log.Warn("--blob-copies is of no effect with --blob-store: the object store keeps all blobs, and servers only what they have read or written lately")
	}
	keeps := founding != nil && f.state.engine != "etcd" // one of several, on its own disk
	if keeps {
		if err := checkBegan(dir); err != nil {
			return err
		}
	}
	control, err := newControlPlane(controlConfig{
		dir: dir, state: f.state, account: f.account, region: f.region, publicName: f.publicName, tls: !f.insecure, domain: f.domain, roots: credentials,
		guard: f.insecure, authorize: trust.AuthorizeNode, ready: func() []server.Check { return nil }, cluster: cluster, log: log, remotes: remotes, scan: f.scan, sign: f.sign,
		objects: objects, blobs: f.blobs, rates: f.rates,
		// Until there is a pool of its own, every host runs FARGATE tasks beside those of its cluster.
		rule: capacity.Rule{Account: f.account, Region: f.region, Serverless: true, BlockBits: f.hostBlock},
	})
	if err != nil {
		return err
	}
	if keeps {
		if err := noteBegan(dir); err != nil { // a full disk; the next start tries again
			log.Warn("it cannot be noted that this server has a state", "error", err)
		}
	}
	if control.peers != nil {
		port.admit, port.revoked = control.peers.Admit, control.peers.SecretRevoked
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
		control.tasks(port.Handle(trust.ProtocolTasks, trust.Agent)),
		{"peer port", func(ctx context.Context) error { return port.Serve(ctx, peers) }},
		{"public port", func(ctx context.Context) error { return control.public.Run(ctx, public) }},
		{"ready", func(ctx context.Context) error {
			if control.waitReady(ctx, nil, log) == nil {
				fmt.Fprintf(out, "neargate server is ready at %s://%s after %d ms (peers at %s, data in %s)\n",
					scheme, public.Addr(), time.Since(began).Milliseconds(), peers.Addr(), dir.Path())
				settle(ctx)
			}
			<-ctx.Done()
			return nil
		}},
	})
	return runParts(ctx, parts...)
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

// tasks serves the API to tasks, whose agents pass their calls on by the peer port.
func (c *controlPlane) tasks(l net.Listener) part {
	return part{"tasks' port", func(ctx context.Context) error {
		err := c.public.RunTasks(ctx, l)
		if errors.Is(err, net.ErrClosed) { // the peer port may end first, and its listeners with it
			<-ctx.Done()
			return nil
		}
		return err
	}}
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
		if err := <-done; !errors.Is(err, net.ErrClosed) { // the peer port may end first, and its listeners with it
			return err
		}
		return nil
	}}
}
