package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	maxBatch = 1024 // transactions in one entry
	// An entry with as many bytes is full. One more transaction of at most state.MaxBytes then still fits into what etcd takes, 1.5 MiB.
	maxBatchBytes = 384 << 10
)

// proposal is a transaction on its way.
type proposal struct {
	tx    *state.Transaction
	taken atomic.Bool // into an entry, or back by who waits for it
	done  chan result // of one
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
	case <-e.life.Done():
		return state.Outcome{}, state.ErrClosed
	}
	select {
	case r := <-p.done:
		return r.outcome, r.err
	case <-ctx.Done():
		if p.taken.CompareAndSwap(false, true) {
			return state.Outcome{}, ctx.Err()
		}
		return state.Outcome{}, fmt.Errorf("%w: %w", state.ErrUncertain, ctx.Err())
	case <-e.life.Done():
		if p.taken.CompareAndSwap(false, true) {
			return state.Outcome{}, state.ErrClosed
		}
		r := <-p.done
		return r.outcome, r.err
	}
}

// propose joins waiting transactions into entries until Close.
func (e *Engine) propose() {
	for {
		select {
		case p := <-e.proposals:
			batch := e.collect(p)
			if len(batch) == 0 {
				continue
			}
			outcomes, err := e.write(batch)
			for i, p := range batch {
				if err != nil {
					p.done <- result{err: err}
				} else {
					p.done <- result{outcome: outcomes[i]}
				}
			}
		case <-e.life.Done():
			return
		}
	}
}

// collect takes first and what else is waiting, up to the limits of an entry, but for those that nobody waits for any more.
func (e *Engine) collect(first *proposal) []*proposal {
	var batch []*proposal
	size := 0
	for p := first; ; {
		if p.taken.CompareAndSwap(false, true) {
			batch, size = append(batch, p), size+p.tx.Size()
		}
		if len(batch) == maxBatch || size >= maxBatchBytes {
			return batch
		}
		select {
		case p = <-e.proposals:
		default:
			return batch
		}
	}
}

// write has one entry committed and applied. An error that is not ErrUncertain means that it is not, and never will be, in the log.
func (e *Engine) write(batch []*proposal) ([]state.Outcome, error) {
	e.turn <- struct{}{}
	defer func() { <-e.turn }()
	t := e.current()
	if t == nil {
		return nil, state.ErrNotLeader
	}
	txs := make([]*state.Transaction, len(batch))
	for i, p := range batch {
		txs[i] = p.tx
	}
	entry := state.EncodeEntry(txs)
	next := head{t.head.index + 1, uint64(t.number)}
	outcomes := e.feed.await(next.index)
	if err := e.settle(t, next, clientv3.OpPut(e.keys.entry(next.index), string(entry))); err != nil {
		return nil, err
	}
	if err := e.feed.apply(next.index, entry); err != nil && !errors.Is(err, errGap) {
		return nil, fmt.Errorf("%w: %w", state.ErrUncertain, err) // this server cannot apply it; others might
	}
	select {
	case made := <-outcomes:
		if made.err == nil && len(made.outcomes) != len(batch) {
			made.err = fmt.Errorf("etcd: %d outcomes for %d transactions", len(made.outcomes), len(batch))
		}
		if made.err != nil {
			return nil, fmt.Errorf("%w: %w", state.ErrUncertain, made.err)
		}
		return made.outcomes, nil
	case <-e.life.Done():
		return nil, fmt.Errorf("%w: %w", state.ErrUncertain, state.ErrClosed)
	}
}

// settle makes next the head, together with ops, which write the log up to it. It sends them again until they are known to have been
// done, or the term is over: after an answer that leaves it open, nothing else can be sent.
func (e *Engine) settle(t *term, next head, ops ...clientv3.Op) error {
	ops = append(ops, clientv3.OpPut(e.keys.head(), next.String()))
	var open error // not nil: an earlier attempt may have succeeded, or succeed yet
	for {
		if t.ctx.Err() != nil {
			return over(open)
		}
		done, err := e.send(t, next, ops, open != nil)
		if done && err == nil {
			t.head = next
			return nil
		}
		if done {
			t.end()
			return err
		}
		if isNoSpace(err) {
			h, headErr := e.readHeadOnce(t.ctx)
			switch {
			case headErr == nil && h == next:
				t.head = next
				return nil
			case headErr == nil && open == nil:
				return noSpace()
			}
		}
		why, certain := refused(err)
		if certain && open == nil {
			return why
		}
		if open = err; !certain {
			e.logger.Warn("an entry may or may not be in the log; sending it again", "index", next.index, "error", err)
		}
		pause(t.ctx, retryPause)
	}
}

// over is what is said of an entry when the term has ended.
func over(open error) error {
	if open != nil {
		return fmt.Errorf("%w: etcd: %w", state.ErrUncertain, open)
	}
	return state.ErrNotLeader
}

// send makes one attempt. It is done if what became of the entry is known, and then err says what.
func (e *Engine) send(t *term, next head, ops []clientv3.Op, again bool) (done bool, err error) {
	ctx, cancel := context.WithTimeout(t.ctx, requestTimeout)
	defer cancel()
	r, err := e.client.Txn(ctx).
		If(t.holds(e.keys), e.headIs(t.head)).
		Then(ops...).
		Else(clientv3.OpGet(e.keys.head())).Commit()
	switch {
	case err != nil:
		return false, err
	case r.Succeeded:
		return true, nil
	}
	now, err := parseHead(value(r, 0))
	switch {
	case err == nil && now == next:
		return true, nil // an earlier attempt had succeeded
	case err == nil && now == t.head, !again:
		return true, state.ErrNotLeader // deposed; the fence has closed before it came
	}
	// Deposed, and others have gone on: whether from this entry or from the one before it cannot be told from the head.
	return true, fmt.Errorf("%w: etcd: deposed while entry %d was on its way", state.ErrUncertain, next.index)
}

// headIs is the condition that the log ends with h.
func (e *Engine) headIs(h head) clientv3.Cmp {
	if h == (head{}) {
		return clientv3.Compare(clientv3.CreateRevision(e.keys.head()), "=", 0)
	}
	return clientv3.Compare(clientv3.Value(e.keys.head()), "=", h.String())
}
