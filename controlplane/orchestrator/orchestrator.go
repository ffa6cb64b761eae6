// Package orchestrator makes records come true: it starts and stops the tasks of services, carries tasks through their lives,
// replaces what is lost and cleans up what is over.
//
// Each concern is one reconciler, and all work alike: a reconciler watches some tables, keeps a queue of keys to look at, and brings
// each nearer to what is wanted, by one transaction or a few. It decides from records and the clock alone and remembers nothing
// that it could not find again, so it may crash anywhere. All run on the leader only.
//
//   - services: as many healthy tasks as wanted, deployments, draining instances, deletion (service.go, plan.go, daemon.go)
//   - leaving: tasks whose endpoints are gone are told to stop (leaving.go)
//   - nodes: tasks of lost nodes end (nodes.go)
//   - instances: tasks of deregistered container instances end (deregistered.go)
//   - retention: what is over is removed after its time (retention.go)
//
// Lifecycle (lifecycle.go) holds the steps of one task's life that others take part in: the dispatcher reports, StopTask stops.
package orchestrator

import (
	"context"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// Router is what the orchestrator needs of those who send requests to tasks: load balancers, service discovery. A task that
// does not concern a router is nothing to it.
type Router interface {
	// Register makes the task's endpoints, INITIAL. It is idempotent.
	Register(tx *state.Tx, t *controlplane.Task, s *controlplane.TaskStatus) error
	// Withdraw begins to take the task out of the traffic (DRAINING): new requests go elsewhere. planned: a replacement is there,
	// so there is time to wait until DNS answers have expired.
	Withdraw(tx *state.Tx, t *controlplane.Task, planned bool) error
	// Remove deletes the endpoints at once: the task is gone.
	Remove(tx *state.Tx, t *controlplane.Task) error
	// Clear says that no endpoint record of the task is left.
	Clear(r state.Reader, t *controlplane.Task) bool
	// Healthy says that all endpoints of the task get requests; true without any.
	Healthy(r state.Reader, t *controlplane.Task) bool
}

// Judge is a Router that also knows when an endpoint has failed, as opposed to not being healthy yet.
type Judge interface {
	// Failed is the reason to replace the task, in ECS's words ("Task failed ELB health checks in (target-group …)"); "" when
	// there is none.
	Failed(r state.Reader, t *controlplane.Task) string
}

// Config of an Orchestrator.
type Config struct {
	Store *state.Store
	Clock clock.Clock
	Rand  io.Reader // ids; crypto/rand.Reader
	Log   *slog.Logger
	// RouterTables are the tables from which the Lifecycle's routers answer Clear and Healthy.
	RouterTables []state.TableInfo
	// Assume says whether a task with this ARN can have a role; the error is ECS's words. Nil: nobody asks.
	Assume func(account, role, taskARN string) error
	// TaskOf is the task, by its key, that an event of RouterTables concerns; false: it may concern any. Nil: they all may.
	TaskOf func(e state.Event) (state.Key, bool)
	// TaskRetention is how long stopped tasks are kept, and nodes that are DOWN; 30 days by default.
	TaskRetention time.Duration
	// ServiceRetention is how long INACTIVE services are kept; a day by default.
	ServiceRetention time.Duration
	// Workers is how many services are worked on at a time, how many transactions of one are under way together, and so for nodes and leaving tasks; 0: one.
	// Rand is then read by several at once.
	Workers int
}

// Orchestrator runs the reconcilers.
type Orchestrator struct {
	Config
	lifecycle *Lifecycle
	looks     looks
	hosts     hostsCache
	zones     zonesCache
	ages      clock.Ages[state.Key] // of running tasks, and of the last failure of services
}

// New makes an orchestrator; Lifecycle, which has the routers, is shared with the dispatcher and the operations.
func New(c Config, l *Lifecycle) *Orchestrator {
	if c.TaskRetention == 0 {
		c.TaskRetention = 30 * 24 * time.Hour
	}
	if c.ServiceRetention == 0 {
		c.ServiceRetention = 24 * time.Hour
	}
	return &Orchestrator{Config: c, lifecycle: l, looks: looks{of: map[state.Key]*memory{}}}
}

// Run works whenever this server leads, until ctx ends.
func (o *Orchestrator) Run(ctx context.Context) error {
	return o.Store.RunLeader(ctx, func(ctx context.Context) error {
		defer o.looks.forget()
		g, ctx := errgroup.WithContext(ctx)
		for _, r := range []*reconciler{o.services(), o.leaving(), o.nodes(), o.instances(), o.retention()} {
			g.Go(func() error { return r.run(ctx, o.Store, o.Clock, o.Log) })
		}
		return g.Wait()
	})
}

// routers acts on several as on one.
type routers []Router

func (rs routers) Register(tx *state.Tx, t *controlplane.Task, s *controlplane.TaskStatus) error {
	for _, r := range rs {
		if err := r.Register(tx, t, s); err != nil {
			return err
		}
	}
	return nil
}

func (rs routers) Withdraw(tx *state.Tx, t *controlplane.Task, planned bool) error {
	for _, r := range rs {
		if err := r.Withdraw(tx, t, planned); err != nil {
			return err
		}
	}
	return nil
}

func (rs routers) Remove(tx *state.Tx, t *controlplane.Task) error {
	for _, r := range rs {
		if err := r.Remove(tx, t); err != nil {
			return err
		}
	}
	return nil
}

func (rs routers) Clear(r state.Reader, t *controlplane.Task) bool {
	for _, router := range rs {
		if !router.Clear(r, t) {
			return false
		}
	}
	return true
}

func (rs routers) Healthy(r state.Reader, t *controlplane.Task) bool {
	for _, router := range rs {
		if !router.Healthy(r, t) {
			return false
		}
	}
	return true
}

func (rs routers) Failed(r state.Reader, t *controlplane.Task) string {
	for _, router := range rs {
		if j, ok := router.(Judge); ok {
			if why := j.Failed(r, t); why != "" {
				return why
			}
		}
	}
	return ""
}
