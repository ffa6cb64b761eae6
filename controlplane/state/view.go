package state

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
)

// record is one version of a record. Immutable and shared.
type record struct {
	key      Key
	value    []byte
	revision Revision      // of the transaction that put it; 0 within a Tx that has not committed
	message  proto.Message // nil: the table is not in the schema, or the value does not decode
}

// tableState is one version of a table and its indexes. Immutable.
type tableState struct {
	name    string
	info    TableInfo // nil: not in the schema; kept for servers that know it
	primary *tree
	indexes []*tree // as info.indexList(), sorted by index key, then primary key
}

func newTableState(name string, info TableInfo) *tableState {
	st := &tableState{name: name, info: info, primary: &tree{}}
	if info != nil {
		for range info.indexList() {
			st.indexes = append(st.indexes, &tree{})
		}
	}
	return st
}

// tableTxn makes the next version of a table.
type tableTxn struct {
	from    *tableState
	primary *edit
	indexes []*edit
	// onPanic, if set, is told of an index function that panics, and the record is left out of that index.
	onPanic func(rec *record, p any)
}

func (st *tableState) txn() *tableTxn {
	t := &tableTxn{from: st, primary: st.primary.edit()}
	for _, ix := range st.indexes {
		t.indexes = append(t.indexes, ix.edit())
	}
	return t
}

func (t *tableTxn) put(rec *record) (old *record) {
	old = t.primary.put(item{rec: rec})
	for i, ix := range t.indexes {
		keys := t.keys(i, rec)
		for _, k := range keys {
			ix.put(item{prefix: k, rec: rec})
		}
		if old == nil {
			continue
		}
		for _, k := range t.keys(i, old) {
			if !slices.Contains(keys, k) {
				ix.delete(k, old.key)
			}
		}
	}
	return old
}

func (t *tableTxn) delete(k Key) (old *record) {
	if old = t.primary.delete("", k); old == nil {
		return nil
	}
	for i, ix := range t.indexes {
		for _, k := range t.keys(i, old) {
			ix.delete(k, old.key)
		}
	}
	return old
}

// keys are those of rec in the index at position i.
func (t *tableTxn) keys(i int, rec *record) []Key {
	if t.onPanic != nil {
		defer func() {
			if p := recover(); p != nil {
				t.onPanic(rec, p)
			}
		}()
	}
	return t.from.info.indexList()[i].keysOf(rec)
}

func (t *tableTxn) commit() *tableState {
	st := &tableState{name: t.from.name, info: t.from.info, primary: t.primary.commit()}
	for _, ix := range t.indexes {
		st.indexes = append(st.indexes, ix.commit())
	}
	return st
}

// View is everything as it was at one revision. It never changes and costs nothing to keep but the memory of what was
// replaced since.
type View struct {
	revision Revision
	slots    map[string]int // table name → position in tables; shared, never changed
	tables   []*tableState
}

// Revision is that of the last transaction the view contains.
func (v *View) Revision() Revision { return v.revision }

// Reader is what tables and indexes are read from: a *View or a *Tx.
type Reader interface {
	// record is the record at k, nil if there is none.
	record(table string, k Key) *record
	// table is all of a table, to scan. What is read of it is told to readRange.
	table(name string) *tableState
	// readRange notes that everything from key from to key end was looked at.
	readRange(space string, from, end Key)
}

func (v *View) table(name string) *tableState {
	i, ok := v.slots[name]
	if !ok || v.tables[i].info == nil {
		panic(fmt.Sprintf("state: table %s is not in the schema", name))
	}
	return v.tables[i]
}

func (v *View) record(table string, k Key) *record {
	return v.table(table).primary.get("", k)
}

func (v *View) readRange(string, Key, Key) {}
