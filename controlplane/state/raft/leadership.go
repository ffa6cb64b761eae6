package raft

import (
	"context"

	"github.com/hashicorp/raft"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Leadership implements state.Engine.
func (e *Engine) Leadership() state.Leadership {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leadership
}

// followLeadership keeps e.leadership true until Close.
func (e *Engine) followLeadership(notify <-chan bool, observations <-chan raft.Observation) {
	if e.raft.State() != raft.Leader {
		e.setLeadership(0) // a leader may have been observed before there was an observer
	}
	for {
		select {
		case leads := <-notify:
			if leads {
				e.takeOver()
			} else {
				e.setLeadership(0)
			}
		case <-observations:
			if e.raft.State() != raft.Leader {
				e.setLeadership(0)
			}
		case <-e.stop:
			return
		}
	}
}

// takeOver announces leadership once everything from earlier terms has been applied here.
func (e *Engine) takeOver() {
	term := e.raft.CurrentTerm()
	e.setLeadership(0)
	last := e.raft.LastIndex()
	applied := make(chan error, 1)
	go func() { applied <- e.raft.Barrier(0).Error() }() // raft may end without an answer
	select {
	case err := <-applied:
		if err != nil {
			e.logger.Warn("lost leadership before it began", "term", term, "error", err)
			return
		}
	case <-e.stop:
		return
	}
	e.fsm.progress.reach(last) // what is in a snapshot was not counted
	// Were it another term by now, a further notification would be on its way.
	if e.raft.CurrentTerm() == term {
		e.setLeadership(term)
	}
}

func (e *Engine) setLeadership(term uint64) {
	_, id := e.raft.LeaderWithID()
	leader := string(id)
	if term == 0 && leader == e.opts.NodeID {
		leader = "" // not yet
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing || e.leadership.Term == term && e.leadership.Leader == leader {
		return
	}
	close(e.changed)
	e.changed = make(chan struct{})
	e.leadership = state.Leadership{Term: term, Leader: leader, Changed: e.changed}
}

// abstains says whether this server takes no part in an election for term, as its disk would not keep a vote, nor one for itself. Raft finds that out too
// late: it gives its word beforehand, and begins a term of its own. Whoever counted on the one has voted for himself, for nothing; and whoever is elected
// in an earlier term than the other gives up on hearing of it. That this server is in a later term already is for raft to say.
func (e *Engine) abstains(term uint64) bool {
	if e.disk.problem() == nil {
		return false
	}
	select {
	case <-e.started:
		return e.raft.CurrentTerm() <= term
	default:
		return false
	}
}

// awaitLeading returns once this server leads, which it does when nobody else can.
func (e *Engine) awaitLeading(ctx context.Context) error {
	for {
		l := e.Leadership()
		switch {
		case l.Changed == nil:
			return state.ErrClosed
		case l.Term != 0:
			return ctx.Err()
		case l.Leader != "":
			return state.ErrNotLeader
		}
		select {
		case <-l.Changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
