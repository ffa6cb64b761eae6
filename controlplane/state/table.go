package state

import (
	"fmt"
	"iter"

	"google.golang.org/protobuf/proto"
)

// Table is a set of records of one message type, ordered by key. Declared once, as a package variable; it holds no data.
type Table[T proto.Message] struct {
	name    string
	key     func(T) Key
	indexes []index
}

// NewTable declares a table. name is stored: it must be unique and never change. key must depend on v alone.
func NewTable[T proto.Message](name string, key func(v T) Key) *Table[T] {
	return &Table[T]{name: name, key: key}
}

// TableInfo is a table without its type. Every *Table[T] is one.
type TableInfo interface {
	Name() string
	decode(value string) (proto.Message, error)
	keyOf(proto.Message) Key
	indexList() []index
}

// Schema is the tables of a store.
type Schema []TableInfo

// Name is the name under which the table is stored.
func (t *Table[T]) Name() string { return t.name }

// Key is the key of v.
func (t *Table[T]) Key(v T) Key { return t.key(v) }

func (t *Table[T]) keyOf(m proto.Message) Key { return t.key(m.(T)) }

func (t *Table[T]) indexList() []index { return t.indexes }

func (t *Table[T]) decode(value string) (proto.Message, error) {
	var zero T
	return decode(zero, value)
}

// Get returns the record at k. It is shared: clone it before changing anything.
func (t *Table[T]) Get(r Reader, k Key) (T, bool) {
	v, _, ok := t.GetRevision(r, k)
	return v, ok
}

// GetRevision also returns the revision of the record's last change; 0 if that is r's own, not yet committed.
func (t *Table[T]) GetRevision(r Reader, k Key) (T, Revision, bool) {
	rec := r.record(t.name, k)
	if rec == nil {
		var zero T
		return zero, 0, false
	}
	return message[T](t.name, rec), rec.revision, true
}

// Version names what the table holds in a view: as long as it is the same, so are all records. Comparable, and holds nothing of the view but the
// table. It is for what is found out from a table that seldom changes.
type Version struct{ of *tableState }

// Version is that of the table in v.
func (t *Table[T]) Version(v *View) Version { return Version{v.table(t.name)} }

// Scan yields the records whose keys begin with prefix, in key order. Within a Tx that writes to the table meanwhile, it goes
// on over the table as it was when the scan began.
func (t *Table[T]) Scan(r Reader, prefix Key) iter.Seq[T] {
	return func(yield func(T) bool) {
		st := r.table(t.name)
		scan[T](r, st, t.name, st.primary, prefix, yield)
	}
}

// ScanFrom is Scan beginning strictly after key after.
func (t *Table[T]) ScanFrom(r Reader, prefix, after Key) iter.Seq[T] {
	return func(yield func(T) bool) {
		st := r.table(t.name)
		scanFrom[T](r, st, t.name, st.primary, prefix, after, yield)
	}
}

// Put creates or replaces the record with v's key. v must not be changed afterwards. It gets the fields of the record that it replaces
// which this version does not know.
func (t *Table[T]) Put(tx *Tx, v T) { tx.put(t, v) }

// Delete removes the record at k, if there is one.
func (t *Table[T]) Delete(tx *Tx, k Key) { tx.delete(t, k) }

func message[T proto.Message](table string, rec *record) T {
	v, ok := rec.message.(T)
	if !ok {
		panic(fmt.Sprintf("state: record %s of table %s does not decode", rec.key, table))
	}
	return v
}

// scan walks all entries of tr that begin with prefix and notes how far it was read.
func scan[T proto.Message](r Reader, st *tableState, space string, tr *tree, prefix Key, yield func(T) bool) {
	walk(r, space, tr, prefix, prefix, func(rec *record) bool { return yield(message[T](st.name, rec)) })
}

// scanFrom is scan beginning after an entry.
func scanFrom[T proto.Message](r Reader, st *tableState, space string, tr *tree, prefix, after Key, yield func(T) bool) {
	from, end := max(prefix, successor(after)), prefix.end()
	if end != "" && from >= end {
		return
	}
	walk(r, space, tr, prefix, from, func(rec *record) bool { return yield(message[T](st.name, rec)) })
}

// walk is scan beginning at from, over records.
func walk(r Reader, space string, tr *tree, prefix, from Key, yield func(*record) bool) {
	end := prefix.end()
	defer func() { r.readRange(space, from, end) }() // also when yield panics
	tr.ascend(from, end, func(it item) bool {
		if yield(it.rec) {
			return true
		}
		end = successor(it.key())
		return false
	})
}

// successor is the first key after k.
func successor(k Key) Key { return k + "\x00" }
