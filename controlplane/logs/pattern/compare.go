package pattern

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// comparison is an operator with what stands right of it.
type comparison struct {
	op     string
	text   string
	number float64
	isNum  bool // text is a number and not in quotation marks
	re     *regexp.Regexp
}

var operators = []string{"!=", "<=", ">=", "=", "<", ">"} // longer ones first

// comparison takes an operator and its value.
func (l *lexer) comparison() (*comparison, error) {
	c := &comparison{}
	for _, op := range operators {
		if l.take(op) {
			c.op = op
			break
		}
	}
	if c.op == "" {
		return nil, fmt.Errorf("a comparison (=, !=, <, >, <=, >=) is missing before %q", l.rest)
	}
	l.space()
	var err error
	quoted := false
	switch {
	case strings.HasPrefix(l.rest, `"`):
		quoted = true
		c.text, err = l.quoted()
	case strings.HasPrefix(l.rest, "%"):
		c.re, err = l.regexp()
	default:
		c.text = l.until(func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`&|,)]}"`, r) })
		if c.text == "" {
			err = fmt.Errorf("a value is missing after %s", c.op)
		}
	}
	if err != nil {
		return nil, err
	}
	if !quoted && c.re == nil {
		c.number, err = strconv.ParseFloat(c.text, 64)
		c.isNum = err == nil
	}
	if !c.isNum && c.op != "=" && c.op != "!=" {
		return nil, fmt.Errorf("%s compares numbers only, and %q is none", c.op, c.text)
	}
	return c, nil
}

// holds compares a value, given as text.
func (c *comparison) holds(value string) bool {
	switch c.op {
	case "=":
		return c.equal(value)
	case "!=":
		return !c.equal(value)
	}
	n, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return false
	}
	switch c.op {
	case "<":
		return n < c.number
	case ">":
		return n > c.number
	case "<=":
		return n <= c.number
	}
	return n >= c.number
}

func (c *comparison) equal(value string) bool {
	if c.re != nil {
		return c.re.MatchString(value)
	}
	if c.isNum {
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			return n == c.number
		}
	}
	return Wildcard(c.text, value)
}

// Wildcard says whether the text is as the pattern has it, in which * stands for anything.
func Wildcard(pattern, text string) bool {
	first, rest, any := strings.Cut(pattern, "*")
	text, ok := strings.CutPrefix(text, first)
	if !ok || !any {
		return ok && text == ""
	}
	for {
		part, more, any := strings.Cut(rest, "*")
		if !any {
			return strings.HasSuffix(text, part)
		}
		i := strings.Index(text, part)
		if i < 0 {
			return false
		}
		text, rest = text[i+len(part):], more
	}
}

// maxDepth bounds parentheses within parentheses.
const maxDepth = 50

// disjunction reads conditions joined by && and ||, of which && binds closer; T is what they are asked of.
func disjunction[T any](l *lexer, depth int, condition func(*lexer) (func(T) bool, error)) (func(T) bool, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("parentheses are nested deeper than %d", maxDepth)
	}
	primary := func() (func(T) bool, error) {
		if !l.take("(") {
			return condition(l)
		}
		inner, err := disjunction(l, depth+1, condition)
		if err == nil && !l.take(")") {
			err = fmt.Errorf("a parenthesis is not closed before %q", l.rest)
		}
		return inner, err
	}
	var terms []func(T) bool
	for {
		var factors []func(T) bool
		for {
			f, err := primary()
			if err != nil {
				return nil, err
			}
			factors = append(factors, f)
			if !l.take("&&") {
				break
			}
		}
		terms = append(terms, func(v T) bool {
			for _, f := range factors {
				if !f(v) {
					return false
				}
			}
			return true
		})
		if !l.take("||") {
			break
		}
	}
	return func(v T) bool {
		for _, t := range terms {
			if t(v) {
				return true
			}
		}
		return false
	}, nil
}
