// Package blob keeps immutable bytes under the digest of their content, on a local disk. It knows no service: what a blob
// means and who refers to it is its callers' business.
//
//	DIR/sha256/ab/ab12…   blobs
//	DIR/sha512/cd/cd34…
//	DIR/small/…           the small ones, in a log of segments (package pack)
//	DIR/uploads/ID.OWNER  upload sessions of more than a small blob; those survive a restart
//	DIR/partial/…         one-shot writes under way; emptied by Open
//	DIR/quarantine/…      files that have rotted
//
// Invariants:
//   - A file under its digest's name is whole: it was hashed while it was written, synced, then renamed, and its folder
//     synced before the write was acknowledged. A crash at any moment leaves old or new, never half. So it is with what is in the log.
//   - A blob is removed only by Delete, which needs the digest to be free of leases and asks the caller, while no lease can be
//     taken, whether it is unreferenced. Every way to bring a blob in or to build upon one that is there (Put, Upload.Commit,
//     Lease) hands out a lease; the caller commits its reference and then releases. So "blob is there" cannot turn false
//     between the check and the commit of a reference.
//   - Writers of one digest do not coordinate: the content is the same, and the last rename wins (which also replaces a file
//     that has rotted).
//
// Lock order: Upload's session lock, then the lease table's mutex, then package pack's. The lease table's is never held across I/O.
package blob

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/storage/blob/pack"
)

// Errors that callers tell apart.
var (
	ErrNotFound = errors.New("no such blob or upload")
	ErrMismatch = errors.New("the content does not have the digest that was named")
	ErrNoSpace  = errors.New("no space left on the disk that holds the blobs")
	ErrLeased   = errors.New("the blob is in use")
	ErrReceive  = errors.New("the content ended early")
	ErrBusy     = errors.New("another request is writing to this upload")
)

// Info describes a stored blob.
type Info struct {
	Digest   Digest
	Size     int64
	Modified time.Time // when it was last written
}

// Options adjusts a store; the zero value is useful.
type Options struct {
	Clock  clock.Clock  // default: the machine's
	Logger *slog.Logger // default: slog.Default()
	// UploadExpiry is how long an upload session lives without a write. Default 24 h.
	UploadExpiry time.Duration
	// Reserve is how many bytes of the disk stay free for others: writes that would need them fail with ErrNoSpace. Of a small disk it is a
	// twentieth at most.
	Reserve int64
	// Small is up to which size blobs are kept in a log together rather than in a file each, at most pack.MaxValue. Default 64 KiB; less than
	// 0: none, though those that are there are served.
	Small int64
	// Memory bounds what upload sessions keep in memory, all together. Default 32 MiB.
	Memory int64
}

// Store is a folder of blobs. One process at a time uses a folder; inside it everything is safe for concurrent use.
type Store struct {
	dir     string
	reserve int64
	clock   clock.Clock
	expiry  time.Duration
	leases  leases
	log     *pack.Log // of small blobs
	small   int64
	memory  budget      // of upload sessions
	settled atomic.Bool // upload sessions are in files only
	// unnamed says that files can be written before they have a name, which the file system and /proc must support.
	unnamed bool
	// folders are those of files of blobs that are there, by algorithm and first byte.
	folders [2][256]atomic.Bool
	// credit is how many bytes may be written before a small blob makes somebody look again at what is left of the disk.
	credit atomic.Int64

	mu       sync.Mutex
	sessions map[string]*session // by file name; only those this process has touched
}

// Open uses dir, creating it if need be, and clears what a crash left half-written.
func Open(dir string, opts Options) (*Store, error) {
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	if opts.UploadExpiry == 0 {
		opts.UploadExpiry = 24 * time.Hour
	}
	s := &Store{dir: dir, reserve: opts.Reserve, clock: opts.Clock, expiry: opts.UploadExpiry, sessions: map[string]*session{},
		small: min(cmp.Or(opts.Small, defaultSmall), pack.MaxValue)}
	s.memory.limit = cmp.Or(opts.Memory, 32<<20)
	s.leases.held = map[Digest]*hold{}
	if err := os.RemoveAll(s.path("partial")); err != nil {
		return nil, fmt.Errorf("clear partial blobs: %w", err)
	}
	for _, d := range []string{"sha256", "sha512", "uploads", "partial"} {
		if err := os.MkdirAll(s.path(d), 0o700); err != nil {
			return nil, fmt.Errorf("create blob folder: %w", err)
		}
	}
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	if err := s.findFolders(); err != nil {
		return nil, err
	}
	var err error
	if s.log, err = pack.Open(s.path("small"), pack.Options{Clock: opts.Clock, Logger: opts.Logger}); err != nil {
		return nil, fmt.Errorf("open the small blobs: %w", err)
	}
	s.unnamed = s.tryUnnamed() == nil
	return s, nil
}

func (s *Store) tryUnnamed() error {
	f, err := createUnnamed(s.path("partial"))
	if err != nil {
		return err
	}
	defer f.Close()
	name := s.path("partial", "probe")
	if err := linkUnnamed(f, name); err != nil {
		return err
	}
	return os.Remove(name)
}

// partial is a file on its way to become a blob.
type partial struct {
	*os.File
	name string // where it is; empty: nowhere yet
}

// create makes a partial file, which discard closes and, unless it was renamed, removes.
func (s *Store) create() (*partial, error) {
	if s.unnamed {
		f, err := createUnnamed(s.path("partial"))
		return &partial{f, ""}, err
	}
	f, err := os.CreateTemp(s.path("partial"), "")
	if err != nil {
		return nil, err
	}
	return &partial{f, f.Name()}, nil
}

func (p *partial) discard() {
	if p.name != "" {
		os.Remove(p.name)
	}
	p.Close()
}

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// findFolders notes which folders of files there are: most small blobs never had one, and need not have it removed.
func (s *Store) findFolders() error {
	for i, algorithm := range algorithms {
		entries, err := os.ReadDir(s.path(algorithm))
		if err != nil {
			return fmt.Errorf("list blob folders: %w", err)
		}
		for _, e := range entries {
			if b, err := hex.DecodeString(e.Name()); err == nil && len(b) == 1 {
				s.folders[i][b[0]].Store(true)
			}
		}
	}
	return nil
}

// folder says whether the folder that d's file would be in is there.
func (s *Store) folder(d Digest) *atomic.Bool {
	first, err := strconv.ParseUint(d.hex()[:2], 16, 8)
	if err != nil {
		panic(err) // as key
	}
	return &s.folders[slices.Index(algorithms, d.algorithm())][first]
}

var algorithms = []string{"sha256", "sha512"}

func (s *Store) blobPath(d Digest) string { return s.path(d.algorithm(), d.hex()[:2], d.hex()) }

// Stat says whether the blob is here: ErrNotFound when not.
func (s *Store) Stat(d Digest) (Info, error) {
	if info, ok := s.statSmall(d); ok {
		return info, nil
	}
	fi, err := os.Stat(s.blobPath(d))
	if err != nil {
		return Info{}, notFound("stat blob", err)
	}
	return Info{d, fi.Size(), fi.ModTime()}, nil
}

// Open reads a blob. The reader of one that is not small is an *os.File underneath, so that copying it to a TCP connection is a sendfile. It
// stays readable when the blob is deleted meanwhile.
func (s *Store) Open(d Digest) (io.ReadSeekCloser, Info, error) {
	if b, info, err := s.readSmall(d); !errors.Is(err, ErrNotFound) {
		if err != nil {
			return nil, Info{}, err
		}
		return inMemory{bytes.NewReader(b)}, info, nil
	}
	f, err := os.Open(s.blobPath(d))
	if err != nil {
		return nil, Info{}, notFound("open blob", err)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, Info{}, fmt.Errorf("stat blob: %w", err)
	}
	return f, Info{d, fi.Size(), fi.ModTime()}, nil
}

// ReadAll is the content of a blob of at most limit bytes.
func (s *Store) ReadAll(d Digest, limit int64) ([]byte, error) {
	r, info, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if info.Size > limit {
		return nil, fmt.Errorf("blob %s has %d bytes, more than %d", d, info.Size, limit)
	}
	b := make([]byte, info.Size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d, err)
	}
	return b, nil
}

// Put stores what r delivers under d, or nothing: ErrMismatch when the content is another. The blob is durable when Put
// returns, and leased to the caller.
func (s *Store) Put(ctx context.Context, d Digest, r io.Reader) (*Lease, Info, error) {
	if s.small > 0 {
		buf := buffers.Get().(*buffer)
		defer buffers.Put(buf)
		n, ended, err := readUpTo(r, buf[:], s.small)
		if err != nil {
			return nil, Info{}, err
		}
		if ended {
			if got := SumAs(d, buf[:n]); got != d {
				return nil, Info{}, fmt.Errorf("%w: named %s, received %d bytes of %s", ErrMismatch, d, n, got)
			}
			if err := s.roomFor(n); err != nil {
				return nil, Info{}, err
			}
			return s.putSmall(ctx, d, buf[:n])
		}
		r = io.MultiReader(bytes.NewReader(buf[:n]), r)
	}
	f, err := s.create()
	if err != nil {
		return nil, Info{}, noSpace("create blob", err)
	}
	defer f.discard()
	h := d.newHash()
	n, err := s.copyHashed(f, h, r)
	if err != nil {
		return nil, Info{}, err
	}
	if got := digestOf(d.algorithm(), h); got != d {
		return nil, Info{}, fmt.Errorf("%w: named %s, received %d bytes of %s", ErrMismatch, d, n, got)
	}
	return s.publish(ctx, f, d)
}

// publish makes a written file the blob d: lease, sync, rename or link, sync the folder. The order is the invariant.
func (s *Store) publish(ctx context.Context, f *partial, d Digest) (*Lease, Info, error) {
	lease, err := s.Lease(ctx, d)
	if err != nil {
		return nil, Info{}, err
	}
	if err := s.rename(f, d); err != nil {
		lease.Release()
		return nil, Info{}, err
	}
	fi, err := f.Stat()
	if err != nil {
		lease.Release()
		return nil, Info{}, fmt.Errorf("stat blob: %w", err)
	}
	return lease, Info{d, fi.Size(), fi.ModTime()}, nil
}

func (s *Store) rename(f *partial, d Digest) error {
	if err := f.Sync(); err != nil {
		return noSpace("sync blob", err)
	}
	to := s.blobPath(d)
	folder := filepath.Dir(to)
	err := s.place(f, to)
	if errors.Is(err, fs.ErrNotExist) { // the first blob of its folder
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return noSpace("create blob folder", err)
		}
		s.folder(d).Store(true)
		if err := syncDir(filepath.Dir(folder)); err != nil {
			return err
		}
		err = s.place(f, to)
	}
	if err != nil {
		return noSpace("publish blob", err)
	}
	return syncDir(folder)
}

// place gives the file its blob's name. What has that name already is replaced, which takes a rename.
func (s *Store) place(f *partial, to string) error {
	if f.name == "" {
		err := linkUnnamed(f.File, to)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		name := s.path("partial", rand.Text())
		if err := linkUnnamed(f.File, name); err != nil {
			return err
		}
		f.name = name
	}
	err := os.Rename(f.name, to)
	if err == nil {
		f.name = ""
	}
	return err
}

// All lists every blob, in the order of digests. Blobs that come or go meanwhile may be listed or not.
func (s *Store) All() iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for _, algorithm := range algorithms {
			for first := range 256 {
				list, err := s.beginning(algorithm, byte(first))
				if err != nil {
					yield(Info{}, fmt.Errorf("list blobs: %w", err))
					return
				}
				for _, d := range list {
					info, err := s.Stat(d)
					if err != nil {
						continue // deleted meanwhile
					}
					if !yield(info, nil) {
						return
					}
				}
			}
		}
	}
}

// beginning lists the digests of an algorithm whose first byte this is, sorted.
func (s *Store) beginning(algorithm string, first byte) (list []Digest, err error) {
	files, err := os.ReadDir(s.path(algorithm, hex.EncodeToString([]byte{first})))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range files {
		if d, err := ParseDigest(algorithm + ":" + e.Name()); err == nil { // else it is not ours
			list = append(list, d)
		}
	}
	for _, key := range s.log.Keys(Digest(algorithm).newHash().Size(), first) {
		list = append(list, digestOfKey(algorithm, key))
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// A buffer holds the largest small blob and tells that there is more. Each request under way has one.
type buffer [pack.MaxValue + 4<<10]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// roomEvery is how many bytes are written between two looks at what is left of the disk.
const roomEvery = 16 << 20

// copyHashed writes r to w, hashing what was really written: after an error the hash and the file still agree.
func (s *Store) copyHashed(w io.Writer, h io.Writer, r io.Reader) (int64, error) {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)
	var total, looked int64 = 0, -1
	for {
		n, rerr := r.Read(buf[:])
		if n > 0 {
			if total+int64(n) <= s.small {
				if err := s.roomFor(n); err != nil {
					return total, err
				}
			} else {
				if looked < 0 || total-looked >= roomEvery {
					if err := s.room(); err != nil {
						return total, err
					}
					looked = total
				}
				s.credit.Add(-int64(n))
			}
			m, werr := w.Write(buf[:n])
			h.Write(buf[:m])
			total += int64(m)
			if werr != nil {
				return total, noSpace("write blob", werr)
			}
		}
		if rerr == io.EOF {
			return total, nil
		}
		if rerr != nil {
			return total, fmt.Errorf("%w: %w", ErrReceive, rerr)
		}
	}
}

// maxCredit bounds what small blobs take of the reserve before somebody looks at the disk again, which each of them would pay for.
const maxCredit = 1 << 20

// roomFor is room for n bytes of a small blob.
func (s *Store) roomFor(n int) error {
	if s.credit.Add(-int64(n)) >= 0 {
		return nil
	}
	return s.room()
}

// room refuses when no more than the reserve is free.
func (s *Store) room() error {
	if s.reserve == 0 {
		return nil
	}
	free, size, err := space(s.dir)
	if err != nil {
		return fmt.Errorf("look at the disk's free space: %w", err)
	}
	keep := min(s.reserve, size/20)
	if free < keep {
		s.credit.Store(0)
		return fmt.Errorf("%w: %d bytes are free and %d are kept free", ErrNoSpace, free, keep)
	}
	s.credit.Store(min(keep/64, maxCredit))
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return noSpace("sync folder", err)
	}
	return nil
}

// noSpace keeps err and says ErrNoSpace where that is the reason.
func noSpace(doing string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%s: %w (%w)", doing, ErrNoSpace, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func notFound(doing string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	return fmt.Errorf("%s: %w", doing, err)
}
