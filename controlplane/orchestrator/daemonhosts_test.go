package orchestrator

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// host makes a node what change makes of it.
func (w *world) host(id string, change func(*controlplane.Node)) {
	w.change(func(tx *state.Tx) error {
		n, _ := controlplane.Nodes.Get(tx, state.K(id))
		n = proto.CloneOf(n)
		n.Attributes = maps.Clone(n.Attributes)
		change(n)
		controlplane.Nodes.Put(tx, n)
		return nil
	})
	w.settle()
}

// daemons are the nodes on which the service has a task that is wanted, and how many it wants.
func (w *world) daemons() (on string, desired uint32) {
	var nodes []string
	for s := range controlplane.LiveTasksByService.Scan(w.store.View(), scope.Key("default", "web")) {
		if s.Desired.String() == "RUNNING" {
			nodes = append(nodes, s.Node)
		}
	}
	slices.Sort(nodes)
	s, _ := controlplane.Services.Get(w.store.View(), scope.Key("default", "web"))
	return strings.Join(nodes, " "), s.DesiredCount
}

func (w *world) wantDaemons(when, on string, desired uint32) {
	w.t.Helper()
	if got, n := w.daemons(); got != on || n != desired {
		w.t.Errorf("%s: tasks on %q, %d are wanted; not on %q, %d", when, got, n, on, desired)
	}
}

// TestDaemonFollowsAgents: an agent that connects gets its task; one of Amazon's that is away keeps its own, and gets none.
func TestDaemonFollowsAgents(t *testing.T) {
	w := newWorld(t)
	w.change(func(tx *state.Tx) error {
		d, _ := controlplane.TaskDefinitions.Get(tx, scope.TaskDefinitionKey("web", 1))
		d = proto.CloneOf(d)
		d.Demand.AgentAttributes = []string{"docker"}
		controlplane.TaskDefinitions.Put(tx, d)
		return nil
	})
	for _, n := range []string{"a", "b", "own"} {
		w.command([]string{"node", n, "zone=z1"}, nil)
	}
	for _, n := range []string{"a", "b"} {
		w.host(n, func(n *controlplane.Node) {
			n.Status, n.AmazonAgent, n.Attributes["docker"] = capacity.NodeAway, &controlplane.AmazonAgent{}, ""
		})
	}
	w.command([]string{"create", "daemon", "min=0", "max=100"}, nil)
	w.settle()
	w.wantDaemons("while they are only registered", "own", 1)
	w.host("a", func(n *controlplane.Node) { n.Status = capacity.NodeReady })
	w.command([]string{"report", "RUNNING", "all"}, nil)
	w.settle()
	w.wantDaemons("once one has connected", "a own", 2)
	w.host("a", func(n *controlplane.Node) { n.Status = capacity.NodeAway })
	w.wantDaemons("while it is away", "a own", 2)
	w.down("a", false)
	w.settle()
	w.wantDaemons("when it is down", "own", 1)
	w.host("a", func(n *controlplane.Node) { n.Status, n.DownSince = capacity.NodeReady, nil })
	w.wantDaemons("when it is back", "a own", 2)
}

// TestDaemonIsOnHostsThatCanHaveIt, and on no other: it wants as many, stops what does not fit any more, and reaches a steady state.
func TestDaemonIsOnHostsThatCanHaveIt(t *testing.T) {
	w := newWorld(t)
	for _, n := range []string{"edge", "other", "amazon"} {
		w.command([]string{"node", n, "zone=z1"}, nil)
	}
	edge := func(n *controlplane.Node) { n.Attributes["tier"] = "edge" }
	w.host("edge", edge)
	w.host("amazon", func(n *controlplane.Node) { edge(n); n.AmazonAgent = &controlplane.AmazonAgent{} }) // whose agent lacks what the task asks of it
	w.command([]string{"create", "daemon", "min=0", "max=100"}, nil)
	w.change(func(tx *state.Tx) error {
		s, _ := controlplane.Services.Get(tx, scope.Key("default", "web"))
		s = proto.CloneOf(s)
		s.PlacementConstraintsJson = `[{"type":"memberOf","expression":"attribute:tier == edge"}]`
		controlplane.Services.Put(tx, s)
		return nil
	})
	w.settle()
	w.wantDaemons("at first", "edge", 1)
	w.command([]string{"report", "RUNNING", "all"}, nil)
	w.settle()
	for d := range controlplane.Deployments.Scan(w.store.View(), scope.Key("default", "web")) {
		if d.RolloutState != rolloutCompleted {
			t.Errorf("its deployment is %s", d.RolloutState)
		}
	}
	w.host("other", edge)
	w.wantDaemons("when another is one of them", "edge other", 2)
	w.host("edge", func(n *controlplane.Node) { delete(n.Attributes, "tier") })
	w.wantDaemons("when one is none any more", "other", 1)
}
