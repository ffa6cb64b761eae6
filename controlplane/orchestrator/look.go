package orchestrator

import (
	"slices"
	"sync"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// A look reads all of a service's tasks, so what it reads of each counts. Whatever is kept here between looks follows from the records: losing it
// costs a longer look.

// knownTask is what is kept of a task: a status would keep what has been replaced since alive.
type knownTask struct {
	key  state.Key // also of its status
	task *controlplane.Task
	host *host // nil: not asked for, or it has none yet
}

// liveTask is a live task of the service, also one that is leaving.
type liveTask struct {
	knownTask
	status *controlplane.TaskStatus
}

// looks are the live tasks that services had when they were last looked at. A task's record never changes, so the next look need not find it
// again; nor its host, which it keeps for life.
type looks struct {
	mu sync.Mutex
	of map[state.Key]*memory
}

// memory is that of one service, which one look at a time is at.
type memory struct {
	tasks []knownTask // in the order of their keys
	hosts uint64      // which hosts the tasks' are of
}

// size is how many live tasks the service had.
func (l *looks) size(service state.Key) int { return len(l.get(service).tasks) }

// get is for the service's look.
func (l *looks) get(service state.Key) memory {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.of[service]; m != nil {
		return *m
	}
	return memory{}
}

// set keeps the tasks that a look has found, in place of those of the look before.
func (l *looks) set(service state.Key, live []liveTask, hosts uint64) {
	l.mu.Lock()
	m := l.of[service]
	if m == nil {
		m = &memory{}
		l.of[service] = m
	}
	if len(live) == 0 {
		delete(l.of, service)
	}
	l.mu.Unlock()
	before := len(m.tasks)
	if cap(m.tasks) > 2*len(live) {
		m.tasks, before = nil, 0
	}
	m.hosts, m.tasks = hosts, slices.Grow(m.tasks[:0], len(live))
	for i := range live {
		m.tasks = append(m.tasks, live[i].knownTask)
	}
	if before > len(live) {
		clear(m.tasks[len(live):before])
	}
}

// forget forgets all: who does not lead does not look.
func (l *looks) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.of)
}

// liveTasks appends the service's tasks in v to live, in the order of their keys; known are those of a look before.
func liveTasks(live []liveTask, v *state.View, service state.Key, known memory, hosts *hosts) []liveTask {
	live = slices.Grow(live, len(known.tasks))
	before := known.tasks
	for key, status := range controlplane.LiveTasksByService.ScanKeys(v, service) {
		for len(before) > 0 && before[0].key < key {
			before = before[1:]
		}
		t := liveTask{status: status}
		if len(before) > 0 && before[0].key == key {
			if t.knownTask, before = before[0], before[1:]; known.hosts != hosts.number {
				t.host = nil
			}
		} else if task, ok := controlplane.Tasks.Get(v, key); ok {
			t.knownTask = knownTask{key: key, task: task}
		} else {
			continue
		}
		live = append(live, t)
	}
	return live
}

// room is what a look works in: as large as the service, and of no use after it, so that the next look has it again.
type room struct {
	live   []liveTask
	wanted []member
}

var rooms = sync.Pool{New: func() any { return &room{} }}

func (r *room) leave() {
	clear(r.live)
	clear(r.wanted)
	r.live, r.wanted = r.live[:0], r.wanted[:0]
	rooms.Put(r)
}

// hosts are what looks have asked of nodes since a node or a container instance last changed: seldom, beside tasks.
type hosts struct {
	number           uint64 // of those there were
	nodes, instances state.Version

	mu    sync.RWMutex
	of    map[string]*host // by node
	zones map[string]int   // by name
}

// host is immutable.
type host struct {
	at      int          // among the hosts, from 1
	zone    int          // among the zones; 0: it has none
	inZone  string       // its name
	resting []membership // those that are not ACTIVE
}

// nowhere is where tasks are that have no host.
var nowhere = &host{}

type membership struct {
	scope   controlplane.Scope
	cluster string
}

// in returns the node's, as it is in v, whose tables are of h's versions.
func (h *hosts) in(v *state.View, node string) *host {
	h.mu.RLock()
	one := h.of[node]
	h.mu.RUnlock()
	if one != nil {
		return one
	}
	one, zone := &host{}, ""
	if n, ok := controlplane.Nodes.Get(v, state.K(node)); ok {
		zone = n.Attributes["ecs.availability-zone"]
		one.inZone = zone
	}
	for c := range controlplane.ContainerInstancesByNode.Scan(v, state.K(node)) {
		if c.Status != capacity.Active {
			one.resting = append(one.resting, membership{c.Scope(), c.Cluster})
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if other := h.of[node]; other != nil {
		return other
	}
	var known bool
	if one.zone, known = h.zones[zone]; !known {
		one.zone = len(h.zones)
		h.zones[zone] = one.zone
	}
	h.of[node] = one
	one.at = len(h.of)
	return one
}

// hostsCache has the last ones.
type hostsCache struct {
	mu    sync.Mutex
	count uint64
	last  *hosts
}

// of are the hosts of v's versions of the tables.
func (c *hostsCache) of(v *state.View) *hosts {
	c.mu.Lock()
	defer c.mu.Unlock()
	nodes, instances := controlplane.Nodes.Version(v), controlplane.ContainerInstances.Version(v)
	if c.last == nil || c.last.nodes != nodes || c.last.instances != instances {
		c.count++
		c.last = &hosts{number: c.count, nodes: nodes, instances: instances, of: map[string]*host{}, zones: map[string]int{"": 0}}
	}
	return c.last
}
