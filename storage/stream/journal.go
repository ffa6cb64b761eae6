package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// journal is the file that is synced for an append. It is a list of entries: length, CRC-32C of the rest, kind, length of the
// stream's name, name, base of a segment, offset in it, bytes.
type journal struct {
	file *os.File
	n    uint64
	size int64
}

// The kinds of entries.
const (
	entryWrite byte = iota + 1 // bytes are at the offset of the segment
	entryFloor                 // segments below the base are gone
)

// gone is the floor of a deleted stream.
const gone = math.MaxUint64

const (
	entryHead = 8
	entryMeta = 18                                    // kind, length of the name, base, offset
	maxEntry  = entryMeta + 64 + frameHead + MaxBatch // what a longer one claims is no entry
)

type entry struct {
	kind   byte
	name   string
	base   uint64
	offset int64
	bytes  []byte
}

func appendEntry(dst []byte, e entry) []byte {
	at := len(dst)
	dst = slices.Grow(dst, entryHead+entryMeta+len(e.name)+len(e.bytes))
	dst = append(dst, make([]byte, entryHead)...)
	dst = append(dst, e.kind, byte(len(e.name)))
	dst = append(dst, e.name...)
	dst = binary.LittleEndian.AppendUint64(dst, e.base)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(e.offset))
	dst = append(dst, e.bytes...)
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-entryHead))
	binary.LittleEndian.PutUint32(dst[at+4:], crc32.Checksum(dst[at+entryHead:], castagnoli))
	return dst
}

// parseEntry takes the entry at the start of b and returns what follows; ok is false when there is no whole one.
func parseEntry(b []byte) (e entry, rest []byte, ok bool) {
	if len(b) < entryHead {
		return e, b, false
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n < entryMeta || n > maxEntry || entryHead+n > len(b) {
		return e, b, false
	}
	body := b[entryHead : entryHead+n]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return e, b, false
	}
	name := int(body[1])
	if entryMeta+name > n {
		return e, b, false
	}
	e = entry{kind: body[0], name: string(body[2 : 2+name])}
	body = body[2+name:]
	e.base, e.offset, e.bytes = binary.LittleEndian.Uint64(body), int64(binary.LittleEndian.Uint64(body[8:])), body[16:]
	return e, b[entryHead+n:], e.offset >= 0 && validName.MatchString(e.name)
}

func (s *Store) journalPath(n uint64) string {
	return filepath.Join(s.journalDir(), fmt.Sprintf("%016d", n))
}

func (s *Store) newJournal(n uint64) (*journal, error) {
	f, err := os.OpenFile(s.journalPath(n), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, noSpace("begin a journal", err)
	}
	if err := syncDir(s.journalDir()); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return &journal{file: f, n: n}, nil
}

// write adds entries durably. When it fails without having done so the journal is as it was; else broken is set.
func (j *journal) write(entries []byte) (err error, broken bool) {
	if _, err := j.file.WriteAt(entries, j.size); err != nil {
		return noSpace("write journal", err), j.file.Truncate(j.size) != nil
	}
	if err := j.file.Sync(); err != nil {
		return noSpace("sync journal", err), true // the kernel may have dropped what it could not write, and says so once
	}
	j.size += int64(len(entries))
	return nil, false
}

// journals lists those on the disk, oldest first.
func (s *Store) journals() ([]uint64, error) {
	entries, err := os.ReadDir(s.journalDir())
	if err != nil {
		return nil, err
	}
	var list []uint64
	for _, e := range entries {
		n, err := strconv.ParseUint(e.Name(), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s is not a journal", e.Name())
		}
		list = append(list, n)
	}
	slices.Sort(list)
	return list, nil
}

// recover writes what the journals say to the segments, syncs them and begins a new journal.
func (s *Store) recover() error {
	list, err := s.journals()
	if err != nil {
		return err
	}
	var all []entry
	floors, next := map[string]uint64{}, uint64(1)
	for i, n := range list {
		next = n + 1
		b, err := os.ReadFile(s.journalPath(n))
		if err != nil {
			return err
		}
		size := len(b)
		for {
			e, rest, ok := parseEntry(b)
			if !ok {
				break
			}
			b = rest
			all = append(all, e)
			if e.kind == entryFloor {
				floors[e.name] = max(floors[e.name], e.base)
			}
		}
		switch {
		case len(b) == 0:
		case i == len(list)-1:
			s.log.Warn("the journal of the streams ends in what was never acknowledged", "journal", n, "offset", size-len(b), "bytes", len(b))
		default:
			return fmt.Errorf("journal %s is damaged at offset %d; move it away to go on without the records in the %d bytes from there",
				s.journalPath(n), size-len(b), len(b))
		}
	}
	for _, e := range all {
		if e.kind != entryWrite || e.base < floors[e.name] {
			continue
		}
		if err := s.writeSegment(s.newSegment(e.name, e.base, 0).path, e.offset, e.bytes); err != nil {
			return err
		}
		s.dirty[s.newSegment(e.name, e.base, 0).path] = true
	}
	for name, floor := range floors {
		if err := s.removeBelow(name, floor); err != nil {
			return err
		}
	}
	if err := s.syncSegments(s.dirty); err != nil {
		return err
	}
	clear(s.dirty)
	if s.journal, err = s.newJournal(next); err != nil {
		return err
	}
	for _, n := range list {
		if err := os.Remove(s.journalPath(n)); err != nil {
			return err
		}
	}
	if len(all) > 0 {
		s.log.Info("streams recovered from their journal", "entries", len(all))
	}
	return nil
}

// removeBelow removes the segments of a stream below the floor, and its folder when there is none above.
func (s *Store) removeBelow(name string, floor uint64) error {
	dir := s.streamDir(name)
	if floor == gone {
		return os.RemoveAll(dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		text := e.Name()[:max(0, len(e.Name())-len(".seg"))]
		if base, err := strconv.ParseUint(text, 10, 64); err == nil && base < floor {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// writeSegment writes without a sync.
func (s *Store) writeSegment(path string, offset int64, b []byte) error {
	write := func() error {
		return s.files.Use(path+".seg", true, func(f *os.File) error {
			_, err := f.WriteAt(b, offset)
			return err
		})
	}
	err := write()
	if errors.Is(err, fs.ErrNotExist) { // the first of its stream
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = write()
		}
	}
	if err != nil {
		return noSpace("write segment", err)
	}
	return nil
}
