package trust

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/datadir"
)

// Membership is an agent's place in a cluster, kept in its folder of keys.
type Membership struct {
	Keys    string   // the folder
	Servers []string // peer addresses, host:port
	Secret  *Secret  // nil: none was given
	Clock   clock.Clock
	Log     *slog.Logger
}

// The files of a host in the folder of keys. The key is made once; the other is replaced with each renewal: the host's certificate,
// then the authorities'.
const (
	hostKeyFile  = "node-key.pem"
	hostCertFile = "node.pem"
)

// Why a host cannot join. All are final: trying again changes nothing.
var (
	ErrWrongToken = errors.New("the server refused the join token")
	ErrWrongRole  = errors.New("the join token is for another kind of host: give an agent one of `neargate operator token`, and a server one of `neargate operator token --role server`")
	ErrNotOurs    = errors.New("the server does not know the join token: it is of another cluster, or somebody stands in between")
)

const (
	firstJoinRetry = 100 * time.Millisecond
	lastJoinRetry  = 5 * time.Second
	dialTimeout    = 5 * time.Second
)

// Join is the host's credential: what is kept, if that is still good, or a new one by way of the token. While no server can be
// reached it tries again until ctx ends.
func (m *Membership) Join(ctx context.Context) (*Credential, error) {
	key, err := hostKey(m.Keys)
	if err != nil {
		return nil, fmt.Errorf("key of this host: %w", err)
	}
	p, err := m.load(key)
	if err != nil {
		if m.Secret == nil {
			return nil, fmt.Errorf("this host needs a join token: %w", err)
		}
		m.Log.Info("joining the cluster", "reason", err, "servers", m.Servers)
		if p, err = m.enter(ctx, key); err != nil {
			return nil, fmt.Errorf("join the cluster: %w", err)
		}
	}
	c := newCredential(m.Clock, m.Log, p)
	c.renew = func(ctx context.Context) (papers, error) { return m.again(ctx, c, key) }
	return c, nil
}

// hostKey reads the key of this host from its folder of keys, or makes it.
func hostKey(keys string) (*ecdsa.PrivateKey, error) {
	name := filepath.Join(keys, hostKeyFile)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		if text, err = encodeKey(key); err != nil {
			return nil, err
		}
		return key, datadir.WriteFile(name, text)
	}
	if err != nil {
		return nil, err
	}
	_, key, err := parse(text)
	if err != nil || key == nil {
		return nil, fmt.Errorf("%s holds no key (%v)", name, err)
	}
	return key, nil
}

// load reads what is kept; the error says why it is of no use.
func (m *Membership) load(key *ecdsa.PrivateKey) (papers, error) {
	name := filepath.Join(m.Keys, hostCertFile)
	text, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return papers{}, errors.New("it has joined no cluster yet")
	case err != nil:
		return papers{}, err
	}
	certs, _, err := parse(text)
	if err != nil || len(certs) < 2 {
		return papers{}, fmt.Errorf("%s is damaged (%v)", name, err)
	}
	p, err := newPapers(key, certs[0].Raw, certs[1:])
	if err != nil {
		return papers{}, err
	}
	if err := m.check(p, key); err != nil {
		return papers{}, fmt.Errorf("its certificate is of no use: %w", err)
	}
	return p, nil
}

// check holds papers against this host's key and the clock.
func (m *Membership) check(p papers, key *ecdsa.PrivateKey) error {
	leaf := p.certificate.Leaf
	who, err := verify([]*x509.Certificate{leaf}, p.roots, m.Clock.Now())
	if err != nil {
		return err
	}
	id, err := KeyID(&key.PublicKey)
	if err != nil {
		return err
	}
	if !key.PublicKey.Equal(leaf.PublicKey) || who != (Identity{Agent, id}) {
		return fmt.Errorf("it is for %s, not for agent %s", who, id)
	}
	return nil
}

// enter joins by the token.
func (m *Membership) enter(ctx context.Context, key *ecdsa.PrivateKey) (papers, error) {
	for wait := firstJoinRetry; ; wait = min(2*wait, lastJoinRetry) {
		p, err := m.ask(ctx, key, strangerTLS(), m.Secret)
		if err == nil || ctx.Err() != nil || final(err) {
			return p, err
		}
		m.Log.Warn("cannot join; trying again", "error", err, "retry_in", wait)
		select {
		case <-ctx.Done():
			return papers{}, err
		case <-m.Clock.After(wait):
		}
	}
}

// strangerTLS believes nothing of the server. It has to prove that it knows the token: see exchange.
func strangerTLS() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{protocolJoin}}
}

// again renews by the certificate; one that has ended, or has yet to begin, proves nothing, then it takes the token. So it does when the
// certificate is refused: the authority was exchanged, and this host was not waited for.
func (m *Membership) again(ctx context.Context, c *Credential, key *ecdsa.PrivateKey) (papers, error) {
	leaf, now := c.current().certificate.Leaf, m.Clock.Now()
	if (now.After(leaf.NotAfter) || now.Before(leaf.NotBefore)) && m.Secret != nil {
		return m.ask(ctx, key, strangerTLS(), m.Secret)
	}
	p, err := m.ask(ctx, key, c.peerTLS([]string{protocolRenew}, Server), nil)
	if refused(err) && m.Secret != nil {
		byToken, failed := m.ask(ctx, key, strangerTLS(), m.Secret)
		if failed == nil {
			m.Log.Warn("the certificate was refused; this host has joined anew, as the same node", "error", err)
			return byToken, nil
		}
		err = errors.Join(err, failed)
	}
	return p, err
}

// ask gets a certificate from the first server that can be reached, and keeps it.
func (m *Membership) ask(ctx context.Context, key *ecdsa.PrivateKey, config *tls.Config, secret *Secret) (papers, error) {
	conn, err := dialAny(ctx, m.Servers, config)
	if err != nil {
		return papers{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(time.Now().Add(exchangeTimeout))
	p, err := m.exchange(conn, key, secret)
	if err != nil {
		return papers{}, fmt.Errorf("server %s: %w", conn.RemoteAddr(), err)
	}
	text := encodeCertificates(p.certificate.Certificate[0])
	for _, a := range p.authorities {
		text = append(text, encodeCertificates(a.Raw)...)
	}
	if err := datadir.WriteFile(filepath.Join(m.Keys, hostCertFile), text); err != nil {
		return papers{}, fmt.Errorf("keep certificate: %w", err)
	}
	return p, nil
}

// exchange is one request and its answer.
func (m *Membership) exchange(conn *tls.Conn, key *ecdsa.PrivateKey, secret *Secret) (papers, error) {
	csr, err := newRequest(key)
	if err != nil {
		return papers{}, err
	}
	got, err := request{Role: Agent, Request: csr}.put(conn, secret)
	if err != nil {
		return papers{}, err
	}
	session := conn.ConnectionState()
	return m.accept(got, &session, key)
}

// newRequest asks for a certificate of key.
func newRequest(key *ecdsa.PrivateKey) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
}

// put makes the request over conn. With a secret, the answer counts only if the server has proven to know it as well.
func (q request) put(conn *tls.Conn, secret *Secret) (answer, error) {
	if secret != nil {
		q.Token = secret.id
	}
	body, err := json.Marshal(q)
	if err != nil {
		return answer{}, err
	}
	session := conn.ConnectionState()
	var proof []byte
	if secret != nil {
		if proof, err = secret.proof(joining, &session, body); err != nil {
			return answer{}, err
		}
	}
	if err := writeMessage(conn, proof, body); err != nil {
		return answer{}, err
	}
	var got answer
	proof, reply, err := readMessage(conn, &got)
	if err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	if secret != nil && !secret.proven(proof, admitting, &session, body, reply) {
		if got.Refusal == refusedToken {
			return answer{}, ErrWrongToken
		}
		return answer{}, ErrNotOurs
	}
	switch got.Refusal {
	case "":
		return got, nil
	case refusedRole:
		return answer{}, ErrWrongRole
	case refusedUsed:
		return answer{}, ErrUsed
	case refusedAddress:
		return answer{}, ErrAddressInUse
	case refusedVersion:
		return answer{}, ErrTooOld
	}
	return answer{}, fmt.Errorf("the server refused this host: %q", got.Refusal)
}

// final says whether trying again changes nothing.
func final(err error) bool {
	return errors.Is(err, ErrWrongToken) || errors.Is(err, ErrWrongRole) || errors.Is(err, ErrNotOurs) || errors.Is(err, ErrUsed) || errors.Is(err, ErrAddressInUse) ||
		errors.Is(err, ErrTooOld)
}

// accept checks an answer that is known to be the server's.
func (m *Membership) accept(got answer, session *tls.ConnectionState, key *ecdsa.PrivateKey) (papers, error) {
	var authorities []*x509.Certificate
	for _, der := range got.Authorities {
		a, err := x509.ParseCertificate(der)
		if err != nil {
			return papers{}, fmt.Errorf("the cluster's authority: %w", err)
		}
		authorities = append(authorities, a)
	}
	p, err := newPapers(key, got.Certificate, authorities)
	if err != nil {
		return papers{}, fmt.Errorf("the new certificate: %w", err)
	}
	if err := m.check(p, key); err != nil {
		return papers{}, fmt.Errorf("the new certificate: %w", err)
	}
	// The server's own certificate is of the same authority, or this host could not talk to it from now on.
	who, err := verify(session.PeerCertificates, p.roots, m.Clock.Now())
	if err == nil && who.Role != Server {
		err = fmt.Errorf("it is of %s", who)
	}
	if err != nil {
		return papers{}, fmt.Errorf("the server's certificate: %w", err)
	}
	return p, nil
}

// dialAny connects to the first of the servers that answers.
func dialAny(ctx context.Context, servers []string, config *tls.Config) (*tls.Conn, error) {
	var errs []error
	for _, s := range servers {
		conn, err := dial(ctx, s, config)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("server %s: %w", s, err))
	}
	if len(errs) == 0 {
		return nil, errors.New("no servers are known")
	}
	return nil, errors.Join(errs...)
}

func dial(ctx context.Context, server string, config *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", server)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}
