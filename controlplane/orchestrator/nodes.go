package orchestrator

import (
	"context"
	"iter"
	"time"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// lostTasks bounds a transaction that ends tasks: each is a record, and its endpoints go with it.
const lostTasks = 10

// nodes ends the tasks of nodes that are DOWN, or no more. A node that returns finds that they are no longer assigned.
func (o *Orchestrator) nodes() *reconciler {
	return &reconciler{
		name:   "nodes",
		tables: []state.TableInfo{controlplane.Nodes},
		list: func(v *state.View) iter.Seq[state.Key] {
			return func(yield func(state.Key) bool) {
				for n := range controlplane.Nodes.Scan(v, state.K()) {
					if !yield(controlplane.Nodes.Key(n)) {
						return
					}
				}
			}
		},
		keys:      func(_ *state.View, e state.Event) []state.Key { return []state.Key{e.Key} },
		reconcile: o.endLostTasks,
		workers:   manyWorkers * o.Workers,
	}
}

func (o *Orchestrator) endLostTasks(ctx context.Context, node state.Key) (time.Duration, error) {
	for {
		v := o.Store.View()
		if n, ok := controlplane.Nodes.Get(v, node); ok && n.Status != capacity.NodeDown {
			return 0, nil
		}
		var lost []state.Key
		for s := range controlplane.LiveTasksByNode.Scan(v, node) {
			if lost = append(lost, controlplane.TaskStatuses.Key(s)); len(lost) == lostTasks {
				break
			}
		}
		if len(lost) == 0 {
			return 0, nil
		}
		_, err := o.Store.Update(ctx, func(tx *state.Tx) error {
			if n, ok := controlplane.Nodes.Get(tx, node); ok && n.Status != capacity.NodeDown {
				return nil // it came back just in time
			}
			for _, key := range lost {
				if err := o.lifecycle.Lost(tx, key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
}
