package orchestrator

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// retryAfter is the pause before a key is looked at again after a failure.
const retryAfter = time.Second

// leastRest is what is worth a timer.
const leastRest = time.Millisecond

// manyWorkers is how many keys of a small thing, a task or a host, are worked on at a time for each service that is. A transaction is mostly
// waiting, and those that wait together are committed together; one after the other, the hosts of a zone that is lost would be waited for for minutes.
const manyWorkers = 4

// reconciler is one concern.
type reconciler struct {
	name   string
	tables []state.TableInfo
	// list yields every key to look at when the reconciler starts or has missed events.
	list func(v *state.View) iter.Seq[state.Key]
	// keys are those that an event concerns.
	keys func(v *state.View, e state.Event) []state.Key
	// reconcile brings one key nearer to what is wanted. again: look at it after this time even without an event; 0: no need.
	reconcile func(ctx context.Context, key state.Key) (again time.Duration, err error)
	// rest is how long a key that was just looked at is left alone whatever happens; nil: not at all.
	rest func(key state.Key) time.Duration
	// workers is how many keys are worked on at a time; 0: one.
	workers int
}

// queue holds the keys to look at now, in order of arrival and once each, and those to look at later.
type queue struct {
	ready []state.Key
	in    map[state.Key]bool
	later map[state.Key]time.Time
	rests map[state.Key]time.Time // until when
}

// event adds a key that something has happened to: now, or when it has rested.
func (q *queue) event(k state.Key, now time.Time) {
	until, resting := q.rests[k]
	if !resting || !until.After(now) {
		delete(q.rests, k)
		q.add(k)
	} else if at, ok := q.later[k]; !ok || at.After(until) {
		q.later[k] = until
	}
}

func (q *queue) add(k state.Key) {
	if !q.in[k] {
		q.in[k] = true
		q.ready = append(q.ready, k)
	}
}

// due moves what has become due to the ready keys and tells when the next one will be.
func (q *queue) due(now time.Time) (next time.Time) {
	for k, at := range q.later {
		switch {
		case !at.After(now):
			delete(q.later, k)
			q.add(k)
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	return next
}

// run works until ctx ends.
func (r *reconciler) run(ctx context.Context, store *state.Store, clk clock.Clock, log *slog.Logger) error {
	for ctx.Err() == nil {
		if err := r.follow(ctx, store, clk, log); err != nil && ctx.Err() == nil && !errors.Is(err, state.ErrCompacted) {
			return err
		}
	}
	return nil
}

type watched struct {
	batch state.Batch
	err   error
}

type result struct {
	again time.Duration
	err   error
}

// all reconciles keys, as many at a time as there are workers.
func (r *reconciler) all(ctx context.Context, keys []state.Key) []result {
	results := make([]result, len(keys))
	var g errgroup.Group
	g.SetLimit(max(r.workers, 1))
	for i, k := range keys {
		g.Go(func() error {
			results[i].again, results[i].err = r.reconcile(ctx, k)
			return nil
		})
	}
	_ = g.Wait() // the errors are among the results
	return results
}

// follow lists and then follows events until it has missed some.
func (r *reconciler) follow(ctx context.Context, store *state.Store, clk clock.Clock, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	v := store.View()
	events := make(chan watched)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w := store.Watch(ctx, v.Revision(), r.tables...)
		for {
			b, err := w.Next(ctx)
			select {
			case events <- watched{b, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	defer func() { cancel(); <-done }()

	q := &queue{in: map[state.Key]bool{}, later: map[state.Key]time.Time{}, rests: map[state.Key]time.Time{}}
	for k := range r.list(v) {
		q.add(k)
	}
	for {
		results := r.all(ctx, q.ready)
		if ctx.Err() != nil {
			return nil
		}
		for i, k := range q.ready {
			delete(q.in, k)
			delete(q.later, k)
			again, err := results[i].again, results[i].err
			if err != nil {
				log.Error("reconciler failed; trying again", "reconciler", r.name, "key", k.String(), "error", err)
				again = retryAfter
			}
			if again > 0 {
				q.later[k] = clk.Now().Add(again)
			}
			if r.rest != nil {
				delete(q.rests, k)
				if d := r.rest(k); d >= leastRest {
					q.rests[k] = clk.Now().Add(d)
				}
			}
		}
		q.ready = q.ready[:0]
		next := q.due(clk.Now())
		if len(q.ready) > 0 {
			continue
		}
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = clk.After(next.Sub(clk.Now()))
		}
		select {
		case e := <-events:
			if e.err != nil {
				return e.err
			}
			for _, event := range e.batch.Events {
				for _, k := range r.keys(e.batch.View, event) {
					q.event(k, clk.Now())
				}
			}
		case <-timer:
		case <-ctx.Done():
			return nil
		}
	}
}
