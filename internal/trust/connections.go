package trust

import (
	"crypto/x509"
	"net"
	"sync"
)

// connections are those that stand with hosts of the cluster, by what the host at the other end has shown.
type connections struct {
	mu   sync.Mutex
	live map[*tracked]*x509.Certificate
}

// tracked is a connection that is known until it is closed, once its other end has shown a certificate.
type tracked struct {
	net.Conn
	of *connections
}

func (c *connections) track(conn net.Conn) *tracked { return &tracked{conn, c} }

func (t *tracked) shows(cert *x509.Certificate) {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	if t.of.live == nil {
		t.of.live = map[*tracked]*x509.Certificate{}
	}
	t.of.live[t] = cert
}

// Close implements net.Conn.
func (t *tracked) Close() error {
	t.of.mu.Lock()
	delete(t.of.live, t)
	t.of.mu.Unlock()
	return t.Conn.Close()
}

// Cut closes the connections with hosts whose certificates are of an authority that is no longer trusted, and says how many there were. They were made
// while it was; so were those of whoever has stolen its key.
func (c *Credential) Cut() int {
	trusted := c.current().authorities
	var old []*tracked
	c.conns.mu.Lock()
	for t, cert := range c.conns.live {
		if !signedBy(cert, trusted) {
			old = append(old, t)
		}
	}
	c.conns.mu.Unlock()
	for _, t := range old {
		t.Close()
	}
	return len(old)
}
