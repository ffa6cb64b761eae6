package trust

import (
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"time"
)

// Papers name the authorities of a credential: who has signed its certificate, and whom it trusts.
type Papers struct {
	Issuer      string
	Authorities []string
}

// Equal says whether they name the same ones.
func (p Papers) Equal(q Papers) bool {
	return p.Issuer == q.Issuer && slices.Equal(p.Authorities, q.Authorities)
}

func (p papers) names() Papers {
	var n Papers
	if p.certificate.Leaf != nil {
		n.Issuer = hex.EncodeToString(p.certificate.Leaf.AuthorityKeyId)
	}
	for _, a := range p.authorities {
		n.Authorities = append(n.Authorities, AuthorityID(a))
	}
	return n
}

// Papers are this credential's, and a channel that is closed when they are others.
func (c *Credential) Papers() (Papers, <-chan struct{}) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.papers.names(), c.changed
}

func (c *Credential) has(want Papers) bool {
	p, _ := c.Papers()
	return p.Equal(want)
}

func (c *Credential) set(p papers) {
	c.mu.Lock()
	defer c.mu.Unlock()
	other := !c.papers.names().Equal(p.names())
	c.papers = p
	if other {
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

// earlier asks for a renewal before its time.
type earlier struct {
	want   *Papers // nil: whatever the servers give
	within time.Duration
}

// firstEarlyRetry is short: what was asked for is there already, at most one server is behind.
const firstEarlyRetry = time.Second

// Hasten has Run renew the certificate within a time, at a moment that is drawn so that not all hosts come at once, unless the papers are those that are
// wanted; and again until they are.
func (c *Credential) Hasten(want Papers, within time.Duration) { c.hasten(earlier{&want, within}) }

func (c *Credential) hasten(e earlier) {
	for {
		select {
		case c.early <- e:
			return
		default:
		}
		if e.want == nil {
			return // it is asked for already
		}
		select { // the newest wish counts
		case <-c.early:
		default:
		}
	}
}

func spread(within time.Duration) time.Duration {
	if within <= 0 {
		return 0
	}
	return rand.N(within)
}

// refusedError: the other end's certificate is of nobody that is trusted here.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return "peer refused: " + e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// refused says whether one of the ends has refused the other's certificate: a new one may help.
func refused(err error) bool {
	var here *refusedError
	var there *net.OpError
	return errors.As(err, &here) || errors.As(err, &there) && there.Op == "remote error"
}
