package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/api/server"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/dispatcher"
	"github.com/seed-2f228079/neargate/controlplane/ec2"
	"github.com/seed-2f228079/neargate/controlplane/ecs"
	"github.com/seed-2f228079/neargate/controlplane/elb"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator"
	"github.com/seed-2f228079/neargate/controlplane/scheduler/placement"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/sts"
	"github.com/seed-2f228079/neargate/controlplane/tasks"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/datadir"
	"github.com/seed-2f228079/neargate/internal/seal"
	"github.com/seed-2f228079/neargate/mesh"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/servicediscovery"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// controlConfig is what a control plane is told.
type controlConfig struct {
	dir        *datadir.Dir
	state      stateFlags
	account    string
	region     string
	publicName string // host:port that names are rendered with
	tls        bool   // whether it is reached by https
	domain     string
	roots      []auth.Root
	rule       capacity.Rule
	// authorize says whether who is on the other end of an agent's session may act for the node; nil: agents are in this process.
	authorize func(ctx context.Context, node string) error
	guard     bool // loopback protections
	// loadBalancer is the handler of the load balancer that has this host name; nil: no proxy is in this process.
	loadBalancer func(host string) http.Handler
	// ready are checks of parts outside of the control plane.
	ready func() []server.Check
	// routers says what the orchestrator gets instead of the routers; nil: themselves.
	routers func([]orchestrator.Router) []orchestrator.Router
	log     *slog.Logger
}

// controlPlane is one server: state, families, reconcilers, registry and the public port.
type controlPlane struct {
	engine     engine
	store      *state.Store
	dispatcher *dispatcher.Server
	registry   *registry.Registry
	metrics    *prometheus.Registry
	operations []api.Operation
	resources  []api.RESTResource
	parts      []part // in the order they start
	public     *server.Server
}

// part is something that runs until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// schema is every family's tables.
func schema() state.Schema {
	return slices.Concat(controlplane.Schema, dispatcher.Schema, elb.Schema, mesh.Schema, registry.Schema, servicediscovery.Schema)
}

// newControlPlane opens the state and puts the families on it. The caller runs the parts, then closes.
func newControlPlane(cfg controlConfig) (_ *controlPlane, err error) {
	c := &controlPlane{metrics: prometheus.NewRegistry()}
	c.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	sealPages, err := seal.New(cfg.dir.SealingKey(), "pages")
	if err != nil {
		return nil, err
	}
	sealRegistry, err := seal.New(cfg.dir.SealingKey(), "registry")
	if err != nil {
		return nil, err
	}
	credentials, err := auth.NewStatic(cfg.roots...)
	if err != nil {
		return nil, err
	}
	if c.engine, err = cfg.state.open(cfg.dir, cfg.log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.engine.Close())
		}
	}()
	if c.store, err = state.New(c.engine, schema(), state.Options{Logger: cfg.log}); err != nil {
		return nil, err
	}
	blobs, err := blob.Open(cfg.dir.Blobs(), blob.Options{})
	if err != nil {
		return nil, err
	}

	var real clock.Real
	var network ec2.Network
	pages := api.NewPages(sealPages)
	balancing := elb.New(elb.Config{Store: c.store, Rand: rand.Reader, Pages: pages, Network: network, Domain: cfg.domain, Instance: cfg.dir.ID()})
	discovery := servicediscovery.New(servicediscovery.Config{Store: c.store, Rand: rand.Reader, Pages: pages, Clock: real, VPCExists: network.VPCExists})
	routers := []orchestrator.Router{elb.Router{Clock: real}, servicediscovery.Router{Clock: real}}
	if cfg.routers != nil {
		routers = cfg.routers(routers)
	}
	lifecycle := orchestrator.NewLifecycle(real, rand.Reader, routers...)
	placer := placement.New(c.store, real, cfg.log)
	c.registry, err = registry.New(registry.Config{
		Store: c.store, Blobs: blobs, Seal: sealRegistry, Region: cfg.region, Domain: cfg.domain, Log: cfg.log,
		PublicName: func(string, string) string { return cfg.publicName }, TLS: cfg.tls,
		Credentials: checkSecret(credentials),
	})
	if err != nil {
		return nil, err
	}
	drainer := mesh.NewDrainer(mesh.DrainerConfig{Store: c.store, Clock: real, Log: cfg.log})
	c.dispatcher = dispatcher.New(dispatcher.Config{
		Store: c.store, Clock: real, Rand: rand.Reader, Log: cfg.log, Rule: cfg.rule, Authorize: cfg.authorize, Reporter: lifecycle, Traffic: drainer,
		Sources: []dispatcher.Source{
			dispatcher.Assignments{Log: cfg.log, Credentials: c.registry.PullCredentials},
			elb.ListenerSource{Service: balancing}, elb.TargetSource{}, elb.CheckSource{},
			servicediscovery.Source{Names: elb.Names{Service: balancing}},
		},
	})
	drainer.Subscribers = c.dispatcher
	orch := orchestrator.New(orchestrator.Config{
		Store: c.store, Clock: real, Rand: rand.Reader, Log: cfg.log, RouterTables: []state.TableInfo{mesh.Endpoints, elb.Listeners, elb.Rules},
	}, lifecycle)
	containers := ecs.New(ecs.Config{
		Store: c.store, Rand: rand.Reader, Pages: pages, TargetGroups: balancing, Registries: discovery, Network: network,
		Placer: runTaskPlacer{placer}, Lifecycle: lifecycle,
	})
	c.operations = slices.Concat(containers.Operations(), balancing.Operations(), c.registry.Operations(), discovery.Operations(),
		ec2.New(network, pages).Operations(), sts.Operations())
	c.resources = tasks.New(tasks.Config{Store: c.store, Placer: placer, Nodes: c.dispatcher}).Resources()
	c.public, err = server.New(server.Config{
		Operations: c.operations, Resources: c.resources, Credentials: credentials, Account: cfg.account, Region: cfg.region,
		Registry: c.registry.Handler(), LoadBalancer: cfg.loadBalancer, Guard: cfg.guard,
		Names: []string{cfg.publicName, cfg.domain}, PublicName: cfg.publicName, Metrics: c.metrics, Logger: cfg.log,
		Retryable: state.Retryable,
		Ready:     func(ctx context.Context) []server.Check { return append(c.checks(ctx), cfg.ready()...) },
	})
	if err != nil {
		return nil, err
	}
	memberships := &capacity.Memberships{Store: c.store, Now: real.Now, Log: cfg.log}
	c.parts = []part{
		{"state", c.engine.Run},
		{"dispatcher", c.dispatcher.Run},
		{"scheduler", placer.Run},
		{"orchestrator", orch.Run},
		{"drainer", drainer.Run},
		{"service discovery", discovery.Run},
		{"capacity", memberships.Run},
		{"registry", c.registry.Run},
	}
	return c, nil
}

// checkSecret lets the registry take an access key and its secret as user name and password.
func checkSecret(c auth.Static) func(context.Context, string, string) (api.Identity, bool) {
	return func(ctx context.Context, id, secret string) (api.Identity, bool) {
		cred, ok, err := c.Lookup(ctx, id, "")
		if err != nil || !ok || subtle.ConstantTimeCompare([]byte(cred.SecretAccessKey), []byte(secret)) != 1 {
			return api.Identity{}, false
		}
		return cred.Identity, true
	}
}

// runTaskPlacer puts the scheduler's answers into the shapes of ECS.
type runTaskPlacer struct{ *placement.Placer }

func (p runTaskPlacer) PlaceNow(tx *state.Tx, tasks []*controlplane.Task) ([]*controlplane.TaskStatus, []ecstypes.Failure, error) {
	placed, why, err := p.Placer.PlaceNow(tx, tasks)
	if errors.Is(err, placement.ErrNoInstances) {
		return nil, nil, ecs.ErrNoInstances
	}
	var failures []ecstypes.Failure
	for _, f := range why {
		failures = append(failures, ecstypes.Failure{Arn: &f.ARN, Reason: &f.Reason, Detail: &f.Detail})
	}
	return placed, failures, err
}

// checks are the control plane's part of readiness.
func (c *controlPlane) checks(ctx context.Context) []server.Check {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := c.store.Linearizable(ctx)
	checks := []server.Check{{Name: "state", Err: err}}
	if e, ok := c.engine.(interface{ Health(context.Context) error }); ok {
		checks = append(checks, server.Check{Name: "etcd", Err: e.Health(ctx)})
	}
	return checks
}

// local opens the way from an agent in this process to the dispatcher: the same protocol, over memory.
func (c *controlPlane) local() (agentapi.DispatcherClient, part, error) {
	l := bufconn.Listen(1 << 20)
	g := grpc.NewServer()
	agentapi.RegisterDispatcherServer(g, c.dispatcher)
	conn, err := grpc.NewClient("passthrough:local", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		return nil, part{}, err
	}
	serve := func(ctx context.Context) error {
		done := make(chan error, 1)
		go func() { done <- g.Serve(l) }()
		<-ctx.Done()
		conn.Close()
		g.Stop()
		return <-done
	}
	return agentapi.NewDispatcherClient(conn), part{"agents' port", serve}, nil
}

// runParts runs all until ctx ends or one fails, then waits for all.
func runParts(ctx context.Context, parts ...part) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, len(parts))
	for _, p := range parts {
		go func() {
			err := p.run(ctx)
			if err == nil && ctx.Err() == nil {
				err = errors.New("ended without being told to")
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				err = fmt.Errorf("%s: %w", p.name, err)
				cancel(err)
			} else {
				err = nil
			}
			done <- err
		}()
	}
	var errs []error
	for range parts {
		errs = append(errs, <-done)
	}
	return errors.Join(errs...)
}
