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
	key      Key
	old, new *record
}

// feed is the bounded history that watchers read. It is of this server alone: after a restart it begins anew.
type feed struct {
	limit int

	mu      sync.Mutex
	view    *View
	changes []change      // ascending; appended to, or replaced whole, so that readers may keep a part
	floor   Revision      // every change after it is in changes
	changed chan struct{} // closed by the next publish
	waiting []*Watcher    // those in Next that wait; who is woken is taken out
}

func (f *feed) init(v *View, limit int) {
	f.limit, f.view, f.floor, f.changed = limit, v, v.revision, make(chan struct{})
}

func (f *feed) publish(v *View, changes []change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.view = v
	f.changes = append(f.changes, changes...)
	// Each change keeps a record alive that has been replaced. So it is cut often, and not to be moved for every change.
	if spare := f.limit / 8; len(f.changes) > f.limit+spare {
		cut := len(f.changes) - f.limit
		f.floor = f.changes[cut-1].revision
		cut = f.position(f.floor) // whole transactions
		f.changes = append(make([]change, 0, f.limit+spare+MaxOps), f.changes[cut:]...)
	}
	f.wake(changes)
	close(f.changed)
	f.changed = make(chan struct{})
}

// wake wakes the watchers of the tables that were changed; without changes, all. For the others there is nothing in it: they are only as if they
// had looked. There are many, and most of what is committed is about tables of few.
func (f *feed) wake(changes []change) {
	var tables []TableInfo
	for _, c := range changes {
		if !slices.Contains(tables, c.table) {
			tables = append(tables, c.table)
		}
	}
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
	f.view, f.changes, f.floor = v, nil, v.revision
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

// position is that of the first change after r.
func (f *feed) position(r Revision) int {
	return sort.Search(len(f.changes), func(i int) bool { return f.changes[i].revision > r })
}

// since returns the changes after r, and the view that ends with them.
func (f *feed) since(r Revision) (*View, []change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r < f.floor {
		return nil, nil, ErrCompacted
	}
	return f.view, f.changes[f.position(r):], nil
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
	tables map[TableInfo]bool // nil: all
	cursor Revision           // while it is waiting, the feed's
	woken  chan struct{}      // capacity 1: filled by who takes it out of those that wait
}

func (w *Watcher) follows(any []TableInfo) bool {
	return w.tables == nil || slices.ContainsFunc(any, func(t TableInfo) bool { return w.tables[t] })
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
	view, changes, err := w.feed.since(w.cursor)
	if err != nil {
		return Batch{}, err
	}
	b := Batch{Revision: view.revision, View: view}
	for _, c := range changes {
		if w.tables == nil || w.tables[c.table] {
			b.Events = append(b.Events, c.event())
		}
	}
	w.cursor = max(w.cursor, view.revision)
	return b, nil
}

func (c change) event() Event {
	e := Event{Table: c.table, Key: c.key, Revision: c.revision}
	if c.old != nil {
		e.Old = c.old.message
	}
	if c.new != nil {
		e.New = c.new.message
	}
	return e
}
