// Package iam is the IAM family: users, groups, roles, access keys, inline and managed policies, instance profiles. It is also
// where the API server finds out whose an access key is and what binds its owner (Lookup, Policies): those answers come from this
// server's replica alone and wait for nothing. The language of policies is api/policy, enforcement is api/auth.
//
// Invariants: a secret is in the state only sealed, and shown once, when it is made; a document that is in the state has been parsed;
// a managed policy that is attached exists, one that is a boundary too; a group that a user is in exists. A unique id is
// never given to another entity, so what refers to one by id (sessions, access keys, trust policies) does not outlive it.
//
// docs/design/iam.md has the decisions.
package iam

import (
	"context"
	"io"
	"log/slog"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
)

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative controlplane/iam/iam.proto

// Config is what the family stands on.
type Config struct {
	Store *state.Store
	Rand  io.Reader // of identifiers and secrets
	Pages *api.Pages
	Seal  api.Sealer // of secrets and session tokens; for this family alone
	Clock clock.Clock
	Log   *slog.Logger // nil: slog.Default
}

// Service has the handlers as methods.
type Service struct {
	Config
	compiled cache
	sessions sessionCache
	used     lastUsed
}

// New returns the family.
func New(c Config) *Service {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Service{Config: c}
}

// view is what reads are answered from: everything acknowledged before the call is in it.
func (s *Service) view(ctx context.Context) (*state.View, string, error) {
	v, err := s.Store.Linearizable(ctx)
	return v, api.CallFrom(ctx).Account, err
}

// update runs one transaction; fn may run again after a conflict and has no other effect.
func (s *Service) update(ctx context.Context, fn func(tx *state.Tx, account string) error) error {
	account := api.CallFrom(ctx).Account
	_, err := s.Store.Update(ctx, func(tx *state.Tx) error { return fn(tx, account) })
	return err
}

// scopeOf is where tags of an account's IAM resources are: in no region.
func scopeOf(account string) controlplane.Scope { return controlplane.Scope{Account: account} }

// answer is out, or only the error.
func answer[O any](out *O, err error) (*O, error) {
	if err != nil {
		return nil, err
	}
	return out, nil
}
