package placement

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/clock"
)

var scope = controlplane.Scope{Account: "000000000000", Region: "us-east-1"}

type world struct {
	t      testing.TB
	store  *state.Store
	placer *Placer
	ids    int
}

func newWorld(t testing.TB) *world {
	store := statetest.New(t, controlplane.Schema...)
	clk := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	w := &world{t: t, store: store, placer: New(store, clk, slog.New(slog.DiscardHandler))}
	w.change(func(tx *state.Tx) error {
		for _, name := range []string{"one", "two"} {
			controlplane.Clusters.Put(tx, &controlplane.Cluster{Account: scope.Account, Region: scope.Region, Name: name, Status: capacity.Active})
		}
		return nil
	})
	return w
}

func (w *world) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.placer.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

func (w *world) change(fn func(tx *state.Tx) error) {
	w.t.Helper()
	if _, err := w.store.Update(context.Background(), fn); err != nil {
		w.t.Fatal(err)
	}
}

// devNode is the node of `neargate dev`.
func (w *world) devNode(cpu, memory uint32) {
	rule := capacity.Rule{Account: scope.Account, Region: scope.Region, EveryCluster: true, Serverless: true}
	w.change(func(tx *state.Tx) error {
		return rule.Join(tx, &agentapi.Hello{NodeId: "dev", NodeName: "laptop", Resources: &agentapi.NodeResources{CpuUnits: cpu, MemoryMib: memory}}, time.Unix(0, 0))
	})
	w.change(func(tx *state.Tx) error {
		for c := range controlplane.Clusters.Scan(tx, state.K()) {
			capacity.EnsureInstances(tx, c, time.Unix(0, 0))
		}
		return nil
	})
}

func (w *world) newTask(cluster, launch string, memory uint32) *controlplane.Task {
	w.ids++
	return &controlplane.Task{
		Account: scope.Account, Region: scope.Region, Cluster: cluster, Id: fmt.Sprintf("%032d", w.ids), Group: "family:job", LaunchType: launch,
		TaskDefinition: "job:1", Demand: &controlplane.Demand{CpuUnits: 256, MemoryMib: memory}, Created: timestamppb.New(time.Unix(int64(w.ids), 0)),
	}
}

func (w *world) create(t *controlplane.Task) *controlplane.Task {
	w.change(func(tx *state.Tx) error { controlplane.CreateTask(tx, t, nil); return nil })
	return t
}

func (w *world) status(t *controlplane.Task) *controlplane.TaskStatus {
	s, _ := controlplane.TaskStatuses.Get(w.store.View(), controlplane.Tasks.Key(t))
	return s
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// TestOneNodeIsCountedOnce fills the node of dev from two clusters and from the serverless pool.
func TestOneNodeIsCountedOnce(t *testing.T) {
	w := newWorld(t)
	w.devNode(4096, 1000)
	w.run()
	first := w.create(w.newTask("one", "EC2", 400))
	w.until("the first task is placed", func() bool { return w.status(first).Node == "dev" })
	second := w.create(w.newTask("two", "FARGATE", 400))
	w.until("the second task is placed", func() bool { return w.status(second).Node == "dev" })
	third := w.create(w.newTask("two", "EC2", 400))
	w.until("the third task is refused", func() bool { return w.status(third).PlacementFailure != "" })
	s := w.status(third)
	if s.Node != "" || !strings.Contains(s.PlacementFailure, "has insufficient memory available") {
		t.Fatalf("status %v", s)
	}
	e, err := w.placer.Explain(w.store.View(), controlplane.Tasks.Key(third))
	if err != nil || len(e.Hosts) != 1 || e.Hosts[0].Node != "laptop" || !slices.Equal(e.Hosts[0].Reasons, []string{"RESOURCE:MEMORY: asked 400 MiB, free 200 MiB"}) || e.Event != s.PlacementFailure {
		t.Fatalf("explanation %+v, %v", e, err)
	}

	// What is given back goes to who waits.
	w.change(func(tx *state.Tx) error {
		s, _ := controlplane.TaskStatuses.Get(tx, controlplane.Tasks.Key(first))
		s, _ = s.AdvanceLost("EssentialContainerExited", "done", time.Unix(9, 0))
		controlplane.TaskStatuses.Put(tx, s)
		return nil
	})
	w.until("the third task is placed", func() bool { s := w.status(third); return s.Node == "dev" && s.PlacementFailure == "" })
}

// TestServiceIsToldOnce says that no capacity is an event, and one.
func TestServiceIsToldOnce(t *testing.T) {
	w := newWorld(t)
	w.change(func(tx *state.Tx) error {
		controlplane.Services.Put(tx, &controlplane.Service{Account: scope.Account, Region: scope.Region, Cluster: "one", Name: "web", Status: capacity.Active})
		for range 3 {
			task := w.newTask("one", "EC2", 1)
			task.Service = "web"
			controlplane.CreateTask(tx, task, nil)
		}
		return nil
	})
	w.run()
	events := func() []*controlplane.ServiceEvent {
		return controlplane.ServiceEventsOf(w.store.View(), scope.Key("one", "web"))
	}
	w.until("the service is told", func() bool { return len(events()) > 0 })
	w.until("every task says why it waits", func() bool {
		for s := range controlplane.UnplacedTasks.Scan(w.store.View(), state.K()) {
			if s.PlacementFailure == "" {
				return false
			}
		}
		return true
	})
	want := "(service web) was unable to place a task because no container instance met all of its requirements. Reason: No Container Instances were found in your cluster."
	if e := events(); len(e) != 1 || e[0].Message != want {
		t.Fatalf("events %v", e)
	}
	w.devNode(1024, 1024)
	w.until("all are placed", func() bool {
		return len(slices.Collect(controlplane.LiveTasksByNode.Scan(w.store.View(), state.K("dev")))) == 3
	})
}

func TestPlaceNow(t *testing.T) {
	w := newWorld(t)
	place := func(tasks ...*controlplane.Task) (placed int, failures []Failure, err error) {
		_, err = w.store.Update(context.Background(), func(tx *state.Tx) error {
			for _, task := range tasks {
				controlplane.CreateTask(tx, task, nil)
			}
			list, f, err := w.placer.PlaceNow(tx, tasks)
			placed, failures = len(list), f
			for _, task := range tasks[len(list):] {
				s, _ := controlplane.TaskStatuses.Get(tx, controlplane.Tasks.Key(task))
				controlplane.DeleteTask(tx, s)
			}
			return err
		})
		return placed, failures, err
	}
	if _, _, err := place(w.newTask("one", "EC2", 1)); !errors.Is(err, ErrNoInstances) {
		t.Fatalf("without instances: %v", err)
	}
	w.devNode(4096, 1000)
	// A cluster made a moment ago has its instance within the same transaction.
	w.change(func(tx *state.Tx) error {
		controlplane.Clusters.Put(tx, &controlplane.Cluster{Account: scope.Account, Region: scope.Region, Name: "three", Status: capacity.Active})
		return nil
	})
	placed, failures, err := place(w.newTask("three", "EC2", 400), w.newTask("three", "EC2", 400), w.newTask("three", "EC2", 400))
	if err != nil || placed != 2 || len(failures) != 1 {
		t.Fatalf("placed %d, %v, %v", placed, failures, err)
	}
	f := failures[0]
	if f.Reason != "RESOURCE:MEMORY" || f.Detail != "RESOURCE:MEMORY: asked 400 MiB, free 200 MiB" || !strings.HasPrefix(f.ARN, "arn:aws:ecs:us-east-1:000000000000:container-instance/three/") {
		t.Fatalf("failure %+v", f)
	}
	down, _ := controlplane.Nodes.Get(w.store.View(), state.K("dev"))
	down = proto.CloneOf(down)
	down.Status = capacity.NodeDown
	w.change(func(tx *state.Tx) error { controlplane.Nodes.Put(tx, down); return nil })
	if _, failures, err = place(w.newTask("one", "EC2", 1)); err != nil || len(failures) != 1 || failures[0].Reason != "AGENT" {
		t.Fatalf("with the agent away: %v, %v", failures, err)
	}
}

// TestConstraintsAskForFacts: what an instance has beside attributes is asked for by the names of the query language.
func TestConstraintsAskForFacts(t *testing.T) {
	w := newWorld(t)
	rule := capacity.Rule{Account: scope.Account, Region: scope.Region, EveryCluster: true}
	w.change(func(tx *state.Tx) error {
		return rule.Join(tx, &agentapi.Hello{
			NodeId: "host", Version: "1.2.3", Attributes: map[string]string{"ecs.instance-id": "i-0123"}, Resources: &agentapi.NodeResources{CpuUnits: 4096, MemoryMib: 4096},
		}, time.Unix(0, 0))
	})
	for expression, want := range map[string]bool{
		"ec2InstanceId == i-0123":          true,
		"ec2InstanceId == i-4567":          false,
		"ec2InstanceId in [i-4567,i-0123]": true,
		"agentVersion == 1.2.3":            true,
		"agentVersion == 1.2.4":            false,
		"registeredAt > 1969-12-31":        true,
	} {
		task := w.newTask("one", "EC2", 1)
		task.PlacementConstraintsJson = fmt.Sprintf(`[{"type":"memberOf","expression":%q}]`, expression)
		var placed int
		w.change(func(tx *state.Tx) error {
			controlplane.CreateTask(tx, task, nil)
			list, _, err := w.placer.PlaceNow(tx, []*controlplane.Task{task})
			placed = len(list)
			return err
		})
		if placed == 1 != want {
			t.Errorf("%s: placed is %v", expression, placed == 1)
		}
	}
}

// TestMemberships follows clusters as they come and go.
func TestMemberships(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	m := &capacity.Memberships{Store: w.store, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
	go func() { done <- m.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	members := func() (clusters []string) {
		for c := range controlplane.ContainerInstances.Scan(w.store.View(), state.K()) {
			clusters = append(clusters, c.Cluster)
		}
		slices.Sort(clusters)
		return clusters
	}
	rule := capacity.Rule{Account: scope.Account, Region: scope.Region, EveryCluster: true}
	w.change(func(tx *state.Tx) error { return rule.Join(tx, &agentapi.Hello{NodeId: "dev"}, time.Now()) })
	w.until("the node is in every cluster", func() bool { return slices.Equal(members(), []string{"default", "one", "two"}) })
	w.change(func(tx *state.Tx) error {
		c, _ := controlplane.Clusters.Get(tx, scope.Key("one"))
		c = proto.CloneOf(c)
		c.Status = capacity.Inactive
		controlplane.Clusters.Put(tx, c)
		return nil
	})
	w.until("it has left the one that is gone", func() bool { return slices.Equal(members(), []string{"default", "two"}) })
	w.change(func(tx *state.Tx) error {
		controlplane.Clusters.Put(tx, &controlplane.Cluster{Account: scope.Account, Region: scope.Region, Name: "three", Status: capacity.Active})
		return nil
	})
	w.until("it is in the one that came later", func() bool { return slices.Equal(members(), []string{"default", "three", "two"}) })
	w.change(func(tx *state.Tx) error { return rule.Join(tx, &agentapi.Hello{NodeId: "another"}, time.Now()) })
	w.until("so is a node that came later", func() bool {
		return slices.Equal(members(), []string{"default", "default", "three", "three", "two", "two"})
	})
}
