package etcd

import (
	"bytes"
	"context"
	"fmt"
	"io"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Save writes a snapshot of everything to w, in the format that all engines share: what Restore of another one takes. It has all that
// was acknowledged before the call, unless stale says that what this server knows will do.
func (e *Engine) Save(ctx context.Context, w io.Writer, stale bool) (state.Revision, error) {
	if !stale {
		if err := e.Barrier(ctx); err != nil {
			return 0, err
		}
	}
	s := e.feed.machine.Snapshot()
	if _, err := s.WriteTo(w); err != nil {
		return 0, fmt.Errorf("save snapshot: %w", err)
	}
	return s.Revision(), nil
}

// Restore replaces all of the state, on all servers, by what Save of any engine has written. Only the leader does so. The revision is
// higher than any before, and so every watcher has to list again. A file that is cut short or damaged changes nothing
// (state.DamagedError). Writes wait meanwhile.
//
// The snapshot takes the place of an entry that is not in the log. An empty one behind it, written with it at once, has every server look
// for what it lacks.
func (e *Engine) Restore(ctx context.Context, r io.Reader) (state.Revision, error) {
	received, err := io.ReadAll(r) // before writes have to wait
	if err != nil {
		return 0, fmt.Errorf("receive snapshot: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.life, cancel)() // Close waits for those who wait for their turn
	for _, mine := range []chan struct{}{e.snapping, e.turn} {
		select {
		case mine <- struct{}{}:
			defer func() { <-mine }()
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	t := e.current()
	if t == nil {
		return 0, state.ErrNotLeader
	}
	s, err := e.feed.machine.Renumbered(bytes.NewReader(received))
	if err != nil {
		return 0, err
	}
	now, err := e.writeParts(t, s, t.head.index+1)
	if err != nil {
		return 0, err
	}
	next := head{now.Index + 1, uint64(t.number)}
	if err := e.settle(t, next, clientv3.OpPut(e.keys.snapshot(), now.encode()),
		clientv3.OpPut(e.keys.entry(next.index), string(state.EncodeEntry(nil)))); err != nil {
		return 0, fmt.Errorf("restore snapshot: %w", err)
	}
	if err := e.feed.wait(ctx, next.index); err != nil {
		return 0, fmt.Errorf("the snapshot is restored, but not on this server yet: %w", err)
	}
	if err := e.put(t, e.superseded(now, now)...); err != nil {
		e.logger.Warn("what the restored snapshot has taken the place of is still there; the next snapshot removes it", "error", err)
	}
	return s.Revision(), nil
}
