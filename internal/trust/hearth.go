package trust

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/seed-2f228079/neargate/internal/clock"
)

// protocolForm is how servers find one another before there is a cluster: a greeting and a reply, framed and proven like a request to
// join. Both ends show certificates of their host keys, which nobody has signed.
const protocolForm = "neargate-form/1"

// greeting is what a server says of itself while the cluster is being formed.
type greeting struct {
	ID       string            `json:"id"`
	Run      string            `json:"run"`
	Expect   int               `json:"expect"`
	Settings map[string]string `json:"settings,omitempty"`
	Seen     []string          `json:"seen,omitempty"`
}

// reply greets back, or ends the search.
type reply struct {
	greeting
	Founding *Founding `json:"founding,omitempty"` // the cluster that the caller is a member of
	Formed   bool      `json:"formed,omitempty"`   // there is a cluster, and the caller is none of its first members
	Refusal  refusal   `json:"refusal,omitempty"`
}

// The sides of the exchange.
const (
	greets  = "greets"
	replies = "replies"
)

// exchange greets whoever is at the other end of conn and reads the reply, which counts only if it comes from somebody who knows the
// secret.
func (r *reply) exchange(conn *tls.Conn, secret *Secret, g greeting) error {
	body, err := json.Marshal(g)
	if err != nil {
		return err
	}
	session := conn.ConnectionState()
	proof, err := secret.proof(greets, &session, body)
	if err != nil {
		return err
	}
	if err := writeMessage(conn, proof, body); err != nil {
		return err
	}
	var got reply
	proof, text, err := readMessage(conn, &got)
	switch {
	case err != nil:
		return fmt.Errorf("read reply: %w", err)
	case secret.proven(proof, replies, &session, body, text):
		*r = got
		return nil
	case got.Refusal == refusedToken:
		return fmt.Errorf("%w: start all first servers with the same --join-token", ErrWrongToken)
	}
	return ErrNotOurs
}

// hearth answers servers that want to form a cluster: with a greeting while there is none, with its founding afterwards.
type hearth struct {
	secret   *Secret
	greet    func() greeting
	founding *Founding                 // nil: there is no cluster yet
	gather   func() (*Founding, error) // what servers hold now
	clock    clock.Clock
	log      *slog.Logger
	listener net.Listener
}

// NewHearth has a port, which does not serve yet, hand the founding to those of its members that do not have it: with what servers hold by now,
// which gather knows.
func NewHearth(p *Port, f *Founding, gather func() (*Founding, error), c clock.Clock, log *slog.Logger) func(context.Context) error {
	h := &hearth{secret: &Secret{key: f.Secret}, founding: f, gather: gather, clock: c, log: log, listener: p.handleShown(protocolForm), greet: func() greeting { return greeting{} }}
	return h.run
}

// run answers until ctx ends.
func (h *hearth) run(ctx context.Context) error {
	return acceptStrangers(ctx, h.listener, h.answer, func(conn net.Conn, err error) {
		h.log.Warn("a server was turned away while the cluster is being formed", "peer", conn.RemoteAddr(), "error", err)
	})
}

func (h *hearth) answer(ctx context.Context, conn *tls.Conn) error {
	var g greeting
	proof, body, err := readMessage(conn, &g)
	if err != nil {
		return fmt.Errorf("read greeting: %w", err)
	}
	session := conn.ConnectionState()
	if !h.secret.proven(proof, greets, &session, body) {
		select {
		case <-ctx.Done():
		case <-h.clock.After(refusalDelay):
		}
		return errors.Join(errors.New("its --join-token is another one: start all first servers with the same"), send(conn, nil, reply{Refusal: refusedToken}))
	}
	key, err := KeyID(session.PeerCertificates[0].PublicKey)
	if err != nil {
		return err
	}
	r := reply{greeting: h.greet()}
	if h.founding != nil {
		// The key, not the id, is what makes it that member: hosts that know the secret must not get what servers hold.
		if m := h.founding.member(g.ID); m != nil && m.Key == key {
			now, err := h.gather()
			if err != nil {
				return err // it asks again
			}
			now.Members = h.founding.Members
			r.Founding = now
		} else {
			r.Formed = true
		}
	}
	return send(conn, func(text []byte) ([]byte, error) { return h.secret.proof(replies, &session, body, text) }, r)
}
