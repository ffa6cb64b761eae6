// Package stream keeps append-only streams of timed records on a local disk. It knows no service: what a record means, and which
// streams there should be, is its callers' business. A stream comes to be with its first record; its name is the caller's and,
// once deleted, not used again.
//
//	DIR/journal/N         what was appended of late, to all streams, in order: the one file that is synced for an append
//	DIR/NA/NAME/P.seg     a segment: records from position P on, in frames (frame.go)
//	DIR/NA/NAME/P.idx     its sparse index, a line of fixed size for every 64 KiB of segment (segment.go)
//
// An append is written to its segment without a sync, and to the journal with one, which all appends that wait share. So an
// acknowledged append is durable whatever number of streams is written to at once. When the journal is long, the segments it speaks of
// are synced, and it goes (Checkpoint). Open writes again what the journals hold.
//
// Invariants:
//   - An append that was acknowledged is there, whole, after any crash; one that failed is not there, or, after a crash, may be.
//   - Within a stream, positions count records from 0 and never change; what retention dropped leaves no other record's position.
//   - Readers see what was acknowledged, never more.
//   - What the index says was acknowledged before it was written; where it ends, the segment is read.
//   - Segments are dropped whole, the oldest first, never the one that is appended to.
//
// In memory are about 0.6 KB for each stream that was asked for and 72 bytes for each 64 KiB in them.
//
// Lock order: the commit right (Store.queue), then Store.mu, stream.mu, the file table's. Only loading a stream does I/O under
// a lock, its own.
package stream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"

	"github.com/seed-2f228079/neargate/storage/internal/group"
	"github.com/seed-2f228079/neargate/storage/internal/handles"
)

// Errors that callers tell apart.
var (
	ErrNoSpace  = errors.New("no space left on the disk that holds the streams")
	ErrTooLarge = errors.New("the batch is too large")
	ErrDeleted  = errors.New("the stream was deleted")
	ErrBroken   = errors.New("the streams take no more records until they are opened again")
	ErrPosition = errors.New("a copy does not continue what is here")
)

// Record is one entry of a stream.
type Record struct {
	Time     int64  // the caller's, in any order; here it is only compared
	Ingested int64  // the batch's
	Position uint64 // in its stream
	Data     []byte
}

// Batch is what is appended at once: all of it, or nothing.
type Batch struct {
	Ingested int64
	Records  []Record // Time and Data count
	// Mark, if not 0, says how far a source has been read that is copied into the stream. A batch whose mark is not greater than the
	// greatest so far was appended before: it is acknowledged and not appended again.
	Mark uint64
	// At, if not nil, is where the first record has to be: the batch is a copy out of another store (copy.go).
	At *uint64
	// Gap allows a copy to leave out what the other store no longer has.
	Gap bool
}

// Info is what a stream has.
type Info struct {
	First, Next      uint64 // the positions kept are [First, Next)
	MinTime, MaxTime int64  // 0, 0 without records
	Ingested         int64  // when the last record came; 0 without records
	Bytes            int64  // of data
	Mark             uint64
}

// Options adjusts a store; the zero value is useful.
type Options struct {
	Logger       *slog.Logger
	SegmentBytes int64 // a segment is closed when it has so many; 8 MiB
	SegmentAge   int64 // or when a batch was ingested so much later than its first; 0: never
	JournalBytes int64 // a checkpoint is due when the journal has so many; 32 MiB
	OpenFiles    int   // at most so many files are open and idle; 256
}

// Store is a folder of streams. One process at a time uses a folder; inside it everything is safe for concurrent use.
type Store struct {
	dir   string
	opt   Options
	log   *slog.Logger
	files *handles.Cache
	due   chan struct{} // holds a token when a checkpoint is due

	// Of who has the right to commit (Store.queue).
	journal *journal
	dirty   map[string]bool // segments written since the journal began
	entries []byte          // memory for the journal's next ones

	queue group.Queue[*op] // the commit right

	mu      sync.Mutex
	streams map[string]*stream // those that were asked for
	broken  error

	checkpoint sync.Mutex // one at a time; before everything else
	unsynced   error      // of checkpoint: why there can be no more
}

// Open uses dir, creating it if need be, and brings the segments to what the journals say.
func Open(dir string, opt Options) (*Store, error) {
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	if opt.SegmentBytes == 0 {
		opt.SegmentBytes = 8 << 20
	}
	if opt.JournalBytes == 0 {
		opt.JournalBytes = 32 << 20
	}
	if opt.OpenFiles == 0 {
		opt.OpenFiles = 256
	}
	s := &Store{dir: dir, opt: opt, log: opt.Logger, files: handles.New(opt.OpenFiles), due: make(chan struct{}, 1),
		dirty: map[string]bool{}, streams: map[string]*stream{}}
	if err := os.MkdirAll(s.journalDir(), 0o700); err != nil {
		return nil, fmt.Errorf("create folder of streams: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return nil, err
	}
	if err := s.recover(); err != nil {
		return nil, fmt.Errorf("recover streams in %s: %w", dir, err)
	}
	return s, nil
}

// Run makes checkpoints when they are due, until ctx ends. Without it everything works, and the journal grows.
func (s *Store) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.due:
		}
		if err := s.Checkpoint(); err != nil {
			s.log.Error("cannot make a checkpoint of the streams; the journal is kept", "error", err)
		}
	}
}

// Close releases the files. Appends fail from now on.
func (s *Store) Close() error {
	return s.commit(&op{run: func() error {
		s.mu.Lock()
		s.broken = errors.New("they were closed")
		s.mu.Unlock()
		return errors.Join(s.journal.file.Close(), s.files.Close())
	}})
}

// All lists the names of all streams, in no particular order.
func (s *Store) All() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		shelves, err := os.ReadDir(s.dir)
		for _, shelf := range shelves {
			if len(shelf.Name()) != shelfLength {
				continue
			}
			entries, err := os.ReadDir(filepath.Join(s.dir, shelf.Name()))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				yield("", fmt.Errorf("list streams: %w", err))
				return
			}
			for _, e := range entries {
				if validName.MatchString(e.Name()) && !yield(e.Name(), nil) {
					return
				}
			}
		}
		if err != nil {
			yield("", fmt.Errorf("list streams: %w", err))
		}
	}
}

// Stat says what the stream has. A stream without records is as one that does not exist.
func (s *Store) Stat(name string) (Info, error) {
	st, err := s.stream(name)
	if err != nil {
		return Info{}, err
	}
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.info(), nil
}

// Wait returns when the stream has a record at pos or later.
func (s *Store) Wait(ctx context.Context, name string, pos uint64) error {
	for {
		st, err := s.stream(name)
		if err != nil {
			return err
		}
		st.mu.Lock()
		if st.next > pos {
			st.mu.Unlock()
			return nil
		}
		if st.changed == nil {
			st.changed = make(chan struct{})
		}
		changed := st.changed
		st.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// validName keeps names usable as folders.
var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{2,63}$`)

// Streams are kept on shelves by the beginning of their names, so that no folder becomes too large.
const shelfLength = 2

func (s *Store) streamDir(name string) string { return filepath.Join(s.dir, name[:shelfLength], name) }
func (s *Store) journalDir() string           { return filepath.Join(s.dir, "journal") }

// stream is the named stream, loaded.
func (s *Store) stream(name string) (*stream, error) {
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("%q is no name for a stream", name)
	}
	s.mu.Lock()
	st := s.streams[name]
	if st == nil {
		st = &stream{name: name}
		s.streams[name] = st
	}
	s.mu.Unlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.loaded {
		if err := s.load(st); err != nil {
			return nil, fmt.Errorf("load stream %s: %w", name, err)
		}
		st.loaded = true
	}
	return st, nil
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
