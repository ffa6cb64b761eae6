package dispatcher

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// A session has a sender while something waits, and no longer.
func TestSenderIsThereWhileSomethingWaits(t *testing.T) {
	p := newPlane(t)
	a := p.connect(hello("a"))
	if a.receive().GetWelcome() == nil {
		t.Fatal("no welcome")
	}
	a.ack(a.update())
	idle := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return !p.subscribers["a"].sending
	}
	for range 3 {
		p.until("the sender has ended", idle)
		task := p.task("a")
		u := a.update()
		if u.Resources[0].Name != task.Id {
			t.Fatalf("update %v", u)
		}
		a.ack(u)
	}
	p.until("the sender has ended", idle)
}

// A session that is not welcomed yet ends at once when it is replaced, and its stream with the reason.
func TestReplacedBeforeItsWelcome(t *testing.T) {
	p := newPlane(t)
	sub := &subscriber{node: "a", ended: make(chan error, 1), gone: make(chan struct{}), open: true}
	p.mu.Lock()
	p.subscribers["a"] = sub
	p.mu.Unlock()
	newer := p.connect(hello("a"))
	if newer.receive().GetWelcome() == nil {
		t.Fatal("no welcome")
	}
	err := p.unsubscribe(sub, <-sub.ended)
	if s := status.Convert(err); s.Code() != codes.Aborted || s.Message() != "replaced by a newer session" {
		t.Errorf("it ended with %v", err)
	}
	<-sub.gone
	p.mu.Lock()
	p.signal(sub)
	if sub.sending || p.subscribers["a"] == sub {
		t.Error("something is still sent to it")
	}
	p.mu.Unlock()
}

// refusing takes in no report of traffic.
type refusing struct{}

func (refusing) Health(context.Context, string, []*agentapi.HealthTransition) error {
	return status.Error(codes.Unavailable, "not now")
}
func (refusing) Drained(context.Context, string, []*agentapi.Drained) error { return nil }
func (refusing) Repeat(string) []*agentapi.Drained                          { return nil }

// A report that cannot be taken in ends the session, whose agent is told so, however many are behind it.
func TestReportThatCannotBeTakenIn(t *testing.T) {
	p := newPlane(t)
	p.Traffic = refusing{}
	a := p.connect(hello("a"))
	for range 3 {
		_ = a.stream.Send(&agentapi.Up{Body: &agentapi.Up_Health{Health: &agentapi.HealthReport{Transitions: []*agentapi.HealthTransition{{}}}}}) // it may be over by the second
	}
	for {
		d, err := a.stream.Recv()
		if err != nil {
			t.Fatalf("the stream ended without a word: %v", err)
		}
		if c := d.GetClose(); c != nil {
			if want := "a report could not be taken in: rpc error: code = Unavailable desc = not now"; c.Reason != want {
				t.Errorf("the reason is %q", c.Reason)
			}
			break
		}
	}
	if _, err := a.stream.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("the stream ended with %v", err)
	}
	p.until("the session is over", func() bool { return !p.Connected("a") })
}
