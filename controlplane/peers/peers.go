// Package peers is what the servers of a cluster have of one another besides the replicated state: requests passed on to the leader,
// what dispatchers relay to it, and the taking in of hosts that come by a token.
//
// Each is HTTP of its own over the peer port: mutual TLS, protocols apart by ALPN, connections kept. Who is on the other end follows
// from its certificate, and is a server; what it sends is believed.
//
// Invariant: Send and relay say that nothing was done only if no byte of the request has left, or the other server says so.
package peers

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative controlplane/peers/peers.proto

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/dispatcher"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/trust"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// The protocols' names on the peer port.
const (
	ProtocolRaft    = "neargate-raft/1"
	ProtocolForward = "neargate-forward/1"
	ProtocolRelay   = "neargate-relay/1"
)

// Config is what Peers is told. What is set later is set before Run.
type Config struct {
	ID string // of this server
	// Address is where the others reach this server now.
	Address string
	Engine  Group
	Store   *state.Store
	// Dial connects to the server with an id, at address, and makes sure that it is that one.
	Dial func(ctx context.Context, protocol, id, address string) (net.Conn, error)
	// Authority is this server's, of which it hands others what they lack; nil: there is none.
	Authority interface {
		Ring() (trust.Ring, <-chan struct{})
		Hand(id string, to []byte) ([]byte, error)
	}
	// Outdated says whether a connection's other end should come by a new one: its certificate is being replaced. Nil: none should.
	Outdated func(net.Conn) bool
	// Peer is the id of the server at the other end of a connection.
	Peer func(net.Conn) (id string, ok bool)
	// Forwards and Relays yield the connections of other servers.
	Forwards, Relays net.Listener
	Clock            clock.Clock
	Log              *slog.Logger

	Forwarded  http.Handler // answers what other servers pass on
	Dispatcher interface {
		Relayed(ctx context.Context, from string, msg *dispatcher.Relay) (*dispatcher.RelayAnswer, error)
	}
	Blobs   *blob.Store   // that other servers read and write; nil: none
	Streams *stream.Store // likewise
	// Registry takes, while this server leads, when images were pulled from others.
	Registry interface {
		TakePulls(ctx context.Context, from string, report []byte) error
	}
	// Logs takes, while this server leads, what others have from agents.
	Logs interface {
		Take(ctx context.Context, batch *agentapi.ShipBatch) (mark uint64, err error)
	}
}

// Peers are the other servers. Safe for concurrent use.
type Peers struct {
	Config
	forwards, relays *http.Transport
	sendings         sendings

	mu      sync.Mutex
	members []state.Member // as the leader last told
	moved   bool           // one could not be reached where it was
}

const (
	// maxConnections to one server for each protocol; what is more waits for one of them.
	maxConnections = 256
	idleTimeout    = time.Minute
	dialTimeout    = 3 * time.Second
	// headerTimeout is for how long a request that was sent may stay without an answer's beginning.
	headerTimeout = 2 * time.Minute
)

// New makes Peers. Run it.
func New(c Config) *Peers {
	p := &Peers{Config: c}
	p.forwards, p.relays = p.transport(ProtocolForward), p.transport(ProtocolRelay)
	return p
}

func (p *Peers) transport(protocol string) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, hostport string) (net.Conn, error) {
			id, _, err := net.SplitHostPort(hostport)
			if err != nil {
				return nil, err
			}
			// A request that gets another connection meanwhile does not break this one off: it will be of use to the next.
			conn, err := p.dial(context.WithoutCancel(ctx), protocol, id)
			if err != nil {
				return nil, &unsentError{err}
			}
			return conn, nil
		},
		MaxConnsPerHost: maxConnections, MaxIdleConnsPerHost: maxConnections, IdleConnTimeout: idleTimeout,
		ResponseHeaderTimeout: headerTimeout, DisableCompression: true,
	}
}

// unsentError: the request never left.
type unsentError struct{ err error }

func (e *unsentError) Error() string { return e.err.Error() }
func (e *unsentError) Unwrap() error { return e.err }

func (p *Peers) dial(ctx context.Context, protocol, id string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	address, err := p.address(ctx, id)
	if err != nil {
		return nil, err
	}
	conn, err := p.Dial(ctx, protocol, id, address)
	if err != nil {
		p.mu.Lock()
		p.moved = true // perhaps
		p.mu.Unlock()
		return nil, fmt.Errorf("server %s: %w", id, err)
	}
	return conn, nil
}

// address is where a server is.
func (p *Peers) address(ctx context.Context, id string) (string, error) {
	p.mu.Lock()
	address, moved := p.addressOf(id), p.moved
	p.mu.Unlock()
	if address != "" && !moved {
		return address, nil
	}
	if err := p.learn(ctx); err != nil && address == "" {
		return "", err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if address = p.addressOf(id); address == "" {
		return "", fmt.Errorf("server %s is no member of the cluster", id)
	}
	return address, nil
}

// addressOf is a member's address as last told. p.mu is held.
func (p *Peers) addressOf(id string) string {
	members := p.members
	if len(members) == 0 {
		members = p.Engine.Known()
	}
	for _, m := range members {
		if m.ID == id {
			return m.Address
		}
	}
	return ""
}

func (p *Peers) learn(ctx context.Context) error {
	members, err := p.Engine.Members(ctx)
	if err != nil {
		return fmt.Errorf("members of the cluster: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.members, p.moved = members, false
	return nil
}

// Others are the ids of the other members, as last told: first those that are well.
func (p *Peers) Others() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var well, ill []string
	for _, m := range p.members {
		switch {
		case m.ID == p.ID:
		case m.Healthy:
			well = append(well, m.ID)
		default:
			ill = append(ill, m.ID)
		}
	}
	return append(well, ill...)
}

// Leader waits until somebody leads and says who; "" is this server.
func (p *Peers) Leader(ctx context.Context) (string, error) {
	for {
		l := p.Store.Leadership()
		switch {
		case l.Term != 0:
			return "", nil
		case l.Leader != "":
			return l.Leader, nil
		case l.Changed == nil:
			return "", state.ErrClosed
		}
		select {
		case <-l.Changed:
		case <-ctx.Done():
			return "", fmt.Errorf("%w: %w", state.ErrNoLeader, ctx.Err())
		}
	}
}

// again is how long somebody who could not reach the leader waits before he looks anew.
const again = 100 * time.Millisecond

// Changed returns once somebody else may lead than when it was called, a moment later, or with ctx.
func (p *Peers) Changed(ctx context.Context) {
	select {
	case <-p.Store.Leadership().Changed:
	case <-time.After(again):
	case <-ctx.Done():
	}
}

// Barrier returns once this server has everything that any server acknowledged before the call.
func (p *Peers) Barrier(ctx context.Context) error { return p.Engine.Barrier(ctx) }

// Run serves the other servers until ctx ends.
func (p *Peers) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.serve(ctx, p.Forwards, p.Forwarded) })
	g.Go(func() error { return p.serve(ctx, p.Relays, p.relayed()) })
	g.Go(func() error { return p.follow(ctx) })
	g.Go(func() error { return p.announce(ctx) })
	g.Go(func() error { return p.abandon(ctx) })
	g.Go(func() error { return p.belong(ctx) })
	err := g.Wait()
	p.forwards.CloseIdleConnections()
	p.relays.CloseIdleConnections()
	return err
}

// follow keeps what is known of the members' addresses.
func (p *Peers) follow(ctx context.Context) error {
	for ctx.Err() == nil {
		l := p.Store.Leadership()
		err := p.learn(ctx)
		if err != nil && ctx.Err() == nil {
			p.Log.Debug("members of the cluster", "error", err)
		}
		select {
		case <-l.Changed:
		case <-time.After(10 * time.Second): // members come and go
		case <-ctx.Done():
		}
	}
	return nil
}

type (
	peerKey struct{}
	connKey struct{}
)

// serve answers HTTP on the connections that l yields until ctx ends.
func (p *Peers) serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 20 * time.Second, IdleTimeout: 2 * idleTimeout,
		ErrorLog: slog.NewLogLogger(p.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			id, _ := p.Peer(conn.(plain).Conn)
			return context.WithValue(context.WithValue(ctx, peerKey{}, id), connKey{}, conn.(plain).Conn)
		},
	}
	if p.Outdated != nil {
		s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok && r.Header.Get("Upgrade") == "" && p.Outdated(conn) {
				w.Header().Set("Connection", "close") // after the answer
			}
			h.ServeHTTP(w, r)
		})
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(plainListener{l}) }()
	<-ctx.Done()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := s.Shutdown(grace); err != nil {
		s.Close()
	}
	<-done
	return nil
}

// plain hides from net/http that a connection is TLS: it would look for the protocol's name among its own.
type plain struct{ net.Conn }

type plainListener struct{ net.Listener }

func (l plainListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return plain{conn}, nil
}
