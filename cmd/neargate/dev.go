package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/seed-2f228079/neargate/agent"
	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/api/server"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator"
	"github.com/seed-2f228079/neargate/internal/datadir"
)

// stopGrace is how long dev gives each task when it ends.
const stopGrace = 5 * time.Second

// clearGrace is how long the tasks' network and what is left of them may take to go. Nobody is asked to end any more: it is for a kernel that is
// busy, and for another instance on this host that holds the host's lock. What has not gone by then stays behind.
const clearGrace = 30 * time.Second

// devFlags are what `neargate dev` can be told.
type devFlags struct {
	data, listen, dns, runtime, account, region string
	remoteRegions                               string
	scan                                        scanFlags
	sign                                        signFlags
	keepTasks, verbose                          bool
	policy                                      agent.Policy
	upkeep                                      agent.Upkeep
	gear                                        gear
	warm                                        warm
	state                                       stateFlags
	objects                                     objectsFlags
	blobs                                       blobStoreFlags
	rates                                       server.Rates
	seams                                       seams
}

// seams are where tests of this package take part in dev; the product has none.
type seams struct {
	routers func([]orchestrator.Router) []orchestrator.Router // what the orchestrator gets instead of these
	joined  func(*controlPlane, *host) ([]part, error)        // further parts beside the host's
}

func devCommand() *cobra.Command {
	var f devFlags
	cmd := &cobra.Command{
		Use: "dev", Short: "Run everything in one process, for development and CI", Args: cobra.NoArgs,
		Long: `Run the whole platform in this process: state, scheduler, registry, load balancers, DNS, and this host as the only one.

It is a container instance of every cluster and the serverless pool at once. The credentials are test/test, unless
NEARGATE_ROOT_ACCESS_KEY_ID and NEARGATE_ROOT_SECRET_ACCESS_KEY say otherwise; NEARGATE_ACCOUNTS adds further accounts as
ACCOUNT:ACCESS_KEY_ID:SECRET, separated by commas. Ctrl-C stops all tasks and keeps the state: the next start brings the
services back.
` + stateHelp,
		RunE: func(cmd *cobra.Command, _ []string) error { return dev(cmd.Context(), f, cmd.ErrOrStderr()) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", "127.0.0.1:4566", "address of the one port")
	fl.StringVar(&f.dns, "dns", "127.0.0.1:4553", "address of the DNS server; tasks have it at their gateway's port 53 too")
	fl.StringVar(&f.data, "data", defaultData(), "data directory (default $NEARGATE_DATA, ~/.neargate)")
	fl.StringVar(&f.runtime, "runtime", "native", "what runs containers: native, docker or fake")
	fl.StringVar(&f.account, "account-id", "000000000000", "account of the root credentials")
	fl.StringVar(&f.region, "region", "us-east-1", "default region")
	remoteFlag(fl, &f.remoteRegions)
	f.scan.add(fl)
	f.sign.add(fl)
	fl.BoolVar(&f.keepTasks, "keep-tasks", false, "leave tasks running at the end; the next start takes them over")
	policyFlags(fl, &f.policy)
	upkeepFlags(fl, &f.upkeep)
	gearFlags(fl, &f.gear)
	warmFlags(fl, &f.warm)
	f.state.add(fl)
	f.objects.add(fl)
	f.blobs.add(fl)
	rateFlags(fl, &f.rates)
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log what is done, not only what goes wrong")
	return cmd
}

// testRoot are the well-known credentials of a platform that only this machine can reach.
func testRoot() (id, secret string, err error) { return "test", "test", nil }

// roots are the root credentials: the default account's from the environment or else from fallback, and further accounts.
func roots(account string, fallback func() (id, secret string, err error)) ([]auth.Root, error) {
	id, secret := os.Getenv("NEARGATE_ROOT_ACCESS_KEY_ID"), os.Getenv("NEARGATE_ROOT_SECRET_ACCESS_KEY")
	if (id == "") != (secret == "") {
		return nil, errors.New("set both NEARGATE_ROOT_ACCESS_KEY_ID and NEARGATE_ROOT_SECRET_ACCESS_KEY, or none")
	}
	if id == "" {
		var err error
		if id, secret, err = fallback(); err != nil {
			return nil, err
		}
	}
	all := []auth.Root{{Account: account, AccessKeyID: id, SecretAccessKey: secret}}
	for _, a := range strings.FieldsFunc(os.Getenv("NEARGATE_ACCOUNTS"), func(r rune) bool { return r == ',' }) {
		p := strings.SplitN(a, ":", 3)
		if len(p) != 3 {
			return nil, errors.New("NEARGATE_ACCOUNTS is a list of ACCOUNT:ACCESS_KEY_ID:SECRET, separated by commas")
		}
		all = append(all, auth.Root{Account: p[0], AccessKeyID: p[1], SecretAccessKey: p[2]})
	}
	return all, nil
}

// dev runs until ctx ends.
func dev(ctx context.Context, f devFlags, out io.Writer) (err error) {
	began := time.Now()
	paceCollector()
	if err := errors.Join(f.state.check(), f.blobs.check()); err != nil {
		return err
	}
	log := logger(out, f.verbose)
	remotes, err := readRemotes(f.remoteRegions, f.region)
	if err != nil {
		return err
	}
	objects, err := f.objects.open(f.region)
	if err != nil {
		return err
	}
	credentials, err := roots(f.account, testRoot)
	if err != nil {
		return err
	}
	for _, r := range credentials {
		if err := server.CheckListen(f.listen, r.AccessKeyID, r.SecretAccessKey); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", f.listen)
	if err != nil {
		return fmt.Errorf("%w\nIs another neargate running? Choose another port with --listen", err)
	}
	dir, err := datadir.Open(f.data)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer func() { err = errors.Join(err, dir.Close()) }()

	host, err := newHost(ctx, hostConfig{dir: dir, node: dir.ID(), address: "127.0.0.1", runtime: f.runtime, dns: f.dns, zone: f.region + "a", policy: f.policy, upkeep: f.upkeep, gear: f.gear, warm: f.warm, log: log})
	clearUp := func() error {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearGrace)
		defer cancel()
		return host.driver.Close(end, !f.keepTasks)
	}
	const stopping = "Stopping tasks; the next start brings services back."
	if err != nil && ctx.Err() != nil && host != nil { // nothing failed: it was told to end before it was up
		if !f.keepTasks {
			fmt.Fprintln(out, stopping)
		}
		err = clearUp()
		return errors.Join(err, l.Close())
	}
	if err != nil {
		return errors.Join(err, l.Close())
	}
	control, err := newControlPlane(controlConfig{
		dir: dir, state: f.state, account: f.account, region: f.region, publicName: l.Addr().String(), domain: "localhost", roots: credentials, guard: true, rates: f.rates,
		remotes: remotes, scan: f.scan, sign: f.sign, objects: objects, blobs: f.blobs,
		rule: capacity.Rule{Account: f.account, Region: f.region, EveryCluster: true, Serverless: true}, log: log,
		loadBalancer: host.loadBalancer, ready: host.checks, routers: f.seams.routers,
	})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	control.metrics.MustRegister(host.proxy)
	client, port, err := control.local()
	if err != nil {
		return err
	}
	dial, tasksPort := control.localTasks()
	if err := host.connect(client, dial); err != nil {
		return err
	}
	hostParts := host.parts()
	if f.seams.joined != nil {
		more, err := f.seams.joined(control, host)
		if err != nil {
			return err
		}
		hostParts = append(hostParts, more...)
	}
	public := part{"public port", func(ctx context.Context) error { return control.public.Run(ctx, l) }}
	ready := part{"ready", func(ctx context.Context) error {
		if control.waitReady(ctx, host, log) == nil {
			fmt.Fprintf(out, "neargate is ready at http://%s after %d ms (%s driver, data in %s)\n", l.Addr(), time.Since(began).Milliseconds(), f.runtime, dir.Path())
			settle(ctx)
		}
		<-ctx.Done()
		return nil
	}}

	// The control plane ends after the host: what the host reports at its end is still taken in.
	controlCtx, stopControl := context.WithCancel(context.WithoutCancel(ctx))
	defer stopControl()
	controlDone := make(chan error, 1)
	hostCtx, stopHost := context.WithCancel(ctx)
	defer stopHost()
	go func() {
		err := runParts(controlCtx, append(control.parts, port, tasksPort, public)...)
		stopHost()
		controlDone <- err
	}()
	err = runParts(hostCtx, append(hostParts, ready)...)
	if !f.keepTasks {
		fmt.Fprintln(out, stopping)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*stopGrace)
		host.agent.StopAll(end, stopGrace)
		cancel()
	}
	stopControl()
	err = errors.Join(err, <-controlDone)
	return errors.Join(err, clearUp())
}

// defaultData is where dev keeps its state unless told otherwise.
func defaultData() string {
	if d := os.Getenv("NEARGATE_DATA"); d != "" {
		return d
	}
	if d, err := os.UserHomeDir(); err == nil {
		return d + "/.neargate"
	}
	return ".neargate"
}
