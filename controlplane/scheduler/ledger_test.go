package scheduler

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestIncrementalEqualsScan drives a ledger with random operations and holds every placement against a scan of all nodes:
// nothing may be placed where it does not fit, nothing better may be there, and "not placed" must be true.
func TestIncrementalEqualsScan(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	l := New(seed)
	zones := []string{"a", "b", "c"}
	setNode := func(i int) {
		id := fmt.Sprintf("n%d", i)
		l.SetNode(Node{ID: id, CPU: uint32(1024 * (1 + r.IntN(4))), Memory: uint32(512 * (1 + r.IntN(8))), GPUs: []string{"g0", "g1", "g2"}[:r.IntN(4)], Connected: r.IntN(20) > 0,
			Attributes: map[string]string{zoneAttribute: zones[r.IntN(3)], "disk": []string{"ssd", "hdd"}[r.IntN(2)]}})
		l.SetInstance("default", Instance{ID: id, Node: id, Active: r.IntN(20) > 0})
	}
	for i := range 40 {
		setNode(i)
	}
	var specs []Spec
	strategies := [][]Strategy{
		nil, {{"spread", "attribute:" + zoneAttribute}}, {{"spread", "attribute:" + zoneAttribute}, {"spread", "host"}},
		{{"binpack", "memory"}}, {{"spread", "attribute:disk"}, {"spread", "attribute:" + zoneAttribute}, {"binpack", "cpu"}},
		{{"spread", "instanceId"}, {"spread", "attribute:disk"}},
	}
	for i, s := range strategies {
		for j, c := range [][]Constraint{nil, {{"distinctInstance", ""}}, {{"memberOf", "attribute:disk == ssd and runningTasksCount < 3"}}, {{"memberOf", "task:group != group-1"}}} {
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
	var live []string
	for step := range 6000 {
		switch p := r.IntN(100); {
		case p < 3:
			setNode(r.IntN(45))
		case p < 4:
			l.RemoveInstance("default", fmt.Sprintf("n%d", r.IntN(45)))
		case p < 5:
			l.RemoveNode(fmt.Sprintf("n%d", r.IntN(45)))
		case p < 45 && len(live) > 0:
			i := r.IntN(len(live))
			l.Remove(live[i])
			live[i] = live[len(live)-1]
			live = live[:len(live)-1]
		case p < 48:
			before := fmt.Sprint(ledgerState(l))
			mark := l.Mark()
			for i := range r.IntN(20) {
				c, _ := l.Class(specs[r.IntN(len(specs))])
				l.Place(c, fmt.Sprintf("overlay-%d", i))
				if len(live) > 0 && i%3 == 0 {
					l.Remove(live[r.IntN(len(live))])
				}
			}
			l.Rollback(mark)
			if after := fmt.Sprint(ledgerState(l)); after != before {
				t.Fatalf("step %d: rollback left\n%s\nwas\n%s", step, after, before)
			}
		default:
			c, err := l.Class(specs[r.IntN(len(specs))])
			if err != nil {
				t.Fatal(err)
			}
			fresh := New(0)
			*fresh = *l
			fresh.classes = map[string]*Class{} // a class that has seen nothing is a scan
			scan, err := fresh.Class(c.spec)
			if err != nil {
				t.Fatal(err)
			}
			want, wantOK := naive(scan)
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
			}
		}
	}
}

// naive is placement as one would write it without heaps: score every member, keep the least.
func naive(c *Class) (string, bool) {
	l, bestAt := c.ledger, -1
	counts := make([]map[string]int64, len(c.spreads))
	for i, attribute := range c.spreads {
		counts[i] = map[string]int64{}
		for _, m := range c.pool.members {
			if !m.gone {
				v, _ := l.attribute(m, attribute)
				counts[i][v] += int64(l.nodes[m.node].groups[c.group])
			}
		}
	}
	var best score
	for at, m := range c.pool.members {
		if m.gone || c.staticReason(m) != nil || c.dynamicReason(m) != nil {
			continue
		}
		s := c.score(m)
		for i, d := range c.order {
			if d.kind == byAttribute {
				v, _ := l.attribute(m, c.spreads[d.spread])
				s[i] = counts[d.spread][v]
			}
		}
		less := bestAt < 0
		for i := range s {
			if bestAt >= 0 && s[i] != best[i] {
				less = s[i] < best[i]
				break
			}
		}
		if less {
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
		for g, count := range n.groups {
			groups[g.name] = count
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

// BenchmarkPlace places tasks of many services with spread and constraints on 5,000 nodes in three zones.
func BenchmarkPlace(b *testing.B) {
	const nodes, services = 5000, 50
	spread := []Strategy{{"spread", "attribute:" + zoneAttribute}, {"binpack", "memory"}}
	constraints := []Constraint{{"memberOf", "attribute:disk == ssd"}, {"memberOf", "attribute:ecs.instance-type =~ m5.*"}}
	for _, bench := range []struct {
		name  string
		batch int // tasks of one service in a row
	}{{"Batches", 100}, {"Interleaved", 1}} {
		b.Run(bench.name, func(b *testing.B) {
			l := New(1)
			for i := range nodes {
				id := fmt.Sprintf("n%d", i)
				l.SetNode(Node{ID: id, CPU: 1 << 20, Memory: 1 << 20, Connected: true, Attributes: map[string]string{
					zoneAttribute: []string{"a", "b", "c"}[i%3], "disk": []string{"ssd", "ssd", "ssd", "hdd"}[i%4], "ecs.instance-type": "m5.large"}})
				l.SetInstance("default", Instance{ID: id, Node: id, Active: true})
			}
			b.ResetTimer()
			for i := range b.N {
				c, err := l.Class(Spec{Pool: "default", Group: fmt.Sprint(i / bench.batch % services), CPU: 16, Memory: 16, Strategies: spread, Constraints: constraints})
				if err != nil {
					b.Fatal(err)
				}
				if _, ok := l.Place(c, fmt.Sprint(i)); !ok {
					b.Fatal("not placed")
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "placements/s")
		})
	}
}
