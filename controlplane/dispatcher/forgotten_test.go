package dispatcher

import (
	"context"
	"crypto/rand"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// A host that was lost for so long that it has been forgotten comes back as the agent that it was, with a task that it still has: it is the same
// container instance again, is told that the task is none of its own, and changes nothing of what another host runs.
func TestForgottenHostComesBack(t *testing.T) {
	p := newPlane(t)
	o := orchestrator.New(orchestrator.Config{Store: p.Store, Clock: p.clock, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler)}, p.life)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	a := p.connect(hello("a"))
	incarnation := a.receive().GetWelcome().Incarnation
	a.ack(a.update())
	mine := p.task("a")
	u := a.update()
	a.ack(u)
	report := &agentapi.TaskStatus{TaskId: mine.Id, Epoch: 1, State: agentapi.TaskState_RUNNING}
	a.report(report)
	p.until("the task runs", func() bool { return p.status(mine).Observed == agentapi.TaskState_RUNNING })
	instance := func() *controlplane.ContainerInstance {
		for ci := range controlplane.ContainerInstancesByNode.Scan(p.Store.View(), state.K("a")) {
			return ci
		}
		return nil
	}
	was := instance()
	a.cancel()
	p.until("it is given up", func() bool { p.clock.Advance(3 * time.Second); return p.node("a").Status == capacity.NodeDown })
	p.until("its task is lost", func() bool { return !p.status(mine).Live() })
	p.clock.Advance(30 * 24 * time.Hour)
	p.until("it is forgotten", func() bool {
		p.clock.Advance(time.Minute)
		return p.node("a") == nil && instance() == nil && p.status(mine) == nil
	})

	b := p.connect(hello("b"))
	b.receive()
	b.ack(b.update())
	other := p.task("b")
	b.ack(b.update())
	b.report(&agentapi.TaskStatus{TaskId: other.Id, Epoch: 1, State: agentapi.TaskState_RUNNING})
	p.until("the other task runs", func() bool { return p.status(other).Observed == agentapi.TaskState_RUNNING })
	before := p.status(other)

	h := hello("a")
	h.Incarnation, h.Revisions, h.Tasks = incarnation, map[int32]uint64{int32(u.Kind): u.Revision}, []*agentapi.TaskStatus{report}
	again := p.connect(h)
	if w := again.receive().GetWelcome(); w.GetIncarnation() != incarnation {
		t.Fatalf("welcome %v", w)
	}
	if full := again.update(); !full.Full || len(full.Resources) != 0 {
		t.Errorf("it is told of %v", full)
	}
	if n := p.node("a"); n.GetStatus() != capacity.NodeReady || n.DownSince != nil || instance().GetId() != was.Id || instance().Status != capacity.Active {
		t.Errorf("it is %v, %v", n, instance())
	}
	next := p.task("a")
	again.ack(again.update())
	again.report(&agentapi.TaskStatus{TaskId: next.Id, Epoch: 1, State: agentapi.TaskState_RUNNING})
	p.until("it runs tasks", func() bool { return p.status(next).Observed == agentapi.TaskState_RUNNING })
	if p.status(mine) != nil || !proto.Equal(p.status(other), before) {
		t.Errorf("the tasks of before are %v and %v", p.status(mine), p.status(other))
	}
}
