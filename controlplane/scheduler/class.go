package scheduler

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Spec is all that placement depends on. Tasks with equal specs are interchangeable to the scheduler.
type Spec struct {
	Pool       string
	Group      string // spread and distinctInstance count the tasks of this group
	CPU        uint32
	Memory     uint32
	GPUs       uint32
	Ports      []Port
	Attributes []string // "name" or "name=value"
	// AgentAttributes are names that a node with an agent of another make must have besides; none: such a node cannot take the task.
	AgentAttributes []string
	Zone            string // availability zone; empty: any
	Constraints     []Constraint
	Strategies      []Strategy // in sequence; the earlier one decides
}

// Constraint is distinctInstance or memberOf with an expression.
type Constraint struct{ Type, Expression string }

// Strategy is spread (over an attribute, instanceId or host), binpack (cpu or memory) or random.
type Strategy struct{ Type, Field string }

// Class is the scheduler's memory of one Spec: which members of the pool can take such a task, best first.
//
// Members that suit are in leaves, one for each combination of the attributes that are spread over; in a leaf they are a
// heap by what is left of the strategies. Members of one leaf have the attribute counts in common, so the best of a pool is the
// best of the leaves' tops.
type Class struct {
	spec        Spec
	key         string
	group       *group
	distinct    bool
	expressions []*Expression
	dynamic     bool // an expression depends on the tasks of an instance
	order       []dimension
	spreads     []string // attributes, in the order of their dimensions

	ledger  *Ledger
	pool    *pool
	version uint64 // of the pool, as read
	read    uint64 // next sequence number of the journal to read
	used    uint64 // tick of the last use, for eviction

	members []candidate
	leaves  []*leaf
	byValue map[string]*leaf
	counts  []map[string]int32 // per spread: tasks of the group by value
}

type dimensionKind uint8

const (
	byAttribute dimensionKind = iota // tasks of the group on members with the same value; kept per leaf
	byHost                           // tasks of the group on the node
	byFreeCPU
	byFreeMemory
	byChance
	byTasks // all tasks on the node: the last resort, so that equal hosts share
)

type dimension struct {
	kind   dimensionKind
	spread int // byAttribute: index into counts
}

// maxDimensions is ECS's five strategies and the last resort.
const maxDimensions = 6

type score [maxDimensions]int64

type candidate struct {
	fixed bool // may ever take such a task: attributes, zone and static constraints hold
	leaf  *leaf
	at    int32 // position in the leaf's heap; -1: not in it
	tasks int32 // of the group on it, as counted in counts
	score score
}

type leaf struct {
	values []string // per spread
	heap   []int32  // members
}

// maxClasses bounds what a ledger remembers.
const maxClasses = 2048

// ID is equal for equal specs, and only for them.
func (s Spec) ID() string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("scheduler: a spec is strings and numbers: %v", err))
	}
	return string(b)
}

// Class finds or makes the class of a spec. Its errors are the client's: an expression or strategy that cannot be.
func (l *Ledger) Class(s Spec) (*Class, error) {
	key := s.ID()
	if c, ok := l.classes[key]; ok {
		return c, nil
	}
	c := &Class{spec: s, key: key, ledger: l, pool: l.pool(s.Pool), group: l.group(s.Pool, s.Group)}
	for _, k := range s.Constraints {
		switch k.Type {
		case "distinctInstance":
			c.distinct = true
		case "memberOf":
			e, err := ParseExpression(k.Expression)
			if err != nil {
				return nil, err
			}
			c.expressions = append(c.expressions, e)
			c.dynamic = c.dynamic || e.Dynamic
		default:
			return nil, fmt.Errorf("unknown placement constraint %q", k.Type)
		}
	}
	if len(s.Strategies) > maxDimensions-1 {
		return nil, fmt.Errorf("more than %d placement strategies", maxDimensions-1)
	}
	for _, st := range s.Strategies {
		if err := c.addStrategy(st); err != nil {
			return nil, err
		}
		if st.Type == "random" {
			break // nothing behind chance ever decides
		}
	}
	c.order = append(c.order, dimension{kind: byTasks})
	l.evict()
	l.classes[key] = c
	c.rebuild()
	return c, nil
}

func (c *Class) addStrategy(s Strategy) error {
	switch {
	case s.Type == "random":
		c.order = append(c.order, dimension{kind: byChance})
	case s.Type == "spread" && isHostField(s.Field):
		c.order = append(c.order, dimension{kind: byHost})
	case s.Type == "spread" && strings.HasPrefix(s.Field, "attribute:"):
		c.order = append(c.order, dimension{kind: byAttribute, spread: len(c.spreads)})
		c.spreads = append(c.spreads, strings.TrimPrefix(s.Field, "attribute:"))
	case s.Type == "binpack" && strings.EqualFold(s.Field, "cpu"):
		c.order = append(c.order, dimension{kind: byFreeCPU})
	case s.Type == "binpack" && strings.EqualFold(s.Field, "memory"):
		c.order = append(c.order, dimension{kind: byFreeMemory})
	default:
		return fmt.Errorf("placement strategy %q does not know the field %q", s.Type, s.Field)
	}
	return nil
}

// evict forgets the quarter of the classes that was not used for longest.
func (l *Ledger) evict() {
	if len(l.classes) < maxClasses {
		return
	}
	all := make([]*Class, 0, len(l.classes))
	for _, c := range l.classes {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *Class) int { return int(int64(a.used) - int64(b.used)) })
	for _, c := range all[:len(all)/4] {
		delete(l.classes, c.key)
	}
}

// rebuild reads the whole pool.
func (c *Class) rebuild() {
	l := c.ledger
	c.version, c.read = c.pool.version, l.base+uint64(len(l.journal))
	c.members = make([]candidate, len(c.pool.members))
	c.leaves, c.byValue = nil, map[string]*leaf{}
	c.counts = make([]map[string]int32, len(c.spreads))
	for i := range c.counts {
		c.counts[i] = map[string]int32{}
	}
	for at, m := range c.pool.members {
		k := &c.members[at]
		k.at = -1
		if m.gone {
			continue
		}
		k.leaf = c.leafOf(m)
		k.fixed = c.staticReason(m) == nil
		c.recount(int32(at), m)
		if k.fixed && c.dynamicReason(m) == nil {
			k.score = c.score(m)
			k.at = int32(len(k.leaf.heap))
			k.leaf.heap = append(k.leaf.heap, int32(at))
		}
	}
	for _, f := range c.leaves {
		for i := len(f.heap)/2 - 1; i >= 0; i-- {
			c.down(f, i)
		}
	}
}

func (c *Class) leafOf(m *member) *leaf {
	values := make([]string, len(c.spreads))
	for i, name := range c.spreads {
		values[i], _ = c.ledger.attribute(m, name)
	}
	key := strings.Join(values, "\x00")
	f := c.byValue[key]
	if f == nil {
		f = &leaf{values: values}
		c.byValue[key] = f
		c.leaves = append(c.leaves, f)
	}
	return f
}

// recount brings the counts of the attributes that are spread over up to date. Members that cannot take a task count as
// well: the group's tasks that are there weigh on their zone.
func (c *Class) recount(at int32, m *member) {
	k := &c.members[at]
	now := c.ledger.nodes[m.node].groups[c.group]
	if now == k.tasks {
		return
	}
	for i, v := range k.leaf.values {
		c.counts[i][v] += now - k.tasks
	}
	k.tasks = now
}

// refresh reads what happened since the class was last used.
func (c *Class) refresh() {
	l := c.ledger
	end := l.base + uint64(len(l.journal))
	c.used = end
	if c.version != c.pool.version || c.read < l.base || end-c.read > uint64(2*len(c.members)+16) {
		c.rebuild()
		return
	}
	for ; c.read < end; c.read++ {
		if at, in := c.pool.byNode[l.journal[c.read-l.base]]; in {
			c.rescore(at)
		}
	}
}

// Room says whether some node can take a task of the class now.
func (c *Class) Room() bool {
	c.refresh()
	for _, f := range c.leaves {
		if len(f.heap) > 0 {
			return true
		}
	}
	return false
}

func (c *Class) rescore(at int32) {
	k, m := &c.members[at], c.pool.members[at]
	c.recount(at, m)
	if !k.fixed {
		return
	}
	if c.dynamicReason(m) != nil {
		if k.at >= 0 {
			c.take(k.leaf, int(k.at))
		}
		return
	}
	k.score = c.score(m)
	if k.at < 0 {
		k.at = int32(len(k.leaf.heap))
		k.leaf.heap = append(k.leaf.heap, at)
	}
	c.down(k.leaf, c.up(k.leaf, int(k.at)))
}

func (c *Class) score(m *member) (s score) {
	n := c.ledger.nodes[m.node]
	for i, d := range c.order {
		switch d.kind {
		case byHost:
			s[i] = int64(n.groups[c.group])
		case byFreeCPU:
			s[i] = n.freeCPU
		case byFreeMemory:
			s[i] = n.freeMB
		case byChance:
			s[i] = int64(c.ledger.rand.Uint64() >> 1)
		case byTasks:
			s[i] = int64(n.running + n.pending)
		}
	}
	return s
}

// ---- the heap of a leaf: container/heap without its indirections

func (c *Class) less(a, b int32) bool {
	x, y := &c.members[a].score, &c.members[b].score
	for i := range c.order {
		if x[i] != y[i] {
			return x[i] < y[i]
		}
	}
	return a < b
}

func (c *Class) swap(f *leaf, i, j int) {
	f.heap[i], f.heap[j] = f.heap[j], f.heap[i]
	c.members[f.heap[i]].at, c.members[f.heap[j]].at = int32(i), int32(j)
}

func (c *Class) up(f *leaf, i int) int {
	for i > 0 && c.less(f.heap[i], f.heap[(i-1)/2]) {
		c.swap(f, i, (i-1)/2)
		i = (i - 1) / 2
	}
	return i
}

func (c *Class) down(f *leaf, i int) {
	for {
		least := i
		for _, child := range [2]int{2*i + 1, 2*i + 2} {
			if child < len(f.heap) && c.less(f.heap[child], f.heap[least]) {
				least = child
			}
		}
		if least == i {
			return
		}
		c.swap(f, i, least)
		i = least
	}
}

// take removes the member at position i of the heap.
func (c *Class) take(f *leaf, i int) {
	last := len(f.heap) - 1
	c.swap(f, i, last)
	c.members[f.heap[last]].at = -1
	f.heap = f.heap[:last]
	if i < last {
		c.down(f, c.up(f, i))
	}
}
