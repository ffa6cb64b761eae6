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
	p := newPipeline(unread{make(chan raft.AppendFuture)})
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
