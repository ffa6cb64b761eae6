package policy

// Policies are all that bind one caller.
type Policies struct {
	Identity []*Policy // the user's own and its groups', or the role's
	Boundary []*Policy // with Bounded: the permissions boundary
	Session  []*Policy // with Limited: what the session was made with
	Bounded  bool
	Limited  bool
}

// Source is a kind of policy, as AWS's messages name it.
type Source string

// The sources of a decision.
const (
	FromIdentity Source = "identity-based policy"
	FromResource Source = "resource-based policy"
	FromBoundary Source = "permissions boundary"
	FromSession  Source = "session policy"
)

// Decision is the outcome for one action on one resource.
type Decision struct {
	Allowed  bool
	Explicit bool   // denied by a statement, not for want of one
	By       Source // which kind of policy denies
}

// Reason is the end of AWS's message for a denial ("Troubleshoot access denied error messages" of the IAM User Guide).
func (d Decision) Reason(action string) string {
	if !d.Explicit {
		return "because no " + string(d.By) + " allows the " + action + " action"
	}
	article := "a "
	if d.By == FromIdentity {
		article = "an "
	}
	return "with an explicit deny in " + article + string(d.By)
}

// Target is what the resource adds to a decision.
type Target struct {
	Account string  // whose resource it is; empty: the caller's
	Policy  *Policy // its own; nil: it has none
	// Guarded says that nobody gets to the resource whom its own policy does not let, whatever his own policies say: a role
	// and its trust policy.
	Guarded bool
}

// Decide applies "Policy evaluation logic" of the IAM User Guide. Within an account the caller's policies and the resource's
// add to one another; between accounts both must allow. Boundary and session policies only take away. A resource policy that
// names the user or the session itself is bound by neither; one that names the session's role, or everybody, is bound by them, and one that
// names the account gives nothing by itself.
func (p *Policies) Decide(r *Request, at Target) Decision {
	own := Allow
	if !r.Principal.Root {
		own = Evaluate(p.Identity, r)
	}
	boundary, session := Allow, Allow
	if p.Bounded {
		boundary = Evaluate(p.Boundary, r)
	}
	if p.Limited {
		session = Evaluate(p.Session, r)
	}
	resource, how := None, unreached
	if at.Policy != nil {
		resource, how = at.Policy.evaluate(r)
	}
	for _, said := range [...]struct {
		effect Effect
		source Source
	}{{own, FromIdentity}, {boundary, FromBoundary}, {session, FromSession}, {resource, FromResource}} {
		if said.effect == Deny {
			return Decision{Explicit: true, By: said.source}
		}
	}
	foreign := at.Account != "" && at.Account != r.Principal.Account && r.Principal.Service == ""
	if resource == Allow && !foreign {
		switch how {
		case direct:
			return Decision{Allowed: true}
		case role:
			own = Allow
		}
	}
	switch {
	case own != Allow:
		return Decision{By: FromIdentity}
	case (foreign || at.Guarded) && resource != Allow:
		return Decision{By: FromResource}
	case boundary != Allow:
		return Decision{By: FromBoundary}
	case session != Allow:
		return Decision{By: FromSession}
	}
	return Decision{Allowed: true}
}
