package api

import (
	"context"
	"time"
)

// Identity is who calls, as authentication found it.
type Identity struct {
	Account     string // 12 digits
	ARN         string // "arn:aws:iam::000000000000:root"
	UserID      string // AKIA… or the account for root
	AccessKeyID string
	Root        bool // may do everything in its account
}

// System is the platform itself acting in an account: reconcilers, not requests.
func System(account string) Identity {
	return Identity{Account: account, ARN: "arn:aws:iam::" + account + ":role/aws-service-role/neargate", UserID: "neargate", Root: true}
}

// Call is one request as its handler sees it.
type Call struct {
	Identity
	Region    string // of the credential scope; the default region for Basic authentication
	RequestID string
	Service   string
	Operation string
	Time      time.Time // when the request arrived; handlers take the time from here
	// Host is the host:port the client addressed, validated; names shown to this client may be rendered with it.
	Host string
}

type callKey struct{}

// WithCall returns a context that carries c.
func WithCall(ctx context.Context, c *Call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// CallFrom is the call that ctx carries. It panics without one: a handler is only reached through dispatch or Invoke.
func CallFrom(ctx context.Context) *Call {
	c, ok := ctx.Value(callKey{}).(*Call)
	if !ok {
		panic("api: no call in the context")
	}
	return c
}

// Invoker runs an operation with the same validation, authorization and audit as a request from outside. The dispatcher
// of api/server implements it; parts of the platform that call each other's operations are given one.
type Invoker interface {
	Invoke(ctx context.Context, who Identity, region string, in any) (out any, err error)
}

// Invoke is Invoker.Invoke with the output's type.
func Invoke[O any](ctx context.Context, inv Invoker, who Identity, region string, in any) (*O, error) {
	out, err := inv.Invoke(ctx, who, region, in)
	if err != nil {
		return nil, err
	}
	return out.(*O), nil
}

// NotLeaderHeader is set in an answer by which a server says, to another one, that it has done nothing because it does not lead.
const NotLeaderHeader = "X-Neargate-Not-Leader"
