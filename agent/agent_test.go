package agent

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/clock"
)

const taskA = "0123456789abcdef0123456789abcdef"

// server is a control plane as an agent sees it: one session, driven by the test.
type server struct {
	agentapi.UnimplementedDispatcherServer
	incarnation string
	hellos      chan *agentapi.Hello
	ups         chan *agentapi.Up
	downs       chan *agentapi.Down
	stream      *stream // takes what is shipped
	roles       *roleServer
	secrets     func(*agentapi.TaskSecretsRequest) (*agentapi.TaskSecretsAnswer, error)
	execs       chan *execCall
}

func (s *server) TaskSecrets(_ context.Context, req *agentapi.TaskSecretsRequest) (*agentapi.TaskSecretsAnswer, error) {
	return s.secrets(req)
}

func (s *server) Session(st agentapi.Dispatcher_SessionServer) error {
	m, err := st.Recv()
	if err != nil {
		return err
	}
	if err := st.Send(&agentapi.Down{Body: &agentapi.Down_Welcome{Welcome: &agentapi.Welcome{SessionId: "s", Incarnation: s.incarnation, HeartbeatMillis: 20}}}); err != nil {
		return err
	}
	s.hellos <- m.GetHello()
	go func() {
		for {
			u, err := st.Recv()
			if err != nil {
				return
			}
			s.ups <- u
		}
	}()
	for {
		select {
		case d := <-s.downs:
			if d == nil {
				return nil
			}
			if err := st.Send(d); err != nil {
				return err
			}
		case <-st.Context().Done():
			return nil
		}
	}
}

// host is an agent under test with its server.
type host struct {
	*server
	t      *testing.T
	agent  *Agent
	cancel context.CancelFunc
	done   chan error
	last   map[string]*agentapi.TaskStatus
	acks   map[agentapi.Kind]uint64
	beats  int
	drains int
}

func newHost(t *testing.T, dir string, d runtime.Driver, incarnation string, sinks ...Sink) *host {
	t.Helper()
	return connectHost(t, Config{Dir: dir, Driver: d, Sinks: sinks}, incarnation)
}

func newHostAt(t *testing.T, dir string, d runtime.Driver, now clock.Clock) *host {
	t.Helper()
	return connectHost(t, Config{Dir: dir, Driver: d, Clock: now}, "i1")
}

func connectHost(t *testing.T, cfg Config, incarnation string, streams ...*stream) *host {
	t.Helper()
	s := &server{incarnation: incarnation, hellos: make(chan *agentapi.Hello, 8), ups: make(chan *agentapi.Up, 1024), downs: make(chan *agentapi.Down, 64), execs: make(chan *execCall, 1)}
	for _, kept := range streams {
		s.stream = kept
	}
	l := bufconn.Listen(1 << 16)
	g := grpc.NewServer()
	agentapi.RegisterDispatcherServer(g, s)
	go g.Serve(l)
	conn, err := grpc.NewClient("passthrough:test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Client, cfg.NodeID, cfg.Logger = agentapi.NewDispatcherClient(conn), "n1", slog.New(slog.DiscardHandler)
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &host{server: s, t: t, agent: a, cancel: cancel, done: make(chan error, 1), last: map[string]*agentapi.TaskStatus{}, acks: map[agentapi.Kind]uint64{}}
	go func() { h.done <- a.Run(ctx) }()
	t.Cleanup(func() { h.stop(); g.Stop(); conn.Close() })
	return h
}

// stop ends the agent's process, so to speak; tasks stay.
func (h *host) stop() {
	if h.cancel == nil {
		return
	}
	h.cancel()
	h.cancel = nil
	if err := <-h.done; err != nil {
		h.t.Errorf("Run: %v", err)
	}
}

func (h *host) hello() *agentapi.Hello {
	h.t.Helper()
	select {
	case m := <-h.hellos:
		for _, s := range m.Tasks {
			h.last[s.TaskId] = s
		}
		return m
	case <-time.After(time.Minute):
		h.t.Fatal("no hello within a minute")
		return nil
	}
}

func (h *host) send(rev uint64, full bool, removed []string, as ...*agentapi.Assignment) {
	u := &agentapi.Update{Kind: agentapi.Kind_ASSIGNMENTS, Revision: rev, Full: full, Removed: removed}
	for _, a := range as {
		u.Resources = append(u.Resources, &agentapi.Resource{Name: a.TaskId, Body: &agentapi.Resource_Assignment{Assignment: a}})
	}
	h.downs <- &agentapi.Down{Body: &agentapi.Down_Update{Update: u}}
}

// until takes what comes up until ok holds.
func (h *host) until(what string, ok func() bool) {
	h.t.Helper()
	timeout := time.After(time.Minute)
	for !ok() {
		select {
		case u := <-h.ups:
			h.take(u)
		case <-timeout:
			h.t.Fatalf("waited a minute for: %s; have %v", what, h.last)
		}
	}
}

func (h *host) take(u *agentapi.Up) {
	h.t.Helper()
	switch b := u.Body.(type) {
	case *agentapi.Up_Status:
		for _, s := range b.Status.Tasks {
			if old := h.last[s.TaskId]; old != nil && old.State > s.State {
				h.t.Fatalf("task %s went back from %s to %s", s.TaskId, old.State, s.State)
			}
			h.last[s.TaskId] = s
		}
	case *agentapi.Up_Ack:
		h.acks[b.Ack.Kind] = b.Ack.Revision
	case *agentapi.Up_Heartbeat:
		h.beats++
	case *agentapi.Up_Drained:
		h.drains++
	}
}

// pass lets time go by, a step at a time, until what is reported of the task is as wanted.
func (h *host) pass(now *clock.Fake, step time.Duration, what string, ok func(*agentapi.TaskStatus) bool) *agentapi.TaskStatus {
	h.t.Helper()
	waitFor(h.t, what, func() bool {
		for len(h.ups) > 0 {
			h.take(<-h.ups)
		}
		if st := h.last[taskA]; st != nil && ok(st) {
			return true
		}
		now.Advance(step)
		return false
	})
	return h.last[taskA]
}

func (h *host) untilState(id string, want agentapi.TaskState) *agentapi.TaskStatus {
	h.t.Helper()
	h.until(id+" "+want.String(), func() bool { return h.last[id].GetState() == want })
	return h.last[id]
}

func assignment(id string, epoch uint64, desired agentapi.DesiredState, images ...string) *agentapi.Assignment {
	a := &agentapi.Assignment{TaskId: id, Epoch: epoch, Desired: desired, Spec: &agentapi.TaskSpec{NetworkMode: "bridge"}}
	for i, img := range images {
		a.Spec.Containers = append(a.Spec.Containers, &agentapi.ContainerSpec{
			Name: string(rune('a' + i)), Image: img, Essential: i == 0, Ports: []*agentapi.PortMapping{{ContainerPort: 3000}},
		})
	}
	return a
}

const (
	run  = agentapi.DesiredState_DESIRED_RUNNING
	halt = agentapi.DesiredState_DESIRED_STOPPED
)

func TestTaskLife(t *testing.T) {
	h := newHost(t, t.TempDir(), fake.New(fake.Config{}), "i1")
	h.hello()
	h.send(5, true, nil, assignment(taskA, 1, run, "web", "side"))
	st := h.untilState(taskA, agentapi.TaskState_RUNNING)
	if len(st.Containers) != 2 || st.Containers[0].State != agentapi.ContainerState_CONTAINER_RUNNING || st.Containers[0].Ports[0].HostPort == 0 || st.Containers[0].ImageDigest == "" {
		t.Errorf("running task reported as %v", st)
	}
	if st.Connected == nil || st.Started == nil || st.PullStarted == nil || st.PullStopped == nil {
		t.Errorf("times are missing: %v", st)
	}
	h.until("acknowledgement and heartbeat", func() bool { return h.acks[agentapi.Kind_ASSIGNMENTS] == 5 && h.beats > 0 })

	stop := assignment(taskA, 1, halt, "web", "side")
	stop.StopReason = "Task stopped by user"
	h.send(6, false, nil, stop)
	st = h.untilState(taskA, agentapi.TaskState_STOPPED)
	if st.StoppedReason != "Task stopped by user" || st.StopCode != "" || st.Containers[0].GetExitCode() != 143 || st.Stopping == nil || st.ExecutionStopped == nil || st.Stopped == nil {
		t.Errorf("stopped task reported as %v", st)
	}
	h.send(7, false, []string{taskA})
	h.until("acknowledgement of the removal", func() bool { return h.acks[agentapi.Kind_ASSIGNMENTS] == 7 })
	waitFor(t, "the worker to go", func() bool { return len(h.agent.list()) == 0 })
	if k, err := h.agent.store.load(); err != nil || len(k) != 0 {
		t.Errorf("kept after removal: %v, %v", k, err)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

func TestTaskEndsByItself(t *testing.T) {
	script := func(image string) fake.Behaviour {
		switch image {
		case "crash":
			return fake.Behaviour{RunFor: time.Millisecond, Exit: runtime.Exit{Code: 3}, Output: []string{"one", "two"}}
		case "hog":
			return fake.Behaviour{RunFor: time.Millisecond, Exit: runtime.Exit{Code: 137, OOM: true, Reason: "OutOfMemoryError: Container killed due to memory usage"}}
		case "missing":
			return fake.Behaviour{PullErr: &runtime.PullError{Reason: "CannotPullContainerError: not found"}}
		case "unstartable":
			return fake.Behaviour{StartErr: &runtime.StartError{Reason: "CannotStartContainerError: no such file"}}
		}
		return fake.Behaviour{}
	}
	for _, c := range []struct {
		name, code, reason, containerReason string
		images                              []string
		exit                                int32
		logs                                int
	}{
		{"essential container exits", "EssentialContainerExited", "Essential container in task exited", "", []string{"crash", "side"}, 3, 2},
		{"memory", "EssentialContainerExited", "Essential container in task exited", "OutOfMemoryError: Container killed due to memory usage", []string{"hog"}, 137, 0},
		{"image missing", "TaskFailedToStart", "CannotPullContainerError: not found", "CannotPullContainerError: not found", []string{"missing"}, 0, 0},
		{"start fails", "TaskFailedToStart", "CannotStartContainerError: no such file", "CannotStartContainerError: no such file", []string{"unstartable"}, 128, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, t.TempDir(), fake.New(fake.Config{Script: script}), "i1")
			h.hello()
			h.send(1, true, nil, assignment(taskA, 1, run, c.images...))
			st := h.untilState(taskA, agentapi.TaskState_STOPPED)
			a := st.Containers[0]
			if st.StopCode != c.code || st.StoppedReason != c.reason || a.Reason != c.containerReason || a.GetExitCode() != c.exit || len(a.LastLog) != c.logs {
				t.Errorf("got %v", st)
			}
			if st.PullStopped == nil || st.Stopping == nil || st.Stopped == nil || st.ExecutionStopped == nil || c.code == codeEssentialExited && !st.ExecutionStopped.AsTime().Equal(a.Finished.AsTime()) {
				t.Errorf("times: %v", st)
			}
		})
	}
}

func TestNonEssentialExitLeavesTaskRunning(t *testing.T) {
	h := newHost(t, t.TempDir(), fake.New(fake.Config{Script: func(image string) fake.Behaviour {
		if image == "brief" {
			return fake.Behaviour{RunFor: time.Millisecond}
		}
		return fake.Behaviour{}
	}}), "i1")
	h.hello()
	h.send(1, true, nil, assignment(taskA, 1, run, "web", "brief"))
	h.until("the side container's end", func() bool {
		st := h.last[taskA]
		return st.GetState() == agentapi.TaskState_RUNNING && len(st.Containers) == 2 && st.Containers[1].ExitCode != nil
	})
}

// A new process finds its tasks, goes on with them and reports an end that came while nobody watched.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	cfg := fake.Config{Dir: filepath.Join(dir, "fake")}
	h := newHost(t, dir, fake.New(cfg), "i1")
	h.hello()
	h.send(9, true, nil, assignment(taskA, 1, run, "web"))
	was := h.untilState(taskA, agentapi.TaskState_RUNNING)
	h.until("acknowledgement", func() bool { return h.acks[agentapi.Kind_ASSIGNMENTS] == 9 })
	h.stop()

	h = newHost(t, dir, fake.New(cfg), "i1")
	hello := h.hello()
	if hello.Incarnation != "i1" || hello.Revisions[int32(agentapi.Kind_ASSIGNMENTS)] != 9 || len(hello.Tasks) != 1 {
		t.Fatalf("hello after restart: %v", hello)
	}
	st := h.untilState(taskA, agentapi.TaskState_RUNNING)
	if st.Containers[0].RuntimeId != was.Containers[0].RuntimeId || st.Address != was.Address {
		t.Errorf("not the same containers: %v, then %v", was, st)
	}
	h.send(10, true, nil, assignment(taskA, 1, halt, "web"))
	h.untilState(taskA, agentapi.TaskState_STOPPED)
}

// A host whose containers are gone says so instead of starting a task twice.
func TestRestartOfHost(t *testing.T) {
	dir := t.TempDir()
	h := newHost(t, dir, fake.New(fake.Config{}), "i1")
	h.hello()
	h.send(1, true, nil, assignment(taskA, 1, run, "web"))
	h.untilState(taskA, agentapi.TaskState_RUNNING)
	h.stop()
	h = newHost(t, dir, fake.New(fake.Config{}), "i1") // in memory: nothing is left
	h.hello()
	if st := h.untilState(taskA, agentapi.TaskState_STOPPED); st.StopCode != codeEssentialExited {
		t.Errorf("got %v", st)
	}
}

func TestAbsentAssignment(t *testing.T) {
	for _, c := range []struct {
		name, incarnation string
		stops             bool
	}{{"same incarnation", "i1", true}, {"restored control plane", "i2", false}} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			cfg := fake.Config{Dir: filepath.Join(dir, "fake")}
			h := newHost(t, dir, fake.New(cfg), "i1")
			h.hello()
			h.send(3, true, nil, assignment(taskA, 1, run, "web"))
			h.untilState(taskA, agentapi.TaskState_RUNNING)
			h.until("acknowledgement", func() bool { return h.acks[agentapi.Kind_ASSIGNMENTS] == 3 })
			h.stop()
			d := fake.New(cfg)
			h = newHost(t, dir, d, c.incarnation)
			h.hello()
			h.send(4, true, nil)
			h.until("acknowledgement", func() bool { return h.acks[agentapi.Kind_ASSIGNMENTS] == 4 })
			if c.stops {
				waitFor(t, "the task to be removed", func() bool { r, _ := d.Recover(t.Context()); return len(r) == 0 })
				return
			}
			if _, end := h.agent.worker(taskA).endWanted(); end {
				t.Error("absence in another incarnation's set ended the task")
			}
		})
	}
}

func TestOlderEpochIsDropped(t *testing.T) {
	h := newHost(t, t.TempDir(), fake.New(fake.Config{}), "i1")
	h.hello()
	h.send(1, true, nil, assignment(taskA, 2, run, "web"))
	h.untilState(taskA, agentapi.TaskState_RUNNING)
	h.send(2, false, nil, assignment(taskA, 1, halt, "web"))
	h.until("acknowledgement", func() bool { return h.acks[agentapi.Kind_ASSIGNMENTS] == 2 })
	if _, end := h.agent.worker(taskA).endWanted(); end {
		t.Error("a word of an older epoch ended the task")
	}
}

// blocker is a sink that applies when it is let.
type blocker struct {
	kind agentapi.Kind
	let  chan struct{}
	mu   sync.Mutex
	revs []uint64
}

func (b *blocker) Kinds() []agentapi.Kind { return []agentapi.Kind{b.kind} }
func (b *blocker) Apply(ctx context.Context, u *agentapi.Update) error {
	select {
	case <-b.let:
	case <-ctx.Done():
		return ctx.Err()
	}
	b.mu.Lock()
	b.revs = append(b.revs, u.Revision)
	b.mu.Unlock()
	return nil
}

func TestSlowSinkIsAcknowledgedLateAndHoldsUpNothing(t *testing.T) {
	b := &blocker{kind: agentapi.Kind_TARGETS, let: make(chan struct{})}
	h := newHost(t, t.TempDir(), fake.New(fake.Config{}), "i1", b)
	if k := h.hello().Kinds; len(k) != 2 {
		t.Fatalf("kinds %v", k)
	}
	for rev := uint64(1); rev <= 3; rev++ {
		h.downs <- &agentapi.Down{Body: &agentapi.Down_Update{Update: &agentapi.Update{Kind: agentapi.Kind_TARGETS, Revision: rev, Full: rev == 1}}}
	}
	h.send(4, true, nil, assignment(taskA, 1, run, "web"))
	h.untilState(taskA, agentapi.TaskState_RUNNING)
	if h.acks[agentapi.Kind_TARGETS] != 0 {
		t.Fatal("acknowledged before it was applied")
	}
	close(b.let)
	h.until("acknowledgement of the targets", func() bool { return h.acks[agentapi.Kind_TARGETS] == 3 })
	if len(b.revs) != 3 || b.revs[0] != 1 || b.revs[2] != 3 {
		t.Errorf("applied in order %v", b.revs)
	}
}

func TestHealthIsRepeatedInANewSession(t *testing.T) {
	h := newHost(t, t.TempDir(), fake.New(fake.Config{}), "i1")
	h.hello()
	got := func(u *agentapi.Up) bool {
		r := u.GetHealth()
		return r != nil && len(r.Transitions) == 1 && r.Transitions[0].State == agentapi.EndpointState_ENDPOINT_HEALTHY
	}
	h.agent.ReportHealth(&agentapi.HealthTransition{TargetGroupArn: "g", EndpointId: "e", State: agentapi.EndpointState_ENDPOINT_UNHEALTHY})
	h.agent.ReportHealth(&agentapi.HealthTransition{TargetGroupArn: "g", EndpointId: "e", State: agentapi.EndpointState_ENDPOINT_HEALTHY})
	for range 2 {
		seen := false
		for !seen {
			select {
			case u := <-h.ups:
				seen = got(u)
			case <-time.After(time.Minute):
				t.Fatal("no health report")
			}
		}
		h.downs <- nil // the session ends, a new one begins
		h.hello()
	}
}

// What a container writes is anything; what is reported of it has to be text, or no report would get through any more.
func TestLastLinesAreText(t *testing.T) {
	output := []string{"\xff\xfe", strings.Repeat("é", lastLogBytes)[1:]}
	h := newHost(t, t.TempDir(), fake.New(fake.Config{Script: func(string) fake.Behaviour {
		return fake.Behaviour{Output: output, RunFor: time.Millisecond}
	}}), "i1")
	h.hello()
	h.send(1, true, nil, assignment(taskA, 1, run, "img"))
	last := h.untilState(taskA, agentapi.TaskState_STOPPED).Containers[0].LastLog
	if len(last) != len(output) || last[0] != "\uFFFD" || !utf8.ValidString(last[1]) {
		t.Errorf("last lines %q", last)
	}
}

func TestLogsExpire(t *testing.T) {
	dir, now := t.TempDir(), clock.NewFake(time.Unix(1_000_000, 0))
	d := fake.New(fake.Config{Clock: now, Script: func(string) fake.Behaviour { return fake.Behaviour{Output: []string{"hello"}} }})
	h := newHostAt(t, dir, d, now)
	h.hello()
	h.send(1, true, nil, assignment(taskA, 1, run, "web"))
	h.untilState(taskA, agentapi.TaskState_RUNNING)
	h.send(2, false, nil, assignment(taskA, 1, halt, "web"))
	h.untilState(taskA, agentapi.TaskState_STOPPED)
	h.send(3, false, []string{taskA})
	waitFor(t, "the worker to go", func() bool { return len(h.agent.list()) == 0 })
	kept := func() bool {
		_, err := d.Logs(t.Context(), taskA, "a", runtime.LogOptions{})
		return err == nil
	}
	for range 29 * 24 {
		now.Advance(time.Hour)
	}
	if !kept() {
		t.Fatal("the logs went too early")
	}
	waitFor(t, "the logs to go", func() bool { now.Advance(time.Hour); return !kept() })
	waitFor(t, "their mark to go", func() bool {
		ids, err := h.agent.store.endedBefore(now.Now())
		if err != nil {
			t.Fatal(err)
		}
		return len(ids) == 0
	})
}
