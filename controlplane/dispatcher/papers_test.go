package dispatcher

import (
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// wanting is what servers want of hosts.
type wanting struct {
	mu      sync.Mutex
	papers  *agentapi.Papers
	changed chan struct{}
}

func (w *wanting) get() (*agentapi.Papers, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.papers, w.changed
}

func (w *wanting) set(p *agentapi.Papers) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.papers = p
	close(w.changed)
	w.changed = make(chan struct{})
}

// renew reads up to the next word about the certificate.
func (a *agentSession) renew() *agentapi.Renew {
	a.p.t.Helper()
	for {
		d := a.receive()
		if u := d.GetUpdate(); u != nil {
			a.ack(u)
		}
		if r := d.GetRenew(); r != nil {
			return r
		}
	}
}

// A host whose papers are not those that servers want is told so, once, when it says hello and when they want others; one that says nothing of its own
// is not. The node's record has what the host has said.
func TestHostsAreToldToRenew(t *testing.T) {
	a, both, b := &agentapi.Papers{Issuer: "a", Authorities: []string{"a"}}, &agentapi.Papers{Issuer: "b", Authorities: []string{"a", "b"}}, &agentapi.Papers{Issuer: "b", Authorities: []string{"b"}}
	w := &wanting{papers: a, changed: make(chan struct{})}
	p := newPlaneOn(t, Config{Store: statetest.New(t, planeSchema...), Clock: clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), Papers: w.get})
	h, mute := hello("n"), hello("m")
	h.Papers = a
	host := p.connect(h)
	old := p.connect(mute)
	if host.receive().GetWelcome() == nil || old.receive().GetWelcome() == nil {
		t.Fatal("no welcome")
	}
	host.ack(host.update())
	old.ack(old.update())
	w.set(both)
	if r := host.renew(); !proto.Equal(r.Wanted, both) || r.WithinMillis != 20 {
		t.Errorf("told %v", r)
	}
	w.set(b)
	if r := host.renew(); !proto.Equal(r.Wanted, b) {
		t.Errorf("told %v", r)
	}
	p.until("the node's record has its papers", func() bool {
		n, _ := controlplane.Nodes.Get(p.Store.View(), state.K("n"))
		return proto.Equal(n.GetPapers(), a)
	})
	h.Papers = both
	again := p.connect(h)
	if again.receive().GetWelcome() == nil {
		t.Fatal("no welcome")
	}
	if r := again.renew(); !proto.Equal(r.Wanted, b) {
		t.Errorf("told %v", r)
	}
	task := p.task("m") // what the other session gets next is this
	if u := old.update(); u.Resources[0].GetAssignment().GetTaskId() != task.Id {
		t.Errorf("an agent that says nothing of its papers was told %v", u)
	}
}
