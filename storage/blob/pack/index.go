package pack

import (
	"bytes"
	"slices"
)

// place is where a value is. It and its key are all that memory holds of a value: 48 bytes for a key of 32, up to 110 in a map.
type place struct {
	segment, offset uint32
	size            uint32 // of the data
	time            uint32 // when it was last written or touched, in seconds
}

func (p place) at(segment, offset uint32) bool { return p.segment == segment && p.offset == offset }

// index finds values by their keys. It is parted by the keys' first byte, so that they can be listed in order, a part at a time.
type index struct {
	short [256]map[[shortKey]byte]place
	long  [256]map[[longKey]byte]place
}

// The lengths of keys.
const (
	shortKey = 32
	longKey  = 64
)

func validKey(key []byte) bool { return len(key) == shortKey || len(key) == longKey }

func (x *index) get(key []byte) (place, bool) {
	if len(key) == shortKey {
		p, ok := x.short[key[0]][[shortKey]byte(key)]
		return p, ok
	}
	p, ok := x.long[key[0]][[longKey]byte(key)]
	return p, ok
}

func (x *index) set(key []byte, p place) {
	if len(key) == shortKey {
		put(&x.short[key[0]], [shortKey]byte(key), p)
	} else {
		put(&x.long[key[0]], [longKey]byte(key), p)
	}
}

func put[K comparable](m *map[K]place, key K, p place) {
	if *m == nil {
		*m = map[K]place{}
	}
	(*m)[key] = p
}

func (x *index) remove(key []byte) {
	if len(key) == shortKey {
		delete(x.short[key[0]], [shortKey]byte(key))
	} else {
		delete(x.long[key[0]], [longKey]byte(key))
	}
}

// keys lists those of a length that begin with the byte, sorted.
func (x *index) keys(length int, first byte) (list [][]byte) {
	if length == shortKey {
		for k := range x.short[first] {
			list = append(list, bytes.Clone(k[:]))
		}
	} else {
		for k := range x.long[first] {
			list = append(list, bytes.Clone(k[:]))
		}
	}
	slices.SortFunc(list, bytes.Compare)
	return list
}
