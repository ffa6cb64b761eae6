package trust

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
)

// Dial connects to the peer port at address and speaks one of its protocols with the host that who names; without an id any host of
// that role will do. The connection is a *tls.Conn with the handshake done.
func (c *Credential) Dial(ctx context.Context, protocol string, who Identity, address string) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, c.peerTLS([]string{protocol}, who.Role))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	peer, err := peerOf(conn)
	if err == nil && who.ID != "" && peer != who {
		err = fmt.Errorf("peer refused: it is %s and not %s", peer, who)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
