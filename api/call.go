package api

import (
	"context"
	"net/netip"
	"time"
)

// Identity is who calls, as authentication found it. It is plain data: tokens carry it, sealed.
type Identity struct {
	Account     string   // 12 digits
	ARN         string   // "arn:aws:iam::000000000000:root", of a user, or of a role's session
	UserID      string   // AIDA… of a user, AROA…:NAME of a role's session, the account for root
	AccessKeyID string   `json:",omitempty"`
	Root        bool     `json:",omitempty"` // may do everything in its account
	Session     *Session `json:",omitempty"` // nil: long-term credentials
}

// Session is what temporary credentials add to an identity.
type Session struct {
	Role    string `json:",omitempty"` // ARN of the role; empty: a session of the user or of root itself
	Name    string `json:",omitempty"`
	Issued  time.Time
	Expires time.Time
	// Policies are documents that limit the session, PolicyARNs managed policies that do. Without any the session may what
	// its role or user may.
	Policies       []string          `json:",omitempty"`
	PolicyARNs     []string          `json:",omitempty"`
	Tags           map[string]string `json:",omitempty"`
	Transitive     []string          `json:",omitempty"` // keys of tags that sessions begun from this one have too
	SourceIdentity string            `json:",omitempty"`
}

// Limited says whether the session was given policies.
func (s *Session) Limited() bool { return s != nil && len(s.Policies)+len(s.PolicyARNs) > 0 }

// Credential is an access key with all that is needed to check it.
type Credential struct {
	SecretAccessKey string
	SessionToken    string    // empty for long-term keys
	Expires         time.Time // zero: never
	Identity        Identity
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
	// What else policies may ask of a request from outside.
	SourceIP  netip.Addr
	UserAgent string
	Secure    bool // it came by TLS
	// Unsent, unless it is nil, says that there is no request yet: it becomes true once a policy asks for what only that could tell.
	Unsent *bool
}

// Access is one thing that an authorizer is asked for.
type Access struct {
	Action    string   // "ecs:RunTask"
	Resources []string // ARNs, all of which must be allowed; none: "*"
	// Key returns the values of a condition key of the service, in lower case ("ecs:cluster"); nil: there are none.
	Key func(key string) (values []string, ok bool)
	// Input is the operation's input, by whose tags aws:RequestTag and aws:TagKeys are answered; nil: there is none.
	Input any
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
