package scheduler

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// Limits on an expression: ECS's own on its length, ours on nesting so that the parser's stack is bounded.
const (
	maxExpressionLength = 2000
	maxExpressionDepth  = 64
)

// Expression is a parsed expression of the cluster query language, as memberOf constraints and ListContainerInstances
// filters use it:
//
//	subject operator [argument] combined with not, and, or and parentheses
//
// https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cluster-query-language.html
type Expression struct {
	root expr
	// Dynamic says that the answer changes with the tasks on an instance, so that it has to be asked anew when they do.
	Dynamic bool
}

// Subject answers what an instance has under a subject's name: "attribute:NAME", "task:group", "agentConnected"… A name
// may have several values (task:group); none means that it does not exist.
type Subject func(name string) []string

// Match evaluates the expression on one instance.
func (e *Expression) Match(s Subject) bool { return e.root.match(s) }

type expr interface{ match(Subject) bool }

type (
	and  struct{ a, b expr }
	or   struct{ a, b expr }
	not  struct{ e expr }
	term struct {
		subject string
		any     func(value string) bool // true for one value is enough
	}
)

func (e and) match(s Subject) bool { return e.a.match(s) && e.b.match(s) }
func (e or) match(s Subject) bool  { return e.a.match(s) || e.b.match(s) }
func (e not) match(s Subject) bool { return !e.e.match(s) }
func (e term) match(s Subject) bool {
	for _, v := range s(e.subject) {
		if e.any(v) {
			return true
		}
	}
	return false
}

// subjects known beyond attribute:NAME; true: changes with the tasks of an instance.
var subjects = map[string]bool{
	"agentconnected": false, "agentversion": false, "ec2instanceid": false, "registeredat": false, "status": false,
	"containerinstanceid": false, "registeredcpu": false, "registeredmemory": false,
	"runningtaskscount": true, "pendingtaskscount": true, "remainingcpu": true, "remainingmemory": true, "task:group": true,
}

// ParseExpression reads an expression; its errors are meant for the client.
func ParseExpression(text string) (*Expression, error) {
	if len(text) > maxExpressionLength {
		return nil, fmt.Errorf("expression is longer than %d characters", maxExpressionLength)
	}
	p := &parser{rest: text, e: &Expression{}}
	root, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.space(); p.rest != "" {
		return nil, fmt.Errorf("unexpected %q", p.rest)
	}
	p.e.root = root
	return p.e, nil
}

// parser is a recursive descent over or → and → not → ( … ) | term.
type parser struct {
	rest string
	e    *Expression
}

func (p *parser) space() { p.rest = strings.TrimLeftFunc(p.rest, unicode.IsSpace) }

// symbol takes one of the literals when it stands next; the longest has to come first.
func (p *parser) symbol(literals ...string) string {
	p.space()
	for _, l := range literals {
		if strings.HasPrefix(p.rest, l) {
			p.rest = p.rest[len(l):]
			return l
		}
	}
	return ""
}

// keyword takes one of the words, in any case, when a whole word of that text stands next.
func (p *parser) keyword(words ...string) string {
	p.space()
	w := p.rest[:wordEnd(p.rest)]
	for _, k := range words {
		if strings.EqualFold(w, k) {
			p.rest = p.rest[len(w):]
			return k
		}
	}
	return ""
}

func wordEnd(s string) int {
	if i := strings.IndexFunc(s, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune("()[],=!<>&|~'\"", r) }); i >= 0 {
		return i
	}
	return len(s)
}

func (p *parser) or(depth int) (expr, error) {
	a, err := p.and(depth)
	for err == nil && (p.symbol("||") != "" || p.keyword("or") != "") {
		var b expr
		if b, err = p.and(depth); err == nil {
			a = or{a, b}
		}
	}
	return a, err
}

func (p *parser) and(depth int) (expr, error) {
	a, err := p.unary(depth)
	for err == nil && (p.symbol("&&") != "" || p.keyword("and") != "") {
		var b expr
		if b, err = p.unary(depth); err == nil {
			a = and{a, b}
		}
	}
	return a, err
}

func (p *parser) unary(depth int) (expr, error) {
	if depth > maxExpressionDepth {
		return nil, fmt.Errorf("expression is nested deeper than %d", maxExpressionDepth)
	}
	if p.symbol("!") != "" || p.keyword("not") != "" {
		e, err := p.unary(depth + 1)
		return not{e}, err
	}
	if p.symbol("(") != "" {
		e, err := p.or(depth + 1)
		if err == nil && p.symbol(")") == "" {
			err = fmt.Errorf("missing ) before %q", p.rest)
		}
		return e, err
	}
	return p.term()
}

func (p *parser) term() (expr, error) {
	p.space()
	name := p.rest[:wordEnd(p.rest)]
	p.rest = p.rest[len(name):]
	if attribute, ok := strings.CutPrefix(name, "attribute:"); ok {
		if attribute == "" {
			return nil, fmt.Errorf("attribute: needs a name")
		}
	} else {
		dynamic, known := subjects[strings.ToLower(name)]
		if !known {
			return nil, fmt.Errorf("unknown subject %q", name)
		}
		name = strings.ToLower(name)
		p.e.Dynamic = p.e.Dynamic || dynamic
	}
	op := p.symbol("!exists", "!in", "!~", "!=", "==", "=~", ">=", "<=", ">", "<")
	if op == "" {
		op = operatorWords[p.keyword("equals", "not_equals", "greater_than_equal", "greater_than", "less_than_equal",
			"less_than", "exists", "not_exists", "in", "not_in", "matches", "not_matches")]
	}
	return p.operation(name, op)
}

var operatorWords = map[string]string{
	"equals": "==", "not_equals": "!=", "greater_than": ">", "greater_than_equal": ">=", "less_than": "<", "less_than_equal": "<=",
	"exists": "exists", "not_exists": "!exists", "in": "in", "not_in": "!in", "matches": "=~", "not_matches": "!~",
}

func (p *parser) operation(name, op string) (expr, error) {
	var any func(string) bool
	var err error
	negated := strings.HasPrefix(op, "!")
	switch op {
	case "exists", "!exists":
		any = func(string) bool { return true }
	case "in", "!in":
		var list []string
		list, err = p.list()
		any = func(v string) bool {
			for _, l := range list {
				if v == l {
					return true
				}
			}
			return false
		}
	case "=~", "!~":
		var re *regexp.Regexp
		re, err = p.pattern()
		any = func(v string) bool { return re.MatchString(v) }
	case "==", "!=":
		var arg string
		arg, err = p.argument()
		any = func(v string) bool { return v == arg }
	case ">", ">=", "<", "<=":
		var arg string
		arg, err = p.argument()
		any = func(v string) bool {
			c := compareValues(v, arg)
			switch op {
			case ">":
				return c > 0
			case ">=":
				return c >= 0
			case "<":
				return c < 0
			}
			return c <= 0
		}
	default:
		return nil, fmt.Errorf("no operator after %q", name)
	}
	if err != nil {
		return nil, err
	}
	if negated {
		return not{term{name, any}}, nil
	}
	return term{name, any}, nil
}

// argument is a word or a quoted string.
func (p *parser) argument() (string, error) {
	p.space()
	if p.rest != "" && (p.rest[0] == '\'' || p.rest[0] == '"') {
		quote := p.rest[:1]
		v, rest, ok := strings.Cut(p.rest[1:], quote)
		if !ok {
			return "", fmt.Errorf("missing %s after %q", quote, v)
		}
		p.rest = rest
		return v, nil
	}
	v := p.rest[:wordEnd(p.rest)]
	if v == "" {
		return "", fmt.Errorf("a value is missing before %q", p.rest)
	}
	p.rest = p.rest[len(v):]
	return v, nil
}

func (p *parser) list() ([]string, error) {
	if p.symbol("[") == "" {
		return nil, fmt.Errorf("missing [ before %q", p.rest)
	}
	var list []string
	for {
		v, err := p.argument()
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		if p.symbol(",") == "" {
			break
		}
	}
	if p.symbol("]") == "" {
		return nil, fmt.Errorf("missing ] before %q", p.rest)
	}
	return list, nil
}

// pattern is a regular expression over the whole value; unquoted it reaches to the next space or unbalanced ")".
func (p *parser) pattern() (*regexp.Regexp, error) {
	p.space()
	var text string
	if p.rest != "" && (p.rest[0] == '\'' || p.rest[0] == '"') {
		var err error
		if text, err = p.argument(); err != nil {
			return nil, err
		}
	} else {
		depth := 0
		end := strings.IndexFunc(p.rest, func(r rune) bool {
			switch r {
			case '(':
				depth++
			case ')':
				depth--
			}
			return depth < 0 || unicode.IsSpace(r)
		})
		if end < 0 {
			end = len(p.rest)
		}
		text, p.rest = p.rest[:end], p.rest[end:]
	}
	if text == "" {
		return nil, fmt.Errorf("a pattern is missing before %q", p.rest)
	}
	re, err := regexp.Compile("^(?:" + text + ")$")
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", text, err)
	}
	return re, nil
}

// compareValues orders dotted numbers part by part ("1.14.0" after "1.9") and everything else as text, which orders
// RFC 3339 times as well.
func compareValues(a, b string) int {
	x, okX := numbers(a)
	y, okY := numbers(b)
	if !okX || !okY {
		return strings.Compare(a, b)
	}
	for i := 0; i < len(x) || i < len(y); i++ {
		var m, n string
		if i < len(x) {
			m = x[i]
		}
		if i < len(y) {
			n = y[i]
		}
		if len(m) != len(n) {
			return len(m) - len(n)
		}
		if c := strings.Compare(m, n); c != 0 {
			return c
		}
	}
	return 0
}

// numbers splits a dotted number into its parts without leading zeros.
func numbers(s string) ([]string, bool) {
	if s == "" {
		return nil, false
	}
	parts := strings.Split(s, ".")
	for i, part := range parts {
		if part == "" || strings.Trim(part, "0123456789") != "" {
			return nil, false
		}
		parts[i] = strings.TrimLeft(part, "0")
	}
	return parts, true
}
