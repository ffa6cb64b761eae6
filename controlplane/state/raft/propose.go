package raft

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	maxBatch      = 1024    // transactions in one entry
	maxBatchBytes = 1 << 20 // an entry with as many is full; one transaction always fits
	// While one entry is on its way to the disk another one waits behind it, and the next is being collected.
	maxInFlight = 2
)

// proposal is a transaction on its way.
type proposal struct {
	tx   *state.Transaction
	done chan result // of one
}

type result struct {
	outcome state.Outcome
	err     error
}

// Commit implements state.Engine.
func (e *Engine) Commit(ctx context.Context, tx *state.Transaction) (state.Outcome, error) {
	switch l := e.Leadership(); {
	case l.Changed == nil:
		return state.Outcome{}, state.ErrClosed
	case l.Term == 0:
		return state.Outcome{}, state.ErrNotLeader
	}
	p := &proposal{tx: tx, done: make(chan result, 1)}
	tx.Size() // here, where it is done in parallel
	select {
	case e.proposals <- p:
	case <-ctx.Done():
		return state.Outcome{}, ctx.Err()
	case <-e.stop:
		return state.Outcome{}, state.ErrClosed
	}
	select {
	case r := <-p.done:
		return r.outcome, r.err
	case <-ctx.Done():
		return state.Outcome{}, fmt.Errorf("%w: %w", state.ErrUncertain, ctx.Err())
	case <-e.down:
		select {
		case r := <-p.done:
			return r.outcome, r.err
		default:
			return state.Outcome{}, fmt.Errorf("%w: %w", state.ErrUncertain, state.ErrClosed)
		}
	}
}

// propose joins waiting transactions into entries until Close.
func (e *Engine) propose() {
	defer e.refuseWaiting()
	for {
		var first *proposal
		select {
		case first = <-e.proposals:
		case <-e.stop:
			return
		}
		select {
		case e.slots <- struct{}{}: // first a place, then what has come meanwhile
		case <-e.stop:
			first.done <- result{err: state.ErrClosed}
			return
		}
		batch := e.collect(first)
		if err := e.refuse(); err != nil {
			settle(batch, nil, err)
			<-e.slots
			continue
		}
		future := e.raft.Apply(seal(encode(batch)), 0)
		// Not one of the workers: when raft ends it may leave a future without an answer.
		go func() {
			settle(batch, future, translate(future.Error()))
			<-e.slots
		}()
	}
}

// refuseWaiting answers those whose transactions will not be proposed any more.
func (e *Engine) refuseWaiting() {
	for {
		select {
		case p := <-e.proposals:
			p.done <- result{err: state.ErrClosed}
		default:
			return
		}
	}
}

// refuse says why nothing is to be proposed now.
func (e *Engine) refuse() error {
	if e.closed() {
		return state.ErrNotLeader // another one is about to
	}
	return e.writable()
}

// collect adds to first what is waiting, up to the limits of an entry.
func (e *Engine) collect(first *proposal) []*proposal {
	batch, size := []*proposal{first}, first.tx.Size()
	for len(batch) < maxBatch && size < maxBatchBytes {
		select {
		case p := <-e.proposals:
			batch, size = append(batch, p), size+p.tx.Size()
		default:
			return batch
		}
	}
	return batch
}

func encode(batch []*proposal) []byte {
	txs := make([]*state.Transaction, len(batch))
	for i, p := range batch {
		txs[i] = p.tx
	}
	return state.EncodeEntry(txs)
}

// settle tells each transaction of an entry what became of it.
func settle(batch []*proposal, future raft.ApplyFuture, err error) {
	var outcomes []state.Outcome
	if err == nil {
		switch response := future.Response().(type) {
		case []state.Outcome:
			outcomes = response
		case error:
			err = fmt.Errorf("%w: %w", state.ErrUncertain, response) // this server cannot apply it; others might
		}
		if err == nil && len(outcomes) != len(batch) {
			err = fmt.Errorf("%w: raft: %d outcomes for %d transactions", state.ErrUncertain, len(outcomes), len(batch))
		}
	}
	for i, p := range batch {
		if err != nil {
			p.done <- result{err: err}
			continue
		}
		p.done <- result{outcome: outcomes[i]}
	}
}

// translate gives raft's errors the meaning they have for package state: those that say that nothing was proposed become
// ErrNotLeader, or stay what this package made them; all others leave it open.
func translate(err error) error {
	var disk *state.DiskError
	switch {
	case err == nil, errors.Is(err, state.ErrNotLeader):
		return err
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress), errors.Is(err, raft.ErrEnqueueTimeout):
		return state.ErrNotLeader
	case errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%w: %w", state.ErrUncertain, state.ErrClosed)
	case errors.As(err, &disk):
		return fmt.Errorf("%w: %w", state.ErrUncertain, err)
	}
	return fmt.Errorf("%w: raft: %w", state.ErrUncertain, err)
}
