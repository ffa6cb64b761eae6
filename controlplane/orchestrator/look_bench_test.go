package orchestrator

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// BenchmarkLook is a look at a service of 10,000 tasks on 5,000 hosts, amid its update: as it decides what to start and what to stop, without what it then does.
func BenchmarkLook(b *testing.B) {
	const tasks = 10000
	store, clk := statetest.New(b, controlplane.Schema...), clock.NewFake(time.Unix(1_800_000_000, 0))
	change := func(n int, fn func(tx *state.Tx, i int)) {
		for i := 0; i < n; i += 20 {
			if _, err := store.Update(b.Context(), func(tx *state.Tx) error {
				for j := i; j < min(n, i+20); j++ {
					fn(tx, j)
				}
				return nil
			}); err != nil {
				b.Fatal(err)
			}
		}
	}
	change(tasks/2, func(tx *state.Tx, i int) {
		controlplane.Nodes.Put(tx, &controlplane.Node{Id: fmt.Sprint(i), Attributes: map[string]string{"ecs.availability-zone": fmt.Sprint("z", i%3)}})
	})
	change(1, func(tx *state.Tx, _ int) {
		controlplane.Services.Put(tx, &controlplane.Service{Account: scope.Account, Region: scope.Region, Cluster: "default", Name: "web", Status: "ACTIVE", LaunchType: "EC2", PrimaryDeployment: "new",
			DesiredCount: tasks, MinimumHealthyPercent: 50, MaximumPercent: 200})
		controlplane.Deployments.Put(tx, &controlplane.Deployment{Account: scope.Account, Region: scope.Region, Cluster: "default", Service: "web", Id: "new"})
	})
	change(tasks, func(tx *state.Tx, i int) {
		st := proto.CloneOf(controlplane.CreateTask(tx, &controlplane.Task{
			Account: scope.Account, Region: scope.Region, Cluster: "default", Id: fmt.Sprintf("%08x", uint32(i)*2654435761), TaskDefinition: "web:1", Service: "web", Deployment: []string{"old", "new"}[i%2],
		}, nil))
		st.Node, st.Epoch, st.Observed = fmt.Sprint(i%(tasks/2)), 1, agentapi.TaskState_RUNNING
		controlplane.TaskStatuses.Put(tx, st)
	})
	key := scope.Key("default", "web")
	for name, desired := range map[string]uint32{"starting": tasks, "stopping": tasks/2 + 300} {
		change(1, func(tx *state.Tx, _ int) {
			s, _ := controlplane.Services.Get(tx, key)
			s = proto.CloneOf(s)
			s.DesiredCount = desired
			controlplane.Services.Put(tx, s)
		})
		b.Run(name, func(b *testing.B) {
			o := New(Config{Store: store, Clock: clk, Log: slog.New(slog.DiscardHandler)}, NewLifecycle(clk, nil))
			b.ReportAllocs()
			for b.Loop() {
				if start, stop := lookOnce(b, o, key); start != int(desired)-tasks/2 || len(stop) > 0 != (name == "stopping") {
					b.Fatalf("starts %d, stops %d", start, len(stop))
				}
			}
		})
	}
}

func lookOnce(b *testing.B, o *Orchestrator, key state.Key) (start int, stop []victim) {
	room := rooms.Get().(*room)
	defer room.leave()
	if _, err := o.Store.Update(context.Background(), func(tx *state.Tx) error {
		s := o.look(tx, key, room)
		start, stop, _ = plan(s.situation())
		o.looks.set(key, s.live, s.known.number)
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	return start, stop
}
