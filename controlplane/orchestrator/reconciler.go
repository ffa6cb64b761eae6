package orchestrator

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// retryAfter is the pause before a key is looked at again after a failure.
const retryAfter = time.Second

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
}

// queue holds the keys to look at now, in order of arrival and once each, and those to look at later.
type queue struct {
	ready []state.Key
	in    map[state.Key]bool
	later map[state.Key]time.Time
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

	q := &queue{in: map[state.Key]bool{}, later: map[state.Key]time.Time{}}
	for k := range r.list(v) {
		q.add(k)
	}
	for {
		for _, k := range q.ready {
			delete(q.in, k)
			delete(q.later, k)
			again, err := r.reconcile(ctx, k)
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				log.Error("reconciler failed; trying again", "reconciler", r.name, "key", k.String(), "error", err)
				again = retryAfter
			}
			if again > 0 {
				q.later[k] = clk.Now().Add(again)
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
					q.add(k)
				}
			}
		case <-timer:
		case <-ctx.Done():
			return nil
		}
	}
}
