package runtimetest

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// stats looks at what a container uses.
func (s *suite) stats(t *testing.T) {
	ctx := context.Background()
	h := s.host(t)
	task, _ := h.task("bridge", command("tick"))
	if _, err := h.Stats(ctx, task.ID, "main"); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("of a container that has not started: %v", err)
	}
	h.start(task, "main")
	h.until(task, "main", "tick 5")
	first, err := h.Stats(ctx, task.ID, "main")
	if err != nil {
		t.Fatal(err)
	}
	if first.CPU.Usage.Total == 0 || first.CPU.System == 0 || first.CPU.Online == 0 || first.Memory.Usage == 0 || first.PIDs.Current == 0 || first.Read.IsZero() {
		t.Errorf("a counter is zero: %+v", first)
	}
	if _, ok := first.Networks["eth0"]; !ok || len(first.Networks) != 1 {
		t.Errorf("interfaces are %v, want eth0 alone", first.Networks)
	}
	h.until(task, "main", "tick 40")
	second, err := h.Stats(ctx, task.ID, "main")
	if err != nil {
		t.Fatal(err)
	}
	if second.CPU.Usage.Total <= first.CPU.Usage.Total || second.CPU.System <= first.CPU.System || !second.Read.After(first.Read) {
		t.Errorf("counters do not grow: %+v, then %+v", first.CPU, second.CPU)
	}
	if err := h.Stop(ctx, task.ID, "main", 0); err != nil {
		t.Fatal(err)
	}
	h.wait(task, "main")
	for _, name := range []string{"main", "nobody"} {
		if _, err := h.Stats(ctx, task.ID, name); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("of %s, which does not run: %v", name, err)
		}
	}
}

// linkLocal has two hosts at the same link-local address, each for its own tasks. A driver that cannot have the address says so.
func (s *suite) linkLocal(t *testing.T) {
	ctx := context.Background()
	for _, name := range []string{"one host", "another host"} {
		h := s.host(t)
		l, err := h.LinkLocal(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if l == nil {
			if h.Name() == "native" {
				t.Error("the native driver's bridge is its own")
			}
			return
		}
		go (&http.Server{ReadTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(name)) })}).Serve(l)
		t.Cleanup(func() { l.Close() })
		task, _ := h.task("awsvpc", command("get", "http://169.254.170.2/"))
		h.start(task, "main")
		if e, out := h.wait(task, "main"), h.output(task, "main"); e.Code != 0 || out != name+"\n" {
			t.Errorf("exit = %+v, output %q", e, out)
		}
	}
}
