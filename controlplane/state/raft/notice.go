package raft

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// noticeDelay is how long the next entry, which says by itself what is committed, is waited for.
const noticeDelay = 2 * time.Millisecond

// notices tell followers what is committed as soon as it is. Raft does with the next entry, and when none comes after 50 to 100 ms: so long a
// read of what was just written would wait on a follower, and the agents and proxies that are connected there.
//
// A notice is what raft might send itself: a request for no entries, by the header and in the term of the last that it has sent, which says that
// the follower has a committed entry, of this index and term, or is to refuse. Nothing is committed by it that is not, whoever leads by now.
type notices struct {
	engine *Engine
	due    chan struct{} // of one

	mu          sync.Mutex
	index, term uint64 // of the last entry that was applied
	to          map[raft.ServerID]*noticed
}

// noticed is what a follower was last sent.
type noticed struct {
	address raft.ServerAddress
	last    raft.AppendEntriesRequest // without entries
	commit  uint64                    // what it is told to be committed
	has     uint64                    // the last entry that it is known to have
	at      time.Time                 // when it was last written to, or has answered
	busy    bool                      // a notice is on its way
}

// sending takes note of a request of raft's own. Heartbeats say nothing of commits.
func (n *notices) sending(id raft.ServerID, address raft.ServerAddress, r *raft.AppendEntriesRequest) {
	if r.LeaderCommitIndex == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.to[id]
	if f == nil {
		f = &noticed{}
		n.to[id] = f
	}
	if r.Term != f.last.Term {
		f.commit, f.has = 0, 0
	}
	f.address, f.at = address, time.Now()
	f.last = raft.AppendEntriesRequest{RPCHeader: r.RPCHeader, Term: r.Term, Leader: r.Leader}
	f.commit = max(f.commit, r.LeaderCommitIndex)
}

// answered takes note of an answer to a request of raft's own.
func (n *notices) answered(id raft.ServerID, r *raft.AppendEntriesRequest, answer *raft.AppendEntriesResponse) {
	if !answer.Success || r.LeaderCommitIndex == 0 {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if f := n.to[id]; f != nil && f.last.Term == r.Term {
		f.has, f.at = max(f.has, r.PrevLogEntry+uint64(len(r.Entries))), time.Now() // its disk may have been slow
		if f.commit < n.index && n.index <= f.has {
			n.wake()
		}
	}
}

// applied is told of entries in order.
func (n *notices) applied(l *raft.Log) {
	n.mu.Lock()
	n.index, n.term = l.Index, l.Term
	n.mu.Unlock()
	n.wake()
}

func (n *notices) wake() {
	select {
	case n.due <- struct{}{}:
	default:
	}
}

func (n *notices) run() {
	for {
		select {
		case <-n.due:
		case <-n.engine.stop:
			return
		}
		if n.engine.raft.State() != raft.Leader {
			continue
		}
		select {
		case <-time.After(noticeDelay):
		case <-n.engine.stop:
			return
		}
		n.send(n.engine.raft.CurrentTerm())
	}
}

// send gives those a notice who have the entry and whom raft writes to: not who has been removed, nor who is so slow that it does not get through.
func (n *notices) send(term uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, f := range n.to {
		if f.busy || f.commit >= n.index || f.has < n.index || f.last.Term != term || time.Since(f.at) > n.engine.timeout {
			continue
		}
		f.busy = true
		r := f.last
		r.PrevLogEntry, r.PrevLogTerm, r.LeaderCommitIndex = n.index, n.term, n.index
		to := target(id, f.address)
		n.engine.workers.Go(func() { n.give(f, id, to, &r) })
	}
}

func (n *notices) give(f *noticed, id raft.ServerID, to raft.ServerAddress, r *raft.AppendEntriesRequest) {
	var answer raft.AppendEntriesResponse
	err := n.engine.links.NetworkTransport.AppendEntries(id, to, r, &answer)
	n.mu.Lock()
	defer n.mu.Unlock()
	f.busy = false
	if err != nil || !answer.Success || f.last.Term != r.Term {
		return // raft will tell it
	}
	f.commit = max(f.commit, r.LeaderCommitIndex)
	if n.index > r.LeaderCommitIndex {
		n.wake()
	}
}
