package dispatcher

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// What a node's agent understands is known from its hello, whether it was upgraded or rolled back; one that states nothing is of the first version.
func TestAgentsVersion(t *testing.T) {
	p := newPlane(t)
	for _, c := range []struct {
		stated  uint32
		at2, at bool // 2, and 1
	}{{0, false, true}, {2, true, true}, {1, false, true}} {
		h := hello("a")
		h.Speaks = c.stated
		p.connect(h)
		p.until("the node has its version", func() bool {
			n, ok := controlplane.Nodes.Get(p.Store.View(), state.K("a"))
			return ok && n.Speaks == c.stated && n.AtVersion(2) == c.at2 && n.AtVersion(1) == c.at
		})
	}
}

// An agent that is too old is told so, and its node is left alone.
func TestAgentTooOld(t *testing.T) {
	c := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	p := newPlaneOn(t, Config{Store: statetest.New(t, planeSchema...), Clock: c, OldestAgent: 3})
	for _, stated := range []uint32{0, 2, 3} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := agentapi.NewDispatcherClient(p.dial).Session(ctx)
		if err != nil {
			t.Fatal(err)
		}
		h := hello("a")
		h.Speaks = stated
		if err := stream.Send(&agentapi.Up{Body: &agentapi.Up_Hello{Hello: h}}); err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		switch old := stated < 3; {
		case !old && err != nil:
			t.Errorf("version %d: %v", stated, err)
		case old && (status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "this server takes 3 at least")):
			t.Errorf("version %d: %v", stated, err)
		}
		if _, joined := controlplane.Nodes.Get(p.Store.View(), state.K("a")); joined != (stated == 3) {
			t.Errorf("version %d: joined: %v", stated, joined)
		}
	}
}
