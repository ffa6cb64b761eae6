package dispatcher

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator/orchestratortest"
	"github.com/seed-2f228079/neargate/controlplane/scheduler/placement"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/id"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random operations; 0: a new one")

// TestInvariants runs the whole control plane (scheduler, orchestrator, dispatcher) with simulated agents under random operations
// and holds every committed transaction against the invariants of docs/design/task-model.md. In the end everybody behaves, and
// every service must come to have what it wants.
func TestInvariants(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	r := mathrand.New(mathrand.NewPCG(seed, 0))

	p := newPlane(t)
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	run := func(f func(context.Context) error) {
		parts.Add(1)
		go func() {
			defer parts.Done()
			if err := f(ctx); err != nil {
				t.Error(err)
			}
		}()
	}
	t.Cleanup(func() { cancel(); parts.Wait() })
	begin := p.Store.Revision()
	o := orchestrator.New(orchestrator.Config{
		Store: p.Store, Clock: p.clock, Rand: p.Rand, Log: log, Workers: 4,
		RouterTables: []state.TableInfo{orchestratortest.Endpoints},
	}, p.life)
	checker := &checker{t: t, nodeOf: map[state.Key]string{}, cpu: map[string]int{}}
	run(o.Run)
	placer := placement.New(p.Store, p.clock, log)
	run(placer.Run)
	run(func(ctx context.Context) error { return checker.follow(ctx, p.Store, begin) })
	run(func(ctx context.Context) error { return p.pass(ctx) })

	fleet := &fleet{p: p, lively: true}
	for i := range 4 {
		fleet.start(ctx, &parts, fmt.Sprintf("n%d", i), seed+uint64(i))
	}
	run(func(ctx context.Context) error { return fleet.traffic(ctx, seed) })

	p.until("the nodes are there", func() bool {
		return len(slices.Collect(controlplane.ContainerInstances.Scan(p.Store.View(), state.K()))) == 4
	})
	for n := range 3 {
		p.createService(fmt.Sprintf("s%d", n), r)
	}
	for step := range 150 {
		p.random(r, step, fleet, placer)
		time.Sleep(time.Duration(r.IntN(4)) * time.Millisecond) // lets the parts run in between; nothing depends on how long
	}
	fleet.behave()
	for s := range controlplane.LiveTasks.Scan(p.Store.View(), state.K()) {
		if s.Service == "" { // room for the services
			p.change(func(tx *state.Tx) error {
				_, err := p.life.Stop(tx, controlplane.TaskStatuses.Key(s), "UserInitiated", "Task stopped by user", false)
				return err
			})
		}
	}
	p.change(func(tx *state.Tx) error {
		for c := range controlplane.ContainerInstances.Scan(tx, state.K()) {
			c = proto.CloneOf(c)
			c.Status = capacity.Active
			controlplane.ContainerInstances.Put(tx, c)
		}
		return nil
	})
	for n := range 3 { // a deployment whose tasks have failed many times would wait for long
		p.change(func(tx *state.Tx) error {
			s, _ := controlplane.Services.Get(tx, scope.Key("default", fmt.Sprintf("s%d", n)))
			p.deploy(tx, proto.CloneOf(s), 2)
			return nil
		})
	}
	p.until("all services have what they want (seed "+fmt.Sprint(seed)+")", func() bool { return p.settled() })
	if checker.seen() < 200 {
		t.Errorf("only %d changes were checked", checker.seen())
	}
}

// pass lets the fake clock run, a thousand times as fast as the real one.
func (p *plane) pass(ctx context.Context) error {
	for ctx.Err() == nil {
		time.Sleep(time.Millisecond)
		p.clock.Advance(200 * time.Millisecond)
	}
	return nil
}

func (p *plane) createService(name string, r *mathrand.Rand) {
	p.change(func(tx *state.Tx) error {
		for revision := range uint32(3) {
			controlplane.TaskDefinitions.Put(tx, &controlplane.TaskDefinition{
				Account: scope.Account, Region: scope.Region, Family: name, Revision: revision + 1, Status: "ACTIVE",
				DefinitionJson: []byte(`{"containerDefinitions":[{"name":"web","image":"nginx"}]}`),
				Demand:         &controlplane.Demand{CpuUnits: 512, MemoryMib: 256},
			})
		}
		s := &controlplane.Service{
			Account: scope.Account, Region: scope.Region, Cluster: "default", Name: name, Status: capacity.Active, SchedulingStrategy: "REPLICA",
			DesiredCount: uint32(1 + r.IntN(4)), LaunchType: "EC2", MinimumHealthyPercent: 50, MaximumPercent: 200, HealthCheckGraceSeconds: 5,
		}
		if r.IntN(3) > 0 {
			s.LoadBalancersJson = `[{"targetGroupArn":"tg"}]`
		}
		p.deploy(tx, s, 1)
		return nil
	})
}

func (p *plane) deploy(tx *state.Tx, s *controlplane.Service, revision int) {
	for d := range controlplane.Deployments.Scan(tx, s.Scope().Key(s.Cluster, s.Name)) {
		d = proto.CloneOf(d)
		d.Status = "ACTIVE"
		controlplane.Deployments.Put(tx, d)
	}
	s.Generation++
	s.TaskDefinition = fmt.Sprintf("%s:%d", s.Name, revision)
	s.PrimaryDeployment = fmt.Sprintf("ecs-svc/%d", s.Generation)
	controlplane.Services.Put(tx, s)
	controlplane.Deployments.Put(tx, &controlplane.Deployment{
		Account: s.Account, Region: s.Region, Cluster: s.Cluster, Service: s.Name, Id: s.PrimaryDeployment, Status: "PRIMARY",
		TaskDefinition: s.TaskDefinition, LaunchType: "EC2", RolloutState: "IN_PROGRESS",
	})
}

// random does something that users or fate would do.
func (p *plane) random(r *mathrand.Rand, step int, f *fleet, placer *placement.Placer) {
	name := fmt.Sprintf("s%d", r.IntN(3))
	key := scope.Key("default", name)
	switch r.IntN(6) {
	case 0:
		p.change(func(tx *state.Tx) error {
			s, _ := controlplane.Services.Get(tx, key)
			s = proto.CloneOf(s)
			s.DesiredCount = uint32(r.IntN(6))
			controlplane.Services.Put(tx, s)
			return nil
		})
	case 1:
		p.change(func(tx *state.Tx) error {
			s, _ := controlplane.Services.Get(tx, key)
			p.deploy(tx, proto.CloneOf(s), 1+step%3)
			return nil
		})
	case 2:
		for s := range controlplane.LiveTasksByService.Scan(p.Store.View(), key) {
			p.change(func(tx *state.Tx) error {
				_, err := p.life.Stop(tx, controlplane.TaskStatuses.Key(s), "UserInitiated", "Task stopped by user", false)
				return err
			})
			break
		}
	case 3:
		p.change(func(tx *state.Tx) error {
			all := slices.Collect(controlplane.ContainerInstances.Scan(tx, state.K()))
			c := proto.CloneOf(all[r.IntN(len(all))])
			c.Status = []string{capacity.Active, capacity.Draining}[r.IntN(2)]
			controlplane.ContainerInstances.Put(tx, c)
			return nil
		})
	case 4:
		f.disturb(r)
	case 5:
		p.runTasks(placer, name, 1+r.IntN(5))
	}
}

// runTasks is RunTask on container instances: what finds no room is not created.
func (p *plane) runTasks(placer *placement.Placer, family string, count int) {
	p.change(func(tx *state.Tx) error {
		var tasks []*controlplane.Task
		for range count {
			t := &controlplane.Task{
				Account: scope.Account, Region: scope.Region, Cluster: "default", Id: id.Hex(p.Rand, 32), TaskDefinition: family + ":1",
				Group: "family:" + family, LaunchType: "EC2", Demand: &controlplane.Demand{CpuUnits: 512, MemoryMib: 256}, Created: timestamppb.New(p.clock.Now()),
			}
			controlplane.CreateTask(tx, t, nil)
			tasks = append(tasks, t)
		}
		placed, failures, err := placer.PlaceNow(tx, tasks)
		if (len(placed) < count) != (len(failures) > 0) {
			p.t.Errorf("%d of %d tasks placed with failures %v", len(placed), count, failures)
		}
		for _, t := range tasks[len(placed):] {
			s, _ := controlplane.TaskStatuses.Get(tx, controlplane.Tasks.Key(t))
			controlplane.DeleteTask(tx, s)
		}
		return err
	})
}

func (p *plane) settled() bool {
	v := p.Store.View()
	for s := range controlplane.Services.Scan(v, state.K()) {
		running := 0
		for status := range controlplane.LiveTasksByService.Scan(v, controlplane.Services.Key(s)) {
			t, _ := controlplane.Tasks.Get(v, controlplane.TaskStatuses.Key(status))
			if status.Observed != agentapi.TaskState_RUNNING || t.Deployment != s.PrimaryDeployment || !p.router.Healthy(v, t) {
				return false
			}
			running++
		}
		d, ok := controlplane.Deployments.Get(v, s.Scope().Key(s.Cluster, s.Name, s.PrimaryDeployment))
		if running != int(s.DesiredCount) || !ok || d.RolloutState != "COMPLETED" {
			return false
		}
	}
	return true
}

// checker holds every change of a task against the invariants.
type checker struct {
	t      *testing.T
	nodeOf map[state.Key]string // live tasks that are placed
	cpu    map[string]int       // taken of each node

	mu    sync.Mutex
	count int
}

func (c *checker) seen() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

func (c *checker) follow(ctx context.Context, store *state.Store, from state.Revision) error {
	w := store.Watch(ctx, from, controlplane.TaskStatuses, orchestratortest.Endpoints)
	endpoints := map[string]bool{}
	for {
		b, err := w.Next(ctx)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, state.ErrClosed) {
				return nil
			}
			return err
		}
		for i := 0; i < len(b.Events); {
			// One transaction: first its endpoints, then its tasks.
			end := i
			for end < len(b.Events) && b.Events[end].Revision == b.Events[i].Revision {
				if e := b.Events[end]; e.Table == orchestratortest.Endpoints {
					endpoints[e.Key.Parts()[0]] = e.New != nil
				}
				end++
			}
			for _, e := range b.Events[i:end] {
				if e.Table == controlplane.TaskStatuses {
					c.task(e, endpoints)
				}
			}
			for node, cpu := range c.cpu {
				if cpu > nodeCPU {
					c.t.Errorf("revision %d: %d units are taken of %d on %s", b.Events[i].Revision, cpu, nodeCPU, node)
				}
			}
			i = end
		}
	}
}

const nodeCPU = 4096

func (c *checker) task(e state.Event, endpoints map[string]bool) {
	c.mu.Lock()
	c.count++
	c.mu.Unlock()
	before, _ := e.Old.(*controlplane.TaskStatus)
	after, _ := e.New.(*controlplane.TaskStatus)
	bad := func(what string) { c.t.Errorf("revision %d: %s\nwas %v\nis  %v", e.Revision, what, before, after) }
	if node, placed := c.nodeOf[e.Key]; placed && (after == nil || !after.Live()) {
		c.cpu[node] -= 512
		delete(c.nodeOf, e.Key)
	} else if !placed && after != nil && after.Live() && after.Node != "" {
		c.cpu[after.Node] += 512
		c.nodeOf[e.Key] = after.Node
	}
	if before == nil || after == nil {
		return
	}
	if after.Desired < before.Desired || after.Observed < before.Observed {
		bad("1. a state moved backwards")
	}
	if before.Node != "" && after.Node != before.Node {
		bad("2. the node changed")
	}
	if before.Observed == agentapi.TaskState_STOPPED {
		bad("3. a stopped task changed")
	}
	if before.Desired < agentapi.TaskState_STOPPED && after.Desired == agentapi.TaskState_STOPPED && after.Live() && endpoints[after.Id] {
		bad("5. a task gets its stop signal while it has endpoints")
	}
	if !after.Live() && endpoints[after.Id] {
		bad("a stopped task has endpoints")
	}
}

// fleet is agents, proxies and health checks, more or less well-behaved.
type fleet struct {
	p      *plane
	mu     sync.Mutex
	lively bool
	agents []*simulated
}

type simulated struct {
	node  string
	drop  chan struct{} // capacity 1: ends the session
	quiet bool          // stays away for a while; guarded by fleet.mu
}

func (f *fleet) start(ctx context.Context, parts *sync.WaitGroup, node string, seed uint64) {
	a := &simulated{node: node, drop: make(chan struct{}, 1)}
	f.agents = append(f.agents, a)
	parts.Add(1)
	go func() {
		defer parts.Done()
		r := mathrand.New(mathrand.NewPCG(seed, 1))
		for ctx.Err() == nil {
			f.session(ctx, a, r)
			time.Sleep(time.Millisecond)
		}
	}()
}

func (f *fleet) disturb(r *mathrand.Rand) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.agents[r.IntN(len(f.agents))]
	a.quiet = r.IntN(2) == 0
	select {
	case a.drop <- struct{}{}:
	default:
	}
}

func (f *fleet) behave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lively = false
	for _, a := range f.agents {
		a.quiet = false
	}
}

func (f *fleet) moody() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lively
}

func (f *fleet) away(a *simulated) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return a.quiet
}

// session is one life of an agent's stream; tasks' states are those of the control plane's records, as if persisted.
func (f *fleet) session(ctx context.Context, a *simulated, r *mathrand.Rand) {
	if f.away(a) {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := agentapi.NewDispatcherClient(f.p.dial).Session(ctx)
	if err != nil {
		return
	}
	h := hello(a.node)
	h.Resources.CpuUnits = nodeCPU
	if stream.Send(&agentapi.Up{Body: &agentapi.Up_Hello{Hello: h}}) != nil {
		return
	}
	downs := make(chan *agentapi.Down)
	go func() {
		defer close(downs)
		for {
			d, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case downs <- d:
			case <-ctx.Done():
				return
			}
		}
	}()
	say := func(as *agentapi.Assignment, s agentapi.TaskState) {
		report := &agentapi.TaskStatus{TaskId: as.TaskId, Epoch: as.Epoch, State: s, Started: timestamppb.New(f.p.Clock.Now())}
		_ = stream.Send(&agentapi.Up{Body: &agentapi.Up_Status{Status: &agentapi.StatusReport{Tasks: []*agentapi.TaskStatus{report}}}})
	}
	tasks := map[string]*agentapi.Assignment{}
	beat := time.NewTicker(2 * time.Millisecond)
	defer beat.Stop()
	for {
		select {
		case d, ok := <-downs:
			if !ok {
				return
			}
			u := d.GetUpdate()
			if u.GetFull() {
				clear(tasks)
			}
			for _, res := range u.GetResources() {
				tasks[res.Name] = res.GetAssignment()
			}
			for _, name := range u.GetRemoved() {
				delete(tasks, name)
			}
			if u != nil {
				_ = stream.Send(&agentapi.Up{Body: &agentapi.Up_Ack{Ack: &agentapi.Ack{Kind: u.Kind, Revision: u.Revision}}})
			}
		case <-beat.C:
			_ = stream.Send(&agentapi.Up{Body: &agentapi.Up_Heartbeat{Heartbeat: &agentapi.Heartbeat{}}})
			for _, as := range tasks {
				switch {
				case as.Desired == agentapi.DesiredState_DESIRED_STOPPED:
					say(as, agentapi.TaskState_STOPPED)
				case f.moody() && r.IntN(60) == 0:
					say(as, agentapi.TaskState_STOPPED) // ends by itself
				case f.moody() && r.IntN(4) == 0:
					say(as, agentapi.TaskState_PENDING) // perhaps late
				default:
					say(as, agentapi.TaskState_RUNNING)
				}
			}
		case <-a.drop:
			return
		case <-ctx.Done():
			return
		}
	}
}

// traffic is what proxies and health checks bring about: endpoints become healthy or fail, drained ones are deleted.
func (f *fleet) traffic(ctx context.Context, seed uint64) error {
	r := mathrand.New(mathrand.NewPCG(seed, 2))
	for ctx.Err() == nil {
		for s := range controlplane.LiveTasks.Scan(f.p.Store.View(), state.K()) {
			_, err := f.p.Store.Update(ctx, func(tx *state.Tx) error {
				switch now := orchestratortest.State(tx, s.Id); {
				case now == agentapi.EndpointState_ENDPOINT_UNSPECIFIED:
				case now == agentapi.EndpointState_ENDPOINT_DRAINING:
					orchestratortest.Endpoints.Delete(tx, state.K(s.Id))
				case f.moody() && r.IntN(20) == 0:
					orchestratortest.Set(tx, s.Id, agentapi.EndpointState_ENDPOINT_UNHEALTHY)
				case now == agentapi.EndpointState_ENDPOINT_INITIAL:
					orchestratortest.Set(tx, s.Id, agentapi.EndpointState_ENDPOINT_HEALTHY)
				}
				return nil
			})
			if err != nil && ctx.Err() == nil {
				return err
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	return nil
}
