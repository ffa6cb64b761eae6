package agent

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// script is what the images of these tests do, as the test wants it at the moment.
type script struct {
	mu        sync.Mutex
	behaviour map[string]fake.Behaviour
	clock     *clock.Fake
}

func newScript() *script {
	return &script{behaviour: map[string]fake.Behaviour{}, clock: clock.NewFake(time.Unix(1_700_000_000, 0))}
}

func (s *script) set(image string, b fake.Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behaviour[image] = b
}

func (s *script) config(dir string) fake.Config {
	return fake.Config{Dir: filepath.Join(dir, "fake"), Clock: s.clock, Script: func(image string) fake.Behaviour {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.behaviour[image]
	}}
}

func health(st *agentapi.TaskStatus, container int) agentapi.Health {
	return st.Containers[container].Health
}

func TestHealthCheck(t *testing.T) {
	s, dir := newScript(), t.TempDir()
	var code atomic.Int32
	var words atomic.Value
	var mu sync.Mutex
	var ran []time.Time // each check
	check := func(_ context.Context, c runtime.Command) (int, error) {
		mu.Lock()
		ran = append(ran, s.clock.Now())
		mu.Unlock()
		words.Store(c.Args)
		return int(code.Load()), nil
	}
	since := func(t time.Time) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, at := range ran {
			if !at.Before(t) {
				n++
			}
		}
		return n
	}
	s.set("web", fake.Behaviour{Exec: check})
	h := newHostAt(t, dir, fake.New(s.config(dir)), s.clock)
	h.hello()
	as := assignment(taskA, 1, run, "web", "side")
	as.Spec.Containers[0].HealthCheck = &agentapi.ContainerCheck{
		Command: []string{"CMD-SHELL", "curl -f localhost"}, IntervalSeconds: 30, TimeoutSeconds: 5, Retries: 3, StartPeriodSeconds: 100,
	}
	code.Store(1)
	h.send(1, true, nil, as)
	st := h.untilState(taskA, agentapi.TaskState_RUNNING)
	if st.Health != agentapi.Health_HEALTH_UNKNOWN || health(st, 0) != agentapi.Health_HEALTH_UNKNOWN || health(st, 1) != agentapi.Health_HEALTH_UNSPECIFIED {
		t.Errorf("before the first check: %v", st)
	}
	// In the start period failures do not count; three afterwards do.
	begun := s.clock.Now()
	h.pass(s.clock, time.Second, "the task to be unhealthy", func(st *agentapi.TaskStatus) bool { return st.Health == agentapi.Health_HEALTH_UNHEALTHY })
	if n := since(begun.Add(100 * time.Second)); n < 3 {
		t.Errorf("unhealthy after %v, of which %d checks were after the start period", s.clock.Now().Sub(begun), n)
	}
	if got := words.Load().([]string); !slices.Equal(got, []string{"/bin/sh", "-c", "curl -f localhost"}) {
		t.Errorf("the check ran %q", got)
	}
	code.Store(0)
	h.pass(s.clock, time.Second, "the task to be healthy", func(st *agentapi.TaskStatus) bool {
		return st.Health == agentapi.Health_HEALTH_HEALTHY && health(st, 0) == agentapi.Health_HEALTH_HEALTHY
	})

	// Another process goes on from there.
	h.stop()
	h = newHostAt(t, dir, fake.New(s.config(dir)), s.clock)
	if tasks := h.hello().Tasks; len(tasks) != 1 || tasks[0].Health != agentapi.Health_HEALTH_HEALTHY {
		t.Errorf("after a restart of the agent: %v", tasks)
	}
	code.Store(1)
	before := since(time.Time{})
	h.pass(s.clock, time.Second, "the task to be unhealthy again", func(st *agentapi.TaskStatus) bool { return st.Health == agentapi.Health_HEALTH_UNHEALTHY })
	if n := since(time.Time{}) - before; n < 3 {
		t.Errorf("unhealthy after %d checks", n)
	}
}

// A check that cannot be run says nothing about the container.
func TestHealthCheckCannotBeRun(t *testing.T) {
	s, dir := newScript(), t.TempDir()
	var away atomic.Bool
	var checks atomic.Int32
	s.set("web", fake.Behaviour{Exec: func(context.Context, runtime.Command) (int, error) {
		checks.Add(1)
		if away.Load() {
			return 0, errors.New("the engine is away")
		}
		return 0, nil
	}})
	h := newHostAt(t, dir, fake.New(s.config(dir)), s.clock)
	h.hello()
	as := assignment(taskA, 1, run, "web")
	// The clock goes on while a check runs, which must not become one that has failed.
	as.Spec.Containers[0].HealthCheck = &agentapi.ContainerCheck{Command: []string{"CMD", "x"}, IntervalSeconds: 5, TimeoutSeconds: 1e6, Retries: 1}
	h.send(1, true, nil, as)
	h.pass(s.clock, time.Second, "the task to be healthy", func(st *agentapi.TaskStatus) bool { return st.Health == agentapi.Health_HEALTH_HEALTHY })
	away.Store(true)
	before := checks.Load()
	st := h.pass(s.clock, time.Second, "three more checks", func(*agentapi.TaskStatus) bool { return checks.Load() >= before+3 })
	if st.Health != agentapi.Health_HEALTH_HEALTHY {
		t.Errorf("got %v", st)
	}
}

// A check that does not answer has failed, and is ended before the next.
func TestHealthCheckTimesOut(t *testing.T) {
	s, dir := newScript(), t.TempDir()
	var running, most atomic.Int32
	s.set("web", fake.Behaviour{Exec: func(ctx context.Context, _ runtime.Command) (int, error) {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer running.Add(-1)
		<-ctx.Done()
		return 0, ctx.Err()
	}})
	h := newHostAt(t, dir, fake.New(s.config(dir)), s.clock)
	h.hello()
	as := assignment(taskA, 1, run, "web")
	as.Spec.Containers[0].HealthCheck = &agentapi.ContainerCheck{Command: []string{"CMD", "hang"}, IntervalSeconds: 5, TimeoutSeconds: 2, Retries: 2}
	h.send(1, true, nil, as)
	h.pass(s.clock, time.Second, "the task to be unhealthy", func(st *agentapi.TaskStatus) bool { return st.Health == agentapi.Health_HEALTH_UNHEALTHY })
	if most.Load() != 1 {
		t.Errorf("%d checks ran at once", most.Load())
	}
	as = assignment(taskA, 1, halt, "web")
	h.send(2, false, nil, as)
	h.pass(s.clock, time.Second, "the end", func(st *agentapi.TaskStatus) bool { return st.State == agentapi.TaskState_STOPPED })
	waitFor(t, "the check to end", func() bool { return running.Load() == 0 })
}

func depend(on, condition string) []*agentapi.Dependency {
	return []*agentapi.Dependency{{Container: on, Condition: condition}}
}

// a runs; b waits for a as the condition says; c waits for nobody.
func TestDependencies(t *testing.T) {
	for _, c := range []struct {
		condition string
		first     fake.Behaviour
		health    int32
		timeout   uint32
		reason    string // empty: b runs in the end
	}{
		{"START", fake.Behaviour{}, 0, 0, ""},
		{"START", fake.Behaviour{RunFor: time.Second, Exit: runtime.Exit{Code: 1}}, 0, 0, ""},
		{"COMPLETE", fake.Behaviour{RunFor: 10 * time.Second, Exit: runtime.Exit{Code: 1}}, 0, 0, ""},
		{"COMPLETE", fake.Behaviour{}, 0, 60, "did not reach COMPLETE within its start timeout of 60 seconds"},
		{"COMPLETE", fake.Behaviour{RunFor: 10 * time.Second}, 0, 60, ""},
		{"SUCCESS", fake.Behaviour{RunFor: 10 * time.Second}, 0, 0, ""},
		{"SUCCESS", fake.Behaviour{RunFor: 10 * time.Second, Exit: runtime.Exit{Code: 1}}, 0, 0, "did not exit successfully"},
		{"HEALTHY", fake.Behaviour{}, 0, 0, ""},
		{"HEALTHY", fake.Behaviour{}, 1, 60, "did not reach HEALTHY within its start timeout of 60 seconds"},
		{"HEALTHY", fake.Behaviour{RunFor: 10 * time.Second}, 1, 0, "ended before it was healthy"},
	} {
		t.Run(c.condition, func(t *testing.T) {
			s, dir := newScript(), t.TempDir()
			c.first.Exec = func(context.Context, runtime.Command) (int, error) { return int(c.health), nil }
			s.set("a", c.first)
			h := newHostAt(t, dir, fake.New(s.config(dir)), s.clock)
			h.hello()
			as := assignment(taskA, 1, run, "a", "b", "c")
			as.Spec.Containers[0].Essential, as.Spec.Containers[1].Essential = false, true
			as.Spec.Containers[0].StartTimeoutSeconds = c.timeout
			as.Spec.Containers[0].HealthCheck = &agentapi.ContainerCheck{Command: []string{"CMD", "x"}, IntervalSeconds: 5, TimeoutSeconds: 2, Retries: 1}
			as.Spec.Containers[1].DependsOn = depend("a", c.condition)
			h.send(1, true, nil, as)
			if c.condition != "START" {
				waiting := func(st *agentapi.TaskStatus) bool {
					return len(st.GetContainers()) == 3 && st.Containers[2].State == agentapi.ContainerState_CONTAINER_RUNNING
				}
				waitFor(t, "c to run while b waits", func() bool {
					w := h.agent.worker(taskA)
					return w != nil && waiting(w.snapshot())
				})
				h.pass(s.clock, time.Millisecond, "that to be told", waiting)
				if st := h.last[taskA]; st.State >= agentapi.TaskState_RUNNING || st.Containers[1].State >= agentapi.ContainerState_CONTAINER_RUNNING {
					t.Fatalf("b did not wait: %v", st)
				}
				if c.first.RunFor > 0 { // its end is known before its start timeout
					s.clock.Advance(c.first.RunFor)
					waitFor(t, "a to end", func() bool {
						return h.agent.worker(taskA).snapshot().Containers[0].State == agentapi.ContainerState_CONTAINER_STOPPED
					})
				}
			}
			if c.reason == "" {
				st := h.pass(s.clock, time.Second, "the task to run", func(st *agentapi.TaskStatus) bool { return st.State == agentapi.TaskState_RUNNING })
				if st.Containers[1].State != agentapi.ContainerState_CONTAINER_RUNNING {
					t.Errorf("got %v", st)
				}
				return
			}
			st := h.pass(s.clock, time.Second, "the task to stop", func(st *agentapi.TaskStatus) bool { return st.State == agentapi.TaskState_STOPPED })
			if st.StopCode != codeFailedToStart || !strings.HasSuffix(st.StoppedReason, c.reason) || st.Containers[1].Reason != st.StoppedReason {
				t.Errorf("got %v", st)
			}
		})
	}
}

// stops notes in which order containers are told to stop, and that one has ended before the next is told.
type stops struct {
	runtime.Driver
	mu     sync.Mutex
	events []string
}

func (d *stops) Stop(ctx context.Context, task, container string, timeout time.Duration) error {
	d.note("stop " + container)
	err := d.Driver.Stop(ctx, task, container, timeout)
	d.note(container + " ended")
	return err
}

func (d *stops) note(e string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, e)
}

func TestStopsInReverseOrder(t *testing.T) {
	d := &stops{Driver: fake.New(fake.Config{})}
	h := newHost(t, t.TempDir(), d, "i1")
	h.hello()
	as := assignment(taskA, 1, run, "a", "b", "c")
	as.Spec.Containers[1].DependsOn, as.Spec.Containers[2].DependsOn = depend("a", "START"), depend("b", "START")
	h.send(1, true, nil, as)
	h.untilState(taskA, agentapi.TaskState_RUNNING)
	h.send(2, false, nil, &agentapi.Assignment{TaskId: taskA, Epoch: 1, Desired: halt, Spec: as.Spec})
	h.untilState(taskA, agentapi.TaskState_STOPPED)
	if want := []string{"stop c", "c ended", "stop b", "b ended", "stop a", "a ended"}; !slices.Equal(d.events, want) {
		t.Errorf("got %q", d.events)
	}
}

func TestRestartPolicy(t *testing.T) {
	for _, c := range []struct {
		name     string
		ran      time.Duration
		code     int
		restarts bool
	}{
		{"ran long enough", 90 * time.Second, 3, true},
		{"exit code 0 as well", 90 * time.Second, 0, true},
		{"too soon", 30 * time.Second, 3, false},
		{"ignored exit code", 90 * time.Second, 7, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, dir := newScript(), t.TempDir()
			s.set("web", fake.Behaviour{RunFor: c.ran, Exit: runtime.Exit{Code: c.code}})
			h := newHostAt(t, dir, fake.New(s.config(dir)), s.clock)
			h.hello()
			as := assignment(taskA, 1, run, "web")
			as.Spec.Containers[0].Restart = &agentapi.RestartPolicy{AttemptPeriodSeconds: 60, IgnoredExitCodes: []int32{7, 8}}
			h.send(1, true, nil, as)
			h.untilState(taskA, agentapi.TaskState_RUNNING)
			if !c.restarts {
				st := h.pass(s.clock, time.Second, "the task to stop", func(st *agentapi.TaskStatus) bool { return st.State == agentapi.TaskState_STOPPED })
				if st.StopCode != codeEssentialExited || st.Containers[0].GetExitCode() != int32(c.code) || st.Containers[0].Restarts != 0 {
					t.Errorf("got %v", st)
				}
				return
			}
			st := h.pass(s.clock, time.Second, "two restarts", func(st *agentapi.TaskStatus) bool { return st.Containers[0].Restarts >= 2 })
			if st.State != agentapi.TaskState_RUNNING || st.Containers[0].ExitCode != nil {
				t.Errorf("got %v", st)
			}
		})
	}
}

// An end that came while no agent was there is followed by a restart as well, and the count goes on.
func TestRestartPolicyAcrossAgents(t *testing.T) {
	s, dir := newScript(), t.TempDir()
	s.set("web", fake.Behaviour{RunFor: 90 * time.Second, Exit: runtime.Exit{Code: 3}})
	h := newHostAt(t, dir, fake.New(s.config(dir)), s.clock)
	h.hello()
	as := assignment(taskA, 1, run, "web")
	as.Spec.Containers[0].Restart = &agentapi.RestartPolicy{AttemptPeriodSeconds: 60}
	h.send(1, true, nil, as)
	h.pass(s.clock, time.Second, "a restart", func(st *agentapi.TaskStatus) bool { return st.Containers[0].Restarts > 0 })
	h.stop()
	was := h.agent.worker(taskA).snapshot().Containers[0].Restarts
	s.clock.Advance(2 * time.Minute)
	h = newHostAt(t, dir, fake.New(s.config(dir)), s.clock)
	h.hello()
	h.pass(s.clock, 0, "another restart", func(st *agentapi.TaskStatus) bool { return st.Containers[0].Restarts > was })
	if st := h.last[taskA]; st.State != agentapi.TaskState_RUNNING {
		t.Errorf("got %v", st)
	}
}

// once is a driver on which nothing can be started again.
type once struct{ runtime.Driver }

func (once) Restart(context.Context, string, string, runtime.Started) (runtime.Started, error) {
	return runtime.Started{}, &runtime.StartError{Reason: "CannotStartContainerError: no space left"}
}

func TestRestartFails(t *testing.T) {
	s, dir := newScript(), t.TempDir()
	s.set("web", fake.Behaviour{RunFor: 90 * time.Second, Exit: runtime.Exit{Code: 3}})
	h := newHostAt(t, dir, once{fake.New(s.config(dir))}, s.clock)
	h.hello()
	as := assignment(taskA, 1, run, "web")
	as.Spec.Containers[0].Restart = &agentapi.RestartPolicy{AttemptPeriodSeconds: 60}
	h.send(1, true, nil, as)
	st := h.pass(s.clock, time.Second, "the end", func(st *agentapi.TaskStatus) bool { return st.State == agentapi.TaskState_STOPPED })
	if c := st.Containers[0]; st.StopCode != codeEssentialExited || c.GetExitCode() != 128 || c.Reason != "CannotStartContainerError: no space left" {
		t.Errorf("got %v", st)
	}
}
