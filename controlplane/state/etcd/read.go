package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Barrier implements state.Engine, on any server and whether or not anybody leads: what was acknowledged is in the log, whose
// end etcd tells.
func (e *Engine) Barrier(ctx context.Context) error {
	for {
		if e.closed() {
			return state.ErrClosed
		}
		n, err := e.reads.share(ctx)
		if err == nil {
			err = e.applied(ctx, n)
		}
		switch {
		case err == nil:
			return nil
		case e.closed():
			return state.ErrClosed
		case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
			return fmt.Errorf("%w: %w: %w", state.ErrNoLeader, ctx.Err(), err)
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", state.ErrNoLeader, err)
		case lasting(err):
			return err
		}
		pause(ctx, retryPause)
	}
}

// reads lets those that wait share the request by which the head is read.
type reads struct {
	engine *Engine

	mu      sync.Mutex
	next    *round // not begun; nil when nobody waits
	running bool
}

type round struct {
	done  chan struct{}
	index uint64
	err   error
}

// share returns the index of the last entry as of some moment after the call.
func (r *reads) share(ctx context.Context) (uint64, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	mine := r.next
	if !r.running {
		r.running = true
		go r.run()
	}
	r.mu.Unlock()
	select {
	case <-mine.done:
		return mine.index, mine.err
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-r.engine.life.Done():
		return 0, state.ErrClosed
	}
}

// run makes rounds until nobody waits.
func (r *reads) run() {
	for {
		r.mu.Lock()
		now := r.next
		r.next = nil
		r.running = now != nil
		r.mu.Unlock()
		if now == nil {
			return
		}
		h, err := r.engine.readHeadOnce(r.engine.life)
		now.index, now.err = h.index, err
		close(now.done)
	}
}
