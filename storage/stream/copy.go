package stream

import (
	"context"
	"fmt"
	"iter"
	"math"
)

// Streams are copied between stores batch by batch, encoded as they are kept: a copy has the same positions, times and marks. Whoever
// copies decides who may append to the one and the other, and where a copy that has more ends.

// EncodeBatch is the batch, whose first record gets the position, as stores exchange it.
func EncodeBatch(first uint64, b *Batch) ([]byte, error) { return appendFrame(nil, first, b) }

// AppendCopy appends what another store has encoded, at the same positions; what is here already is acknowledged without effect.
// With gap it may begin behind the end of what is here. It returns the position behind it.
func (s *Store) AppendCopy(ctx context.Context, name string, encoded []byte, gap bool) (next uint64, err error) {
	f, err := parseFrame(encoded)
	if err != nil || f.size != len(encoded) {
		return 0, fmt.Errorf("copy a batch to stream %s: %w", name, errFrame)
	}
	b := Batch{Ingested: f.ingested, Mark: f.mark, At: &f.first, Gap: gap}
	if err := f.records(func(r Record) bool { b.Records = append(b.Records, r); return true }); err != nil {
		return 0, fmt.Errorf("copy a batch to stream %s: %w", name, err)
	}
	_, _, err = s.Append(ctx, name, b)
	return f.next(), err
}

// Copy yields the batches, encoded, that have records at pos or later, up to the present end. A batch is valid until the next.
func (s *Store) Copy(name string, pos uint64) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		list, err := s.pieces(name, func(b *block) bool { return b.next > pos })
		more := true
		for i := 0; err == nil && more && i < len(list); i++ {
			err = s.scanFrames(&list[i], func(f *frame, encoded []byte) (bool, error) {
				if f.next() > pos {
					more = yield(encoded, nil)
				}
				return more, nil
			})
		}
		if err != nil && more {
			yield(nil, err)
		}
	}
}

// StatBelow is Stat of what is in front of end: what a copy has beyond is none of its stream.
func (s *Store) StatBelow(name string, end uint64) (Info, error) {
	i, err := s.Stat(name)
	if err != nil || i.Next <= end {
		return i, err
	}
	list, err := s.pieces(name, func(b *block) bool { return b.first < end })
	if err != nil {
		return Info{}, err
	}
	i = Info{First: end, Next: end, MinTime: math.MaxInt64, MaxTime: math.MinInt64, Mark: i.Mark}
	for _, p := range list {
		i.First = min(i.First, p.first)
		if p.next <= end {
			i.add(p.min, p.max, p.ingested, p.bytes)
			continue
		}
		err := s.scan(&p, func(r Record) bool {
			if r.Position < end {
				i.add(r.Time, r.Time, r.Ingested, int64(len(r.Data)))
			}
			return r.Position < end
		})
		if err != nil {
			return Info{}, err
		}
	}
	if i.First == i.Next {
		i.MinTime, i.MaxTime = 0, 0
	}
	return i, nil
}

func (i *Info) add(least, most, ingested, bytes int64) {
	i.MinTime, i.MaxTime = min(i.MinTime, least), max(i.MaxTime, most)
	i.Ingested, i.Bytes = max(i.Ingested, ingested), i.Bytes+bytes
}
