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

// hosts are what looks ask of nodes, of all of them, made anew when one has changed. Immutable.
type hosts struct {
	nodes     state.Version
	instances state.Version
	zones     map[string]string // by node
	resting   map[resting]bool
}

// resting: the node is of the cluster, and its container instance there is not ACTIVE.
type resting struct {
	scope         controlplane.Scope
	cluster, node string
}

// hostsCache has the last ones.
type hostsCache struct {
	mu   sync.Mutex
	last *hosts
}

func (c *hostsCache) in(v *state.View) *hosts {
	c.mu.Lock()
	defer c.mu.Unlock()
	nodes, instances := controlplane.Nodes.Version(v), controlplane.ContainerInstances.Version(v)
	if h := c.last; h != nil && h.nodes == nodes && h.instances == instances {
		return h
	}
	h := &hosts{nodes: nodes, instances: instances, zones: map[string]string{}, resting: map[resting]bool{}}
	for n := range controlplane.Nodes.Scan(v, state.K()) {
		h.zones[n.Id] = n.Attributes["ecs.availability-zone"]
	}
	for c := range controlplane.ContainerInstances.Scan(v, state.K()) {
		if c.Status != capacity.Active {
			h.resting[resting{c.Scope(), c.Cluster, c.Node}] = true
		}
	}
	c.last = h
	return h
}
