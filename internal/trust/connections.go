package trust

import (
	"bytes"
	"crypto/x509"
	"net"
	"slices"
	"sync"
)

// connections are those that stand with hosts of the cluster.
type connections struct {
	mu   sync.Mutex
	live map[*tracked]struct{}
}

// tracked is a connection that is known until it is closed, once its other end has shown a certificate. What is asked for later is kept with it, and not the
// certificate: parsed, that is 4 kB in dozens of pieces, for each of thousands of hosts.
type tracked struct {
	net.Conn
	of     *connections
	who    Identity
	signer []byte // the key id of the authority that has signed the certificate
}

func (c *connections) track(conn net.Conn) *tracked { return &tracked{Conn: conn, of: c} }

// shows is called once, with a certificate that was checked.
func (t *tracked) shows(who Identity, cert *x509.Certificate) {
	t.who, t.signer = who, bytes.Clone(cert.AuthorityKeyId)
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	if t.of.live == nil {
		t.of.live = map[*tracked]struct{}{}
	}
	t.of.live[t] = struct{}{}
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
	for t := range c.conns.live {
		if !slices.ContainsFunc(trusted, func(a *x509.Certificate) bool { return bytes.Equal(a.SubjectKeyId, t.signer) }) {
			old = append(old, t)
		}
	}
	c.conns.mu.Unlock()
	for _, t := range old {
		t.Close()
	}
	return len(old)
}
