package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/dispatcher"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// Subscribers is what the Drainer asks of the dispatcher.
type Subscribers interface {
	// Acknowledged says whether every leased subscriber of kind has applied everything up to r.
	Acknowledged(kind agent.Kind, r state.Revision) bool
	// Subscribers lists them with the revisions each has acknowledged.
	Subscribers() []dispatcher.Subscriber
}

// AckBound is how long a subscriber that holds a lease is waited for: docs/design/task-model.md.
const AckBound = 10 * time.Second

// pollEvery is how often draining endpoints are looked at again when nothing calls for it: time passes without an event.
const pollEvery = 100 * time.Millisecond

// DrainerConfig is what a Drainer needs; all but AckBound is required. Subscribers may be set later, before Run: the dispatcher
// is itself given the Drainer.
type DrainerConfig struct {
	Store       *state.Store
	Subscribers Subscribers
	Clock       clock.Clock
	Log         *slog.Logger
	AckBound    time.Duration // 0: AckBound
}

// Drainer takes in what hosts report of endpoints and deletes those that are drained. Drain reports live in memory: a proxy
// repeats them when it is asked again, which every new session does.
type Drainer struct {
	DrainerConfig

	mu      sync.Mutex
	ages    clock.Ages[state.Key]           // of drains
	reports map[state.Key]map[string]uint64 // endpoint → node → revision whose drain is over there
	tidy    int                             // as many reports are looked through for what is gone
	wake    chan struct{}
}

// NewDrainer makes one.
func NewDrainer(c DrainerConfig) *Drainer {
	if c.AckBound == 0 {
		c.AckBound = AckBound
	}
	return &Drainer{DrainerConfig: c, reports: map[state.Key]map[string]uint64{}, wake: make(chan struct{}, 1), tidy: minTidy}
}

// Drained takes in a node's drain report.
func (d *Drainer) Drained(_ context.Context, node string, reports []*agent.Drained) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range reports {
		key, err := endpointKey(r.TargetGroupArn, r.EndpointId)
		if err != nil {
			d.Log.Warn("drain report", "node", node, "error", err)
			continue
		}
		if d.reports[key] == nil {
			d.reports[key] = map[string]uint64{}
		}
		d.reports[key][node] = max(d.reports[key][node], r.Revision)
	}
	if len(d.reports) >= d.tidy { // only a leader sweeps
		d.forget(d.Store.View(), nil)
		d.tidy = max(minTidy, 2*len(d.reports))
	}
	d.Wake()
	return nil
}

// Repeat is what a node has reported of endpoints that still drain.
func (d *Drainer) Repeat(node string) []*agent.Drained {
	v := d.Store.View()
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []*agent.Drained
	for key, by := range d.reports {
		r, ok := by[node]
		if _, there := Endpoints.Get(v, key); !ok || !there {
			continue
		}
		parts := key.Parts() // as endpointKey has made it
		list = append(list, &agent.Drained{TargetGroupArn: parts[2], EndpointId: parts[3], Revision: r})
	}
	return list
}

// Wake has the Drainer look now: something was acknowledged.
func (d *Drainer) Wake() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// maxTransitions a transaction keeps below the store's limit.
const maxTransitions = 64

// Health takes in a node's health report.
func (d *Drainer) Health(ctx context.Context, node string, ts []*agent.HealthTransition) error {
	for len(ts) > 0 {
		batch := ts[:min(len(ts), maxTransitions)]
		ts = ts[len(batch):]
		_, err := d.Store.Update(ctx, func(tx *state.Tx) error {
			for _, t := range batch {
				key, err := endpointKey(t.TargetGroupArn, t.EndpointId)
				if err != nil {
					continue
				}
				if old, ok := Endpoints.Get(tx, key); ok {
					if e := transition(old, t); e != nil {
						Endpoints.Put(tx, e)
					}
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("record health reported by node %s: %w", node, err)
		}
	}
	return nil
}

// Run deletes drained endpoints whenever this server leads, until ctx ends.
func (d *Drainer) Run(ctx context.Context) error {
	return d.Store.RunLeader(ctx, func(ctx context.Context) error {
		w := d.Store.Watch(ctx, d.Store.Revision(), Endpoints)
		go func() {
			for ctx.Err() == nil {
				if _, err := w.Next(ctx); err != nil {
					w = d.Store.Watch(ctx, d.Store.Revision(), Endpoints) // it fell behind: the sweep reads all anyway
				}
				d.Wake()
			}
		}()
		for ctx.Err() == nil {
			waiting, err := d.sweep(ctx)
			if err != nil && ctx.Err() == nil {
				d.Log.Error("delete drained endpoints", "error", err)
			}
			var tick <-chan time.Time
			if waiting || err != nil {
				tick = d.Clock.After(pollEvery)
			}
			select {
			case <-ctx.Done():
			case <-tick:
			case <-d.wake:
			}
		}
		return nil
	})
}

// sweep deletes what is drained and says whether something still drains.
func (d *Drainer) sweep(ctx context.Context) (waiting bool, err error) {
	v := d.Store.View()
	subscribers := d.Subscribers.Subscribers()
	seen := map[state.Key]bool{}
	for e := range DrainingEndpoints.Scan(v, state.K()) {
		key := Endpoints.Key(e)
		seen[key] = true
		_, rev, _ := Endpoints.GetRevision(v, key)
		if !d.over(e, key, rev, subscribers) {
			waiting = true
			continue
		}
		_, uerr := d.Store.Update(ctx, func(tx *state.Tx) error {
			// Unless it was registered anew meanwhile.
			if _, now, ok := Endpoints.GetRevision(tx, key); ok && now == rev {
				Endpoints.Delete(tx, key)
			}
			return nil
		})
		err = errors.Join(err, uerr)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(v, seen)
	return waiting, err
}

// minTidy is the least number of reports that is worth looking through.
const minTidy = 1024

// forget drops reports on endpoints that are gone. d.mu is held.
func (d *Drainer) forget(v *state.View, seen map[state.Key]bool) {
	for key := range d.reports {
		// A report can come before this server's view shows the drain; it is repeated only with a new session, so it is kept
		// as long as the endpoint exists.
		if _, ok := Endpoints.Get(v, key); !ok && !seen[key] {
			delete(d.reports, key)
		}
	}
}

// over says whether a draining endpoint gets nothing any more: everybody who follows the table has acknowledged the drain or
// had the time to, those who have are done with their requests or the delay has passed, and so has the time of DNS answers.
func (d *Drainer) over(e *Endpoint, key state.Key, rev state.Revision, subscribers []dispatcher.Subscriber) bool {
	kind := agent.Kind_TARGETS
	if e.Discovery {
		kind = agent.Kind_ZONES
	}
	age := d.ages.Of(key, e.Draining.AsTime(), d.Clock.Now())
	switch {
	case age < time.Duration(e.TtlSeconds)*time.Second:
		return false
	case age < d.AckBound && !d.Subscribers.Acknowledged(kind, rev):
		return false
	case e.Discovery || age >= time.Duration(e.DelaySeconds)*time.Second:
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range subscribers {
		// Who has not acknowledged by now, or has lost its lease, is not waited for.
		if s.Stale || s.Acked[kind] < rev {
			continue
		}
		if d.reports[key][s.Node] < uint64(rev) {
			return false
		}
	}
	return true
}

// endpointKey finds the record that a report names: account and region stand in the group's ARN.
func endpointKey(group, id string) (state.Key, error) {
	a, err := arn.Parse(group)
	if err != nil {
		return "", err
	}
	return state.K(a.Account, a.Region, group, id), nil
}
