// Package scheduler decides where tasks go. It is pure: no state, no I/O, no clock; controlplane/placement feeds it records
// and commits what it decides.
//
// A Ledger holds what every node has and what is taken of it. Nodes are offered in pools: a cluster's container instances are
// one pool, the serverless hosts another; a node may be in several, its resources are counted once. Tasks that ask for the
// same (Spec) share a Class, which keeps the nodes that suit them in heaps ordered by the placement strategy. A ledger keeps a
// journal of the nodes that changed; a class reads it from where it stopped and re-scores those nodes only. So a placement costs
// a heap operation, not a scan of the cluster.
//
// Invariants:
//
//  1. What is taken of a node is the sum of the demands of the tasks on it; Place never takes more than the node has.
//  2. A class that has read the journal to its end answers exactly what a scan of the whole pool would.
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
	Facts      map[string]string // other subjects of the query language, lower case: agentversion, registeredat, ec2instanceid
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
	groups  map[string]*group
	classes map[string]*Class
	rand    *rand.Rand

	// The journal: the nodes whose taken resources changed, one entry a change; journal[0] has sequence number base.
	journal []int32
	base    uint64
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
	groups          map[*group]int32 // tasks by group
}

type placed struct {
	Task
	node  int32
	group *group
}

// group counts a task group's tasks by node.
type group struct{ pool, name string }

type pool struct {
	members []*member // never reordered; removed ones are gone
	byNode  map[int32]int32
	version uint64 // raised when a member comes, goes or changes
}

type member struct {
	Instance
	node int32
	gone bool
}

type change struct {
	task  *placed
	added bool
}

// maxJournal bounds the journal; a class that is further behind rebuilds.
const maxJournal = 1 << 16

// New makes an empty ledger. The seed decides the strategy random.
func New(seed uint64) *Ledger {
	return &Ledger{
		byID: map[string]int32{}, tasks: map[string]*placed{}, pools: map[string]*pool{}, groups: map[string]*group{},
		classes: map[string]*Class{}, rand: rand.New(rand.NewPCG(seed, seed)),
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
	l.nodes = append(l.nodes, &node{Node: Node{ID: id}, gone: true, groups: map[*group]int32{}})
	l.byID[id] = i
	return i
}

func (l *Ledger) memberChanged(i int32) {
	for _, p := range l.pools {
		if _, in := p.byNode[i]; in {
			p.version++
		}
	}
}

func (l *Ledger) pool(name string) *pool {
	p := l.pools[name]
	if p == nil {
		p = &pool{byNode: map[int32]int32{}}
		l.pools[name] = p
	}
	return p
}

// SetInstance offers a node in a pool or replaces what the pool knows of it. A node is in a pool once.
func (l *Ledger) SetInstance(poolName string, in Instance) {
	p, i := l.pool(poolName), l.node(in.Node)
	p.version++
	if at, ok := p.byNode[i]; ok {
		p.members[at] = &member{Instance: in, node: i}
		return
	}
	p.byNode[i] = int32(len(p.members))
	p.members = append(p.members, &member{Instance: in, node: i})
}

// RemoveInstance withdraws a node from a pool.
func (l *Ledger) RemoveInstance(poolName, nodeID string) {
	p := l.pool(poolName)
	i, known := l.byID[nodeID]
	if at, ok := p.byNode[i]; known && ok {
		p.members[at].gone = true
		delete(p.byNode, i)
		p.version++
		if gone := len(p.members) - len(p.byNode); gone > 64 && gone > len(p.byNode) {
			p.compact()
		}
	}
}

// compact forgets members that are gone, once they are the majority.
func (p *pool) compact() {
	p.members = slices.DeleteFunc(p.members, func(m *member) bool { return m.gone })
	for at, m := range p.members {
		p.byNode[m.node] = int32(at)
	}
}

// Add records a task that is on a node. A task known already is moved to what t says.
func (l *Ledger) Add(nodeID string, t Task) {
	i := l.node(nodeID)
	if old, ok := l.tasks[t.ID]; ok {
		if old.node == i && old.Pending == t.Pending {
			return // what a task takes never changes
		}
		l.apply(change{old, false})
	}
	g := l.group(t.Pool, t.Group)
	t.Pool, t.Group = g.pool, g.name // the same text for all its tasks
	l.apply(change{&placed{t, i, g}, true})
}

// Remove gives back what the task took. An unknown task is nothing.
func (l *Ledger) Remove(taskID string) {
	if t, ok := l.tasks[taskID]; ok {
		l.apply(change{t, false})
	}
}

// Has says whether the task is on a node.
func (l *Ledger) Has(taskID string) bool { return l.tasks[taskID] != nil }

func (l *Ledger) group(pool, name string) *group {
	key := pool + "\x00" + name
	g := l.groups[key]
	if g == nil {
		g = &group{strings.Clone(pool), strings.Clone(name)}
		l.groups[key] = g
	}
	return g
}

// apply is the only place where what is taken changes.
func (l *Ledger) apply(c change) {
	t, n := c.task, l.nodes[c.task.node]
	sign := int32(-1)
	if c.added {
		sign = 1
		l.tasks[t.ID] = t
		for _, p := range t.Ports {
			n.ports = append(n.ports, portKey(p))
		}
		n.gpus = append(n.gpus, t.GPUs...)
	} else {
		delete(l.tasks, t.ID)
		for _, p := range t.Ports {
			if at := slices.Index(n.ports, portKey(p)); at >= 0 {
				n.ports = slices.Delete(n.ports, at, at+1)
			}
		}
		n.gpus = slices.DeleteFunc(n.gpus, func(id string) bool { return slices.Contains(t.GPUs, id) })
	}
	n.freeCPU -= int64(sign) * int64(t.CPU)
	n.freeMB -= int64(sign) * int64(t.Memory)
	if t.Pending {
		n.pending += sign
	} else {
		n.running += sign
	}
	if n.groups[t.group] += sign; n.groups[t.group] == 0 {
		delete(n.groups, t.group)
	}
	if l.marks > 0 {
		l.undo = append(l.undo, c)
	}
	if len(l.journal) == maxJournal {
		// Forget the older half; who has not read it rebuilds.
		l.base += maxJournal / 2
		l.journal = append(l.journal[:0], l.journal[maxJournal/2:]...)
	}
	l.journal = append(l.journal, t.node)
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
