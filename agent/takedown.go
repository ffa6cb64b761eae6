package agent

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// What a stopped task keeps of each container's output.
const (
	lastLogLines = 10
	lastLogBytes = 512 // of one line
)

const defaultStopTimeout = 30 * time.Second // ECS's, where the container names none

// exited notes an end and says whether the task ends with it.
func (w *worker) exited(ctx context.Context, e exit) *failure {
	w.noteExit(ctx, e)
	as, _ := w.current()
	for _, c := range as.Spec.Containers {
		if c.Name == e.container && c.Essential {
			return &failure{codeEssentialExited, "Essential container in task exited"}
		}
	}
	return nil
}

func (w *worker) noteExit(ctx context.Context, e exit) {
	lines := w.lastLines(ctx, e.container)
	as, _ := w.current()
	w.report(func(st *agentapi.TaskStatus) {
		// "executionStoppedAt" is when the first essential container has stopped, whatever others take to stop.
		for _, c := range as.Spec.Containers {
			if c.Name == e.container && c.Essential && st.ExecutionStopped == nil {
				st.ExecutionStopped = timestamppb.New(e.exit.At)
			}
		}
		cs := containerStatus(st, e.container)
		cs.State, cs.Finished = agentapi.ContainerState_CONTAINER_STOPPED, timestamppb.New(e.exit.At)
		cs.ExitCode, cs.LastLog = proto.Int32(int32(e.exit.Code)), lines
		if e.exit.Reason != "" {
			cs.Reason = e.exit.Reason
		}
	})
}

// lastLines is the end of a container's output; no output is no error.
func (w *worker) lastLines(ctx context.Context, container string) []string {
	r, err := w.a.cfg.Driver.Logs(ctx, w.id, container, runtime.LogOptions{Tail: lastLogLines})
	if err != nil {
		return nil
	}
	defer r.Close()
	var lines []string
	for {
		l, err := r.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				w.a.log.Warn("read the last log lines", "task", w.id, "container", container, "error", err)
			}
			return lines
		}
		lines = append(lines, wireText(l.Text[:min(len(l.Text), lastLogBytes)]))
	}
}

// takeDown stops what runs, removes the sandbox and reports STOPPED. It keeps trying until that is done or ctx ends.
func (w *worker) takeDown(ctx context.Context, fail *failure) {
	reason, _ := w.endWanted()
	w.report(func(st *agentapi.TaskStatus) {
		st.State = agentapi.TaskState_STOPPING
		if st.Stopping != nil {
			return
		}
		st.Stopping = w.now()
		if fail != nil {
			st.StopCode, st.StoppedReason = fail.code, fail.reason
		} else {
			st.StoppedReason = reason
		}
	})
	w.stopContainers(ctx, 0)
	if ctx.Err() != nil {
		return
	}
	w.report(func(st *agentapi.TaskStatus) {
		st.State = agentapi.TaskState_DEPROVISIONING
		if st.ExecutionStopped == nil {
			st.ExecutionStopped = w.now()
		}
	})
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := w.a.cfg.Driver.Remove(ctx, w.id)
		if err == nil {
			err = w.a.cfg.releaseVolumes(ctx, w.id)
		}
		if err == nil {
			break
		}
		w.a.log.Error("remove task; trying again", "task", w.id, "error", err, "in", wait)
		select {
		case <-ctx.Done():
			return
		case <-w.a.cfg.Clock.After(wait):
		}
	}
	w.a.owners.remove(w.id)
	w.report(stopped(w.now()))
}

// stopped ends a status for good.
func stopped(at *timestamppb.Timestamp) func(*agentapi.TaskStatus) {
	return func(st *agentapi.TaskStatus) {
		st.State, st.Stopped = agentapi.TaskState_STOPPED, at
		for _, cs := range st.Containers {
			cs.State = agentapi.ContainerState_CONTAINER_STOPPED
		}
	}
}

// stopContainers ends all containers side by side, but each after those that depend on it, and within its stop timeout or, if set,
// within limit.
func (w *worker) stopContainers(ctx context.Context, limit time.Duration) {
	as, _ := w.current()
	ended := map[string]chan struct{}{}
	for _, c := range as.Spec.Containers {
		ended[c.Name] = make(chan struct{})
	}
	var wg sync.WaitGroup
	for _, c := range as.Spec.Containers {
		wg.Go(func() {
			defer close(ended[c.Name])
			for _, d := range dependents(as.Spec, c.Name) {
				<-ended[d]
			}
			if w.containerState(c.Name) == agentapi.ContainerState_CONTAINER_STOPPED {
				return
			}
			timeout := seconds(c.StopTimeoutSeconds)
			if timeout == 0 {
				timeout = defaultStopTimeout
			}
			if limit > 0 {
				timeout = min(timeout, limit)
			}
			w.stopOne(ctx, c.Name, timeout)
		})
	}
	wg.Wait()
}

func (w *worker) containerState(name string) agentapi.ContainerState {
	for _, cs := range w.snapshot().Containers {
		if cs.Name == name {
			return cs.State
		}
	}
	return agentapi.ContainerState_CONTAINER_UNSPECIFIED
}

func (w *worker) stopOne(ctx context.Context, container string, timeout time.Duration) {
	if err := w.a.cfg.Driver.Stop(ctx, w.id, container, timeout); err != nil {
		if !errors.Is(err, runtime.ErrNotFound) && ctx.Err() == nil {
			w.a.log.Error("stop container; removal will kill it", "task", w.id, "container", container, "error", err)
		}
		return
	}
	e, err := w.a.cfg.Driver.Wait(ctx, w.id, container)
	if err != nil {
		return // never started
	}
	w.noteExit(ctx, exit{container, e})
}

// halt ends the task because the platform ends, after run has returned. What had begun to run is STOPPED for good, so
// that its service replaces it at the next start; what had not begun starts anew then.
func (w *worker) halt(ctx context.Context, limit time.Duration) {
	st := w.snapshot()
	if st.State == agentapi.TaskState_STOPPED {
		return
	}
	w.stopContainers(ctx, limit)
	if err := w.a.cfg.Driver.Remove(ctx, w.id); err != nil {
		w.a.log.Error("remove task", "task", w.id, "error", err)
		return
	}
	if err := w.a.cfg.releaseVolumes(ctx, w.id); err != nil {
		w.a.log.Error("release the volumes of a task", "task", w.id, "error", err)
	}
	if st.State < agentapi.TaskState_ACTIVATING {
		return
	}
	w.report(func(st *agentapi.TaskStatus) {
		if st.StoppedReason == "" {
			st.StopCode, st.StoppedReason = codeTermination, "The platform was stopped on this host"
		}
		if st.ExecutionStopped == nil {
			st.ExecutionStopped = w.now()
		}
		stopped(w.now())(st)
	})
}
