package orchestrator

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane"
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
		hosts := map[[2]int]*host{}
		var left []*member
		for i := range 1 + r.IntN(60) {
			running := r.IntN(4) > 0
			where := [2]int{r.IntN(3), r.IntN(4)}
			if hosts[where] == nil {
				hosts[where] = &host{at: len(hosts) + 1, zone: where[0]}
			}
			left = append(left, &member{
				task: &controlplane.Task{Id: fmt.Sprint(i), Created: &timestamppb.Timestamp{Nanos: int32(r.IntN(10))}}, running: running, healthy: running && r.IntN(4) > 0, host: hosts[where],
			})
		}
		n := r.IntN(len(left) + 2)
		got := slices.Collect(victims(left, n))
		if len(got) != min(n, len(left)) {
			t.Fatalf("seed %d: %d victims, not %d", seed, len(got), min(n, len(left)))
		}
		for _, m := range got {
			zones, nodes := map[int]int{}, map[*host]int{}
			for _, l := range left {
				zones[l.host.zone]++
				nodes[l.host]++
			}
			want := slices.MinFunc(left, func(a, b *member) int {
				return cmp.Or(cmp.Compare(flag(a.running), flag(b.running)), cmp.Compare(flag(a.healthy), flag(b.healthy)),
					cmp.Compare(zones[b.host.zone], zones[a.host.zone]), cmp.Compare(nodes[b.host], nodes[a.host]), cmp.Compare(b.created(), a.created()), cmp.Compare(a.id(), b.id()))
			})
			if m != want {
				t.Fatalf("seed %d: %+v was chosen, not %+v", seed, m, want)
			}
			left = slices.DeleteFunc(left, func(l *member) bool { return l == m })
		}
	}
}
