package scheduler

import "slices"

// Placement is where a task goes.
type Placement struct {
	Node     string
	Instance string
	GPUs     []string // those that the task is to have; as many as it asks for
}

// Place chooses a node for one task of the class and takes what it needs. False: no node of the pool can take it; Explain
// says why.
func (l *Ledger) Place(c *Class, taskID string) (Placement, bool) {
	c.refresh()
	at, ok := c.best()
	if !ok {
		return Placement{}, false
	}
	m := c.pool.members[at]
	s := &c.spec
	var gpus []string
	if s.GPUs > 0 {
		gpus = slices.Clone(l.nodes[m.node].freeGPUs()[:s.GPUs])
	}
	l.Add(m.Node, Task{ID: taskID, Pool: s.Pool, Group: s.Group, CPU: s.CPU, Memory: s.Memory, GPUs: gpus, Ports: s.Ports, Pending: true})
	return Placement{m.Node, m.ID, gpus}, true
}

// best is the best member of the best leaf.
func (c *Class) best() (int32, bool) {
	var chosen *leaf
	equal := 0 // candidates of the leaves that are as good as chosen, where chance decides
	for _, f := range c.leaves {
		if len(f.heap) == 0 {
			continue
		}
		order := -1
		if chosen != nil {
			order = c.compare(f, chosen)
		}
		switch {
		case order < 0:
			chosen, equal = f, len(f.heap)
		case order == 0 && c.chanceDecides():
			equal += len(f.heap)
			if c.ledger.rand.IntN(equal) < len(f.heap) {
				chosen = f
			}
		}
	}
	if chosen == nil {
		return 0, false
	}
	if c.chanceAlone() {
		return chosen.heap[c.ledger.rand.IntN(len(chosen.heap))], true
	}
	return chosen.heap[0], true
}

// compare orders leaves by the strategies in their sequence: the attributes' counts, and the tops for what differs within
// a leaf. Ties of everything go to the lower member.
func (c *Class) compare(f, g *leaf) int {
	a, b := f.heap[0], g.heap[0]
	x, y := &c.members[a].score, &c.members[b].score
	for i, d := range c.order {
		switch d.kind {
		case byAttribute:
			if m, n := c.counts[d.spread][f.values[d.spread]], c.counts[d.spread][g.values[d.spread]]; m != n {
				return int(m - n)
			}
		case byChance:
			return 0
		default:
			if x[i] < y[i] {
				return -1
			}
			if x[i] > y[i] {
				return 1
			}
		}
	}
	return int(a - b)
}

func (c *Class) chanceDecides() bool {
	return len(c.order) > 1 && c.order[len(c.order)-2].kind == byChance
}

// chanceAlone says that within a leaf only chance orders: then any member is as good as another, and the heap's order,
// made of chances drawn at different times, must not be asked.
func (c *Class) chanceAlone() bool {
	for _, d := range c.order {
		switch d.kind {
		case byAttribute:
		case byChance:
			return true
		default:
			return false
		}
	}
	return false
}
