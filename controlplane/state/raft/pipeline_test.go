package raft

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// unread is raft's pipeline when two requests can be under way: it takes the next one only when the answer to the last was consumed.
type unread struct{ answers chan raft.AppendFuture }

func (u unread) AppendEntries(*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	u.answers <- nil
	return nil, nil
}
func (u unread) Consumer() <-chan raft.AppendFuture { return u.answers }
func (u unread) Close() error                       { return nil }

// Sending does not wait for somebody to consume answers.
func TestPipelineWithoutConsumer(t *testing.T) {
	p := newPipeline(unread{make(chan raft.AppendFuture)}, func(*raft.AppendEntriesRequest) {}, func(raft.AppendFuture) {})
	sent := make(chan struct{})
	go func() {
		for range answersKept {
			p.AppendEntries(nil, nil)
		}
		close(sent)
	}()
	select {
	case <-sent:
	case <-time.After(time.Minute):
		t.Fatal("stuck")
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A follower is told of no commit beyond the entries that a request is about.
func TestBoundCommit(t *testing.T) {
	for _, c := range []struct {
		previous  uint64
		entries   int
		committed uint64
		want      uint64
	}{
		{previous: 10, entries: 3, committed: 20, want: 13},
		{previous: 10, entries: 3, committed: 13, want: 13},
		{previous: 10, entries: 3, committed: 5, want: 5},
		{previous: 10, committed: 11, want: 10},
		{entries: 1, committed: 9, want: 1},
		{want: 0}, // a heartbeat
	} {
		r := raft.AppendEntriesRequest{PrevLogEntry: c.previous, Entries: make([]*raft.Log, c.entries), LeaderCommitIndex: c.committed}
		if boundCommit(&r); r.LeaderCommitIndex != c.want {
			t.Errorf("%d entries after %d tell of the commit of %d as of %d, want %d", c.entries, c.previous, c.committed, r.LeaderCommitIndex, c.want)
		}
	}
}
