package pattern

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// field is one of a space-delimited pattern.
type field struct {
	name  string
	holds func(string) bool // nil: whatever is there
}

// compileFields reads [ip, user, ..., status = 4* || status = 5*, bytes > 1000].
func compileFields(s string) (*Pattern, error) {
	l := &lexer{rest: s[1:]}
	var fields []field
	rest := -1 // where the ellipsis is
	for {
		if l.take("...") {
			if rest >= 0 {
				return nil, fmt.Errorf("there is more than one ellipsis")
			}
			rest = len(fields)
		} else {
			f, err := l.field()
			if err != nil {
				return nil, err
			}
			fields = append(fields, f)
		}
		if l.take("]") {
			break
		}
		if !l.take(",") {
			return nil, fmt.Errorf("a comma or ] is missing before %q", l.rest)
		}
	}
	if l.space(); l.rest != "" {
		return nil, fmt.Errorf("nothing can follow ]: %q", l.rest)
	}
	// at gives each token its field; -1 is one of the ellipsis.
	at := func(i, tokens int) int {
		switch {
		case rest < 0 || i < rest:
			return i
		case i < tokens-(len(fields)-rest):
			return -1
		}
		return i - tokens + len(fields)
	}
	fits := func(n int) bool { return n == len(fields) || rest >= 0 && n > len(fields) }
	return &Pattern{
		match: func(m string) bool {
			tokens := split(m)
			if !fits(len(tokens)) {
				return false
			}
			for i, t := range tokens {
				if f := at(i, len(tokens)); f >= 0 && fields[f].holds != nil && !fields[f].holds(t) {
					return false
				}
			}
			return true
		},
		extract: func(m string) map[string]string {
			values := map[string]string{}
			tokens := split(m)
			for i, t := range tokens {
				name := strconv.Itoa(i + 1)
				if f := at(i, len(tokens)); fits(len(tokens)) && f >= 0 && fields[f].name != "" {
					name = fields[f].name
				}
				values["$"+name] = t
			}
			return values
		},
	}, nil
}

// field reads a name, or conditions that all name the same.
func (l *lexer) field() (field, error) {
	l.space()
	var f field
	if l.rest == "" {
		return f, fmt.Errorf("the pattern does not end in ]")
	}
	if strings.IndexByte(",]", l.rest[0]) >= 0 {
		return f, nil // any value, without a name
	}
	bare := *l
	if f.name = bare.name(); f.name != "" {
		if bare.space(); bare.rest == "" || strings.IndexByte(",]", bare.rest[0]) >= 0 {
			*l = bare
			return f, nil
		}
	}
	f.name = ""
	var err error
	f.holds, err = disjunction(l, 0, func(l *lexer) (func(string) bool, error) {
		l.space()
		name := l.name()
		switch {
		case name == "":
			return nil, fmt.Errorf("the name of a field is missing before %q", l.rest)
		case f.name != "" && name != f.name:
			return nil, fmt.Errorf("the conditions of one field name both %s and %s", f.name, name)
		}
		f.name = name
		c, err := l.comparison()
		if err != nil {
			return nil, err
		}
		return c.holds, nil
	})
	return f, err
}

func (l *lexer) name() string {
	return l.until(func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != '-' })
}

// split takes a message apart at its spaces; what stands in "quotation marks" or [brackets] is one token, without them.
func split(m string) (tokens []string) {
	for {
		if m = strings.TrimLeftFunc(m, unicode.IsSpace); m == "" {
			return tokens
		}
		end := byte(0)
		switch m[0] {
		case '"':
			end = '"'
		case '[':
			end = ']'
		}
		if i := strings.IndexByte(m[1:], end); end != 0 && i >= 0 {
			tokens, m = append(tokens, m[1:i+1]), m[i+2:]
			continue
		}
		i := strings.IndexFunc(m, unicode.IsSpace)
		if i < 0 {
			i = len(m)
		}
		tokens, m = append(tokens, m[:i]), m[i:]
	}
}
