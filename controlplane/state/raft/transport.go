package raft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Transport is how the servers of one group reach one another. Whoever supplies it has the peers authenticated: what comes by
// Listener and Dial is believed.
type Transport struct {
	// Listener yields the connections of other servers. It is closed with the engine.
	Listener net.Listener
	// Dial connects to the listener of server id, which is known by address; it makes sure that it is that server which answers.
	Dial func(ctx context.Context, id, address string) (net.Conn, error)
	// Address is this server's own, by which the others dial it.
	Address string
}

// Every connection begins with a byte that says what it is for. One of an unknown kind is closed.
const (
	forRaft  = 'r' // hashicorp/raft's own protocol
	forCalls = 'c' // see call.go
)

const helloTimeout = 10 * time.Second

// links are the connections of an engine: raft's transport over those of one kind, and our calls over the others.
type links struct {
	*raft.NetworkTransport
	peers Transport
	serve func(net.Conn) // of a connection for calls; returns when it is closed
	// sending is told of every request for entries before it is sent, and answered of every answer.
	sending  func(raft.ServerID, raft.ServerAddress, *raft.AppendEntriesRequest)
	answered func(raft.ServerID, *raft.AppendEntriesRequest, *raft.AppendEntriesResponse)
	outdated func(*raft.InstallSnapshotRequest) bool
	abstains func(term uint64) bool

	accepted chan net.Conn // for raft
	requests chan raft.RPC
	closed   chan struct{}
	group    sync.WaitGroup // of goroutines

	mu    sync.Mutex
	conns map[net.Conn]struct{} // to close; nil once closed
}

// newLinks begins to accept. A transport without a listener is of a server that is alone.
func newLinks(t Transport, config *raft.Config, timeout time.Duration, serve func(net.Conn), outdated func(*raft.InstallSnapshotRequest) bool, abstains func(term uint64) bool) *links {
	l := &links{peers: t, serve: serve, outdated: outdated, abstains: abstains,
		accepted: make(chan net.Conn), requests: make(chan raft.RPC), closed: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	l.NetworkTransport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: stream{l}, MaxPool: 3, Timeout: timeout, Logger: config.Logger, MsgpackUseNewTimeFormat: true,
	})
	l.group.Go(l.pass)
	if t.Listener != nil {
		l.group.Go(l.accept)
	}
	return l
}

func (l *links) accept() {
	for {
		conn, err := l.peers.Listener.Accept()
		if err != nil {
			select {
			case <-l.closed:
				return
			case <-time.After(50 * time.Millisecond): // out of files, perhaps
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		if conn = l.keep(conn); conn == nil {
			return
		}
		l.group.Go(func() { l.sort(conn) })
	}
}

// sort hands a connection to those it is for.
func (l *links) sort(conn net.Conn) {
	var hello [1]byte
	conn.SetDeadline(time.Now().Add(helloTimeout))
	if _, err := io.ReadFull(conn, hello[:]); err != nil {
		conn.Close()
		return
	}
	conn.SetDeadline(time.Time{})
	switch hello[0] {
	case forRaft:
		select {
		case l.accepted <- conn:
			return
		case <-l.closed:
		}
	case forCalls:
		l.serve(conn)
	}
	conn.Close()
}

// dial connects to a server for the purpose that the hello names.
func (l *links) dial(ctx context.Context, hello byte, id, address string) (net.Conn, error) {
	if l.peers.Dial == nil {
		return nil, errors.New("this server is alone")
	}
	conn, err := l.peers.Dial(ctx, id, address)
	if err != nil {
		return nil, fmt.Errorf("dial server %s at %s: %w", id, address, err)
	}
	if conn = l.keep(conn); conn == nil {
		return nil, net.ErrClosed
	}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if _, err := conn.Write([]byte{hello}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("dial server %s at %s: %w", id, address, err)
	}
	conn.SetDeadline(time.Time{})
	return conn, nil
}

// keep has conn closed with the links. It returns nil, with conn closed, if they are already.
func (l *links) keep(conn net.Conn) net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		conn.Close()
		return nil
	}
	kept := &keptConn{Conn: conn, links: l}
	l.conns[kept] = struct{}{}
	return kept
}

type keptConn struct {
	net.Conn
	links *links
}

func (c *keptConn) Close() error {
	c.links.mu.Lock()
	delete(c.links.conns, c)
	c.links.mu.Unlock()
	return c.Conn.Close()
}

// Close ends everything under way. Raft closes its transport itself as well, so it may come twice.
func (l *links) Close() error {
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	if conns == nil {
		return nil
	}
	close(l.closed)
	err := l.NetworkTransport.Close()
	if l.peers.Listener != nil {
		err = errors.Join(err, l.peers.Listener.Close())
	}
	for c := range conns {
		c.(*keptConn).Conn.Close()
	}
	l.group.Wait()
	return err
}

// loopback is a transport whose one peer is l's own raft.
func (l *links) loopback(config *raft.Config) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: loopback{l, make(chan struct{})}, Timeout: startTimeout, Logger: config.Logger, MsgpackUseNewTimeFormat: true,
	})
}

// Raft dials by address alone. The id of whom it wants to reach goes along in front of it.

func target(id raft.ServerID, address raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(string(id) + "\x00" + string(address))
}

func (l *links) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := l.NetworkTransport.AppendEntriesPipeline(id, target(id, to))
	if err != nil {
		return nil, err
	}
	return newPipeline(p, func(args *raft.AppendEntriesRequest) { boundCommit(args); l.sending(id, to, args) }, func(f raft.AppendFuture) {
		if f.Error() == nil {
			l.answered(id, f.Request(), f.Response())
		}
	}), nil
}

func (l *links) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	boundCommit(args)
	l.sending(id, to, args)
	err := l.NetworkTransport.AppendEntries(id, target(id, to), args, resp)
	if err == nil {
		l.answered(id, args, resp)
	}
	return err
}

func (l *links) RequestVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return l.NetworkTransport.RequestVote(id, target(id, to), args, resp)
}

func (l *links) RequestPreVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if l.abstains(args.Term) {
		resp.Term = args.Term
		return nil
	}
	return l.NetworkTransport.RequestPreVote(id, target(id, to), args, resp)
}

func (l *links) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return l.NetworkTransport.InstallSnapshot(id, target(id, to), args, resp, data)
}

func (l *links) TimeoutNow(id raft.ServerID, to raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return l.NetworkTransport.TimeoutNow(id, target(id, to), args, resp)
}

// stream is the links as raft's transport sees them.
type stream struct{ l *links }

func (s stream) Accept() (net.Conn, error) {
	select {
	case c := <-s.l.accepted:
		return c, nil
	case <-s.l.closed:
		return nil, net.ErrClosed
	}
}

func (s stream) Close() error   { return nil } // the links close themselves
func (s stream) Addr() net.Addr { return address(s.l.peers.Address) }

func (s stream) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	id, addr, _ := strings.Cut(string(to), "\x00")
	return s.l.dial(ctx, forRaft, id, addr)
}

// loopback is the other end of connections to a server's own raft, without a network.
type loopback struct {
	l      *links
	closed chan struct{}
}

func (b loopback) Accept() (net.Conn, error) { <-b.closed; return nil, net.ErrClosed }
func (b loopback) Close() error              { close(b.closed); return nil }
func (b loopback) Addr() net.Addr            { return address(b.l.peers.Address) }

func (b loopback) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	mine, its := net.Pipe()
	kept := b.l.keep(its)
	if kept == nil {
		return nil, net.ErrClosed
	}
	select {
	case b.l.accepted <- kept:
		return mine, nil
	case <-b.l.closed:
		return nil, net.ErrClosed
	}
}

// address is a server's address as the group knows it.
type address string

func (address) Network() string  { return "raft" }
func (a address) String() string { return string(a) }

// boundCommit lets a request tell of no commit beyond the entries that it is about. Raft's follower looks for the end of its log instead, which may
// be of another leader's entries when it is sent again what it has before them.
func boundCommit(r *raft.AppendEntriesRequest) {
	r.LeaderCommitIndex = min(r.LeaderCommitIndex, r.PrevLogEntry+uint64(len(r.Entries)))
}
