package events

import (
	"encoding/json"
	"slices"
	"testing"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
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
