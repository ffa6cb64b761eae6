package scheduler

import (
	"cmp"
	"math"
	"slices"
)

// Placement is where a task goes.
type Placement struct {
	Node     string
	Instance string
	GPUs     []string // those that the task is to have; as many as it asks for
}

// Place chooses a node for one task of the class and takes what it needs. False: no node of the pool can take it; Explain
// says why.
func (l *Ledger) Place(c *Class, taskID string) (Placement, bool) {
	at, ok := c.best(c.current())
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

// choice is a member that can take the task.
type choice struct{ leaf, at, hosts int32 }

// Room says whether some node can take a task of the class now.
func (c *Class) Room() bool {
	r := c.current()
	for f := range r.leaves {
		if _, ok := c.bestOf(r, int32(f)); ok {
			return true
		}
	}
	return false
}

// best is the best member of the best leaf.
func (c *Class) best(r *roster) (int32, bool) {
	var best choice
	found := false
	equal := 0 // members of the leaves that are as good as the best one's, where chance decides
	for i := range r.leaves {
		if found && c.compareCounts(r, int32(i), best.leaf) > 0 {
			continue
		}
		x, ok := c.bestOf(r, int32(i))
		if !ok {
			continue
		}
		order := -1
		if found {
			order = c.compare(r, x, best)
		}
		size := r.leaves[i].list.size
		switch {
		case order < 0:
			best, found, equal = x, true, size
		case order == 0 && r.chance != none:
			if equal += size; r.like.ledger.rand.IntN(equal) < size {
				best = x
			}
		}
	}
	if found && r.chance == 0 && r.hostAt == none {
		return c.any(r, best), true
	}
	return best.at, found
}

// bestOf is the best member of a leaf.
func (c *Class) bestOf(r *roster, f int32) (choice, bool) {
	x, list, d := choice{leaf: f}, &r.leaves[f].list, c.spec.demand()
	if !c.distinct && r.hostAt == none {
		x.at = list.first(r.members, d)
		return x, x.at != none
	}
	on := c.ledger.presence(c.group)
	if r.hostAt > 0 && !c.distinct {
		x.at, x.hosts = list.fewest(r.members, d, on, 0, many, r.hostAt)
		return x, x.at != none
	}
	most := int32(many)
	if c.distinct {
		most = 0
	}
	c.learn(r, on)
	x.at, x.hosts = list.fewest(r.members, d, on, c.least[f], most, 0)
	c.least[f] = x.hosts
	return x, x.at != none
}

// many is more tasks of a group than a host has.
const many = math.MaxInt32 - 1

// learn lowers least by what has gained. So the members before the first that will do are looked at once, not for every task.
func (c *Class) learn(r *roster, on presence) {
	end := r.gainedFrom + uint64(len(r.gained))
	if c.gainedTo < r.gainedFrom || end-c.gainedTo > uint64(len(r.members)) {
		clear(c.least)
		c.gainedTo = end
	}
	for len(c.least) < len(r.leaves) {
		c.least = append(c.least, 0)
	}
	for ; c.gainedTo < end; c.gainedTo++ {
		at := r.gained[c.gainedTo-r.gainedFrom]
		if k := &r.members[at]; k.listed {
			c.least[k.leaf] = min(c.least[k.leaf], on.tasks(at))
		}
	}
}

// count is the group's tasks where the leaf's members are.
func (c *Class) count(r *roster, f int32, spread int) int32 {
	return r.columns[spread].tasks[tallied{c.group, r.leaves[f].values[spread]}]
}

// compareCounts orders leaves as far as only attributes decide.
func (c *Class) compareCounts(r *roster, f, g int32) int32 {
	for _, d := range r.like.order {
		if d.kind != byAttribute {
			break
		}
		if m, n := c.count(r, f, d.at), c.count(r, g, d.at); m != n {
			return m - n
		}
	}
	return 0
}

// compare orders members of different leaves by the strategies in their sequence. Ties of everything go to the lower member.
func (c *Class) compare(r *roster, a, b choice) int {
	x, y := &r.members[a.at].key, &r.members[b.at].key
	for _, d := range r.like.order {
		var m, n int64
		switch d.kind {
		case byAttribute:
			m, n = int64(c.count(r, a.leaf, d.at)), int64(c.count(r, b.leaf, d.at))
		case byHost:
			m, n = int64(a.hosts), int64(b.hosts)
		case byChance:
			return 0
		default:
			m, n = x[d.at], y[d.at]
		}
		if m != n {
			return cmp.Compare(m, n)
		}
	}
	return int(a.at - b.at)
}

// any is one of all members that can take the task where only chance decides, every one as likely as another: the order of a list, made of
// chances drawn at different times, must not be asked.
func (c *Class) any(r *roster, best choice) int32 {
	var lists []*list
	total := 0
	for f := range r.leaves {
		if c.compareCounts(r, int32(f), best.leaf) == 0 {
			lists = append(lists, &r.leaves[f].list)
			total += r.leaves[f].list.size
		}
	}
	d, random := c.spec.demand(), c.ledger.rand
	can := func(at int32) bool {
		return r.members[at].fits(d) && !(c.distinct && c.ledger.presence(c.group).tasks(at) > 0)
	}
	for range 16 {
		i := random.IntN(total)
		for _, f := range lists {
			if i < f.size {
				if at := f.at(i); can(at) {
					return at
				}
				break
			}
			i -= f.size
		}
	}
	// They are few.
	chosen, seen := best.at, 0
	for _, f := range lists {
		for b := range f.blocks {
			for _, at := range f.blocks[b].ids[:f.blocks[b].n] {
				if can(at) {
					if seen++; random.IntN(seen) == 0 {
						chosen = at
					}
				}
			}
		}
	}
	return chosen
}
