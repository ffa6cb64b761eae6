package orchestrator

import (
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// TestLooksAgreeWithRecords holds what a look has by the one before against all there is, while tasks come, change and go.
func TestLooksAgreeWithRecords(t *testing.T) {
	store := statetest.New(t, controlplane.Schema...)
	service := scope.Key("default", "web")
	change := func(fn func(tx *state.Tx)) {
		t.Helper()
		if _, err := store.Update(t.Context(), func(tx *state.Tx) error { fn(tx); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	l := looks{of: map[state.Key][]knownTask{}}
	for round := range 12 {
		change(func(tx *state.Tx) {
			for i := range 4 {
				controlplane.CreateTask(tx, &controlplane.Task{
					Account: scope.Account, Region: scope.Region, Cluster: "default", Id: fmt.Sprintf("%d-%02d", (round*7+i*3)%10, round), TaskDefinition: "web:1", Service: "web", Deployment: fmt.Sprint(round),
				}, nil)
			}
		})
		live := liveTasks(store.View(), service, l.get(service))
		if want := liveTasks(store.View(), service, nil); !slices.Equal(live, want) {
			t.Fatalf("round %d: known are %v, there are %v", round, live, want)
		}
		for _, one := range live {
			if one.task.Id != one.status.Id || one.key != controlplane.Tasks.Key(one.task) {
				t.Fatalf("task %s has status %s and key %s", one.task.Id, one.status.Id, one.key)
			}
		}
		l.set(service, live)
		if l.size(service) != len(live) {
			t.Errorf("%d tasks are %d", len(live), l.size(service))
		}
		change(func(tx *state.Tx) {
			ended := proto.CloneOf(live[round%len(live)].status)
			ended.Observed = agentapi.TaskState_STOPPED
			controlplane.TaskStatuses.Put(tx, ended)
			controlplane.DeleteTask(tx, live[(round+1)%len(live)].status)
		})
	}
	l.set(service, nil)
	if len(l.of) != 0 {
		t.Error("a service without tasks is remembered")
	}
}

// TestHostsFollowTheirRecords: they are forgotten when a node or an instance changes, and not otherwise.
func TestHostsFollowTheirRecords(t *testing.T) {
	store := statetest.New(t, controlplane.Schema...)
	put := func(fn func(tx *state.Tx)) *state.View {
		t.Helper()
		if _, err := store.Update(t.Context(), func(tx *state.Tx) error { fn(tx); return nil }); err != nil {
			t.Fatal(err)
		}
		return store.View()
	}
	instance := &controlplane.ContainerInstance{Account: scope.Account, Region: scope.Region, Cluster: "default", Id: "i", Node: "n", Status: "ACTIVE"}
	var c hostsCache
	v := put(func(tx *state.Tx) {
		controlplane.Nodes.Put(tx, &controlplane.Node{Id: "n", Attributes: map[string]string{"ecs.availability-zone": "z"}})
		controlplane.ContainerInstances.Put(tx, instance)
	})
	first := c.of(v)
	at := membership{scope, "default"}
	if h := first.in(v, "n"); h.zone != "z" || len(h.resting) != 0 || first.in(v, "n") != h {
		t.Errorf("got %+v", h)
	}
	if again := c.of(put(func(tx *state.Tx) {
		controlplane.Clusters.Put(tx, &controlplane.Cluster{Account: scope.Account, Region: scope.Region, Name: "default"})
	})); again != first {
		t.Error("forgotten for a cluster")
	}
	draining := proto.CloneOf(instance)
	draining.Status = "DRAINING"
	v = put(func(tx *state.Tx) { controlplane.ContainerInstances.Put(tx, draining) })
	if h := c.of(v).in(v, "n"); !slices.Equal(h.resting, []membership{at}) || len(first.in(v, "n").resting) != 0 {
		t.Errorf("it drains: %+v", h)
	}
	v = put(func(tx *state.Tx) { controlplane.Nodes.Delete(tx, state.K("n")) })
	if h := c.of(v).in(v, "n"); h.zone != "" {
		t.Errorf("it is gone: %+v", h)
	}
}
