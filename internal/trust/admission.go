package trust

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-2f228079/neargate/internal/clock"
)

// AdmissionConfig is what an Admission is told.
type AdmissionConfig struct {
	Authority *Authority
	// Secret finds a token by its id, the empty one being the bootstrap secret's. Nil: there is none (any more).
	Secret func(id string) *Secret
	Clock  clock.Clock
	Log    *slog.Logger
}

// Admission lets hosts into the cluster, and renews the certificates of those that are in it.
type Admission struct {
	AdmissionConfig
	joins, renewals net.Listener
}

const (
	exchangeTimeout = 10 * time.Second
	// A wrong proof is answered after a moment, and so many are looked at together: 64 guesses a second at most.
	refusalDelay = time.Second
	maxExchanges = 64
)

// NewAdmission adds the two protocols of admission to a port that does not serve yet.
func NewAdmission(p *Port, cfg AdmissionConfig) *Admission {
	return &Admission{AdmissionConfig: cfg, joins: p.handle(protocolJoin), renewals: p.handle(protocolRenew, Agent, Server)}
}

// Run admits until ctx ends.
func (a *Admission) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { return a.accept(ctx, a.joins, a.join) })
	g.Go(func() error { return a.accept(ctx, a.renewals, a.renew) })
	return g.Wait()
}

func (a *Admission) accept(ctx context.Context, l net.Listener, handle func(context.Context, *tls.Conn) error) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var g errgroup.Group
	g.SetLimit(maxExchanges)
	for {
		conn, err := l.Accept()
		if err != nil {
			return g.Wait()
		}
		// Who finds no place is dropped and comes again: waiting here would hold up the whole port.
		placed := g.TryGo(func() error {
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			conn.SetDeadline(time.Now().Add(exchangeTimeout))
			if err := handle(ctx, conn.(*tls.Conn)); err != nil && ctx.Err() == nil {
				a.Log.Warn("a host was not admitted", "peer", conn.RemoteAddr(), "error", err)
			}
			return nil
		})
		if !placed {
			conn.Close()
		}
	}
}

// join certifies a host that proves to know a token. Its id follows from its key, so whoever knows the token still cannot have
// a certificate for somebody else's id.
func (a *Admission) join(ctx context.Context, conn *tls.Conn) error {
	var req request
	proof, body, err := readMessage(conn, &req)
	if err != nil {
		return fmt.Errorf("read request to join: %w", err)
	}
	session := conn.ConnectionState()
	var secret *Secret
	if a.Secret != nil {
		secret = a.Secret(req.Token)
	}
	if secret == nil || !secret.proven(proof, joining, &session, body) {
		select {
		case <-ctx.Done():
		case <-a.Clock.After(refusalDelay):
		}
		return errors.Join(errors.New("wrong join token"), send(conn, nil, answer{Refusal: refusedToken}))
	}
	prove := func(reply []byte) ([]byte, error) { return secret.proof(admitting, &session, body, reply) }
	key, err := keyOf(req)
	if err != nil {
		return errors.Join(err, send(conn, prove, answer{Refusal: refusedRequest}))
	}
	if req.Role != Agent {
		return errors.Join(fmt.Errorf("a token does not admit a %q", req.Role), send(conn, prove, answer{Refusal: refusedRole}))
	}
	id, err := KeyID(key)
	if err != nil {
		return errors.Join(err, send(conn, prove, answer{Refusal: refusedRequest}))
	}
	who := Identity{req.Role, id}
	if err := a.certify(conn, prove, key, who); err != nil {
		return err
	}
	a.Log.Info("a host has joined the cluster", "host", who.String(), "peer", conn.RemoteAddr())
	return nil
}

// renew certifies a host anew that shows a certificate which is still good. The key stays the same: it is the host's identity.
func (a *Admission) renew(_ context.Context, conn *tls.Conn) error {
	who, err := peerOf(conn)
	if err != nil {
		return err
	}
	var req request
	if _, _, err := readMessage(conn, &req); err != nil {
		return fmt.Errorf("read request of %s to renew: %w", who, err)
	}
	key, err := keyOf(req)
	if err == nil && !key.Equal(conn.ConnectionState().PeerCertificates[0].PublicKey) {
		err = errors.New("the request is for another key than the certificate's")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("renew certificate of %s: %w", who, err), send(conn, nil, answer{Refusal: refusedRequest}))
	}
	return a.certify(conn, nil, key, who)
}

func (a *Admission) certify(conn net.Conn, prove func([]byte) ([]byte, error), key *ecdsa.PublicKey, who Identity) error {
	der, err := a.Authority.issueHost(key, who)
	if err != nil {
		return err
	}
	return send(conn, prove, answer{Certificate: der, Authorities: [][]byte{a.Authority.cert.Raw}})
}

// keyOf is the key in a request. The request is signed with it, so it is the host's own.
func keyOf(req request) (*ecdsa.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(req.Request)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("certificate request: a key of type %T", csr.PublicKey)
	}
	return key, nil
}

func send(conn net.Conn, prove func([]byte) ([]byte, error), v answer) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var proof []byte
	if prove != nil {
		if proof, err = prove(body); err != nil {
			return err
		}
	}
	return writeMessage(conn, proof, body)
}
