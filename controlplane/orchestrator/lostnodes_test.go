package orchestrator

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// down says that a node is DOWN, as the dispatcher does; by an earlier build it is said without the time.
func (w *world) down(node string, earlier bool) {
	w.change(func(tx *state.Tx) error {
		n, _ := controlplane.Nodes.Get(tx, state.K(node))
		n = proto.CloneOf(n)
		if n.Status = capacity.NodeDown; !earlier {
			n.DownSince = timestamppb.New(w.clock.Now())
		}
		controlplane.Nodes.Put(tx, n)
		return nil
	})
}

// hosts are the nodes and the container instances that there are.
func (w *world) hosts() (list []string) {
	for n := range controlplane.Nodes.Scan(w.store.View(), state.K()) {
		list = append(list, n.Id)
	}
	for ci := range controlplane.ContainerInstances.Scan(w.store.View(), state.K()) {
		list = append(list, ci.Id)
	}
	return list
}

// TestLostHostsAreForgotten once the tasks that were lost with them have been: with their memberships and tags, and no other with them.
func TestLostHostsAreForgotten(t *testing.T) {
	w := newWorld(t)
	for _, n := range []string{"lost", "back", "stays"} {
		w.command([]string{"node", n, "zone=z1"}, nil)
	}
	w.change(func(tx *state.Tx) error {
		controlplane.PutTags(tx, scope, scope.ContainerInstanceARN("default", "ci-lost"), map[string]string{"a": "b"})
		controlplane.CreateTask(tx, &controlplane.Task{Account: scope.Account, Region: scope.Region, Cluster: "default", Id: "task", TaskDefinition: "web:1"}, nil)
		return nil
	})
	w.settle()
	key := scope.Key("default", "task")
	if s, _ := controlplane.TaskStatuses.Get(w.store.View(), key); s.Node != "lost" {
		t.Fatalf("the task is on %q", s.Node)
	}
	w.down("lost", false)
	w.down("back", false)
	w.settle()
	w.clock.Advance(30*day - time.Second)
	w.settle()
	if got := w.hosts(); len(got) != 6 {
		t.Fatalf("after 30 days less a second there are %v", got)
	}
	w.change(func(tx *state.Tx) error {
		return capacity.Rule{Account: scope.Account, Region: scope.Region}.Join(tx, &agentapi.Hello{NodeId: "back", Resources: &agentapi.NodeResources{}}, w.clock.Now())
	})
	w.clock.Advance(time.Second)
	w.settle()
	w.settle()
	got := slices.DeleteFunc(w.hosts(), func(id string) bool { return len(id) == 32 }) // that of its anew is not called ci-back
	if !slices.Equal(got, []string{"back", "stays", "ci-back", "ci-stays"}) {
		t.Errorf("after 30 days there are %v", got)
	}
	v := w.store.View()
	if _, ok := controlplane.TaskStatuses.Get(v, key); ok {
		t.Error("a task names a host that is not there")
	}
	if tags := controlplane.TagsOf(v, scope, scope.ContainerInstanceARN("default", "ci-lost")); len(tags) > 0 {
		t.Errorf("it left tags %v", tags)
	}
}

// TestHostsLostToAnEarlierBuild count from when this one saw them.
func TestHostsLostToAnEarlierBuild(t *testing.T) {
	w := newWorld(t)
	w.command([]string{"node", "a", "zone=z1"}, nil)
	w.down("a", true)
	w.settle()
	w.clock.Advance(30*day - time.Second)
	w.settle()
	if got := w.hosts(); len(got) != 2 {
		t.Fatalf("there are %v", got)
	}
	w.clock.Advance(time.Second)
	w.settle()
	w.settle()
	if got := w.hosts(); len(got) != 0 {
		t.Errorf("there are %v", got)
	}
}

// TestHostWithTasksIsKept: nothing runs on a host that is not there, not even for the moment until its tasks have been ended.
func TestHostWithTasksIsKept(t *testing.T) {
	w := newWorld(t)
	w.command([]string{"node", "a", "zone=z1"}, nil)
	w.down("a", false)
	w.clock.Advance(31 * day)
	v := w.store.View()
	stale := w.o.staleNodes(v, w.clock.Now())
	if len(stale) != 1 {
		t.Fatalf("%d steps", len(stale))
	}
	w.change(func(tx *state.Tx) error {
		s, _ := controlplane.CreateTask(tx, &controlplane.Task{Account: scope.Account, Region: scope.Region, Cluster: "default", Id: "task", TaskDefinition: "web:1"}, nil).AdvancePlaced("a")
		controlplane.TaskStatuses.Put(tx, s)
		return nil
	})
	w.change(func(tx *state.Tx) error { stale[0](tx); return nil })
	if got := w.hosts(); len(got) != 2 {
		t.Errorf("a step that was decided before there was a task leaves %v", got)
	}
	if again := w.o.staleNodes(w.store.View(), w.clock.Now()); len(again) != 0 {
		t.Errorf("with a task there are %d steps", len(again))
	}
}

// TestHostOfManyClusters: what it is a member of goes in as many transactions as it takes.
func TestHostOfManyClusters(t *testing.T) {
	w := newWorld(t)
	w.change(func(tx *state.Tx) error {
		controlplane.Nodes.Put(tx, &controlplane.Node{Id: "a", Status: capacity.NodeDown, EveryCluster: true, DownSince: timestamppb.New(w.clock.Now())})
		for i := range 70 {
			controlplane.ContainerInstances.Put(tx, &controlplane.ContainerInstance{Account: scope.Account, Region: scope.Region, Cluster: fmt.Sprint("c", i), Id: "a", Node: "a", Status: capacity.Active})
		}
		return nil
	})
	w.clock.Advance(30 * day)
	w.settle()
	w.settle()
	if got := w.hosts(); len(got) != 0 {
		t.Errorf("there are %v", got)
	}
}
