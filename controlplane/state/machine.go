package state

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// ErrUnknownFormat: an entry or snapshot was written by a newer version of this program. A machine must not go on without it.
var ErrUnknownFormat = errors.New("state: written in a format this version does not know")

// Machine is the replicated state machine: it applies entries. Engines feed it from one goroutine; reading is free to all.
type Machine struct {
	logger *slog.Logger
	schema Schema
	admit  func(*View) error // as in Options; does not panic

	view atomic.Pointer[View] // the last one published

	mu      sync.RWMutex // held while an entry is applied
	history history
	decoded decoded  // the entry
	changes []change // that it makes; its room is used again

	feed feed

	beforePut func(op *Op) // nil but in tests
}

func newMachine(schema Schema, opts Options) *Machine {
	m := &Machine{logger: opts.Logger, schema: schema}
	m.admit = func(v *View) (err error) {
		if opts.Admit == nil {
			return nil
		}
		defer func() { // what decides does not decode
			if p := recover(); p != nil {
				err = fmt.Errorf("%w: %v", ErrUnknownFormat, p)
			}
		}()
		return opts.Admit(v)
	}
	m.view.Store(m.empty())
	m.feed.init(m.view.Load(), opts.WatchHistory)
	return m
}

func (m *Machine) empty() *View {
	v := &View{slots: map[string]int{}}
	for _, info := range m.schema {
		v.slots[info.Name()] = len(v.tables)
		v.tables = append(v.tables, newTableState(info.Name(), info))
	}
	return v
}

// Revision is that of the last transaction applied.
func (m *Machine) Revision() Revision { return m.view.Load().revision }

// Await returns once transaction r has been applied, or done is closed.
func (m *Machine) Await(r Revision, done <-chan struct{}) bool {
	for {
		applied, changed := m.feed.current()
		if applied >= r {
			return true
		}
		select {
		case <-changed:
		case <-done:
			return false
		}
	}
}

// Apply applies one entry and returns an outcome per transaction in it. The error is ErrUnknownFormat, of the entry or of the state that
// it would make (Options.Admit), or that the entry is malformed; either way nothing was applied, and a malformed entry may be passed over:
// every server does. Nothing of entry is kept.
func (m *Machine) Apply(entry []byte) ([]Outcome, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.decoded.release()
	txs, err := m.decoded.entry(entry)
	if err != nil {
		return nil, err
	}
	base := m.view.Load()
	var refused map[int]string
	for {
		b := newBatch(m, base)
		b.outcomes, b.changes = make([]Outcome, 0, len(txs)), m.changes[:0]
		bad, reason := b.run(txs, refused)
		if bad < 0 {
			if b.revision == base.revision {
				return b.outcomes, nil
			}
			v := b.commit()
			if err := m.admit(v); err != nil {
				m.history.undo(base.revision)
				return nil, err
			}
			m.history.trim()
			m.view.Store(v)
			m.feed.publish(v, b.changes)
			m.changes = emptied(b.changes)
			return b.outcomes, nil
		}
		// A panic left b half done. Begin again without the transaction that did it: it is dropped whole, here and, the entry and
		// the program being the same, on every other server, instead of stopping them one after the other at every start.
		m.logger.Error("transaction panicked on apply and was dropped", "revision", uint64(base.revision), "position", bad, "panic", reason)
		m.history.undo(base.revision)
		if refused == nil {
			refused = map[int]string{}
		}
		refused[bad] = reason
	}
}

// Conflicts says whether tx, if applied now, would fail its guards. A leader asks before it spends a log entry.
func (m *Machine) Conflicts(tx *Transaction) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	b := newBatch(m, m.view.Load())
	return !b.guardsHold(tx)
}

// batch is one entry being applied.
type batch struct {
	m        *Machine
	base     *View
	revision Revision
	slots    map[string]int
	drafts   map[string]*tableTxn
	added    []*tableState // tables first seen in this entry
	changes  []change
	outcomes []Outcome
}

func newBatch(m *Machine, base *View) *batch {
	return &batch{m: m, base: base, revision: base.revision, slots: base.slots}
}

// run applies txs but for the refused ones. If one panics it returns its position and what it said; -1 otherwise.
func (b *batch) run(txs []*Transaction, refused map[int]string) (bad int, reason string) {
	i := 0
	defer func() {
		if p := recover(); p != nil {
			bad, reason = i, fmt.Sprint(p)
		}
	}()
	for ; i < len(txs); i++ {
		if why, ok := refused[i]; ok {
			b.outcomes = append(b.outcomes, Outcome{Refused: why})
			continue
		}
		b.outcomes = append(b.outcomes, b.apply(txs[i]))
	}
	return -1, ""
}

func (b *batch) apply(tx *Transaction) Outcome {
	if !b.guardsHold(tx) {
		return Outcome{Conflict: true}
	}
	if len(tx.Ops) == 0 {
		return Outcome{Revision: b.revision}
	}
	b.revision++
	for i := range tx.Ops {
		b.op(&tx.Ops[i])
	}
	return Outcome{Revision: b.revision}
}

func (b *batch) op(op *Op) {
	draft := b.draft(op.Table)
	var old, rec *record
	if op.Delete {
		old = draft.delete(op.Key)
	} else {
		if b.m.beforePut != nil {
			b.m.beforePut(op)
		}
		rec = b.m.newRecord(draft.from, op.Key, op.Value, b.revision)
		old = draft.put(rec)
	}
	b.m.history.add(b.revision, op.Table, op.Key)
	for _, e := range op.Touched {
		b.m.history.add(b.revision, e.Space, e.Key)
	}
	if draft.from.info != nil && (old != nil || rec != nil) {
		b.changes = append(b.changes, change{b.revision, draft.from.info, old, rec})
	}
}

func (b *batch) guardsHold(tx *Transaction) bool {
	for i := range tx.Guards {
		g := &tx.Guards[i]
		switch g.Kind {
		case GuardRevision:
			if rec := b.get(g.Space, g.Key); rec == nil || rec.revision != g.Revision {
				return false
			}
		case GuardAbsent:
			if b.get(g.Space, g.Key) != nil {
				return false
			}
		case GuardRange:
			if !b.m.history.unchanged(g.Space, g.Key, g.End, g.Revision) {
				return false
			}
		}
	}
	return true
}

func (b *batch) get(table string, k Key) *record {
	if d, ok := b.drafts[table]; ok {
		return d.primary.get("", k)
	}
	i, ok := b.slots[table]
	if !ok {
		return nil
	}
	return b.base.tables[i].primary.get("", k)
}

func (b *batch) draft(table string) *tableTxn {
	if d, ok := b.drafts[table]; ok {
		return d
	}
	i, ok := b.slots[table]
	var st *tableState
	if ok {
		st = b.base.tables[i]
	} else {
		table = strings.Clone(table)
		b.slots = maps.Clone(b.slots)
		b.slots[table] = len(b.base.tables) + len(b.added)
		st = newTableState(table, nil)
		b.added = append(b.added, st)
	}
	d := st.txn()
	// What the schema makes of a record must not change what is replicated, so its panics end here. On the leader they have
	// ended the transaction before it was proposed.
	d.onPanic = func(rec *record, p any) {
		b.m.logger.Error("record cannot be indexed", "table", table, "key", rec.key.String(), "revision", uint64(rec.revision), "panic", p)
	}
	if b.drafts == nil {
		b.drafts = map[string]*tableTxn{}
	}
	b.drafts[table] = d
	return d
}

func (b *batch) commit() *View {
	v := &View{revision: b.revision, slots: b.slots, tables: slices.Concat(b.base.tables, b.added)}
	for name, d := range b.drafts {
		v.tables[b.slots[name]] = d.commit()
	}
	return v
}

// newRecord decodes once, here. A value that does not decode is kept as it is: what this server makes of it must not change
// what is replicated. Key and value are copied, into one text.
func (m *Machine) newRecord(st *tableState, k Key, value []byte, r Revision) *record {
	text := textOf(append(append(make([]byte, 0, len(k)+len(value)), k...), value...))
	rec := &record{key: Key(text[:len(k)]), value: text[len(k):], revision: r}
	if st.info == nil {
		return rec
	}
	msg, err := st.info.decode(rec.value)
	if err != nil {
		m.logger.Error("record does not decode", "table", st.name, "key", k.String(), "revision", uint64(r), "error", err)
		return rec
	}
	rec.message = msg
	return rec
}
