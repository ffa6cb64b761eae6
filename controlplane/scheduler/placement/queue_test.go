package placement

import (
	"context"
	"fmt"
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
)

// host has a node join cluster "one".
func (w *world) host(id string, cpu, memory uint32) {
	w.change(func(tx *state.Tx) error {
		rule := capacity.Rule{Account: scope.Account, Region: scope.Region}
		return rule.Join(tx, &agentapi.Hello{NodeId: id, NodeName: id, Cluster: "one", Resources: &agentapi.NodeResources{CpuUnits: cpu, MemoryMib: memory}}, time.Unix(0, 0))
	})
}

// TestLongestWaitingIsPlacedFirst has tasks of two kinds wait, made in another order than they were created in, for a host with room for half of them.
func TestLongestWaitingIsPlacedFirst(t *testing.T) {
	w := newWorld(t)
	w.run()
	var tasks []*controlplane.Task
	for i := range 40 {
		tasks = append(tasks, w.newTask("one", "EC2", uint32(10+i%2)))
	}
	for i := range tasks {
		w.create(tasks[i*7%40])
	}
	// One that ends while it waits takes no place.
	w.change(func(tx *state.Tx) error {
		s, _ := controlplane.TaskStatuses.Get(tx, controlplane.Tasks.Key(tasks[5]))
		s, _ = s.AdvanceDesired(agentapi.TaskState_STOPPED, "UserInitiated", "enough", time.Unix(9, 0))
		controlplane.TaskStatuses.Put(tx, s)
		return nil
	})
	w.until("all that wait say why", func() bool {
		return !slices.ContainsFunc(tasks, func(t *controlplane.Task) bool { s := w.status(t); return s.Live() && s.PlacementFailure == "" })
	})
	w.host("a", 20*256, 1<<20)
	w.until("as many as fit are placed, and the others know", func() bool {
		placed := 0
		for _, task := range tasks {
			s := w.status(task)
			if s.Node != "" {
				placed++
			} else if s.Live() && !strings.Contains(s.PlacementFailure, "CPU") {
				return false
			}
		}
		return placed == 20
	})
	for i, task := range tasks {
		if s := w.status(task); (s.Node != "") != (i < 21 && i != 5) {
			t.Errorf("task %d is on %q", i, s.Node)
		}
	}
}

// TestMoreThanARoundIsDecided has more tasks wait than are decided about at a time.
func TestMoreThanARoundIsDecided(t *testing.T) {
	w := newWorld(t)
	var tasks []*controlplane.Task
	for range roundTasks + 100 {
		tasks = append(tasks, w.newTask("one", "EC2", 1))
	}
	for some := range slices.Chunk(tasks, 20) {
		w.change(func(tx *state.Tx) error {
			for _, task := range some {
				controlplane.CreateTask(tx, task, nil)
			}
			return nil
		})
	}
	w.run()
	all := func(is func(*controlplane.TaskStatus) bool) func() bool {
		return func() bool {
			return !slices.ContainsFunc(tasks, func(t *controlplane.Task) bool { return !is(w.status(t)) })
		}
	}
	w.until("all are told why", all(func(s *controlplane.TaskStatus) bool { return s.PlacementFailure != "" }))
	w.host("a", 1<<30, 1<<20)
	w.until("all are placed", all(func(s *controlplane.TaskStatus) bool { return s.Node == "a" }))
}

// TestWhatWasSaidStaysWhileItIsTrue says that a host that becomes the nearest changes nothing for those who know of another.
func TestWhatWasSaidStaysWhileItIsTrue(t *testing.T) {
	w := newWorld(t)
	w.host("a", 4096, 100)
	w.host("b", 4096, 100)
	instance := map[string]string{}
	for in := range controlplane.ContainerInstances.Scan(w.store.View(), state.K()) {
		instance[in.Node] = in.Id
	}
	w.run()
	first := w.create(w.newTask("one", "EC2", 400))
	w.until("the task is refused", func() bool { return w.status(first).PlacementFailure != "" })
	said := w.status(first).PlacementFailure
	nearest, other := "a", "b"
	if strings.Contains(said, instance["b"]) {
		nearest, other = other, nearest
	}
	if !strings.Contains(said, instance[nearest]) {
		t.Fatalf("said was %q", said)
	}
	set := func(cpu, memory uint32) {
		w.change(func(tx *state.Tx) error {
			n, _ := controlplane.Nodes.Get(tx, state.K(nearest))
			n = proto.CloneOf(n)
			n.Resources.CpuUnits, n.Resources.MemoryMib = cpu, memory
			controlplane.Nodes.Put(tx, n)
			return nil
		})
	}
	set(1, 100) // short of CPU as well, so that the other is nearer
	second := w.newTask("one", "EC2", 401)
	w.create(second)
	w.until("another task is told of the other host", func() bool { return strings.Contains(w.status(second).PlacementFailure, instance[other]) })
	if got := w.status(first).PlacementFailure; got != said {
		t.Errorf("it is still short of memory, but the task is told %q", got)
	}
	set(1, 1000)
	w.until("what is no longer true is replaced", func() bool { return strings.Contains(w.status(first).PlacementFailure, instance[other]) })
}

// TestStaleNodeTakesBackItsOwn has the ledger not know of a task on one of two nodes: what was to go to the other goes there.
func TestStaleNodeTakesBackItsOwn(t *testing.T) {
	w := newWorld(t)
	w.host("a", 4096, 1000)
	w.host("b", 4096, 1000)
	l := w.placer.newLoop(w.store.View())
	unseen := w.create(w.newTask("one", "EC2", 600))
	w.change(func(tx *state.Tx) error {
		s, _ := controlplane.TaskStatuses.Get(tx, controlplane.Tasks.Key(unseen))
		s, _ = s.AdvancePlaced("a")
		controlplane.TaskStatuses.Put(tx, s)
		return nil
	})
	var tasks []*controlplane.Task
	for range 4 {
		tasks = append(tasks, w.create(w.newTask("one", "EC2", 300)))
	}
	wait := func() {
		for _, task := range tasks {
			l.wait(w.store.View(), controlplane.Tasks.Key(task), w.status(task))
		}
	}
	on := func(node string) (n int) {
		for _, task := range tasks {
			if w.status(task).Node == node {
				n++
			}
		}
		return n
	}
	wait()
	if err := l.place(context.Background()); err != nil {
		t.Fatal(err)
	}
	if on("a") != 0 || on("b") != 2 {
		t.Fatalf("%d are on a, %d on b", on("a"), on("b"))
	}
	for _, task := range tasks {
		if key := controlplane.Tasks.Key(task); l.ledger.Has(string(key)) != (w.status(task).Node != "") || (l.waiting[key] != nil) != (w.status(task).Node == "") {
			t.Errorf("task %s is on %q, the ledger has it: %v", task.Id, w.status(task).Node, l.ledger.Has(string(key)))
		}
	}
	key := controlplane.Tasks.Key(unseen)
	setStatus(l.ledger, w.store.View(), key, w.status(unseen))
	wait()
	if err := l.place(context.Background()); err != nil {
		t.Fatal(err)
	}
	if on("a") != 1 || on("b") != 3 {
		t.Errorf("%d are on a, %d on b", on("a"), on("b"))
	}
}

// TestEveryTaskOfANodeIsChecked has the ledger not know that a node has lost its GPU: a task that asks for none goes there, one behind it that does not.
func TestEveryTaskOfANodeIsChecked(t *testing.T) {
	w := newWorld(t)
	w.host("a", 4096, 1000)
	gpus := func(ids ...string) {
		w.change(func(tx *state.Tx) error {
			n, _ := controlplane.Nodes.Get(tx, state.K("a"))
			n = proto.CloneOf(n)
			n.Resources.Gpus = ids
			controlplane.Nodes.Put(tx, n)
			return nil
		})
	}
	gpus("GPU-a")
	plain, asks := w.newTask("one", "EC2", 1), w.newTask("one", "EC2", 1)
	asks.Demand.Gpus = 1
	w.create(plain)
	w.create(asks)
	l := w.placer.newLoop(w.store.View())
	gpus()
	if err := l.place(context.Background()); err != nil {
		t.Fatal(err)
	}
	if w.status(plain).Node != "a" || w.status(asks).Node != "" || l.ledger.Has(string(controlplane.Tasks.Key(asks))) {
		t.Errorf("the tasks are on %q and %q", w.status(plain).Node, w.status(asks).Node)
	}
}

// TestKeyOfAQueueTellsSpecsApart changes every field of a task that its spec depends on.
func TestKeyOfAQueueTellsSpecsApart(t *testing.T) {
	base := &controlplane.Task{
		Account: "1", Region: "r", Cluster: "c", Group: "g", Created: timestamppb.Now(), Demand: &controlplane.Demand{AgentAttributes: []string{"x"}},
	}
	seen := map[string]string{}
	for name, change := range map[string]func(t *controlplane.Task){
		"nothing":         func(*controlplane.Task) {},
		"account":         func(t *controlplane.Task) { t.Account = "2" },
		"region":          func(t *controlplane.Task) { t.Region = "s" },
		"cluster":         func(t *controlplane.Task) { t.Cluster = "d" },
		"group":           func(t *controlplane.Task) { t.Group = "h" },
		"launch type":     func(t *controlplane.Task) { t.LaunchType = "FARGATE" },
		"service":         func(t *controlplane.Task) { t.Service = "s" },
		"exec":            func(t *controlplane.Task) { t.EnableExecuteCommand = true },
		"zone":            func(t *controlplane.Task) { t.AvailabilityZone = "z" },
		"cpu":             func(t *controlplane.Task) { t.Demand.CpuUnits = 1 },
		"memory":          func(t *controlplane.Task) { t.Demand.MemoryMib = 1 },
		"gpus":            func(t *controlplane.Task) { t.Demand.Gpus = 1 },
		"port":            func(t *controlplane.Task) { t.Demand.HostPorts = []*controlplane.HostPort{{Port: 1, Protocol: "tcp"}} },
		"protocol":        func(t *controlplane.Task) { t.Demand.HostPorts = []*controlplane.HostPort{{Port: 1, Protocol: "udp"}} },
		"attribute":       func(t *controlplane.Task) { t.Demand.Attributes = []string{"x"} },
		"agent attribute": func(t *controlplane.Task) { t.Demand.AgentAttributes = []string{"y"} },
		"constraint":      func(t *controlplane.Task) { t.PlacementConstraintsJson = `[{"type":"distinctInstance"}]` },
		"strategy":        func(t *controlplane.Task) { t.PlacementStrategyJson = `[{"type":"random"}]` },
	} {
		task := proto.CloneOf(base)
		change(task)
		key := string(appendKey(nil, task))
		if other, is := seen[key]; is {
			t.Errorf("%s and %s have the same key", name, other)
		}
		seen[key] = name
	}
}

// BenchmarkWithoutRoom is a tick of the loop, a host having changed, while tasks of many services wait for room that nobody has.
func BenchmarkWithoutRoom(b *testing.B) {
	for _, size := range []struct{ hosts, services, tasks int }{{200, 10, 100}, {2000, 100, 1000}} {
		b.Run(fmt.Sprintf("Hosts=%d/Services=%d/Tasks=%d", size.hosts, size.services, size.tasks), func(b *testing.B) {
			w := newWorld(b)
			for i := range size.hosts {
				w.host(fmt.Sprintf("n%d", i), 1<<20, 100)
			}
			for i := range size.tasks {
				task := w.newTask("one", "EC2", 400)
				task.Service = fmt.Sprintf("s%d", i%size.services)
				task.Group = "service:" + task.Service
				w.create(task)
			}
			l := w.placer.newLoop(w.store.View())
			if err := l.place(b.Context()); err != nil {
				b.Fatal(err)
			}
			for s := range controlplane.UnplacedTasks.Scan(w.store.View(), state.K()) {
				l.wait(w.store.View(), controlplane.TaskStatuses.Key(s), s)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				n, _ := controlplane.Nodes.Get(w.store.View(), state.K(fmt.Sprintf("n%d", i%size.hosts)))
				setNode(l.ledger, n)
				if err := l.place(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
