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
	"github.com/seed-2f228079/neargate/controlplane/state"
)

const day = 24 * time.Hour

// TestStoppedTasksStay: why a task stopped and its last lines are there for 30 days, then nothing of it is.
func TestStoppedTasksStay(t *testing.T) {
	w := newWorld(t)
	w.command([]string{"node", "a", "zone=z1"}, nil)
	w.change(func(tx *state.Tx) error {
		controlplane.CreateTask(tx, &controlplane.Task{Account: scope.Account, Region: scope.Region, Cluster: "default", Id: "task", TaskDefinition: "web:1"}, map[string]string{"a": "b"})
		return nil
	})
	w.settle()
	report := &agentapi.TaskStatus{
		TaskId: "task", Epoch: 1, State: agentapi.TaskState_STOPPED, StopCode: stopEssential, StoppedReason: "Essential container in task exited",
		Containers: []*agentapi.ContainerStatus{{Name: "web", ExitCode: proto.Int32(137), Reason: "OutOfMemoryError: container used 257 of 256 MiB", LastLog: []string{"one", "two"}}},
	}
	w.change(func(tx *state.Tx) error { return w.o.lifecycle.Report(tx, "a", report) })
	key := scope.Key("default", "task")
	stopped, _ := controlplane.TaskStatuses.Get(w.store.View(), key)
	if stopped.Live() {
		t.Fatal("the task did not stop")
	}

	w.clock.Advance(30*day - time.Second)
	w.settle()
	kept, ok := controlplane.TaskStatuses.Get(w.store.View(), key)
	if !ok || !proto.Equal(kept.Report, report) || kept.StoppedReason != report.StoppedReason || kept.StopCode != stopEssential {
		t.Errorf("after 30 days less a second it is %v", kept)
	}
	w.clock.Advance(time.Second)
	w.settle()
	v := w.store.View()
	_, status := controlplane.TaskStatuses.Get(v, key)
	_, task := controlplane.Tasks.Get(v, key)
	if status || task || len(controlplane.TagsOf(v, scope, scope.TaskARN("default", "task"))) > 0 {
		t.Errorf("after 30 days: status %v, task %v, tags %v", status, task, controlplane.TagsOf(v, scope, scope.TaskARN("default", "task")))
	}
}

// TestDeletedTaskDefinitionsGo once no task runs from them and no service names them; their tags go with them.
func TestDeletedTaskDefinitionsGo(t *testing.T) {
	w := newWorld(t)
	w.command([]string{"node", "a", "zone=z1"}, nil)
	w.command([]string{"create", "desired=1"}, nil) // of web:1
	w.change(func(tx *state.Tx) error {
		for _, revision := range []uint32{1, 2} {
			d, _ := controlplane.TaskDefinitions.Get(tx, scope.TaskDefinitionKey("web", revision))
			d = proto.CloneOf(d)
			d.Status, d.DeleteRequested = "DELETE_IN_PROGRESS", timestamppb.New(w.clock.Now())
			controlplane.TaskDefinitions.Put(tx, d)
			controlplane.PutTags(tx, scope, d.ARN(), map[string]string{"a": "b"})
		}
		return nil
	})
	revisions := func() (list []uint32) {
		for d := range controlplane.TaskDefinitions.Scan(w.store.View(), state.K()) {
			list = append(list, d.Revision)
		}
		return list
	}
	w.settle()
	if got := revisions(); !slices.Equal(got, []uint32{1, 3, 4, 5}) {
		t.Errorf("with a service on web:1 there are %v", got)
	}
	if tags := controlplane.TagsOf(w.store.View(), scope, scope.TaskDefinitionARN("web:2")); len(tags) > 0 {
		t.Errorf("web:2 left tags %v", tags)
	}
	w.command([]string{"report", "RUNNING", "all"}, nil)
	w.command([]string{"delete"}, nil)
	w.settle()
	if got := revisions(); !slices.Contains(got, 1) {
		t.Error("web:1 went while a task of it still stops")
	}
	w.command([]string{"report", "STOPPED", "all"}, nil)
	w.settle()
	if got := revisions(); slices.Contains(got, 1) {
		t.Error("web:1 is still there although nothing uses it")
	}
}

func TestClientTokensExpire(t *testing.T) {
	w := newWorld(t)
	now := w.clock.Now()
	first := controlplane.Request{Scope: scope, Operation: "ecs:RunTask", Token: "first"}
	second := controlplane.Request{Scope: scope, Operation: "ecs:RunTask", Token: "second"}
	w.change(func(tx *state.Tx) error { first.Remember(tx, now, "a"); return nil })
	w.clock.Advance(time.Hour)
	w.change(func(tx *state.Tx) error { second.Remember(tx, w.clock.Now(), "b"); return nil })
	tokens := func() (list []string) {
		for c := range controlplane.ClientTokens.Scan(w.store.View(), state.K()) {
			list = append(list, c.Token)
		}
		return list
	}
	w.clock.Advance(23*time.Hour - time.Second)
	w.settle()
	if got := tokens(); !slices.Equal(got, []string{"first", "second"}) {
		t.Errorf("within a day there are %v", got)
	}
	w.clock.Advance(2 * time.Second)
	w.settle()
	if got := tokens(); !slices.Equal(got, []string{"second"}) {
		t.Errorf("a day after the first there are %v", got)
	}
}

// TestServicesGoWithTheirEvents: many of them that have said much.
func TestServicesGoWithTheirEvents(t *testing.T) {
	w := newWorld(t)
	for i := range 12 {
		s := &controlplane.Service{
			Account: scope.Account, Region: scope.Region, Cluster: "default", Name: fmt.Sprint("s", i), Status: serviceInactive, InactiveSince: timestamppb.New(w.clock.Now()),
		}
		w.change(func(tx *state.Tx) error { controlplane.Services.Put(tx, s); return nil })
		for j := range 12 {
			w.change(func(tx *state.Tx) error {
				for k := range 10 {
					controlplane.AppendServiceEvent(tx, s, fmt.Sprint(j, k), w.clock.Now(), w.rand)
				}
				return nil
			})
		}
	}
	left := func() (services, pages int) {
		v := w.store.View()
		return len(slices.Collect(controlplane.Services.Scan(v, state.K()))), len(slices.Collect(controlplane.ServiceEventRings.Scan(v, state.K())))
	}
	if services, pages := left(); services != 12 || pages < 12*10 {
		t.Fatalf("%d services, %d pages", services, pages)
	}
	w.clock.Advance(w.o.ServiceRetention + time.Second)
	w.settle()
	if services, pages := left(); services != 0 || pages != 0 {
		t.Errorf("%d services and %d pages are left", services, pages)
	}
}
