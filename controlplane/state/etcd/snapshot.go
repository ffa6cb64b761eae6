package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// partBytes is how much of a snapshot one key holds: well below what etcd takes in one request.
const partBytes = 1 << 20

// snapshots takes one whenever this server leads and enough log has come together, until the engine ends.
func (e *Engine) snapshots() {
	for {
		select {
		case <-e.feed.due:
		case <-e.life.Done():
			return
		}
		t := e.current()
		if t == nil {
			continue // the leader does
		}
		e.snapping <- struct{}{}
		err := e.snapshot(t)
		<-e.snapping
		if err != nil && t.ctx.Err() == nil {
			e.logger.Error("snapshot failed; the log keeps growing", "error", err)
			pause(e.life, 10*retryPause)
		}
	}
}

// capture is the machine as it is now, and the entry it is at.
func (f *feed) capture() (s *state.Snapshot, index uint64, logBytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.machine.Snapshot(), f.index, f.logBytes
}

// captured forgets the bytes of log that a snapshot in force has taken the place of.
func (f *feed) captured(logBytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.logBytes -= logBytes
}

// snapshotHas notes how large the snapshot in force is: the next one is worth its writing when there is as much log.
func (f *feed) snapshotHas(bytes, least int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dueBytes = max(bytes, least)
}

func (f *feed) isDue() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.logBytes >= f.dueBytes
}

// restored moves to a snapshot, which the machine has become, if nothing was applied meanwhile.
func (f *feed) restored(from, index uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.index != from {
		return fmt.Errorf("etcd: entry %d was applied while snapshot %d was read", f.index, index)
	}
	f.logBytes = 0
	f.advance(index, applied{})
	return nil
}

// snapshot writes one, puts it in force and removes what it has taken the place of. The log since the snapshot before stays, for
// servers that are a little behind, and so does etcd's own history of that time.
func (e *Engine) snapshot(t *term) error {
	found, err := e.client.Get(t.ctx, e.keys.snapshot())
	if err != nil {
		return fmt.Errorf("etcd: read which snapshot is in force: %w", err)
	}
	var before pointer
	var since int64 // etcd's revision of that time
	for _, kv := range found.Kvs {
		if before, err = parsePointer(kv.Value); err != nil {
			return err
		}
		since = kv.ModRevision
	}
	if e.feed.snapshotHas(before.Bytes, e.opts.SnapshotBytes); !e.feed.isDue() {
		return nil
	}
	s, index, logBytes := e.feed.capture()
	now, err := e.writeParts(t, s, index)
	if err != nil {
		return err
	}
	if err := e.put(t, clientv3.OpPut(e.keys.snapshot(), now.encode())); err != nil {
		return fmt.Errorf("etcd: put snapshot %s in force: %w", now.ID, err) // if it is not, the next one removes it
	}
	e.feed.snapshotHas(now.Bytes, e.opts.SnapshotBytes)
	e.feed.captured(logBytes)
	if err := e.put(t, e.superseded(now, before)...); err != nil {
		return fmt.Errorf("etcd: remove what snapshot %s has taken the place of: %w", now.ID, err)
	}
	if since == 0 {
		return nil
	}
	// Others may have compacted further, or it may not be ours to do.
	if _, err := e.client.Compact(t.ctx, since); err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrCompacted) {
		e.logger.Warn("etcd's history could not be compacted; whoever runs it has to see to that", "error", err)
	}
	return nil
}

// writeParts writes a snapshot of what the log makes up to entry index. It is not in force yet.
func (e *Engine) writeParts(t *term, s *state.Snapshot, index uint64) (pointer, error) {
	w := &partWriter{engine: e, term: t, id: fmt.Sprintf("%x-%x", index, t.number)}
	size, err := s.WriteTo(w)
	if err == nil {
		err = w.flush()
	}
	if err != nil {
		err = errors.Join(err, e.put(t, clientv3.OpDelete(e.keys.snap(w.id), clientv3.WithPrefix())))
		return pointer{}, fmt.Errorf("etcd: write snapshot %s: %w", w.id, err)
	}
	return pointer{ID: w.id, Index: index, Parts: w.parts, Bytes: size}, nil
}

// superseded removes what nobody needs once now is in force: all other snapshots, and the log up to the one before.
func (e *Engine) superseded(now, before pointer) []clientv3.Op {
	return []clientv3.Op{
		clientv3.OpDelete(e.keys.log(), clientv3.WithRange(e.keys.entry(before.Index+1))),
		clientv3.OpDelete(e.keys.snaps(), clientv3.WithRange(e.keys.snap(now.ID))),
		clientv3.OpDelete(after(e.keys.snap(now.ID)), clientv3.WithRange(after(e.keys.snaps()))),
	}
}

// put writes under the fence, as often as need be: what is written once more is the same.
func (e *Engine) put(t *term, ops ...clientv3.Op) error {
	for {
		ctx, cancel := context.WithTimeout(t.ctx, requestTimeout)
		r, err := e.client.Txn(ctx).If(t.holds(e.keys)).Then(ops...).Commit()
		cancel()
		if err == nil && r.Succeeded {
			return nil
		}
		if err == nil {
			t.end()
			return state.ErrNotLeader
		}
		if isNoSpace(err) {
			return noSpace() // though it may be there
		}
		if why, certain := refused(err); certain {
			return why
		}
		if !pause(t.ctx, retryPause) {
			return err
		}
	}
}

// partWriter spreads a snapshot over keys.
type partWriter struct {
	engine *Engine
	term   *term
	id     string
	buf    []byte
	parts  int
}

func (w *partWriter) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), partBytes-len(w.buf))
		w.buf, rest = append(w.buf, rest[:n]...), rest[n:]
		if len(w.buf) == partBytes {
			if err := w.flush(); err != nil {
				return len(b) - len(rest), err
			}
		}
	}
	return len(b), nil
}

func (w *partWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	if err := w.engine.put(w.term, clientv3.OpPut(w.engine.keys.part(w.id, w.parts), string(w.buf))); err != nil {
		return err
	}
	w.parts, w.buf = w.parts+1, w.buf[:0]
	return nil
}

// restore replaces the machine by snapshot p, as it was at an etcd revision. Nothing else is applied meanwhile: a server that lacks
// what a snapshot has does not lead, and its follower is who restores.
func (e *Engine) restore(ctx context.Context, p pointer, revision int64) error {
	from := e.feed.position()
	r := &partReader{ctx: ctx, engine: e, pointer: p, revision: revision}
	if err := e.feed.machine.Restore(r); err != nil {
		if r.failed != nil {
			err = r.failed // and not what it makes of a snapshot
		}
		return fmt.Errorf("etcd: snapshot %s: %w", p.ID, err)
	}
	return e.feed.restored(from, p.Index)
}

// partReader reads a snapshot part by part.
type partReader struct {
	ctx      context.Context
	engine   *Engine
	pointer  pointer
	revision int64
	next     int
	rest     []byte
	failed   error // why a part could not be read
}

func (r *partReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.next == r.pointer.Parts {
			return 0, io.EOF
		}
		key := r.engine.keys.part(r.pointer.ID, r.next)
		found, err := r.engine.client.Get(r.ctx, key, clientv3.WithRev(r.revision))
		switch {
		case err != nil:
			r.failed = fmt.Errorf("read %s: %w", key, err)
		case len(found.Kvs) == 0:
			r.failed = damaged(key, errors.New("part of the snapshot in force is missing"))
		}
		if r.failed != nil {
			return 0, r.failed
		}
		r.next, r.rest = r.next+1, found.Kvs[0].Value
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
