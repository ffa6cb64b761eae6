package agent

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// stream is a log stream as an agent sees it: it keeps what comes and drops the call when it is told to.
type stream struct {
	mu      sync.Mutex
	refuse  error
	lines   []string
	mark    uint64
	batches int
	calls   int
	// fail says what becomes of the n-th batch: lost before it was written, or written and not acknowledged.
	fail func(n int) (lost, unacknowledged bool)
}

func (s *server) ShipLogs(call agentapi.Dispatcher_ShipLogsServer) error {
	t := s.stream
	first, err := call.Recv()
	if err != nil {
		return err
	}
	t.mu.Lock()
	mark, refuse := t.mark, t.refuse
	t.calls++
	t.mu.Unlock()
	if first.NodeId != "n1" || first.TaskId != taskA || first.Container == "" || len(first.Events) > 0 {
		return status.Errorf(codes.InvalidArgument, "first message %v", first)
	}
	if refuse != nil {
		return refuse
	}
	for {
		if err := call.Send(&agentapi.ShipAck{Mark: mark}); err != nil {
			return err
		}
		b, err := call.Recv()
		if err != nil {
			return nil
		}
		if err := t.take(b); err != nil {
			return err
		}
		mark = b.Mark
	}
}

func (t *stream) take(b *agentapi.ShipBatch) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.batches++
	lost, unacknowledged := false, false
	if t.fail != nil {
		lost, unacknowledged = t.fail(t.batches)
	}
	if lost {
		return status.Error(codes.Unavailable, "lost")
	}
	if b.Mark > t.mark {
		for _, e := range b.Events {
			t.lines = append(t.lines, e.Text)
		}
		t.mark = b.Mark
	}
	if unacknowledged {
		return status.Error(codes.Unavailable, "not acknowledged")
	}
	return nil
}

func (t *stream) got() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.lines)
}

func logged(launchType string, options map[string]string) *agentapi.Assignment {
	a := assignment(taskA, 1, run, "web")
	a.Spec.LaunchType = launchType
	a.Spec.Containers[0].Log = &agentapi.LogConfiguration{Driver: "awslogs", Options: options}
	return a
}

func shippingHost(t *testing.T, dir string, d runtime.Driver, kept *stream) *host {
	t.Helper()
	return connectHost(t, Config{Dir: dir, Driver: d}, "i1", kept)
}

func numbered(n int) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("line %d", i))
	}
	return lines
}

// TestShippingSurvivesFailures: batches are lost, acknowledgements are lost, the agent is replaced; every line arrives once, in order.
func TestShippingSurvivesFailures(t *testing.T) {
	lines := numbered(500)
	dir := t.TempDir()
	driver := fake.New(fake.Config{Script: func(string) fake.Behaviour {
		return fake.Behaviour{RunFor: time.Millisecond, Output: lines}
	}})
	kept := &stream{fail: func(n int) (bool, bool) { return n == 1, n == 2 }}
	h := shippingHost(t, dir, driver, kept)
	h.hello()
	h.send(1, true, nil, logged("EC2", nil))
	waitFor(t, "the second batch", func() bool { kept.mu.Lock(); defer kept.mu.Unlock(); return kept.batches >= 2 })
	h.stop()
	h = shippingHost(t, dir, driver, kept)
	h.hello()
	waitFor(t, "all lines", func() bool { return len(kept.got()) >= len(lines) })
	waitFor(t, "the shipment to be forgotten", func() bool { list, err := h.agent.store.shipments(); return err == nil && len(list) == 0 })
	if got := kept.got(); !slices.Equal(got, lines) {
		t.Errorf("%d lines arrived of %d", len(got), len(lines))
	}
}

// TestShippingOfRestarts: what a container writes after it was started again follows what it wrote before.
func TestShippingOfRestarts(t *testing.T) {
	driver := fake.New(fake.Config{Script: func(string) fake.Behaviour {
		return fake.Behaviour{RunFor: time.Millisecond, Output: numbered(3)}
	}})
	kept := &stream{}
	h := shippingHost(t, t.TempDir(), driver, kept)
	h.hello()
	as := logged("EC2", nil)
	as.Spec.Containers[0].Restart = &agentapi.RestartPolicy{}
	h.send(1, true, nil, as)
	waitFor(t, "the lines of four starts", func() bool { return len(kept.got()) >= 12 })
	if got, want := kept.got()[:12], slices.Repeat(numbered(3), 4); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestLogGroupMissing(t *testing.T) {
	const why = "ResourceNotFoundException: The specified log group does not exist."
	for launch, want := range map[string]string{
		"FARGATE": "ResourceInitializationError: failed to validate logger args: create stream has been retried 1 times: failed to create Cloudwatch log stream: " + why + " : exit status 1",
		"EC2":     "CannotStartContainerError: Error response from daemon: failed to initialize logging driver: failed to create Cloudwatch log stream: " + why,
	} {
		h := shippingHost(t, t.TempDir(), fake.New(fake.Config{}), &stream{refuse: status.Error(codes.NotFound, why)})
		h.hello()
		h.send(1, true, nil, logged(launch, nil))
		st := h.untilState(taskA, agentapi.TaskState_STOPPED)
		if st.StopCode != "TaskFailedToStart" || st.StoppedReason != want || st.Containers[0].Reason != want {
			t.Errorf("%s: %s %q", launch, st.StopCode, st.StoppedReason)
		}
	}
}

// TestStartWaitsForServer: a server that is out of reach is no reason to fail.
func TestStartWaitsForServer(t *testing.T) {
	kept := &stream{refuse: status.Error(codes.Unavailable, "not now")}
	h := shippingHost(t, t.TempDir(), fake.New(fake.Config{}), kept)
	h.hello()
	h.send(1, true, nil, logged("EC2", nil))
	waitFor(t, "two calls", func() bool { kept.mu.Lock(); defer kept.mu.Unlock(); return kept.calls > 1 })
	kept.mu.Lock()
	kept.refuse = nil
	kept.mu.Unlock()
	h.untilState(taskA, agentapi.TaskState_RUNNING)
}

func TestLinesOfOneEvent(t *testing.T) {
	driver := fake.New(fake.Config{Script: func(string) fake.Behaviour {
		return fake.Behaviour{RunFor: time.Millisecond, Output: []string{"2026-01-02 Exception", "  at a", "  at b", "2026-01-02 done"}, Exit: runtime.Exit{}}
	}})
	kept := &stream{}
	h := shippingHost(t, t.TempDir(), driver, kept)
	h.hello()
	h.send(1, true, nil, logged("EC2", map[string]string{"awslogs-datetime-format": "%Y-%m-%d"}))
	waitFor(t, "two events", func() bool { return len(kept.got()) == 2 })
	if got := kept.got(); got[0] != "2026-01-02 Exception\n  at a\n  at b" {
		t.Errorf("events %q", got)
	}
}
