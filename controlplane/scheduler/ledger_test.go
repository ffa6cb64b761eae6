package scheduler

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestIncrementalEqualsScan drives a ledger with random operations and holds every placement against a scan of all nodes:
// nothing may be placed where it does not fit, nothing better may be there, and "not placed" must be true.
func TestIncrementalEqualsScan(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	strategies := [][]Strategy{
		nil, {{"spread", "attribute:" + zoneAttribute}}, {{"spread", "attribute:" + zoneAttribute}, {"spread", "host"}},
		{{"binpack", "memory"}}, {{"spread", "attribute:disk"}, {"spread", "attribute:" + zoneAttribute}, {"binpack", "cpu"}},
		{{"spread", "instanceId"}, {"spread", "attribute:disk"}},
	}
	constraints := [][]Constraint{nil, {{"distinctInstance", ""}}, {{"memberOf", "attribute:disk == ssd and runningTasksCount < 3"}}, {{"memberOf", "task:group != group-1"}}}
	var specs []Spec
	for i, s := range strategies {
		for j, c := range constraints {
			spec := Spec{Pool: "default", Group: fmt.Sprintf("group-%d", (i+j)%4), CPU: uint32(64 * r.IntN(4)), Memory: uint32(64 * (1 + r.IntN(4))), Strategies: s, Constraints: c}
			if i%2 == 1 {
				spec.Ports = []Port{{uint32(8000 + j), "tcp"}}
			}
			if j == 0 {
				spec.GPUs = uint32(1 + i%2)
			}
			specs = append(specs, spec)
		}
	}
	t.Run("FewGroups", func(t *testing.T) { incrementalEqualsScan(t, r, 40, 6000, specs) })

	// Many groups of many sizes, alike in all else: what they share and what they have of their own must not be mixed up.
	specs = nil
	strategies = append(strategies, []Strategy{{"binpack", "memory"}, {"spread", "host"}}, []Strategy{{"spread", "host"}, {"binpack", "cpu"}, {"spread", "host"}, {"binpack", "cpu"}})
	for i := range 120 {
		spec := Spec{Pool: []string{"default", "default", "other"}[r.IntN(3)], Group: fmt.Sprintf("group-%d", i%60), CPU: uint32(16 * r.IntN(12)), Memory: uint32(16 * r.IntN(16)), Strategies: strategies[r.IntN(len(strategies))]}
		if i%3 == 0 {
			spec.Constraints = constraints[r.IntN(len(constraints))]
		}
		specs = append(specs, spec)
	}
	t.Run("ManyGroups", func(t *testing.T) { incrementalEqualsScan(t, r, 150, 12000, specs) })
}

func incrementalEqualsScan(t *testing.T, r *rand.Rand, nodes, steps int, specs []Spec) {
	l := New(r.Uint64())
	zones := []string{"a", "b", "c"}
	setNode := func(i int) {
		id := fmt.Sprintf("n%d", i)
		l.SetNode(Node{ID: id, CPU: uint32(1024 * (1 + r.IntN(4))), Memory: uint32(512 * (1 + r.IntN(8))), GPUs: []string{"g0", "g1", "g2"}[:r.IntN(4)], Connected: r.IntN(20) > 0,
			Attributes: map[string]string{zoneAttribute: zones[r.IntN(3)], "disk": []string{"ssd", "hdd"}[r.IntN(2)]}})
		l.SetInstance("default", Instance{ID: id, Node: id, Active: r.IntN(20) > 0})
		if i%3 == 0 {
			l.SetInstance("other", Instance{ID: "other-" + id, Node: id, Active: true, Attributes: map[string]string{"disk": "ssd"}})
		}
	}
	for i := range nodes {
		setNode(i)
	}
	nodes += nodes / 8 // some that are not there yet
	var live []string
	for step := range steps {
		switch p := r.IntN(100); {
		case p < 3:
			setNode(r.IntN(nodes))
		case p < 4:
			l.RemoveInstance([]string{"default", "other"}[r.IntN(2)], fmt.Sprintf("n%d", r.IntN(nodes)))
		case p < 5:
			l.RemoveNode(fmt.Sprintf("n%d", r.IntN(nodes)))
		case p < 6:
			switch r.IntN(60) {
			case 0: // so many leave that the rest moves up
				for i := range nodes {
					if r.IntN(6) > 0 {
						l.RemoveInstance("default", fmt.Sprintf("n%d", i))
					}
				}
			case 1:
				l.evictClasses()
			case 2:
				l.evictRosters()
			case 3:
				for i := range nodes {
					setNode(i)
				}
			}
		case p < 10 && len(live) > 0: // it runs, or does not yet
			id := live[r.IntN(len(live))]
			if on := l.nodes[l.tasks[id].node].ID; !l.Keep(on, id, r.IntN(2) > 0) || l.Keep(on+"x", id, true) {
				t.Fatalf("step %d: %s is on %s", step, id, on)
			}
		case p < 45 && len(live) > 0:
			i := r.IntN(len(live))
			l.Remove(live[i])
			live[i] = live[len(live)-1]
			live = live[:len(live)-1]
		case p < 48:
			before := ledgerState(l)
			mark := l.Mark()
			for i := range r.IntN(20) {
				c, _ := l.Class(specs[r.IntN(len(specs))])
				l.Place(c, fmt.Sprintf("overlay-%d", i))
				if len(live) > 0 && i%3 == 0 {
					l.Remove(live[r.IntN(len(live))])
				}
			}
			l.Rollback(mark)
			for id, after := range ledgerState(l) {
				if after != before[id] {
					t.Fatalf("step %d: rollback left %s with\n%s\nit was\n%s", step, id, after, before[id])
				}
			}
		default:
			c, err := l.Class(specs[r.IntN(len(specs))])
			if err != nil {
				t.Fatal(err)
			}
			want, wantOK := naive(c)
			if room := c.Room(); room != wantOK {
				t.Fatalf("step %d: room is %v, the scan says %v; spec %+v", step, room, wantOK, c.spec)
			}
			id := fmt.Sprintf("t%d", step)
			got, ok := l.Place(c, id)
			if len(got.GPUs) != int(c.spec.GPUs) && ok {
				t.Fatalf("step %d: %d GPUs were asked for, %v given", step, c.spec.GPUs, got.GPUs)
			}
			if ok != wantOK || ok && got.Node != want {
				t.Fatalf("step %d: placed on %q (%v), the scan says %q (%v); spec %+v", step, got.Node, ok, want, wantOK, c.spec)
			}
			if ok {
				live = append(live, id)
			} else if all := l.Explain(c); len(all) != c.Members() {
				t.Fatalf("step %d: not placed, but only %d of %d members say why", step, len(all), c.Members())
			} else if nearest := l.Nearest(c); len(all) > 0 && (nearest.Instance != all[0][0].Instance || nearest.words() != all[0][0].words() || !l.Still(c, nearest)) {
				t.Fatalf("step %d: nearest is %v, explained is %v", step, nearest, all[0])
			}
		}
	}
}

// naive is placement as one would write it without lists: score every member, keep the least.
func naive(c *Class) (string, bool) {
	l, bestAt := c.ledger, -1
	tasks := func(m *member) int64 { return int64(l.nodes[m.node].tasks(c.group)) }
	counts := make([]map[string]int64, len(c.spreads))
	for i, attribute := range c.spreads {
		counts[i] = map[string]int64{}
		for _, m := range c.pool.members {
			if !m.gone {
				v, _ := l.attribute(m, attribute)
				counts[i][v] += tasks(m)
			}
		}
	}
	var best []int64
	for at, m := range c.pool.members {
		if m.gone || !c.suits(m, static|dynamic) {
			continue
		}
		n := l.nodes[m.node]
		var s []int64
		for _, d := range c.order {
			switch d.kind {
			case byAttribute:
				v, _ := l.attribute(m, c.spreads[d.at])
				s = append(s, counts[d.at][v])
			case byHost:
				s = append(s, tasks(m))
			case byFreeCPU:
				s = append(s, n.freeCPU)
			case byFreeMemory:
				s = append(s, n.freeMB)
			case byTasks:
				s = append(s, int64(n.running+n.pending))
			}
		}
		if bestAt < 0 || slices.Compare(s, best) < 0 {
			best, bestAt = s, at
		}
	}
	if bestAt < 0 {
		return "", false
	}
	return c.pool.members[bestAt].Node, true
}

// ledgerState is what rollback has to restore.
func ledgerState(l *Ledger) map[string]string {
	state := map[string]string{}
	for _, n := range l.nodes {
		ports := 0
		for _, p := range n.ports {
			ports += int(p)
		}
		groups := map[string]int32{}
		for _, s := range n.groups {
			groups[l.groups[s.group].name] += s.tasks
		}
		state[n.ID] = fmt.Sprint(n.freeCPU, n.freeMB, len(n.ports), ports, len(n.gpus), n.running, n.pending, groups)
	}
	return state
}

// TestRandomIsFair says that random chooses all hosts about equally often, whatever was chosen before.
func TestRandomIsFair(t *testing.T) {
	l := New(7)
	for i := range 10 {
		id := fmt.Sprintf("n%d", i)
		l.SetNode(Node{ID: id, CPU: 1 << 30, Memory: 1 << 30, Connected: true, Attributes: map[string]string{zoneAttribute: []string{"a", "b", "b"}[i%3]}})
		l.SetInstance("default", Instance{ID: id, Node: id, Active: true})
	}
	c, err := l.Class(Spec{Pool: "default", Group: "g", CPU: 1, Memory: 1, Strategies: []Strategy{{"random", ""}, {"spread", "attribute:" + zoneAttribute}}})
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for i := range 10000 {
		p, ok := l.Place(c, fmt.Sprint(i))
		if !ok {
			t.Fatal("not placed")
		}
		count[p.Node]++
	}
	for id, n := range count {
		if len(count) != 10 || n < 850 || n > 1150 { // five standard deviations
			t.Errorf("%s was chosen %d of 10000 times", id, n)
		}
	}
}

// TestRandomIsFairAmongFew says so where few hosts have room.
func TestRandomIsFairAmongFew(t *testing.T) {
	l := New(7)
	for i := range 300 {
		id, cpu := fmt.Sprintf("n%d", i), uint32(1)
		if i%100 == 50 {
			cpu = 1 << 20
		}
		l.SetNode(Node{ID: id, CPU: cpu, Memory: 1 << 30, Connected: true, Attributes: map[string]string{zoneAttribute: []string{"a", "b"}[i%2]}})
		l.SetInstance("default", Instance{ID: id, Node: id, Active: true})
	}
	count := map[string]int{}
	for i := range 3000 {
		c, err := l.Class(Spec{Pool: "default", Group: fmt.Sprint(i), CPU: 2, Strategies: []Strategy{{"spread", "attribute:" + zoneAttribute}, {"random", ""}}})
		if err != nil {
			t.Fatal(err)
		}
		p, ok := l.Place(c, fmt.Sprint(i))
		if !ok {
			t.Fatal("not placed")
		}
		count[p.Node]++
	}
	for id, n := range count {
		if len(count) != 3 || n < 870 || n > 1130 { // five standard deviations
			t.Errorf("%s was chosen %d of 3000 times", id, n)
		}
	}
}

// BenchmarkPlace places tasks of many services with spread and constraints on nodes in three zones. Beside the time it reports what is
// allocated for a placement, and the memory that the ledger has at the end beyond what nodes and tasks take of it.
func BenchmarkPlace(b *testing.B) {
	zone, binpack := Strategy{"spread", "attribute:" + zoneAttribute}, Strategy{"binpack", "memory"}
	for _, bench := range []struct {
		name                   string
		nodes, services, batch int // batch: tasks of one service in a row
		strategies             []Strategy
		sizes                  uint32 // how many sizes of tasks there are
		full                   int    // every so manieth node has no room
	}{
		{"Batches", 5000, 50, 100, []Strategy{zone, binpack}, 1, 0},
		{"Interleaved", 5000, 50, 1, []Strategy{zone, binpack}, 1, 0},
		{"Nodes=1000/Groups=10", 1000, 10, 1, []Strategy{zone, binpack}, 1, 0},
		{"Nodes=10000/Groups=100", 10000, 100, 1, []Strategy{zone, binpack}, 1, 0},
		{"Zones/Nodes=1000/Groups=10", 1000, 10, 1, []Strategy{zone}, 1, 0},
		{"Zones/Nodes=10000/Groups=100", 10000, 100, 1, []Strategy{zone}, 1, 0},
		{"Zones/Nodes=10000/Groups=100/Batches", 10000, 100, 100, []Strategy{zone}, 1, 0},
		{"Hosts/Nodes=1000/Groups=10", 1000, 10, 1, []Strategy{zone, {"spread", "instanceId"}}, 1, 0},
		{"Hosts/Nodes=10000/Groups=100", 10000, 100, 1, []Strategy{zone, {"spread", "instanceId"}}, 1, 0},
		{"Hosts/Nodes=10000/Groups=10", 10000, 10, 1, []Strategy{zone, {"spread", "instanceId"}}, 1, 0},
		{"Sizes/Nodes=10000/Groups=100", 10000, 100, 1, []Strategy{zone, binpack}, 100, 0},
		{"HostsSomeFull/Nodes=1000/Groups=10", 1000, 10, 1, []Strategy{zone, {"spread", "instanceId"}}, 1, 10},
		{"HostsSomeFull/Nodes=10000/Groups=100", 10000, 100, 1, []Strategy{zone, {"spread", "instanceId"}}, 1, 10},
	} {
		b.Run(bench.name, func(b *testing.B) {
			l := New(1)
			for i := range bench.nodes {
				id := fmt.Sprintf("n%d", i)
				memory := uint32(1 << 20)
				if bench.full > 0 && i%bench.full == 0 {
					memory = 1
				}
				l.SetNode(Node{ID: id, CPU: 1 << 20, Memory: memory, Connected: true, Attributes: map[string]string{
					zoneAttribute: []string{"a", "b", "c"}[i%3], "disk": []string{"ssd", "ssd", "ssd", "hdd"}[i%4], "ecs.instance-type": "m5.large"}})
				l.SetInstance("default", Instance{ID: id, Node: id, Active: true})
			}
			constraints := []Constraint{{"memberOf", "attribute:disk == ssd"}, {"memberOf", "attribute:ecs.instance-type =~ m5.*"}}
			before := live()
			b.ReportAllocs()
			b.ResetTimer()
			began := cpu()
			for i := range b.N {
				g := i / bench.batch % bench.services
				c, err := l.Class(Spec{Pool: "default", Group: fmt.Sprint(g), CPU: 16, Memory: 16 + uint32(g)%bench.sizes, Strategies: bench.strategies, Constraints: constraints})
				if err != nil {
					b.Fatal(err)
				}
				if _, ok := l.Place(c, fmt.Sprint(i)); !ok {
					b.Fatal("not placed")
				}
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N)/(cpu()-began).Seconds(), "placements/CPU-s")
			b.ReportMetric(float64(live()-before)/(1<<20), "live-MB")
			runtime.KeepAlive(l)
		})
	}
}

// cpu is what this process has had, with the collector's.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// live is the bytes of the heap that are in use.
func live() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
