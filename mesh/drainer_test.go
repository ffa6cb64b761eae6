package mesh

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/dispatcher"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// subscribers is a dispatcher with one proxy.
type subscribers struct {
	mu    sync.Mutex
	acked state.Revision
	stale bool
}

func (s *subscribers) Acknowledged(_ agent.Kind, r state.Revision) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stale || s.acked >= r
}

func (s *subscribers) Subscribers() []dispatcher.Subscriber {
	s.mu.Lock()
	defer s.mu.Unlock()
	acked := map[agent.Kind]state.Revision{agent.Kind_TARGETS: s.acked, agent.Kind_ZONES: s.acked}
	return []dispatcher.Subscriber{{Node: "n1", Stale: s.stale, Acked: acked}}
}

const group = "arn:aws:elasticloadbalancing:us-east-1:000000000000:targetgroup/web/0123456789abcdef"

func TestDrain(t *testing.T) {
	type bed struct {
		*Drainer
		subs *subscribers
		clk  *clock.Fake
		rev  state.Revision
	}
	for name, c := range map[string]struct {
		discovery bool
		w         Withdrawal
		steps     func(b *bed, gone func() bool, t *testing.T)
	}{
		"acknowledged and drained": {w: Withdrawal{Delay: 300 * time.Second}, steps: func(b *bed, gone func() bool, t *testing.T) {
			if gone() {
				t.Error("deleted before anybody knew")
			}
			b.subs.acked = b.rev
			if gone() {
				t.Error("deleted with requests in flight")
			}
			b.Drained(context.Background(), "n1", []*agent.Drained{{TargetGroupArn: group, EndpointId: "e", Revision: uint64(b.rev) - 1}})
			if gone() {
				t.Error("an older drain's report counts")
			}
			b.Drained(context.Background(), "n1", []*agent.Drained{{TargetGroupArn: group, EndpointId: "e", Revision: uint64(b.rev)}})
			if !gone() {
				t.Error("kept though nobody sends to it")
			}
		}},
		"delay passed": {w: Withdrawal{Delay: 30 * time.Second}, steps: func(b *bed, gone func() bool, t *testing.T) {
			b.subs.acked = b.rev
			b.clk.Advance(29 * time.Second)
			if gone() {
				t.Error("deleted before the delay has passed")
			}
			b.clk.Advance(time.Second)
			if !gone() {
				t.Error("kept after the delay")
			}
		}},
		"a subscriber that hangs": {w: Withdrawal{Delay: 300 * time.Second}, steps: func(b *bed, gone func() bool, t *testing.T) {
			b.clk.Advance(AckBound - time.Second)
			if gone() {
				t.Error("not waited for the bound")
			}
			b.clk.Advance(time.Second)
			if !gone() {
				t.Error("waited for longer than the bound")
			}
		}},
		"a subscriber without lease": {w: Withdrawal{Delay: 300 * time.Second}, steps: func(b *bed, gone func() bool, t *testing.T) {
			b.subs.stale = true
			if !gone() {
				t.Error("waited for a subscriber that lost its lease")
			}
		}},
		"planned, in DNS": {discovery: true, w: Withdrawal{TTL: time.Hour}, steps: func(b *bed, gone func() bool, t *testing.T) {
			b.subs.acked = b.rev
			b.clk.Advance(59 * time.Second)
			if gone() {
				t.Error("deleted before answers have expired")
			}
			b.clk.Advance(time.Second)
			if !gone() {
				t.Error("the wait for TTLs is not capped")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bed{subs: &subscribers{}, clk: clock.NewFake(time.Unix(1000, 0))}
			store := statetest.New(t, Endpoints)
			b.Drainer = NewDrainer(DrainerConfig{Store: store, Subscribers: b.subs, Clock: b.clk, Log: slog.New(slog.DiscardHandler)})
			e := &Endpoint{Account: "000000000000", Region: "us-east-1", Group: group, Id: "e", Discovery: c.discovery, State: agent.EndpointState_ENDPOINT_HEALTHY}
			key := Endpoints.Key(e)
			if _, err := store.Update(context.Background(), func(tx *state.Tx) error {
				Register(tx, e, b.clk.Now())
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			rev, err := store.Update(context.Background(), func(tx *state.Tx) error {
				Withdraw(tx, key, c.w, b.clk.Now())
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			b.rev = rev
			c.steps(b, func() bool {
				if _, err := b.sweep(context.Background()); err != nil {
					t.Fatal(err)
				}
				_, ok := Endpoints.Get(store.View(), key)
				return !ok
			}, t)
		})
	}
}
