package runtimetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// lifecycle is what every driver owes. Its containers run until they are stopped and need nothing of the host.
func (s *suite) lifecycle(t *testing.T) {
	ctx := context.Background()
	t.Run("StartStopWait", func(t *testing.T) {
		h := s.host(t)
		task, _ := h.task("none", &agentapi.ContainerSpec{})
		before := time.Now()
		started := h.start(task, "main")
		if started.RuntimeID == "" || started.At.Before(before.Add(-time.Second)) {
			t.Errorf("started = %+v", started)
		}
		if s.features.Processes {
			h.until(task, "main", "waiting")
		}
		if err := h.Stop(ctx, task.ID, "main", 2*time.Second); err != nil {
			t.Fatal(err)
		}
		e := h.wait(task, "main")
		if e.OOM || e.At.Before(started.At.Add(-time.Second)) {
			t.Errorf("exit = %+v", e)
		}
		if again := h.wait(task, "main"); again.Code != e.Code {
			t.Errorf("second wait = %+v, first %+v", again, e)
		}
	})
	t.Run("Idempotent", func(t *testing.T) {
		h := s.host(t)
		task, sb := h.task("none", &agentapi.ContainerSpec{})
		again, err := h.Create(ctx, task)
		if err != nil || again.Address != sb.Address {
			t.Errorf("second create = %+v, %v; want %+v", again, err, sb)
		}
		first, second := h.start(task, "main"), h.start(task, "main")
		if first.RuntimeID != second.RuntimeID || first.PID != second.PID {
			t.Errorf("second start = %+v, want %+v", second, first)
		}
		for range 2 {
			if err := h.Stop(ctx, task.ID, "main", 2*time.Second); err != nil {
				t.Errorf("stop: %v", err)
			}
		}
		if third := h.start(task, "main"); third.RuntimeID != first.RuntimeID {
			t.Errorf("start after the end = %+v, want %+v", third, first)
		}
		for range 2 {
			if err := h.Remove(ctx, task.ID); err != nil {
				t.Errorf("remove: %v", err)
			}
		}
	})
	t.Run("RestartIsIdempotent", func(t *testing.T) {
		h := s.host(t)
		task, _ := h.task("none", &agentapi.ContainerSpec{})
		first := h.start(task, "main")
		if err := h.Stop(ctx, task.ID, "main", 0); err != nil {
			t.Fatal(err)
		}
		second := h.again(task, first)
		if third := h.again(task, first); !third.At.Equal(second.At) || !second.At.After(first.At) {
			t.Errorf("restarts = %+v, %+v after %+v", second, third, first)
		}
		if err := h.Stop(ctx, task.ID, "main", 0); err != nil {
			t.Fatal(err)
		}
		if e := h.wait(task, "main"); e.At.Before(second.At) {
			t.Errorf("exit = %+v of an earlier run than %+v", e, second)
		}
	})
	t.Run("NotFound", func(t *testing.T) {
		h := s.host(t)
		if _, err := h.Start(ctx, TaskID(), "main"); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("start of an unknown task: %v", err)
		}
		if _, err := h.Wait(ctx, TaskID(), "main"); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("wait for an unknown task: %v", err)
		}
		task, _ := h.task("none", &agentapi.ContainerSpec{})
		if _, err := h.Start(ctx, task.ID, "other"); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("start of an unknown container: %v", err)
		}
		if _, err := h.Wait(ctx, task.ID, "main"); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("wait for a container never started: %v", err)
		}
		if err := h.Stop(ctx, task.ID, "main", time.Second); err != nil {
			t.Errorf("stop of a container never started: %v", err)
		}
		if err := h.Remove(ctx, TaskID()); err != nil {
			t.Errorf("remove of an unknown task: %v", err)
		}
	})
	t.Run("WaitEndsWithContext", func(t *testing.T) {
		h := s.host(t)
		task, _ := h.task("none", &agentapi.ContainerSpec{})
		h.start(task, "main")
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { _, err := h.Wait(ctx, task.ID, "main"); done <- err }()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("wait = %v, want canceled", err)
		}
	})
	t.Run("RemoveEndsWait", func(t *testing.T) {
		h := s.host(t)
		task, _ := h.task("none", &agentapi.ContainerSpec{})
		h.start(task, "main")
		done := make(chan struct{})
		go func() { h.Wait(ctx, task.ID, "main"); close(done) }()
		if err := h.Remove(ctx, task.ID); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			t.Error("wait goes on after remove")
		}
	})
	t.Run("RecoverInNewDriver", func(t *testing.T) {
		h := s.host(t)
		running, sb := h.task("none", &agentapi.ContainerSpec{})
		started := h.start(running, "main")
		ended, _ := h.task("none", &agentapi.ContainerSpec{})
		h.start(ended, "main")
		if err := h.Stop(ctx, ended.ID, "main", 2*time.Second); err != nil {
			t.Fatal(err)
		}
		created, _ := h.task("none", &agentapi.ContainerSpec{})
		if err := h.Close(ctx, false); err != nil {
			t.Fatal(err)
		}
		d, err := s.open(h.Dir)
		if err != nil {
			t.Fatal(err)
		}
		h.Driver = d
		got, err := d.Recover(ctx)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]runtime.Recovered{}
		for _, r := range got {
			found[r.Task.ID] = r
		}
		if len(found) != 3 {
			t.Fatalf("recovered %d tasks, want 3", len(found))
		}
		r := found[running.ID]
		if c, ok := r.Containers["main"]; !ok || c.Exit != nil || c.Started.PID != started.PID || c.Started.RuntimeID != started.RuntimeID {
			t.Errorf("running: %+v, want %+v", r.Containers, started)
		}
		if r.Sandbox.Address != sb.Address || r.Task.Spec.GetFamily() != "test" {
			t.Errorf("running: %+v", r)
		}
		if c, ok := found[ended.ID].Containers["main"]; !ok || c.Exit == nil {
			t.Errorf("ended: %+v", found[ended.ID].Containers)
		}
		if n := len(found[created.ID].Containers); n != 0 {
			t.Errorf("created only: %d containers started", n)
		}
		if err := h.Stop(ctx, running.ID, "main", 2*time.Second); err != nil {
			t.Fatal(err)
		}
		h.wait(running, "main")
		h.start(created, "main")
	})
	t.Run("Parallel", func(t *testing.T) {
		h := s.host(t)
		if _, err := h.Pull(ctx, runtime.PullRequest{Image: h.Image}); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				task := runtime.Task{ID: TaskID(), Spec: &agentapi.TaskSpec{NetworkMode: "bridge",
					Containers: []*agentapi.ContainerSpec{{Name: "main", Image: h.Image}}}}
				if _, err := h.Create(ctx, task); err != nil {
					t.Errorf("create: %v", err)
					return
				}
				if _, err := h.Start(ctx, task.ID, "main"); err != nil {
					t.Errorf("start: %v", err)
				}
				if err := h.Stop(ctx, task.ID, "main", 0); err != nil {
					t.Errorf("stop: %v", err)
				}
				if err := h.Remove(ctx, task.ID); err != nil {
					t.Errorf("remove: %v", err)
				}
			})
		}
		wg.Wait()
		left, err := h.Recover(ctx)
		if err != nil || len(left) != 0 {
			t.Errorf("%d tasks left, %v", len(left), err)
		}
	})
}
