package agent

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// keeper is a driver that has images, by name with their digests, and notes which are pulled.
type keeper struct {
	*fake.Driver
	has map[string]string

	mu     sync.Mutex
	pulled []runtime.PullRequest
}

func (k *keeper) AtHand(image, digest string) (runtime.Image, bool) {
	return runtime.Image{Digest: digest}, digest != "" && k.has[image] == digest
}

func (k *keeper) Pull(ctx context.Context, req runtime.PullRequest) (runtime.Image, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pulled = append(k.pulled, req)
	return k.Driver.Pull(ctx, req)
}

func (k *keeper) pulls() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.pulled)
}

// TestImagesAtHand: no registry is asked for what its answer came with the assignment and is here; whatever is missing of that, it is asked.
func TestImagesAtHand(t *testing.T) {
	for name, c := range map[string]struct {
		digests map[string]string
		change  func(*agentapi.Assignment)
		pulls   int
	}{
		"all at hand":            {digests: map[string]string{"a": "sha256:1", "b": "sha256:2"}},
		"no answer":              {pulls: 2},
		"one moved":              {digests: map[string]string{"a": "sha256:1", "b": "sha256:3"}, pulls: 2},
		"one answer":             {digests: map[string]string{"a": "sha256:1"}, pulls: 2},
		"refused":                {digests: map[string]string{"a": "sha256:1", "b": "sha256:2"}, pulls: 1, change: func(as *agentapi.Assignment) { as.Spec.Containers[0].RegistryRefusal = "no" }},
		"credentials of its own": {digests: map[string]string{"a": "sha256:1", "b": "sha256:2"}, pulls: 2, change: func(as *agentapi.Assignment) { as.Spec.HasSecrets = true }},
	} {
		t.Run(name, func(t *testing.T) {
			now := clock.NewFake(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) // no answer grows old
			k := &keeper{Driver: fake.New(fake.Config{Clock: now}), has: map[string]string{"x": "sha256:1", "y": "sha256:2"}}
			h := newHostAt(t, t.TempDir(), k, now)
			h.secrets = func(*agentapi.TaskSecretsRequest) (*agentapi.TaskSecretsAnswer, error) {
				return &agentapi.TaskSecretsAnswer{Containers: []*agentapi.ContainerSecrets{{Name: "a", RegistryUser: "me", RegistryPassword: "x"}}}, nil
			}
			h.hello()
			as := assignment(taskA, 1, run, "x", "y")
			as.ImageDigests = c.digests
			if c.change != nil {
				c.change(as)
			}
			h.send(1, true, nil, as)
			if name == "refused" {
				h.untilState(taskA, agentapi.TaskState_STOPPED)
			} else if st := h.untilState(taskA, agentapi.TaskState_RUNNING); st.PullStarted == nil || st.PullStopped == nil || st.Containers[1].ImageDigest == "" {
				t.Errorf("it says %v", st)
			}
			if n := k.pulls(); n > c.pulls || n < c.pulls && name != "refused" { // the other pull may have been given up
				t.Errorf("%d pulls, want %d", n, c.pulls)
			}
		})
	}
}

// TestAnswersGrowOld: what the registry said a while ago, or to a former process, is not what it says.
func TestAnswersGrowOld(t *testing.T) {
	digests := map[string]string{"a": "sha256:1"}
	k := &keeper{Driver: fake.New(fake.Config{}), has: map[string]string{"x": "sha256:1"}}
	now := clock.NewFake(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	a, err := New(Config{Dir: t.TempDir(), Driver: k, Clock: now, NodeID: "n", Client: agentapi.NewDispatcherClient(nil)})
	if err != nil {
		t.Fatal(err)
	}
	as := assignment(taskA, 1, run, "x")
	as.ImageDigests = digests
	w := newWorker(a, as, &agentapi.TaskStatus{TaskId: taskA})
	w.answers = a.takeAnswers(as)
	if as.ImageDigests != nil {
		t.Error("they would be kept on disk")
	}
	for _, c := range []struct {
		later time.Duration
		want  bool
	}{{0, true}, {answersFor, true}, {time.Nanosecond, false}, {-time.Hour, false}} {
		now.Jump(c.later)
		if got := w.pulled(as.Spec, nil); got != c.want {
			t.Errorf("%v later: %v", c.later, got)
		}
	}
}

// TestStartIsOneReport: the steps of a start that takes no time are told together, those of one that takes time as they come.
func TestStartIsOneReport(t *testing.T) {
	dir := t.TempDir()
	now := clock.NewFake(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	pulling := make(chan struct{})
	slow := &slowPulls{fake.New(fake.Config{Clock: now}), pulling}
	h := newHostAt(t, dir, slow, now)
	h.hello()
	h.send(1, true, nil, assignment(taskA, 1, run, "x"))
	h.pass(now, patience/10, "the pull's begin to be told", func(st *agentapi.TaskStatus) bool { return st.PullStarted != nil && st.PullStopped == nil })
	h.agent.ReportDrained(&agentapi.Drained{}) // takes along what was about to be told
	h.until("all before to be told", func() bool { return h.drains > 0 && len(h.agent.out.ready) == 0 })
	close(pulling)
	states := map[agentapi.TaskState]int{}
	h.until("it to run", func() bool { // without the time that steps are held back
		if st := h.last[taskA]; st != nil {
			states[st.State]++
		}
		return h.last[taskA].GetState() == agentapi.TaskState_RUNNING
	})
	if states[agentapi.TaskState_ACTIVATING] > 0 {
		t.Errorf("told by itself: %v", states)
	}
}

type slowPulls struct {
	*fake.Driver
	may chan struct{} // closed: it does
}

func (s *slowPulls) Pull(ctx context.Context, req runtime.PullRequest) (runtime.Image, error) {
	select {
	case <-s.may:
	case <-ctx.Done():
		return runtime.Image{}, ctx.Err()
	}
	return s.Driver.Pull(ctx, req)
}
