package raft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Barrier implements state.Engine, on any server. Everything acknowledged has been applied by the leader (that is what an
// acknowledgement means, and the term's barrier covers earlier leaders), and so has, once it is settled, everything that was shown
// anywhere. So it is enough to learn the leader's revision, to make sure that it was the leader still, and to wait until this server
// has applied as much.
func (e *Engine) Barrier(ctx context.Context) error {
	for {
		l, err := e.awaitLeader(ctx)
		if err != nil {
			return err
		}
		if e.alone && l.Term != 0 {
			return nil // nobody else can have been elected
		}
		r, err := e.reads.share(ctx)
		switch {
		case err == nil && e.applied(ctx, r):
			return nil
		case e.closed():
			return state.ErrClosed
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", state.ErrNoLeader, ctx.Err())
		}
		// The leader has gone or could not be asked. Somebody will lead before long.
		select {
		case <-l.Changed:
		case <-time.After(e.timeout / 20):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", state.ErrNoLeader, ctx.Err())
		}
	}
}

// applied returns whether this server's machine has applied r, which it waits for.
func (e *Engine) applied(ctx context.Context, r state.Revision) bool {
	if e.fsm.machine.Revision() >= r {
		return true
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.life, cancel)()
	return e.fsm.machine.Await(r, ctx.Done())
}

// awaitLeader returns once somebody is known to lead.
func (e *Engine) awaitLeader(ctx context.Context) (state.Leadership, error) {
	if err := ctx.Err(); err != nil {
		return state.Leadership{}, err
	}
	for {
		l := e.Leadership()
		switch {
		case l.Changed == nil:
			return l, state.ErrClosed
		case l.Leader != "":
			return l, nil
		}
		select {
		case <-l.Changed:
		case <-ctx.Done():
			return l, fmt.Errorf("%w: %w", state.ErrNoLeader, ctx.Err())
		}
	}
}

// readIndex lets reads share the round trip by which a revision is learnt.
type readIndex struct {
	engine *Engine

	mu      sync.Mutex
	next    *round // not begun; nil when nobody waits
	running bool
}

type round struct {
	done     chan struct{}
	revision state.Revision
	err      error
}

// share returns a revision that was current, in the whole group, in a round that began after the call.
func (r *readIndex) share(ctx context.Context) (state.Revision, error) {
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
		return mine.revision, mine.err
	case <-ctx.Done():
		return 0, ctx.Err()
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
		now.revision, now.err = r.engine.readRevision()
		close(now.done)
	}
}

// readRevision is what Barrier waits for: from the leader's own machine, or asked of it.
func (e *Engine) readRevision() (state.Revision, error) {
	ctx, cancel := context.WithTimeout(e.life, e.rpcTimeout())
	defer cancel()
	l := e.Leadership()
	if l.Term != 0 {
		if err := e.settled(ctx); err != nil {
			return 0, err
		}
		revision := e.fsm.machine.Revision()
		return revision, e.confirm(ctx, l.Term)
	}
	address, id := e.raft.LeaderWithID()
	if id == "" || string(id) == e.opts.NodeID {
		return 0, state.ErrNotLeader
	}
	answer, err := e.callers.to(string(id), string(address)).ask(ctx, askRead)
	if err != nil {
		return 0, err
	}
	if len(answer) != 8 {
		return 0, errors.New("raft: malformed answer")
	}
	return state.Revision(binary.BigEndian.Uint64(answer)), nil
}

// settled returns once this leader's machine has applied what is committed. Raft tells followers of a commit before that is so, and one that is
// faster shows what a later read must not miss.
func (e *Engine) settled(ctx context.Context) error {
	committed := e.raft.CommitIndex()
	if e.fsm.progress.at() >= committed {
		return nil
	}
	// Nearly always it is a command, and about to be applied: that costs less than to read it.
	soon, cancel := context.WithTimeout(ctx, time.Millisecond)
	err := e.fsm.progress.await(soon, committed)
	cancel()
	if err == nil {
		return nil
	}
	for i := committed; i > e.fsm.progress.at(); i-- {
		var l raft.Log
		switch err := e.disk.GetLog(i, &l); {
		case errors.Is(err, raft.ErrLogNotFound):
			return nil // a snapshot of the machine has taken its place
		case err != nil:
			return err
		case l.Type == raft.LogCommand:
			if err := e.fsm.progress.await(ctx, i); err != nil {
				return err
			}
		}
	}
	e.fsm.progress.reach(committed)
	return nil
}

// confirm returns nil if a majority did not know of a term later than this one at some time after the call, so that nobody else
// can have been elected, and acknowledged anything, before it.
//
// It is not raft's VerifyLeader, which counts answers to heartbeats sent before it was called: a leader that wakes from a long
// stop finds such answers in its sockets and takes itself for the leader still.
func (e *Engine) confirm(ctx context.Context, term uint64) error {
	members := e.configuration()
	votes, needed := 0, 1
	var others []raft.Server
	for _, s := range members {
		switch {
		case s.Suffrage != raft.Voter:
		case string(s.ID) == e.opts.NodeID:
			votes++
		default:
			others = append(others, s)
		}
	}
	needed = (len(others)+votes)/2 + 1
	answers := make(chan error, len(others))
	for _, s := range others {
		e.confirmers.ask(e.callers.to(string(s.ID), string(s.Address)), term, ctx, answers)
	}
	var why error
	for range others {
		if votes >= needed {
			break
		}
		select {
		case err := <-answers:
			if err == nil {
				votes++
			} else {
				why = err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	// The members looked at are the latest only if this server leads, and it may have been deposed and elected again meanwhile.
	if e.raft.State() != raft.Leader || e.raft.CurrentTerm() != term {
		return state.ErrNotLeader
	}
	if votes < needed {
		return fmt.Errorf("raft: confirm leadership: %d of %d voters needed: %w", votes, needed, why)
	}
	return nil
}

// confirmers ask each server one thing at a time. Of the questions that come up meanwhile only the last one is put: whoever put
// the others has had its majority from faster servers, or has given up.
type confirmers struct {
	mu sync.Mutex
	of map[*caller]*question // the one to put next; present, if perhaps nil, while one is being put
}

type question struct {
	ctx     context.Context
	term    uint64
	answers chan<- error // has room
}

func (c *confirmers) ask(to *caller, term uint64, ctx context.Context, answers chan<- error) {
	q := &question{ctx, term, answers}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[*caller]*question{}
	}
	if before, busy := c.of[to]; busy {
		if before != nil {
			before.answers <- errors.New("a later question took its place")
		}
		c.of[to] = q
		return
	}
	c.of[to] = nil
	go c.run(to, q)
}

func (c *confirmers) run(to *caller, q *question) {
	for q != nil {
		answer, err := to.ask(q.ctx, askTerm)
		if err == nil && (len(answer) != 8 || binary.BigEndian.Uint64(answer) > q.term) {
			err = state.ErrNotLeader
		}
		q.answers <- err
		c.mu.Lock()
		q = c.of[to]
		if q != nil {
			c.of[to] = nil
		} else {
			delete(c.of, to)
		}
		c.mu.Unlock()
	}
}
