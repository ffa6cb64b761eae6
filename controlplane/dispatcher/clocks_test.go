package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator/orchestratortest"
	"github.com/seed-2f228079/neargate/controlplane/scheduler/placement"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/clock/clocktest"
)

// TestClocksAreSet sets the clocks of three servers forwards and backwards by hours, while the leadership moves between them, services change
// their size and tasks run. No host is given up, every member stays well, what ran goes on running, and what is asked for comes about: also
// the replacement of a task that failed, by a clock that is hours ahead of the present one.
func TestClocksAreSet(t *testing.T) {
	seed := statetest.Seed(t)
	r := mathrand.New(mathrand.NewPCG(seed, 0))
	clocks := map[string]*clocktest.Clock{"s0": {}, "s1": {}, "s2": {}}
	s := newSeveralBy(t, 0, func(server string) clock.Clock { return clocks[server] }) // with the leases of a cluster that runs
	log := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	run := func(f func(context.Context) error) {
		parts.Go(func() {
			if err := f(ctx); err != nil && !errors.Is(err, state.ErrClosed) {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); parts.Wait() })
	for i, server := range s.Servers() {
		p := s.planes[server.ID]
		o := orchestrator.New(orchestrator.Config{
			Store: p.Store, Clock: p.Clock, Rand: p.Rand, Log: log, RouterTables: []state.TableInfo{orchestratortest.Endpoints},
		}, p.life)
		run(o.Run)
		run(placement.New(p.Store, p.Clock, log).Run)
		f := &fleet{p: p}
		for n := range 2 {
			f.start(ctx, &parts, fmt.Sprintf("n%d", 2*i+n), seed+uint64(2*i+n))
		}
	}
	change := func(fn func(tx *state.Tx) error) {
		t.Helper()
		if _, err := s.Update(ctx, fn); err != nil && !errors.Is(err, state.ErrUncertain) {
			t.Fatal(err)
		}
	}
	view := func() *state.View { return s.Leader().Store().View() }
	s.Await("the nodes are there", func() bool {
		return len(slices.Collect(controlplane.ContainerInstances.Scan(view(), state.K()))) == 6
	})
	checker := &checker{t: t, nodeOf: map[state.Key]string{}, cpu: map[string]int{}}
	begin := s.Servers()[0].Store().Revision()
	run(func(ctx context.Context) error { return checker.follow(ctx, s.Servers()[0].Store(), begin) })
	run(func(ctx context.Context) error { return neverDown(ctx, t, s.Servers()[0].Store(), begin) })

	const steady, changing = "steady", "changing"
	for _, name := range []string{steady, changing} {
		change(func(tx *state.Tx) error {
			controlplane.TaskDefinitions.Put(tx, &controlplane.TaskDefinition{
				Account: scope.Account, Region: scope.Region, Family: name, Revision: 1, Status: "ACTIVE",
				DefinitionJson: []byte(`{"containerDefinitions":[{"name":"web","image":"nginx"}]}`), Demand: &controlplane.Demand{CpuUnits: 512, MemoryMib: 256},
			})
			s.planes["s0"].deploy(tx, &controlplane.Service{
				Account: scope.Account, Region: scope.Region, Cluster: "default", Name: name, Status: capacity.Active, SchedulingStrategy: "REPLICA",
				DesiredCount: 4, LaunchType: "EC2", MinimumHealthyPercent: 50, MaximumPercent: 200,
			}, 1)
			return nil
		})
	}
	tasks := func(service string) (ids []string) {
		for status := range controlplane.LiveTasksByService.Scan(view(), scope.Key("default", service)) {
			ids = append(ids, status.Id)
		}
		return ids
	}
	settled := func() bool { return s.planes[s.Leader().ID].settled() }
	s.Await("all tasks run", settled)
	before := tasks(steady)

	for round := range 40 {
		clocks[fmt.Sprint("s", r.IntN(3))].Jump(time.Duration(r.IntN(21)-10) * time.Hour)
		change(func(tx *state.Tx) error {
			service, _ := controlplane.Services.Get(tx, scope.Key("default", changing))
			service = proto.CloneOf(service)
			service.DesiredCount = uint32(1 + r.IntN(8))
			controlplane.Services.Put(tx, service)
			return nil
		})
		if round%8 == 7 {
			_ = s.Leader().Engine().TransferLeadership(ctx, "") // it may have lost it just now
			s.Await("the services are as they should be", settled)
		}
		time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond) // lets everybody look at the clock; nothing depends on how long
	}

	// By the clock of the agents' server a task has failed hours after the leader's present, as often as makes the next one wait.
	leader := s.Leader()
	change(func(tx *state.Tx) error {
		service, _ := controlplane.Services.Get(tx, scope.Key("default", changing))
		for i := range 3 * 8 {
			task := &controlplane.Task{
				Account: scope.Account, Region: scope.Region, Cluster: "default", Id: fmt.Sprintf("%032d", i), TaskDefinition: service.TaskDefinition, Service: changing,
				Deployment: service.PrimaryDeployment, Group: "service:" + changing, LaunchType: "EC2", Created: timestamppb.New(clocks[leader.ID].Now()),
			}
			controlplane.CreateTask(tx, task, nil)
			status, _ := controlplane.TaskStatuses.Get(tx, controlplane.Tasks.Key(task))
			status, _ = status.AdvanceLost("EssentialContainerExited", "it failed", clocks[leader.ID].Now().Add(5*time.Hour))
			controlplane.TaskStatuses.Put(tx, status)
		}
		service = proto.CloneOf(service)
		service.DesiredCount = 8
		controlplane.Services.Put(tx, service)
		return nil
	})
	s.Await("the services have what they want", settled)

	if after := tasks(steady); !slices.Equal(after, before) {
		t.Errorf("the tasks of a service that nobody changed were %v and are %v", before, after)
	}
	s.Await("all members are well", func() bool { // a leader that has just begun does not know it yet
		members, err := s.Leader().Engine().Members(ctx)
		return err == nil && len(members) == 3 && !slices.ContainsFunc(members, func(m state.Member) bool { return !m.Healthy || !m.Voter })
	})
	if checker.seen() < 100 {
		t.Errorf("only %d changes were checked", checker.seen())
	}
}

// neverDown watches that no host is taken for lost.
func neverDown(ctx context.Context, t *testing.T, store *state.Store, from state.Revision) error {
	w := store.Watch(ctx, from, controlplane.Nodes)
	for {
		b, err := w.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		for _, e := range b.Events {
			if n := e.New.(*controlplane.Node); n.Status != capacity.NodeReady {
				t.Errorf("revision %d: the node %s is %s", e.Revision, n.Id, n.Status)
			}
		}
	}
}
