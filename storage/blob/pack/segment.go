package pack

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
)

// found is a record in a segment's file.
type found struct {
	head
	offset int64
	data   []byte // valid until the next one
	whole  bool   // the data has its checksum
}

func (f *found) place(n uint32) place { return place{n, uint32(f.offset), f.size, f.time} }

// scan reads a segment's file from its beginning. What is no head is passed over, up to the next one that is.
func (l *Log) scan(n uint32, each func(found) error) (size int64, err error) {
	f, err := os.Open(l.path(n, ".seg"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 256<<10)
	var data []byte
	for {
		b, err := r.Peek(headSize + longKey)
		if err != nil && err != io.EOF {
			return size, err
		}
		if len(b) == 0 {
			return size, nil
		}
		h, ok := parseHead(b)
		if !ok {
			r.Discard(1)
			size++
			continue
		}
		one := found{head: h, offset: size}
		one.key = append([]byte(nil), h.key...)
		r.Discard(headSize + len(h.key))
		if cap(data) < int(h.size) {
			data = make([]byte, h.size)
		}
		m, err := io.ReadFull(r, data[:h.size])
		size += headSize + int64(len(h.key)) + int64(m)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return size, err
		}
		one.data = data[:m]
		one.whole = err == nil && one.head.whole(one.data)
		if err := each(one); err != nil {
			return size, err
		}
	}
}

// load brings a segment's records into the index.
func (l *Log) load(n uint32, last bool) (*segment, error) {
	s := &segment{number: n}
	l.segments[n] = s
	size, ok, err := l.loadHeads(n)
	if ok || err != nil {
		s.size = size
		return s, err
	}
	// Data that is not whole counts only before data that is, and where there is no other of its key: at the end it was never acknowledged.
	var doubtful []found
	var end int64
	doubt := func() {
		for _, d := range doubtful {
			if _, ok := l.index.get(d.key); !ok && d.kind == kindValue {
				l.apply(d.kind, d.key, nil, d.place(n))
			}
		}
		doubtful = nil
	}
	size, err = l.scan(n, func(r found) error {
		if !r.whole {
			r.data = nil
			doubtful = append(doubtful, r)
			return nil
		}
		doubt()
		l.apply(r.kind, r.key, r.data, r.place(n))
		end = r.offset + r.span()
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.size = size
	if !last {
		doubt()
		return s, nil
	}
	if end < size {
		l.opt.Logger.Warn("the last segment of small blobs ends in what was never acknowledged; it is cut off", "segment", n, "offset", end, "bytes", size-end)
		if err := l.cut(n, end); err != nil {
			return nil, err
		}
		s.size = end
	}
	return s, nil
}

func (l *Log) cut(n uint32, size int64) error {
	f, err := os.OpenFile(l.path(n, ".seg"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

// The heads of a segment are a file: magic, size of the segment, and for each record its offset, its head, its key and, of a deletion, its
// data; then the CRC-32C of all that. It is not synced: one that is not whole, or about another size, is as none.
const (
	headsMagic = 0x31786970 // "pix1"
	headsHead  = 12
)

// loadHeads is load, from the segment's heads; ok is false when there are none.
func (l *Log) loadHeads(n uint32) (size int64, ok bool, err error) {
	fi, err := os.Stat(l.path(n, ".seg"))
	if err != nil {
		return 0, false, err
	}
	b, err := os.ReadFile(l.path(n, ".idx"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	rest := len(b) - 4
	if rest < headsHead || binary.LittleEndian.Uint32(b) != headsMagic || int64(binary.LittleEndian.Uint64(b[4:])) != fi.Size() ||
		crc32.Checksum(b[:rest], castagnoli) != binary.LittleEndian.Uint32(b[rest:]) {
		return 0, false, os.Remove(l.path(n, ".idx")) // Compact makes it anew
	}
	for b = b[headsHead:rest]; len(b) > 0; {
		r := found{offset: int64(binary.LittleEndian.Uint32(b))}
		if r.head, ok = parseHead(b[4:]); !ok {
			return 0, false, errors.New("its index is damaged though it has its checksum")
		}
		b = b[4+headSize+len(r.key):]
		var data []byte
		if r.kind == kindDeletion {
			data, b = b[:placeSize], b[placeSize:]
		}
		l.apply(r.kind, r.key, data, r.place(n))
	}
	return fi.Size(), true, nil
}

// saveHeads writes the heads of a segment that is not appended to any more.
func (l *Log) saveHeads(n uint32) error {
	b := make([]byte, headsHead)
	size, err := l.scan(n, func(r found) error {
		if !r.whole {
			l.mu.RLock()
			p, ok := l.index.get(r.key)
			l.mu.RUnlock()
			if r.kind != kindValue || !ok || p != r.place(n) {
				return nil // it counts for nothing
			}
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(r.offset))
		b = r.head.append(b)
		if r.kind == kindDeletion {
			b = append(b, r.data...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(b, headsMagic)
	binary.LittleEndian.PutUint64(b[4:], uint64(size))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return os.WriteFile(l.path(n, ".idx"), b, 0o600)
}
