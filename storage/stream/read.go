package stream

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
)

// piece is a block and where it is.
type piece struct {
	block
	path   string
	source int
}

// pieces are the blocks that fit, in the order of positions.
func (s *Store) pieces(name string, fits func(*block) bool) ([]piece, error) {
	st, err := s.stream(name)
	if err != nil {
		return nil, err
	}
	st.mu.RLock()
	defer st.mu.RUnlock()
	var list []piece
	for _, seg := range st.segments {
		for i := range seg.blocks {
			if fits(&seg.blocks[i]) {
				list = append(list, piece{block: seg.blocks[i], path: seg.path + ".seg"})
			}
		}
	}
	return list, nil
}

// scan hands out the records of a block in order. Data is valid during the call. A block that was dropped meanwhile has none.
func (s *Store) scan(p *piece, yield func(Record) bool) error {
	return s.scanFrames(p, func(f *frame, _ []byte) (more bool, err error) {
		err = f.records(func(r Record) bool { more = yield(r); return more })
		return more, err
	})
}

// scanFrames hands out the frames of a block, decoded and as they are.
func (s *Store) scanFrames(p *piece, yield func(f *frame, encoded []byte) (more bool, err error)) error {
	buf := make([]byte, p.end-p.off)
	err := s.files.Use(p.path, false, func(f *os.File) error {
		_, err := f.ReadAt(buf, p.off)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read segment: %w", err)
	}
	for off, more := p.off, true; len(buf) > 0 && more; {
		f, err := parseFrame(buf)
		if err == nil {
			more, err = yield(&f, buf[:f.size])
		}
		if err != nil {
			return fmt.Errorf("segment %s is damaged at offset %d", p.path, off)
		}
		buf, off = buf[f.size:], off+int64(f.size)
	}
	return nil
}

// From yields the records at pos and later, in the order of positions, up to the present end.
func (s *Store) From(name string, pos uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		list, err := s.pieces(name, func(b *block) bool { return b.next > pos })
		more := true
		for i := 0; err == nil && more && i < len(list); i++ {
			err = s.scan(&list[i], func(r Record) bool {
				if r.Position >= pos {
					more = yield(r, nil)
				}
				return more
			})
		}
		if err != nil && more {
			yield(Record{}, err)
		}
	}
}

// Before yields the records before pos, the last first.
func (s *Store) Before(name string, pos uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		list, err := s.pieces(name, func(b *block) bool { return b.first < pos })
		if err != nil {
			yield(Record{}, err)
			return
		}
		for _, p := range slices.Backward(list) {
			var records []Record // of a buffer that is this block's own
			err := s.scan(&p, func(r Record) bool {
				if r.Position < pos {
					records = append(records, r)
				}
				return true
			})
			if err != nil {
				yield(Record{}, err)
				return
			}
			for _, r := range slices.Backward(records) {
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}
