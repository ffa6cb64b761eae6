package stream

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"math"
	"slices"
	"strings"
)

// Source is one of the streams that a query reads; Order puts records of equal time in order, before their positions.
//
// A source may be one part of a longer row of records: its positions then count from Base, and End (0: there is none) is where the part
// ends in its own stream, whatever follows there. Parts of one row have the same Order.
type Source struct {
	Name, Order string
	Base, End   uint64
}

// Cursor is a place in the order of a query: by time, then source, then position. It stays where it is whatever is appended
// or dropped.
type Cursor struct {
	Time     int64
	Order    string
	Position uint64
}

func (c Cursor) compare(d Cursor) int {
	if n := cmp.Compare(c.Time, d.Time); n != 0 {
		return n
	}
	if n := strings.Compare(c.Order, d.Order); n != 0 {
		return n
	}
	return cmp.Compare(c.Position, d.Position)
}

// Query asks for records in order. Its sources may hold records in any order of time: what a block holds is known, and blocks are
// read as far as they can matter.
type Query struct {
	Sources  []Source
	From, To int64   // of time: From <= t < To
	After    *Cursor // only what is behind it; nil: from the beginning
	Before   *Cursor // only what is in front of it; nil: to the end
	Backward bool    // the last ones, not the first; they come in ascending order all the same
	Limit    int     // of records
	Bytes    int     // of data, each record counting Overhead more; one record comes in any case
	Overhead int
	Scan     int64             // after so many bytes read the page ends, when something is known to be complete; 0: never
	Match    func(Record) bool // nil: all
}

// Found is a record and whose it is.
type Found struct {
	Source int
	Record
}

// Page is an answer, in ascending order.
type Page struct {
	Records []Found
	// Rest is where to go on, as After or, backwards, as Before; nil: there is nothing more now.
	Rest *Cursor
}

// Query answers one page. Memory is bounded by the page and one block.
func (s *Store) Query(ctx context.Context, q Query) (Page, error) {
	w := &window{q: &q}
	blocks, err := s.overlapping(&q)
	if err != nil {
		return Page{}, err
	}
	read := int64(0)
	for i := range blocks {
		b := &blocks[i]
		if err := ctx.Err(); err != nil {
			return Page{}, err
		}
		if w.beyond(b) {
			break
		}
		if q.Scan > 0 && read >= q.Scan && i > 0 && w.cutAt(b) {
			break
		}
		src := &q.Sources[b.source]
		err := s.scan(b, func(r Record) bool {
			if src.End > 0 && r.Position >= src.End {
				return false
			}
			r.Position += src.Base
			w.offer(b.source, r)
			return true
		})
		if err != nil {
			return Page{}, err
		}
		read += b.end - b.off
	}
	return w.page(), nil
}

// overlapping are the blocks that can hold what is asked for, in the order in which they begin to.
func (s *Store) overlapping(q *Query) ([]piece, error) {
	from, to := q.From, q.To // to is exclusive
	if q.After != nil {
		from = max(from, q.After.Time)
	}
	if q.Before != nil && q.Before.Time < math.MaxInt64 {
		to = min(to, q.Before.Time+1)
	}
	var all []piece
	for i, src := range q.Sources {
		list, err := s.pieces(src.Name, func(b *block) bool { return b.max >= from && b.min < to && (src.End == 0 || b.first < src.End) })
		if err != nil {
			return nil, err
		}
		for _, p := range list {
			p.source = i
			all = append(all, p)
		}
	}
	slices.SortStableFunc(all, func(a, b piece) int {
		if q.Backward {
			return cmp.Compare(b.max, a.max)
		}
		return cmp.Compare(a.min, b.min)
	})
	return all, nil
}

// window keeps the first (or last) records of those offered: a heap with the one on top that has to go first.
type window struct {
	q     *Query
	kept  []Found
	bytes int
	cut   *Cursor // nothing at it or behind it is kept
	part  bool    // cut comes from the bound on reading: there may be nothing behind it
}

func (w *window) cursor(f *Found) Cursor {
	return Cursor{f.Time, w.q.Sources[f.Source].Order, f.Position}
}

// behind says whether a comes after b in the direction of the query.
func (w *window) behind(a, b Cursor) bool {
	if w.q.Backward {
		return a.compare(b) < 0
	}
	return a.compare(b) > 0
}

func (w *window) Len() int           { return len(w.kept) }
func (w *window) Less(i, j int) bool { return w.behind(w.cursor(&w.kept[i]), w.cursor(&w.kept[j])) }
func (w *window) Swap(i, j int)      { w.kept[i], w.kept[j] = w.kept[j], w.kept[i] }
func (w *window) Push(x any)         { w.kept = append(w.kept, x.(Found)) }
func (w *window) Pop() any {
	n := len(w.kept) - 1
	x := w.kept[n]
	w.kept = w.kept[:n]
	return x
}

// beyond says whether neither the block nor any after it can matter.
func (w *window) beyond(b *piece) bool {
	if w.cut == nil {
		return false
	}
	if w.q.Backward {
		return b.max < w.cut.Time
	}
	return b.min > w.cut.Time
}

// cutAt ends the page where the block begins, if the query gets on by that.
func (w *window) cutAt(b *piece) bool {
	var c Cursor
	if w.q.Backward {
		if w.q.Before != nil && b.max >= w.q.Before.Time-1 || b.max == math.MaxInt64 {
			return false
		}
		c = Cursor{Time: b.max + 1}
	} else {
		if w.q.After != nil && b.min <= w.q.After.Time+1 || b.min <= w.q.From {
			return false
		}
		c = Cursor{Time: b.min}
	}
	w.cut, w.part = &c, true
	for len(w.kept) > 0 && !w.behind(*w.cut, w.cursor(&w.kept[0])) {
		w.drop()
	}
	return true
}

func (w *window) offer(source int, r Record) {
	f := Found{source, r}
	c := w.cursor(&f)
	switch {
	case r.Time < w.q.From || r.Time >= w.q.To:
	case w.q.After != nil && c.compare(*w.q.After) <= 0:
	case w.q.Before != nil && c.compare(*w.q.Before) >= 0:
	case w.cut != nil && !w.behind(*w.cut, c):
	case w.q.Match != nil && !w.q.Match(r):
	default:
		f.Data = bytes.Clone(r.Data)
		heap.Push(w, f)
		w.bytes += len(f.Data) + w.q.Overhead
		for len(w.kept) > 1 && (w.q.Limit > 0 && len(w.kept) > w.q.Limit || w.q.Bytes > 0 && w.bytes > w.q.Bytes) {
			top := w.cursor(&w.kept[0])
			w.cut = &top
			w.drop()
		}
	}
}

func (w *window) drop() {
	w.bytes -= len(w.kept[0].Data) + w.q.Overhead
	heap.Pop(w)
}

func (w *window) page() Page {
	slices.SortFunc(w.kept, func(a, b Found) int { return w.cursor(&a).compare(w.cursor(&b)) })
	p := Page{Records: w.kept}
	if w.cut == nil {
		return p
	}
	rest := Cursor{}
	switch {
	case w.part && w.q.Backward:
		rest = *w.cut
	case w.part: // the cut itself is not covered: go on in front of all that has its time
		rest = Cursor{Time: w.cut.Time - 1, Order: "\xff", Position: math.MaxUint64}
	case w.q.Backward:
		rest = w.cursor(&w.kept[0])
	default:
		rest = w.cursor(&w.kept[len(w.kept)-1])
	}
	p.Rest = &rest
	return p
}
