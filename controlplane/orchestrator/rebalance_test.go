package orchestrator

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// TestMoves: of any distribution, with any room, each move is from a zone that has two more at least, and where every zone has room and no task is protected the
// end is a balance, by as few moves as it takes.
func TestMoves(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for round := range 500 {
		zones := []string{"a", "b", "c", "d"}[:2+r.IntN(3)]
		var seats []seat
		free := map[string]int{}
		limited, protected := r.IntN(3) == 0, r.IntN(3) == 0
		for i := range r.IntN(20) {
			seats = append(seats, seat{id: fmt.Sprint(i), zone: zones[r.IntN(len(zones))], healthy: true, protected: protected && r.IntN(2) == 0})
		}
		for _, z := range zones {
			free[z] = r.IntN(3)
		}
		room := func(z string) bool { free[z]--; return !limited || free[z] >= 0 }
		to := move(seats, zones, room, 100)
		has := inZones(seats, zones)
		least := 0
		for _, n := range has {
			least += max(0, n-(len(seats)+len(zones)-1)/len(zones))
		}
		for _, z := range to {
			has[z]++
		}
		// The tasks that leave are those that leave chooses once the new ones are there.
		all := slices.Clone(seats)
		for i, z := range to {
			all = append(all, seat{id: fmt.Sprint("new", i), zone: z, host: int(z[0]), healthy: true, created: 1})
		}
		for _, id := range leave(all, len(to)) {
			i := slices.IndexFunc(all, func(one seat) bool { return one.id == id })
			if strings.HasPrefix(id, "new") {
				t.Fatalf("seed %d round %d: %v leads to %v, of which one leaves again", seed, round, seats, to)
			}
			has[all[i].zone]--
		}
		values := slices.Sorted(maps.Values(has))
		if !limited && !protected && (values[len(values)-1]-values[0] > 1 || len(to) > least+len(zones)) {
			t.Fatalf("seed %d round %d: %v with %v makes %v", seed, round, seats, to, has)
		}
	}
}

// zoned makes hosts with room in zones: "a1" is one in zone a.
func (w *world) zoned(names ...string) {
	for _, n := range names {
		w.command([]string{"node", n, "zone=" + n[:1]}, nil)
		w.host(n, func(n *controlplane.Node) { n.Resources = &agentapi.NodeResources{CpuUnits: 8192, MemoryMib: 8192} })
	}
}

// balancing has the service rebalance, or no more.
func (w *world) balancing(value string) {
	w.change(func(tx *state.Tx) error {
		s, _ := controlplane.Services.Get(tx, scope.Key("default", "web"))
		s = proto.CloneOf(s)
		s.AvailabilityZoneRebalancing = value
		controlplane.Services.Put(tx, s)
		return nil
	})
	w.settle()
}

// spread is how many tasks that are wanted are in each zone, and how many of them run.
func (w *world) spread() string {
	has := map[string][2]int{}
	for s := range controlplane.LiveTasksByService.Scan(w.store.View(), scope.Key("default", "web")) {
		if s.Desired == agentapi.TaskState_RUNNING {
			n := has[s.Node[:min(1, len(s.Node))]]
			if n[0]++; s.Observed == agentapi.TaskState_RUNNING {
				n[1]++
			}
			has[s.Node[:min(1, len(s.Node))]] = n
		}
	}
	var list []string
	for _, zone := range slices.Sorted(maps.Keys(has)) {
		list = append(list, fmt.Sprintf("%s %d/%d", zone, has[zone][1], has[zone][0]))
	}
	return strings.Join(list, ", ")
}

func (w *world) wantSpread(when, want string) {
	w.t.Helper()
	if got := w.spread(); got != want {
		w.t.Errorf("%s: %s, not %s", when, got, want)
	}
}

// run has what is placed run, and what is drained leave.
func (w *world) run() {
	w.command([]string{"report", "RUNNING", "all"}, nil)
	w.settle()
}

// unbalanced is a service of four tasks that are all in zone a, while zone b has hosts as well.
func unbalanced(t *testing.T, more ...string) *world {
	w := newWorld(t)
	w.zoned("a1", "a2")
	w.command(append([]string{"create", "desired=4"}, more...), nil)
	w.settle()
	w.run()
	w.balancing("ENABLED")
	w.wantSpread("with hosts in one zone", "a 4/4")
	return w
}

func (w *world) heard(t *testing.T, want ...string) {
	t.Helper()
	var out strings.Builder
	w.said(&out)
	at := out.String()
	for _, m := range want {
		_, rest, ok := strings.Cut(at, m)
		if !ok {
			t.Fatalf("%q is not said, or not in this order:\n%s", m, out.String())
		}
		at = rest
	}
}

// TestRebalancing: new tasks are healthy before others stop; then it is over.
func TestRebalancing(t *testing.T) {
	w := unbalanced(t)
	w.zoned("b1")
	w.settle()
	w.wantSpread("when zone b has a host", "a 4/4, b 0/2")
	w.settle()
	w.wantSpread("while they start", "a 4/4, b 0/2")
	w.run()
	w.command([]string{"drained"}, nil)
	w.settle()
	w.wantSpread("once they run", "a 2/2, b 2/2")
	for s := range controlplane.LiveTasksByService.Scan(w.store.View(), scope.Key("default", "web")) {
		if s.Desired > agentapi.TaskState_RUNNING {
			w.command([]string{"report", "STOPPED", w.name(s.Id)}, nil)
		}
	}
	w.settle()
	w.heard(t, "(service web) is not AZ balanced with 4 tasks in a, 0 tasks in b. AZ Rebalancing in progress.",
		"(service web) has started 2 tasks in b to AZ Rebalance: (task t5) (task t6).",
		"(service web) has stopped 2 running tasks in a due to AZ rebalancing: (task t",
		"(service web) is AZ balanced with 2 tasks in a, 2 tasks in b.", "(service web) has reached a steady state.")
	before := w.store.Revision()
	w.clock.Advance(time.Hour)
	w.settle()
	if w.store.Revision() != before {
		t.Error("something goes on")
	}
	// What has been moved is scaled in as any other.
	w.command([]string{"update", "desired=2"}, nil)
	w.settle()
	w.wantSpread("when two are wanted", "a 1/1, b 1/1")
}

// TestRebalancingStaysBelowMaximumPercent, and so goes on task by task.
func TestRebalancingStaysBelowMaximumPercent(t *testing.T) {
	w := unbalanced(t, "max=125")
	w.zoned("b1")
	w.settle()
	w.wantSpread("at first", "a 4/4, b 0/1")
	for range 4 {
		w.run()
		for s := range controlplane.LiveTasksByService.Scan(w.store.View(), scope.Key("default", "web")) {
			if s.Desired > agentapi.TaskState_RUNNING {
				w.command([]string{"report", "STOPPED", w.name(s.Id)}, nil)
			}
		}
		w.settle()
	}
	w.wantSpread("in the end", "a 2/2, b 2/2")
}

// TestRebalancingStops when it is disabled, for a deployment, and for another count: what had not begun to serve goes first.
func TestRebalancingStops(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(w *world)
		want string // "": it depends on the hosts
	}{
		"disabled":    {func(w *world) { w.balancing("DISABLED") }, "a 4/4"},
		"scaled in":   {func(w *world) { w.command([]string{"update", "desired=3"}, nil); w.settle() }, "a 3/3"},
		"a task ends": {func(w *world) { w.command([]string{"report", "STOPPED", "t1"}, nil); w.settle() }, "a 3/3, b 0/2"}, // it goes on, for there are enough
		"a deployment": {func(w *world) {
			w.zoned("a3")
			w.command([]string{"update", "definition=web:2"}, nil)
			w.settle()
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := unbalanced(t)
			w.zoned("b1")
			w.settle()
			w.wantSpread("at first", "a 4/4, b 0/2")
			c.do(w)
			if got := w.spread(); c.want != "" && got != c.want {
				t.Errorf("then %s, not %s", got, c.want)
			}
			for range 6 {
				w.run()
				for s := range controlplane.LiveTasksByService.Scan(w.store.View(), scope.Key("default", "web")) {
					if s.Desired > agentapi.TaskState_RUNNING {
						w.command([]string{"report", "STOPPED", w.name(s.Id)}, nil)
					}
				}
				w.settle()
			}
			service, _ := controlplane.Services.Get(w.store.View(), scope.Key("default", "web"))
			n := 0
			for s := range controlplane.LiveTasksByService.Scan(w.store.View(), scope.Key("default", "web")) {
				if s.Observed == agentapi.TaskState_RUNNING && s.Desired == agentapi.TaskState_RUNNING {
					n++
				}
			}
			if n != int(service.DesiredCount) {
				t.Errorf("in the end %d tasks run: %s", n, w.spread())
			}
			d, _ := controlplane.Deployments.Get(w.store.View(), scope.Key("default", "web", service.PrimaryDeployment))
			if d.Rebalancing != 0 {
				t.Error("it is still under way")
			}
		})
	}
}

// TestNothingToRebalance: where it is not asked for, where hosts have no room or may not have the task, and where all tasks are protected.
func TestNothingToRebalance(t *testing.T) {
	for name, prepare := range map[string]func(w *world){
		"disabled":  func(w *world) { w.balancing("DISABLED") },
		"full":      func(w *world) { w.host("b1", func(n *controlplane.Node) { n.Resources.MemoryMib = 100 }) },
		"protected": func(w *world) { w.command([]string{"protect", "1h", "all"}, nil) },
		"draining":  func(w *world) { w.command([]string{"drain", "b1"}, nil) },
		"away":      func(w *world) { w.host("b1", func(n *controlplane.Node) { n.Status = "AWAY" }) },
		"constraint": func(w *world) {
			w.change(func(tx *state.Tx) error {
				s, _ := controlplane.Services.Get(tx, scope.Key("default", "web"))
				s = proto.CloneOf(s)
				s.PlacementConstraintsJson = `[{"type":"memberOf","expression":"attribute:tier == edge"}]`
				controlplane.Services.Put(tx, s)
				return nil
			})
			for _, n := range []string{"a1", "a2"} {
				w.host(n, func(n *controlplane.Node) { n.Attributes["tier"] = "edge" })
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := unbalanced(t)
			w.balancing("DISABLED")
			w.zoned("b1")
			prepare(w)
			if name != "disabled" {
				w.balancing("ENABLED")
			}
			w.clock.Advance(rebalanceAgain)
			w.settle()
			w.wantSpread("then", "a 4/4")
		})
	}
}
