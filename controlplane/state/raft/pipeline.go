package raft

import (
	"sync"

	"github.com/hashicorp/raft"
)

// pipeline keeps raft's from a deadlock. Raft stops to consume answers at the first that is not a success, and looks up from sending to
// learn of it only between two requests. If it sends one more then, with another answered but not consumed, neither goes on: that
// follower gets nothing more in this term, though heartbeats do, and raft does not end. Here answers can always be laid down.
type pipeline struct {
	raft.AppendPipeline
	sending  func(*raft.AppendEntriesRequest)
	answered func(raft.AppendFuture)
	answers  chan raft.AppendFuture
	once     sync.Once
	closed   chan struct{}
}

// answersKept is more than raft sends before it looks up: it does so at random, half of the times.
const answersKept = 128

func newPipeline(p raft.AppendPipeline, sending func(*raft.AppendEntriesRequest), answered func(raft.AppendFuture)) *pipeline {
	q := &pipeline{AppendPipeline: p, sending: sending, answered: answered, answers: make(chan raft.AppendFuture, answersKept), closed: make(chan struct{})}
	go q.pass()
	return q
}

func (p *pipeline) pass() {
	for {
		select {
		case f := <-p.AppendPipeline.Consumer():
			p.answered(f)
			select {
			case p.answers <- f:
			case <-p.closed:
				return
			}
		case <-p.closed:
			return
		}
	}
}

// AppendEntries implements raft.AppendPipeline.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.sending(args)
	return p.AppendPipeline.AppendEntries(args, resp)
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}
