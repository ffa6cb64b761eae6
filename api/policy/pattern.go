package policy

import (
	"strings"
	"unicode/utf8"
)

// pattern is a text with wildcards and policy variables, compiled. Within text, star stands for any run of characters and
// one for a single one; documents with these characters in them are refused, so that what a variable stands for is always
// taken literally.
type pattern struct {
	text  string
	kind  patternKind
	parts []part // with variables: text is unused
}

type patternKind uint8

const (
	exact   patternKind = iota // no wildcard
	all                        // "*"
	prefix                     // one wildcard, at the end; text is without it
	general                    // anything else
)

// part is a piece of a pattern's text, or a variable.
type part struct {
	text       string
	variable   string // its key, in lower case; "" for a text
	fallback   string
	hasDefault bool
}

const (
	star = '\x00'
	one  = '\x01'
)

// hasMarks says whether s has characters that patterns keep for themselves.
func hasMarks(s string) bool { return strings.ContainsAny(s, "\x00\x01") }

// compile makes a pattern of s. Variables are known in documents of version 2012-10-17 only. ok is false when a variable is
// not closed or has no name.
func compile(s string, wildcards, variables bool) (p pattern, ok bool) {
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			p.parts = append(p.parts, part{text: text.String()})
			text.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '$' && variables && strings.HasPrefix(s[i:], "${"):
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				return p, false
			}
			v, good := compileVariable(s[i+2 : i+end])
			if !good {
				return p, false
			}
			i += end
			if v.variable == "" {
				text.WriteString(v.text)
				continue
			}
			flush()
			p.parts = append(p.parts, v)
		case c == '*' && wildcards:
			text.WriteByte(star)
		case c == '?' && wildcards:
			text.WriteByte(one)
		default:
			text.WriteByte(c)
		}
	}
	flush()
	switch {
	case len(p.parts) == 0:
		p.parts = nil
	case len(p.parts) == 1 && p.parts[0].variable == "":
		p.text, p.parts = p.parts[0].text, nil
		switch first := strings.IndexAny(p.text, "\x00\x01"); {
		case first < 0:
		case strings.Trim(p.text, "\x00") == "":
			p.kind = all
		case first == len(p.text)-1 && p.text[first] == star:
			p.kind, p.text = prefix, p.text[:first]
		default:
			p.kind = general
		}
	default:
		p.kind = general
	}
	return p, true
}

// compileVariable reads what stands in ${…}: a special character, a key, or a key with a default: ${aws:PrincipalTag/team, 'none'}.
func compileVariable(s string) (part, bool) {
	if s == "*" || s == "?" || s == "$" {
		return part{text: s}, true
	}
	name, fallback, has := strings.Cut(s, ",")
	v := part{variable: strings.ToLower(strings.TrimSpace(name)), hasDefault: has}
	if has {
		f := strings.TrimSpace(fallback)
		if len(f) < 2 || f[0] != '\'' || f[len(f)-1] != '\'' {
			return part{}, false
		}
		v.fallback = f[1 : len(f)-1]
	}
	return v, v.variable != ""
}

// expand is the pattern's text for r. ok is false when a variable has no value: then nothing matches.
func (p *pattern) expand(r *Request) (text string, ok bool) {
	if p.parts == nil {
		return p.text, true
	}
	var b strings.Builder
	for _, part := range p.parts {
		if part.variable == "" {
			b.WriteString(part.text)
			continue
		}
		values, found := r.key(part.variable)
		switch {
		case found && len(values) == 1 && !hasMarks(values[0]):
			b.WriteString(values[0])
		case !found && part.hasDefault:
			b.WriteString(part.fallback)
		default:
			return "", false
		}
	}
	return b.String(), true
}

// match compares s with the pattern.
func (p *pattern) match(s string, r *Request) bool {
	switch p.kind {
	case all:
		return true
	case exact:
		return s == p.text
	case prefix:
		return strings.HasPrefix(s, p.text)
	}
	text, ok := p.expand(r)
	return ok && glob(text, s)
}

// glob compares s with a text that has the marks of wildcards in it, in time of at most len(text)*len(s).
func glob(text, s string) bool {
	p, i := 0, 0
	back, tried := -1, 0 // where the last star stands, and from where in s it was tried
	for i < len(s) {
		if p < len(text) && text[p] == star {
			back, tried = p, i
			p++
			continue
		}
		c, n := utf8.DecodeRuneInString(s[i:])
		if p < len(text) {
			if text[p] == one {
				p, i = p+1, i+n
				continue
			}
			t, m := utf8.DecodeRuneInString(text[p:])
			if t == c && (c != utf8.RuneError || text[p] == s[i]) {
				p, i = p+m, i+n
				continue
			}
		}
		if back < 0 {
			return false
		}
		_, n = utf8.DecodeRuneInString(s[tried:])
		tried += n
		p, i = back+1, tried
	}
	for p < len(text) && text[p] == star {
		p++
	}
	return p == len(text)
}
