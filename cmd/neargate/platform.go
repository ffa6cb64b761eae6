package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
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
	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/api/server"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/dispatcher"
	"github.com/seed-2f228079/neargate/controlplane/ec2"
	"github.com/seed-2f228079/neargate/controlplane/ecs"
	"github.com/seed-2f228079/neargate/controlplane/ecsagent"
	"github.com/seed-2f228079/neargate/controlplane/elb"
	"github.com/seed-2f228079/neargate/controlplane/events"
	"github.com/seed-2f228079/neargate/controlplane/execute"
	"github.com/seed-2f228079/neargate/controlplane/iam"
	"github.com/seed-2f228079/neargate/controlplane/logs"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator"
	"github.com/seed-2f228079/neargate/controlplane/peers"
	"github.com/seed-2f228079/neargate/controlplane/scheduler/placement"
	"github.com/seed-2f228079/neargate/controlplane/secrets"
	"github.com/seed-2f228079/neargate/controlplane/secretsmanager"
	"github.com/seed-2f228079/neargate/controlplane/ssm"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/etcd"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/controlplane/sts"
	"github.com/seed-2f228079/neargate/controlplane/tasks"
	"github.com/seed-2f228079/neargate/controlplane/upgrade"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/datadir"
	"github.com/seed-2f228079/neargate/internal/seal"
	"github.com/seed-2f228079/neargate/internal/trust"
	speaks "github.com/seed-2f228079/neargate/internal/version"
	"github.com/seed-2f228079/neargate/mesh"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/servicediscovery"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/bucket"
	"github.com/seed-2f228079/neargate/storage/stream"
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
	guard     bool                       // loopback protections
	remotes   map[string]registry.Remote // other clusters that images are replicated to, by region
	scan      scanFlags
	sign      signFlags
	objects   objects        // files of environment variables are among them, and sessions of ECS Exec are kept there
	blobs     blobStoreFlags // where blobs are if not on this server's disk
	// loadBalancer is the handler of the load balancer that has this host name; nil: no proxy is in this process.
	loadBalancer func(host string) http.Handler
	// ready are checks of parts outside of the control plane.
	ready func() []server.Check
	// routers says what the orchestrator gets instead of the routers; nil: themselves.
	routers func([]orchestrator.Router) []orchestrator.Router
	cluster *clusterConfig // nil: there are no other servers
	rates   server.Rates
	log     *slog.Logger
}

// clusterConfig is what a server has to speak to others.
type clusterConfig struct {
	port       *trust.Port
	credential *trust.Credential
	address    string        // of the peer port, as the others reach it
	members    []raft.Server // of a cluster that is new
	authority  *trust.Authority
	blobCopies int           // on so many servers a layer is before its push is acknowledged
	logCopies  int           // likewise a log event
	deadAfter  time.Duration // for which a server is silent before it is removed; 0: never
}

// controlPlane is one server: state, families, reconcilers, registry and the public port.
type controlPlane struct {
	engine     engine
	store      *state.Store
	peers      *peers.Peers // nil: there are none
	dispatcher *dispatcher.Server
	registry   *registry.Registry
	bucket     *bucket.Bucket // that has the blobs; nil: they are on servers' disks
	metrics    *prometheus.Registry
	operations []api.Operation
	resources  []api.RESTResource
	parts      []part // in the order they start
	public     *server.Server
}

// blobReserve is what image layers leave free of the disk, which the state is on as well: without room for its log nothing could be deleted.
const blobReserve = 512 << 20

// part is something that runs until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// schema is every family's tables.
func schema() state.Schema {
	return slices.Concat(controlplane.Schema, dispatcher.Schema, ec2.Schema, elb.Schema, events.Schema, iam.Schema, logs.Schema, mesh.Schema, peers.Schema, registry.Schema,
		secretsmanager.Schema, servicediscovery.Schema, ssm.Schema, upgrade.Schema)
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
	sealIAM, err := seal.New(cfg.dir.SealingKey(), "iam")
	if err != nil {
		return nil, err
	}
	sealSessions, err := seal.New(cfg.dir.SealingKey(), "sessions")
	if err != nil {
		return nil, err
	}
	sealSecrets, err := seal.New(cfg.dir.SealingKey(), "secretsmanager")
	if err != nil {
		return nil, err
	}
	sealParameters, err := seal.New(cfg.dir.SealingKey(), "ssm")
	if err != nil {
		return nil, err
	}
	sealWebhooks, err := seal.New(cfg.dir.SealingKey(), "event webhooks")
	if err != nil {
		return nil, err
	}
	roots, err := auth.NewStatic(cfg.roots...)
	if err != nil {
		return nil, err
	}
	var address string
	var deadAfter time.Duration
	if cfg.cluster != nil {
		address, deadAfter = cfg.cluster.address, cfg.cluster.deadAfter
	}
	if c.engine, err = cfg.state.open(cfg.dir, address, deadAfter, cfg.raftOptions, cfg.log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.engine.Close())
		}
	}()
	if c.store, err = state.New(c.engine, schema(), state.Options{Logger: cfg.log, Admit: upgrade.Admit}); err != nil {
		return nil, err
	}
	if cfg.cluster != nil {
		c.peers = peers.New(cfg.peers(c.engine, c.store))
	}
	blobs, err := blob.Open(cfg.dir.Blobs(), blob.Options{Reserve: blobReserve, Logger: cfg.log})
	if err != nil {
		return nil, err
	}
	if c.bucket, err = cfg.blobs.open(blobs, cfg.region, seal.Name(cfg.dir.SealingKey()), cfg.log); err != nil {
		return nil, err
	}
	streams, err := stream.Open(cfg.dir.Streams(), stream.Options{Logger: cfg.log, SegmentAge: logs.SegmentAge.Milliseconds()})
	if err != nil {
		return nil, err
	}

	var real clock.Real
	var network ec2.Network
	pages := api.NewPages(sealPages)
	identities := iam.New(iam.Config{Store: c.store, Rand: rand.Reader, Pages: pages, Seal: sealIAM, Clock: real, Log: cfg.log})
	credentials := auth.Chain{roots, identities}
	access := &auth.IAM{Principals: identities, Tags: tagsOf(c.store), Resource: c.policyOf(identities), Recovery: registry.Recovery}
	tokens := sts.New(sts.Config{Roles: identities, Sessions: identities, Authorizer: access, Clock: real, AccountOfKey: iam.AccountOfKey})
	balancing := elb.New(elb.Config{Store: c.store, Rand: rand.Reader, Pages: pages, Network: network, Domain: cfg.domain, Instance: cfg.dir.ID()})
	virtual := ec2.New(ec2.Config{Store: c.store, Rand: rand.Reader, Pages: pages, Network: network, Uses: elb.UsesSecurityGroup})
	discovery := servicediscovery.New(servicediscovery.Config{Store: c.store, Rand: rand.Reader, Pages: pages, Clock: real, VPCExists: network.VPCExists})
	keepingLogs := logs.Config{Store: c.store, Events: streams, Rand: rand.Reader, Pages: pages, Clock: real, Log: cfg.log, TaskMay: tokens.TaskMay}
	if c.peers != nil {
		keepingLogs.Servers, keepingLogs.Copies = peers.Streams{Peers: c.peers}, cfg.cluster.logCopies
	}
	logging := logs.New(keepingLogs)
	secretValues := secretsmanager.New(secretsmanager.Config{
		Store: c.store, Rand: rand.Reader, Pages: pages, Seal: sealSecrets, Authorizer: access, Clock: real, Log: cfg.log,
	})
	parameters := ssm.New(ssm.Config{Store: c.store, Rand: rand.Reader, Pages: pages, Seal: sealParameters, Clock: real, Log: cfg.log})
	routers := []orchestrator.Router{elb.Router{Clock: real}, servicediscovery.Router{Clock: real}}
	if cfg.routers != nil {
		routers = cfg.routers(routers)
	}
	lifecycle := orchestrator.NewLifecycle(real, rand.Reader, routers...)
	placer := placement.New(c.store, real, cfg.log)
	scanner, err := cfg.scan.scanner(cfg.dir)
	if err != nil {
		return nil, err
	}
	gate, err := cfg.scan.severity()
	if err != nil {
		return nil, err
	}
	signatures, err := cfg.sign.signatures()
	if err != nil {
		return nil, err
	}
	signer, err := cfg.sign.signer()
	if err != nil {
		return nil, err
	}
	keeping := registry.Config{
		Store: c.store, Blobs: blobs, Seal: sealRegistry, Region: cfg.region, Domain: cfg.domain, Log: cfg.log,
		PublicName: func(string, string) string { return cfg.publicName }, TLS: cfg.tls,
		Credentials: checkSecret(credentials), Authorizer: access, Principals: iam.PrincipalID, Weigh: access.Weigh, Users: controlplane.ImagesInUse, Remotes: cfg.remotes,
		ScrubFile: filepath.Join(cfg.dir.Path(), "scrub.json"),
		Bucket:    c.bucket,
		Scanner:   scanner, Scratch: cfg.dir.Cache("scan"), Gate: gate, Signatures: signatures, Signer: signer,
	}
	if c.peers != nil {
		c.peers.Blobs, c.peers.Streams, c.peers.Logs = blobs, streams, logging
		keeping.Copies = &peers.Blobs{Peers: c.peers, Store: blobs, Copies: cfg.cluster.blobCopies}
	}
	if c.registry, err = registry.New(keeping); err != nil {
		return nil, err
	}
	if c.peers != nil {
		c.peers.Registry = c.registry
	}
	c.metrics.MustRegister(scrubMetrics(c.registry)...)
	if c.bucket != nil {
		c.metrics.MustRegister(blobStoreMetrics(c.bucket, c.registry)...)
	}
	drainer := mesh.NewDrainer(mesh.DrainerConfig{Store: c.store, Clock: real, Log: cfg.log})
	confided := &secrets.Resolver{Roles: tokens, Authorizer: access, Objects: cfg.objects.files}
	dispatching := dispatcher.Config{
		Store: c.store, Clock: real, Rand: rand.Reader, Log: cfg.log, Rule: cfg.rule, Authorize: cfg.authorizeNode(), Reporter: lifecycle, Traffic: drainer,
		LogStreams: logging, Roles: tokens, Secrets: confided,
		Sources: []dispatcher.Source{
			dispatcher.Assignments{Log: cfg.log, Credentials: c.registry.PullCredentials, Answer: c.registry.Answer, Roles: tokens, DefaultGroup: network.DefaultSecurityGroup, Plans: new(controlplane.Plans)},
			dispatcher.Peers{}, ec2.FirewallSource{},
			elb.ListenerSource{Service: balancing}, elb.NewTargetSource(network), elb.NewCheckSource(network),
			servicediscovery.Source{Names: elb.Names{Service: balancing}},
		},
	}
	if cfg.cluster != nil {
		dispatching.Papers = wantedPapers(cfg.cluster.authority)
	}
	if c.peers != nil {
		dispatching.Leader, dispatching.Self, dispatching.Servers = c.peers.Relay, cfg.dir.ID(), c.peers.Others
	}
	c.dispatcher = dispatcher.New(dispatching)
	drainer.Subscribers = c.dispatcher
	orch := orchestrator.New(orchestrator.Config{
		Store: c.store, Clock: real, Rand: rand.Reader, Log: cfg.log, RouterTables: []state.TableInfo{mesh.Endpoints, elb.Listeners, elb.Rules},
		Assume: func(account, role, taskARN string) error {
			_, err := tokens.TaskIdentity(account, role, taskARN)
			return err
		},
		Workers: 4, TaskOf: taskOfEndpoint,
	}, lifecycle)
	sessionsOn := execute.Config{Nodes: c.dispatcher, Open: c.openExec, Seal: sealSessions, Rand: rand.Reader, Clock: real, Log: cfg.log, Keep: logging.KeepSession}
	if cfg.objects.buckets != nil {
		sessionsOn.KeepObject = (&execute.Buckets{Store: c.store, TaskMay: tokens.TaskMay, Client: cfg.objects.buckets}).Keep
	}
	sessions := execute.New(sessionsOn)
	containers := ecs.New(ecs.Config{
		Store: c.store, Rand: rand.Reader, Pages: pages, TargetGroups: balancing, Registries: discovery, Network: network,
		Placer: runTaskPlacer{placer}, Lifecycle: lifecycle, Roles: roles{access, tokens}, Sessions: sessions,
		SessionBuckets: cfg.objects.buckets != nil,
	})
	gateway, err := ecsagent.New(ecsagent.Config{Store: c.store, Dispatcher: c.dispatcher, Roles: tokens, Key: cfg.dir.SealingKey(), Rand: rand.Reader, Clock: real, Log: cfg.log})
	if err != nil {
		return nil, err
	}
	c.metrics.MustRegister(agentMetrics(gateway)...)
	happened := events.New(events.Config{Store: c.store, Streams: streams, Shapes: containers, Clock: real, Log: cfg.log, Rand: rand.Reader, Seal: sealWebhooks})
	c.operations = slices.Concat(containers.Operations(), balancing.Operations(), c.registry.Operations(), c.registry.PublicOperations(), discovery.Operations(),
		logging.Operations(), virtual.Operations(), identities.Operations(), tokens.Operations(),
		secretValues.Operations(), parameters.Operations())
	c.resources = slices.Concat(tasks.New(tasks.Config{Store: c.store, Placer: placer, Nodes: c.dispatcher}).Resources(), happened.Resources(), c.registry.Resources())
	operator := peers.Operator{Engine: c.engine, Store: c.store, Peers: c.peers, Rand: rand.Reader, Clock: real}
	if cfg.cluster != nil {
		operator.Tokens = trust.NewTokens(cfg.dir.SealingKey())
		operator.Rotation = &peers.Rotation{
			Authority: cfg.cluster.authority, Store: c.store, Engine: c.engine, Peers: c.peers, Cut: cfg.cluster.port.Cut, Clock: real, Log: cfg.log,
		}
	}
	c.resources = append(c.resources, operator.Resources()...)
	serving := server.Config{
		Operations: c.operations, Resources: c.resources, Credentials: credentials, Authorizer: access,
		Observe: identities.Used, Account: cfg.account, Region: cfg.region,
		Registry: c.registry.Handler(), DataChannels: sessions, AgentChannels: gateway, LoadBalancer: cfg.loadBalancer, Guard: cfg.guard,
		Names: []string{cfg.publicName, cfg.domain}, PublicName: cfg.publicName, Metrics: c.metrics, Logger: cfg.log, Rates: cfg.rates,
		Retryable: func(err error) bool { return state.Retryable(err) || errors.Is(err, bucket.ErrUnavailable) }, Reason: unwritable, TooLarge: tooLarge,
		Ready: func(ctx context.Context) []server.Check { return append(c.checks(ctx), cfg.ready()...) },
	}
	if c.peers != nil {
		serving.Cluster = c.peers
	}
	if c.public, err = server.New(serving); err != nil {
		return nil, err
	}
	confided.Invoker = c.public
	keeper := &upgrade.Keeper{Store: c.store, Speaks: speaks.Speaks, Self: cfg.dir.ID(), Clock: real, Log: cfg.log}
	if c.peers != nil {
		keeper.Members, keeper.Ask = c.engine.Members, c.peers.Speaks
	}
	c.metrics.MustRegister(versionMetrics(c.store)...)
	memberships := &capacity.Memberships{Store: c.store, Now: real.Now, Log: cfg.log}
	c.parts = []part{
		{"state", c.engine.Run},
		{"version", keeper.Run},
		{"dispatcher", c.dispatcher.Run},
		{"scheduler", placer.Run},
		{"orchestrator", orch.Run},
		{"drainer", drainer.Run},
		{"service discovery", discovery.Run},
		{"capacity", memberships.Run},
		{"streams", func(ctx context.Context) error { return errors.Join(streams.Run(ctx), streams.Close()) }},
		{"blobs", func(ctx context.Context) error { <-ctx.Done(); return blobs.Settle() }},
		{"logs", logging.Run},
		{"secrets", secretValues.Run},
		{"parameters", parameters.Run},
		{"events", happened.Run},
		{"registry", c.registry.Run},
	}
	c.parts = append(c.parts, nextParts(c)...)
	if c.peers != nil {
		c.peers.Forwarded, c.peers.Dispatcher = c.public.Forwarded(), c.dispatcher
		c.parts = append(c.parts, part{"peers", c.peers.Run}, part{"authority", operator.Rotation.Run})
	}
	return c, nil
}

// authorizeNode says whether a session may act for a node: as cfg says, or because it is of an ECS agent whom the gateway has let in.
func (cfg controlConfig) authorizeNode() func(ctx context.Context, node string) error {
	if cfg.authorize == nil {
		return nil
	}
	return func(ctx context.Context, node string) error {
		if node != "" && ecsagent.ActsFor(ctx) == node {
			return nil
		}
		return cfg.authorize(ctx, node)
	}
}

// agentMetrics say how many of Amazon's agents are connected to this server.
func agentMetrics(g *ecsagent.Gateway) []prometheus.Collector {
	gauge := func(kind string, value func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "neargate_ecs_agent_connections", Help: "Connections of Amazon's ECS agents to this server.",
			ConstLabels: prometheus.Labels{"kind": kind}}, func() float64 { return float64(value()) })
	}
	return []prometheus.Collector{
		gauge("poll", func() int64 { poll, _ := g.Sessions(); return poll }),
		gauge("telemetry", func() int64 { _, telemetry := g.Sessions(); return telemetry }),
	}
}

// taskOfEndpoint is the task that an endpoint's event is about.
func taskOfEndpoint(e state.Event) (state.Key, bool) {
	record := e.New
	if record == nil {
		record = e.Old
	}
	p, ok := record.(*mesh.Endpoint)
	if !ok || p.Task == "" {
		return "", false
	}
	return controlplane.Scope{Account: p.Account, Region: p.Region}.Key(p.Cluster, p.Task), true
}

// openExec runs a command on a node.
func (c *controlPlane) openExec(ctx context.Context, node string, req *agentapi.ExecRequest) (execute.Command, error) {
	e, err := c.dispatcher.OpenExec(ctx, node, req)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// tagsOf finds the tags of anything by its ARN, for conditions on them.
func tagsOf(store *state.Store) func(string) map[string]string {
	return func(name string) map[string]string {
		a, err := arn.Parse(name)
		if err != nil {
			return nil
		}
		if a.Service == "logs" { // a stream has its group's
			name, _, _ = strings.Cut(name, ":log-stream:")
		}
		return controlplane.TagsOf(store.View(), controlplane.Scope{Account: a.Account, Region: a.Region}, name)
	}
}

// scrubMetrics say how the registry's blobs on this disk are.
func scrubMetrics(r *registry.Registry) []prometheus.Collector {
	gauge := func(name, help string, value func(registry.Scrub) int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "neargate_registry_scrub_" + name, Help: help}, func() float64 { return float64(value(r.Scrub())) })
	}
	return []prometheus.Collector{
		gauge("blobs", "Blobs that the pass under way, or the last one, has read again.", func(s registry.Scrub) int { return int(s.Blobs) }),
		gauge("rotten", "Blobs that were found rotten since this server was made.", func(s registry.Scrub) int { return int(s.Rotten) }),
		gauge("repaired", "Blobs that were rotten or missing and came back.", func(s registry.Scrub) int { return int(s.Repaired) }),
		gauge("lost", "Blobs that are nowhere, as last found.", func(s registry.Scrub) int { return len(s.Lost) }),
	}
}

// versionMetrics say what this server speaks, and what all servers do.
func versionMetrics(s *state.Store) []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "neargate_server_version", Help: "Version that this server's build speaks."},
			func() float64 { return speaks.Speaks }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "neargate_cluster_version", Help: "Version that all servers of the cluster speak: what came later is held back."},
			func() float64 { return float64(upgrade.Of(s.View())) }),
	}
}

// policyOf finds the policies that resources have themselves: roles, which nobody gets past to assume them, and repositories.
func (c *controlPlane) policyOf(identities *iam.Service) func(action, name string) (*policy.Policy, bool) {
	return func(action, name string) (*policy.Policy, bool) {
		switch action {
		case "sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity":
			trust, _ := identities.Trust(name)
			return trust, true
		}
		if strings.HasPrefix(action, "ecr:") || strings.HasPrefix(action, "ecr-public:") {
			return c.registry.ResourcePolicy(action, name), false
		}
		return nil, false
	}
}

// dial connects to a server, and makes sure that it is the one that id names.
func (c *clusterConfig) dial(ctx context.Context, protocol, id, address string) (net.Conn, error) {
	return c.credential.Dial(ctx, protocol, trust.Identity{Role: trust.Server, ID: id}, address)
}

// raftOptions are how the state is kept by this server alone, or with others.
func (cfg controlConfig) raftOptions() raft.Options {
	o := raft.Options{Dir: cfg.dir.State("main"), NodeID: cfg.dir.ID(), Logger: cfg.log}
	if c := cfg.cluster; c != nil {
		o.Servers, o.Autopilot.DeadAfter = c.members, c.deadAfter
		o.Transport = &raft.Transport{
			Listener: c.port.Handle(peers.ProtocolRaft, trust.Server), Address: c.address,
			Dial: func(ctx context.Context, id, address string) (net.Conn, error) {
				// Whoever has got his answer elsewhere meanwhile does not break a handshake off: the connection will be of use.
				limit, cancel := context.WithoutCancel(ctx), context.CancelFunc(func() {})
				if deadline, ok := ctx.Deadline(); ok {
					limit, cancel = context.WithDeadline(limit, deadline)
				}
				defer cancel()
				return c.dial(limit, peers.ProtocolRaft, id, address)
			},
		}
	}
	return o
}

func (cfg controlConfig) peers(engine peers.Group, store *state.Store) peers.Config {
	c := cfg.cluster
	return peers.Config{
		ID: cfg.dir.ID(), Address: c.address, Engine: engine, Store: store, Dial: c.dial, Clock: clock.Real{}, Log: cfg.log,
		Forwards: c.port.Handle(peers.ProtocolForward, trust.Server), Relays: c.port.Handle(peers.ProtocolRelay, trust.Server),
		Authority: c.authority, Outdated: c.port.Outdated,
		Peer: func(conn net.Conn) (string, bool) {
			who, ok := trust.ConnPeer(conn)
			return who.ID, ok
		},
	}
}

// checkSecret lets the registry take an access key and its secret as user name and password.
func checkSecret(c auth.Credentials) func(context.Context, string, string) (api.Identity, bool) {
	return func(ctx context.Context, id, secret string) (api.Identity, bool) {
		cred, ok, err := c.Lookup(ctx, id, "")
		if err != nil || !ok || subtle.ConstantTimeCompare([]byte(cred.SecretAccessKey), []byte(secret)) != 1 {
			return api.Identity{}, false
		}
		return cred.Identity, true
	}
}

// roles are IAM's answers and STS's in one.
type roles struct {
	*auth.IAM
	*sts.Service
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
	checks := []server.Check{
		{Name: "state", Err: err},
		{Name: fmt.Sprintf("version %d (the cluster's: %d)", speaks.Speaks, upgrade.Of(c.store.View()))}, // of another one it would not run
	}
	keeps := "disk"
	if _, ok := c.engine.(*etcd.Engine); ok {
		keeps = "etcd"
	}
	checks = append(checks, server.Check{Name: keeps, Err: c.engine.Health(ctx)})
	if c.bucket != nil {
		checks = append(checks, server.Check{Name: "blob store", Err: c.bucket.Health(ctx), Shared: true})
	}
	return checks
}

// local opens the way from an agent in this process to the dispatcher: the same protocol, over memory.
func (c *controlPlane) local() (agentapi.DispatcherClient, part, error) {
	l := bufconn.Listen(1 << 16) // it counts, twice each way, as live memory
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

// localTasks is the way from tasks of this process's host to the API, over memory as well.
func (c *controlPlane) localTasks() (func(context.Context) (net.Conn, error), part) {
	l := bufconn.Listen(1 << 16)
	return l.DialContext, part{"tasks' port", func(ctx context.Context) error { return c.public.RunTasks(ctx, l) }}
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
				err = errEnded
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
	var errs, ended []error
	for range parts {
		if err := <-done; errors.Is(err, errEnded) {
			ended = append(ended, err)
		} else {
			errs = append(errs, err)
		}
	}
	return cmp.Or(errors.Join(errs...), errors.Join(ended...))
}

// errEnded is of a part that has nothing to say of why. What it stands on may have failed, and says more.
var errEnded = errors.New("ended without being told to")
