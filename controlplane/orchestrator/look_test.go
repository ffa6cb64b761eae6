package orchestrator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// TestLooksAgreeWithRecords holds what a look has by the one before against all there is, while tasks come, change and go.
func TestLooksAgreeWithRecords(t *testing.T) {
	store := statetest.New(t, controlplane.Schema...)
	service := scope.Key("default", "web")
	change := func(fn func(tx *state.Tx)) {
		t.Helper()
		if _, err := store.Update(t.Context(), func(tx *state.Tx) error { fn(tx); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	l := looks{of: map[state.Key]*memory{}}
	var c hostsCache
	for round := range 12 {
		change(func(tx *state.Tx) {
			for i := range 4 {
				controlplane.CreateTask(tx, &controlplane.Task{
					Account: scope.Account, Region: scope.Region, Cluster: "default", Id: fmt.Sprintf("%d-%02d", (round*7+i*3)%10, round), TaskDefinition: "web:1", Service: "web", Deployment: fmt.Sprint(round),
				}, nil)
			}
		})
		v := store.View()
		live := liveTasks(nil, v, service, l.get(service), c.of(v))
		if want := liveTasks(nil, v, service, memory{}, c.of(v)); !slices.Equal(live, want) {
			t.Fatalf("round %d: known are %v, there are %v", round, live, want)
		}
		for _, one := range live {
			if one.task.Id != one.status.Id || one.key != controlplane.Tasks.Key(one.task) {
				t.Fatalf("task %s has status %s and key %s", one.task.Id, one.status.Id, one.key)
			}
		}
		l.set(service, live, c.of(v).number)
		if l.size(service) != len(live) {
			t.Errorf("%d tasks are %d", len(live), l.size(service))
		}
		change(func(tx *state.Tx) {
			ended := proto.CloneOf(live[round%len(live)].status)
			ended.Observed = agentapi.TaskState_STOPPED
			controlplane.TaskStatuses.Put(tx, ended)
			controlplane.DeleteTask(tx, live[(round+1)%len(live)].status)
		})
	}
	l.set(service, nil, 0)
	if len(l.of) != 0 {
		t.Error("a service without tasks is remembered")
	}
}

// TestHostsFollowTheirRecords: they are forgotten when a node or an instance changes, and not otherwise.
func TestHostsFollowTheirRecords(t *testing.T) {
	store := statetest.New(t, controlplane.Schema...)
	put := func(fn func(tx *state.Tx)) *state.View {
		t.Helper()
		if _, err := store.Update(t.Context(), func(tx *state.Tx) error { fn(tx); return nil }); err != nil {
			t.Fatal(err)
		}
		return store.View()
	}
	instance := &controlplane.ContainerInstance{Account: scope.Account, Region: scope.Region, Cluster: "default", Id: "i", Node: "n", Status: "ACTIVE"}
	var c hostsCache
	v := put(func(tx *state.Tx) {
		controlplane.Nodes.Put(tx, &controlplane.Node{Id: "n", Attributes: map[string]string{"ecs.availability-zone": "z"}})
		controlplane.ContainerInstances.Put(tx, instance)
	})
	first := c.of(v)
	at := membership{scope, "default"}
	if h := first.in(v, "n"); h.at != 1 || h.zone != 1 || len(h.resting) != 0 || first.in(v, "n") != h {
		t.Errorf("got %+v", h)
	}
	if again := c.of(put(func(tx *state.Tx) {
		controlplane.Clusters.Put(tx, &controlplane.Cluster{Account: scope.Account, Region: scope.Region, Name: "default"})
	})); again != first {
		t.Error("forgotten for a cluster")
	}
	draining := proto.CloneOf(instance)
	draining.Status = "DRAINING"
	v = put(func(tx *state.Tx) { controlplane.ContainerInstances.Put(tx, draining) })
	if h := c.of(v).in(v, "n"); !slices.Equal(h.resting, []membership{at}) || len(first.in(v, "n").resting) != 0 {
		t.Errorf("it drains: %+v", h)
	}
	v = put(func(tx *state.Tx) { controlplane.Nodes.Delete(tx, state.K("n")) })
	if h := c.of(v).in(v, "n"); h.zone != 0 {
		t.Errorf("it is gone: %+v", h)
	}
}

// TestLooksFollowWhatChanges holds what a look knows by those before it against one that reads everything anew, after every step of what happens at random to tasks,
// hosts and instances.
func TestLooksFollowWhatChanges(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	store, clk := statetest.New(t, controlplane.Schema...), clock.NewFake(time.Unix(1_800_000_000, 0))
	key := scope.Key("default", "web")
	change := func(fn func(tx *state.Tx)) {
		t.Helper()
		if _, err := store.Update(t.Context(), func(tx *state.Tx) error { fn(tx); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	change(func(tx *state.Tx) {
		controlplane.Services.Put(tx, &controlplane.Service{Account: scope.Account, Region: scope.Region, Cluster: "default", Name: "web", Status: "ACTIVE", LaunchType: "EC2", PrimaryDeployment: "new"})
		controlplane.Deployments.Put(tx, &controlplane.Deployment{Account: scope.Account, Region: scope.Region, Cluster: "default", Service: "web", Id: "new"})
	})
	node := func() string { return fmt.Sprint("n", r.IntN(4)) }
	change1 := func(tx *state.Tx, fn func(s *controlplane.TaskStatus) (*controlplane.TaskStatus, bool)) {
		list := slices.Collect(controlplane.LiveTasksByService.Scan(tx, key))
		if len(list) == 0 {
			return
		}
		if s, changed := fn(list[r.IntN(len(list))]); changed {
			controlplane.TaskStatuses.Put(tx, s)
		}
	}
	ids := 0
	steps := []func(tx *state.Tx){
		func(tx *state.Tx) {
			ids++
			controlplane.CreateTask(tx, &controlplane.Task{
				Account: scope.Account, Region: scope.Region, Cluster: "default", Id: fmt.Sprintf("%02d-%d", r.IntN(100), ids), TaskDefinition: "web:1", Service: "web", Deployment: []string{"old", "new"}[r.IntN(2)],
			}, nil)
		},
		func(tx *state.Tx) {
			change1(tx, func(s *controlplane.TaskStatus) (*controlplane.TaskStatus, bool) { return s.AdvancePlaced(node()) })
		},
		func(tx *state.Tx) {
			change1(tx, func(s *controlplane.TaskStatus) (*controlplane.TaskStatus, bool) {
				return s.AdvancePlacementFailure("no room")
			})
		},
		func(tx *state.Tx) {
			change1(tx, func(s *controlplane.TaskStatus) (*controlplane.TaskStatus, bool) {
				state := []agentapi.TaskState{agentapi.TaskState_PENDING, agentapi.TaskState_RUNNING, agentapi.TaskState_STOPPED}[r.IntN(3)]
				return s.AdvanceReport(&agentapi.TaskStatus{Epoch: s.Epoch, State: state, Health: agentapi.Health(r.IntN(4))}, state, clk.Now())
			})
		},
		func(tx *state.Tx) {
			change1(tx, func(s *controlplane.TaskStatus) (*controlplane.TaskStatus, bool) {
				return s.AdvanceDesired(agentapi.TaskState_STOPPED, "", "", clk.Now())
			})
		},
		func(tx *state.Tx) {
			change1(tx, func(s *controlplane.TaskStatus) (*controlplane.TaskStatus, bool) {
				return s.AdvanceProtection(clk.Now().Add(time.Minute))
			})
		},
		func(tx *state.Tx) {
			for s := range controlplane.TaskStatuses.Scan(tx, state.K()) {
				if !s.Live() {
					controlplane.DeleteTask(tx, s)
					return
				}
			}
		},
		func(tx *state.Tx) {
			controlplane.Nodes.Put(tx, &controlplane.Node{Id: node(), Attributes: map[string]string{"ecs.availability-zone": fmt.Sprint("z", r.IntN(2))}})
		},
		func(tx *state.Tx) { controlplane.Nodes.Delete(tx, state.K(node())) },
		func(tx *state.Tx) {
			n := node()
			controlplane.ContainerInstances.Put(tx, &controlplane.ContainerInstance{
				Account: scope.Account, Region: scope.Region, Cluster: "default", Id: "i-" + n, Node: n, Status: []string{"ACTIVE", "DRAINING"}[r.IntN(2)],
			})
		},
		func(*state.Tx) { clk.Advance(time.Duration(r.IntN(40)) * time.Second) },
		func(tx *state.Tx) { // the other deployment is now the one that is wanted
			s, _ := controlplane.Services.Get(tx, key)
			s = proto.CloneOf(s)
			s.PrimaryDeployment = []string{"old", "new"}[r.IntN(2)]
			controlplane.Services.Put(tx, s)
			controlplane.Deployments.Put(tx, &controlplane.Deployment{Account: scope.Account, Region: scope.Region, Cluster: "default", Service: "web", Id: s.PrimaryDeployment})
		},
	}
	look := func(o *Orchestrator, tx *state.Tx, room *room) (*step, []member) {
		s := o.look(tx, key, room)
		return s, s.members()
	}
	config := Config{Store: store, Clock: clk}
	o, own := New(config, NewLifecycle(clk, nil)), &room{}
	for i := range 600 {
		change(steps[r.IntN(len(steps))])
		if r.IntN(3) == 0 {
			continue // not every change is looked at
		}
		change(func(tx *state.Tx) {
			s, got := look(o, tx, own)
			anew, want := look(New(config, NewLifecycle(clk, nil)), tx, &room{})
			if len(got) != len(want) || len(s.live) != len(anew.live) || s.again != anew.again {
				t.Fatalf("seed %d, step %d: %d of %d tasks are wanted, not %d of %d", seed, i, len(got), len(s.live), len(want), len(anew.live))
			}
			for j := range want {
				a, b := got[j], want[j]
				for k := range want { // hosts and zones are the same for the same tasks
					if (a.host.at == got[k].host.at) != (b.host.at == want[k].host.at) || (a.host.zone == got[k].host.zone) != (b.host.zone == want[k].host.zone) {
						t.Fatalf("seed %d, step %d: tasks %s and %s are on hosts %v and %v, not %v and %v", seed, i, a.id(), got[k].id(), a.host, got[k].host, b.host, want[k].host)
					}
				}
				if a.host, b.host = nil, nil; a != b {
					t.Fatalf("seed %d, step %d: %+v is %+v", seed, i, b, a)
				}
			}
			o.looks.set(key, s.live, s.known.number)
		})
		if r.IntN(20) == 0 {
			o.looks.forget()
		}
	}
}
