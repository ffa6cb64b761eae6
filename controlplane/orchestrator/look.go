package orchestrator

import (
	"sync"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// A look reads all of a service's tasks, so what it reads of each counts. Whatever is kept here between looks follows from the records: losing it
// costs a longer look.

// liveTask is a live task of the service, also one that is leaving.
type liveTask struct {
	key    state.Key // of both
	status *controlplane.TaskStatus
	task   *controlplane.Task
}

// looks are the live tasks that services had when they were last looked at. A task's record never changes, so the next look need not find it again.
type looks struct {
	mu sync.Mutex
	of map[state.Key][]knownTask
}

// knownTask is all that is kept of a task: a status would keep what has been replaced since alive.
type knownTask struct {
	key  state.Key
	task *controlplane.Task
}

// size is how many live tasks the service had.
func (l *looks) size(service state.Key) int { return len(l.get(service)) }

func (l *looks) get(service state.Key) []knownTask {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.of[service]
}

func (l *looks) set(service state.Key, live []liveTask) {
	known := make([]knownTask, len(live))
	for i, t := range live {
		known[i] = knownTask{t.key, t.task}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of[service] = known; len(known) == 0 {
		delete(l.of, service)
	}
}

// forget forgets all: who does not lead does not look.
func (l *looks) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.of)
}

// liveTasks reads the service's tasks in v, in the order of their keys; known are those of a look before, in that order.
func liveTasks(v *state.View, service state.Key, known []knownTask) []liveTask {
	live := make([]liveTask, 0, len(known))
	for key, status := range controlplane.LiveTasksByService.ScanKeys(v, service) {
		for len(known) > 0 && known[0].key < key {
			known = known[1:]
		}
		if len(known) > 0 && known[0].key == key {
			live = append(live, liveTask{key, status, known[0].task})
		} else if t, ok := controlplane.Tasks.Get(v, key); ok {
			live = append(live, liveTask{key, status, t})
		}
	}
	return live
}

// hosts are what looks have asked of nodes since a node or a container instance last changed: seldom, beside tasks.
type hosts struct {
	nodes, instances state.Version

	mu sync.RWMutex
	of map[string]*host // by node
}

// host is immutable.
type host struct {
	zone    string
	resting []membership // those that are not ACTIVE
}

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
	one = &host{}
	if n, ok := controlplane.Nodes.Get(v, state.K(node)); ok {
		one.zone = n.Attributes["ecs.availability-zone"]
	}
	for c := range controlplane.ContainerInstancesByNode.Scan(v, state.K(node)) {
		if c.Status != capacity.Active {
			one.resting = append(one.resting, membership{c.Scope(), c.Cluster})
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.of[node] = one
	return one
}

// hostsCache has the last ones.
type hostsCache struct {
	mu   sync.Mutex
	last *hosts
}

// of are the hosts of v's versions of the tables.
func (c *hostsCache) of(v *state.View) *hosts {
	c.mu.Lock()
	defer c.mu.Unlock()
	nodes, instances := controlplane.Nodes.Version(v), controlplane.ContainerInstances.Version(v)
	if c.last == nil || c.last.nodes != nodes || c.last.instances != instances {
		c.last = &hosts{nodes: nodes, instances: instances, of: map[string]*host{}}
	}
	return c.last
}
