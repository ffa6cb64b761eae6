package datachannel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/seed-2f228079/neargate/internal/clock"
)

// link is one end of a connection in memory. drop says which of the messages written is lost; nil: none.
type link struct {
	in, out chan []byte
	drop    func() bool
}

func pipe(drop func() bool) (a, b *link) {
	x, y := make(chan []byte, 4), make(chan []byte, 4)
	return &link{x, y, drop}, &link{y, x, drop}
}

func (l *link) readMessage(ctx context.Context) ([]byte, error) {
	select {
	case b := <-l.in:
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *link) write(ctx context.Context, b []byte) error {
	if l.drop != nil && l.drop() {
		return nil
	}
	select {
	case l.out <- b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type ends struct{ server, client *Channel }

func newEnds(drop func() bool) ends {
	a, b := pipe(drop)
	return ends{newChannel(a, OutputStream, InputStream, clock.Real{}), newChannel(b, InputStream, OutputStream, clock.Real{})}
}

func run(t *testing.T, c *Channel, take func(*Message) (bool, error)) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); c.Run(ctx, take) }()
	t.Cleanup(func() { cancel(); <-ended })
}

func ignore(*Message) (bool, error) { return true, nil }

// collect checks that messages come once each and in order, and says when the last one has.
func collect(t *testing.T, n int, refuse func() bool) (func(*Message) (bool, error), <-chan struct{}) {
	next, done := 0, make(chan struct{})
	return func(m *Message) (bool, error) {
		if refuse != nil && refuse() {
			return false, nil
		}
		if string(m.Payload) != fmt.Sprint(next) {
			t.Errorf("got %q, want %d", m.Payload, next)
		}
		if next++; next == n {
			close(done)
		}
		return true, nil
	}, done
}

func TestBothWaysOverALossyLink(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var lock = make(chan struct{}, 1)
	chance := func(p float64) func() bool {
		return func() bool {
			lock <- struct{}{}
			defer func() { <-lock }()
			return r.Float64() < p
		}
	}
	e := newEnds(chance(0.1))
	const n = 100
	atServer, serverDone := collect(t, n, chance(0.1))
	atClient, clientDone := collect(t, n, chance(0.1))
	run(t, e.server, atServer)
	run(t, e.client, atClient)
	var sending sync.WaitGroup
	for _, c := range []*Channel{e.server, e.client} {
		sending.Go(func() {
			for i := range n {
				if err := c.Send(t.Context(), Output, 0, []byte(fmt.Sprint(i))); err != nil {
					t.Errorf("send %d: %v", i, err)
					return
				}
			}
		})
	}
	<-serverDone
	<-clientDone
	sending.Wait() // what was sent again may have come before the first time
	for _, c := range []*Channel{e.server, e.client} {
		if err := c.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestAnOpenedWindowIsAllThatWaits(t *testing.T) {
	e := newEnds(nil)
	allow := make(chan struct{})
	run(t, e.client, func(*Message) (bool, error) {
		select {
		case <-allow:
			return true, nil
		default:
			return false, nil
		}
	})
	run(t, e.server, ignore)
	sends := make(chan error, 1)
	go func() {
		for range Window + 1 {
			if err := e.server.Send(t.Context(), Output, 0, []byte("x")); err != nil {
				sends <- err
				return
			}
		}
		sends <- nil
	}()
	<-e.server.Full()
	select {
	case err := <-sends:
		t.Fatalf("more than a window was sent: %v", err)
	default:
	}
	close(allow)
	if err := <-sends; err != nil {
		t.Fatal(err)
	}
	if err := e.server.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if full := e.server.Full(); closed(full) {
		t.Error("it is still said to be full")
	}
}

func TestPausedSendsNothing(t *testing.T) {
	e := newEnds(nil)
	got := make(chan string, 1)
	run(t, e.server, func(m *Message) (bool, error) { got <- string(m.Payload); return true, nil })
	run(t, e.client, ignore)
	if err := e.server.Announce(t.Context(), PausePublication, nil); err != nil {
		t.Fatal(err)
	}
	for paused := false; !paused; {
		e.client.mu.Lock()
		paused = e.client.paused
		e.client.mu.Unlock()
	}
	go e.client.Send(t.Context(), Output, 0, []byte("late"))
	<-e.client.Full()
	if len(got) > 0 {
		t.Error("it was sent all the same")
	}
	if err := e.server.Announce(t.Context(), StartPublication, nil); err != nil {
		t.Fatal(err)
	}
	if text := <-got; text != "late" {
		t.Errorf("got %q", text)
	}
}

func TestRunEndsWithWhatCannotBeRead(t *testing.T) {
	e := newEnds(nil)
	ended := make(chan error, 1)
	go func() { ended <- e.server.Run(t.Context(), ignore) }()
	if err := e.client.frames.write(t.Context(), []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("run = %v", err)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
