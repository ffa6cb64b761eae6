package testcluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Network connects servers in memory. Its connections behave like TCP's: what cannot be delivered now is held and delivered later,
// in order, or the connection breaks. Everything can be set per direction. Safe for concurrent use.
type Network struct {
	mu        sync.Mutex
	rand      *rand.Rand
	listeners map[string]*listener
	links     map[[2]string]*link
	conns     map[*conn]struct{}
}

// NewNetwork makes a network that loses what Loss says by the choice of seed.
func NewNetwork(seed uint64) *Network {
	return &Network{
		rand: rand.New(rand.NewPCG(seed, 1)), listeners: map[string]*listener{}, links: map[[2]string]*link{}, conns: map[*conn]struct{}{},
	}
}

// link is one direction between two servers.
type link struct {
	mu      sync.Mutex
	cut     bool
	delay   time.Duration
	loss    float64
	changed chan struct{} // closed by the next change
}

func (n *Network) link(from, to string) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.links[[2]string{from, to}]
	if l == nil {
		l = &link{changed: make(chan struct{})}
		n.links[[2]string{from, to}] = l
	}
	return l
}

func (l *link) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *link) get() (cut bool, delay time.Duration, loss float64, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut, l.delay, l.loss, l.changed
}

// Cut stops everything from one server to another, in this direction only.
func (n *Network) Cut(from, to string) { l := n.link(from, to); l.set(func() { l.cut = true }) }

// Heal lets it flow again, beginning with what was held.
func (n *Network) Heal(from, to string) { l := n.link(from, to); l.set(func() { l.cut = false }) }

// Delay makes everything from one server to another arrive later by d.
func (n *Network) Delay(from, to string, d time.Duration) {
	l := n.link(from, to)
	l.set(func() { l.delay = d })
}

// Loss breaks a connection with probability p at each write from one server to another.
func (n *Network) Loss(from, to string, p float64) {
	l := n.link(from, to)
	l.set(func() { l.loss = p })
}

// HealAll undoes all of the above.
func (n *Network) HealAll() {
	n.mu.Lock()
	links := make([]*link, 0, len(n.links))
	for _, l := range n.links {
		links = append(links, l)
	}
	n.mu.Unlock()
	for _, l := range links {
		l.set(func() { l.cut, l.delay, l.loss = false, 0, 0 })
	}
}

// Reset breaks every connection of a server, as the end of its process does.
func (n *Network) Reset(id string) {
	n.mu.Lock()
	var its []*conn
	for c := range n.conns {
		if c.local == id || c.remote == id {
			its = append(its, c)
		}
	}
	n.mu.Unlock()
	for _, c := range its {
		c.Close()
	}
}

// Listen is where connections to server id arrive. An earlier listener of it must be closed.
func (n *Network) Listen(id string) net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &listener{network: n, id: id, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[id] = l
	return l
}

// Dialer connects from server id to others, whose addresses are their ids.
func (n *Network) Dialer(from string) func(ctx context.Context, id, address string) (net.Conn, error) {
	return func(ctx context.Context, _, to string) (net.Conn, error) {
		for _, l := range []*link{n.link(from, to), n.link(to, from)} { // there and back
			for {
				cut, delay, _, changed := l.get()
				if cut {
					select {
					case <-changed:
						continue
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				if delay > 0 {
					select {
					case <-time.After(delay):
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				break
			}
		}
		n.mu.Lock()
		l := n.listeners[to]
		n.mu.Unlock()
		if l == nil {
			return nil, errors.New("connection refused")
		}
		mine, its := n.pair(from, to)
		select {
		case l.conns <- its:
			return mine, nil
		case <-l.closed:
			mine.Close()
			return nil, errors.New("connection refused")
		case <-ctx.Done():
			mine.Close()
			return nil, ctx.Err()
		}
	}
}

func (n *Network) pair(from, to string) (a, b *conn) {
	there, back := newHalf(n.link(from, to)), newHalf(n.link(to, from))
	a = &conn{network: n, local: from, remote: to, in: back, out: there}
	b = &conn{network: n, local: to, remote: from, in: there, out: back}
	a.peer, b.peer = b, a
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns[a], n.conns[b] = struct{}{}, struct{}{}
	return a, b
}

func (n *Network) roll(p float64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rand.Float64() < p
}

type listener struct {
	network *Network
	id      string
	conns   chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.network.mu.Lock()
		defer l.network.mu.Unlock()
		if l.network.listeners[l.id] == l {
			delete(l.network.listeners, l.id)
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return addr(l.id) }

type addr string

func (addr) Network() string  { return "memory" }
func (a addr) String() string { return string(a) }
