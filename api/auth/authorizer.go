package auth

import (
	"context"
	"slices"
	"strings"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// Authorizer decides whether a known caller may do what it asks for. It is asked once a call, after the input was decoded
// and before the handler runs. A refusal is a *Failure.
type Authorizer interface {
	Authorize(ctx context.Context, c *api.Call, a api.Access) error
}

// RootOnly lets the root of an account do everything in it, and nobody else anything.
type RootOnly struct{}

// Authorize implements Authorizer.
func (RootOnly) Authorize(_ context.Context, c *api.Call, a api.Access) error {
	resource := "*"
	if len(a.Resources) > 0 {
		resource = a.Resources[0]
	}
	if abroad := slices.IndexFunc(a.Resources, func(r string) bool { return foreign(c, r) }); abroad >= 0 {
		resource = a.Resources[abroad]
	} else if c.Root {
		return nil
	}
	return denied(c, a.Action, resource, policy.Decision{By: policy.FromIdentity})
}

// Principals knows what binds a caller. It answers from memory.
type Principals interface {
	// Policies are those of the user or role that who is; false when it is there no more.
	Policies(who *api.Identity) (*policy.Policies, bool)
	// Tags are those of the user or role itself, without the session's.
	Tags(who *api.Identity) map[string]string
}

// IAM holds calls against policies. It keeps nothing.
type IAM struct {
	Principals Principals
	// Tags are those of the resource with this ARN; the map is not changed.
	Tags func(arn string) map[string]string
	// Resource is the resource's own policy for the action, nil when it has none. guarded: nobody gets past it (policy.Target).
	Resource func(action, arn string) (p *policy.Policy, guarded bool)
	// Recovery are the actions by which root takes back a resource policy of its account that denies everything: they are not
	// denied to it. nil: none.
	Recovery func(action string) bool
}

// Authorize implements Authorizer.
func (a *IAM) Authorize(_ context.Context, c *api.Call, access api.Access) error {
	if err := sessionMay(c, access.Action); err != nil {
		return err
	}
	own, ok := &policy.Policies{}, true
	if !c.Root {
		if own, ok = a.Principals.Policies(&c.Identity); !ok {
			return fail(unknownKey, "The security token included in the request is invalid.")
		}
	}
	resources := access.Resources
	if len(resources) == 0 {
		resources = anything
	}
	var request *policy.Request // made when a policy has to be asked: of root none is, mostly
	var keys *keyring
	for _, r := range resources {
		at := policy.Target{Account: accountOf(r)}
		if a.Resource != nil {
			at.Policy, at.Guarded = a.Resource(access.Action, r)
		}
		if c.Root && !foreign(c, r) {
			// At home only what a resource's own policy denies binds root. Whether it may assume a role is not asked here.
			if at.Guarded || at.Policy == nil || a.Recovery != nil && a.Recovery(access.Action) {
				continue
			}
		}
		if request == nil {
			of := access // so that it need not be allocated otherwise
			request, keys = a.request(c, &of)
		}
		request.Resource, keys.resource = r, r
		if d := own.Decide(request, at); !d.Allowed {
			return denied(c, access.Action, r, d)
		}
	}
	return nil
}

// request is the call as policies see it; keys still need the resource.
func (a *IAM) request(c *api.Call, access *api.Access) (*policy.Request, *keyring) {
	keys := &keyring{iam: a, call: c, access: access}
	return &policy.Request{Action: access.Action, Principal: Principal(&c.Identity), Key: keys.value}, keys
}

// Weigh is what a resource policy that is not in force yet says of the call, for services that keep their users from locking
// themselves out. Root at home is never kept from the actions of Recovery.
func (a *IAM) Weigh(c *api.Call, action, resource string, p *policy.Policy) policy.Effect {
	if c.Root && !foreign(c, resource) && a.Recovery != nil && a.Recovery(action) {
		return policy.Allow
	}
	request, keys := a.request(c, &api.Access{Action: action})
	request.Resource, keys.resource = resource, resource
	return p.Evaluate(request)
}

var anything = []string{"*"}

// foreign says whether a resource is another account's: there even root may only what that account lets it.
func foreign(c *api.Call, resource string) bool {
	of := accountOf(resource)
	return of != "" && of != c.Account
}

// sessionMay refuses what AWS refuses to the sessions that GetSessionToken makes of users and of root ("Request temporary security
// credentials" of the IAM User Guide); there is no MFA here that would change it.
func sessionMay(c *api.Call, action string) error {
	if c.Session == nil || c.Session.Role != "" || !strings.HasPrefix(action, "iam:") && (!strings.HasPrefix(action, "sts:") || action == "sts:AssumeRole") {
		return nil
	}
	return fail(unknownKey, "The security token included in the request is invalid")
}

// Principal is who, as policies see it.
func Principal(who *api.Identity) policy.Principal {
	p := policy.Principal{Account: who.Account, ARN: who.ARN, Root: who.Root}
	p.ID, _, _ = strings.Cut(who.UserID, ":")
	if who.Session != nil {
		p.Role = who.Session.Role
	}
	return p
}

// accountOf is the account in an ARN; empty without one.
func accountOf(resource string) string {
	for range 4 {
		_, rest, ok := strings.Cut(resource, ":")
		if !ok {
			return ""
		}
		resource = rest
	}
	account, _, _ := strings.Cut(resource, ":")
	if !accountPattern.MatchString(account) {
		return ""
	}
	return account
}

// PassRole says whether the caller may give role to service ("ecs-tasks.amazonaws.com"), which will act with it.
func (a *IAM) PassRole(ctx context.Context, role, service string) error {
	c := api.CallFrom(ctx)
	if parsed, err := arn.Parse(role); err == nil && parsed.Account != c.Account {
		return fail(notAllowed, "Cross-account pass role is not allowed.")
	}
	return a.Authorize(ctx, c, api.Access{Action: "iam:PassRole", Resources: []string{role}, Key: func(key string) ([]string, bool) {
		return []string{service}, key == "iam:passedtoservice"
	}})
}

// denied is the refusal of action on resource in AWS's words.
func denied(c *api.Call, action, resource string, why policy.Decision) *Failure {
	message := "User: " + c.ARN + " is not authorized to perform: " + action
	service, _, _ := strings.Cut(action, ":")
	if resource != "*" || service != "ec2" && service != "elasticloadbalancing" { // these two name no resource then
		message += " on resource: " + resource
	}
	if action != "sts:AssumeRole" || why.Explicit {
		message += " " + why.Reason(action)
	}
	return fail(notAllowed, "%s", message)
}
