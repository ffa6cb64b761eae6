package scheduler

import "slices"

// pool is nodes that are offered together.
type pool struct {
	members []*member // never reordered but by compact; removed ones are gone
	count   int       // of those that are not gone
	version uint64    // raised when members get other positions, or values other numbers
	columns []*column

	// The journal: what changed about which member, one entry a change; journal[0] has sequence number base. It is kept as long as there
	// is a roster that reads it.
	journal []entry
	base    uint64
	rosters int
}

type member struct {
	Instance
	node int32
	gone bool
}

// membership is a node's place in a pool.
type membership struct {
	pool *pool
	at   int32
}

// share is how many tasks a group has on a node.
type share struct{ group, tasks int32 }

type entry struct {
	at   int32
	what event
}

type event uint8

const (
	came    event = iota // a task
	left                 // a task
	changed              // anything else about the member
)

// note enters a change of a member into the journal. Who is further behind than it reaches reads the pool anew.
func (p *pool) note(at int32, what event) {
	if p.rosters == 0 {
		return
	}
	if half := len(p.journal) / 2; half > p.tolerable() {
		p.base += uint64(half)
		p.journal = append(p.journal[:0], p.journal[half:]...)
	}
	p.journal = append(p.journal, entry{at, what})
}

// tolerable is how many entries are read rather than the whole pool.
func (p *pool) tolerable() int { return 2*len(p.members) + 16 }

func (p *pool) end() uint64 { return p.base + uint64(len(p.journal)) }

// compact forgets members that are gone.
func (p *pool) compact(l *Ledger) {
	p.members = slices.DeleteFunc(p.members, func(m *member) bool { return m.gone })
	for at, m := range p.members {
		n := l.nodes[m.node]
		n.in[n.inPool(p)].at = int32(at)
	}
	for _, c := range p.columns {
		c.read(l, p)
	}
	for g := range l.groups {
		if l.groups[g].pool == p && l.groups[g].on != nil {
			l.groups[g].on = l.readPresence(int32(g))
		}
	}
	p.base, p.journal = p.end(), nil
	p.version++
}

// column is the values that the members of a pool have for an attribute that is spread over, as small numbers, and how many tasks each group
// has on the members with each value. Members that cannot take a task count as well: the group's tasks that are there weigh on their zone.
type column struct {
	attribute string
	ids       map[string]int32
	values    []int32           // by member; none: gone
	tasks     map[tallied]int32 // never zero
	rosters   int               // that use it
}

type tallied struct{ group, value int32 }

// none is the value of a member that is gone.
const none = -1

// column finds or makes the column of an attribute.
func (l *Ledger) column(p *pool, attribute string) *column {
	for _, c := range p.columns {
		if c.attribute == attribute {
			return c
		}
	}
	c := &column{attribute: attribute}
	c.read(l, p)
	p.columns = append(p.columns, c)
	return c
}

// read reads all members.
func (c *column) read(l *Ledger, p *pool) {
	c.ids, c.values, c.tasks = map[string]int32{}, make([]int32, 0, len(p.members)), map[tallied]int32{}
	for at := range p.members {
		c.set(l, p, int32(at))
	}
}

// set reads one member. Values that no member has any more are forgotten when they are many.
func (c *column) set(l *Ledger, p *pool, at int32) {
	if int(at) == len(c.values) {
		c.values = append(c.values, none)
	}
	m, value := p.members[at], int32(none)
	if !m.gone {
		text, _ := l.attribute(m, c.attribute)
		id, known := c.ids[text]
		if !known {
			if id = int32(len(c.ids)); int(id) >= p.tolerable() {
				p.version++
				c.read(l, p)
				return
			}
			c.ids[text] = id
		}
		value = id
	}
	old := c.values[at]
	if value == old {
		return
	}
	for _, s := range l.nodes[m.node].groups {
		if l.groups[s.group].pool == p {
			c.add(s.group, old, -s.tasks)
			c.add(s.group, value, s.tasks)
		}
	}
	c.values[at] = value
}

func (c *column) add(group, value, tasks int32) {
	if value == none {
		return
	}
	k := tallied{group, value}
	if c.tasks[k] += tasks; c.tasks[k] == 0 {
		delete(c.tasks, k)
	}
}

// presence is how many tasks a group has on each member, for groups that ask: to be spread over hosts or for one host each.
type presence []int32

func (p presence) tasks(at int32) int32 {
	if int(at) < len(p) {
		return p[at]
	}
	return 0
}

func (p *presence) set(at, tasks int32) {
	for int(at) >= len(*p) {
		*p = append(*p, 0)
	}
	(*p)[at] = tasks
}

// presence finds or makes that of a group.
func (l *Ledger) presence(group int32) presence {
	g := &l.groups[group]
	if g.on == nil {
		g.on = l.readPresence(group)
	}
	return *g.on
}

func (l *Ledger) readPresence(group int32) *presence {
	g, p := l.groups[group], &presence{}
	if g.tasks > 0 {
		for at, m := range g.pool.members {
			if n := l.nodes[m.node].tasks(group); n > 0 && !m.gone {
				p.set(int32(at), n)
			}
		}
	}
	return p
}
