package dispatcher

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

func (p *plane) amazonHost(node string) {
	p.change(func(tx *state.Tx) error {
		controlplane.Nodes.Put(tx, &controlplane.Node{Id: node, Status: capacity.NodeAway, AmazonAgent: &controlplane.AmazonAgent{}, Resources: &agentapi.NodeResources{CpuUnits: 8}})
		return nil
	})
}

func (p *plane) node(id string) *controlplane.Node {
	n, _ := controlplane.Nodes.Get(p.Store.View(), state.K(id))
	return n
}

// A node with Amazon's agent is READY while it has a session. Without one it is AWAY, and its tasks are taken to run, until it is DOWN.
func TestNodeOfAmazonsAgentIsAwayFirst(t *testing.T) {
	p := newPlane(t)
	h := hello("a")
	h.Runtime = capacity.RuntimeAmazon
	refused := p.connect(h)
	if _, err := refused.stream.Recv(); err == nil {
		t.Error("a node that nobody has registered joins")
	}
	p.amazonHost("a")
	a := p.connect(h)
	a.receive()
	a.update()
	if n := p.node("a"); n.Status != capacity.NodeReady || n.Resources.CpuUnits != 8 {
		t.Fatalf("its hello makes it %v", n)
	}
	pass := func(d time.Duration, until string) {
		t.Helper()
		for range d / (3 * time.Second) {
			p.until("the watch sleeps", func() bool { return p.clock.Waiters() > 0 })
			if p.node("a").Status == until {
				return
			}
			p.clock.Advance(3 * time.Second)
		}
	}
	pass(30*time.Second, capacity.NodeAway)
	p.until("it is away", func() bool { return p.node("a").Status == capacity.NodeAway })
	a.send(&agentapi.Up{Body: &agentapi.Up_Heartbeat{Heartbeat: &agentapi.Heartbeat{}}})
	p.until("it is heard", func() bool { return p.heard("a").Equal(p.clock.Now()) })
	pass(10*time.Second, capacity.NodeReady) // by when the lease is over, and the watch has looked
	if n := p.node("a"); n.Status != capacity.NodeReady {
		t.Fatalf("after it was heard it is %s", n.Status)
	}
	for range 60 {
		p.until("the watch sleeps", func() bool { return p.clock.Waiters() > 0 })
		p.clock.Advance(3 * time.Second)
		if p.node("a").Status == capacity.NodeDown {
			t.Fatal("it is given up within 3 minutes")
		}
	}
	p.until("it is given up", func() bool { p.clock.Advance(3 * time.Second); return p.node("a").Status == capacity.NodeDown })
}

// Health that comes by itself, to whichever server, is put onto the last report.
func TestHealthAlone(t *testing.T) {
	s := newSeveral(t, 10*time.Second)
	leader, followers := s.split()
	task := leader.task("a")
	leader.change(func(tx *state.Tx) error {
		d, _ := controlplane.TaskDefinitions.Get(tx, scope.FamilyRevisionKey("web:1"))
		d = proto.CloneOf(d)
		d.DefinitionJson = []byte(`{"containerDefinitions":[{"name":"web","image":"nginx","healthCheck":{"command":["CMD","true"]}}]}`)
		controlplane.TaskDefinitions.Put(tx, d)
		return leader.life.Report(tx, "a", &agentapi.TaskStatus{TaskId: task.Id, Epoch: 1, State: agentapi.TaskState_RUNNING, Containers: []*agentapi.ContainerStatus{{Name: "web", RuntimeId: "r"}}})
	})
	for _, c := range []struct {
		with   *plane
		node   string
		health agentapi.Health
		want   string
	}{
		{leader, "a", agentapi.Health_HEALTH_HEALTHY, "HEALTHY"},
		{followers[0], "a", agentapi.Health_HEALTH_UNHEALTHY, "UNHEALTHY"},
		{followers[0], "b", agentapi.Health_HEALTH_HEALTHY, "UNHEALTHY"}, // which has no such task
	} {
		err := c.with.ReportHealth(t.Context(), c.node, []*agentapi.TaskStatus{{TaskId: task.Id, Containers: []*agentapi.ContainerStatus{{Name: "web", Health: c.health}}}})
		if st := leader.status(task); err != nil || st.Health != c.want || st.Report.Containers[0].RuntimeId != "r" || st.Observed != agentapi.TaskState_RUNNING {
			t.Errorf("%s says %v: %v, %v", c.node, c.health, st, err)
		}
	}
}
