// Package pack keeps many small values, each under a key that is a digest of it, in few files: a log of segments.
//
//	DIR/N.seg   a segment: records, one behind the other (record.go)
//	DIR/N.idx   the heads of a segment that is no longer appended to, so that opening need not read all of it (segment.go)
//
// A value is appended to the last segment and synced with all others that wait (package group); then it is shown. Where each value is
// is kept in memory. A deletion is a record too; segments that are mostly dead are rewritten by Compact, beside everything else.
//
// Invariants:
//   - What the index has is synced, or was made so by Open. So a value that was acknowledged is there after any crash.
//   - Numbers of segments only grow. Read in their order, the last record of a key counts. Only the last segment is appended to, and that one
//     is never compacted.
//   - A deletion names the place of the record that goes, so that it cannot take another one of the same key, and is kept as long as that
//     record's segment. It is not synced: a value may be there again after a crash. As keys are digests that is a value nobody asked
//     for, never a wrong one, and whoever collects garbage comes again.
//   - A segment is removed only when every value in it that counts has been synced elsewhere.
//   - Data is handed out only after its checksum was compared. What does not have it is ErrRotten.
//
// Lock order: the right to append (Log.queue), then Log.mu, which is not held across I/O.
package pack

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/storage/internal/group"
	"github.com/seed-2f228079/neargate/storage/internal/handles"
)

// MaxValue is how many bytes a value has at most.
const MaxValue = 128 << 10

// Errors that callers tell apart.
var (
	ErrNotFound = errors.New("no such value")
	ErrRotten   = errors.New("the value does not have its checksum")
)

// Options adjusts a log; the zero value is useful.
type Options struct {
	Clock        clock.Clock // default: the machine's
	Logger       *slog.Logger
	SegmentBytes int64 // a segment that has so many is not appended to any more; 32 MiB
	OpenFiles    int   // at most so many segments are open and idle; 128
}

// Info describes a value.
type Info struct {
	Size     int64
	Modified time.Time // when it was written, or, to the hour, touched
	place    place
}

// Log is a folder of segments. One process at a time uses a folder; inside it everything is safe for concurrent use.
type Log struct {
	dir   string
	opt   Options
	files *handles.Cache

	queue  group.Queue[*op] // the right to append
	active *segment         // of who has it; nil: none yet
	buffer []byte           // likewise

	compacting sync.Mutex // one compaction at a time; before everything else

	mu       sync.RWMutex
	index    index
	segments map[uint32]*segment
}

// segment is a file. Log.mu guards what changes.
type segment struct {
	number uint32
	size   int64 // of its records
	live   int64 // of those whose values count
}

// Open uses dir, creating it if need be. The end of the last segment that was never acknowledged is cut off.
func Open(dir string, opt Options) (*Log, error) {
	if opt.Clock == nil {
		opt.Clock = clock.Real{}
	}
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	if opt.SegmentBytes == 0 {
		opt.SegmentBytes = 32 << 20
	}
	if opt.OpenFiles == 0 {
		opt.OpenFiles = 128
	}
	l := &Log{dir: dir, opt: opt, files: handles.New(opt.OpenFiles), segments: map[uint32]*segment{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create folder of segments: %w", err)
	}
	numbers, err := l.numbers()
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	for i, n := range numbers {
		s, err := l.load(n, i == len(numbers)-1)
		if err != nil {
			return nil, fmt.Errorf("load segment %s: %w", l.path(n, ".seg"), err)
		}
		l.active = s
	}
	return l, nil
}

// Close releases the files. Nothing may be called any more.
func (l *Log) Close() error { return l.files.Close() }

// numbers are those of the segments on the disk, in order.
func (l *Log) numbers() ([]uint32, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	var list []uint32
	for _, e := range entries {
		var n uint32
		if _, err := fmt.Sscanf(e.Name(), "%08x.seg", &n); err == nil && e.Name() == segmentName(n, ".seg") {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list, nil
}

func segmentName(n uint32, ext string) string { return fmt.Sprintf("%08x%s", n, ext) }

func (l *Log) path(n uint32, ext string) string { return filepath.Join(l.dir, segmentName(n, ext)) }

// Stat says whether the value is here.
func (l *Log) Stat(key []byte) (Info, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	p, ok := l.index.get(key)
	return infoOf(p), ok
}

func infoOf(p place) Info { return Info{int64(p.size), time.Unix(int64(p.time), 0), p} }

// Get reads a value: ErrNotFound, or ErrRotten with what is in its place.
func (l *Log) Get(key []byte) ([]byte, Info, error) {
	for {
		info, ok := l.Stat(key)
		if !ok {
			return nil, Info{}, ErrNotFound
		}
		data, err := l.read(key, info.place, nil)
		if errors.Is(err, fs.ErrNotExist) {
			if now, _ := l.Stat(key); now.place != info.place {
				continue // it was moved or deleted meanwhile
			}
		}
		return data, info, err
	}
}

// read reads the record of a place, which prepare may see first.
func (l *Log) read(key []byte, p place, prepare func(f *os.File, offset, n int64)) ([]byte, error) {
	b := make([]byte, span(len(key), p.size))
	err := l.files.Use(l.path(p.segment, ".seg"), false, func(f *os.File) error {
		if prepare != nil {
			prepare(f, int64(p.offset), int64(len(b)))
		}
		_, err := f.ReadAt(b, int64(p.offset))
		return err
	})
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EIO): // the file is cut, or the disk has lost it
		return nil, ErrRotten
	case err != nil:
		return nil, fmt.Errorf("read a small value: %w", err)
	}
	data := b[headSize+len(key):]
	if h, ok := parseHead(b); !ok || string(h.key) != string(key) || h.size != p.size || !h.whole(data) {
		return data, ErrRotten
	}
	return data, nil
}

// Check reads a value past the kernel's cache, which uncache has forget a part of a file. It is good, or moved or gone meanwhile (nil), or
// ErrRotten, with what was seen, which Remove takes.
func (l *Log) Check(key []byte, uncache func(f *os.File, offset, n int64)) ([]byte, Info, error) {
	info, ok := l.Stat(key)
	if !ok {
		return nil, Info{}, ErrNotFound
	}
	data, err := l.read(key, info.place, uncache)
	if errors.Is(err, fs.ErrNotExist) {
		if now, _ := l.Stat(key); now.place != info.place {
			return nil, info, nil
		}
	}
	return data, info, err
}

// Keys lists the keys of a length that begin with the byte, sorted.
func (l *Log) Keys(length int, first byte) [][]byte {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.index.keys(length, first)
}
