package orchestrator

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator/orchestratortest"
	"github.com/seed-2f228079/neargate/controlplane/scheduler/placement"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// countingClock counts how often it is looked at: every turn of a reconciler does.
type countingClock struct {
	*clock.Fake
	looks atomic.Int64
}

func (c *countingClock) Now() time.Time {
	c.looks.Add(1)
	return c.Fake.Now()
}

// TestIdle: with five services that have what they want, an hour passes without a write, and nobody is busy.
func TestIdle(t *testing.T) {
	w := newWorld(t)
	w.command([]string{"node", "a", "zone=z1"}, nil)
	w.change(func(tx *state.Tx) error {
		for i := range 5 {
			w.deploy(tx, &controlplane.Service{
				Account: scope.Account, Region: scope.Region, Cluster: "default", Name: fmt.Sprintf("s%d", i), Status: "ACTIVE", DesiredCount: 2,
				MinimumHealthyPercent: 100, MaximumPercent: 200, SchedulingStrategy: "REPLICA", LaunchType: "EC2",
				LoadBalancersJson: `[{"targetGroupArn":"tg","containerName":"web","containerPort":80}]`,
			}, "web:1")
		}
		return nil
	})
	w.settle()
	w.command([]string{"report", "RUNNING", "all"}, nil)
	w.command([]string{"endpoint", "HEALTHY", "all"}, nil)
	w.settle()
	for i := range 5 {
		events := controlplane.ServiceEventsOf(w.store.View(), scope.Key("default", fmt.Sprintf("s%d", i)))
		if !strings.HasSuffix(events[0].Message, "has reached a steady state.") {
			t.Fatalf("service %d is not steady: %v", i, events)
		}
	}

	clk := &countingClock{Fake: w.clock}
	w.o.Clock = clk
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	parts := []func(context.Context) error{
		w.o.Run, placement.New(w.store, clk, slog.New(slog.DiscardHandler)).Run,
		(&capacity.Memberships{Store: w.store, Now: clk.Now, Log: slog.New(slog.DiscardHandler)}).Run,
	}
	for _, run := range parts {
		go func() { done <- run(ctx) }()
	}
	defer func() {
		cancel()
		for range parts {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}()
	resting := func() {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); w.clock.Waiters() != 1; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d wait for the clock, want the clean-up alone", w.clock.Waiters())
			}
		}
	}
	resting()
	revision := w.store.Revision()
	clk.looks.Store(0)
	const minutes = 60
	for range minutes {
		w.clock.Advance(time.Minute)
		resting()
	}
	if now := w.store.Revision(); now != revision {
		t.Errorf("%d transactions were written while nothing happened", now-revision)
	}
	// Each minute the clean-up looks at its four kinds of records; everybody else sleeps.
	if looks := clk.looks.Load(); looks > 20*minutes {
		t.Errorf("the clock was looked at %d times in %d minutes", looks, minutes)
	}

	// What happens to one task's endpoint is looked at by all services with load balancers, and written by none.
	live := slices.Collect(controlplane.LiveTasks.Scan(w.store.View(), state.K()))
	w.change(func(tx *state.Tx) error {
		orchestratortest.Set(tx, live[0].Id, agentapi.EndpointState_ENDPOINT_HEALTHY)
		return nil
	})
	revision = w.store.Revision()
	w.clock.Advance(time.Minute)
	resting()
	if now := w.store.Revision(); now != revision {
		t.Errorf("an endpoint that stays healthy led to %d transactions", now-revision)
	}
}
