package trust

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
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
		grpc.Creds(accepted{}),
		// Ten thousand agents say little, each at its time: they share buffers for writing.
		grpc.SharedWriteBuffer(true), grpc.ReadBufferSize(noReadBuffer), grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(connWindow),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: silence, Timeout: patience}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: silence / 2, PermitWithoutStream: true}),
	}
}

// DialServers connects to any of the servers, always to one at a time, and to the next one when that is gone.
func (c *Credential) DialServers(servers []string) (*grpc.ClientConn, error) {
	if len(servers) == 0 {
		return nil, errors.New("no servers are known")
	}
	var next atomic.Uint32
	next.Store(rand.Uint32N(uint32(len(servers)))) // agents spread over the servers
	return grpc.NewClient("passthrough:///servers",
		grpc.WithTransportCredentials(dialled{c}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			server := servers[(next.Add(1)-1)%uint32(len(servers))]
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
		return nil, nil, err
	}
	who, err := peerOf(conn)
	if err != nil {
		raw.Close()
		return nil, nil, err
	}
	return conn, infoOf(who), nil
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
