// Package bucket keeps blobs in an S3-compatible object store that all servers of a cluster share. The local store is where blobs are written first,
// and a bounded cache of what was written and read. Like it, it knows no service.
//
//	PREFIX/sha256/ab/ab12…     blobs
//	PREFIX/owner               whose they are
//	PREFIX/quarantine/…        objects that had wrong content
//
// Invariants:
//   - An object under a blob's name is whole and was right when it was written: each request that writes is signed by the SHA-256 of content that was
//     held against the blob's digest, and objects in parts are seen only once complete. What is read is held against the digest again.
//   - Put returns once the store has acknowledged the object. The caller holds a lease on the digest until what refers to it is committed.
//   - Objects are deleted by Delete and SetAside alone, which only who leads the cluster may call, while no lease can be taken there. An object that was
//     written or counted on within the grace stays, whatever is asked: the record that is to refer to it may be another leader's, on its way.
//   - Content addressing makes every write repeatable, by anybody, at any time.
package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/s3"
)

// Errors that callers tell apart, beside those of package blob.
var (
	// ErrUnavailable: the store cannot be reached, or does not do what it is asked. It may later.
	ErrUnavailable = errors.New("the object store is not available")
	// ErrWrong: the store has other content under the blob's name.
	ErrWrong = errors.New("the object store has wrong content for the blob")
	errOwned = errors.New("this place in the object store belongs to another cluster; choose another prefix")
)

// Config is what a Bucket is told. Local, Objects and Owner are required.
type Config struct {
	Local   *blob.Store
	Objects *s3.Client
	Prefix  string // below which everything is: made of letters, digits and "-_./", without a slash at either end
	Owner   string // names the cluster: two that used one place would delete each other's blobs
	// CacheBytes is what the local store may hold of what is in the bucket. Default 10 GiB.
	CacheBytes int64
	// Grace is for how long an object stays that was written or counted on, although nothing refers to it. Default 24 h.
	Grace time.Duration
	// PartSize is how long parts of large objects are, and up to what size objects are written in one request. Default 16 MiB.
	PartSize int64
	Clock    clock.Clock  // default: the machine's
	Log      *slog.Logger // default: slog.Default()
}

// Bucket is safe for concurrent use. Run it.
type Bucket struct {
	Config
	cache cache

	mu       sync.Mutex
	owned    bool                      // the place is ours, as far as was asked
	wrong    map[blob.Digest]time.Time // objects that were found wrong, and when; until they are replaced or set aside
	fetching map[blob.Digest]*fetch
	failed   error // of the last request; nil: it went well
	asked    time.Time
}

// small is up to what size a blob is written without asking whether it is there, and read in one piece.
const small = 256 << 10

// New makes a Bucket, which asks nothing yet: a server starts while its store is down.
func New(c Config) (*Bucket, error) {
	c.CacheBytes = cmp.Or(c.CacheBytes, 10<<30)
	c.Grace = cmp.Or(c.Grace, 24*time.Hour)
	c.PartSize = cmp.Or(c.PartSize, 16<<20)
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	b := &Bucket{Config: c, wrong: map[blob.Digest]time.Time{}, fetching: map[blob.Digest]*fetch{}}
	b.cache.pressed = make(chan bool, 1)
	if err := c.Local.CancelUploads(fetchOwner); err != nil { // of a process before this one
		return nil, err
	}
	return b, nil
}

func (b *Bucket) key(parts ...string) string {
	if b.Prefix != "" {
		parts = append([]string{b.Prefix}, parts...)
	}
	return strings.Join(parts, "/")
}

func (b *Bucket) blobKey(d blob.Digest) string { return b.key(d.Path()) }

// outcome notes how the store is, and says what callers understand.
func (b *Bucket) outcome(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = b.Clock.Now()
	if err == nil || errors.Is(err, s3.ErrNotFound) {
		b.failed = nil
		if err != nil {
			return blob.ErrNotFound
		}
		return nil
	}
	b.failed = err
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Has says whether the blob is here or, else, in the store; blob.ErrNotFound: in neither.
func (b *Bucket) Has(ctx context.Context, d blob.Digest) (blob.Info, error) {
	info, err := b.Local.Stat(d)
	if !errors.Is(err, blob.ErrNotFound) {
		return info, err
	}
	return b.Stat(ctx, d)
}

// Stat says whether the blob is in the store. One that was found wrong lately is not.
func (b *Bucket) Stat(ctx context.Context, d blob.Digest) (blob.Info, error) {
	if b.lately(d) {
		return blob.Info{}, blob.ErrNotFound
	}
	o, err := b.Objects.Head(ctx, b.blobKey(d))
	if err := b.outcome(ctx, err); err != nil {
		return blob.Info{}, err
	}
	return blob.Info{Digest: d, Size: o.Size, Modified: o.Modified}, nil
}

// Young says whether an object was written so lately that what refers to it may still come.
func (b *Bucket) Young(o blob.Info) bool { return b.Clock.Now().Sub(o.Modified) < b.Grace }

// Put brings a blob of the local store, leased by the caller, into the object store. It is there, and stays for the grace, when Put returns.
func (b *Bucket) Put(ctx context.Context, d blob.Digest) error {
	here, err := b.Local.Stat(d)
	if err != nil {
		return err
	}
	if err := b.own(ctx); err != nil {
		return err
	}
	if here.Size > small && !b.isWrong(d) {
		there, err := b.Stat(ctx, d)
		if err != nil && !errors.Is(err, blob.ErrNotFound) {
			return err
		}
		if err == nil && there.Size == here.Size && b.renew(ctx, there) {
			return nil
		}
	}
	parts, err := b.parts(here)
	if err != nil {
		return err
	}
	if err := b.outcome(ctx, b.upload(ctx, here, parts)); err != nil {
		return fmt.Errorf("put blob %s: %w", d, err)
	}
	b.markWrong(d, false)
	b.cache.grew(here.Size, b.CacheBytes)
	return nil
}

// renew makes an object young. It reports whether it is.
func (b *Bucket) renew(ctx context.Context, o blob.Info) bool {
	if b.Clock.Now().Sub(o.Modified) < b.Grace/2 {
		return true
	}
	key := b.blobKey(o.Digest)
	return b.Objects.Copy(ctx, s3.Object{Key: key, Size: o.Size}, key) == nil
}

// upload writes the object, of one part or of many.
func (b *Bucket) upload(ctx context.Context, info blob.Info, parts []s3.Part) error {
	key := b.blobKey(info.Digest)
	if len(parts) == 1 {
		return b.Objects.Put(ctx, key, parts[0], func() (io.ReadCloser, error) {
			r, _, err := b.Local.Open(info.Digest)
			return r, err
		})
	}
	err := b.Objects.PutParts(ctx, key, parts, func(offset, size int64) (io.ReadCloser, error) {
		r, _, err := b.Local.Open(info.Digest)
		if err != nil {
			return nil, err
		}
		if _, err := r.Seek(offset, io.SeekStart); err != nil {
			return nil, errors.Join(err, r.Close())
		}
		return section{io.LimitReader(r, size), r}, nil
	})
	if err != nil && ctx.Err() == nil { // perhaps only its last answer was lost
		if o, herr := b.Objects.Head(ctx, key); herr == nil && o.Size == info.Size && !b.isWrong(info.Digest) {
			return nil
		}
	}
	return err
}

type section struct {
	io.Reader
	io.Closer
}

// parts are the sums by which the content is signed: of content that has the digest.
func (b *Bucket) parts(info blob.Info) ([]s3.Part, error) {
	if hex, ok := strings.CutPrefix(string(info.Digest), "sha256:"); ok && info.Size <= b.PartSize {
		return []s3.Part{{Size: info.Size, Sum: hex}}, nil
	}
	r, _, err := b.Local.Open(info.Digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	whole := info.Digest.Verifier()
	var parts []s3.Part
	size := s3.PartSize(info.Size, b.PartSize)
	for left := info.Size; left > 0 || parts == nil; {
		part, sum, err := s3.Sum(io.TeeReader(io.LimitReader(r, min(left, size)), whole))
		if err == nil && part != min(left, size) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fmt.Errorf("read blob %s: %w", info.Digest, err)
		}
		parts = append(parts, s3.Part{Size: part, Sum: sum})
		left -= part
	}
	if !whole.Verified() {
		return nil, fmt.Errorf("%w: the copy of %s on this server's disk", blob.ErrMismatch, info.Digest)
	}
	return parts, nil
}

// own makes sure that the place is this cluster's before anything is written there or deleted.
func (b *Bucket) own(ctx context.Context) error {
	b.mu.Lock()
	owned := b.owned
	b.mu.Unlock()
	if owned {
		return nil
	}
	err := b.askOwner(ctx)
	if errors.Is(err, s3.ErrNotFound) {
		if err = b.Objects.PutNew(ctx, b.key("owner"), b.Owner); err == nil {
			err = b.askOwner(ctx) // of two that began at once, one
		}
	}
	if err := b.outcome(ctx, err); err != nil {
		return fmt.Errorf("whose the object store's place is: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.owned = true
	return nil
}

func (b *Bucket) askOwner(ctx context.Context) error {
	body, _, err := b.Objects.Get(ctx, b.key("owner"), 0)
	if err != nil {
		return err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, 1024))
	if err == nil && string(text) != b.Owner {
		err = errOwned
	}
	return err
}

func (b *Bucket) isWrong(d blob.Digest) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, wrong := b.wrong[d]
	return wrong
}

// wrongFor is how long an object that was found wrong reads as absent. Then it is looked at again: another server may have replaced it.
const wrongFor = time.Minute

func (b *Bucket) lately(d blob.Digest) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, wrong := b.wrong[d]
	return wrong && b.Clock.Now().Sub(at) < wrongFor
}

// markWrong notes that an object's content is known to be wrong: the next Put replaces it.
func (b *Bucket) markWrong(d blob.Digest, wrong bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if wrong {
		b.wrong[d] = b.Clock.Now()
	} else {
		delete(b.wrong, d)
	}
}

// Up says whether the last request went well.
func (b *Bucket) Up() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed == nil
}

// askAgain is how long what the last request found counts as how the store is.
const askAgain = 5 * time.Second

// Health says how the store is, asking it if it was not asked for a while.
func (b *Bucket) Health(ctx context.Context) error {
	b.mu.Lock()
	failed, fresh := b.failed, b.Clock.Now().Sub(b.asked) < askAgain
	b.mu.Unlock()
	if fresh {
		return failed
	}
	if err := b.own(ctx); err != nil {
		return err
	}
	_, err := b.Objects.Head(ctx, b.key("owner"))
	if err := b.outcome(ctx, err); err != nil {
		if errors.Is(err, context.DeadlineExceeded) && failed != nil {
			return failed // which says more
		}
		return err
	}
	return nil
}
