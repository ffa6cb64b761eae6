package orchestrator

import (
	"context"
	"iter"
	"time"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	// cleanEvery is how often records whose time has come are looked for: removal may be late by as much.
	cleanEvery = time.Minute
	// cleanStep bounds one transaction; a stopped task is up to three records.
	cleanStep = 25
	// cleanServices bounds one in which services go: each has a dozen pages of events.
	cleanServices = 5
)

// retention removes what is over. It has a key for each kind of record and works by the clock: nothing announces that time
// has passed.
func (o *Orchestrator) retention() *reconciler {
	kinds := map[state.Key]func(v *state.View, now time.Time) []func(*state.Tx){
		state.K("task"): o.staleTasks, state.K("service"): o.staleServices,
		state.K("taskdefinition"): o.staleTaskDefinitions, state.K("clienttoken"): o.staleTokens,
		state.K("servicedeployment"): o.staleReleases, state.K("node"): o.staleNodes,
	}
	return &reconciler{
		name:   "retention",
		tables: []state.TableInfo{controlplane.Clusters}, // any: the clock is what counts
		list: func(*state.View) iter.Seq[state.Key] {
			return func(yield func(state.Key) bool) {
				for k := range kinds {
					if !yield(k) {
						return
					}
				}
			}
		},
		keys: func(*state.View, state.Event) []state.Key { return nil },
		reconcile: func(ctx context.Context, key state.Key) (time.Duration, error) {
			for {
				stale := kinds[key](o.Store.View(), o.Clock.Now())
				if len(stale) == 0 {
					return cleanEvery, nil
				}
				_, err := o.Store.Update(ctx, func(tx *state.Tx) error {
					for _, remove := range stale {
						remove(tx)
					}
					return nil
				})
				if err != nil {
					return 0, err
				}
			}
		},
	}
}

func (o *Orchestrator) staleTasks(v *state.View, now time.Time) (stale []func(*state.Tx)) {
	for s := range controlplane.StoppedTasks.Scan(v, state.K()) {
		if len(stale) == cleanStep || s.Stopped.AsTime().Add(o.TaskRetention).After(now) {
			break
		}
		stale = append(stale, func(tx *state.Tx) { controlplane.DeleteTask(tx, s) })
	}
	return stale
}

func (o *Orchestrator) staleServices(v *state.View, now time.Time) (stale []func(*state.Tx)) {
	for s := range controlplane.InactiveServices.Scan(v, state.K()) {
		if len(stale) == cleanServices || s.InactiveSince.AsTime().Add(o.ServiceRetention).After(now) {
			break
		}
		stale = append(stale, func(tx *state.Tx) {
			key := controlplane.Services.Key(s)
			if now, ok := controlplane.Services.Get(tx, key); !ok || now.Status != serviceInactive {
				return // created anew meanwhile
			}
			controlplane.Services.Delete(tx, key)
			controlplane.DeleteServiceEvents(tx, key)
			controlplane.PutTags(tx, s.Scope(), s.ARN(), nil)
		})
	}
	return stale
}

// staleReleases are the service deployments of long ago, but for each service's last one.
func (o *Orchestrator) staleReleases(v *state.View, now time.Time) (stale []func(*state.Tx)) {
	for d := range controlplane.ServiceDeploymentsByTime.Scan(v, state.K()) {
		if len(stale) == cleanStep || d.Created.AsTime().Add(controlplane.ServiceDeploymentLife).After(now) {
			break
		}
		if s, ok := controlplane.Services.Get(v, d.Scope().Key(d.Cluster, d.Service)); ok && s.ServiceDeployment == d.Id {
			continue
		}
		stale = append(stale, func(tx *state.Tx) { controlplane.DeleteServiceDeployment(tx, d) })
	}
	return stale
}

// staleTaskDefinitions are those in DELETE_IN_PROGRESS that no live task and no service's deployment names any more.
func (o *Orchestrator) staleTaskDefinitions(v *state.View, _ time.Time) (stale []func(*state.Tx)) {
	var deleting []*controlplane.TaskDefinition
	for d := range controlplane.TaskDefinitions.Scan(v, state.K()) {
		if d.Status == "DELETE_IN_PROGRESS" {
			deleting = append(deleting, d)
		}
	}
	if len(deleting) == 0 {
		return nil
	}
	used := map[state.Key]bool{}
	for s := range controlplane.LiveTasks.Scan(v, state.K()) {
		if t, ok := controlplane.Tasks.Get(v, controlplane.TaskStatuses.Key(s)); ok {
			used[t.Scope().FamilyRevisionKey(t.TaskDefinition)] = true
		}
	}
	for d := range controlplane.Deployments.Scan(v, state.K()) {
		used[d.Scope().FamilyRevisionKey(d.TaskDefinition)] = true
	}
	for _, d := range deleting {
		key := controlplane.TaskDefinitions.Key(d)
		if used[key] || len(stale) == cleanStep {
			continue
		}
		stale = append(stale, func(tx *state.Tx) {
			controlplane.TaskDefinitions.Delete(tx, key)
			controlplane.PutTags(tx, d.Scope(), d.ARN(), nil)
		})
	}
	return stale
}

func (o *Orchestrator) staleTokens(v *state.View, now time.Time) (stale []func(*state.Tx)) {
	for t := range controlplane.ClientTokensByExpiry.Scan(v, state.K()) {
		if len(stale) == cleanStep || t.Expires.AsTime().After(now) {
			break
		}
		stale = append(stale, func(tx *state.Tx) { controlplane.ClientTokens.Delete(tx, controlplane.ClientTokens.Key(t)) })
	}
	return stale
}
