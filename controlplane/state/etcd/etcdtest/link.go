package etcdtest

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Link is a way of one client to an etcd that can be cut, held and made slow. Like TCP it delivers late, in order, or breaks.
type Link struct {
	// Endpoint is where the client finds etcd by this way.
	Endpoint string

	listener net.Listener
	target   string

	mu      sync.Mutex
	cut     bool
	there   way
	back    way
	conns   map[net.Conn]bool
	changed chan struct{} // closed by the next change of the above
}

// way is one direction.
type way struct {
	held  bool
	delay time.Duration
}

// NewLink makes one to server. It ends with t.
func NewLink(t testing.TB, server *Server) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{
		Endpoint: "http://" + listener.Addr().String(), listener: listener, target: strings.TrimPrefix(server.Endpoint, "http://"),
		conns: map[net.Conn]bool{}, changed: make(chan struct{}),
	}
	t.Cleanup(func() { listener.Close(); l.Cut() })
	go l.serve()
	return l
}

// Cut ends all connections, and new ones at once, until Heal.
func (l *Link) Cut() { l.set(func() { l.cut = true }) }

// Hold lets nothing through, to etcd, from it, or both, until Heal, which delivers what was held.
func (l *Link) Hold(there, back bool) {
	l.set(func() { l.there.held, l.back.held = l.there.held || there, l.back.held || back })
}

// Delay makes everything arrive later by d, in both directions.
func (l *Link) Delay(d time.Duration) { l.set(func() { l.there.delay, l.back.delay = d, d }) }

// Heal undoes all of the above.
func (l *Link) Heal() { l.set(func() { l.cut, l.there, l.back = false, way{}, way{} }) }

func (l *Link) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	if l.cut {
		for c := range l.conns {
			c.Close()
			delete(l.conns, c)
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link) get(w *way) (way, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return *w, l.changed
}

func (l *Link) serve() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", l.target)
		if err != nil {
			near.Close()
			continue
		}
		if !l.add(near, far) {
			continue
		}
		ended := make(chan struct{})
		end := sync.OnceFunc(func() {
			close(ended)
			near.Close()
			far.Close()
			l.forget(near, far)
		})
		go func() { defer end(); l.pass(far, near, &l.there, ended) }()
		go func() { defer end(); l.pass(near, far, &l.back, ended) }()
	}
}

func (l *Link) add(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		if l.cut {
			c.Close()
		} else {
			l.conns[c] = true
		}
	}
	return !l.cut
}

func (l *Link) forget(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		delete(l.conns, c)
	}
}

// chunk is what arrived together, and when it may go on.
type chunk struct {
	bytes []byte
	at    time.Time
}

// pass brings what comes from one end to the other until either has ended. What was under way when the sender ended still arrives.
func (l *Link) pass(to, from net.Conn, w *way, ended <-chan struct{}) {
	chunks := make(chan chunk, 64)
	go func() {
		defer close(chunks)
		for {
			b := make([]byte, 32<<10)
			n, err := from.Read(b)
			if n > 0 {
				now, _ := l.get(w)
				select {
				case chunks <- chunk{b[:n], time.Now().Add(now.delay)}:
				case <-ended:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	for c := range chunks {
		if !l.mayPass(w, c.at, ended) {
			return
		}
		if _, err := to.Write(c.bytes); err != nil {
			return
		}
	}
}

// mayPass waits until at, and until the way is open. It returns false when the connection has ended.
func (l *Link) mayPass(w *way, at time.Time, ended <-chan struct{}) bool {
	if d := time.Until(at); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ended:
			return false
		}
	}
	for {
		now, changed := l.get(w)
		if !now.held {
			return true
		}
		select {
		case <-changed:
		case <-ended:
			return false
		}
	}
}
