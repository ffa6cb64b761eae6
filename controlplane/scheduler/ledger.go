// Package scheduler decides where tasks go. It is pure: no state, no I/O, no clock; controlplane/placement feeds it records
// and commits what it decides.
//
// A Ledger holds what every node has and what is taken of it. Nodes are offered in pools: a cluster's container instances are
// one pool, the serverless hosts another; a node may be in several, its resources are counted once. Tasks that ask for the
// same (Spec) share a Class. What does not depend on whose tasks they are and how large, classes share in turn: a roster keeps the nodes
// that suit in the order of the placement strategy. A pool keeps a journal of its members that changed; a roster reads it from where it
// stopped and puts those members in their places only. So a placement costs a few steps in an ordered list, not a scan of the cluster, and no
// more with many services than with few.
//
// Invariants:
//
//  1. What is taken of a node is the sum of the demands of the tasks on it; Place never takes more than the node has.
//  2. A roster that has read the journal to its end answers exactly what a scan of the whole pool would.
//  3. Rollback leaves the ledger as it was at the mark.
//
// A ledger is not safe for concurrent use.
package scheduler

import (
	"math/rand/v2"
	"slices"
	"strings"
)

// Port is a static host port.
type Port struct {
	Number   uint32
	Protocol string // tcp, udp
}

// PortRange is what a node keeps from tasks; an empty protocol means both.
type PortRange struct {
	First, Last uint32
	Protocol    string
}

// Node is a host.
type Node struct {
	ID         string
	CPU        uint32 // units, 1024 a core
	Memory     uint32 // MiB
	GPUs       []string
	Reserved   []PortRange
	Attributes map[string]string
	Connected  bool // an agent is there
	// Disk is what is left to a node that is short of disk, and so takes no new task; empty: it is not.
	Disk string
	// OtherAgent says that the node's agent is not the platform's own.
	OtherAgent bool
}

// Instance offers a node in a pool.
type Instance struct {
	ID         string // container instance id; the node's id in a pool without instances
	Node       string
	Active     bool              // false: DRAINING or otherwise closed to new tasks
	Attributes map[string]string // beyond the node's, before it where both have a name
	// Facts answers for other subjects of the query language, lower case: agentversion, registeredat, ec2instanceid; nil: there are none.
	Facts func(subject string) (string, bool)
}

// Task is what a task takes.
type Task struct {
	ID      string
	Pool    string // groups of different pools are different
	Group   string
	CPU     uint32
	Memory  uint32
	GPUs    []string // those of the node that it has to itself
	Ports   []Port
	Pending bool // not yet RUNNING; for runningTasksCount and pendingTasksCount
}

// Ledger is what there is and what is taken.
type Ledger struct {
	nodes   []*node
	byID    map[string]int32
	tasks   map[string]*placed
	pools   map[string]*pool
	groups  []group
	byGroup map[groupKey]int32
	classes map[string]*Class
	rosters map[string]*roster
	tick    uint64 // counts uses, for eviction
	scratch []byte // for keys
	rand    *rand.Rand

	// undo holds the changes since the oldest mark still wanted; nil without a mark.
	undo  []change
	marks int
}

// node's free resources may be negative: the host shrank, or what was recorded does not fit.
type node struct {
	Node
	gone            bool
	freeCPU, freeMB int64
	ports           []uint32 // taken, as portKey
	gpus            []string // taken
	running         int32
	pending         int32
	groups          []share // tasks by group
	in              []membership
}

// placed is a Task, without what can be found otherwise: there are very many.
type placed struct {
	id      string
	cpu, mb uint32
	node    int32
	group   int32
	pending bool
	rare    *rare // nil: it has none
}

type rare struct {
	ports []Port
	gpus  []string
}

// group is the tasks that are spread together.
type group struct {
	pool  *pool
	name  string
	tasks int32
	on    *presence // nil: not asked for
}

type groupKey struct{ pool, name string }

type change struct {
	task  *placed
	added bool
}

// New makes an empty ledger. The seed decides the strategy random.
func New(seed uint64) *Ledger {
	return &Ledger{
		byID: map[string]int32{}, tasks: map[string]*placed{}, pools: map[string]*pool{}, byGroup: map[groupKey]int32{},
		classes: map[string]*Class{}, rosters: map[string]*roster{}, rand: rand.New(rand.NewPCG(seed, seed)),
	}
}

// SetNode adds a node or replaces what is known of it; the tasks on it stay.
func (l *Ledger) SetNode(n Node) {
	i := l.node(n.ID)
	old := l.nodes[i]
	old.freeCPU += int64(n.CPU) - int64(old.CPU)
	old.freeMB += int64(n.Memory) - int64(old.Memory)
	old.Node, old.gone = n, false
	l.memberChanged(i)
}

// RemoveNode takes a node out of every pool. Tasks on it keep being known until they are removed.
func (l *Ledger) RemoveNode(id string) {
	i, ok := l.byID[id]
	if !ok {
		return
	}
	n := l.nodes[i]
	n.freeCPU -= int64(n.CPU)
	n.freeMB -= int64(n.Memory)
	n.Node, n.gone = Node{ID: id}, true
	l.memberChanged(i)
}

// node finds or makes the entry of a node; records may arrive in any order.
func (l *Ledger) node(id string) int32 {
	if i, ok := l.byID[id]; ok {
		return i
	}
	i := int32(len(l.nodes))
	l.nodes = append(l.nodes, &node{Node: Node{ID: id}, gone: true})
	l.byID[id] = i
	return i
}

func (l *Ledger) memberChanged(i int32) {
	for _, in := range l.nodes[i].in {
		l.reread(in)
	}
}

// reread reads a member anew: what does not change with its tasks may have.
func (l *Ledger) reread(m membership) {
	for _, c := range m.pool.columns {
		c.set(l, m.pool, m.at)
	}
	for _, s := range l.nodes[m.pool.members[m.at].node].groups {
		if g := &l.groups[s.group]; g.on != nil && g.pool == m.pool {
			g.on.set(m.at, s.tasks)
		}
	}
	m.pool.note(m.at, changed)
}

func (l *Ledger) pool(name string) *pool {
	p := l.pools[name]
	if p == nil {
		p = &pool{}
		l.pools[strings.Clone(name)] = p
	}
	return p
}

// inPool is which of its memberships a node has in the pool; -1: it is not in it.
func (n *node) inPool(p *pool) int {
	return slices.IndexFunc(n.in, func(m membership) bool { return m.pool == p })
}

// SetInstance offers a node in a pool or replaces what the pool knows of it. A node is in a pool once.
func (l *Ledger) SetInstance(poolName string, in Instance) {
	p, i := l.pool(poolName), l.node(in.Node)
	n, m := l.nodes[i], &member{Instance: in, node: i}
	if at := n.inPool(p); at >= 0 {
		p.members[n.in[at].at] = m
		l.reread(n.in[at])
		return
	}
	here := membership{p, int32(len(p.members))}
	n.in = append(n.in, here)
	p.members = append(p.members, m)
	p.count++
	l.reread(here)
}

// RemoveInstance withdraws a node from a pool.
func (l *Ledger) RemoveInstance(poolName, nodeID string) {
	p := l.pool(poolName)
	i, known := l.byID[nodeID]
	if !known {
		return
	}
	n := l.nodes[i]
	at := n.inPool(p)
	if at < 0 {
		return
	}
	here := n.in[at]
	n.in = slices.Delete(n.in, at, at+1)
	p.members[here.at].gone = true
	p.count--
	l.reread(here)
	if gone := len(p.members) - p.count; gone > 64 && gone > p.count {
		p.compact(l)
	}
}

// Add records a task that is on a node. A task known already is moved to what t says.
func (l *Ledger) Add(nodeID string, t Task) {
	if l.Keep(nodeID, t.ID, t.Pending) {
		return // what a task takes never changes
	}
	l.Remove(t.ID)
	p := &placed{id: t.ID, cpu: t.CPU, mb: t.Memory, node: l.node(nodeID), group: l.group(t.Pool, t.Group), pending: t.Pending}
	if len(t.Ports) > 0 || len(t.GPUs) > 0 {
		p.rare = &rare{t.Ports, t.GPUs}
	}
	l.apply(change{p, true})
}

// Keep says whether the task is on the node already, and notes then whether it is pending.
func (l *Ledger) Keep(nodeID, taskID string, pending bool) bool {
	old := l.tasks[taskID]
	if old == nil || l.nodes[old.node].ID != nodeID {
		return false
	}
	if old.pending != pending {
		l.apply(change{old, false})
		now := *old // what can be undone stays as it was
		now.pending = pending
		l.apply(change{&now, true})
	}
	return true
}

// Remove gives back what the task took. An unknown task is nothing.
func (l *Ledger) Remove(taskID string) {
	if t, ok := l.tasks[taskID]; ok {
		l.apply(change{t, false})
	}
}

// Has says whether the task is on a node.
func (l *Ledger) Has(taskID string) bool { return l.tasks[taskID] != nil }

func (l *Ledger) group(pool, name string) int32 {
	g, ok := l.byGroup[groupKey{pool, name}]
	if !ok {
		g = int32(len(l.groups))
		name = strings.Clone(name)
		l.groups = append(l.groups, group{pool: l.pool(pool), name: name})
		l.byGroup[groupKey{strings.Clone(pool), name}] = g
	}
	return g
}

// apply is the only place where what is taken changes.
func (l *Ledger) apply(c change) {
	t, n := c.task, l.nodes[c.task.node]
	sign, what := int32(-1), left
	if c.added {
		sign, what = 1, came
		l.tasks[t.id] = t
	} else {
		delete(l.tasks, t.id)
	}
	n.freeCPU -= int64(sign) * int64(t.cpu)
	n.freeMB -= int64(sign) * int64(t.mb)
	if t.pending {
		n.pending += sign
	} else {
		n.running += sign
	}
	if t.rare != nil {
		n.takeRare(t.rare, c.added)
	}
	now := n.addTasks(t.group, sign)
	g := &l.groups[t.group]
	if g.tasks += sign; g.tasks == 0 && g.on != nil {
		*g.on = nil
	}
	for _, in := range n.in {
		if in.pool == g.pool {
			for _, c := range in.pool.columns {
				c.add(t.group, c.values[in.at], sign)
			}
			if g.on != nil && g.tasks > 0 {
				g.on.set(in.at, now)
			}
		}
		in.pool.note(in.at, what)
	}
	if l.marks > 0 {
		l.undo = append(l.undo, c)
	}
}

// takeRare takes ports and GPUs of the node, or gives them back.
func (n *node) takeRare(r *rare, take bool) {
	if take {
		for _, p := range r.ports {
			n.ports = append(n.ports, portKey(p))
		}
		n.gpus = append(n.gpus, r.gpus...)
		return
	}
	for _, p := range r.ports {
		if at := slices.Index(n.ports, portKey(p)); at >= 0 {
			n.ports = slices.Delete(n.ports, at, at+1)
		}
	}
	n.gpus = slices.DeleteFunc(n.gpus, func(id string) bool { return slices.Contains(r.gpus, id) })
}

// tasks is how many the group has on the node.
func (n *node) tasks(group int32) int32 {
	for _, s := range n.groups {
		if s.group == group {
			return s.tasks
		}
	}
	return 0
}

// addTasks counts tasks of a group, and says how many it has then.
func (n *node) addTasks(group, tasks int32) int32 {
	for i := range n.groups {
		s := &n.groups[i]
		if s.group != group {
			continue
		}
		if s.tasks += tasks; s.tasks == 0 {
			last := len(n.groups) - 1
			n.groups[i] = n.groups[last]
			n.groups = n.groups[:last]
			return 0
		}
		return s.tasks
	}
	n.groups = append(n.groups, share{group, tasks})
	return tasks
}

// Mark begins an overlay: changes from here on can be rolled back to it. Every mark is ended by one Rollback or Commit,
// innermost first.
func (l *Ledger) Mark() int {
	l.marks++
	return len(l.undo)
}

// Commit keeps the changes since the mark.
func (l *Ledger) Commit(int) { l.endMark() }

// Rollback undoes the changes since the mark.
func (l *Ledger) Rollback(mark int) {
	undone := l.undo[mark:]
	l.undo = l.undo[:mark:mark]
	marks := l.marks
	l.marks = 0 // undoing is not recorded
	for _, c := range slices.Backward(undone) {
		l.apply(change{c.task, !c.added})
	}
	l.marks = marks
	l.endMark()
}

func (l *Ledger) endMark() {
	if l.marks--; l.marks == 0 {
		l.undo = nil
	}
}

func portKey(p Port) uint32 {
	k := p.Number
	if p.Protocol == "udp" {
		k |= 1 << 16
	}
	return k
}

// portFree says whether nothing on the node has the port.
func (n *node) portFree(p Port) bool {
	for _, r := range n.Reserved {
		if p.Number >= r.First && p.Number <= r.Last && (r.Protocol == "" || r.Protocol == p.Protocol || r.Protocol == "tcp" && p.Protocol == "") {
			return false
		}
	}
	return !slices.Contains(n.ports, portKey(p))
}

// freeGPUs are those that nothing on the node has.
func (n *node) freeGPUs() []string {
	if len(n.gpus) == 0 {
		return n.GPUs
	}
	return slices.DeleteFunc(slices.Clone(n.GPUs), func(id string) bool { return slices.Contains(n.gpus, id) })
}

// attribute of a pool's member: its own before the node's.
func (l *Ledger) attribute(m *member, name string) (string, bool) {
	if v, ok := m.Attributes[name]; ok {
		return v, true
	}
	v, ok := l.nodes[m.node].Attributes[name]
	return v, ok
}

// zoneAttribute is where a host says its availability zone.
const zoneAttribute = "ecs.availability-zone"

// isHostField says whether a spread field names the host itself.
func isHostField(field string) bool {
	return strings.EqualFold(field, "instanceId") || strings.EqualFold(field, "host")
}
