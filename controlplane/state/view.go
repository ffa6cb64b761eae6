package state

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
)

// record is one version of a record. Immutable and shared.
type record struct {
	key      Key
	value    string
	revision Revision      // of the transaction that put it; 0 within a Tx that has not committed
	message  proto.Message // nil: the table is not in the schema, or the value does not decode
	places   []place       // in the table's indexes; set when it comes into their trees, and shared by versions in the same places
}

// place is an index key of a record. In the index's tree, and where it is told of, the record's own key follows: so it is unique.
type place struct {
	index int // in indexList
	key   Key
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
	if len(t.indexes) == 0 {
		return old
	}
	rec.setPlaces(t.from.info, old, t.onPanic)
	for i, p := range rec.places {
		t.indexes[p.index].put(item{rec: rec, place: uint32(i + 1)})
	}
	if old != nil {
		for _, p := range old.places {
			if !slices.Contains(rec.places, p) {
				t.indexes[p.index].delete(p.key, old.key)
			}
		}
	}
	return old
}

func (t *tableTxn) delete(k Key) (old *record) {
	if old = t.primary.delete("", k); old == nil {
		return nil
	}
	for _, p := range old.places {
		t.indexes[p.index].delete(p.key, old.key)
	}
	return old
}

// setPlaces finds out where rec, which replaces old or nothing, is in the indexes of its table, if that is not known. If onPanic is set it is told
// of an index function that panics, and the record is left out of that index.
func (rec *record) setPlaces(info TableInfo, old *record, onPanic func(rec *record, p any)) {
	if rec.places != nil {
		return
	}
	var room [few]place
	places := room[:0]
	for i, ix := range info.indexList() {
		for _, k := range rec.keys(ix, onPanic) {
			if p := (place{i, k}); !slices.Contains(places, p) {
				places = append(places, p)
			}
		}
	}
	if old != nil && slices.Equal(places, old.places) {
		rec.places = old.places
	} else {
		rec.places = append([]place(nil), places...)
	}
}

func (rec *record) keys(ix index, onPanic func(rec *record, p any)) []Key {
	if onPanic != nil {
		defer func() {
			if p := recover(); p != nil {
				onPanic(rec, p)
			}
		}()
	}
	return ix.keysOf(rec)
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
