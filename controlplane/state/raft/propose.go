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
	maxBatchBytes = 4 << 20 // of an entry; one transaction always fits
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
	p := &proposal{tx: tx, done: make(chan result, 1)}
	tx.Encode() // here, where it is done in parallel
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
		return state.Outcome{}, ctx.Err()
	case <-e.stop:
		select {
		case r := <-p.done:
			return r.outcome, r.err
		default:
			return state.Outcome{}, state.ErrClosed
		}
	}
}

// propose joins waiting transactions into entries until Close.
func (e *Engine) propose() {
	free := make(chan struct{}, maxInFlight)
	for {
		select {
		case free <- struct{}{}: // first a place, then what has come meanwhile
		case <-e.stop:
			return
		}
		select {
		case p := <-e.proposals:
			batch := e.collect(p)
			future := e.raft.Apply(encode(batch), 0)
			e.workers.Go(func() {
				settle(batch, future)
				<-free
			})
		case <-e.stop:
			return
		}
	}
}

// collect adds to first what is waiting, up to the limits of an entry.
func (e *Engine) collect(first *proposal) []*proposal {
	batch, size := []*proposal{first}, len(first.tx.Encode())
	for len(batch) < maxBatch && size < maxBatchBytes {
		select {
		case p := <-e.proposals:
			batch, size = append(batch, p), size+len(p.tx.Encode())
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

// settle waits for an entry and tells each of its transactions what became of it.
func settle(batch []*proposal, future raft.ApplyFuture) {
	err := translate(future.Error())
	var outcomes []state.Outcome
	if err == nil {
		switch response := future.Response().(type) {
		case []state.Outcome:
			outcomes = response
		case error:
			err = response
		}
		if err == nil && len(outcomes) != len(batch) {
			err = fmt.Errorf("raft: %d outcomes for %d transactions", len(outcomes), len(batch))
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
// ErrNotLeader, all others leave it open.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return state.ErrNotLeader
	case errors.Is(err, raft.ErrRaftShutdown):
		return state.ErrClosed
	}
	return fmt.Errorf("raft: %w", err)
}
