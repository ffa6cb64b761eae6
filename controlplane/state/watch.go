package state

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"sync"

	"google.golang.org/protobuf/proto"
)

// Batch is what happened to the watched tables since the last one.
type Batch struct {
	Revision Revision // the view's
	View     *View    // after all events
	Events   []Event  // in commit order; at least one
}

// Event is one change of one record. Old and New are shared and immutable.
type Event struct {
	Table    TableInfo
	Key      Key
	Old      proto.Message // nil: created
	New      proto.Message // nil: deleted
	Revision Revision      // of the transaction
}

// change is an Event before anybody asked for it.
type change struct {
	revision Revision
	table    TableInfo
	old, new *record // of which one may be nil
}

// feed is the bounded history that watchers read. It is of this server alone: after a restart it begins anew.
type feed struct {
	limit int

	mu      sync.Mutex
	view    *View
	chunks  [][]change    // ascending; the last is appended to, so that readers may keep a part
	count   int           // of changes in chunks
	floor   Revision      // every change after it is in chunks
	changed chan struct{} // closed by the next publish
	waiting []*Watcher    // those in Next that wait; who is woken is taken out
	tables  []TableInfo   // of wake
}

func (f *feed) init(v *View, limit int) {
	f.limit, f.view, f.floor, f.changed = limit, v, v.revision, make(chan struct{})
}

// perChunk is how many changes are kept, and let go, together.
func (f *feed) perChunk() int { return min(max(f.limit/64, 1), 256) }

func (f *feed) publish(v *View, changes []change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.view = v
	for left := changes; len(left) > 0; {
		last := len(f.chunks) - 1
		if last < 0 || len(f.chunks[last]) == cap(f.chunks[last]) {
			f.chunks = append(f.chunks, make([]change, 0, f.perChunk()))
			last++
		}
		n := min(len(left), cap(f.chunks[last])-len(f.chunks[last]))
		f.chunks[last] = append(f.chunks[last], left[:n]...)
		f.count, left = f.count+n, left[n:]
	}
	// Each change keeps a record alive that has been replaced. What is left of a transaction whose first changes go is not looked at any more.
	for len(f.chunks) > 1 && f.count-len(f.chunks[0]) >= f.limit {
		first := f.chunks[0]
		f.floor, f.count = first[len(first)-1].revision, f.count-len(first)
		f.chunks[0] = nil
		f.chunks = f.chunks[1:]
	}
	f.wake(changes)
	close(f.changed)
	f.changed = make(chan struct{})
}

// wake wakes the watchers of the tables that were changed; without changes, all. For the others there is nothing in it: they are only as if they
// had looked. There are many, and most of what is committed is about tables of few.
func (f *feed) wake(changes []change) {
	tables := f.tables[:0]
	for i := range changes {
		if t := changes[i].table; !slices.Contains(tables, t) {
			tables = append(tables, t)
		}
	}
	f.tables = tables
	still := f.waiting[:0]
	for _, w := range f.waiting {
		if len(tables) == 0 || w.follows(tables) {
			w.woken <- struct{}{}
			continue
		}
		w.cursor = max(w.cursor, f.view.revision)
		still = append(still, w)
	}
	clear(f.waiting[len(still):])
	f.waiting = still
}

// reset begins a new history at v: what led there is not known.
func (f *feed) reset(v *View) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.view, f.chunks, f.count, f.floor = v, nil, 0, v.revision
	f.wake(nil)
	close(f.changed)
	f.changed = make(chan struct{})
}

// current is the last revision published, and what the next publication closes.
func (f *feed) current() (Revision, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view.revision, f.changed
}

// since appends the changes after r to parts, and returns the view that ends with them.
func (f *feed) since(r Revision, parts [][]change) (*View, [][]change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r < f.floor {
		return nil, nil, ErrCompacted
	}
	// What is asked for is nearly always close to the end.
	i := len(f.chunks)
	for i > 0 && f.chunks[i-1][len(f.chunks[i-1])-1].revision > r {
		i--
	}
	for _, c := range f.chunks[i:] {
		parts = append(parts, c[sort.Search(len(c), func(j int) bool { return c[j].revision > r }):])
	}
	return f.view, parts, nil
}

// await has w, which has seen everything up to its cursor, woken by what comes, unless something has come already.
func (f *feed) await(w *Watcher) (ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.cursor < f.view.revision {
		return false
	}
	if w.woken == nil {
		w.woken = make(chan struct{}, 1)
	}
	f.waiting = append(f.waiting, w)
	return true
}

// leave undoes await for who does not wait any more.
func (f *feed) leave(w *Watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.waiting, w); i >= 0 {
		f.waiting = slices.Delete(f.waiting, i, i+1)
		return
	}
	<-w.woken // at the same moment
}

// Watcher yields what is committed, in order, never skipping or repeating. It has no goroutine and needs no closing. Used by
// one goroutine at a time.
type Watcher struct {
	feed   *feed
	done   <-chan struct{} // of the context given to Watch
	ended  func() error
	tables []TableInfo   // none: all
	cursor Revision      // while it is waiting, the feed's
	woken  chan struct{} // capacity 1: filled by who takes it out of those that wait
	parts  [][]change    // of Take
}

func (w *Watcher) follows(any []TableInfo) bool {
	return len(w.tables) == 0 || slices.ContainsFunc(any, func(t TableInfo) bool { return slices.Contains(w.tables, t) })
}

// Next waits for changes of the watched tables and returns all there are. ErrCompacted means that some are no longer kept:
// read everything again from a new View and watch from its revision.
func (w *Watcher) Next(ctx context.Context) (Batch, error) {
	for {
		if err := cmp.Or(ctx.Err(), w.ended()); err != nil {
			return Batch{}, err
		}
		if b, err := w.Take(); err != nil || len(b.Events) > 0 {
			return b, err
		}
		if !w.feed.await(w) {
			continue
		}
		select {
		case <-w.woken:
			continue
		case <-ctx.Done():
		case <-w.done:
		}
		w.feed.leave(w)
	}
}

// Take is Next without waiting: a batch without events says that there are none. Its view is the latest all the same.
func (w *Watcher) Take() (Batch, error) {
	view, parts, err := w.feed.since(w.cursor, w.parts[:0])
	if err != nil {
		return Batch{}, err
	}
	n := 0
	for _, part := range parts {
		for i := range part {
			if w.takes(&part[i]) {
				n++
			}
		}
	}
	b := Batch{Revision: view.revision, View: view}
	if n > 0 {
		b.Events = make([]Event, 0, n)
	}
	for _, part := range parts {
		for i := range part {
			if c := &part[i]; w.takes(c) {
				b.Events = append(b.Events, c.event())
			}
		}
	}
	clear(parts)
	w.parts = parts
	w.cursor = max(w.cursor, view.revision)
	return b, nil
}

func (w *Watcher) takes(c *change) bool {
	return len(w.tables) == 0 || slices.Contains(w.tables, c.table)
}

func (c *change) event() Event {
	e := Event{Table: c.table, Revision: c.revision}
	if c.old != nil {
		e.Key, e.Old = c.old.key, c.old.message
	}
	if c.new != nil {
		e.Key, e.New = c.new.key, c.new.message
	}
	return e
}
