package placement

import (
	"errors"
	"fmt"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/scheduler"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// ErrNoInstances: the cluster has no container instance at all. ECS answers RunTask with an exception then, not with failures.
var ErrNoInstances = errors.New("no container instances were found in your cluster")

// Failure is why a container instance did not take a task, as RunTask answers it.
type Failure struct {
	ARN    string // of the container instance
	Reason string // ECS's: RESOURCE:MEMORY, AGENT, …
	Detail string // in full: which dimension, asked, free
}

// PlaceNow places tasks that tx has created (their statuses are put already), one after the other, and says why for the first
// one that no instance takes; those behind it are left unplaced as well. It returns the statuses of the tasks that are placed, a
// prefix of the tasks. The caller removes the others from its transaction or does not create them.
//
// Tasks of the serverless pool are none of its business: they wait in PROVISIONING for Run.
func (p *Placer) PlaceNow(tx *state.Tx, tasks []*controlplane.Task) ([]*controlplane.TaskStatus, []Failure, error) {
	if len(tasks) == 0 {
		return nil, nil, nil
	}
	cluster, ok := controlplane.Clusters.Get(tx, tasks[0].Scope().Key(tasks[0].Cluster))
	if !ok {
		return nil, nil, fmt.Errorf("place tasks: cluster %s is gone", tasks[0].Cluster)
	}
	if capacity.EnsureInstances(tx, cluster, p.clock.Now()) {
		// Instances that are in tx alone.
		return p.placeOn(tx, p.loadCluster(tx, p.store.View(), cluster), cluster, tasks)
	}
	p.now.mu.Lock()
	defer p.now.mu.Unlock()
	l, v := p.now.latest(p)
	if v.Revision() < tx.Revision() { // just applied, and not announced yet
		return p.placeOn(tx, p.loadCluster(tx, p.store.View(), cluster), cluster, tasks)
	}
	mark := l.Mark()
	defer l.Rollback(mark)
	return p.placeOn(tx, l, cluster, tasks)
}

// placeOn chooses by a ledger that is no older than what tx reads. Reading every node's tasks in tx would make it depend on all of
// them; a node that is chosen is read again in tx, which guards it: either it is as the ledger has it up to the commit, or tx
// conflicts and runs again.
func (p *Placer) placeOn(tx *state.Tx, l *scheduler.Ledger, cluster *controlplane.Cluster, tasks []*controlplane.Task) ([]*controlplane.TaskStatus, []Failure, error) {
	var placed []*controlplane.TaskStatus
	for _, t := range tasks {
		class, err := l.Class(specOf(t))
		if err != nil {
			return nil, nil, err
		}
		if class.Members() == 0 {
			return nil, nil, ErrNoInstances
		}
		key := controlplane.Tasks.Key(t)
		where, ok := l.Place(class, string(key))
		if !ok {
			return placed, failures(cluster, l.Explain(class)), nil
		}
		for range controlplane.LiveTasksByNode.Scan(tx, state.K(where.Node)) {
			// reading is what guards
		}
		controlplane.Nodes.Get(tx, state.K(where.Node))
		controlplane.ContainerInstances.Get(tx, cluster.Scope().Key(cluster.Name, where.Instance))
		s, ok := controlplane.TaskStatuses.Get(tx, key)
		if !ok {
			return nil, nil, fmt.Errorf("place tasks: task %s was not created", t.Id)
		}
		if s, ok = s.AdvancePlaced(where.Node, where.GPUs...); !ok {
			return nil, nil, fmt.Errorf("place tasks: task %s is not to be placed", t.Id)
		}
		controlplane.TaskStatuses.Put(tx, s)
		placed = append(placed, s)
	}
	return placed, nil, nil
}

// loadCluster is the ledger of one cluster's container instances, with all that runs on their nodes.
func (p *Placer) loadCluster(tx *state.Tx, v *state.View, c *controlplane.Cluster) *scheduler.Ledger {
	l := scheduler.New(uint64(p.clock.Now().UnixNano()))
	for in := range controlplane.ContainerInstances.Scan(tx, c.Scope().Key(c.Name)) {
		n, ok := controlplane.Nodes.Get(tx, state.K(in.Node))
		if !ok {
			continue
		}
		setNode(l, n)
		setInstance(l, in, n)
		for key, s := range controlplane.LiveTasksByNode.ScanKeys(v, state.K(in.Node)) {
			setStatus(l, v, key, s)
		}
	}
	return l
}

// failures names every instance once, with what is first in its way.
func failures(c *controlplane.Cluster, all [][]scheduler.Reason) []Failure {
	list := make([]Failure, 0, len(all))
	for _, host := range all {
		list = append(list, Failure{ARN: c.Scope().ContainerInstanceARN(c.Name, host[0].Instance), Reason: host[0].Code, Detail: host[0].String()})
	}
	return list
}

// Host is a host's answer to why a task is not there.
type Host struct {
	Instance string // container instance id; empty in the serverless pool
	Node     string // host name
	// Reasons is what is in the way: "RESOURCE:MEMORY: asked 512 MiB, free 128 MiB"; empty: nothing, it could run there.
	Reasons []string
}

// Explanation is where a task is, or host by host why it is nowhere.
type Explanation struct {
	Node  string // the task's host name, once it has one
	Event string // the service event's sentence, when no host can take the task
	Hosts []Host // nearest first
}

// Explain explains one task as things are in v.
func (p *Placer) Explain(v *state.View, key state.Key) (Explanation, error) {
	t, ok := controlplane.Tasks.Get(v, key)
	s, is := controlplane.TaskStatuses.Get(v, key)
	if !ok || !is {
		return Explanation{}, fmt.Errorf("no task %s", key)
	}
	l := load(v, 0)
	var e Explanation
	if n, ok := controlplane.Nodes.Get(v, state.K(s.Node)); ok {
		e.Node = n.Name
		if s.Observed == agentapi.TaskState_STOPPED || s.Node != "" {
			return e, nil
		}
	}
	class, err := l.Class(specOf(t))
	if err != nil {
		return e, err
	}
	all := l.Explain(class)
	e.Event = sentence(t, all, class.Members())
	for _, host := range all {
		h := Host{Instance: host[0].Instance, Node: host[0].Node}
		if n, ok := controlplane.Nodes.Get(v, state.K(h.Node)); ok {
			h.Node = n.Name
		}
		if isFargate(t) {
			h.Instance = ""
		}
		for _, r := range host {
			h.Reasons = append(h.Reasons, r.String())
		}
		e.Hosts = append(e.Hosts, h)
	}
	return e, nil
}

// sentence is the service event for a task that no host takes; standalone tasks are named by their group. It is empty if one does.
func sentence(t *controlplane.Task, all [][]scheduler.Reason, members int) string {
	if len(all) < members {
		return ""
	}
	if len(all) == 0 {
		return noRoom(t, scheduler.Reason{})
	}
	return noRoom(t, all[0][0])
}

// noRoom is the sentence, with what is in the way on the nearest host.
func noRoom(t *controlplane.Task, nearest scheduler.Reason) string {
	if !isFargate(t) {
		return scheduler.NoRoom(nameOf(t), nearest)
	}
	return "(service " + nameOf(t) + ") was unable to place a task. Reason: Capacity is unavailable at this time. " +
		"Please try again later or in a different availability zone. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide."
}
