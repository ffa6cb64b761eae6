package registry

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// ObjectStore says how what records refer to stands in the bucket, as the leader last compared the two.
type ObjectStore struct {
	Compared time.Time `json:"compared,omitzero"` // when it was, last; by this server
	Objects  uint64    `json:"objects"`           // in the bucket
	Bytes    uint64    `json:"bytes"`
	Moved    uint64    `json:"moved"`           // were missing and put there, since this server was started
	Waiting  uint64    `json:"waiting"`         // are missing and will be tried again
	Lost     []string  `json:"lost,omitempty"`  // digests that are nowhere within reach; at most maxLost
	Error    string    `json:"error,omitempty"` // why the store is not available just now
}

// objects is the report, and keeps comparisons from meeting.
type objects struct {
	underway atomic.Bool

	mu  sync.Mutex
	now ObjectStore
}

// GetObjectStoreInput asks for the report.
type GetObjectStoreInput struct{}

func (r *Registry) getObjectStore(ctx context.Context, _ *GetObjectStoreInput) (*ObjectStore, error) {
	if r.Bucket == nil {
		return nil, awserr.New("InvalidRequestException", "The blobs of this server are on its disk: it was started without --blob-store.")
	}
	if l := r.Store.Leadership(); l.Term == 0 && l.Leader != "" && r.Copies != nil {
		return nil, &api.ElsewhereError{Server: l.Leader}
	}
	report := r.ObjectStore()
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	if err := r.Bucket.Health(ctx); err != nil {
		report.Error = err.Error()
	}
	return &report, nil
}

// healthPatience bounds the question how the store is.
const healthPatience = time.Second

// ObjectStore is the report.
func (r *Registry) ObjectStore() ObjectStore {
	r.objects.mu.Lock()
	defer r.objects.mu.Unlock()
	return r.objects.now
}

func (r *Registry) changeObjects(f func(*ObjectStore)) {
	r.objects.mu.Lock()
	defer r.objects.mu.Unlock()
	f(&r.objects.now)
}

// objectsRetry is when a comparison that left something undone is made again, before the next collection.
const objectsRetry = time.Minute

// runObjects compares as soon as this server leads, until nothing is left to be done; then every collection does.
func (r *Registry) runObjects(ctx context.Context) error {
	for ctx.Err() == nil {
		_, err := r.Store.Linearizable(ctx)
		if err == nil {
			err = r.collectObjects(ctx, &Collected{})
		}
		if err != nil && ctx.Err() == nil {
			r.Log.Warn("cannot compare the object store with the records; trying again", "error", err)
		}
		if err == nil && r.ObjectStore().Waiting == 0 {
			<-ctx.Done()
			return nil
		}
		select {
		case <-r.Clock.After(objectsRetry):
		case <-ctx.Done():
		}
	}
	return nil
}

// collectObjects walks the bucket's listing and the digests that records refer to side by side: both are in order.
func (r *Registry) collectObjects(ctx context.Context, c *Collected) error {
	term := r.Store.Leadership().Term
	if r.Bucket == nil || term == 0 {
		return nil
	}
	if !r.objects.underway.CompareAndSwap(false, true) {
		return nil // one is at it
	}
	defer r.objects.underway.Store(false)
	var seen ObjectStore
	moves := &moves{Registry: r}
	moves.group.SetLimit(mirrors)
	next, stop := iter.Pull(r.referred(r.Store.View())) // the view is older than the listing: what it names has been there
	defer stop()
	want, more := next()
	err := func() error {
		for info, err := range r.Bucket.All(ctx) {
			if err != nil {
				return err
			}
			seen.Objects, seen.Bytes = seen.Objects+1, seen.Bytes+uint64(info.Size)
			for ; more && want < info.Digest; want, more = next() {
				moves.missing(ctx, want)
			}
			if more && want == info.Digest {
				want, more = next()
				continue
			}
			if err := r.collectObject(ctx, term, info, c); err != nil {
				return err
			}
		}
		for ; more; want, more = next() {
			moves.missing(ctx, want)
		}
		return nil
	}()
	_ = moves.group.Wait() // what failed is counted
	if err != nil {
		return err
	}
	r.changeObjects(func(o *ObjectStore) {
		o.Compared, o.Objects, o.Bytes, o.Waiting, o.Lost = r.Clock.Now(), seen.Objects, seen.Bytes, moves.waiting, moves.lost
	})
	return r.tidyBucket(ctx)
}

// collectObject deletes an object unless something refers to it, it is young, or this server does not lead any more.
func (r *Registry) collectObject(ctx context.Context, term uint64, info blob.Info, c *Collected) error {
	if r.kept(info.Digest) || r.Bucket.Young(info) {
		return nil
	}
	deleted, err := r.Bucket.Delete(ctx, info.Digest, func() (bool, error) {
		return !r.kept(info.Digest) && r.Store.Leadership().Term == term, nil
	})
	if errors.Is(err, blob.ErrLeased) {
		return nil
	}
	if err == nil && deleted {
		c.Blobs++
		c.Bytes += info.Size
	}
	return err
}

// tidyBucket removes what is neither a blob nor on its way to be one.
func (r *Registry) tidyBucket(ctx context.Context) error {
	if _, err := r.Bucket.AbortUploads(ctx); err != nil {
		return err
	}
	for info, err := range r.Bucket.Aside(ctx) {
		if err != nil {
			return err
		}
		_, err := r.Bucket.Stat(ctx, info.Digest)
		if err != nil && !errors.Is(err, blob.ErrNotFound) {
			return err
		}
		if err == nil || !r.kept(info.Digest) { // there is a good one, or nobody needs it
			if err := r.Bucket.Discard(ctx, info.Digest); err != nil {
				return err
			}
		}
	}
	return nil
}

// referred yields the digests that records refer to, each once, in order.
func (r *Registry) referred(v state.Reader) iter.Seq[blob.Digest] {
	return func(yield func(blob.Digest) bool) {
		var sources [3]struct {
			next func() (string, bool)
			head string
			ok   bool
		}
		for i, digests := range []iter.Seq[string]{
			func(yield func(string) bool) {
				for l := range LayersByDigest.Scan(v, state.K()) {
					if !yield(l.Digest) {
						return
					}
				}
			},
			func(yield func(string) bool) {
				for m := range ManifestsByDigest.Scan(v, state.K()) {
					if !yield(m.Digest) {
						return
					}
				}
			},
			scanned(v),
		} {
			next, stop := iter.Pull(digests)
			defer stop()
			sources[i].next = next
			sources[i].head, sources[i].ok = next()
		}
		last := ""
		for {
			least := -1
			for i, s := range sources {
				if s.ok && (least < 0 || s.head < sources[least].head) {
					least = i
				}
			}
			if least < 0 {
				return
			}
			s := &sources[least]
			if d := s.head; d != last {
				last = d
				if !yield(blob.Digest(d)) {
					return
				}
			}
			s.head, s.ok = s.next()
		}
	}
}

// scanned yields the digests of findings and inventories in order. An index would say which record has one, and not which of its two it is.
func scanned(v state.Reader) iter.Seq[string] {
	var all []string
	for s := range Scans.Scan(v, state.K()) {
		for _, d := range []string{s.Findings, s.Inventory} {
			if d != "" {
				all = append(all, d)
			}
		}
	}
	slices.Sort(all)
	return slices.Values(all)
}

// moves puts into the bucket what is missing there, a few blobs at a time.
type moves struct {
	*Registry
	group errgroup.Group

	mu      sync.Mutex
	waiting uint64
	lost    []string
}

func (m *moves) missing(ctx context.Context, d blob.Digest) {
	if ctx.Err() != nil {
		return
	}
	m.group.Go(func() error {
		err := m.move(ctx, d)
		if err != nil && ctx.Err() == nil { // what the store refuses may have rotted here; it is put aside then, and the next time comes from elsewhere
			free := func(ctx context.Context, _ int) error { return ctx.Err() }
			if rotten, cerr := m.Blobs.Check(ctx, d, free); cerr == nil && rotten {
				m.Log.Error("a blob on the disk has rotted; it is put aside", "digest", d)
			}
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, blob.ErrNotFound) && len(m.lost) < maxLost:
			m.lost = append(m.lost, string(d))
			m.Log.Error("a blob is nowhere within reach: push its image again", "digest", d)
		case !errors.Is(err, blob.ErrNotFound):
			m.waiting++
			m.Log.Warn("cannot put a blob into the object store; trying again", "digest", d, "error", err)
		}
		return nil
	})
}

// move brings a blob that records refer to into the bucket, from wherever it is.
func (m *moves) move(ctx context.Context, d blob.Digest) error {
	lease, err := m.Blobs.Lease(ctx, d)
	if err != nil {
		return err
	}
	defer lease.Release()
	if _, err := m.Bucket.Stat(ctx, d); !errors.Is(err, blob.ErrNotFound) || !m.kept(d) {
		return err // it came after it was not listed, or nobody needs it any more
	}
	if err := m.repair(ctx, d); err != nil {
		return err
	}
	if err := m.Bucket.Put(ctx, d); err != nil {
		return fmt.Errorf("move: %w", err)
	}
	m.changeObjects(func(o *ObjectStore) { o.Moved++ })
	return nil
}
