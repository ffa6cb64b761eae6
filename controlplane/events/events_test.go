package events

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/seal"
	"github.com/seed-2f228079/neargate/storage/stream"
)

var here = controlplane.Scope{Account: "000000000000", Region: "us-east-1"}

// shapes show a task's state alone.
type shapes struct{}

func (shapes) TaskHost(_ state.Reader, st *controlplane.TaskStatus) controlplane.TaskHost {
	return controlplane.TaskHost{Zone: "zone of " + st.Node, Connected: true}
}

func (shapes) TaskDetail(_ state.Reader, st *controlplane.TaskStatus, host controlplane.TaskHost) (string, bool) {
	return fmt.Sprintf(`{"lastStatus":%q,"version":%d,"zone":%q}`, st.Observed, st.Version, host.Zone), true
}

func (shapes) ContainerInstanceDetail(_ state.Reader, ci *controlplane.ContainerInstance) string {
	return fmt.Sprintf(`{"status":%q}`, ci.Status)
}

type world struct {
	*Service
	t   *testing.T
	end func()
}

func newWorld(t *testing.T) *world {
	store := statetest.New(t, slices.Concat(controlplane.Schema, Schema)...)
	streams, err := stream.Open(t.TempDir(), stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { streams.Close() })
	sealer, err := seal.New(make([]byte, seal.KeySize), "test")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, Service: New(Config{Store: store, Streams: streams, Shapes: shapes{}, Log: slog.New(slog.DiscardHandler), Rand: rand.Reader, Seal: sealer,
		Clock: clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))})}
	w.change(func(tx *state.Tx) {
		controlplane.Clusters.Put(tx, &controlplane.Cluster{Account: here.Account, Region: here.Region, Name: "c"})
	})
	w.run()
	// A stream that is new begins with what happens once it is followed.
	for version := uint64(1); ; version++ {
		w.put(&controlplane.TaskStatus{Account: "another", Region: here.Region, Cluster: "c", Id: "first", Version: version})
		limit, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		err := w.Streams.Wait(limit, streamName, 0)
		cancel()
		if err == nil {
			return w
		}
	}
}

// run starts the service, as a new process does.
func (w *world) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Service.Run(ctx) }()
	over := false
	w.end = func() {
		if over {
			return
		}
		over = true
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	}
	w.t.Cleanup(w.end)
}

func (w *world) change(fn func(tx *state.Tx)) {
	w.t.Helper()
	if _, err := w.Store.Update(w.t.Context(), func(tx *state.Tx) error { fn(tx); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) task(id string, version uint64, state agentapi.TaskState) {
	w.t.Helper()
	w.put(&controlplane.TaskStatus{Account: here.Account, Region: here.Region, Cluster: "c", Id: id, Version: version, Observed: state})
}

func (w *world) put(record proto.Message) {
	w.t.Helper()
	w.change(func(tx *state.Tx) {
		switch r := record.(type) {
		case *controlplane.TaskStatus:
			controlplane.TaskStatuses.Put(tx, r)
		case *controlplane.Deployment:
			controlplane.Deployments.Put(tx, r)
		case *controlplane.ContainerInstance:
			controlplane.ContainerInstances.Put(tx, r)
		case *controlplane.Node:
			controlplane.Nodes.Put(tx, r)
		}
	})
}

// follow begins to follow, and next waits for one more event.
func (w *world) follow(in GetEventsInput) <-chan Event {
	in.Follow = true
	ctx, cancel := context.WithCancel(api.WithCall(context.Background(), &api.Call{Identity: api.Identity{Account: here.Account}, Region: here.Region}))
	got, begun, ended := make(chan Event, 100), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		w.show(ctx, &in, func(list ...Event) error {
			if len(list) == 0 {
				close(begun)
			}
			for _, e := range list {
				got <- e
			}
			return nil
		})
	}()
	<-begun
	w.t.Cleanup(func() { cancel(); <-ended })
	return got
}

func (w *world) next(got <-chan Event) Event {
	w.t.Helper()
	select {
	case e := <-got:
		return e
	case <-time.After(time.Minute):
		w.t.Fatal("no event within a minute")
	}
	panic("unreachable")
}

func line(e Event) string {
	return fmt.Sprintf("%s %s %v", e.DetailType, e.Resources[0][strings.LastIndexByte(e.Resources[0], ':')+1:], e.Detail)
}

func (w *world) expect(got <-chan Event, want ...string) (last Event) {
	w.t.Helper()
	for _, words := range want {
		last = w.next(got)
		if l := line(last); !strings.Contains(l, words) {
			w.t.Errorf("got %s, want %s", l, words)
		}
	}
	return last
}

func TestEvents(t *testing.T) {
	w := newWorld(t)
	got := w.follow(GetEventsInput{})
	w.task("a", 1, agentapi.TaskState_PENDING)
	first := w.expect(got, "ECS Task State Change task/c/a map[lastStatus:PENDING")
	if first.Version != "0" || first.Source != "aws.ecs" || first.Account != here.Account || first.Region != here.Region || first.Detail["updatedAt"] == nil {
		t.Errorf("got %+v", first)
	}
	w.task("a", 1, agentapi.TaskState_PENDING) // nothing that ECS counts
	w.task("a", 2, agentapi.TaskState_RUNNING)
	w.put(&controlplane.ContainerInstance{Account: here.Account, Region: here.Region, Cluster: "c", Id: "i", Node: "n", Status: "ACTIVE"})
	w.put(&controlplane.Node{Id: "n", Status: "READY"})
	w.put(&controlplane.Node{Id: "n", Status: "DOWN"})
	for _, state := range []string{"IN_PROGRESS", "IN_PROGRESS", "FAILED"} {
		w.put(&controlplane.Deployment{Account: here.Account, Region: here.Region, Cluster: "c", Service: "s", Id: "ecs-svc/1", RolloutState: state, Updated: timestamppb.Now(), RolloutReason: "why"})
	}
	svc := &controlplane.Service{Account: here.Account, Region: here.Region, Cluster: "c", Name: "s"}
	for _, message := range []string{"(service s) has started 1 tasks: (task a).", "(service s) has reached a steady state.", "(service s) was unable to place a task because of that."} {
		w.change(func(tx *state.Tx) { controlplane.AppendServiceEvent(tx, svc, message, w.Clock.Now(), zero{}) })
	}
	w.expect(got, "task/c/a map[lastStatus:RUNNING", "ECS Container Instance State Change container-instance/c/i map[clusterArn:"+here.ClusterARN("c")+" status:ACTIVE",
		"container-instance/c/i", "service/c/s map[deploymentId:ecs-svc/1 eventName:SERVICE_DEPLOYMENT_IN_PROGRESS eventType:INFO", "SERVICE_DEPLOYMENT_FAILED eventType:ERROR reason:why",
		"ECS Service Action service/c/s map[clusterArn:"+here.ClusterARN("c"), "eventName:SERVICE_TASK_PLACEMENT_FAILURE eventType:ERROR reason:(service s) was unable")
	if len(got) > 0 {
		t.Errorf("there is more: %s", line(<-got))
	}
}

// zero is randomness without any: ids of service events follow from how many there are.
type zero struct{}

var zeros byte

func (zero) Read(b []byte) (int, error) {
	zeros++
	for i := range b {
		b[i] = zeros
	}
	return len(b), nil
}

func TestResume(t *testing.T) {
	w := newWorld(t)
	got := w.follow(GetEventsInput{})
	for i := range 5 {
		w.task(fmt.Sprint("t", i), 1, agentapi.TaskState_RUNNING)
	}
	var list []Event
	for range 5 {
		list = append(list, w.next(got))
	}
	again := w.follow(GetEventsInput{After: list[2].Cursor})
	w.expect(again, "task/c/t3", "task/c/t4")
	// From another server, which keeps the event no more: rather twice than never.
	revision, _, _ := parseCursor(list[2].Cursor)
	w.expect(w.follow(GetEventsInput{After: cursor(revision, "unknown")}), "task/c/t2", "task/c/t3")
	w.expect(w.follow(GetEventsInput{After: cursor(revision-1, "unknown"), Cluster: "c", DetailType: taskChange}), "task/c/t1")
	if _, err := w.position(&GetEventsInput{After: "nonsense"}); err == nil {
		t.Error("nonsense is taken for a cursor")
	}
	for name, in := range map[string]GetEventsInput{"cluster": {Cluster: "other"}, "type": {DetailType: serviceAction}, "time": {Since: w.Clock.Now().Add(time.Hour)}} {
		err := w.show(api.WithCall(t.Context(), &api.Call{Identity: api.Identity{Account: here.Account}, Region: here.Region}), &in, func(list ...Event) error {
			for _, e := range list {
				t.Errorf("another %s: %s", name, line(e))
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := filter(here, &GetEventsInput{DetailType: "ECS"}); err == nil {
		t.Error("an unknown type is taken")
	}
}

// TestGap: what happened while nobody followed is told once, with the ids that it has elsewhere.
func TestGap(t *testing.T) {
	w := newWorld(t)
	got := w.follow(GetEventsInput{})
	w.task("a", 1, agentapi.TaskState_PENDING)
	before := w.next(got)
	w.end()
	w.task("b", 1, agentapi.TaskState_PENDING)
	w.task("a", 2, agentapi.TaskState_RUNNING)
	w.task("b", 2, agentapi.TaskState_RUNNING)
	revision, _, _ := parseCursor(before.Cursor)
	var late []Event
	for data := range w.missed(&writer{}, w.Store.View(), revision) {
		e, _ := read(stream.Record{Data: data})
		late = append(late, e)
	}
	if len(late) != 2 || late[0].Resources[0] != here.TaskARN("c", "a") || late[1].Resources[0] != here.TaskARN("c", "b") {
		t.Fatalf("missed %v", late)
	}
	w.run() // with the history of changes still there
	var ids []string
	for range 3 {
		ids = append(ids, w.next(got).ID)
	}
	if ids[1] != late[0].ID || ids[2] != late[1].ID {
		t.Errorf("live %q, late %v", ids, late)
	}
	w.end()
	w.run()
	w.task("c", 1, agentapi.TaskState_PENDING)
	w.expect(got, "task/c/c") // and nothing again
}

// What a batch of changes tells may be more than the stream takes at once.
func TestLargeEventsAreKeptInParts(t *testing.T) {
	w := newWorld(t)
	w.end()
	info, err := w.Streams.Stat(streamName)
	if err != nil {
		t.Fatal(err)
	}
	const n = 40
	large := func(yield func([]byte) bool) {
		for i := range n {
			e := Event{ID: fmt.Sprint(i), Account: here.Account, Region: here.Region, text: text(map[string]any{"number": i, "large": strings.Repeat("x", stream.MaxBatch/n)})}
			if !yield(e.record()) {
				return
			}
		}
	}
	if err := w.keep(t.Context(), large, state.Revision(info.Mark+1)); err != nil {
		t.Fatal(err)
	}
	kept := 0
	for r, err := range w.Streams.From(streamName, info.Next) {
		e, ok := read(r)
		if err != nil || !ok || e.ID != fmt.Sprint(kept) || e.Detail["number"] != float64(kept) {
			t.Fatalf("event %d is %q: %v", kept, e.ID, err)
		}
		kept++
	}
	if after, err := w.Streams.Stat(streamName); kept != n || err != nil || after.Mark != info.Mark+1 {
		t.Errorf("%d events up to %d, %v", kept, after.Mark, err)
	}
}

// TestInstanceThatIsForgotten is deregistered, as its event says; one that had been already, or went with its cluster, has no event more.
func TestInstanceThatIsForgotten(t *testing.T) {
	w := newWorld(t)
	w.change(func(tx *state.Tx) {
		for _, c := range []*controlplane.Cluster{{Name: "c", Status: "ACTIVE"}, {Name: "old", Status: "INACTIVE"}} {
			c.Account, c.Region = here.Account, here.Region
			controlplane.Clusters.Put(tx, c)
		}
		for id, of := range map[string][2]string{"i": {"c", "ACTIVE"}, "j": {"c", "INACTIVE"}, "k": {"old", "ACTIVE"}} {
			controlplane.ContainerInstances.Put(tx, &controlplane.ContainerInstance{Account: here.Account, Region: here.Region, Cluster: of[0], Id: id, Node: "n", Status: of[1]})
		}
	})
	got := w.follow(GetEventsInput{})
	for range 3 {
		w.next(got)
	}
	w.change(func(tx *state.Tx) {
		for id, cluster := range map[string]string{"j": "c", "k": "old"} {
			controlplane.ContainerInstances.Delete(tx, here.Key(cluster, id))
		}
	})
	w.change(func(tx *state.Tx) { controlplane.ContainerInstances.Delete(tx, here.Key("c", "i")) })
	w.expect(got, "ECS Container Instance State Change container-instance/c/i map[clusterArn:"+here.ClusterARN("c")+" status:INACTIVE")
}
