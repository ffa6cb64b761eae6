package events

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// TestTaskEventIsToldAsItWas: of its state and host at its change, however much later somebody reads it, to whoever it is.
func TestTaskEventIsToldAsItWas(t *testing.T) {
	w := newWorld(t)
	got := w.follow(GetEventsInput{})
	w.put(&controlplane.TaskStatus{Account: here.Account, Region: here.Region, Cluster: "c", Id: "a", Node: "n", Version: 1, Observed: agentapi.TaskState_RUNNING})
	first := w.next(got)
	w.task("a", 2, agentapi.TaskState_STOPPED)
	w.next(got)
	late := w.next(w.follow(GetEventsInput{Since: first.Time}))
	a, _ := json.Marshal(first)
	b, _ := json.Marshal(late)
	if string(a) != string(b) || late.Detail["lastStatus"] != "RUNNING" || late.Detail["zone"] != "zone of n" || late.Detail["updatedAt"] != first.Time.Format("2006-01-02T15:04:05.999999999Z07:00") {
		t.Errorf("at first %s, later %s", a, b)
	}
	// What is posted says the same.
	for r, err := range w.Streams.From(streamName, 0) {
		e, ok := read(r)
		if err != nil || !ok || e.ID != first.ID {
			continue
		}
		var posted Event
		body, ok := w.text(r, e)
		if err := json.Unmarshal(body, &posted); !ok || err != nil {
			t.Fatal(err)
		}
		if c, _ := json.Marshal(posted); string(c) != string(a) {
			t.Errorf("posted %s, told %s", c, a)
		}
		return
	}
	t.Error("the event is not in the stream")
}

// TestRecordsOfBefore: task events that were kept as text are told, those that cannot be read are passed over.
func TestRecordsOfBefore(t *testing.T) {
	w := newWorld(t)
	w.end()
	info, err := w.Streams.Stat(streamName)
	if err != nil {
		t.Fatal(err)
	}
	old := Event{Version: "0", ID: "old", Time: w.Clock.Now(), DetailType: taskChange, Account: here.Account, Region: here.Region, Resources: []string{here.TaskARN("c", "a")},
		text: text(map[string]any{"lastStatus": "RUNNING"})}
	broken := append(make([]byte, 8), kindTask, 0xff)
	if err := w.keep(t.Context(), slices.Values([][]byte{broken, {1}, old.record()}), w.Store.Revision()+1); err != nil {
		t.Fatal(err)
	}
	w.expect(w.follow(GetEventsInput{Since: old.Time}), "task/c/a map[lastStatus:RUNNING]")
	var posted []string
	for r, err := range w.Streams.From(streamName, info.Next) {
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := read(r); ok {
			body, _ := w.text(r, e)
			posted = append(posted, string(body))
		}
	}
	if len(posted) != 1 || posted[0] != string(old.document()) {
		t.Errorf("posted are %q", posted)
	}
}

// zoned has the zone of the node's record.
type zoned struct{ shapes }

func (zoned) TaskHost(r state.Reader, st *controlplane.TaskStatus) controlplane.TaskHost {
	n, _ := controlplane.Nodes.Get(r, state.K(st.Node))
	return controlplane.TaskHost{Zone: n.GetAttributes()["zone"], Connected: true, Instance: st.Cluster}
}

// TestHostsOfEventsFollowTheirRecords: what a writer keeps of hosts is what there is, whatever changes and whichever cluster asks, and nothing is kept of before.
func TestHostsOfEventsFollowTheirRecords(t *testing.T) {
	store := statetest.New(t, controlplane.Schema...)
	s, w := &Service{Config: Config{Store: store, Shapes: zoned{}, Clock: clock.NewFake(time.Unix(1_800_000_000, 0))}}, &writer{}
	told := func(changes ...proto.Message) (hosts []string) {
		t.Helper()
		b := state.Batch{View: store.View()}
		for _, m := range changes {
			c := state.Event{Table: controlplane.TaskStatuses, New: m, Revision: 7}
			if _, ok := m.(*controlplane.Node); ok {
				c.Table, c.Old = controlplane.Nodes, m
			}
			b.Events = append(b.Events, c)
		}
		for data := range s.derived(w, b) {
			e, ok := read(stream.Record{Data: data})
			if !ok || e.revision != 7 {
				t.Fatalf("cannot read %q", data)
			}
			hosts = append(hosts, e.task.Zone+" "+e.task.Instance)
		}
		return hosts
	}
	zone := func(z string) *controlplane.Node {
		t.Helper()
		n := &controlplane.Node{Id: "n", Attributes: map[string]string{"zone": z}}
		if _, err := store.Update(t.Context(), func(tx *state.Tx) error { controlplane.Nodes.Put(tx, n); return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	on := func(cluster, node string) *controlplane.TaskStatus {
		return &controlplane.TaskStatus{Account: here.Account, Region: here.Region, Cluster: cluster, Id: "a", Node: node, Version: 1}
	}
	zone("z1")
	if got, want := told(on("c", "n"), on("d", "n"), on("c", "n"), on("c", ""), on("c", "m")), []string{"z1 c", "z1 d", "z1 c", " c", " c"}; !slices.Equal(got, want) {
		t.Errorf("got %q, not %q", got, want)
	}
	n := zone("z2")
	if got := told(on("c", "n")); !slices.Equal(got, []string{"z2 c"}) {
		t.Errorf("it has moved: %q", got)
	}
	if told(on("c", "n"), n); w.hosts != nil || w.nodes != (state.Version{}) {
		t.Error("hosts of before are kept")
	}
}
