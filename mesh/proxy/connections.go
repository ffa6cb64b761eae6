package proxy

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// sweepEvery is how soon a client's leaving is noticed while its target works.
const sweepEvery = 500 * time.Millisecond

// connections are those open on one socket.
type connections struct {
	closing atomic.Bool // set by shutdown: no further request is begun

	mu       sync.Mutex
	open     map[io.Closer]struct{}
	empty    chan struct{} // made by shutdown, closed with the last connection
	sweeping bool          // sweep will run; it does while a connection is open
}

// idler is a connection that may have no request.
type idler interface {
	closeIdle()
	// waits says whether its client waits for an answer; sweep looks whether it has left.
	waits() bool
	sweep()
}

// add counts c in; the returned function counts it out.
func (t *connections) add(c io.Closer) (release func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[io.Closer]struct{}{}
	}
	t.open[c] = struct{}{}
	if _, ok := c.(idler); ok && !t.sweeping {
		t.sweeping = true
		time.AfterFunc(sweepEvery, t.sweep)
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.open, c)
		if len(t.open) == 0 && t.empty != nil {
			close(t.empty)
			t.empty = nil
		}
	}
}

// idlers are the connections that may be idle and are as asked.
func (t *connections) idlers(which func(idler) bool) (all []idler) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.open {
		if i, ok := c.(idler); ok && which(i) {
			all = append(all, i)
		}
	}
	return all
}

// sweep costs a request nothing but the pointer it leaves, where a watcher of its own would be a goroutine a request.
func (t *connections) sweep() {
	for _, c := range t.idlers(idler.waits) {
		c.sweep()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sweeping = len(t.open) > 0; t.sweeping {
		time.AfterFunc(sweepEvery, t.sweep)
	}
}

// shutdown closes idle connections, waits until the others have ended, and ends them when ctx does.
func (t *connections) shutdown(ctx context.Context) {
	t.closing.Store(true)
	for _, c := range t.idlers(func(idler) bool { return true }) {
		c.closeIdle()
	}
	t.mu.Lock()
	if len(t.open) == 0 {
		t.mu.Unlock()
		return
	}
	empty := make(chan struct{})
	t.empty = empty
	t.mu.Unlock()
	select {
	case <-empty:
		return
	case <-ctx.Done():
	}
	t.mu.Lock()
	for c := range t.open {
		c.Close()
	}
	t.mu.Unlock()
	<-empty
}
