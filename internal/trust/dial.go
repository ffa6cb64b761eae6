package trust

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
)

// ProtocolTasks is plain HTTP by which agents pass on the API calls of tasks.
const ProtocolTasks = "neargate-tasks/1"

// AnyServer returns a function that connects to one of the servers and speaks a protocol: the one that answered last, or else the next that does.
func (c *Credential) AnyServer(protocol string, servers []string) func(context.Context) (net.Conn, error) {
	var last atomic.Uint32
	last.Store(rand.Uint32N(uint32(len(servers)))) // agents spread over the servers
	return func(ctx context.Context) (net.Conn, error) {
		var errs []error
		for first, i := last.Load(), uint32(0); i < uint32(len(servers)) && ctx.Err() == nil; i++ {
			n := (first + i) % uint32(len(servers))
			limit, cancel := context.WithTimeout(ctx, dialTimeout)
			conn, err := c.Dial(limit, protocol, Identity{Role: Server}, servers[n])
			cancel()
			if err == nil {
				last.Store(n)
				return conn, nil
			}
			errs = append(errs, fmt.Errorf("%s: %w", servers[n], err))
		}
		return nil, errors.Join(append(errs, ctx.Err())...)
	}
}

// Dial connects to the peer port at address and speaks one of its protocols with the host that who names; without an id any host of
// that role will do. The connection is a *tls.Conn with the handshake done.
func (c *Credential) Dial(ctx context.Context, protocol string, who Identity, address string) (net.Conn, error) {
	dialled, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	raw := c.conns.track(dialled)
	conn := tls.Client(raw, c.peerTLS([]string{protocol}, who.Role))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	peer, err := peerOf(conn)
	if err == nil {
		raw.shows(peer, conn.ConnectionState().PeerCertificates[0])
	}
	if err == nil && who.ID != "" && peer != who {
		err = fmt.Errorf("peer refused: it is %s and not %s", peer, who)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
