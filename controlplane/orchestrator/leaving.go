package orchestrator

import (
	"context"
	"iter"
	"slices"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// clearEvery is how often a leaving task's endpoints are asked for although no event said that they changed: a router may
// answer from more than its tables.
const clearEvery = time.Second

// leaving tells tasks to stop once no endpoint of theirs is left.
func (o *Orchestrator) leaving() *reconciler {
	deactivating := func(v *state.View) iter.Seq[state.Key] {
		return func(yield func(state.Key) bool) {
			for s := range controlplane.LeavingTasks.Scan(v, state.K()) {
				if s.Desired == agentapi.TaskState_DEACTIVATING && !yield(controlplane.TaskStatuses.Key(s)) {
					return
				}
			}
		}
	}
	return &reconciler{
		name:   "leaving",
		tables: append([]state.TableInfo{controlplane.TaskStatuses}, o.RouterTables...),
		list:   deactivating,
		keys: func(v *state.View, e state.Event) []state.Key {
			key := e.Key
			if e.Table != controlplane.TaskStatuses {
				task, one := o.taskOf(e)
				if !one {
					return slices.Collect(deactivating(v))
				}
				key = task
			}
			if s, ok := controlplane.TaskStatuses.Get(v, key); ok && s.Desired == agentapi.TaskState_DEACTIVATING && s.Live() {
				return []state.Key{key}
			}
			return nil
		},
		reconcile: o.finishLeaving,
		workers:   manyWorkers * o.Workers,
	}
}

func (o *Orchestrator) finishLeaving(ctx context.Context, key state.Key) (again time.Duration, err error) {
	v := o.Store.View()
	if t, ok := controlplane.Tasks.Get(v, key); ok && !o.lifecycle.routers.Clear(v, t) {
		return clearEvery, nil
	}
	_, err = o.Store.Update(ctx, func(tx *state.Tx) error {
		again = 0
		t, ok := controlplane.Tasks.Get(tx, key)
		s, is := controlplane.TaskStatuses.Get(tx, key)
		if !ok || !is || s.Desired != agentapi.TaskState_DEACTIVATING || !s.Live() {
			return nil
		}
		if !o.lifecycle.routers.Clear(tx, t) {
			again = clearEvery
			return nil
		}
		if next, changed := s.AdvanceDesired(agentapi.TaskState_STOPPED, s.StopCode, s.StoppedReason, o.Clock.Now()); changed {
			controlplane.TaskStatuses.Put(tx, next)
		}
		return nil
	})
	return again, err
}
