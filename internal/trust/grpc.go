package trust

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
)

// ProtocolGRPC is gRPC's name on the peer port.
const ProtocolGRPC = "h2"

// A host that lost its power or its network sends no FIN: a connection that has been silent is probed, and given up when no answer
// comes. What an agent sends, its heartbeats above all, probes as well: the kernel gives up what is not confirmed within patience. So its own probes
// find servers that hang, and have to be in time only for another server to hear of the node before it is given up (30 s).
const (
	silence      = 10 * time.Second
	agentSilence = 15 * time.Second
	patience     = 5 * time.Second
)

// window is how much of one stream may be under way, or wait for a reader who is slow, and connWindow of all streams of a connection. They are
// fixed: gRPC's way of finding them out answers every message that comes on a quiet connection with a ping, which costs more than the message.
const (
	window     = 1 << 20
	connWindow = 4 << 20
)

// A connection hands out a TLS record at a time, which it holds already: a buffer for reading in front of it would save nothing.
const noReadBuffer = 0

// peerInfo is what gRPC knows about the peer of a call.
type peerInfo struct {
	credentials.CommonAuthInfo
	identity Identity
}

func (peerInfo) AuthType() string { return "neargate" }

// Peer says who is at the other end of a call's connection.
func Peer(ctx context.Context) (Identity, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{}, false
	}
	info, ok := p.AuthInfo.(peerInfo)
	return info.identity, ok
}

// AuthorizeNode says whether the peer of a call may speak for the node: it must be the agent whose certificate names it.
func AuthorizeNode(ctx context.Context, node string) error {
	who, ok := Peer(ctx)
	switch {
	case !ok:
		return errors.New("the caller has shown no certificate")
	case who != (Identity{Agent, node}):
		return fmt.Errorf("%s may not speak for node %s", who, node)
	}
	return nil
}

// GRPCServerOptions are for the server whose listener is a Port's.
func GRPCServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(accepted{}), grpc.ForceServerCodecV2(newAside()),
		// Ten thousand agents say little, each at its time: they share buffers for writing.
		grpc.SharedWriteBuffer(true), grpc.ReadBufferSize(noReadBuffer), grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(connWindow),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: silence, Timeout: patience}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: silence / 2, PermitWithoutStream: true}),
	}
}

// DialServers connects to any of the servers, always to one at a time, and to the next one when that is gone.
func (c *Credential) DialServers(servers []string) (*Servers, error) {
	if len(servers) == 0 {
		return nil, errors.New("no servers are known")
	}
	s := &Servers{credential: c, servers: servers}
	var err error
	s.current, err = s.dial()
	return s, err
}

// Servers are gRPC's way to the servers. When the credential's authorities change, calls that begin from then on go by a new connection; the old
// one is closed when the last of its calls has ended. So calls that last, a followed log or a command, are not broken off.
type Servers struct {
	credential *Credential
	servers    []string
	next       atomic.Uint32

	mu      sync.Mutex
	current *way
	closed  bool
}

// way is one connection with what it was made with.
type way struct {
	*grpc.ClientConn
	papers Papers
	calls  int  // under way
	left   bool // closed with the last of them
}

func (s *Servers) dial() (*way, error) {
	s.next.Store(rand.Uint32N(uint32(len(s.servers)))) // agents spread over the servers
	papers, _ := s.credential.Papers()
	conn, err := grpc.NewClient("passthrough:///servers",
		grpc.WithTransportCredentials(dialled{s.credential}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			server := s.servers[(s.next.Add(1)-1)%uint32(len(s.servers))]
			return new(net.Dialer).DialContext(ctx, "tcp", server)
		}),
		grpc.WithSharedWriteBuffer(true), grpc.WithReadBufferSize(noReadBuffer), grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: agentSilence, Timeout: patience}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: dialTimeout,
		}),
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return nil, err
	}
	return &way{ClientConn: conn, papers: papers}, nil
}

// take is the way for a call, and what to do at its end.
func (s *Servers) take() (*way, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed && !s.credential.has(s.current.papers) {
		w, err := s.dial()
		if err != nil {
			return nil, nil, err
		}
		s.leave(s.current)
		s.current = w
	}
	w := s.current
	w.calls++
	return w, sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if w.calls--; w.left && w.calls == 0 {
			w.Close()
		}
	}), nil
}

// leave has a way end with its calls. s.mu is held.
func (s *Servers) leave(w *way) {
	if w.left = true; w.calls == 0 {
		w.Close()
	}
}

// Invoke implements grpc.ClientConnInterface.
func (s *Servers) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	w, ended, err := s.take()
	if err != nil {
		return err
	}
	defer ended()
	return w.ClientConn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (s *Servers) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	w, ended, err := s.take()
	if err != nil {
		return nil, err
	}
	stream, err := w.ClientConn.NewStream(ctx, desc, method, append(opts, grpc.OnFinish(func(error) { ended() }))...)
	if err != nil {
		ended()
	}
	return stream, err
}

// Close breaks off what is under way.
func (s *Servers) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.current.Close()
}

// accepted are gRPC's credentials on a server behind a Port, which has shaken hands already.
type accepted struct{}

func (accepted) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, ok := conn.(*tls.Conn)
	if !ok {
		return nil, nil, fmt.Errorf("a connection of type %T: it does not come from the peer port", conn)
	}
	who, err := peerOf(secured)
	if err != nil {
		return nil, nil, err
	}
	return conn, infoOf(who), nil
}

func (accepted) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for servers")
}

func (accepted) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls", SecurityVersion: "1.3"}
}
func (a accepted) Clone() credentials.TransportCredentials { return a }
func (accepted) OverrideServerName(string) error           { return nil }

// dialled are gRPC's credentials on a client.
type dialled struct{ credential *Credential }

func (d dialled) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn := tls.Client(raw, d.credential.peerTLS([]string{ProtocolGRPC}, Server))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		if refused(err) {
			d.credential.hasten(earlier{})
		}
		return nil, nil, err
	}
	who, err := peerOf(conn)
	if err != nil {
		raw.Close()
		return nil, nil, err
	}
	return &refusable{conn, d.credential}, infoOf(who), nil
}

// refusable notices that the server has refused this host's certificate: with TLS 1.3 the client hears so after its handshake.
type refusable struct {
	net.Conn
	credential *Credential
}

// Read implements net.Conn.
func (r *refusable) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if err != nil && refused(err) {
		r.credential.hasten(earlier{})
	}
	return n, err
}

func (dialled) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for clients")
}

func (dialled) Info() credentials.ProtocolInfo            { return accepted{}.Info() }
func (d dialled) Clone() credentials.TransportCredentials { return d }
func (dialled) OverrideServerName(string) error           { return nil }

func infoOf(who Identity) peerInfo {
	return peerInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, who}
}
