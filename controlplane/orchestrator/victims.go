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
// A service may have thousands, so a step costs the number of zones and a heap operation, and the tasks are sorted by their hosts once.
func victims(tasks []*member, n int) iter.Seq[*member] {
	return func(yield func(*member) bool) {
		if n <= 0 {
			return
		}
		c := &choice{}
		var ranks [3][]*member
		for _, m := range tasks {
			c.zones = count(c.zones, m.host.zone)
			c.hosts = count(c.hosts, m.host.at)
			r := rank(m)
			if ranks[r] == nil {
				ranks[r] = make([]*member, 0, len(tasks))
			}
			ranks[r] = append(ranks[r], m)
		}
		for _, list := range ranks {
			if len(list) == 0 {
				continue
			}
			c.choose(list)
			for m := c.next(); m != nil; m = c.next() {
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

// count counts one more of at.
func count(counts []int32, at int) []int32 {
	if at >= len(counts) {
		counts = append(counts, make([]int32, at+1-len(counts))...)
	}
	counts[at]++
	return counts
}

// rank is how much a task protects its service: the least go first.
func rank(m *member) int {
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
	zones, hosts []int32
	tasks        []*member // by host, the newest of each last
	begin, end   []int32   // of each host's tasks that are left
	piles        []piles   // by zone
}

// choose begins with the tasks of a rank.
func (c *choice) choose(tasks []*member) {
	c.end = make([]int32, len(c.hosts))
	for _, m := range tasks {
		c.end[m.host.at]++
	}
	c.begin = make([]int32, len(c.hosts))
	for host, before := 0, int32(0); host < len(c.end); host++ {
		c.begin[host] = before
		before += c.end[host]
		c.end[host] = c.begin[host]
	}
	c.tasks = make([]*member, len(tasks))
	for _, m := range tasks {
		c.tasks[c.end[m.host.at]] = m
		c.end[m.host.at]++
	}
	c.piles = make([]piles, len(c.zones))
	for host := range c.end {
		list := c.tasks[c.begin[host]:c.end[host]]
		if len(list) == 0 {
			continue
		}
		slices.SortFunc(list, func(a, b *member) int {
			return cmp.Or(cmp.Compare(a.created(), b.created()), cmp.Compare(b.id(), a.id()))
		})
		p := &c.piles[list[0].host.zone]
		p.choice, p.all = c, append(p.all, int32(host))
	}
	for zone := range c.piles {
		heap.Init(&c.piles[zone])
	}
}

// next takes the next victim out; nil: there is none.
func (c *choice) next() *member {
	var from *piles
	for zone := range c.piles {
		if p := &c.piles[zone]; len(p.all) > 0 && (from == nil || c.before(p.top(0), from.top(0))) {
			from = p
		}
	}
	if from == nil {
		return nil
	}
	m, host := from.top(0), from.all[0]
	c.zones[m.host.zone]--
	c.hosts[host]--
	if c.end[host]--; c.end[host] == c.begin[host] {
		heap.Pop(from)
	} else {
		heap.Fix(from, 0)
	}
	return m
}

// before says whether a is to be stopped before b.
func (c *choice) before(a, b *member) bool {
	if x, y := c.zones[a.host.zone], c.zones[b.host.zone]; x != y {
		return x > y
	}
	if x, y := c.hosts[a.host.at], c.hosts[b.host.at]; x != y {
		return x > y
	}
	return cmp.Or(cmp.Compare(b.created(), a.created()), cmp.Compare(a.id(), b.id())) < 0
}

// piles are the hosts of a zone as a heap, the host to take from on top.
type piles struct {
	*choice
	all []int32
}

// top is the newest task of a host.
func (p *piles) top(i int) *member  { return p.tasks[p.end[p.all[i]]-1] }
func (p *piles) Len() int           { return len(p.all) }
func (p *piles) Less(i, j int) bool { return p.before(p.top(i), p.top(j)) }
func (p *piles) Swap(i, j int)      { p.all[i], p.all[j] = p.all[j], p.all[i] }
func (p *piles) Push(any)           { panic("a pile is never added") }

func (p *piles) Pop() any {
	p.all = p.all[:len(p.all)-1]
	return nil
}
