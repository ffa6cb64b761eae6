package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// moveBytes is how much is moved with one sync.
const moveBytes = 1 << 20

var errLeave = errors.New("something in the segment has rotted")

// Compact rewrites segments of which half or more is dead, beside everything else, and says how many bytes that gave free. A crash at any
// moment leaves values in two segments, which is as good as in one. A segment in which a value has rotted stays until that is removed.
func (l *Log) Compact(ctx context.Context) (freed int64, err error) {
	l.compacting.Lock()
	defer l.compacting.Unlock()
	for _, n := range l.closed() {
		if err := ctx.Err(); err != nil {
			return freed, err
		}
		l.mu.RLock()
		s := *l.segments[n]
		l.mu.RUnlock()
		if s.live*2 > s.size {
			if err := l.ensureHeads(n); err != nil {
				return freed, fmt.Errorf("index segment %d: %w", n, err)
			}
			continue
		}
		moved, err := l.rewrite(ctx, n)
		switch {
		case errors.Is(err, errLeave):
		case err != nil:
			return freed, fmt.Errorf("compact segment %d: %w", n, err)
		default:
			freed += s.size - moved
		}
	}
	return freed, nil
}

// closed lists the segments that are not appended to any more, in order. The last one counts as one that is.
func (l *Log) closed() (list []uint32) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for n := range l.segments {
		list = append(list, n)
	}
	slices.Sort(list)
	return list[:max(0, len(list)-1)]
}

func (l *Log) ensureHeads(n uint32) error {
	if _, err := os.Stat(l.path(n, ".idx")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return l.saveHeads(n)
}

// rewrite appends again what counts in a segment, and removes it. It says how many bytes that were.
func (l *Log) rewrite(ctx context.Context, n uint32) (moved int64, err error) {
	var batch []*record
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := l.commit(batch...)
		for _, one := range batch {
			if one.at != (place{}) {
				moved += span(len(one.key), one.at.size)
			}
		}
		batch, size = nil, 0
		return errors.Join(err, ctx.Err())
	}
	_, err = l.scan(n, func(r found) error {
		one := &record{kind: r.kind, key: r.key, time: r.time}
		switch r.kind {
		case kindValue:
			at := r.place(n)
			one.from = &at
			l.mu.RLock()
			counts := l.current(one)
			l.mu.RUnlock()
			if !counts {
				return nil
			}
		case kindDeletion:
			if !r.whole {
				return nil
			}
			segment, _ := decodePlace(r.data)
			l.mu.RLock()
			_, there := l.segments[segment]
			l.mu.RUnlock()
			if segment == n || !there {
				return nil
			}
		}
		if !r.whole {
			return errLeave
		}
		one.data = bytes.Clone(r.data)
		batch, size = append(batch, one), size+len(one.data)
		if size < moveBytes {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return moved, err
	}
	l.mu.Lock()
	if l.segments[n].live != 0 { // a value whose head has rotted
		l.mu.Unlock()
		return moved, errLeave
	}
	delete(l.segments, n)
	l.mu.Unlock()
	var errs []error
	for _, ext := range []string{".idx", ".seg"} {
		l.files.Forget(l.path(n, ext))
		if err := os.Remove(l.path(n, ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return moved, errors.Join(errs...)
}
