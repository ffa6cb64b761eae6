package placement

import (
	"slices"
	"strings"
	"testing"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// TestGPUsArePlacedAndPinned: by either way to a place a task gets GPUs that no other has, and keeps them until it ends.
func TestGPUsArePlacedAndPinned(t *testing.T) {
	w := newWorld(t)
	join := func(ids ...string) {
		rule := capacity.Rule{Account: scope.Account, Region: scope.Region}
		w.change(func(tx *state.Tx) error {
			return rule.Join(tx, &agentapi.Hello{NodeId: "n", NodeName: "box", Cluster: "one", Resources: &agentapi.NodeResources{CpuUnits: 8192, MemoryMib: 8192, Gpus: ids}}, time.Unix(0, 0))
		})
	}
	join("GPU-a", "GPU-b", "GPU-c", "GPU-d")
	asks := func(n uint32) *controlplane.Task {
		task := w.newTask("one", "EC2", 1)
		task.Demand.Gpus = n
		return task
	}
	w.run()
	first := w.create(asks(2))
	w.until("the first task is placed", func() bool { return w.status(first).Node != "" })
	if got := w.status(first).Gpus; !slices.Equal(got, []string{"GPU-a", "GPU-b"}) {
		t.Errorf("the first task has %v", got)
	}
	second, third := asks(1), asks(2)
	w.change(func(tx *state.Tx) error {
		controlplane.CreateTask(tx, second, nil)
		controlplane.CreateTask(tx, third, nil)
		placed, why, err := w.placer.PlaceNow(tx, []*controlplane.Task{second, third})
		if err != nil || len(placed) != 1 || len(why) != 1 || why[0].Reason != "RESOURCE:GPU" || why[0].Detail != "RESOURCE:GPU: asked 2 GPUs, free 1 GPUs" {
			t.Errorf("placed %v, failures %+v, %v", placed, why, err)
		}
		return nil
	})
	if got := w.status(second).Gpus; !slices.Equal(got, []string{"GPU-c"}) {
		t.Errorf("the second task has %v", got)
	}
	w.until("the third task is refused", func() bool { return strings.Contains(w.status(third).PlacementFailure, "RESOURCE:GPU") })

	// What ends gives back its own.
	w.change(func(tx *state.Tx) error {
		s, _ := controlplane.TaskStatuses.Get(tx, controlplane.Tasks.Key(second))
		s, _ = s.AdvanceLost("EssentialContainerExited", "done", time.Unix(9, 0))
		controlplane.TaskStatuses.Put(tx, s)
		return nil
	})
	w.until("the third task is placed", func() bool { return w.status(third).Node != "" })
	if got := w.status(third).Gpus; !slices.Equal(got, []string{"GPU-c", "GPU-d"}) {
		t.Errorf("the third task has %v", got)
	}

	// A host that says that it has others: those taken do not come back by that, the new one is to be had.
	join("GPU-a", "GPU-e")
	fourth, fifth := w.create(asks(1)), w.create(asks(1))
	w.until("one of two is placed, the other told why not", func() bool {
		a, b := w.status(fourth), w.status(fifth)
		return (a.Node == "") != (b.Node == "") && a.PlacementFailure+b.PlacementFailure != ""
	})
	if got := append(w.status(fourth).Gpus, w.status(fifth).Gpus...); !slices.Equal(got, []string{"GPU-e"}) {
		t.Errorf("given were %v", got)
	}
}
