package policy

import (
	"encoding/base64"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// condition is one key under one operator: its values are alternatives.
type condition struct {
	key      string // in lower case
	op       operator
	set      quantifier
	ifExists bool
	tests    []test
}

// test compares one value of the request with one value of the policy.
type test func(have string, r *Request) bool

// operator is what compares. negated: none of the policy's values may match.
type operator struct {
	compile func(value string, variables bool) (test, bool)
	negated bool
	null    bool // asks whether the key is there
}

type quantifier uint8

const (
	plain  quantifier = iota
	forAll            // ForAllValues: every value of the request
	forAny            // ForAnyValue: at least one
)

// operators by name in lower case: AWS takes them in any.
var operators = map[string]operator{
	"stringequals":              {compile: stringEquals},
	"stringnotequals":           {compile: stringEquals, negated: true},
	"stringequalsignorecase":    {compile: stringEqualsIgnoreCase},
	"stringnotequalsignorecase": {compile: stringEqualsIgnoreCase, negated: true},
	"stringlike":                {compile: stringLike},
	"stringnotlike":             {compile: stringLike, negated: true},
	"arnequals":                 {compile: arnLike},
	"arnlike":                   {compile: arnLike},
	"arnnotequals":              {compile: arnLike, negated: true},
	"arnnotlike":                {compile: arnLike, negated: true},
	"numericequals":             {compile: numeric(func(a, b float64) bool { return a == b })},
	"numericnotequals":          {compile: numeric(func(a, b float64) bool { return a == b }), negated: true},
	"numericlessthan":           {compile: numeric(func(a, b float64) bool { return a < b })},
	"numericlessthanequals":     {compile: numeric(func(a, b float64) bool { return a <= b })},
	"numericgreaterthan":        {compile: numeric(func(a, b float64) bool { return a > b })},
	"numericgreaterthanequals":  {compile: numeric(func(a, b float64) bool { return a >= b })},
	"dateequals":                {compile: date(func(order int) bool { return order == 0 })},
	"datenotequals":             {compile: date(func(order int) bool { return order == 0 }), negated: true},
	"datelessthan":              {compile: date(func(order int) bool { return order < 0 })},
	"datelessthanequals":        {compile: date(func(order int) bool { return order <= 0 })},
	"dategreaterthan":           {compile: date(func(order int) bool { return order > 0 })},
	"dategreaterthanequals":     {compile: date(func(order int) bool { return order >= 0 })},
	"bool":                      {compile: boolean},
	"binaryequals":              {compile: binary},
	"ipaddress":                 {compile: ipAddress},
	"notipaddress":              {compile: ipAddress, negated: true},
	"null":                      {compile: boolean, null: true},
}

func compileConditions(version string, v any) ([]condition, error) {
	block, ok := v.(object)
	if !ok {
		return nil, errSyntax
	}
	var out []condition
	for _, m := range block {
		c, err := compileOperator(m.name)
		if err != nil {
			return nil, err
		}
		keys, ok := m.value.(object)
		if !ok {
			return nil, errSyntax
		}
		for _, k := range keys {
			one, err := c.with(k.name, k.value, version == Version2012)
			if err != nil {
				return nil, err
			}
			out = append(out, one)
		}
	}
	return out, nil
}

func compileOperator(name string) (c condition, err error) {
	rest := strings.ToLower(name)
	if s, ok := strings.CutPrefix(rest, "forallvalues:"); ok {
		rest, c.set = s, forAll
	} else if s, ok := strings.CutPrefix(rest, "foranyvalue:"); ok {
		rest, c.set = s, forAny
	}
	rest, c.ifExists = strings.CutSuffix(rest, "ifexists")
	op, ok := operators[rest]
	if !ok || op.null && (c.ifExists || c.set != plain) {
		return c, malformed("Invalid Condition type : %s.", name)
	}
	c.op = op
	return c, nil
}

func (c condition) with(key string, v any, variables bool) (condition, error) {
	if prefix, name, ok := strings.Cut(key, ":"); !ok || prefix == "" || name == "" {
		return c, malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
	}
	c.key = strings.ToLower(key)
	values, ok := scalars(v)
	if !ok {
		return c, errSyntax
	}
	c.tests = nil
	for _, s := range values {
		t, ok := c.op.compile(s, variables)
		if !ok {
			return c, malformed("The value %q of the condition key %s does not suit its operator.", s, key)
		}
		c.tests = append(c.tests, t)
	}
	return c, nil
}

// holds follows "Conditions with multiple context keys or values" and, for keys that the request lacks, the tables of
// "Condition operators".
func (c *condition) holds(r *Request) bool {
	have, ok := r.key(c.key)
	if c.op.null {
		return c.anyTest(strconv.FormatBool(!ok || len(have) == 0), r)
	}
	absent := !ok || len(have) == 0
	if c.set == forAll && len(have) == 1 && have[0] == "" {
		absent = true // "or the context key value resolves to a null dataset, such as an empty string"
	}
	if absent {
		switch {
		case c.set == forAll, c.ifExists:
			return true
		case c.set == forAny:
			return false
		}
		return c.op.negated
	}
	// Without a quantifier a key has one value; should it have more, the stricter reading of a negation counts.
	every := c.set == forAll || c.set == plain && c.op.negated
	for _, v := range have {
		if good := c.anyTest(v, r) != c.op.negated; good != every {
			return good
		}
	}
	return every
}

func (c *condition) anyTest(v string, r *Request) bool {
	for _, t := range c.tests {
		if t(v, r) {
			return true
		}
	}
	return false
}

func stringEquals(value string, variables bool) (test, bool) {
	p, ok := compile(value, false, variables)
	return func(have string, r *Request) bool {
		want, ok := p.expand(r)
		return ok && have == want
	}, ok
}

func stringEqualsIgnoreCase(value string, variables bool) (test, bool) {
	p, ok := compile(value, false, variables)
	return func(have string, r *Request) bool {
		want, ok := p.expand(r)
		return ok && strings.EqualFold(have, want)
	}, ok
}

func stringLike(value string, variables bool) (test, bool) {
	p, ok := compile(value, true, variables)
	return func(have string, r *Request) bool { return p.match(have, r) }, ok
}

// arnLike compares the six parts of an ARN one by one: a wildcard does not reach over a colon, but for the last part's.
// ArnEquals and ArnLike are the same.
func arnLike(value string, variables bool) (test, bool) {
	if value == "*" {
		return func(string, *Request) bool { return true }, true
	}
	parts := splitARN(value)
	for n := len(parts); n > 0 && len(parts) < 6 && strings.HasSuffix(parts[n-1], "*"); {
		parts = append(parts, "*") // arn:aws:sns:* goes on
	}
	if len(parts) != 6 {
		return nil, false
	}
	var patterns [6]pattern
	for i, p := range parts {
		var ok bool
		if patterns[i], ok = compile(p, true, variables); !ok {
			return nil, false
		}
	}
	return func(have string, r *Request) bool {
		got := strings.SplitN(have, ":", 6)
		if len(got) != 6 {
			return false
		}
		for i := range patterns {
			if !patterns[i].match(got[i], r) {
				return false
			}
		}
		return true
	}, true
}

// splitARN cuts at colons, but not at those of variables.
func splitARN(s string) []string {
	var parts []string
	from, inside := 0, false
	for i := 0; i < len(s) && len(parts) < 5; i++ {
		switch {
		case s[i] == '$' && strings.HasPrefix(s[i:], "${"):
			inside = true
		case s[i] == '}':
			inside = false
		case s[i] == ':' && !inside:
			parts, from = append(parts, s[from:i]), i+1
		}
	}
	return append(parts, s[from:])
}

func numeric(holds func(have, want float64) bool) func(string, bool) (test, bool) {
	return func(value string, _ bool) (test, bool) {
		want, err := strconv.ParseFloat(value, 64)
		return func(have string, _ *Request) bool {
			n, err := strconv.ParseFloat(have, 64)
			return err == nil && holds(n, want)
		}, err == nil
	}
}

func date(holds func(order int) bool) func(string, bool) (test, bool) {
	return func(value string, _ bool) (test, bool) {
		want, ok := parseDate(value)
		return func(have string, _ *Request) bool {
			t, ok := parseDate(have)
			return ok && holds(t.Compare(want))
		}, ok
	}
}

// parseDate reads the W3C profile of ISO 8601 and seconds since 1970.
func parseDate(s string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", time.DateOnly, "2006-01", "2006"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return time.Unix(n, 0), err == nil
}

func boolean(value string, _ bool) (test, bool) {
	want := strings.ToLower(value)
	return func(have string, _ *Request) bool { return strings.EqualFold(have, want) }, want == "true" || want == "false"
}

func binary(value string, _ bool) (test, bool) {
	want, err := base64.StdEncoding.DecodeString(value)
	return func(have string, _ *Request) bool {
		b, err := base64.StdEncoding.DecodeString(have)
		return err == nil && string(b) == string(want)
	}, err == nil
}

func ipAddress(value string, _ bool) (test, bool) {
	want, err := netip.ParsePrefix(value)
	if err != nil {
		a, err := netip.ParseAddr(value)
		if err != nil {
			return nil, false
		}
		want = netip.PrefixFrom(a, a.BitLen())
	}
	return func(have string, _ *Request) bool {
		a, err := netip.ParseAddr(have)
		return err == nil && want.Contains(a.Unmap().WithZone(""))
	}, true
}
