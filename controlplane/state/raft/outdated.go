package raft

import (
	"io"

	"github.com/hashicorp/raft"
)

// Raft installs every snapshot that a leader of its term sends, and removes its log then. One may be older than what this server has: it was under
// way for long, as when this server was stopped, and another attempt was faster; or the leader looks for the end of this server's log, step by
// step, whenever it cannot store an entry, and comes to the beginning of its own. Then raft would go back, drop entries that this server has
// acknowledged, and end the process when it is told of a commit beyond them.

// Consumer implements raft.Transport: raft gets what others ask but for snapshots that it has no use of, and votes that it could not keep.
func (l *links) Consumer() <-chan raft.RPC { return l.requests }

// pass hands on what others ask, one after the other.
func (l *links) pass() {
	for {
		select {
		case rpc := <-l.NetworkTransport.Consumer():
			if r, ok := rpc.Command.(*raft.InstallSnapshotRequest); ok && l.outdated(r) {
				l.group.Go(func() {
					_, _ = io.Copy(io.Discard, rpc.Reader) // the next request follows it
					rpc.Respond(&raft.InstallSnapshotResponse{Term: r.Term, Success: true}, nil)
				})
				continue
			}
			if r, ok := rpc.Command.(*raft.RequestPreVoteRequest); ok && l.abstains(r.Term) {
				rpc.Respond(&raft.RequestPreVoteResponse{Term: r.Term}, nil)
				continue
			}
			select {
			case l.requests <- rpc:
			case <-l.closed:
				return
			}
		case <-l.closed:
			return
		}
	}
}

// outdated says whether this server has all that a leader's snapshot has: it has applied that, or has it in its log, where an entry of a leader's
// is the same as his, and so is all before it. A request of an earlier term is for raft to refuse.
func (e *Engine) outdated(r *raft.InstallSnapshotRequest) bool {
	select {
	case <-e.started:
	default:
		return false
	}
	if e.raft.State() == raft.Leader {
		return false // it is for raft to refuse
	}
	done := make(chan struct{})
	go func() { // raft may end without an answer
		_ = e.raft.VerifyLeader().Error() // it does not lead, and says so when it has done with the request before
		close(done)
	}()
	select {
	case <-done:
	case <-e.stop:
		return false
	}
	if r.Term < e.raft.CurrentTerm() {
		return false
	}
	var last raft.Log
	return r.LastLogIndex <= e.raft.AppliedIndex() || e.disk.GetLog(r.LastLogIndex, &last) == nil && last.Term == r.LastLogTerm
}
