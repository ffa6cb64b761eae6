package orchestrator

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestVictimsAreChosenAsByLookingAtAll holds every choice against one that looks at each task that is left.
func TestVictimsAreChosenAsByLookingAtAll(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	flag := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	for range 200 {
		var left []member
		for i := range 1 + r.IntN(60) {
			running := r.IntN(4) > 0
			zone := r.IntN(3)
			left = append(left, member{
				id: fmt.Sprint(i), running: running, healthy: running && r.IntN(4) > 0, zone: fmt.Sprint(zone), node: fmt.Sprint(zone, r.IntN(4)), created: int64(r.IntN(10)),
			})
		}
		n := r.IntN(len(left) + 2)
		got := slices.Collect(victims(left, n))
		if len(got) != min(n, len(left)) {
			t.Fatalf("seed %d: %d victims, not %d", seed, len(got), min(n, len(left)))
		}
		for _, m := range got {
			zones, nodes := map[string]int{}, map[string]int{}
			for _, l := range left {
				zones[l.zone]++
				nodes[l.node]++
			}
			want := slices.MinFunc(left, func(a, b member) int {
				return cmp.Or(cmp.Compare(flag(a.running), flag(b.running)), cmp.Compare(flag(a.healthy), flag(b.healthy)),
					cmp.Compare(zones[b.zone], zones[a.zone]), cmp.Compare(nodes[b.node], nodes[a.node]), cmp.Compare(b.created, a.created), cmp.Compare(a.id, b.id))
			})
			if m != want {
				t.Fatalf("seed %d: %+v was chosen, not %+v", seed, m, want)
			}
			left = slices.DeleteFunc(left, func(l member) bool { return l.id == m.id })
		}
	}
}
