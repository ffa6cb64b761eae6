package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"sync/atomic"
	"time"
)

// sessionBytes is what a session counts for in the budget beside its content.
const sessionBytes = 1 << 10

// budget bounds the memory of all upload sessions together.
type budget struct {
	limit int64
	used  atomic.Int64
}

// take reports whether there were n bytes left.
func (b *budget) take(n int64) bool {
	if b.used.Add(n) <= b.limit {
		return true
	}
	b.used.Add(-n)
	return false
}

// give takes back what a session holds.
func (b *budget) give(ses *session) {
	b.used.Add(-ses.held)
	ses.held, ses.content = 0, nil
}

// sink takes an upload's content, to a file when it is not small any more or there is no memory left.
type sink struct{ *Upload }

func (u sink) Write(b []byte) (int, error) {
	ses := u.session
	if ses.inMemory {
		n := int64(len(b))
		if int64(len(ses.content))+n <= u.store.small && u.store.memory.take(n) {
			ses.held += n
			ses.content = append(ses.content, b...)
			return len(b), nil
		}
		if err := u.spill(); err != nil {
			return 0, err
		}
	}
	return u.file.Write(b)
}

// spill moves the content to a file.
func (u *Upload) spill() error {
	if err := u.create(); err != nil {
		return err
	}
	if _, err := u.file.Write(u.session.content); err != nil {
		err = errors.Join(err, u.file.Close(), os.Remove(u.file.Name()))
		u.file = nil
		return err
	}
	u.session.inMemory = false
	u.store.memory.give(u.session)
	return nil
}

// content reads the upload from its beginning.
func (u *Upload) content() (io.ReadCloser, error) {
	if u.session.inMemory {
		return inMemory{bytes.NewReader(bytes.Clone(u.session.content))}, nil
	}
	return os.Open(u.store.path("uploads", u.name))
}

// publish makes the upload, whose digest was compared, the blob d.
func (u *Upload) publish(ctx context.Context, d Digest) (*Lease, Info, error) {
	if u.session.inMemory {
		return u.store.putSmall(ctx, d, u.session.content)
	}
	return u.store.publish(ctx, &partial{u.file, u.file.Name()}, d)
}

// expireInMemory ends sessions in memory without a write since oldest, and says how many.
func (s *Store) expireInMemory(oldest time.Time) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, ses := range s.sessions {
		if !ses.mu.TryLock() {
			continue // somebody is writing to it
		}
		if ses.inMemory && !ses.wrote.After(oldest) {
			ses.over = true
			s.memory.give(ses)
			delete(s.sessions, name)
			n++
		}
		ses.mu.Unlock()
	}
	return n
}

// Settle writes to files what upload sessions have in memory, so that they outlive this process, and keeps none in memory from now on.
func (s *Store) Settle() error {
	s.settled.Store(true)
	var errs []error
	s.mu.Lock()
	sessions := maps.Clone(s.sessions)
	s.mu.Unlock()
	for name, ses := range sessions {
		if ses.mu.TryLock() { // else whoever holds it does it in the end
			u := &Upload{store: s, name: name, session: ses}
			errs = append(errs, u.settle())
			if u.file != nil {
				u.file.Close()
			}
			ses.mu.Unlock()
		}
	}
	return errors.Join(errs...)
}

// settle has an upload that goes on outlive this process.
func (u *Upload) settle() error {
	if !u.session.inMemory || u.session.over {
		return nil
	}
	if err := u.spill(); err != nil {
		return fmt.Errorf("keep an upload: %w", err)
	}
	return nil
}
