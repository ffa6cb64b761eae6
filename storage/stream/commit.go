package stream

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/seed-2f228079/neargate/storage/internal/group"
)

// op is something to be committed: one of batch, floor and run.
type op struct {
	group.Turn
	stream *stream
	batch  *Batch        // an append; the other two are committed alone
	floor  func() uint64 // the segments below go
	run    func() error  // something else that needs the right to commit

	// Set by who commits.
	writes  []entry
	opened  *segment // a new segment
	seg     *segment // the batch's
	frame   frame    // the batch
	bytes   int64    // of its data
	first   uint64   // its first position, or the floor
	skipped bool     // it was appended before
}

// maxGroup bounds what is committed with one sync.
const maxGroup = 16 << 20

// keptEntries is how much memory for the journal's entries is kept for the next ones.
const keptEntries = 256 << 10

// plan is the end of a stream as it will be when what is being committed is.
type plan struct {
	seg  *segment // nil: none yet
	size int64
	next uint64
	mark uint64
	// deleted is final: who still holds the stream writes no more.
	deleted bool
}

func (p *plan) reset(st *stream) {
	*p = plan{next: st.next, mark: st.mark, deleted: p.deleted}
	if n := len(st.segments); n > 0 {
		p.seg, p.size = st.segments[n-1], st.segments[n-1].size
	}
}

// Append adds the batch and returns the position of its first record once it is durable. Appends that wait at the same time share
// one sync. A batch that was appended before, by its mark, is acknowledged with added false.
func (s *Store) Append(ctx context.Context, name string, b Batch) (first uint64, added bool, err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	st, err := s.stream(name)
	if err != nil {
		return 0, false, err
	}
	o := &op{stream: st, batch: &b}
	err = s.commit(o)
	return o.first, err == nil && !o.skipped, err
}

// commit waits until o is committed, with those who wait at the same time.
func (s *Store) commit(o *op) error { return s.queue.Do(o, take, s.work) }

func (s *Store) work(group []*op) {
	s.mu.Lock()
	broken := s.broken
	s.mu.Unlock()
	switch {
	case broken != nil:
		for _, o := range group {
			o.Done(fmt.Errorf("%w: %w", ErrBroken, broken))
		}
	case group[0].run != nil:
		group[0].Done(group[0].run())
	default:
		s.commitGroup(group)
	}
}

// take says how many are committed together.
func take(pending []*op) int {
	size, n := 0, 0
	for ; n < len(pending) && size < maxGroup && pending[n].batch != nil; n++ {
		for _, r := range pending[n].batch.Records {
			size += len(r.Data)
		}
	}
	return max(n, 1)
}

// commitGroup writes, syncs the journal once, shows the result and answers.
func (s *Store) commitGroup(group []*op) {
	entries := s.entries[:0]
	var live []*op
	for _, o := range group {
		if err := s.prepare(o); err != nil {
			o.Done(err)
			continue
		}
		live = append(live, o)
		for _, w := range o.writes {
			entries = appendEntry(entries, w)
		}
	}
	if s.entries = entries; cap(entries) > keptEntries {
		s.entries = nil
	}
	var err error
	broken := false
write:
	for _, o := range live {
		for _, w := range o.writes {
			if w.kind != entryWrite {
				continue
			}
			path := s.newSegment(w.name, w.base, 0).path
			s.dirty[path] = true
			if err = s.writeSegment(path, w.offset, w.bytes); err != nil {
				break write
			}
		}
	}
	if err == nil && len(entries) > 0 {
		err, broken = s.journal.write(entries)
	}
	if err != nil {
		s.undo(live, err, broken)
		return
	}
	for _, o := range live {
		s.publish(o)
		o.Done(nil)
	}
	if s.journal.size >= s.opt.JournalBytes {
		select {
		case s.due <- struct{}{}:
		default:
		}
	}
}

// prepare plans o's writes at the planned end of its stream.
func (s *Store) prepare(o *op) error {
	p := &o.stream.plan
	if p.deleted {
		return ErrDeleted
	}
	if o.batch == nil {
		floor := o.floor()
		if floor == 0 {
			return nil
		}
		if floor != gone && p.seg != nil && floor > p.seg.base && p.size > segmentHead { // the last segment goes too: begin another
			s.open(o, p, p.seg.created)
		}
		o.writes = append(o.writes, entry{kind: entryFloor, name: o.stream.name, base: floor})
		o.first = floor
		return nil
	}
	first := p.next
	switch at := o.batch.At; {
	case at == nil && o.batch.Mark != 0 && o.batch.Mark <= p.mark, at != nil && *at+uint64(len(o.batch.Records)) <= p.next:
		o.first, o.skipped = p.next, true
		return nil
	case at != nil && (*at < p.next || *at > p.next && !o.batch.Gap):
		return fmt.Errorf("%w: at %d, not %d", ErrPosition, *at, p.next)
	case at != nil && *at > p.next:
		first = *at
	}
	b, err := appendFrame(nil, first, o.batch)
	if err != nil {
		return err
	}
	gap := first > p.next
	o.first, p.next = first, first
	if o.frame, err = parseFrame(b); err != nil {
		return fmt.Errorf("encode a batch: %w", err)
	}
	for _, r := range o.batch.Records {
		o.bytes += int64(len(r.Data))
	}
	age := s.opt.SegmentAge
	if p.seg == nil || gap || p.size > segmentHead && (p.size+int64(len(b)) > s.opt.SegmentBytes || age > 0 && o.batch.Ingested-p.seg.created >= age) {
		s.open(o, p, o.batch.Ingested)
	}
	o.seg = p.seg
	o.writes = append(o.writes, entry{kind: entryWrite, name: o.stream.name, base: p.seg.base, offset: p.size, bytes: b})
	p.size += int64(len(b))
	p.next, p.mark = o.frame.next(), max(p.mark, o.batch.Mark)
	return nil
}

// open plans a new segment.
func (s *Store) open(o *op, p *plan, created int64) {
	o.opened = s.newSegment(o.stream.name, p.next, created)
	p.seg, p.size = o.opened, segmentHead
	o.writes = append(o.writes, entry{kind: entryWrite, name: o.stream.name, base: o.opened.base, bytes: o.opened.head(p.mark)})
}

// publish shows readers what is durable.
func (s *Store) publish(o *op) {
	st := o.stream
	if o.batch == nil {
		if o.first > 0 {
			s.publishFloor(o)
		}
		return
	}
	if o.skipped {
		return
	}
	var closed *segment // its index is complete
	st.mu.Lock()
	if o.opened != nil {
		if n := len(st.segments); n > 0 {
			closed = st.segments[n-1]
		}
		st.segments = append(st.segments, o.opened)
	}
	o.seg.add(&o.frame, o.bytes)
	st.next, st.mark = o.frame.next(), max(st.mark, o.batch.Mark)
	st.wake()
	st.mu.Unlock()
	if closed != nil {
		s.writeIndex(closed, true)
	}
	s.writeIndex(o.seg, false)
}

// wake tells those who wait that something changed. st.mu is held.
func (st *stream) wake() {
	if st.changed != nil {
		close(st.changed)
		st.changed = nil
	}
}

// undo takes back what could not be committed.
func (s *Store) undo(live []*op, why error, broken bool) {
	for _, o := range live {
		st := o.stream
		st.mu.RLock()
		st.plan.reset(st)
		st.mu.RUnlock()
		for _, w := range o.writes {
			if w.kind != entryWrite || broken {
				continue
			}
			path := s.newSegment(w.name, w.base, 0).path + ".seg"
			if st.plan.seg == nil || w.base != st.plan.seg.base { // a new segment
				s.files.Forget(path)
				err := os.Remove(path)
				broken = err != nil && !errors.Is(err, os.ErrNotExist)
			} else if err := s.files.Use(path, false, func(f *os.File) error { return f.Truncate(st.plan.size) }); err != nil {
				broken = true
			}
		}
	}
	if broken {
		s.mu.Lock()
		s.broken = why
		s.mu.Unlock()
		s.log.Error("the streams take no more records until they are opened again", "error", why)
	}
	for _, o := range live {
		o.Done(why)
	}
}
