package wire

import (
	"reflect"
	"time"
	"unsafe"
)

// This file is the only one that turns addresses into values. An accessor is given the address of a value of its node's
// Go type, which kindOf has checked against the kind: a string kind is kept in a Go string (or a type made from it), and
// so on. Addresses come from reflection (a new value, an interface's pointer) or from adding a checked field's offset.

// slice is how Go keeps a slice.
type slice struct {
	data     unsafe.Pointer
	len, cap int
}

// at is the address of the field's value: the pointee when the field is a pointer, and nil when that is nil.
func (f *field) at(p unsafe.Pointer) unsafe.Pointer {
	q := unsafe.Add(p, f.offset)
	if f.ptr {
		return *(*unsafe.Pointer)(q)
	}
	return q
}

// isSet says whether the field has a value to send. Go fields that are no pointers have one always, but for an empty
// string: the SDK keeps absent enum values so.
func (f *field) isSet(p unsafe.Pointer) bool {
	q := unsafe.Add(p, f.offset)
	if f.ptr {
		return *(*unsafe.Pointer)(q) != nil
	}
	switch f.node.kind {
	case kindList, kindBlob:
		return (*slice)(q).data != nil
	case kindMap, kindUnion, kindDocument, kindStream: // a map is a pointer, an interface begins with its type's
		return *(*unsafe.Pointer)(q) != nil
	case kindString:
		return *(*string)(q) != ""
	}
	return true
}

// make is the address to decode the field's value to: a new pointee when the field is a pointer.
func (f *field) make(p unsafe.Pointer, a *allocator) unsafe.Pointer {
	q := unsafe.Add(p, f.offset)
	if !f.ptr {
		return q
	}
	v := a.new(f.node)
	*(*unsafe.Pointer)(q) = v
	return v
}

// clear makes the field absent.
func (f *field) clear(p unsafe.Pointer) {
	q := unsafe.Add(p, f.offset)
	if f.ptr {
		*(*unsafe.Pointer)(q) = nil
		return
	}
	reflect.NewAt(f.node.typ, q).Elem().SetZero()
}

// allocator makes the pointees of one decoded value. Scalars come in chunks: the SDK's types point to each of them, and one
// allocation for many costs a third of the time. A chunk lives as long as anything in it, so chunks are small.
type allocator struct {
	strings []string
	ints    []int32
	bools   []bool
}

const maxChunk = 32

// new is the address of a new zero value.
func (a *allocator) new(n *node) unsafe.Pointer {
	switch n.kind {
	case kindString:
		return unsafe.Pointer(take(&a.strings))
	case kindInt:
		return unsafe.Pointer(take(&a.ints))
	case kindBool:
		return unsafe.Pointer(take(&a.bools))
	}
	return reflect.New(n.typ).UnsafePointer()
}

// take is an element of the chunk, which doubles each time it is used up. Its capacity tells its first size.
func take[T any](chunk *[]T) *T {
	c := *chunk
	if len(c) == cap(c) { // used up: len counts those taken
		c = make([]T, 0, min(max(4, 2*cap(c)), maxChunk))
	}
	c = c[:len(c)+1]
	*chunk = c
	return &c[len(c)-1]
}

func stringAt(p unsafe.Pointer) *string              { return (*string)(p) }
func boolAt(p unsafe.Pointer) *bool                  { return (*bool)(p) }
func intAt(p unsafe.Pointer) *int32                  { return (*int32)(p) }
func longAt(p unsafe.Pointer) *int64                 { return (*int64)(p) }
func floatAt(p unsafe.Pointer) *float32              { return (*float32)(p) }
func doubleAt(p unsafe.Pointer) *float64             { return (*float64)(p) }
func timeAt(p unsafe.Pointer) *time.Time             { return (*time.Time)(p) }
func bytesAt(p unsafe.Pointer) *[]byte               { return (*[]byte)(p) }
func lenAt(p unsafe.Pointer) int                     { return (*slice)(p).len }
func (n *node) value(p unsafe.Pointer) reflect.Value { return reflect.NewAt(n.typ, p).Elem() }

// index is the address of the list's element i.
func (n *node) index(p unsafe.Pointer, i int) unsafe.Pointer {
	return unsafe.Add((*slice)(p).data, uintptr(i)*n.elem.typ.Size())
}

// push appends a zero element to the list and returns its address, valid until the next push.
func (n *node) push(p unsafe.Pointer) unsafe.Pointer {
	s := (*slice)(p)
	if s.len == s.cap {
		n.value(p).Grow(int(max(1, 128/max(1, n.elem.typ.Size()), uintptr(3*s.len))))
	}
	s.len++
	return n.index(p, s.len-1) // zero: Grow clears what lies beyond the old length
}

// makeEmpty makes the list non-nil and empty.
func makeEmpty(p unsafe.Pointer) { *(*slice)(p) = slice{data: unsafe.Pointer(&nowhere)} }

var nowhere struct{} // what empty lists point to

// isStringMap says that the map can be used as a map[string]string.
func (n *node) isStringMap() bool { return n.typ == stringMapType }

var stringMapType = reflect.TypeFor[map[string]string]()

func stringMapAt(p unsafe.Pointer) *map[string]string { return (*map[string]string)(p) }

// pointee is the address an `any` holding a pointer points to.
func pointee(v reflect.Value) unsafe.Pointer { return v.UnsafePointer() }
