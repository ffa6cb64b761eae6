package runtimetest

import (
	"context"
	"errors"
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
	second, grown := first, false
	for end := time.Now().Add(time.Minute); !grown && time.Now().Before(end); { // it may have ticked that often before the first look
		if second, err = h.Stats(ctx, task.ID, "main"); err != nil {
			t.Fatal(err)
		}
		grown = second.CPU.Usage.Total > first.CPU.Usage.Total && second.CPU.System > first.CPU.System && second.Read.After(first.Read)
	}
	if !grown {
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
