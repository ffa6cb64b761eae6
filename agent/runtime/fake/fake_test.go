package fake

import (
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/runtimetest"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/clock"
)

func TestSuite(t *testing.T) {
	runtimetest.Run(t, func(dir string) (runtime.Driver, error) { return New(Config{Dir: dir}), nil }, runtimetest.Features{})
}

func TestScriptedEnd(t *testing.T) {
	now := clock.NewFake(time.Unix(1000, 0))
	cfg := Config{Dir: t.TempDir(), Clock: now, Script: func(string) Behaviour {
		return Behaviour{RunFor: time.Minute, Exit: runtime.Exit{Code: 7}}
	}}
	task := runtime.Task{ID: runtimetest.TaskID(), Spec: &agentapi.TaskSpec{Containers: []*agentapi.ContainerSpec{{Name: "a", Image: "x"}}}}
	d := New(cfg)
	if _, err := d.Create(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Start(t.Context(), task.ID, "a"); err != nil {
		t.Fatal(err)
	}
	// The process dies and the next one finds that the container has ended meanwhile.
	now.Advance(2 * time.Minute)
	d = New(cfg)
	found, err := d.Recover(t.Context())
	if err != nil || len(found) != 1 || found[0].Containers["a"].Started.At.Unix() != 1000 {
		t.Fatalf("recovered %+v, %v", found, err)
	}
	if e, err := d.Wait(t.Context(), task.ID, "a"); err != nil || e.Code != 7 {
		t.Errorf("ended with %+v, %v", e, err)
	}
}

func TestPortsAndAddressesComeBack(t *testing.T) {
	d := New(Config{Ports: [2]uint32{40000, 40000}})
	spec := &agentapi.TaskSpec{Containers: []*agentapi.ContainerSpec{{Name: "a", Ports: []*agentapi.PortMapping{{ContainerPort: 80}}}}}
	one, two := runtimetest.TaskID(), runtimetest.TaskID()
	box, err := d.Create(t.Context(), runtime.Task{ID: one, Spec: spec})
	if err != nil || box.Ports["a"][0].HostPort != 40000 {
		t.Fatalf("created %+v, %v", box, err)
	}
	if _, err := d.Create(t.Context(), runtime.Task{ID: two, Spec: spec}); err == nil {
		t.Fatal("a second task got a port of a full range")
	}
	if err := d.Remove(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	again, err := d.Create(t.Context(), runtime.Task{ID: two, Spec: spec})
	if err != nil || again.Address != box.Address {
		t.Errorf("after the removal: %+v, %v; want address %s again", again, err, box.Address)
	}
}
