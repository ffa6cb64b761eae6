package scheduler

import (
	"math"
	"slices"
)

// list keeps members in an order, in blocks that know what their members have at most. So the first one with room is found by passing over
// blocks, and nothing in it is a pointer.
//
// Invariants: blocks are not empty; no member of a block has more than its cpu or its mb says, though all may have less.
type list struct {
	blocks []block
	size   int
}

const blockSize = 64

type block struct {
	cpu, mb int64
	n       int32
	ids     [blockSize]int32
}

// ordering is total: of two members one is less.
type ordering interface{ less(a, b int32) bool }

func (b *block) raise(k *candidate) { b.cpu, b.mb = max(b.cpu, k.cpu), max(b.mb, k.mb) }

// lower finds out what the members of a block really have at most, once it has promised too much.
func (b *block) lower(members []candidate) {
	b.cpu, b.mb = math.MinInt64, math.MinInt64
	for _, id := range b.ids[:b.n] {
		b.raise(&members[id])
	}
}

// find is the block in which a member is or, if it is in none, belongs, and its place there.
func (l *list) find(o ordering, id int32) (b, i int) {
	for low, high := 0, len(l.blocks)-1; ; {
		if low == high {
			b = low
			break
		}
		middle := (low + high) / 2
		if f := &l.blocks[middle]; o.less(f.ids[f.n-1], id) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	f := &l.blocks[b]
	low, high := 0, int(f.n)
	for low < high {
		if middle := (low + high) / 2; o.less(f.ids[middle], id) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return b, low
}

func (l *list) insert(o ordering, id int32, k *candidate) {
	l.size++
	if len(l.blocks) == 0 {
		l.append(id, k)
		return
	}
	at, i := l.find(o, id)
	if b := &l.blocks[at]; b.n == blockSize {
		l.blocks = slices.Insert(l.blocks, at+1, *b)
		b, next := &l.blocks[at], &l.blocks[at+1]
		b.n = blockSize / 2
		next.n = int32(copy(next.ids[:], next.ids[blockSize/2:]))
		if i > blockSize/2 {
			at, i = at+1, i-blockSize/2
		}
	}
	b := &l.blocks[at]
	copy(b.ids[i+1:b.n+1], b.ids[i:b.n])
	b.ids[i] = id
	b.n++
	b.raise(k)
}

// append adds one that is behind all others to the last block, or to a new one when that is full but for what may come between.
func (l *list) append(id int32, k *candidate) {
	if n := len(l.blocks); n == 0 || l.blocks[n-1].n >= blockSize*3/4 {
		l.blocks = append(l.blocks, block{cpu: k.cpu, mb: k.mb})
	}
	b := &l.blocks[len(l.blocks)-1]
	b.ids[b.n] = id
	b.n++
	b.raise(k)
}

// remove takes out a member that is in the list, by the order in which it was put in.
func (l *list) remove(o ordering, id int32) {
	l.size--
	at, i := l.find(o, id)
	b := &l.blocks[at]
	copy(b.ids[i:], b.ids[i+1:b.n])
	b.n--
	if b.n == 0 {
		l.blocks = slices.Delete(l.blocks, at, at+1)
		return
	}
	if at+1 < len(l.blocks) && b.n+l.blocks[at+1].n <= blockSize/2 {
		next := &l.blocks[at+1]
		b.n += int32(copy(b.ids[b.n:], next.ids[:next.n]))
		b.cpu, b.mb = max(b.cpu, next.cpu), max(b.mb, next.mb)
		l.blocks = slices.Delete(l.blocks, at+1, at+2)
	}
}

// first is the first member with room for a demand; none: there is none.
func (l *list) first(members []candidate, d demand) int32 {
	for b := range l.blocks {
		b := &l.blocks[b]
		if b.cpu < d.cpu || b.mb < d.mb {
			continue
		}
		for _, id := range b.ids[:b.n] {
			if members[id].fits(d) {
				return id
			}
		}
		b.lower(members)
	}
	return none
}

// fewest is the first of those members with room that have the fewest tasks of a group; they are compared as long as the first so many parts of
// their keys are equal. None has fewer than least, and more than most will not do: most+1 says that there is none.
func (l *list) fewest(members []candidate, d demand, on presence, least, most int32, equal int) (at, tasks int32) {
	at, tasks = none, most+1
	if least > most {
		return at, tasks
	}
	for b := range l.blocks {
		b := &l.blocks[b]
		if b.cpu < d.cpu || b.mb < d.mb {
			continue
		}
		some := false
		for _, id := range b.ids[:b.n] {
			n, k := on.tasks(id), &members[id]
			if at != none && equal > 0 && !slices.Equal(k.key[:equal], members[at].key[:equal]) {
				return at, tasks
			}
			if n >= tasks && some || !k.fits(d) {
				continue
			}
			some = true
			if n < tasks {
				if at, tasks = id, n; n <= least {
					return at, tasks
				}
			}
		}
		if !some {
			b.lower(members)
		}
	}
	return at, tasks
}

// at is the i-th member.
func (l *list) at(i int) int32 {
	for b := range l.blocks {
		b := &l.blocks[b]
		if i < int(b.n) {
			return b.ids[i]
		}
		i -= int(b.n)
	}
	panic("scheduler: no such member")
}
