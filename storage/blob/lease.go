package blob

import (
	"context"
	"fmt"
	"os"
	"sync"
)

// leases says which digests are held, and which one is being deleted. Leases live in memory: what a crash interrupts has
// committed no reference, and its blob is garbage that Delete may take.
type leases struct {
	mu   sync.Mutex
	held map[Digest]*hold
}

// hold is the state of one digest. Invariant: holders > 0 or deleting != nil, never both.
type hold struct {
	holders  int
	deleting chan struct{} // closed when the deletion is over
}

// Lease keeps blobs from being deleted until it is released.
type Lease struct {
	store   *Store
	digests []Digest
}

// Lease holds the digests, whether their blobs are here or not. It waits while one of them is being deleted.
func (s *Store) Lease(ctx context.Context, digests ...Digest) (*Lease, error) {
	l := &Lease{store: s}
	for _, d := range digests {
		if err := s.leases.acquire(ctx, d); err != nil {
			l.Release()
			return nil, err
		}
		l.digests = append(l.digests, d)
	}
	return l, nil
}

// Release gives the blobs free. Releasing twice, or a nil lease, does nothing.
func (l *Lease) Release() {
	if l == nil {
		return
	}
	for _, d := range l.digests {
		l.store.leases.release(d)
	}
	l.digests = nil
}

func (t *leases) acquire(ctx context.Context, d Digest) error {
	for {
		t.mu.Lock()
		h := t.held[d]
		if h == nil {
			h = &hold{}
			t.held[d] = h
		}
		if h.deleting == nil {
			h.holders++
			t.mu.Unlock()
			return nil
		}
		wait := h.deleting
		t.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *leases) release(d Digest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.held[d]
	h.holders--
	if h.holders == 0 {
		delete(t.held, d)
	}
}

// Touch says that the blob is here, and makes it as if written now; ErrNotFound when it is not. Who deletes blobs by their age leaves it.
func (s *Store) Touch(ctx context.Context, d Digest) error {
	lease, err := s.Lease(ctx, d)
	if err != nil {
		return err
	}
	defer lease.Release()
	if there, err := s.touchSmall(d); there || err != nil {
		return err
	}
	now := s.clock.Now()
	if err := os.Chtimes(s.blobPath(d), now, now); err != nil {
		return notFound("touch blob", err)
	}
	return nil
}

// Delete removes a blob that no lease holds (else ErrLeased) and of which unreferenced says, while no lease can be taken,
// that nothing refers to it (else nothing happens). It reports whether the blob was removed.
func (s *Store) Delete(d Digest, unreferenced func() (bool, error)) (removed bool, err error) {
	err = s.exclusively(d, func() error {
		if ok, err := unreferenced(); !ok || err != nil {
			return err
		}
		small, err := s.deleteSmall(d)
		removed = small
		if err == nil {
			err = os.Remove(s.blobPath(d))
		}
		switch {
		case os.IsNotExist(err):
			return nil
		case err != nil:
			return fmt.Errorf("delete blob: %w", err)
		}
		removed = true
		return nil
	})
	return removed, err
}

// exclusively does something to a blob that no lease holds (else ErrLeased), while none can be taken.
func (s *Store) exclusively(d Digest, do func() error) error {
	s.leases.mu.Lock()
	if s.leases.held[d] != nil {
		s.leases.mu.Unlock()
		return ErrLeased
	}
	done := make(chan struct{})
	s.leases.held[d] = &hold{deleting: done}
	s.leases.mu.Unlock()
	defer func() {
		s.leases.mu.Lock()
		delete(s.leases.held, d)
		s.leases.mu.Unlock()
		close(done)
	}()
	return do()
}
