package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// watch follows one started container: it has its health checked, starts it again as its restart policy says, and tells of its
// end when that is final.
func (w *worker) watch(ctx context.Context, c *agentapi.ContainerSpec, started runtime.Started, exits chan<- exit) {
	for {
		checking, stop := context.WithCancel(ctx)
		checked := make(chan struct{})
		go func() {
			defer close(checked)
			w.checkHealth(checking, c, started)
		}()
		e, err := w.a.cfg.Driver.Wait(ctx, w.id, c.Name)
		stop()
		<-checked
		if ctx.Err() != nil {
			return
		}
		if err == nil && restarts(c.Restart, started, e) {
			var again runtime.Started
			if again, err = w.a.cfg.Driver.Restart(ctx, w.id, c.Name, started); err == nil {
				started = again
				w.noteStart(c, started, false)
				continue
			}
			if ctx.Err() != nil {
				return
			}
		}
		var failed *runtime.StartError
		switch {
		case errors.As(err, &failed):
			e = runtime.Exit{Code: 128, Reason: failed.Reason, At: w.a.cfg.Clock.Now()}
		case err != nil:
			e = runtime.Exit{Code: 255, Reason: "ContainerRuntimeError: " + err.Error(), At: w.a.cfg.Clock.Now()}
		}
		exits <- exit{c.Name, e} // has room for every container
		return
	}
}

// restarts says whether a container that ended so is started again within its task.
func restarts(p *agentapi.RestartPolicy, started runtime.Started, e runtime.Exit) bool {
	return p != nil && !slices.Contains(p.IgnoredExitCodes, int32(e.Code)) &&
		e.At.Sub(started.At) >= time.Duration(p.AttemptPeriodSeconds)*time.Second
}

// noteStart reports a container that runs, and has what it writes shipped. A start that is newer than the one reported is a restart, also when the process that
// ordered it did not live to report it. last: with it all containers were started.
func (w *worker) noteStart(c *agentapi.ContainerSpec, started runtime.Started, last bool) {
	w.report(func(st *agentapi.TaskStatus) {
		cs := containerStatus(st, c.Name)
		cs.State, cs.RuntimeId = max(cs.State, agentapi.ContainerState_CONTAINER_RUNNING), started.RuntimeID
		switch {
		case cs.Started == nil:
			cs.Started = timestamppb.New(started.At)
		case started.At.After(cs.Started.AsTime()):
			cs.Started = timestamppb.New(started.At)
			cs.Restarts++
			if c.HealthCheck != nil {
				cs.Health, cs.HealthSince = agentapi.Health_HEALTH_UNKNOWN, w.now()
			}
		}
		if last {
			st.State = agentapi.TaskState_RUNNING
			if st.Started == nil {
				st.Started = w.now()
			}
		}
	})
	w.a.shipContainer(w.id, c)
}
