package auth

import (
	"context"

	"github.com/seed-2f228079/neargate/api"
)

// Authorizer decides whether a known caller may do what it asks for. It is asked once a call, after the input was decoded
// and before the handler runs. A refusal is a *Failure.
type Authorizer interface {
	Authorize(ctx context.Context, c *api.Call, action, resource string) error
}

// RootOnly lets the root of an account do everything in it, and nobody else anything.
type RootOnly struct{}

// Authorize implements Authorizer.
func (RootOnly) Authorize(_ context.Context, c *api.Call, action, resource string) error {
	if c.Root {
		return nil
	}
	return Denied(c, action, resource)
}

// Denied is the refusal of action on resource in AWS's words.
func Denied(c *api.Call, action, resource string) *Failure {
	return fail(denied, "User: %s is not authorized to perform: %s on resource: %s because no identity-based policy allows the %s action",
		c.ARN, action, resource, action)
}
