package state

import (
	"iter"

	"google.golang.org/protobuf/proto"
)

// Index finds the records of a table by other keys. Not unique; a record may have any number of keys in it.
type Index[T proto.Message] struct {
	table    *Table[T]
	position int
	space    string
	keys     func(T) []Key
}

// NewIndex declares an index of t. keys must depend on v alone, and return keys made by K.
func NewIndex[T proto.Message](t *Table[T], name string, keys func(v T) []Key) *Index[T] {
	ix := &Index[T]{table: t, position: len(t.indexes), space: t.name + "#" + name, keys: keys}
	t.indexes = append(t.indexes, ix)
	return ix
}

// index is an Index without its type.
type index interface {
	spaceName() string
	// keysOf are rec's keys in the index.
	keysOf(rec *record) []Key
}

func (ix *Index[T]) spaceName() string { return ix.space }

func (ix *Index[T]) keysOf(rec *record) []Key {
	v, ok := rec.message.(T)
	if !ok {
		return nil
	}
	return ix.keys(v)
}

// Scan yields the records that have an index key beginning with prefix, in index-key, then primary-key order. A record with
// several such keys comes several times.
func (ix *Index[T]) Scan(r Reader, prefix Key) iter.Seq[T] {
	return func(yield func(T) bool) {
		st := r.table(ix.table.name)
		scan[T](r, st, ix.space, st.indexes[ix.position], prefix, yield)
	}
}

// ScanKeys is Scan that yields the records' own keys as well. They are there already: to make one again costs as much as to find its record.
func (ix *Index[T]) ScanKeys(r Reader, prefix Key) iter.Seq2[Key, T] {
	return func(yield func(Key, T) bool) {
		st := r.table(ix.table.name)
		walk(r, ix.space, st.indexes[ix.position], prefix, prefix, func(rec *record) bool { return yield(rec.key, message[T](st.name, rec)) })
	}
}

// ScanFrom is Scan beginning strictly after the entry of the record with primary key after under index key at.
func (ix *Index[T]) ScanFrom(r Reader, prefix, at, after Key) iter.Seq[T] {
	return func(yield func(T) bool) {
		st := r.table(ix.table.name)
		scanFrom[T](r, st, ix.space, st.indexes[ix.position], prefix, at+after, yield)
	}
}
