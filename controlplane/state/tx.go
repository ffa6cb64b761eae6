package state

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"
)

// Tx is a transaction being made: the snapshot it started from, its own changes on top, and what it has read. Used by one
// goroutine, within the function given to Update.
type Tx struct {
	base *View
	*notes
	failed error // the first record that could not be encoded

	// Tables with the changes in them are made only when they are scanned: most transactions just get and put.
	changed map[string]*tableState
}

// notes are the lists of a transaction, which the next one uses again.
type notes struct {
	guards []Guard
	seen   map[guardKey]struct{} // what guards holds, if those are more than few
	ops    []txOp
	opAt   map[recordID]int // position in ops, if those are more than few

	// What is committed.
	out     []Op
	touched []IndexEntry
	values  []byte // of the records put, one after the other
}

var noted = sync.Pool{New: func() any {
	return &notes{seen: map[guardKey]struct{}{}, opAt: map[recordID]int{}}
}}

// release lets the next transaction have tx's lists, once nobody looks at what tx became. tx must not be used afterwards.
func (tx *Tx) release() {
	n := tx.notes
	tx.notes = nil
	if cap(n.guards) > keptNotes || cap(n.touched) > keptNotes || cap(n.values) > keptValues {
		return
	}
	clear(n.seen)
	clear(n.opAt)
	clear(n.guards)
	clear(n.ops)
	clear(n.out)
	clear(n.touched)
	n.guards, n.ops, n.out, n.touched, n.values = n.guards[:0], n.ops[:0], n.out[:0], n.touched[:0], n.values[:0]
	noted.Put(n)
}

// A list is used again if it has room for no more items, or bytes of values, than these.
const (
	keptNotes  = 1024
	keptValues = 256 << 10
)

// few are so many that looking at each is less than keeping a map, and most transactions read and write no more.
const few = 8

type guardKey struct {
	space    string
	key, end Key
	isRange  bool
}

type recordID struct {
	table string
	key   Key
}

type txOp struct {
	info TableInfo
	key  Key
	old  *record // in base
	new  *record // nil: delete

	pending bool // not yet in changed
}

func newTx(base *View) *Tx { return &Tx{base: base, notes: noted.Get().(*notes)} }

// Revision is that of the snapshot the transaction reads.
func (tx *Tx) Revision() Revision { return tx.base.revision }

func (tx *Tx) record(table string, k Key) *record {
	if i := tx.find(table, k); i >= 0 {
		return tx.ops[i].new
	}
	return tx.readBase(table, k)
}

// find is the position in ops of the change of a record, -1 if there is none.
func (tx *Tx) find(table string, k Key) int {
	if len(tx.ops) <= few {
		return slices.IndexFunc(tx.ops, func(op txOp) bool { return op.key == k && op.info.Name() == table })
	}
	if i, ok := tx.opAt[recordID{table, k}]; ok {
		return i
	}
	return -1
}

// guarded says whether there is a guard already.
func (tx *Tx) guarded(id guardKey) bool {
	if len(tx.guards) <= few {
		return slices.ContainsFunc(tx.guards, func(g Guard) bool { return guardKeyOf(&g) == id })
	}
	_, ok := tx.seen[id]
	return ok
}

// guard adds one that is not there.
func (tx *Tx) guard(g Guard) {
	tx.guards = append(tx.guards, g)
	switch {
	case len(tx.guards) > few+1:
		tx.seen[guardKeyOf(&g)] = struct{}{}
	case len(tx.guards) > few:
		for i := range tx.guards {
			tx.seen[guardKeyOf(&tx.guards[i])] = struct{}{}
		}
	}
}

func guardKeyOf(g *Guard) guardKey { return guardKey{g.Space, g.Key, g.End, g.Kind == GuardRange} }

// readBase looks into the snapshot, and guards what is found.
func (tx *Tx) readBase(table string, k Key) *record {
	rec := tx.base.record(table, k)
	if tx.guarded(guardKey{space: table, key: k}) {
		return rec
	}
	g := Guard{Kind: GuardAbsent, Space: table, Key: k}
	if rec != nil {
		g.Kind, g.Revision = GuardRevision, rec.revision
	}
	tx.guard(g)
	return rec
}

func (tx *Tx) table(name string) *tableState {
	st, ok := tx.changed[name]
	if !ok {
		st = tx.base.table(name)
	}
	var next *tableTxn
	for i := range tx.ops {
		op := &tx.ops[i]
		if !op.pending || op.info.Name() != name {
			continue
		}
		if next == nil {
			next = st.txn()
		}
		if op.pending = false; op.new != nil {
			next.put(op.new)
		} else {
			next.delete(op.key)
		}
	}
	if next == nil {
		return st
	}
	st = next.commit()
	if tx.changed == nil {
		tx.changed = map[string]*tableState{}
	}
	tx.changed[name] = st
	return st
}

func (tx *Tx) readRange(space string, from, end Key) {
	if !tx.guarded(guardKey{space, from, end, true}) {
		tx.guard(Guard{Kind: GuardRange, Space: space, Key: from, End: end, Revision: tx.base.revision})
	}
}

func (tx *Tx) put(info TableInfo, v proto.Message) {
	k := info.keyOf(v)
	if old := tx.record(info.Name(), k); old != nil && old.message != nil {
		keepUnknown(old.message, v)
	}
	from := len(tx.values)
	values, err := proto.MarshalOptions{}.MarshalAppend(tx.values, v)
	if err != nil {
		// A string that is not UTF-8, most likely: what clients send must not be able to panic us.
		tx.failed = cmp.Or(tx.failed, fmt.Errorf("state: encode record of table %s: %w", info.Name(), err))
		return
	}
	tx.values = values
	tx.write(info, k, &record{key: k, value: textOf(values[from:]), message: v})
}

// keepUnknown gives a record that takes the place of old the fields that a newer version has written there, also if it was made from
// nothing instead of being old, changed. Messages within it do not get theirs that way.
func keepUnknown(old, v proto.Message) {
	kept, m := old.ProtoReflect().GetUnknown(), v.ProtoReflect()
	if len(kept) > 0 && len(m.GetUnknown()) == 0 {
		m.SetUnknown(kept)
	}
}

func (tx *Tx) delete(info TableInfo, k Key) { tx.write(info, k, nil) }

// write notes a change. It is guarded like a read: the index entries that travel with it depend on the record it replaces.
func (tx *Tx) write(info TableInfo, k Key, rec *record) {
	i := tx.find(info.Name(), k)
	if i < 0 {
		i = len(tx.ops)
		tx.ops = append(tx.ops, txOp{info: info, key: k, old: tx.readBase(info.Name(), k)})
		switch {
		case i > few:
			tx.opAt[recordID{info.Name(), k}] = i
		case i == few:
			for j := range tx.ops {
				tx.opAt[recordID{tx.ops[j].info.Name(), tx.ops[j].key}] = j
			}
		}
	}
	tx.ops[i].new, tx.ops[i].pending = rec, true
}

// transaction is what has to be committed. Without ops there is nothing to commit.
func (tx *Tx) transaction() (*Transaction, error) {
	if tx.failed != nil {
		return nil, tx.failed
	}
	for i := range tx.ops {
		op := &tx.ops[i]
		if op.old == nil && op.new == nil {
			continue // created and deleted, or deleted where nothing was
		}
		out := Op{Table: op.info.Name(), Key: op.key, Delete: op.new == nil, Touched: tx.touches(op)}
		if op.new != nil {
			out.Value = bytesOf(op.new.value)
		}
		tx.out = append(tx.out, out)
	}
	if n := len(tx.out); n > MaxOps {
		return nil, &LimitError{"operations", n, MaxOps}
	}
	t := &Transaction{Guards: tx.guards, Ops: tx.out}
	if len(t.Ops) > 0 {
		if n := t.Size(); n > MaxBytes {
			return nil, &LimitError{"bytes", n, MaxBytes}
		}
	}
	return t, nil
}

// touches are the index entries that op takes away, makes or makes again, each once.
func (tx *Tx) touches(op *txOp) []IndexEntry {
	indexes, from := op.info.indexList(), len(tx.touched)
	var before []place
	if op.old != nil {
		before = op.old.places
	}
	for _, p := range before {
		tx.touched = append(tx.touched, IndexEntry{indexes[p.index].spaceName(), p.key, op.key})
	}
	if op.new != nil {
		op.new.setPlaces(op.info, op.old, nil)
		for _, p := range op.new.places {
			if !slices.Contains(before, p) {
				tx.touched = append(tx.touched, IndexEntry{indexes[p.index].spaceName(), p.key, op.key})
			}
		}
	}
	return tx.touched[from:len(tx.touched):len(tx.touched)]
}
