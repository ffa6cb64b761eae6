// Package policy is the language of IAM: it parses policy documents, says what is wrong with them in AWS's words, and
// decides requests. It is pure: no state, no clock, no I/O; what a request is about comes in with it.
//
// A document is compiled once (Parse) and then evaluated any number of times, by any number of goroutines. The rules are those
// of the IAM User Guide: "Grammar of the IAM JSON policy language", "Policy evaluation logic", "Condition operators", "Conditions
// with multiple context keys or values", "Variables and tags", "How IAM evaluates AWS principals in resource policies".
//
// Invariants: an explicit deny wins over everything; nothing is allowed that no policy allows; what a document says and this package
// does not understand makes it unparsable, it is never passed over.
package policy

import (
	"slices"
	"strings"
	"unicode"
)

// Kind is where a document is used: it decides what must and what must not stand in it.
type Kind uint8

// The kinds.
const (
	// Identity is a policy of a user, group or role, a permissions boundary or a session policy: no principals.
	Identity Kind = iota
	// Trust says who may assume a role: principals, and no resource, since that is the role.
	Trust
	// Resource is the policy of any other resource: principals; the resource may be left out, where the service says so.
	Resource
	// Own is a Resource policy that is of one resource and says nothing of others: it must not have the element.
	Own
	// Shared is a Resource policy that several resources have together, so that each statement must say which it means.
	Shared
)

// Policy is a compiled document. It does not change.
type Policy struct {
	Version    string // "2012-10-17", or "2008-10-17", also when the document has none
	Explicit   bool   // the document names its version
	statements []statement
}

// statement is one rule: it applies when principal, action, resource and all conditions match.
type statement struct {
	sid                    string
	deny                   bool
	principals             *principals // nil: an identity policy's
	actions, resources     []pattern   // resources nil: any
	notAction, notResource bool
	conditions             []condition
}

// Request is what is asked for. It is evaluated by one goroutine at a time.
type Request struct {
	Action    string // "ecs:RunTask", in any case
	Resource  string // an ARN, or "*" where the action is on nothing in particular
	Principal Principal
	// Key returns the values of a condition key, which comes in lower case ("aws:sourceip", "aws:principaltag/team").
	// ok is false when the request has no such key. nil: it has none at all.
	Key func(key string) (values []string, ok bool)

	lower string // the action as patterns have it
}

func (r *Request) key(name string) ([]string, bool) {
	if r.Key == nil {
		return nil, false
	}
	return r.Key(name)
}

// Effect is what a document says of a request.
type Effect uint8

// The effects, the stronger the greater.
const (
	None Effect = iota
	Allow
	Deny
)

// Evaluate is what the document says of r by itself.
func (p *Policy) Evaluate(r *Request) Effect {
	e, _ := p.evaluate(r)
	return e
}

// evaluate also says how closely the allowing statements name the caller.
func (p *Policy) evaluate(r *Request) (Effect, reach) {
	effect, closest := None, unreached
	if len(r.lower) != len(r.Action) || !strings.EqualFold(r.lower, r.Action) {
		r.lower = strings.ToLower(r.Action)
	}
	for i := range p.statements {
		s := &p.statements[i]
		if effect == Allow && !s.deny && closest == direct {
			continue // cannot become more
		}
		how := s.applies(r)
		switch {
		case how == unreached:
		case s.deny:
			return Deny, how
		default:
			effect, closest = Allow, max(closest, how)
		}
	}
	return effect, closest
}

// applies is unreached when the statement does not apply, otherwise how it names the caller.
func (s *statement) applies(r *Request) reach {
	how := direct
	if !matchesAny(s.actions, r.lower, r) != s.notAction {
		return unreached
	}
	if s.principals != nil {
		if how = s.principals.match(&r.Principal); how == unreached {
			return unreached
		}
	}
	if s.resources != nil && !matchesAny(s.resources, r.Resource, r) != s.notResource {
		return unreached
	}
	for i := range s.conditions {
		if !s.conditions[i].holds(r) {
			return unreached
		}
	}
	return how
}

func matchesAny(list []pattern, s string, r *Request) bool {
	for i := range list {
		if list[i].match(s, r) {
			return true
		}
	}
	return false
}

// Join is the policy that has the statements of all of these; nil when none is there.
func Join(list ...*Policy) *Policy {
	var joined *Policy
	for _, p := range list {
		switch {
		case p == nil:
		case joined == nil:
			joined = p
		default:
			joined = &Policy{Version: joined.Version, Explicit: joined.Explicit, statements: slices.Concat(joined.statements, p.statements)}
		}
	}
	return joined
}

// Vendors are the services whose actions the document names, in lower case; "*" stands for all.
func (p *Policy) Vendors() []string {
	var out []string
	for _, s := range p.statements {
		for _, a := range s.actions {
			vendor := "*"
			if a.kind != all {
				vendor, _, _ = strings.Cut(a.text, ":")
			}
			if !slices.Contains(out, vendor) {
				out = append(out, vendor)
			}
		}
	}
	return out
}

// Evaluate is what the documents say together.
func Evaluate(list []*Policy, r *Request) Effect {
	effect := None
	for _, p := range list {
		if effect = max(effect, p.Evaluate(r)); effect == Deny {
			break
		}
	}
	return effect
}

// Size is the length of a document as IAM counts it against its quotas: characters, without white space.
func Size(text string) int {
	n := 0
	for _, c := range text {
		if !unicode.IsSpace(c) {
			n++
		}
	}
	return n
}
