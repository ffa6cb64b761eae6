package orchestrator

import (
	"cmp"
	"container/heap"
	"iter"
	"slices"
)

// victims yields n tasks to stop, in the order in which ECS chooses them: those that do not run or are unhealthy first, then from the
// availability zone that has most, in it from the host that has most, the newest first. What has been yielded counts for its zone and host
// no more.
//
// A service may have thousands, so a step costs the number of zones and a heap operation.
func victims(tasks []member, n int) iter.Seq[member] {
	return func(yield func(member) bool) {
		if n <= 0 {
			return
		}
		var ranks [3][]member
		zones, hosts := map[string]int{}, map[string]int{}
		for _, m := range tasks {
			zones[m.zone]++
			hosts[m.node]++
			ranks[rank(m)] = append(ranks[rank(m)], m)
		}
		for _, list := range ranks {
			c := choose(list, zones, hosts)
			for m, ok := c.next(); ok; m, ok = c.next() {
				if !yield(m) {
					return
				}
				if n--; n == 0 {
					return
				}
			}
		}
	}
}

// rank is how much a task protects its service: the least go first.
func rank(m member) int {
	switch {
	case !m.running:
		return 0
	case !m.healthy:
		return 1
	}
	return 2
}

// choice is the tasks of one rank, by zone and host. The counts are of all ranks.
type choice struct {
	zones, hosts map[string]int
	piles        map[string]*piles // by zone
}

func choose(tasks []member, zones, hosts map[string]int) *choice {
	c := &choice{zones, hosts, map[string]*piles{}}
	byHost := map[[2]string][]member{}
	for _, m := range tasks {
		byHost[[2]string{m.zone, m.node}] = append(byHost[[2]string{m.zone, m.node}], m)
	}
	for where, list := range byHost {
		slices.SortFunc(list, func(a, b member) int { return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(b.id, a.id)) })
		if c.piles[where[0]] == nil {
			c.piles[where[0]] = &piles{choice: c}
		}
		c.piles[where[0]].all = append(c.piles[where[0]].all, list)
	}
	for _, p := range c.piles {
		heap.Init(p)
	}
	return c
}

// next takes the next victim out.
func (c *choice) next() (member, bool) {
	var from *piles
	for _, p := range c.piles {
		if len(p.all) > 0 && (from == nil || c.before(p.top(0), from.top(0))) {
			from = p
		}
	}
	if from == nil {
		return member{}, false
	}
	m := from.top(0)
	c.zones[m.zone]--
	c.hosts[m.node]--
	if list := from.all[0]; len(list) == 1 {
		heap.Pop(from)
	} else {
		from.all[0] = list[:len(list)-1]
		heap.Fix(from, 0)
	}
	return m, true
}

// before says whether a is to be stopped before b.
func (c *choice) before(a, b member) bool {
	return cmp.Or(cmp.Compare(c.zones[b.zone], c.zones[a.zone]), cmp.Compare(c.hosts[b.node], c.hosts[a.node]),
		cmp.Compare(b.created, a.created), cmp.Compare(a.id, b.id)) < 0
}

// piles are the hosts of a zone as a heap: each host's tasks with the newest last, the host to take from on top.
type piles struct {
	*choice
	all [][]member
}

func (p *piles) top(i int) member   { return p.all[i][len(p.all[i])-1] }
func (p *piles) Len() int           { return len(p.all) }
func (p *piles) Less(i, j int) bool { return p.before(p.top(i), p.top(j)) }
func (p *piles) Swap(i, j int)      { p.all[i], p.all[j] = p.all[j], p.all[i] }
func (p *piles) Push(any)           { panic("a pile is never added") }

func (p *piles) Pop() any {
	last := len(p.all) - 1
	p.all = p.all[:last]
	return nil
}
