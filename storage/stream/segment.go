package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// stream is what is known of one stream.
type stream struct {
	name string

	mu       sync.RWMutex
	loaded   bool
	segments []*segment // ascending; the last is appended to
	next     uint64
	mark     uint64
	changed  chan struct{} // closed when next grows; nil: nobody waits

	plan plan // of who has the right to commit
}

// segment is one file. Its fields are the stream's, but for those that never change.
type segment struct {
	path    string // without the ending
	base    uint64
	created int64 // when its first batch was ingested
	size    int64 // of head and acknowledged frames
	blocks  []block
	indexed int // of blocks, those that are in the index file
}

// block is a run of frames: what is read at once, and a line of the index.
type block struct {
	off, end    int64
	first, next uint64
	min, max    int64
	bytes       int64
	ingested    int64
	mark        uint64
}

// blockBytes is when a block is long enough.
const blockBytes = 64 << 10

// A segment begins with this head, so that an empty one says what its stream had reached:
// magic, base, mark, created, CRC-32C of those.
const (
	segmentMagic = "ngstrm01"
	segmentHead  = 36
)

func (s *segment) head(mark uint64) []byte {
	b := append(make([]byte, 0, segmentHead), segmentMagic...)
	b = binary.LittleEndian.AppendUint64(b, s.base)
	b = binary.LittleEndian.AppendUint64(b, mark)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.created))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (s *Store) newSegment(name string, base uint64, created int64) *segment {
	return &segment{path: filepath.Join(s.streamDir(name), fmt.Sprintf("%020d", base)), base: base, created: created, size: segmentHead}
}

// add takes one more frame into the last block, or begins a new one.
func (s *segment) add(f *frame, bytes int64) {
	if n := len(s.blocks); n == s.indexed || s.blocks[n-1].end-s.blocks[n-1].off >= blockBytes {
		s.blocks = append(s.blocks, block{off: s.size, end: s.size, first: f.first, min: math.MaxInt64, max: math.MinInt64})
	}
	b := &s.blocks[len(s.blocks)-1]
	s.size += int64(f.size)
	b.end, b.next = s.size, f.next()
	b.min, b.max = min(b.min, f.min), max(b.max, f.max)
	b.bytes += bytes
	b.ingested, b.mark = max(b.ingested, f.ingested), max(b.mark, f.mark)
}

func (st *stream) info() Info {
	i := Info{First: st.next, Next: st.next, MinTime: math.MaxInt64, MaxTime: math.MinInt64, Mark: st.mark}
	for _, seg := range st.segments {
		for _, b := range seg.blocks {
			i.First = min(i.First, b.first)
			i.add(b.min, b.max, b.ingested, b.bytes)
		}
	}
	if i.First == i.Next {
		i.MinTime, i.MaxTime = 0, 0
	}
	return i
}

// An index line: end, first, next, least, greatest time, bytes, ingested, mark of a block, CRC-32C of those.
const indexLine = 68

func (b *block) line() []byte {
	l := make([]byte, 0, indexLine)
	for _, n := range []uint64{uint64(b.end), b.first, b.next, uint64(b.min), uint64(b.max), uint64(b.bytes), uint64(b.ingested), b.mark} {
		l = binary.LittleEndian.AppendUint64(l, n)
	}
	return binary.LittleEndian.AppendUint32(l, crc32.Checksum(l, castagnoli))
}

func parseLine(l []byte) (block, bool) {
	if crc32.Checksum(l[:indexLine-4], castagnoli) != binary.LittleEndian.Uint32(l[indexLine-4:]) {
		return block{}, false
	}
	n := func(i int) uint64 { return binary.LittleEndian.Uint64(l[8*i:]) }
	return block{end: int64(n(0)), first: n(1), next: n(2), min: int64(n(3)), max: int64(n(4)), bytes: int64(n(5)), ingested: int64(n(6)), mark: n(7)}, true
}

// writeIndex adds lines for blocks that will not grow. A line that cannot be written is no loss: the segment is read instead.
func (s *Store) writeIndex(seg *segment, closed bool) {
	n := len(seg.blocks)
	if n > 0 && !closed && seg.blocks[n-1].end-seg.blocks[n-1].off < blockBytes {
		n--
	}
	if n <= seg.indexed {
		return
	}
	var lines []byte
	for i := seg.indexed; i < n; i++ {
		lines = append(lines, seg.blocks[i].line()...)
	}
	err := s.files.Use(seg.path+".idx", true, func(f *os.File) error {
		_, err := f.WriteAt(lines, int64(seg.indexed)*indexLine)
		return err
	})
	if err != nil {
		s.log.Warn("cannot write the index of a segment; it is made anew when needed", "segment", seg.path, "error", err)
		return
	}
	seg.indexed = n
}

// load reads what is on the disk of a stream. st.mu is held.
func (s *Store) load(st *stream) error {
	entries, err := os.ReadDir(s.streamDir(st.name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	st.segments, st.next, st.mark = nil, 0, 0
	var bases []uint64
	for _, e := range entries {
		if text, ok := strings.CutSuffix(e.Name(), ".seg"); ok {
			base, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				return fmt.Errorf("%s is not the name of a segment", e.Name())
			}
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	for i, base := range bases {
		seg := s.newSegment(st.name, base, 0)
		mark, err := s.loadSegment(seg, i == len(bases)-1)
		if err != nil {
			return err
		}
		if seg.size == 0 {
			continue
		}
		st.segments = append(st.segments, seg)
		st.next, st.mark = base, max(st.mark, mark)
		if n := len(seg.blocks); n > 0 {
			st.next = seg.blocks[n-1].next
		}
		for _, b := range seg.blocks {
			st.mark = max(st.mark, b.mark)
		}
	}
	st.plan.reset(st)
	return nil
}

// loadSegment takes the blocks from the index and, behind it, from the segment. What is behind the last whole frame of a stream was never
// acknowledged and is cut off. seg.size is 0 when there is no head.
func (s *Store) loadSegment(seg *segment, last bool) (mark uint64, err error) {
	f, err := os.OpenFile(seg.path+".seg", os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	head := make([]byte, segmentHead)
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if string(head[:8]) != segmentMagic || crc32.Checksum(head[:32], castagnoli) != binary.LittleEndian.Uint32(head[32:]) ||
		binary.LittleEndian.Uint64(head[8:]) != seg.base {
		seg.size = 0
		return 0, s.setAside(seg.path+".seg", fi.Size())
	}
	mark, seg.created = binary.LittleEndian.Uint64(head[16:]), int64(binary.LittleEndian.Uint64(head[24:]))
	next := s.loadIndex(seg, fi.Size())
	buf := make([]byte, fi.Size()-seg.size)
	if _, err := io.ReadFull(io.NewSectionReader(f, seg.size, int64(len(buf))), buf); err != nil {
		return 0, err
	}
	for len(buf) > 0 {
		fr, err := parseFrame(buf)
		var bytes int64
		if err == nil {
			bytes, err = fr.dataBytes()
		}
		if err != nil || fr.first != next {
			break
		}
		seg.add(&fr, bytes)
		next, buf = fr.next(), buf[fr.size:]
	}
	switch {
	case len(buf) == 0:
	case last:
		s.log.Warn("cut the end of a segment that is not whole", "segment", seg.path, "offset", seg.size, "bytes", len(buf))
		if err := f.Truncate(seg.size); err != nil {
			return 0, err
		}
	default:
		s.log.Error("a segment is damaged; what follows in it is lost", "segment", seg.path, "offset", seg.size, "bytes", len(buf))
	}
	s.writeIndex(seg, !last)
	return mark, nil
}

// setAside takes a segment without a head out of the way. Without a frame either, the crash came while it was made; otherwise what
// is in it is for a person to look at.
func (s *Store) setAside(path string, size int64) error {
	if size <= segmentHead {
		s.log.Warn("remove a segment that was never finished", "segment", path, "bytes", size)
		return os.Remove(path)
	}
	s.log.Error("a segment is damaged: it has no head; it is left out and kept with the ending .damaged", "segment", path, "bytes", size)
	return os.Rename(path, path+".damaged")
}

// loadIndex takes the lines that fit to the segment and returns the position after them.
func (s *Store) loadIndex(seg *segment, size int64) uint64 {
	next := seg.base
	lines, err := os.ReadFile(seg.path + ".idx")
	if err != nil {
		return next // made anew
	}
	for ; len(lines) >= indexLine; lines = lines[indexLine:] {
		b, ok := parseLine(lines)
		if !ok || b.first != next || b.next <= b.first || b.end <= seg.size || b.end > size {
			break
		}
		b.off = seg.size
		seg.blocks = append(seg.blocks, b)
		seg.size, next = b.end, b.next
	}
	seg.indexed = len(seg.blocks)
	return next
}
