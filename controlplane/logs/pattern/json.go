package pattern

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
)

// step is one of a selector's: a member, an element, or all elements.
type step struct {
	member string
	index  int
	kind   byte // '.', '[' or '*'
}

type selector struct {
	text  string
	steps []step
}

// compileJSON reads { $.a.b[0] = "x*" && ($.n > 5 || $.m NOT EXISTS) }.
func compileJSON(s string) (*Pattern, error) {
	l := &lexer{rest: s[1:]}
	var selectors []selector
	match, err := disjunction(l, 0, func(l *lexer) (func(any) bool, error) {
		sel, cond, err := l.selection()
		selectors = append(selectors, sel)
		return cond, err
	})
	if err != nil {
		return nil, err
	}
	if !l.take("}") {
		return nil, fmt.Errorf("the pattern does not end in }: %q is left", l.rest)
	}
	if l.space(); l.rest != "" {
		return nil, fmt.Errorf("nothing can follow }: %q", l.rest)
	}
	return &Pattern{
		match: func(m string) bool {
			v, ok := parse(m)
			return ok && match(v)
		},
		extract: func(m string) map[string]string {
			values := map[string]string{}
			v, _ := parse(m)
			for _, sel := range selectors {
				for _, found := range sel.find(v) {
					values[sel.text] = render(found)
				}
			}
			return values
		},
	}, nil
}

// parse reads a message that is one JSON object or array.
func parse(m string) (any, bool) {
	m = strings.TrimSpace(m)
	if m == "" || m[0] != '{' && m[0] != '[' {
		return nil, false
	}
	d := json.NewDecoder(strings.NewReader(m))
	d.UseNumber() // as it is written: extracted values are shown
	var v any
	if d.Decode(&v) != nil {
		return nil, false
	}
	_, err := d.Token()
	return v, errors.Is(err, io.EOF)
}

// selection reads a selector and what is asked of it.
func (l *lexer) selection() (selector, func(any) bool, error) {
	sel, err := l.selector()
	if err != nil {
		return sel, nil, err
	}
	is := func(holds func(any) bool) func(any) bool {
		return func(v any) bool {
			for _, found := range sel.find(v) {
				if holds(found) {
					return true
				}
			}
			return false
		}
	}
	switch {
	case l.word("NOT"):
		if !l.word("EXISTS") {
			return sel, nil, fmt.Errorf("EXISTS is missing after NOT")
		}
		return sel, func(v any) bool { return len(sel.find(v)) == 0 }, nil
	case l.word("EXISTS"):
		return sel, func(v any) bool { return len(sel.find(v)) > 0 }, nil
	case l.word("IS"):
		switch {
		case l.word("NULL"):
			return sel, is(func(v any) bool { return v == nil }), nil
		case l.word("TRUE"):
			return sel, is(func(v any) bool { return v == true }), nil
		case l.word("FALSE"):
			return sel, is(func(v any) bool { return v == false }), nil
		}
		return sel, nil, fmt.Errorf("NULL, TRUE or FALSE is missing after IS")
	}
	c, err := l.comparison()
	if err != nil {
		return sel, nil, err
	}
	if c.op == "=" && c.text == "*" && c.re == nil {
		return sel, is(func(any) bool { return true }), nil
	}
	return sel, is(func(v any) bool {
		switch v.(type) {
		case map[string]any, []any, nil:
			return false // only what is a value is compared
		}
		return c.holds(render(v))
	}), nil
}

// selector reads $.a.b[0] and the like.
func (l *lexer) selector() (selector, error) {
	l.space()
	whole := l.rest
	if !strings.HasPrefix(l.rest, "$") {
		return selector{}, fmt.Errorf("a selector ($.name) is missing before %q", l.rest)
	}
	l.rest = l.rest[1:]
	var s selector
	for {
		switch {
		case strings.HasPrefix(l.rest, ".["), strings.HasPrefix(l.rest, "["):
			inner, rest, closed := strings.Cut(strings.TrimPrefix(l.rest, ".")[1:], "]")
			index, err := strconv.Atoi(inner)
			switch n := len(inner); {
			case !closed:
				return s, fmt.Errorf("a bracket is not closed: %s", whole)
			case inner == "*":
				s.steps = append(s.steps, step{kind: '*'})
			case n > 2 && (inner[0] == '\'' || inner[0] == '"') && inner[n-1] == inner[0]:
				s.steps = append(s.steps, step{kind: '.', member: inner[1 : n-1]})
			case err == nil && index >= 0:
				s.steps = append(s.steps, step{kind: '[', index: index})
			default:
				return s, fmt.Errorf("[%s] is no index", inner)
			}
			l.rest = rest
		case strings.HasPrefix(l.rest, "."):
			l.rest = l.rest[1:]
			name := l.until(func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`.[]=!<>&|(){}",`, r) })
			if name == "" {
				return s, fmt.Errorf("a selector ends in a dot: %s", whole)
			}
			s.steps = append(s.steps, step{kind: '.', member: name})
		default:
			if s.text = whole[:len(whole)-len(l.rest)]; len(s.steps) == 0 {
				return s, fmt.Errorf("the selector $ names nothing")
			}
			return s, nil
		}
	}
}

// find is every value that the selector names; a null is one.
func (s *selector) find(v any) []any {
	found := []any{v}
	for _, st := range s.steps {
		var next []any
		for _, v := range found {
			switch t := v.(type) {
			case map[string]any:
				if m, ok := t[st.member]; ok && st.kind == '.' {
					next = append(next, m)
				}
			case []any:
				switch {
				case st.kind == '*':
					next = append(next, t...)
				case st.kind == '[' && st.index < len(t):
					next = append(next, t[st.index])
				}
			}
		}
		found = next
	}
	return found
}

// render is a value as text.
func render(v any) string {
	switch t := v.(type) {
	case string:
		return t
	case json.Number:
		return t.String()
	case bool:
		return strconv.FormatBool(t)
	case nil:
		return "null"
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // it came from JSON
	return strings.TrimSuffix(b.String(), "\n")
}
