package orchestrator

import (
	"context"
	"iter"
	"time"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// instances ends the tasks that a container instance had when it was deregistered by force. ECS forgets them and lets them run;
// here the agent, which finds them assigned no more, stops them as well.
func (o *Orchestrator) instances() *reconciler {
	return &reconciler{
		name:   "instances",
		tables: []state.TableInfo{controlplane.ContainerInstances},
		list: func(v *state.View) iter.Seq[state.Key] {
			return func(yield func(state.Key) bool) {
				for ci := range controlplane.ContainerInstances.Scan(v, state.K()) {
					if ci.Status == capacity.Inactive && !yield(controlplane.ContainerInstances.Key(ci)) {
						return
					}
				}
			}
		},
		keys:      func(_ *state.View, e state.Event) []state.Key { return []state.Key{e.Key} },
		reconcile: o.endOrphans,
		workers:   manyWorkers * o.Workers,
	}
}

func (o *Orchestrator) endOrphans(ctx context.Context, instance state.Key) (time.Duration, error) {
	for {
		left := false
		_, err := o.Store.Update(ctx, func(tx *state.Tx) error {
			left = false
			ci, ok := controlplane.ContainerInstances.Get(tx, instance)
			if !ok || ci.Status != capacity.Inactive {
				return nil
			}
			var orphans []state.Key
			for s := range controlplane.LiveTasksByNode.Scan(tx, state.K(ci.Node)) {
				if t, ok := controlplane.Tasks.Get(tx, controlplane.TaskStatuses.Key(s)); ok && ci.Has(t) {
					orphans = append(orphans, controlplane.TaskStatuses.Key(s))
				}
			}
			left = len(orphans) > lostTasks
			for _, key := range orphans[:min(len(orphans), lostTasks)] {
				if err := o.lifecycle.deregistered(tx, key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || !left {
			return 0, err
		}
	}
}
