package state

import (
	"cmp"
	"fmt"

	"google.golang.org/protobuf/proto"
)

// Tx is a transaction being made: the snapshot it started from, its own changes on top, and what it has read. Used by one
// goroutine, within the function given to Update.
type Tx struct {
	base   *View
	guards []Guard
	seen   map[guardKey]struct{} // what guards holds
	ops    []txOp
	opAt   map[recordID]int // position in ops
	failed error            // the first record that could not be encoded

	// Tables with the changes in them are made only when they are scanned: most transactions just get and put.
	changed map[string]*tableState
	pending map[string][]int // positions in ops of changes not yet in changed
}

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
}

func newTx(base *View) *Tx {
	return &Tx{base: base, seen: map[guardKey]struct{}{}, opAt: map[recordID]int{}}
}

// Revision is that of the snapshot the transaction reads.
func (tx *Tx) Revision() Revision { return tx.base.revision }

func (tx *Tx) record(table string, k Key) *record {
	if i, ok := tx.opAt[recordID{table, k}]; ok {
		return tx.ops[i].new
	}
	return tx.readBase(table, k)
}

// readBase looks into the snapshot, and guards what is found.
func (tx *Tx) readBase(table string, k Key) *record {
	rec := tx.base.record(table, k)
	id := guardKey{space: table, key: k}
	if _, ok := tx.seen[id]; ok {
		return rec
	}
	tx.seen[id] = struct{}{}
	g := Guard{Kind: GuardAbsent, Space: table, Key: k}
	if rec != nil {
		g.Kind, g.Revision = GuardRevision, rec.revision
	}
	tx.guards = append(tx.guards, g)
	return rec
}

func (tx *Tx) table(name string) *tableState {
	st, ok := tx.changed[name]
	if !ok {
		st = tx.base.table(name)
	}
	pending := tx.pending[name]
	if len(pending) == 0 {
		return st
	}
	next := st.txn()
	for _, i := range pending {
		if op := tx.ops[i]; op.new != nil {
			next.put(op.new)
		} else {
			next.delete(op.key)
		}
	}
	st = next.commit()
	if tx.changed == nil {
		tx.changed = map[string]*tableState{}
	}
	tx.changed[name] = st
	delete(tx.pending, name)
	return st
}

func (tx *Tx) readRange(space string, from, end Key) {
	id := guardKey{space, from, end, true}
	if _, ok := tx.seen[id]; ok {
		return
	}
	tx.seen[id] = struct{}{}
	tx.guards = append(tx.guards, Guard{Kind: GuardRange, Space: space, Key: from, End: end, Revision: tx.base.revision})
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
	id := recordID{info.Name(), k}
	i, ok := tx.opAt[id]
	if !ok {
		i = len(tx.ops)
		tx.ops = append(tx.ops, txOp{info: info, key: k, old: tx.readBase(id.table, k)})
		tx.opAt[id] = i
	}
	tx.ops[i].new = rec
	if tx.pending == nil {
		tx.pending = map[string][]int{}
	}
	tx.pending[id.table] = append(tx.pending[id.table], i)
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
			seen := map[Key]bool{}
			for _, rec := range []*record{op.old, op.new} {
				if rec == nil {
					continue
				}
				for _, k := range ix.keysOf(rec) {
					if k += rec.key; !seen[k] {
						seen[k] = true
						out.Touched = append(out.Touched, IndexEntry{ix.spaceName(), k})
					}
				}
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
