package state

import (
	"encoding/binary"
	"slices"
	"strings"
	"sync/atomic"
)

// item is a record's place in a tree: it sorts as prefix followed by the record's own key. In the tree of a table prefix is empty; in an
// index's it is the index key. Items are most of what is copied when a tree is changed: so they are small.
type item struct {
	rec   *record
	hint  uint32 // the four bytes of the key behind those that the items of its node have in common; set by the node
	place uint32 // in a table's tree 0, in an index's 1 more than that of the index key in rec.places
}

func (it item) prefix() Key {
	if it.place == 0 {
		return ""
	}
	return it.rec.places[it.place-1].key
}

// key is what the item sorts by.
func (it item) key() Key { return it.prefix() + it.rec.key }

// compare orders p followed by k against q followed by l, without joining either.
func compare(p, k, q, l Key) int {
	if p == q {
		return strings.Compare(string(k), string(l))
	}
	n := min(len(p), len(q))
	if c := strings.Compare(string(p[:n]), string(q[:n])); c != 0 {
		return c
	}
	if len(p) > n {
		return compareJoined(p[n:], k, l)
	}
	return -compareJoined(q[n:], l, k)
}

// compareJoined orders a followed by b against k.
func compareJoined(a, b, k Key) int {
	n := min(len(a), len(k))
	if c := strings.Compare(string(a[:n]), string(k[:n])); c != 0 {
		return c
	}
	if len(a) > n {
		return 1
	}
	return strings.Compare(string(b), string(k[n:]))
}

// cut is the first n bytes, or all, of p followed by k.
func cut(p, k Key, n int) (Key, Key) {
	if n <= len(p) {
		return p[:n], ""
	}
	return p, k[:min(len(k), n-len(p))]
}

// hintOf is the four bytes of p followed by k that come after the first n, as a number that sorts as they do; zeros where there are none.
func hintOf(p, k Key, n int) uint32 {
	var b [4]byte
	at := 0
	if n < len(p) {
		at = copy(b[:], p[n:])
		n = len(p)
	}
	if n -= len(p); n < len(k) {
		copy(b[at:], k[n:])
	}
	return binary.BigEndian.Uint32(b[:])
}

// common is how many bytes the keys of a and b begin with alike.
func common(a, b item) int {
	p, k, q, l := a.prefix(), a.rec.key, b.prefix(), b.rec.key
	n := 0
	if p == q {
		n = len(p)
	}
	for length := min(len(p)+len(k), len(q)+len(l)); n < length && byteAt(p, k, n) == byteAt(q, l, n); n++ {
	}
	return n
}

// byteAt is the one at i of p followed by k.
func byteAt(p, k Key, i int) byte {
	if i < len(p) {
		return p[i]
	}
	return k[i-len(p)]
}

// maxItems bounds a node. Records are changed here and there: nearly each change copies a leaf of every tree that the record is in, and much of what
// is above it. Wider nodes make a shallower tree that costs less beside its items, and cost more to copy.
const (
	maxItems = 16
	minItems = maxItems / 3 // a node that has lost so many is joined to a neighbour or takes from it
)

// tree is an ordered set of items: a B-tree. Immutable; an edit makes the next one, which shares what is not changed.
type tree struct {
	root *node // nil: empty
	n    int
}

// node is a part of a tree. It belongs to the edit that made it, which alone may change it, until it commits.
//
// Keys of a table begin alike, and looking at one is two steps through memory. So a node knows how many bytes its items' keys have in common, and
// each item what comes next: a search looks at one key to compare what is in common, then at numbers, and at a key again where they are equal.
type node struct {
	edit     uint64
	skip     int // bytes that the keys of all items begin with alike
	items    []item
	children []*node // of an inner node one more than items: children[i] sorts before items[i]
}

// search is the position of the first item that does not sort before prefix and k joined, and whether that is its key.
func (n *node) search(prefix, k Key) (int, bool) {
	if len(n.items) == 0 {
		return 0, false
	}
	if n.skip > 0 {
		first := &n.items[0]
		p, l := cut(prefix, k, n.skip)
		q, m := cut(first.prefix(), first.rec.key, n.skip)
		if c := compare(p, l, q, m); c < 0 {
			return 0, false
		} else if c > 0 {
			return len(n.items), false
		}
	}
	hint := hintOf(prefix, k, n.skip)
	lo, hi := 0, len(n.items)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		it := &n.items[mid]
		before := it.hint < hint
		if it.hint == hint {
			c := compare(it.prefix(), it.rec.key, prefix, k)
			if c == 0 {
				return mid, true
			}
			before = c < 0
		}
		if before {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, false
}

// hinted sets what a node's search goes by, after item i came or, with i below zero, many did.
func (n *node) hinted(i int) {
	last := len(n.items) - 1
	if i < 0 || i == 0 || i == last { // in between it has what the first and the last have in common
		if skip := common(n.items[0], n.items[last]); i < 0 || skip != n.skip {
			n.skip = skip
			for j := range n.items {
				n.items[j].hint = hintOf(n.items[j].prefix(), n.items[j].rec.key, skip)
			}
			return
		}
	}
	n.items[i].hint = hintOf(n.items[i].prefix(), n.items[i].rec.key, n.skip)
}

// get is the record whose item's key is prefix and k joined; nil if there is none.
func (t *tree) get(prefix, k Key) *record {
	for n := t.root; n != nil; {
		i, found := n.search(prefix, k)
		switch {
		case found:
			return n.items[i].rec
		case n.children == nil:
			return nil
		}
		n = n.children[i]
	}
	return nil
}

// ascend yields the items from key from to before key end, in order, until yield says no. Without end it goes on to the last.
func (t *tree) ascend(from, end Key, yield func(item) bool) {
	if t.root != nil {
		t.root.ascend(from, end, yield)
	}
}

func (n *node) ascend(from, end Key, yield func(item) bool) bool {
	lo, hi := 0, len(n.items)
	if from != "" {
		lo, _ = n.search("", from)
	}
	if end != "" {
		hi, _ = n.search("", end)
	}
	if n.children == nil {
		for ; lo < hi; lo++ {
			if !yield(n.items[lo]) {
				return false
			}
		}
		return true
	}
	for i := lo; i <= hi; i++ {
		to := Key("") // all of it comes before items[i]
		if i == hi {
			to = end
		}
		if !n.children[i].ascend(from, to, yield) || i < hi && !yield(n.items[i]) {
			return false
		}
		from = "" // all that follows comes after it
	}
	return true
}

// edits numbers edits, so that no two ever take each other's nodes for their own.
var edits atomic.Uint64

// edit is the next version of a tree being made. What it has made it changes in place; everything else it copies first. Used by one
// goroutine, and no more once committed.
type edit struct {
	tree
	id uint64
}

func (t *tree) edit() *edit { return &edit{*t, edits.Add(1)} }

// commit is the tree as it is now.
func (e *edit) commit() *tree {
	t := e.tree
	e.id, e.root = 0, nil // what was made is shared from here on
	return &t
}

// own is n, or a copy of it, to be changed.
func (e *edit) own(n *node) *node {
	if n.edit == e.id {
		return n
	}
	c := e.node(n.items, n.children)
	c.skip = n.skip
	return c
}

// A node and what it holds are one object, of one of two sizes.
type (
	leaf struct {
		node
		room [maxItems]item
	}
	halfLeaf struct {
		node
		room [maxItems / 2]item
	}
	inner struct {
		node
		room [maxItems]item
		kids [maxItems + 1]*node
	}
	halfInner struct {
		node
		room [maxItems / 2]item
		kids [maxItems/2 + 1]*node
	}
)

// node is a new one with copies of items, hints and all, and children.
func (e *edit) node(items []item, children []*node) *node {
	var n *node
	switch {
	case len(children) == 0 && len(items) <= maxItems/2:
		l := &halfLeaf{}
		n, l.items = &l.node, l.room[:0]
	case len(children) == 0:
		l := &leaf{}
		n, l.items = &l.node, l.room[:0]
	case len(items) <= maxItems/2:
		l := &halfInner{}
		n, l.items, l.children = &l.node, l.room[:0], l.kids[:0]
	default:
		l := &inner{}
		n, l.items, l.children = &l.node, l.room[:0], l.kids[:0]
	}
	n.edit, n.items = e.id, append(n.items, items...)
	if len(children) > 0 {
		n.children = append(n.children, children...)
	}
	return n
}

// made is node of items that were not together before.
func (e *edit) made(items []item, children []*node) *node {
	n := e.node(items, children)
	n.hinted(-1)
	return n
}

// put adds it, in place of the item of the same key, if there is one, whose record it returns.
func (e *edit) put(it item) (old *record) {
	if e.root == nil {
		e.root = e.made([]item{it}, nil)
		e.n++
		return nil
	}
	e.root = e.own(e.root)
	if old = e.insert(e.root, it); old == nil {
		e.n++
	}
	if len(e.root.items) > maxItems {
		e.root = e.node(nil, []*node{e.root})
		e.split(e.root, 0)
	}
	return old
}

// insert is put below n, which is e's and may have an item too many afterwards.
func (e *edit) insert(n *node, it item) (old *record) {
	i, found := n.search(it.prefix(), it.rec.key)
	if found {
		old = n.items[i].rec
		it.hint = n.items[i].hint
		n.items[i] = it
		return old
	}
	if n.children != nil {
		n.children[i] = e.own(n.children[i])
		old = e.insert(n.children[i], it)
		if len(n.children[i].items) > maxItems {
			e.split(n, i)
		}
		return old
	}
	// Neighbours mostly have the same index key: one text is enough for them.
	if it.place > 0 {
		key := &it.rec.places[it.place-1].key
		if i > 0 && n.items[i-1].prefix() == *key {
			*key = n.items[i-1].prefix()
		} else if i < len(n.items) && n.items[i].prefix() == *key {
			*key = n.items[i].prefix()
		}
	}
	n.items = slices.Insert(n.items, i, it)
	n.hinted(i)
	return nil
}

// split makes two of n's child i. Both are e's.
func (e *edit) split(n *node, i int) {
	c := n.children[i]
	m := len(c.items) / 2
	if i == len(n.items) {
		// The last child grows mostly at its end, by keys that come in order, as those of a snapshot do: leave a full node behind.
		m = len(c.items) - minItems
	}
	up := c.items[m]
	right := e.made(c.items[m+1:], tail(c.children, m+1))
	n.children[i] = e.made(c.items[:m], head(c.children, m+1))
	n.items = slices.Insert(n.items, i, up)
	n.hinted(i)
	n.children = slices.Insert(n.children, i+1, right)
}

// head and tail are parts of an inner node's children; leaves have none.
func head(children []*node, n int) []*node { return children[:min(n, len(children))] }
func tail(children []*node, n int) []*node { return children[min(n, len(children)):] }

// delete removes the item whose key is prefix and k joined, and returns its record; nil if there is none.
func (e *edit) delete(prefix, k Key) (old *record) {
	if old = e.get(prefix, k); old == nil {
		return nil
	}
	e.root = e.own(e.root)
	e.remove(e.root, prefix, k)
	e.n--
	if len(e.root.items) == 0 {
		if e.root.children == nil {
			e.root = nil
		} else {
			e.root = e.root.children[0]
		}
	}
	return old
}

// remove is delete of what is there below n, which is e's and may have too few items afterwards.
func (e *edit) remove(n *node, prefix, k Key) {
	i, found := n.search(prefix, k)
	switch {
	case n.children == nil:
		n.items = slices.Delete(n.items, i, i+1)
		return
	case found:
		n.children[i] = e.own(n.children[i])
		n.items[i] = e.removeLast(n.children[i])
		n.hinted(i)
	default:
		n.children[i] = e.own(n.children[i])
		e.remove(n.children[i], prefix, k)
	}
	e.repair(n, i)
}

// removeLast takes the last item below n away.
func (e *edit) removeLast(n *node) item {
	if n.children == nil {
		last := n.items[len(n.items)-1]
		n.items = slices.Delete(n.items, len(n.items)-1, len(n.items))
		return last
	}
	i := len(n.items)
	n.children[i] = e.own(n.children[i])
	last := e.removeLast(n.children[i])
	e.repair(n, i)
	return last
}

// repair sees to it that n's child i has enough items: it is joined with a neighbour, or both share what they have.
func (e *edit) repair(n *node, i int) {
	if len(n.children[i].items) >= minItems {
		return
	}
	i = max(i-1, 0)
	left, right := n.children[i], n.children[i+1]
	items := slices.Concat(left.items, n.items[i:i+1], right.items)
	children := slices.Concat(left.children, right.children)
	if len(items) <= maxItems {
		n.children[i] = e.made(items, children)
		n.items = slices.Delete(n.items, i, i+1)
		n.children = slices.Delete(n.children, i+1, i+2)
		return
	}
	m := len(items) / 2
	n.items[i] = items[m]
	n.hinted(i)
	n.children[i] = e.made(items[:m], head(children, m+1))
	n.children[i+1] = e.made(items[m+1:], tail(children, m+1))
}
