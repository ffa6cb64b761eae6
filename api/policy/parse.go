package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Error is why a document is no policy, in AWS's words where those are known. Services answer it with their code for it
// (IAM: MalformedPolicyDocument).
type Error struct{ Message string }

func (e *Error) Error() string { return e.Message }

func malformed(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

var errSyntax = malformed("Syntax errors in policy.")

// Versions of the language.
const (
	Version2012 = "2012-10-17"
	Version2008 = "2008-10-17" // knows no variables
)

// maxText is IAM's limit on the text of a document, white space included. The quotas by kind of document are smaller.
const maxText = 131072

// Parse compiles a document. The error is an *Error.
func Parse(kind Kind, text string) (*Policy, error) {
	if len(text) > maxText {
		return nil, errSyntax
	}
	v, err := readJSON(text)
	doc, ok := v.(object)
	if err != nil || !ok {
		return nil, errSyntax
	}
	p := &Policy{Version: Version2008}
	var statements any
	for _, m := range doc {
		switch m.name {
		case "Version":
			if m.value != Version2012 && m.value != Version2008 {
				return nil, errSyntax
			}
			p.Version, p.Explicit = m.value.(string), true
		case "Id":
			if _, ok := m.value.(string); !ok {
				return nil, errSyntax
			}
		case "Statement":
			statements = m.value
		default:
			return nil, errSyntax
		}
	}
	if one, ok := statements.(object); ok {
		statements = []any{one}
	}
	list, ok := statements.([]any)
	if !ok {
		return nil, errSyntax
	}
	for _, e := range list {
		o, ok := e.(object)
		if !ok {
			return nil, errSyntax
		}
		s, err := compileStatement(kind, p.Version, o)
		if err != nil {
			return nil, err
		}
		if s.sid != "" && slices.ContainsFunc(p.statements, func(o statement) bool { return o.sid == s.sid }) {
			return nil, malformed("Statement IDs (SID) in a single policy must be unique.")
		}
		p.statements = append(p.statements, s)
	}
	return p, nil
}

var sidPattern = regexp.MustCompile(`^[0-9A-Za-z]*$`)

func compileStatement(kind Kind, version string, o object) (s statement, err error) {
	seen := map[string]bool{}
	for _, m := range o {
		seen[m.name] = true
		switch m.name {
		case "Sid":
			sid, ok := m.value.(string)
			if !ok {
				return s, errSyntax
			}
			if (kind == Identity || kind == Trust) && !sidPattern.MatchString(sid) { // services are less strict with their own
				return s, malformed("Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*")
			}
			s.sid = sid
		case "Effect":
			if m.value != "Allow" && m.value != "Deny" {
				return s, errSyntax
			}
			s.deny = m.value == "Deny"
		case "Principal", "NotPrincipal":
			if kind == Identity {
				return s, malformed("Policy document should not specify a principal.")
			}
			s.principals, err = compilePrincipals(m.value, m.name == "NotPrincipal")
		case "Action", "NotAction":
			s.notAction = m.name == "NotAction"
			s.actions, err = compileActions(kind, m.value)
		case "Resource", "NotResource":
			if kind == Trust || kind == Own {
				return s, malformed("Has prohibited field Resource")
			}
			s.notResource = m.name == "NotResource"
			s.resources, err = compileResources(version, m.value)
		case "Condition":
			s.conditions, err = compileConditions(version, m.value)
		default:
			return s, errSyntax
		}
		if err != nil {
			return s, err
		}
	}
	switch {
	case !seen["Effect"],
		seen["Action"] && seen["NotAction"], seen["Resource"] && seen["NotResource"], seen["Principal"] && seen["NotPrincipal"]:
		return s, errSyntax
	case kind == Trust && seen["NotPrincipal"]: // "NotPrincipal" of the User Guide: not in trust policies
		return s, malformed("Has prohibited field NotPrincipal")
	case kind != Identity && s.principals == nil:
		return s, malformed("Missing required field Principal")
	case s.actions == nil:
		return s, malformed("Policy statement must contain actions.")
	case s.resources == nil && (kind == Identity || kind == Shared || seen["Resource"] || seen["NotResource"]):
		return s, malformed("Policy statement must contain resources.")
	}
	return s, nil
}

var (
	vendorPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]*$`)
	actionPattern = regexp.MustCompile(`^[A-Za-z0-9*?]+$`)
)

func compileActions(kind Kind, v any) ([]pattern, error) {
	list, ok := texts(v)
	if !ok {
		return nil, errSyntax
	}
	var out []pattern
	for _, a := range list {
		vendor, name, _ := strings.Cut(a, ":")
		switch {
		case kind == Trust && !strings.EqualFold(vendor, "sts"):
			return nil, malformed("AssumeRole policy may only specify STS AssumeRole actions.")
		case kind != Trust && a != "" && strings.Trim(vendor+name, "*") == "": // "*", "*:*"
			a = "*"
		case !strings.Contains(a, ":"):
			return nil, malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
		case strings.Contains(name, ":"):
			return nil, malformed("Actions/Condition can contain only one colon.")
		case !vendorPattern.MatchString(vendor):
			return nil, malformed("Vendor %s is not valid", vendor)
		case !actionPattern.MatchString(name):
			return nil, errSyntax
		}
		p, _ := compile(strings.ToLower(a), true, false)
		out = append(out, p)
	}
	return out, nil
}

// iamPaths begin what an ARN of IAM can name.
var iamPaths = []string{"user/", "federated-user/", "role/", "group/", "instance-profile/", "mfa/", "server-certificate/", "policy/",
	"sms-mfa/", "saml-provider/", "oidc-provider/", "report/", "access-report/"}

func compileResources(version string, v any) ([]pattern, error) {
	list, ok := texts(v)
	if !ok {
		return nil, errSyntax
	}
	var out []pattern
	for _, r := range list {
		if err := checkResource(r); err != nil {
			return nil, err
		}
		p, ok := compile(r, true, version == Version2012)
		if !ok {
			return nil, errSyntax
		}
		out = append(out, p)
	}
	return out, nil
}

func checkResource(r string) error {
	if r == "*" {
		return nil
	}
	parts := strings.SplitN(r, ":", 6)
	if parts[0] != "arn" || len(parts) < 6 && !strings.HasSuffix(r, "*") {
		return malformed(`Resource %s must be in ARN format or "*".`, r)
	}
	if len(parts) > 1 && !slices.Contains([]string{"aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b", "*"}, parts[1]) && !strings.ContainsAny(parts[1], "*?$") {
		return malformed(`Partition "%s" is not valid for resource "%s".`, parts[1], r)
	}
	if len(parts) == 6 && parts[2] == "iam" {
		rest := parts[5]
		wild := strings.ContainsAny(rest, "*?$")
		switch {
		case parts[3] != "":
			return malformed("IAM resource %s cannot contain region information.", r)
		case !wild && rest != "root" && !slices.ContainsFunc(iamPaths, func(p string) bool { return strings.HasPrefix(rest, p) }):
			return malformed(`IAM resource path must either be "*" or start with %s.`, strings.Join(iamPaths, ", "))
		}
	}
	return nil
}
