package state

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
)

// Tx is a transaction being made: the snapshot it started from, its own changes on top, and what it has read. Used by one
// goroutine, within the function given to Update.
type Tx struct {
	base   *View
	guards []Guard
	seen   map[guardKey]struct{} // what guards holds; nil while that is few
	ops    []txOp
	opAt   map[recordID]int // position in ops; nil while those are few
	failed error            // the first record that could not be encoded

	// Tables with the changes in them are made only when they are scanned: most transactions just get and put.
	changed map[string]*tableState
}

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

func newTx(base *View) *Tx { return &Tx{base: base} }

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
	if tx.opAt == nil {
		return slices.IndexFunc(tx.ops, func(op txOp) bool { return op.key == k && op.info.Name() == table })
	}
	if i, ok := tx.opAt[recordID{table, k}]; ok {
		return i
	}
	return -1
}

// guarded says whether there is a guard already.
func (tx *Tx) guarded(id guardKey) bool {
	if tx.seen == nil {
		return slices.ContainsFunc(tx.guards, func(g Guard) bool { return guardKeyOf(&g) == id })
	}
	_, ok := tx.seen[id]
	return ok
}

// guard adds one that is not there.
func (tx *Tx) guard(g Guard) {
	tx.guards = append(tx.guards, g)
	switch {
	case tx.seen != nil:
		tx.seen[guardKeyOf(&g)] = struct{}{}
	case len(tx.guards) > few:
		tx.seen = map[guardKey]struct{}{}
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
	value, err := proto.Marshal(v)
	if err != nil {
		// A string that is not UTF-8, most likely: what clients send must not be able to panic us.
		tx.failed = cmp.Or(tx.failed, fmt.Errorf("state: encode record of table %s: %w", info.Name(), err))
		return
	}
	tx.write(info, k, &record{key: k, value: value, message: v})
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
		case tx.opAt != nil:
			tx.opAt[recordID{info.Name(), k}] = i
		case len(tx.ops) > few:
			tx.opAt = map[recordID]int{}
			for j := range tx.ops {
				tx.opAt[recordID{tx.ops[j].info.Name(), tx.ops[j].key}] = j
			}
		}
	}
	tx.ops[i].new, tx.ops[i].pending = rec, true
}

// each leaves every entry once, and says how many those are.
func each(entries []IndexEntry) int {
	seen := make(map[Key]bool, len(entries))
	return len(slices.DeleteFunc(entries, func(e IndexEntry) bool {
		was := seen[e.Key]
		seen[e.Key] = true
		return was
	}))
}

// transaction is what has to be committed. Without ops there is nothing to commit.
func (tx *Tx) transaction() (*Transaction, error) {
	if tx.failed != nil {
		return nil, tx.failed
	}
	t := &Transaction{Guards: tx.guards}
	for _, op := range tx.ops {
		if op.old == nil && op.new == nil {
			continue // created and deleted, or deleted where nothing was
		}
		out := Op{Table: op.info.Name(), Key: op.key, Delete: op.new == nil}
		if op.new != nil {
			out.Value = op.new.value
		}
		for _, ix := range op.info.indexList() {
			first := len(out.Touched)
			for _, rec := range []*record{op.old, op.new} {
				if rec == nil {
					continue
				}
				for _, k := range ix.keysOf(rec) {
					out.Touched = append(out.Touched, IndexEntry{ix.spaceName(), k + rec.key})
				}
			}
			if len(out.Touched)-first > 1 {
				out.Touched = out.Touched[:first+each(out.Touched[first:])]
			}
		}
		t.Ops = append(t.Ops, out)
	}
	if n := len(t.Ops); n > MaxOps {
		return nil, &LimitError{"operations", n, MaxOps}
	}
	if len(t.Ops) > 0 {
		if n := len(t.Encode()); n > MaxBytes {
			return nil, &LimitError{"bytes", n, MaxBytes}
		}
	}
	return t, nil
}
