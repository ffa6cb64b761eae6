package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// feed applies entries to the machine, each once, in the order of the log. On the leader the proposer brings them as soon as etcd
// has committed them, and the watch brings them again; on the others the watch does.
type feed struct {
	machine *state.Machine
	logger  *slog.Logger
	due     chan struct{} // of one: it may be time for a snapshot

	mu       sync.Mutex // held while an entry is applied, or a snapshot restored
	index    uint64     // of the last entry applied
	halted   error      // an entry in an unknown format: nothing is applied after it
	progress chan struct{}
	awaited  uint64       // the entry whose outcomes are wanted; 0: none
	outcomes chan applied // of one; receives them
	logBytes int64        // applied since the last snapshot
	dueBytes int64        // as many make a snapshot due
}

// applied is what the machine made of an entry.
type applied struct {
	outcomes []state.Outcome
	err      error
}

func newFeed(m *state.Machine, logger *slog.Logger, dueBytes int64) *feed {
	return &feed{machine: m, logger: logger, dueBytes: dueBytes, due: make(chan struct{}, 1), progress: make(chan struct{})}
}

// errGap: entries between the last one applied and this one are missing.
var errGap = errors.New("entries are missing")

// apply applies entry n unless that has been done. The error is errGap, or that this server cannot go on.
func (f *feed) apply(n uint64, entry []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.halted != nil:
		return f.halted
	case n <= f.index:
		return nil
	case n > f.index+1:
		return errGap
	}
	outcomes, err := f.machine.Apply(entry)
	switch {
	case errors.Is(err, state.ErrUnknownFormat):
		f.halted = fmt.Errorf("etcd: entry %d: %w", n, err)
		return f.halted
	case err != nil:
		// Every server finds the same bytes malformed and passes over them.
		f.logger.Error("malformed log entry passed over", "index", n, "error", err)
	}
	f.advance(n, applied{outcomes, err})
	if f.logBytes += int64(len(entry)); f.logBytes >= f.dueBytes {
		select {
		case f.due <- struct{}{}:
		default:
		}
	}
	return nil
}

// advance moves to entry n. f.mu is held.
func (f *feed) advance(n uint64, made applied) {
	f.index = n
	if f.awaited != 0 && f.awaited <= n {
		if f.awaited != n {
			made = applied{err: errors.New("the entry came within a snapshot")}
		}
		f.outcomes <- made
		f.awaited = 0
	}
	close(f.progress)
	f.progress = make(chan struct{})
}

// await returns where the outcomes of entry n will be told. Call it before the entry is sent; one at a time.
func (f *feed) await(n uint64) <-chan applied {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.awaited, f.outcomes = n, make(chan applied, 1)
	return f.outcomes
}

// wait returns once entry n has been applied.
func (f *feed) wait(ctx context.Context, n uint64) error {
	for {
		f.mu.Lock()
		index, progress, halted := f.index, f.progress, f.halted
		f.mu.Unlock()
		switch {
		case index >= n:
			return nil
		case halted != nil:
			return halted
		}
		select {
		case <-progress:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// position is the index of the last entry applied.
func (f *feed) position() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.index
}

// follow applies what others, or this server, write to the log after revision, until the engine ends.
func (e *Engine) follow(revision int64) {
	for {
		err := e.watch(e.life, revision+1)
		for err != nil {
			switch {
			case e.closed():
				return
			case lasting(err):
				e.fail(err)
				return
			}
			// The watch ended: the connection broke, or others compacted what it had not seen. The log itself is still there.
			e.logger.Info("following the log anew", "after", err)
			if !pause(e.life, retryPause) {
				return
			}
			revision, err = e.catchUp(e.life)
		}
	}
}

// applied returns once entry n, which is in the log, has been applied. If it does not come the log is followed anew: the member of etcd that
// the watch is on may have been stopped, or cut off from the others.
func (e *Engine) applied(ctx context.Context, n uint64) error {
	for {
		limit, cancel := context.WithTimeout(ctx, feedTimeout)
		err := e.feed.wait(limit, n)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		select {
		case e.overdue <- struct{}{}:
		default:
		}
	}
}

// lasting says whether err stays however often it is tried again.
func lasting(err error) bool {
	var damaged *state.DamagedError
	return errors.Is(err, state.ErrUnknownFormat) || errors.As(err, &damaged)
}

// watch applies entries as they are written, from an etcd revision on. It returns why it ended.
func (e *Engine) watch(ctx context.Context, from int64) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	entries := e.client.Watch(ctx, e.keys.log(), clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithFilterDelete())
	for {
		select {
		case r, ok := <-entries:
			if !ok {
				return errors.New("the watch was closed")
			}
			if err := r.Err(); err != nil {
				return err
			}
			for _, event := range r.Events {
				n, err := e.keys.index(event.Kv.Key)
				if err == nil {
					err = e.feed.apply(n, event.Kv.Value)
				}
				if err != nil {
					return err
				}
			}
		case <-e.overdue:
			return errors.New("the watch is silent")
		}
	}
}

const (
	pageBytes   = 1 << 20 // of entries read at once, about
	pageEntries = 1024
)

// catchUp applies what the log holds beyond what this server has, all read as of one etcd revision, which it returns. If the log
// no longer goes back as far, the snapshot takes the machine there.
func (e *Engine) catchUp(ctx context.Context) (int64, error) {
	for {
		revision, err := e.catchUpOnce(ctx)
		if !errors.Is(err, rpctypes.ErrCompacted) {
			return revision, err
		}
	}
}

func (e *Engine) catchUpOnce(ctx context.Context) (revision int64, err error) {
	at := e.feed.position() // before the head is read, which is then not behind
	r, err := e.client.Txn(ctx).Then(clientv3.OpGet(e.keys.snapshot()), clientv3.OpGet(e.keys.head())).Commit()
	if err != nil {
		return 0, err
	}
	revision = r.Header.Revision
	p, err := parsePointer(value(r, 0))
	if err != nil {
		return 0, damaged(e.keys.snapshot(), err)
	}
	last, err := parseHead(value(r, 1))
	if err != nil {
		return 0, damaged(e.keys.head(), err)
	}
	if at > last.index {
		return 0, damaged(e.keys.head(), fmt.Errorf("the log ends at entry %d, and this server has applied entry %d", last.index, at))
	}
	limit := int64(1) // until it is known how large they are
	for at < last.index {
		page, err := e.client.Get(ctx, e.keys.entry(at+1), clientv3.WithRange(e.keys.entry(last.index+1)), clientv3.WithRev(revision), clientv3.WithLimit(limit))
		if err != nil {
			return 0, fmt.Errorf("read the log from entry %d: %w", at+1, err)
		}
		if len(page.Kvs) == 0 || string(page.Kvs[0].Key) != e.keys.entry(at+1) {
			if at >= p.Index {
				return 0, damaged(e.keys.entry(at+1), errors.New("the entry is missing"))
			}
			if err := e.restore(ctx, p, revision); err != nil {
				return 0, err
			}
			at = p.Index
			continue
		}
		size := 0
		for _, kv := range page.Kvs {
			if string(kv.Key) != e.keys.entry(at+1) {
				return 0, damaged(e.keys.entry(at+1), errors.New("the entry is missing"))
			}
			if err := e.feed.apply(at+1, kv.Value); err != nil {
				return 0, err
			}
			at, size = at+1, size+len(kv.Value)
		}
		limit = min(max(int64(len(page.Kvs))*pageBytes/int64(size+1), 1), pageEntries)
	}
	e.feed.snapshotHas(p.Bytes, e.opts.SnapshotBytes)
	return revision, nil
}

// value is that of the key got by operation i of a transaction; nil if there is none.
func value(r *clientv3.TxnResponse, i int) []byte {
	for _, kv := range r.Responses[i].GetResponseRange().Kvs {
		return kv.Value
	}
	return nil
}

func damaged(key string, err error) error {
	return &state.DamagedError{Path: key, Err: err, Advice: "has etcd been restored from a backup, or have keys been deleted by hand? Restart all servers to go on with what etcd holds"}
}
