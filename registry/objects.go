package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/bucket"
)

// Where blobs live in an object store (Config.Bucket), a server's disk is a cache of it, and what is said of references and leases holds for objects: only
// the leader deletes them. It compares the bucket's listing with the records: what nothing refers to goes, and what is missing is put there from
// wherever it is. So a cluster that had its blobs on disks before moves by being started with a bucket, and an interrupted move goes on by itself.

// there says whether the blob is anywhere within reach; blob.ErrNotFound: it is not. Without a bucket it is here then.
func (r *Registry) there(ctx context.Context, d blob.Digest) (blob.Info, error) {
	if r.Bucket != nil {
		info, err := r.Bucket.Has(ctx, d)
		if err == nil {
			return info, nil
		}
		if err := r.fetchCopy(ctx, d, err); err != nil {
			return blob.Info{}, err
		}
	} else if err := r.here(ctx, d); err != nil {
		return blob.Info{}, err
	}
	return r.Blobs.Stat(d)
}

// open reads a blob, wherever it is.
func (r *Registry) open(ctx context.Context, d blob.Digest) (io.ReadSeekCloser, error) {
	if r.Bucket != nil {
		f, _, err := r.Bucket.Open(ctx, d)
		if err == nil {
			return f, nil
		}
		if err := r.fetchCopy(ctx, d, err); err != nil {
			return nil, err
		}
	} else if err := r.here(ctx, d); err != nil {
		return nil, err
	}
	f, _, err := r.Blobs.Open(d)
	return f, err
}

// readAll is the content of a blob of at most limit bytes, wherever it is.
func (r *Registry) readAll(ctx context.Context, d blob.Digest, limit int64) ([]byte, error) {
	lease, err := r.Blobs.Lease(ctx, d) // it stays here until it is read
	if err != nil {
		return nil, err
	}
	defer lease.Release()
	if err := r.here(ctx, d); err != nil {
		return nil, err
	}
	return r.Blobs.ReadAll(d, limit)
}

// fetchObject brings a blob from the bucket, or from another server's disk.
func (r *Registry) fetchObject(ctx context.Context, d blob.Digest) error {
	if err := r.Bucket.Fetch(ctx, d); err != nil {
		return r.fetchCopy(ctx, d, err)
	}
	return nil
}

// fetchCopy brings a blob that the bucket does not give, for the reason it gave, from another server's disk: it may have the blob still, or have it right.
func (r *Registry) fetchCopy(ctx context.Context, d blob.Digest, reason error) error {
	wrong := errors.Is(reason, bucket.ErrWrong)
	if ctx.Err() != nil || r.Copies == nil || r.Copies.Fetch(ctx, d) != nil {
		if wrong && r.Store.Leadership().Term != 0 { // so that the next push brings it
			if err := r.Bucket.SetAside(ctx, d); err != nil && !errors.Is(err, blob.ErrLeased) {
				r.Log.Warn("cannot set a wrong object aside", "digest", d, "error", err)
			}
		}
		return reason
	}
	if !wrong {
		return nil
	}
	lease, lerr := r.Blobs.Lease(ctx, d)
	if lerr != nil {
		return lerr
	}
	defer lease.Release()
	if err := r.Bucket.Put(ctx, d); err != nil { // in place of the wrong one
		r.Log.Warn("cannot replace a wrong object", "digest", d, "error", err)
	}
	return nil
}

// sendObject answers with a blob while it comes from the bucket. Ranges are given of what was held against its digest: of less than all nobody else can
// tell that it is wrong.
func (f front) sendObject(w http.ResponseWriter, q *request, d blob.Digest, l *Layer) error {
	switch {
	case q.Method == http.MethodHead:
		blobHeader(w, d)
		w.Header().Set("Accept-Ranges", "bytes")
		w.Header().Set("Content-Length", strconv.FormatUint(l.Size, 10))
		return nil
	case q.Header.Get("Range") != "":
		if err := f.here(q.Context(), d); err != nil {
			return err
		}
	}
	r, err := f.open(q.Context(), d)
	if err != nil {
		return err
	}
	defer r.Close()
	blobHeader(w, d)
	http.ServeContent(w, q.Request, "", time.Time{}, r)
	if s, ok := r.(interface{ Err() error }); ok && s.Err() != nil {
		if q.Context().Err() == nil {
			f.Log.Error("a blob that was to come from the object store ended early", "digest", d, "error", s.Err())
			_ = f.fetchCopy(q.Context(), d, s.Err()) // for whoever asks again
		}
		panic(http.ErrAbortHandler) // a cut answer must not look whole
	}
	return nil
}

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

// passObjects has the leader read the objects of the bucket again, after its disk, and hold them against their digests.
func (s *scrubber) passObjects(ctx context.Context) error {
	for info, err := range s.Bucket.All(ctx) {
		if s.Store.Leadership().Term == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if string(info.Digest) <= s.Registry.Scrub().Object {
			continue
		}
		if err := s.checkObject(ctx, info); err != nil {
			return err
		}
		s.change(func(n *Scrub) { n.Object, n.Blobs, n.Bytes = string(info.Digest), n.Blobs+1, n.Bytes+uint64(info.Size) })
		s.save(false)
	}
	return nil
}

// checkObject replaces an object that is wrong by a good copy, or sets it aside.
func (s *scrubber) checkObject(ctx context.Context, info blob.Info) error {
	d := info.Digest
	wrong, err := s.Bucket.Check(ctx, d, s.pace)
	if errors.Is(err, blob.ErrNotFound) { // deleted meanwhile
		return nil
	}
	if err != nil || !wrong {
		return err
	}
	s.change(func(n *Scrub) { n.Rotten++ })
	s.Log.Error("an object has wrong content", "digest", d, "bytes", info.Size)
	s.save(true)
	lease, err := s.Blobs.Lease(ctx, d)
	if err != nil {
		return err
	}
	if err = s.goodCopy(ctx, d); err == nil {
		err = s.Bucket.Put(ctx, d)
	}
	lease.Release()
	if err == nil {
		s.change(func(n *Scrub) { n.Repaired++ })
		s.Log.Info("a wrong object is replaced", "digest", d)
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s.kept(d) {
		s.Log.Error("a blob is nowhere within reach: push its image again", "digest", d, "error", err)
	}
	for {
		err := s.Bucket.SetAside(ctx, d)
		if !errors.Is(err, blob.ErrLeased) {
			return err
		}
		if !s.wait(ctx, scrubRetry) {
			return ctx.Err()
		}
	}
}

// goodCopy makes sure that there is one on this disk.
func (s *scrubber) goodCopy(ctx context.Context, d blob.Digest) error {
	if _, err := s.Blobs.Stat(d); !errors.Is(err, blob.ErrNotFound) {
		return err
	}
	if s.Copies != nil && s.Copies.Fetch(ctx, d) == nil {
		return nil
	}
	return s.repairElsewhere(ctx, d)
}

// restoreCache gives up files of the cache that have rotted: the bucket has what they were, or gets it from elsewhere.
func (s *scrubber) restoreCache(ctx context.Context) error {
	aside, err := s.Blobs.Quarantined()
	if err != nil {
		return err
	}
	for _, d := range aside {
		_, err := s.Bucket.Stat(ctx, d)
		if err != nil && !errors.Is(err, blob.ErrNotFound) {
			return err
		}
		if err != nil && s.kept(d) {
			if err := s.repairElsewhere(ctx, d); err != nil {
				continue // the file is all there is
			}
		}
		s.change(func(n *Scrub) { n.Repaired++ })
		if err := s.Blobs.Discard(d); err != nil {
			return err
		}
	}
	s.change(func(n *Scrub) { n.Lost = s.ObjectStore().Lost })
	return nil
}
