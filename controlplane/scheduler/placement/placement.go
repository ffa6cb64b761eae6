// Package placement gives tasks their nodes: it feeds the scheduler with records and commits what it decides.
//
// A Placer has two ways. Run is the scheduler's loop: one owner, on the leader, that keeps a ledger from what it watches and
// places every unplaced task, in batches. PlaceNow places the tasks of a RunTask within the request's own transaction, because
// ECS answers RunTask on container instances with failures and creates no task that it cannot place. Explain says host by host why
// a task is where it is not.
//
// Invariants:
//
//  1. A placement commits only if every live task on its node was known when the node was chosen (a range guard on the node's
//     tasks); so nodes are never overcommitted, whoever else places at the same time.
//  2. Only unplaced tasks are placed, and once.
//
// Run owns its ledger. PlaceNow keeps another, made when it is first asked for; its mutex is not held across I/O. Explain, which tells how
// things are in a view, makes its own.
package placement

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/scheduler"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// serverless is the pool of hosts for FARGATE tasks. Clusters' pools are named by their keys, which contain zero bytes.
const serverless = "serverless"

// Placer places tasks.
type Placer struct {
	store *state.Store
	clock clock.Clock
	log   *slog.Logger
	now   kept
}

// New makes a placer on the store.
func New(store *state.Store, clk clock.Clock, log *slog.Logger) *Placer {
	return &Placer{store: store, clock: clk, log: log}
}

// poolOf is where a task may go.
func poolOf(t *controlplane.Task) string {
	if isFargate(t) {
		return serverless
	}
	return clusterPool(t.Scope(), t.Cluster)
}

func clusterPool(s controlplane.Scope, cluster string) string { return string(s.Key(cluster)) }

func isFargate(t *controlplane.Task) bool {
	return t.LaunchType == "FARGATE" || strings.HasPrefix(t.CapacityProvider, "FARGATE")
}

// specOf is what the scheduler has to know of a task.
func specOf(t *controlplane.Task) scheduler.Spec {
	s := scheduler.Spec{
		Pool: poolOf(t), Group: groupOf(t), CPU: t.Demand.GetCpuUnits(), Memory: t.Demand.GetMemoryMib(), GPUs: t.Demand.GetGpus(), Ports: portsOf(t.Demand),
		Attributes: t.Demand.GetAttributes(), AgentAttributes: t.Demand.GetAgentAttributes(), Zone: t.AvailabilityZone,
	}
	if t.EnableExecuteCommand && len(s.AgentAttributes) > 0 {
		s.AgentAttributes = append(slices.Clone(s.AgentAttributes), controlplane.AmazonAgentExec)
	}
	for _, c := range controlplane.DecodeShape[[]types.PlacementConstraint](t.PlacementConstraintsJson) {
		s.Constraints = append(s.Constraints, scheduler.Constraint{Type: string(c.Type), Expression: deref(c.Expression)})
	}
	for _, st := range controlplane.DecodeShape[[]types.PlacementStrategy](t.PlacementStrategyJson) {
		s.Strategies = append(s.Strategies, scheduler.Strategy{Type: string(st.Type), Field: deref(st.Field)})
	}
	if len(s.Strategies) == 0 && (t.Service != "" || isFargate(t)) {
		// ECS spreads services over availability zones by itself.
		s.Strategies = []scheduler.Strategy{{Type: "spread", Field: "attribute:ecs.availability-zone"}}
	}
	return s
}

// groupOf keeps accounts apart where they share hosts: groups in the serverless pool carry the cluster's key.
func groupOf(t *controlplane.Task) string {
	if isFargate(t) {
		return clusterPool(t.Scope(), t.Cluster) + t.Group
	}
	return t.Group
}

func portsOf(d *controlplane.Demand) []scheduler.Port {
	var ports []scheduler.Port
	for _, p := range d.GetHostPorts() {
		ports = append(ports, scheduler.Port{Number: p.Port, Protocol: p.Protocol})
	}
	return ports
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func taskOf(key state.Key, t *controlplane.Task, s *controlplane.TaskStatus) scheduler.Task {
	return scheduler.Task{
		ID: string(key), Pool: poolOf(t), Group: groupOf(t), CPU: t.Demand.GetCpuUnits(), Memory: t.Demand.GetMemoryMib(),
		GPUs: s.Gpus, Ports: portsOf(t.Demand), Pending: pending(s),
	}
}

func pending(s *controlplane.TaskStatus) bool { return s.Observed < agentapi.TaskState_RUNNING }

func setNode(l *scheduler.Ledger, n *controlplane.Node) {
	node := scheduler.Node{
		ID: n.Id, CPU: n.Resources.GetCpuUnits(), Memory: n.Resources.GetMemoryMib(), GPUs: n.Resources.GetGpus(), Attributes: n.Attributes, Connected: n.Status == capacity.NodeReady, Disk: n.Health.GetDisk(),
		OtherAgent: n.AmazonAgent != nil,
	}
	for _, r := range n.Resources.GetReservedPorts() {
		node.Reserved = append(node.Reserved, scheduler.PortRange{First: r.First, Last: r.Last, Protocol: r.Protocol})
	}
	l.SetNode(node)
	if n.Serverless {
		l.SetInstance(serverless, scheduler.Instance{ID: n.Id, Node: n.Id, Active: true})
	} else {
		l.RemoveInstance(serverless, n.Id)
	}
}

func setInstance(l *scheduler.Ledger, c *controlplane.ContainerInstance, n *controlplane.Node) {
	l.SetInstance(clusterPool(c.Scope(), c.Cluster), scheduler.Instance{
		ID: c.Id, Node: c.Node, Active: c.Status == capacity.Active, Attributes: c.Attributes,
		Facts: func(subject string) (string, bool) {
			if values := capacity.Facts(c, n, subject); len(values) > 0 {
				return values[0], true
			}
			return "", false
		},
	})
}

// setStatus brings one task of the ledger up to date.
func setStatus(l *scheduler.Ledger, v *state.View, key state.Key, s *controlplane.TaskStatus) {
	if !s.Live() || s.Node == "" {
		l.Remove(string(key))
		return
	}
	if l.Keep(s.Node, string(key), pending(s)) {
		return
	}
	if t, ok := controlplane.Tasks.Get(v, key); ok {
		l.Add(s.Node, taskOf(key, t, s))
	}
}

// follow brings the ledger from where it is to the end of b.
func follow(l *scheduler.Ledger, b state.Batch) {
	for _, e := range b.Events {
		switch e.Table {
		case controlplane.Nodes:
			if n, ok := e.New.(*controlplane.Node); ok {
				setNode(l, n)
			} else {
				l.RemoveNode(e.Old.(*controlplane.Node).Id)
			}
		case controlplane.ContainerInstances:
			if c, ok := e.New.(*controlplane.ContainerInstance); ok {
				n, _ := controlplane.Nodes.Get(b.View, state.K(c.Node))
				setInstance(l, c, n)
			} else {
				old := e.Old.(*controlplane.ContainerInstance)
				l.RemoveInstance(clusterPool(old.Scope(), old.Cluster), old.Node)
			}
		case controlplane.TaskStatuses:
			if s, ok := e.New.(*controlplane.TaskStatus); ok {
				setStatus(l, b.View, e.Key, s)
			} else {
				l.Remove(string(e.Key))
			}
		}
	}
}

// followed are the tables that a ledger is made from.
var followed = []state.TableInfo{controlplane.TaskStatuses, controlplane.Nodes, controlplane.ContainerInstances}

// kept is a ledger that outlives the requests it answers: making one reads every task there is.
type kept struct {
	mu      sync.Mutex
	ledger  *scheduler.Ledger // nil: not made yet
	watcher *state.Watcher
}

// latest is the ledger of the newest view, which it returns. k.mu is held.
func (k *kept) latest(p *Placer) (*scheduler.Ledger, *state.View) {
	if k.ledger != nil {
		b, err := k.watcher.Take()
		if err == nil {
			follow(k.ledger, b)
			return k.ledger, b.View
		}
	}
	v := p.store.View()
	k.ledger = load(v, uint64(p.clock.Now().UnixNano()))
	k.watcher = p.store.Watch(context.Background(), v.Revision(), followed...) // it has no goroutine
	return k.ledger, v
}

// load makes the ledger of everything in v.
func load(v *state.View, seed uint64) *scheduler.Ledger {
	l := scheduler.New(seed)
	for n := range controlplane.Nodes.Scan(v, state.K()) {
		setNode(l, n)
	}
	for c := range controlplane.ContainerInstances.Scan(v, state.K()) {
		n, _ := controlplane.Nodes.Get(v, state.K(c.Node))
		setInstance(l, c, n)
	}
	for key, s := range controlplane.LiveTasksByNode.ScanKeys(v, state.K()) {
		setStatus(l, v, key, s)
	}
	return l
}
