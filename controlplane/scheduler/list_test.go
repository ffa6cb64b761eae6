package scheduler

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// byKey orders members by the first of their key.
type byKey []candidate

func (m byKey) less(a, b int32) bool { return m.compare(a, b) < 0 }
func (m byKey) compare(a, b int32) int {
	return cmp.Or(cmp.Compare(m[a].key[0], m[b].key[0]), cmp.Compare(a, b))
}

// TestListIsInOrder fills and empties a list of many blocks at random, and holds it against a sorted slice.
func TestListIsInOrder(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const members = 2000
	m := make(byKey, members)
	on := make(presence, members/2)
	var l list
	var want []int32
	for step := range 20000 {
		id := int32(r.IntN(members))
		k := &m[id]
		grow := step/5000%2 == 0 // for a while it grows, then it shrinks
		switch at, in := slices.BinarySearchFunc(want, id, m.compare); {
		case k.listed && (!grow || r.IntN(4) == 0):
			if !in {
				t.Fatalf("step %d: %d is not where its key says", step, id)
			}
			l.remove(m, id)
			want = slices.Delete(want, at, at+1)
			k.listed = false
		case !k.listed && (grow || r.IntN(4) == 0):
			*k = candidate{key: [maxKey]int64{r.Int64N(50)}, cpu: r.Int64N(100), mb: r.Int64N(100), listed: true}
			if int(id) < len(on) {
				on[id] = r.Int32N(4)
			}
			l.insert(m, id, k)
			at, _ := slices.BinarySearchFunc(want, id, m.compare)
			want = slices.Insert(want, at, id)
		}
		if l.size != len(want) {
			t.Fatalf("step %d: size is %d, want %d", step, l.size, len(want))
		}
		if step%50 > 0 {
			continue
		}
		d := demand{r.Int64N(110), r.Int64N(110)}
		first, least, fewest := int32(none), int32(many), int32(none)
		for _, id := range want {
			if !m[id].fits(d) {
				continue
			}
			if first == none {
				first = id
			}
			if n := on.tasks(id); n < least {
				least, fewest = n, id
			}
		}
		if got := l.first(m, d); got != first {
			t.Fatalf("step %d: first is %d, want %d", step, got, first)
		}
		if got, n := l.fewest(m, d, on, 0, many-1, 0); got != fewest || n != least {
			t.Fatalf("step %d: fewest is %d with %d, want %d with %d", step, got, n, fewest, least)
		}
		i := 0
		for _, b := range l.blocks {
			if b.n == 0 {
				t.Fatalf("step %d: an empty block", step)
			}
			for _, id := range b.ids[:b.n] {
				if want[i] != id || l.at(i) != id || m[id].cpu > b.cpu || m[id].mb > b.mb {
					t.Fatalf("step %d: %d is %d of the list, want %d; in a block of at most %d, %d", step, id, i, want[i], b.cpu, b.mb)
				}
				i++
			}
		}
	}
	if len(l.blocks) > 2*len(want)/(blockSize/4)+1 {
		t.Errorf("%d members are in %d blocks", len(want), len(l.blocks))
	}
}
