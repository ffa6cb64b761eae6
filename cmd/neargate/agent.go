package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-2f228079/neargate/agent"
	"github.com/seed-2f228079/neargate/agent/imds"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/datadir"
	"github.com/seed-2f228079/neargate/internal/trust"
)

// agentFlags are what `neargate agent` can be told.
type agentFlags struct {
	data, joinToken, cluster, runtime, address, zone, dns string
	servers                                               []string
	policy                                                agent.Policy
	reach                                                 reach
	upkeep                                                agent.Upkeep
	gear                                                  gear
	warm                                                  warm
	verbose                                               bool
}

func agentCommand() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use: "agent", Short: "Run this host's tasks for a cluster", Args: cobra.NoArgs,
		Long: `Join this host to a cluster as a container instance and run its tasks.

The join token is needed the first time; then the host has a certificate of its own in DIR/keys. Tasks outlive the agent: whether it ends,
is killed or loses its servers, they go on running, and the next start takes them over.`,
		Example: `  neargate agent --data /var/lib/neargate --servers 10.0.0.5:4646 --join-token "$TOKEN" --cluster production`,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runAgent(cmd.Context(), f, cmd.ErrOrStderr()) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.data, "data", defaultData(), "data directory (default $NEARGATE_DATA, ~/.neargate)")
	fl.StringSliceVar(&f.servers, "servers", nil, "peer addresses of the servers, HOST:PORT,...")
	fl.StringVar(&f.joinToken, "join-token", os.Getenv("NEARGATE_JOIN_TOKEN"), "the cluster's join token; only needed to join (default $NEARGATE_JOIN_TOKEN)")
	fl.Lookup("join-token").DefValue = "" // not for help's eyes
	fl.StringVar(&f.cluster, "cluster", "default", "ECS cluster that this host is a container instance of")
	fl.StringVar(&f.runtime, "runtime", "native", "what runs containers: native, docker or fake")
	fl.StringVar(&f.address, "address", "", "IP at which host ports and load balancers answer (default: that of the way to the first server)")
	fl.StringVar(&f.zone, "availability-zone", "", "availability zone of this host (default: on an instance of EC2 what its metadata says, elsewhere us-east-1a)")
	fl.StringVar(&f.dns, "dns", "", "address of a DNS server besides that of the tasks, at their gateway's port 53")
	reachFlags(fl, &f.reach)
	policyFlags(fl, &f.policy)
	upkeepFlags(fl, &f.upkeep)
	gearFlags(fl, &f.gear)
	warmFlags(fl, &f.warm)
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log what is done, not only what goes wrong")
	if err := cmd.MarkFlagRequired("servers"); err != nil {
		panic(err) // the flag was defined above
	}
	return cmd
}

// runAgent runs until ctx ends. Tasks go on.
func runAgent(ctx context.Context, f agentFlags, out io.Writer) (err error) {
	log := logger(out, f.verbose)
	if err := f.reach.check(); err != nil {
		return err
	}
	for _, s := range f.servers {
		if _, _, err := net.SplitHostPort(s); err != nil {
			return fmt.Errorf("--servers is a list of HOST:PORT: %w", err)
		}
	}
	if f.address == "" {
		if f.address, err = addressTowards(f.servers[0]); err != nil {
			return err
		}
	}
	dir, err := datadir.Open(f.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()

	membership := &trust.Membership{Keys: dir.Keys(), Servers: f.servers, Clock: clock.Real{}, Log: log}
	if f.joinToken != "" {
		if membership.Secret, err = trust.NewSecret(f.joinToken); err != nil {
			return err
		}
	}
	credential, err := membership.Join(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	images, err := newClusterTransport(credential)
	if err != nil {
		return err
	}
	conn, err := credential.DialServers(f.servers)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := agentapi.NewDispatcherClient(conn)
	instance := readInstance(ctx, log)
	host, err := newHost(ctx, hostConfig{
		dir: dir, node: credential.ID(), runtime: f.runtime, dns: f.dns, address: f.address, cluster: f.cluster, zone: cmp.Or(f.zone, instance.Zone, "us-east-1a"), instance: instance,
		policy: f.policy, reach: f.reach, upkeep: f.upkeep, gear: f.gear, warm: f.warm, client: client, images: images, credential: credential, log: log,
	})
	if err != nil {
		if ctx.Err() != nil { // told to end before it was up
			return nil
		}
		return err
	}
	if err := host.connect(client, credential.AnyServer(trust.ProtocolTasks, f.servers)); err != nil {
		return err
	}
	ready := part{"ready", func(ctx context.Context) error {
		for !host.agent.Connected() {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(10 * time.Millisecond):
			}
		}
		fmt.Fprintf(out, "neargate agent %s is connected (%s driver, data in %s)\n", credential.ID(), f.runtime, dir.Path())
		<-ctx.Done()
		return nil
	}}
	err = runParts(ctx, append(host.parts(), part{"certificate", credential.Run}, ready)...)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	return errors.Join(err, host.driver.Close(end, false))
}

// addressTowards is this host's own address on the way to a server. No packet is sent.
func addressTowards(server string) (string, error) {
	conn, err := net.Dial("udp", server)
	if err != nil {
		return "", fmt.Errorf("find this host's address on the way to %s: %w; give it with --address", server, err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).IP.String(), nil
}

// readInstance is what EC2 says of this host; empty elsewhere.
func readInstance(ctx context.Context, log *slog.Logger) imds.Instance {
	at := imds.Find(os.Getenv, "/sys")
	if at == "" {
		return imds.Instance{}
	}
	i, err := imds.Read(ctx, at)
	if err != nil {
		log.Warn("this host looks like an instance of EC2, whose metadata cannot be read: it has no attributes of one", "error", err)
	}
	return i
}
