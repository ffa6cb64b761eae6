// Package sts is the Security Token Service: who a caller is, and temporary credentials. It keeps nothing: credentials are
// sealed into their session tokens (Sessions.Begin), which any server opens. What roles are, it asks of the IAM family through
// the interfaces below.
//
// Whether a caller may assume a role is decided before a handler runs, by the role's trust policy and the caller's own: the
// operation table names the role as the resource.
package sts

import (
	"context"
	"time"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// Roles are looked up on this server, without waiting.
type Roles interface {
	Role(arn string) (id string, maxSession time.Duration, ok bool)
	Trust(arn string) (*policy.Policy, bool)
	// PolicyExists says whether sessions of the account's roles may be given this managed policy.
	PolicyExists(account, arn string) bool
}

// Sessions makes temporary credentials of an identity whose Session is filled in.
type Sessions interface {
	Begin(who api.Identity) api.Credential
}

// Authorizer is asked for what a call needs beside its own action.
type Authorizer interface {
	Authorize(ctx context.Context, c *api.Call, a api.Access) error
}

// Config is what the family stands on.
type Config struct {
	Roles      Roles
	Sessions   Sessions
	Authorizer Authorizer
	Clock      clock.Clock
	// AccountOfKey reads the account out of an access key id.
	AccountOfKey func(accessKeyID string) (account string, ok bool)
}

// Service has the handlers as methods.
type Service struct{ Config }

// New returns the family.
func New(c Config) *Service { return &Service{c} }
