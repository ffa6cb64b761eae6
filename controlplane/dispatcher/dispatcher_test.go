package dispatcher

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator/orchestratortest"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/clock"
)

var scope = controlplane.Scope{Account: "000000000000", Region: "us-east-1"}

// plane is a dispatcher on a state of its own, reached over memory.
type plane struct {
	*Server
	t      *testing.T
	clock  *clock.Fake
	dial   *grpc.ClientConn
	router *orchestratortest.Router
	life   *orchestrator.Lifecycle
}

// planeSchema are the tables of a plane.
var planeSchema = slices.Concat(controlplane.Schema, Schema, state.Schema{orchestratortest.Endpoints})

func newPlane(t *testing.T) *plane {
	c := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	p := newPlaneOn(t, Config{Store: statetest.New(t, planeSchema...), Clock: c})
	p.clock = c
	return p
}

// newPlaneOn is newPlane on a state and a clock that there are.
func newPlaneOn(t *testing.T, cfg Config) *plane {
	p := &plane{t: t, router: &orchestratortest.Router{}}
	log := slog.New(slog.DiscardHandler)
	p.life = orchestrator.NewLifecycle(cfg.Clock, rand.Reader, p.router)
	cfg.Rand, cfg.Log, cfg.Reporter, cfg.Sources = rand.Reader, log, p.life, []Source{Assignments{Log: log}}
	cfg.Rule = capacity.Rule{Account: scope.Account, Region: scope.Region}
	p.Server = New(cfg)
	listener := bufconn.Listen(1 << 16)
	// Windows that do not grow with the delays of a busy machine: a test counts what is under way.
	server := grpc.NewServer(grpc.InitialWindowSize(64<<10), grpc.InitialConnWindowSize(64<<10))
	agentapi.RegisterDispatcherServer(server, p.Server)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- server.Serve(listener) }()
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		server.Stop()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	var err error
	p.dial, err = grpc.NewClient("passthrough:///plane", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.dial.Close() })
	p.until("the publisher follows", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.watching
	})
	return p
}

// until waits for a condition.
func (p *plane) until(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			p.t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *plane) change(fn func(tx *state.Tx) error) state.Revision {
	p.t.Helper()
	r, err := p.Store.Update(context.Background(), fn)
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// task makes a task that is placed on a node.
func (p *plane) task(node string) *controlplane.Task {
	p.t.Helper()
	t := &controlplane.Task{
		Account: scope.Account, Region: scope.Region, Cluster: "default", Id: fmt.Sprintf("%032x", time.Now().UnixNano()),
		TaskDefinition: "web:1", LaunchType: "EC2", Demand: &controlplane.Demand{CpuUnits: 1, MemoryMib: 1},
	}
	p.change(func(tx *state.Tx) error {
		controlplane.TaskDefinitions.Put(tx, &controlplane.TaskDefinition{
			Account: scope.Account, Region: scope.Region, Family: "web", Revision: 1, Status: "ACTIVE",
			DefinitionJson: []byte(`{"containerDefinitions":[{"name":"web","image":"nginx"}]}`),
		})
		s, _ := controlplane.CreateTask(tx, t, nil).AdvancePlaced(node)
		controlplane.TaskStatuses.Put(tx, s)
		return nil
	})
	return t
}

func (p *plane) status(t *controlplane.Task) *controlplane.TaskStatus {
	s, _ := controlplane.TaskStatuses.Get(p.Store.View(), controlplane.Tasks.Key(t))
	return s
}

// agent is the other end of a session.
type agentSession struct {
	p      *plane
	stream agentapi.Dispatcher_SessionClient
	cancel context.CancelFunc
}

func (p *plane) connect(h *agentapi.Hello) *agentSession {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p.t.Cleanup(cancel)
	stream, err := agentapi.NewDispatcherClient(p.dial).Session(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	a := &agentSession{p, stream, cancel}
	a.send(&agentapi.Up{Body: &agentapi.Up_Hello{Hello: h}})
	return a
}

func hello(node string) *agentapi.Hello {
	return &agentapi.Hello{
		NodeId: node, NodeName: node + ".local", Kinds: []agentapi.Kind{agentapi.Kind_ASSIGNMENTS},
		Resources: &agentapi.NodeResources{CpuUnits: 4096, MemoryMib: 4096},
	}
}

func (a *agentSession) send(up *agentapi.Up) {
	a.p.t.Helper()
	if err := a.stream.Send(up); err != nil {
		a.p.t.Fatal(err)
	}
}

func (a *agentSession) receive() *agentapi.Down {
	a.p.t.Helper()
	d, err := a.stream.Recv()
	if err != nil {
		a.p.t.Fatal(err)
	}
	return d
}

func (a *agentSession) update() *agentapi.Update {
	a.p.t.Helper()
	d := a.receive()
	if d.GetUpdate() == nil {
		a.p.t.Fatalf("got %v instead of an update", d)
	}
	return d.GetUpdate()
}

func (a *agentSession) ack(u *agentapi.Update) {
	a.p.t.Helper()
	a.send(&agentapi.Up{Body: &agentapi.Up_Ack{Ack: &agentapi.Ack{Kind: u.Kind, Revision: u.Revision}}})
}

func (a *agentSession) report(s *agentapi.TaskStatus) {
	a.p.t.Helper()
	a.send(&agentapi.Up{Body: &agentapi.Up_Status{Status: &agentapi.StatusReport{Tasks: []*agentapi.TaskStatus{s}}}})
}

func TestSession(t *testing.T) {
	p := newPlane(t)
	a := p.connect(hello("a"))
	welcome := a.receive().GetWelcome()
	if welcome == nil || welcome.Incarnation == "" || welcome.LeaseMillis != 10000 || welcome.Account != scope.Account {
		t.Fatalf("welcome %v", welcome)
	}
	full := a.update()
	if !full.Full || len(full.Resources) != 0 || full.Kind != agentapi.Kind_ASSIGNMENTS {
		t.Fatalf("first update %v", full)
	}
	n, ok := controlplane.Nodes.Get(p.Store.View(), state.K("a"))
	if !ok || n.Status != "READY" || n.Resources.CpuUnits != 4096 || n.Name != "a.local" {
		t.Fatalf("node %v", n)
	}
	members := slices.Collect(controlplane.ContainerInstancesByNode.Scan(p.Store.View(), state.K("a")))
	if len(members) != 1 || members[0].Cluster != "default" || members[0].Status != "ACTIVE" {
		t.Fatalf("container instances %v", members)
	}

	// An assignment comes as a change, is reported on, and is withdrawn when the task has stopped.
	a.ack(full)
	task := p.task("a")
	u := a.update()
	if u.Full || len(u.Resources) != 1 || u.Revision <= full.Revision {
		t.Fatalf("update %v", u)
	}
	as := u.Resources[0].GetAssignment()
	if as.TaskId != task.Id || as.Epoch != 1 || as.Desired != agentapi.DesiredState_DESIRED_RUNNING || as.Spec.Containers[0].Image != "nginx" {
		t.Fatalf("assignment %v", as)
	}
	a.report(&agentapi.TaskStatus{TaskId: task.Id, Epoch: 1, State: agentapi.TaskState_RUNNING})
	p.until("the task runs", func() bool { return p.status(task).Observed == agentapi.TaskState_RUNNING })
	p.change(func(tx *state.Tx) error {
		_, err := p.life.Stop(tx, controlplane.Tasks.Key(task), "UserInitiated", "enough", false)
		return err
	})
	if u = a.update(); len(u.Resources) != 1 || u.Resources[0].GetAssignment().Desired != agentapi.DesiredState_DESIRED_STOPPED || u.Resources[0].GetAssignment().StopReason != "enough" {
		t.Fatalf("update %v", u)
	}
	a.report(&agentapi.TaskStatus{TaskId: task.Id, Epoch: 1, State: agentapi.TaskState_STOPPED, StopCode: "EssentialContainerExited"})
	if u = a.update(); len(u.Removed) != 1 || u.Removed[0] != task.Id {
		t.Fatalf("update %v", u)
	}
	if s := p.status(task); s.Observed != agentapi.TaskState_STOPPED || s.StopCode != "UserInitiated" || s.StoppedReason != "enough" {
		t.Fatalf("status %v", s)
	}
}

func TestForeignAndLateReportsAreDropped(t *testing.T) {
	p := newPlane(t)
	a, b := p.connect(hello("a")), p.connect(hello("b"))
	for _, s := range []*agentSession{a, b} {
		s.receive()
		s.update()
	}
	task := p.task("a")
	b.report(&agentapi.TaskStatus{TaskId: task.Id, Epoch: 1, State: agentapi.TaskState_STOPPED})
	a.report(&agentapi.TaskStatus{TaskId: task.Id, Epoch: 7, State: agentapi.TaskState_STOPPED})
	for node, s := range map[string]*agentSession{"a": a, "b": b} { // a node's reports are taken in in their order, those of two are not
		own := p.task(node)
		s.report(&agentapi.TaskStatus{TaskId: own.Id, Epoch: 1, State: agentapi.TaskState_RUNNING})
		p.until("later reports are in", func() bool { return p.status(own).Observed == agentapi.TaskState_RUNNING })
	}
	a.report(&agentapi.TaskStatus{TaskId: task.Id, Epoch: 1, State: agentapi.TaskState_RUNNING})
	p.until("the right report is in", func() bool { return p.status(task).Observed == agentapi.TaskState_RUNNING })
}

func TestAcknowledgements(t *testing.T) {
	p := newPlane(t)
	a, b := p.connect(hello("a")), p.connect(hello("b"))
	for _, s := range []*agentSession{a, b} {
		s.receive()
		s.ack(s.update())
	}
	p.task("a")
	r := p.Store.Revision()
	u := a.update()
	if p.Acknowledged(agentapi.Kind_ASSIGNMENTS, r) {
		t.Fatal("acknowledged before the subscriber has applied it")
	}
	a.ack(u)
	if !p.WaitAcked(context.Background(), agentapi.Kind_ASSIGNMENTS, r) {
		t.Fatal("not acknowledged although everybody whom it concerns has applied it")
	}

	// Who does not acknowledge is waited for until the lease is lost, with and without a stream.
	p.task("b")
	r = p.Store.Revision()
	b.update()
	b.cancel()
	p.clock.Advance(9 * time.Second)
	a.send(&agentapi.Up{Body: &agentapi.Up_Heartbeat{Heartbeat: &agentapi.Heartbeat{}}})
	p.until("a has its lease anew", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.subscribers["a"].seen.Equal(p.clock.Now())
	})
	if p.Acknowledged(agentapi.Kind_ASSIGNMENTS, r) {
		t.Fatal("a subscriber that went away is not waited for although its lease holds")
	}
	p.clock.Advance(2 * time.Second)
	if !p.Acknowledged(agentapi.Kind_ASSIGNMENTS, r) {
		t.Fatal("a subscriber that lost its lease is waited for")
	}
	for _, s := range p.Subscribers() {
		if s.Stale != (s.Node == "b") {
			t.Errorf("%s stale: %v", s.Node, s.Stale)
		}
	}
}

func TestWaitAckedIsBounded(t *testing.T) {
	p := newPlane(t)
	a := p.connect(hello("a"))
	a.receive()
	a.ack(a.update())
	p.task("a")
	result := make(chan bool)
	go func() { result <- p.WaitAcked(context.Background(), agentapi.Kind_ASSIGNMENTS, p.Store.Revision()) }()
	for {
		select {
		case acked := <-result:
			if acked {
				t.Fatal("acknowledged by nobody")
			}
			return
		default:
			// It stays alive and silent about the update.
			a.send(&agentapi.Up{Body: &agentapi.Up_Heartbeat{Heartbeat: &agentapi.Heartbeat{}}})
			p.until("the heartbeat is in", func() bool {
				p.mu.Lock()
				defer p.mu.Unlock()
				return p.subscribers["a"].seen.Equal(p.clock.Now())
			})
			p.clock.Advance(time.Second)
		}
	}
}

func TestNewerSessionReplacesOlder(t *testing.T) {
	p := newPlane(t)
	old := p.connect(hello("a"))
	old.receive()
	old.update()
	newer := p.connect(hello("a"))
	newer.receive()
	if c := old.receive().GetClose(); c == nil || c.Reason != "replaced by a newer session" {
		t.Fatalf("close %v", c)
	}
	if _, err := old.stream.Recv(); status.Code(err) != codes.Aborted {
		t.Fatalf("end of the older session: %v", err)
	}
	newer.ack(newer.update())
	task := p.task("a")
	if u := newer.update(); u.Resources[0].Name != task.Id {
		t.Fatalf("update %v", u)
	}
}

func TestSilentNodeIsGivenUp(t *testing.T) {
	p := newPlane(t)
	a := p.connect(hello("a"))
	a.receive()
	a.update()
	down := func() bool {
		n, _ := controlplane.Nodes.Get(p.Store.View(), state.K("a"))
		return n.Status == capacity.NodeDown
	}
	for range 9 {
		p.until("the watch sleeps", func() bool { return p.clock.Waiters() > 0 })
		p.clock.Advance(3 * time.Second)
		if down() {
			t.Fatal("given up before lease and grace are over")
		}
	}
	p.until("the node is given up", func() bool { p.clock.Advance(3 * time.Second); return down() })
	if c := a.receive().GetClose(); c == nil || c.Reason != "the lease is lost" {
		t.Fatalf("close %v", c)
	}
	b := p.connect(hello("a"))
	b.receive()
	p.until("the node is back", func() bool { return !down() })
}

func TestSlowSubscriberGetsMergedChanges(t *testing.T) {
	p := newPlane(t)
	a := p.connect(hello("a"))
	a.receive()
	a.update() // never acknowledged: one is in flight
	task := p.task("a")
	const changes = 300
	for i := range uint64(changes) {
		p.change(func(tx *state.Tx) error {
			s := controlplane.TaskStatuses
			now, _ := s.Get(tx, controlplane.Tasks.Key(task))
			next := &controlplane.TaskStatus{Account: now.Account, Region: now.Region, Cluster: now.Cluster, Id: now.Id, Desired: now.Desired, Observed: now.Observed, Node: "a", Epoch: i + 2}
			s.Put(tx, next)
			return nil
		})
	}
	r := p.Store.Revision()
	p.until("everything is published", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.published[agentapi.Kind_ASSIGNMENTS] >= r
	})
	p.mu.Lock()
	set := p.subscribers["a"].sets[agentapi.Kind_ASSIGNMENTS]
	waiting, inFlight := len(set.waiting), len(set.inFlight)
	p.mu.Unlock()
	if waiting > 1 || inFlight > maxInFlight {
		t.Fatalf("%d changes wait and %d updates are in flight for one resource", waiting, inFlight)
	}
	// Acknowledging lets the rest through: it ends with the last change.
	for updates := 1; ; updates++ {
		u := a.update()
		a.ack(u)
		if u.Resources[0].GetAssignment().Epoch == changes+1 {
			if updates > maxInFlight+1 {
				t.Fatalf("%d updates were sent", updates)
			}
			break
		}
	}
}

func TestRefusedSessions(t *testing.T) {
	p := newPlane(t)
	for name, c := range map[string]struct {
		up   *agentapi.Up
		code codes.Code
	}{
		"no hello":        {&agentapi.Up{Body: &agentapi.Up_Heartbeat{Heartbeat: &agentapi.Heartbeat{}}}, codes.InvalidArgument},
		"no node":         {&agentapi.Up{Body: &agentapi.Up_Hello{Hello: &agentapi.Hello{}}}, codes.InvalidArgument},
		"unknown kind":    {&agentapi.Up{Body: &agentapi.Up_Hello{Hello: &agentapi.Hello{NodeId: "a", Kinds: []agentapi.Kind{agentapi.Kind_ZONES}}}}, codes.Unavailable},
		"unknown cluster": {&agentapi.Up{Body: &agentapi.Up_Hello{Hello: &agentapi.Hello{NodeId: "a", Cluster: "elsewhere"}}}, codes.FailedPrecondition},
	} {
		ctx, cancel := context.WithCancel(context.Background())
		stream, err := agentapi.NewDispatcherClient(p.dial).Session(ctx)
		if err == nil {
			err = stream.Send(c.up)
		}
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
		cancel()
	}
}

// TestNothingOlderIsTold says that a server that is behind what the subscriber has seen refuses, until it has caught up.
func TestNothingOlderIsTold(t *testing.T) {
	p := newPlane(t)
	a := p.connect(hello("a"))
	incarnation := a.receive().GetWelcome().Incarnation
	a.update()

	ahead := hello("a")
	ahead.Incarnation = incarnation
	ahead.Revisions = map[int32]uint64{int32(agentapi.Kind_ASSIGNMENTS): uint64(p.Store.Revision()) + 2}
	result := make(chan error)
	b := p.connect(ahead)
	go func() {
		_, err := b.stream.Recv()
		result <- err
	}()
	for waiting := true; waiting; {
		select {
		case err := <-result:
			if status.Code(err) != codes.Unavailable {
				t.Fatalf("a subscriber that has seen more: %v", err)
			}
			waiting = false
		default:
			time.Sleep(time.Millisecond) // lets the session arm its limit; the clock moves until it is reached
			p.clock.Advance(100 * time.Millisecond)
		}
	}

	// It has caught up by the time that it looks, however late that is.
	p.clock.Advance(p.Lease)
	p.until("the watch sleeps", func() bool { return p.clock.Waiters() == 1 })
	b = p.connect(ahead)
	p.until("it waits", func() bool { return p.clock.Waiters() == 3 })
	p.task("a")
	p.task("a")
	p.clock.Advance(p.Lease)
	if b.receive().GetWelcome() == nil {
		t.Fatal("no welcome after catching up")
	}
}
