package trust

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/version"
)

// Entry is how a server comes to a cluster that there is already: by a token for servers, that an operator made.
type Entry struct {
	Keys    string   // the folder of keys
	ID      string   // of this server
	Address string   // at which the others reach it
	Servers []string // peer addresses
	Secret  *Secret  // the token's
	Clock   clock.Clock
	Log     *slog.Logger
}

// Run has the cluster take this server in, and keeps what it is given. While no server can be reached, or nobody leads, it tries again
// until ctx ends.
func (e *Entry) Run(ctx context.Context) (*Founding, error) {
	key, err := hostKey(e.Keys)
	if err != nil {
		return nil, fmt.Errorf("key of this host: %w", err)
	}
	csr, err := newRequest(key)
	if err != nil {
		return nil, err
	}
	q := request{Role: Server, Request: csr, ID: e.ID, Address: e.Address, Speaks: version.Speaks}
	for wait := firstJoinRetry; ; wait = min(2*wait, lastJoinRetry) {
		f, err := e.try(ctx, q)
		if err == nil {
			return f, f.keep(e.Keys)
		}
		if ctx.Err() != nil || final(err) {
			return nil, fmt.Errorf("join the cluster: %w", err)
		}
		e.Log.Warn("cannot join; trying again", "error", err, "retry_in", wait)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-e.Clock.After(wait):
		}
	}
}

// try asks one server after the other.
func (e *Entry) try(ctx context.Context, q request) (*Founding, error) {
	var errs []error
	for _, s := range e.Servers {
		f, err := e.ask(ctx, s, q)
		if err == nil || final(err) {
			return f, err
		}
		errs = append(errs, fmt.Errorf("server %s: %w", s, err))
	}
	return nil, errors.Join(errs...)
}

func (e *Entry) ask(ctx context.Context, server string, q request) (*Founding, error) {
	conn, err := dial(ctx, server, strangerTLS())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(time.Now().Add(exchangeTimeout))
	got, err := q.put(conn, e.Secret)
	switch {
	case err != nil:
		return nil, err
	case got.Founding == nil:
		return nil, errors.New("the server gave nothing to join with")
	}
	return got.Founding, got.Founding.check()
}
