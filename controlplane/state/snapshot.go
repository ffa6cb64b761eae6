package state

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"slices"
)

// A snapshot is a magic line, then frames: length, payload, CRC-32C of the payload. A payload is whole items: kind byte, then
// fields as in entries. The last item of the last frame counts the others, so a stream that was cut is noticed. Frames keep
// writing and restoring in constant memory, whatever the size of the store.
const (
	snapshotMagic     = "neargate state 1\n"
	snapshotMagicName = "neargate state "
	frameBytes        = 64 << 10 // a frame is closed once it has as many
	maxFrameBytes     = frameBytes + 2*MaxBytes
)

const (
	itemHead  = 1 // revision, history floor
	itemTable = 2 // name of the table that the following rows are in
	itemRow   = 3 // key, revision, value
	itemSpace = 4 // name of the space that the following touches are in
	itemTouch = 5 // revision, key
	itemEnd   = 6 // number of items before
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Snapshot is a machine at one revision, to be written while the machine goes on.
type Snapshot struct {
	view   *View
	floor  Revision
	spaces map[string][]touch
}

// Snapshot captures the machine as it is now. It is quick whatever the machine holds.
func (m *Machine) Snapshot() *Snapshot {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return &Snapshot{view: m.view.Load(), floor: m.history.floor, spaces: maps.Clone(m.history.spaces)}
}

// Revision is that of the last transaction in the snapshot.
func (s *Snapshot) Revision() Revision { return s.view.revision }

// WriteTo writes the snapshot. Equal machines write equal bytes.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	f := &frameWriter{w: w}
	f.write([]byte(snapshotMagic))
	f.item(itemHead)
	f.uvarint(uint64(s.view.revision))
	f.uvarint(uint64(s.floor))
	for _, name := range slices.Sorted(maps.Keys(s.view.slots)) {
		rows := s.view.tables[s.view.slots[name]].primary
		if rows.n == 0 {
			continue
		}
		f.item(itemTable)
		f.string(name)
		rows.ascend("", "", func(it item) bool {
			f.item(itemRow)
			f.string(string(it.rec.key))
			f.uvarint(uint64(it.rec.revision))
			f.uvarint(uint64(len(it.rec.value)))
			f.buf = append(f.buf, it.rec.value...)
			return f.err == nil
		})
	}
	// The history goes along: a server that starts from here must answer range guards as those that did not.
	for _, name := range slices.Sorted(maps.Keys(s.spaces)) {
		touches := s.spaces[name]
		touches = touches[after(touches, s.floor):]
		if len(touches) == 0 {
			continue
		}
		f.item(itemSpace)
		f.string(name)
		for _, t := range touches {
			f.item(itemTouch)
			f.uvarint(uint64(t.revision))
			f.string(string(t.key))
		}
	}
	count := f.items
	f.item(itemEnd)
	f.uvarint(count)
	f.flush()
	return f.written, f.err
}

// Restore replaces everything by what a snapshot holds; watchers have to begin anew. After an error nothing has changed.
func (m *Machine) Restore(r io.Reader) error {
	v, h, err := m.readSnapshot(bufio.NewReaderSize(r, frameBytes), false)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", describe(err))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.history = *h
	m.view.Store(v)
	m.feed.reset(v)
	return nil
}

// Renumbered is what the snapshot in r holds, put by one transaction that comes after all that this machine has applied: no guard
// and no watcher can take a record for one that it has seen before, in this cluster or the snapshot's.
func (m *Machine) Renumbered(r io.Reader) (*Snapshot, error) {
	v, h, err := m.readSnapshot(bufio.NewReaderSize(r, frameBytes), true)
	if err != nil {
		return nil, fmt.Errorf("read snapshot: %w", describe(err))
	}
	return &Snapshot{view: v, floor: h.floor, spaces: h.spaces}, nil
}

// describe says what is wrong with a snapshot.
func describe(err error) error {
	var pathErr *fs.PathError
	switch {
	case errors.Is(err, ErrUnknownFormat), errors.As(err, &pathErr):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &DamagedError{Err: errors.New("the snapshot is cut short")}
	}
	return &DamagedError{Err: fmt.Errorf("the snapshot: %w", err)}
}

// readSnapshot reads a snapshot as it is, or renumbered.
func (m *Machine) readSnapshot(r *bufio.Reader, renumber bool) (*View, *history, error) {
	magic := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return nil, nil, err
	}
	if string(magic) != snapshotMagic {
		if string(magic[:len(snapshotMagicName)]) == snapshotMagicName {
			return nil, nil, fmt.Errorf("%w: %q", ErrUnknownFormat, magic)
		}
		return nil, nil, errors.New("not a snapshot")
	}
	b := newBatch(m, m.empty())
	h := &history{spaces: map[string][]touch{}}
	sizes := map[Revision]int{}
	var table *tableTxn
	var space string
	for items, ended := uint64(0), false; !ended; {
		frame, err := readFrame(r)
		if err != nil {
			return nil, nil, err
		}
		for d := (&decoder{b: frame}); len(d.b) > 0; items++ {
			if ended {
				return nil, nil, errors.New("items after the end")
			}
			switch kind := d.byte(); kind {
			case itemHead:
				b.revision, h.floor = Revision(d.uvarint()), Revision(d.uvarint())
				if renumber {
					b.revision = max(b.revision, m.Revision()) + 1
					h.floor = b.revision
				}
			case itemTable:
				table = b.draft(d.string())
			case itemRow:
				k, revision, value := Key(d.text()), Revision(d.uvarint()), d.bytes()
				if table == nil {
					return nil, nil, errors.New("row without table")
				}
				if renumber {
					revision = b.revision
				}
				if d.err == nil {
					table.put(m.newRecord(table.from, k, value, revision))
				}
			case itemSpace:
				space = d.string()
			case itemTouch:
				t := touch{Revision(d.uvarint()), Key(d.text())}
				if renumber {
					break // all of it is older than floor
				}
				t.key = h.keep(t.key)
				h.spaces[space] = append(h.spaces[space], t)
				sizes[t.revision] += touchSize(space, t.key)
			case itemEnd:
				if n := d.uvarint(); d.err == nil && n != items {
					return nil, nil, fmt.Errorf("%d items, %d were written", items, n)
				}
				ended = true
			default:
				return nil, nil, fmt.Errorf("item of unknown kind %d", kind)
			}
			if d.err != nil {
				return nil, nil, d.err
			}
		}
	}
	if _, err := r.ReadByte(); err != io.EOF {
		return nil, nil, errors.New("bytes after the end")
	}
	for _, revision := range slices.Sorted(maps.Keys(sizes)) {
		h.log = append(h.log, historySize{revision, sizes[revision]})
		h.bytes += sizes[revision]
	}
	v := b.commit()
	return v, h, m.admit(v)
}

func readFrame(r *bufio.Reader) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, noEOF(err)
	}
	if n > maxFrameBytes {
		return nil, fmt.Errorf("frame of %d bytes", n)
	}
	frame := make([]byte, n+crc32.Size)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, noEOF(err)
	}
	payload := frame[:n]
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(frame[n:]) {
		return nil, errors.New("wrong checksum")
	}
	return payload, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// frameWriter collects items into frames. After the first error it does nothing.
type frameWriter struct {
	w       io.Writer
	buf     []byte
	items   uint64
	written int64
	err     error
}

// item begins an item. Items are never split.
func (f *frameWriter) item(kind byte) {
	if len(f.buf) >= frameBytes {
		f.flush()
	}
	f.items++
	f.buf = append(f.buf, kind)
}

func (f *frameWriter) uvarint(v uint64) { f.buf = binary.AppendUvarint(f.buf, v) }
func (f *frameWriter) string(s string)  { f.buf = appendString(f.buf, s) }

func (f *frameWriter) flush() {
	f.write(binary.AppendUvarint(nil, uint64(len(f.buf))))
	f.write(f.buf)
	f.write(binary.LittleEndian.AppendUint32(nil, crc32.Checksum(f.buf, castagnoli)))
	f.buf = f.buf[:0]
}

func (f *frameWriter) write(b []byte) {
	if f.err != nil {
		return
	}
	n, err := f.w.Write(b)
	f.written += int64(n)
	f.err = err
}
