package policy

import (
	"regexp"
	"slices"
	"strings"
)

// Principal is who asks.
type Principal struct {
	Account string // 12 digits; empty for a service
	ARN     string // of the user, the root user, or the session (arn:aws:sts::…:assumed-role/…)
	Role    string // of a role's session: the role's ARN
	ID      string // the user's or role's unique id (AIDA…, AROA…)
	Service string // of a service acting by itself: "ecs-tasks.amazonaws.com"
	Root    bool   // the account's root user: its account's policies do not bind it
}

// reach is how closely a Principal element names a caller. It decides which other policies still count: see Policies.Decide.
type reach uint8

const (
	unreached reach = iota
	account         // the account is named: what is granted, the account's own policies give on
	role            // the role of the session is named, or everybody
	direct          // the user or the session itself is named
)

// principals is a Principal or NotPrincipal element.
type principals struct {
	not      bool
	anyone   bool
	accounts []string
	arns     []string
	ids      []string
	services []string
	pins     map[string]string // unique ids of arns: who has the ARN later, but another id, is not meant
}

func (p *principals) match(who *Principal) reach {
	how := p.named(who)
	if !p.not {
		return how
	}
	if how == unreached {
		return direct
	}
	return unreached
}

func (p *principals) named(who *Principal) reach {
	if who.Service != "" {
		if p.anyone || slices.Contains(p.services, who.Service) {
			return direct
		}
		return unreached
	}
	switch {
	case p.means(who.ARN, who), slices.Contains(p.ids, who.ID) && who.Role == "":
		return direct
	case p.anyone && who.Role == "":
		return direct
	case who.Role != "" && (p.anyone || p.means(who.Role, who) || slices.Contains(p.ids, who.ID)):
		return role
	case who.Account != "" && slices.Contains(p.accounts, who.Account):
		return account
	}
	return unreached
}

func (p *principals) means(arn string, who *Principal) bool {
	if arn == "" || !slices.Contains(p.arns, arn) {
		return false
	}
	pin := p.pins[arn]
	return pin == "" || pin == who.ID
}

// Principals are the ARNs of users and roles that the document names.
func (p *Policy) Principals() []string {
	var out []string
	for _, s := range p.statements {
		if s.principals == nil {
			continue
		}
		for _, a := range s.principals.arns {
			if strings.HasPrefix(a, "arn:aws:iam:") && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// Pin is the policy meaning by each ARN the one who has this unique id. AWS keeps ids, not ARNs: a user or role that is
// deleted and made again is somebody else.
func (p *Policy) Pin(ids map[string]string) *Policy {
	pinned := *p
	pinned.statements = slices.Clone(p.statements)
	for i := range pinned.statements {
		if s := &pinned.statements[i]; s.principals != nil {
			copied := *s.principals
			copied.pins = ids
			s.principals = &copied
		}
	}
	return &pinned
}

var (
	accountPattern   = regexp.MustCompile(`^[0-9]{12}$`)
	rootPattern      = regexp.MustCompile(`^arn:aws[a-z-]*:iam::([0-9]{12}):root$`)
	principalPattern = regexp.MustCompile(`^arn:aws[a-z-]*:(iam::[0-9]{12}:(user|role)/|sts::[0-9]{12}:(assumed-role|federated-user)/)[^*?\s]+$`)
	uniqueIDPattern  = regexp.MustCompile(`^A(IDA|ROA)[A-Z0-9]{12,}$`)
	servicePattern   = regexp.MustCompile(`^[a-z0-9.-]+\.(amazonaws\.com(\.cn)?|amazon\.com|internal)$`)
)

// compilePrincipals reads "*" or {"AWS": …, "Service": …, "Federated": …, "CanonicalUser": …}. Federated users and canonical
// ids are taken and match nobody: there are none here.
func compilePrincipals(v any, not bool) (*principals, error) {
	p := &principals{not: not}
	if v == "*" {
		p.anyone = true
		return p, nil
	}
	kinds, ok := v.(object)
	if !ok || len(kinds) == 0 {
		return nil, malformed(`Invalid principal in policy.`)
	}
	for _, m := range kinds {
		values, ok := texts(m.value)
		if !ok || len(values) == 0 {
			return nil, errSyntax
		}
		for _, s := range values {
			if !p.add(m.name, s) {
				return nil, malformed(`Invalid principal in policy: "%s":"%s"`, m.name, s)
			}
		}
	}
	return p, nil
}

func (p *principals) add(kind, s string) bool {
	switch kind {
	case "AWS":
		switch root := rootPattern.FindStringSubmatch(s); {
		case s == "*":
			p.anyone = true
		case accountPattern.MatchString(s):
			p.accounts = append(p.accounts, s)
		case root != nil:
			p.accounts = append(p.accounts, root[1])
		case principalPattern.MatchString(s):
			p.arns = append(p.arns, s)
		case uniqueIDPattern.MatchString(s):
			p.ids = append(p.ids, s)
		default:
			return false
		}
	case "Service":
		if !servicePattern.MatchString(s) {
			return false
		}
		p.services = append(p.services, s)
	case "Federated", "CanonicalUser":
		return s != ""
	default:
		return false
	}
	return true
}
