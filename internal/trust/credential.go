package trust

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
)

// Credential is what a process shows to others, its key and certificate, and whom it trusts itself. Run renews it. Safe for
// concurrent use; connections that stand are not touched by a renewal.
type Credential struct {
	clock clock.Clock
	log   *slog.Logger
	renew func(ctx context.Context) (papers, error)
	// under makes papers by a ring that this server has yet to take; nil: there is no ring.
	under func(ring) (papers, error)
	early chan earlier // what Hasten has asked for
	// held is over making papers and showing them, so that none of before come after those of a newer ring; nil: there is no ring.
	held  sync.Locker
	conns connections

	mu      sync.RWMutex
	papers  papers
	changed chan struct{} // closed when the authorities of the papers are others
}

func newCredential(c clock.Clock, log *slog.Logger, p papers) *Credential {
	return &Credential{clock: c, log: log, papers: p, early: make(chan earlier, 1), changed: make(chan struct{})}
}

// papers are one state of a credential.
type papers struct {
	certificate tls.Certificate // with Leaf
	authorities []*x509.Certificate
	roots       *x509.CertPool // the authorities
}

func newPapers(key *ecdsa.PrivateKey, der []byte, authorities []*x509.Certificate) (papers, error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return papers{}, err
	}
	pool := x509.NewCertPool()
	for _, a := range authorities {
		pool.AddCert(a)
	}
	return papers{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, authorities, pool}, nil
}

// ServerCredential is the credential of a server, which holds the authority and so certifies itself. Its key lives in memory.
func (a *Authority) ServerCredential(id string, log *slog.Logger) (*Credential, error) {
	return a.selfSigned(log, func(by issuer, key *ecdsa.PrivateKey) ([]byte, error) {
		return a.issueHost(by, &key.PublicKey, Identity{Server, id})
	})
}

// PublicCredential is the credential of the public port, for the names and addresses by which clients know it.
func (a *Authority) PublicCredential(names []string, log *slog.Logger) (*Credential, error) {
	return a.selfSigned(log, func(by issuer, key *ecdsa.PrivateKey) ([]byte, error) {
		return a.issuePublic(by, &key.PublicKey, names)
	})
}

func (a *Authority) selfSigned(log *slog.Logger, issue func(issuer, *ecdsa.PrivateKey) ([]byte, error)) (*Credential, error) {
	c := newCredential(a.clock, log, papers{})
	c.held = &a.taking
	c.under = func(r ring) (papers, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return papers{}, err
		}
		der, err := issue(r.shows(), key)
		if err != nil {
			return papers{}, err
		}
		return newPapers(key, der, r.trusted())
	}
	c.renew = func(context.Context) (papers, error) {
		a.mu.RLock()
		r := a.ring
		a.mu.RUnlock()
		return c.under(r)
	}
	a.taking.Lock()
	defer a.taking.Unlock()
	first, err := c.renew(context.Background())
	if err != nil {
		return nil, err
	}
	c.set(first)
	a.mu.Lock()
	a.own = append(a.own, c)
	a.mu.Unlock()
	return c, nil
}

func (c *Credential) current() papers {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.papers
}

// ID is the id in the certificate: the node id of an agent.
func (c *Credential) ID() string {
	who, err := identityOf(c.current().certificate.Leaf)
	if err != nil {
		return "" // the public port's
	}
	return who.ID
}

// Authorities are the certificates of those that this credential trusts, in PEM.
func (c *Credential) Authorities() []byte {
	var out []byte
	for _, a := range c.current().authorities {
		out = append(out, encodeCertificates(a.Raw)...)
	}
	return out
}

const (
	firstRenewalRetry = 10 * time.Second
	lastRenewalRetry  = 10 * time.Minute
	// renewalLook is how often a credential looks whether its time has come: a clock may have been set, or a host asleep, and no timer notices.
	renewalLook = 10 * time.Minute
)

// Run renews the certificate when half of its life has passed, when by this host's clock it has yet to begin, or when Hasten asks for it, until
// ctx ends.
func (c *Credential) Run(ctx context.Context) error {
	retry := firstRenewalRetry
	// Hosts that joined together do not have to renew together.
	early := mathrand.N(hostLife / 16)
	wait := c.untilRenewal() - early
	var want *Papers // that were asked for, and are not there yet
	var soon time.Time
	var timer <-chan time.Time // nil: to be set to wait
	for {
		if timer == nil {
			timer = c.clock.After(min(wait, renewalLook))
		}
		select {
		case <-ctx.Done():
			return nil
		case h := <-c.early:
			switch {
			case h.want != nil && !c.has(*h.want):
				want, retry = h.want, firstEarlyRetry
				wait = spread(h.within)
			case h.want == nil && soon.IsZero():
				wait = 0
			default:
				continue
			}
			soon, timer = c.clock.Now().Add(wait), nil
			continue
		case <-timer:
			timer = nil
		}
		if wait = c.untilRenewal() - early; !soon.IsZero() {
			wait = min(wait, soon.Sub(c.clock.Now()))
		}
		if wait > 0 {
			continue
		}
		before, _ := c.Papers()
		p, err := c.renewNow(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			wait, retry = retry, min(2*retry, lastRenewalRetry)
			c.log.Warn("cannot renew the certificate; trying again", "error", err, "ends", c.current().certificate.Leaf.NotAfter, "retry_in", wait)
			continue
		}
		c.log.Info("certificate renewed", "ends", p.certificate.Leaf.NotAfter)
		// Never soon: a certificate that comes with half its life over, of a server whose clock is days behind, would be renewed without end.
		early = 0
		// The server that was asked may be behind the others. If it gave something new it may as well be ahead of them: then the next session will tell.
		if want != nil && !c.has(*want) && c.has(before) {
			wait, retry = retry, min(2*retry, lastRenewalRetry)
			soon = c.clock.Now().Add(wait)
			continue
		}
		want, soon, retry = nil, time.Time{}, firstRenewalRetry
		wait = max(c.untilRenewal(), lastRenewalRetry)
	}
}

func (c *Credential) renewNow(ctx context.Context) (papers, error) {
	if c.held != nil {
		c.held.Lock()
		defer c.held.Unlock()
	}
	p, err := c.renew(ctx)
	if err == nil {
		c.set(p)
	}
	return p, err
}

// untilRenewal is how long there is time until a certificate should be renewed.
func (c *Credential) untilRenewal() time.Duration {
	leaf, now := c.current().certificate.Leaf, c.clock.Now()
	if now.Before(leaf.NotBefore) {
		return 0 // whoever certified it, or this host, had a clock that was wrong by more than clockSkew, and has no more
	}
	return leaf.NotAfter.Add(-hostLife / 2).Sub(now)
}

// PublicTLS is the TLS configuration of the public port.
func (c *Credential) PublicTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: c.serverCertificate}
}

func (c *Credential) serverCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p := c.current()
	return &p.certificate, nil
}

// peerTLS is the configuration for one protocol of the peer port, of either end: both show their certificate, and who does not
// have one of the roles is turned away.
func (c *Credential) peerTLS(protocols []string, roles ...Role) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protocols, SessionTicketsDisabled: true,
		GetCertificate: c.serverCertificate,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return c.serverCertificate(nil)
		},
		ClientAuth: tls.RequireAnyClientCert,
		// VerifyConnection checks the chain: what the library checks would need host names, and could not be given new roots.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			who, err := verify(cs.PeerCertificates, c.current().roots, c.clock.Now())
			if err != nil {
				return &refusedError{err}
			}
			for _, r := range roles {
				if who.Role == r {
					return nil
				}
			}
			return fmt.Errorf("peer refused: %s has another role", who)
		},
	}
}

// peerOf says who is at the other end of a connection made with peerTLS.
func peerOf(conn *tls.Conn) (Identity, error) {
	if raw, ok := conn.NetConn().(*tracked); ok && raw.who != (Identity{}) {
		return raw.who, nil
	}
	chain := conn.ConnectionState().PeerCertificates
	if len(chain) == 0 {
		return Identity{}, errors.New("the peer has shown no certificate")
	}
	return identityOf(chain[0])
}
