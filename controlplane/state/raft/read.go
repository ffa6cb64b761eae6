package raft

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// Barrier implements state.Engine. On the leader everything acknowledged has been applied already (that is what an
// acknowledgement means, and the term's barrier covers earlier leaders), so it is enough to make sure that it still leads.
func (e *Engine) Barrier(ctx context.Context) error {
	for {
		if err := e.awaitLeading(ctx); err != nil {
			return err
		}
		if e.onlyVoter() {
			return nil
		}
		err := e.reads.confirm(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if e.Leadership().Term != 0 {
			return err
		}
	}
}

// onlyVoter says whether nobody else could have been elected. Members change only by entries that this server, being the
// only voter, has appended: it knows of them before they count.
func (e *Engine) onlyVoter() bool {
	if e.alone {
		return true
	}
	members := e.raft.GetConfiguration()
	if members.Error() != nil {
		return false
	}
	voters := 0
	for _, s := range members.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	return voters == 1 && e.raft.State() == raft.Leader
}

// readIndex lets reads share the round trip that confirms leadership.
type readIndex struct {
	engine *Engine

	mu      sync.Mutex
	next    *round // not begun; nil when nobody waits
	running bool
}

type round struct {
	done chan struct{}
	err  error
}

// confirm returns when a majority has confirmed, in a round that began after the call, that this server leads.
func (r *readIndex) confirm(ctx context.Context) error {
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
		return mine.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run makes rounds until nobody waits.
func (r *readIndex) run() {
	for {
		r.mu.Lock()
		now := r.next
		r.next = nil
		r.running = now != nil
		r.mu.Unlock()
		if now == nil {
			return
		}
		if err := r.engine.raft.VerifyLeader().Error(); err != nil {
			now.err = fmt.Errorf("raft: confirm leadership: %w", translate(err))
		}
		close(now.done)
	}
}
