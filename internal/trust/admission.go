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
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/version"
)

// AdmissionConfig is what an Admission is told.
type AdmissionConfig struct {
	Authority *Authority
	// Secret finds a token by its id, the empty one being the bootstrap secret's. Nil: there is none (any more).
	Secret func(id string) *Secret
	// Admit is asked before a host gets what it came for by a token that the cluster has made: it notes that the token is used, and
	// makes a server, that is of a build which speaks a version, a member. ErrUsed, ErrAddressInUse and ErrTooOld are for the host to know;
	// after any other error it comes again. Nil: there are no such tokens.
	Admit func(ctx context.Context, token string, who Identity, address string, speaks uint32) error
	// Founding is what a server that joins is given.
	Founding func() (*Founding, error)
	Clock    clock.Clock
	Log      *slog.Logger
}

// Why a host is not admitted although its token is good.
var (
	ErrUsed         = errors.New("another host has used this join token")
	ErrTooOld       = fmt.Errorf("the cluster has moved to a version that this build, which speaks %d, does not: start the build that its servers run", version.Speaks)
	ErrAddressInUse = errors.New("another server of the cluster has this address: if it is gone for good, remove it with `neargate operator remove`")
)

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
	turnedAway := func(conn net.Conn, err error) {
		a.Log.Warn("a host was not admitted", "peer", conn.RemoteAddr(), "error", err)
	}
	g.Go(func() error { return acceptStrangers(ctx, a.joins, a.join, turnedAway) })
	g.Go(func() error { return acceptStrangers(ctx, a.renewals, a.renew, turnedAway) })
	return g.Wait()
}

// acceptStrangers has each connection of l handled, in limited time and number, until ctx ends.
func acceptStrangers(ctx context.Context, l net.Listener, handle func(context.Context, *tls.Conn) error, failed func(net.Conn, error)) error {
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
				failed(conn, err)
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
	if req.Role != secret.For() {
		return errors.Join(fmt.Errorf("this token does not admit a %q", req.Role), send(conn, prove, answer{Refusal: refusedRole}))
	}
	id, err := KeyID(key)
	if req.Role == Server {
		id = req.ID
	}
	if err == nil && (id == "" || strings.Contains(id, "/") || req.Role == Server && req.Address == "") {
		err = errors.New("the request names no server")
	}
	if err != nil {
		return errors.Join(err, send(conn, prove, answer{Refusal: refusedRequest}))
	}
	who := Identity{req.Role, id}
	if secret.id != "" {
		if why, err := a.admit(ctx, secret.id, who, req); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", who, err), send(conn, prove, answer{Refusal: why}))
		}
	}
	if req.Role == Server {
		err = a.equip(conn, prove)
	} else {
		err = a.certify(conn, prove, key, who)
	}
	if err != nil {
		return err
	}
	a.Log.Info("a host has joined the cluster", "host", who.String(), "peer", conn.RemoteAddr())
	return nil
}

// admit has the cluster take a host in.
func (a *Admission) admit(ctx context.Context, token string, who Identity, req request) (refusal, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout/2)
	defer cancel()
	switch err := a.Admit(ctx, token, who, req.Address, version.Of(req.Speaks)); {
	case err == nil:
		return "", nil
	case errors.Is(err, ErrUsed):
		return refusedUsed, err
	case errors.Is(err, ErrAddressInUse):
		return refusedAddress, err
	case errors.Is(err, ErrTooOld):
		return refusedVersion, err
	default:
		return refusedLater, err
	}
}

// equip gives a new server what all servers hold.
func (a *Admission) equip(conn net.Conn, prove func([]byte) ([]byte, error)) error {
	f, err := a.Founding()
	if err != nil {
		return errors.Join(err, send(conn, prove, answer{Refusal: refusedLater}))
	}
	return send(conn, prove, answer{Founding: f})
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
	der, authorities, err := a.Authority.certify(key, who)
	if err != nil {
		return err
	}
	return send(conn, prove, answer{Certificate: der, Authorities: authorities})
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

func send(conn net.Conn, prove func([]byte) ([]byte, error), v any) error {
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
