package proxy

import "strings"

// pattern is a compiled wildcard: * stands for zero or more characters, ? for exactly one.
type pattern struct {
	kind patternKind
	text string // for exact and prefix without the wildcard
	fold bool   // compare lower-cased; the value must come lower-cased
}

type patternKind uint8

const (
	patternExact  patternKind = iota
	patternPrefix             // "text*"
	patternAny                // everything else
)

func compilePattern(s string, fold bool) pattern {
	if fold {
		s = strings.ToLower(s)
	}
	switch i := strings.IndexAny(s, "*?"); {
	case i < 0:
		return pattern{patternExact, s, fold}
	case i == len(s)-1 && s[i] == '*':
		return pattern{patternPrefix, s[:i], fold}
	}
	return pattern{patternAny, s, fold}
}

func compilePatterns(values []string, fold bool) []pattern {
	out := make([]pattern, len(values))
	for i, v := range values {
		out[i] = compilePattern(v, fold)
	}
	return out
}

func (p pattern) match(s string) bool {
	switch p.kind {
	case patternExact:
		return s == p.text
	case patternPrefix:
		return strings.HasPrefix(s, p.text)
	}
	return wildcard(p.text, s)
}

func matchAny(ps []pattern, s string) bool {
	for _, p := range ps {
		if p.match(s) {
			return true
		}
	}
	return false
}

// wildcard matches in O(len(pattern)·len(s)) at worst: it goes back to the last star only.
func wildcard(p, s string) bool {
	i, j, star, mark := 0, 0, -1, 0
	for j < len(s) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == s[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
