// Package pattern is the filter patterns of CloudWatch Logs: terms, JSON selectors and space-delimited fields. A pattern is compiled
// once and matched from any goroutine. See "Filter pattern syntax" in the service's guide; where the guide leaves room:
//
//   - A term matches anywhere in a message, also within a word, as regular expressions do.
//   - Optional terms (?a) count only among themselves: beside other terms they are ignored.
//   - A comparison with a selector that finds nothing is false, != included.
package pattern

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// MaxLength is how long a pattern may be, in characters; the model says so too.
const MaxLength = 1024

// Pattern is a compiled filter pattern. The zero value matches everything.
type Pattern struct {
	match   func(message string) bool
	extract func(message string) map[string]string
}

// Match says whether the message matches.
func (p *Pattern) Match(message string) bool { return p.match == nil || p.match(message) }

// Extract is what the pattern's selectors ("$.a", "$name") find in a message that matches.
func (p *Pattern) Extract(message string) map[string]string {
	if p.extract == nil {
		return map[string]string{}
	}
	return p.extract(message)
}

// Compile reads a pattern. Its errors are for who wrote it.
func Compile(text string) (*Pattern, error) {
	s := strings.TrimSpace(text)
	if len(s) > 4*MaxLength {
		return nil, fmt.Errorf("the pattern is longer than %d characters", MaxLength)
	}
	switch {
	case s == "":
		return &Pattern{}, nil
	case s[0] == '{':
		return compileJSON(s)
	case s[0] == '[':
		return compileFields(s)
	}
	return compileTerms(s)
}

// compileTerms reads words, "phrases" and %regular expressions%, each alone, optional (?) or excluded (-).
func compileTerms(s string) (*Pattern, error) {
	var all, any, none []func(string) bool
	for l := (lexer{rest: s}); ; {
		l.space()
		if l.rest == "" {
			break
		}
		list := &all
		switch l.rest[0] {
		case '?':
			list, l.rest = &any, l.rest[1:]
		case '-':
			list, l.rest = &none, l.rest[1:]
		}
		term, err := l.term()
		if err != nil {
			return nil, err
		}
		*list = append(*list, term)
	}
	if len(all)+len(none) > 0 {
		any = nil
	}
	return &Pattern{match: func(m string) bool {
		for _, t := range all {
			if !t(m) {
				return false
			}
		}
		for _, t := range none {
			if t(m) {
				return false
			}
		}
		for _, t := range any {
			if t(m) {
				return true
			}
		}
		return len(any) == 0
	}}, nil
}

// lexer takes a pattern apart.
type lexer struct {
	rest    string
	regexps int
}

func (l *lexer) space() { l.rest = strings.TrimLeftFunc(l.rest, unicode.IsSpace) }

func (l *lexer) term() (func(string) bool, error) {
	switch {
	case l.rest == "" || unicode.IsSpace(rune(l.rest[0])):
		return nil, fmt.Errorf("a term is missing after ? or -")
	case l.rest[0] == '"':
		phrase, err := l.quoted()
		return func(m string) bool { return strings.Contains(m, phrase) }, err
	case l.rest[0] == '%':
		re, err := l.regexp()
		if err != nil {
			return nil, err
		}
		return re.MatchString, nil
	}
	word := l.until(func(r rune) bool { return unicode.IsSpace(r) })
	if i := strings.IndexByte(word, '"'); i >= 0 {
		return nil, fmt.Errorf("the quotation mark within %s: enclose the whole term in quotation marks", word)
	}
	return func(m string) bool { return strings.Contains(m, word) }, nil
}

// quoted takes a "string" in which \ escapes the next character.
func (l *lexer) quoted() (string, error) {
	var b strings.Builder
	for i := 1; i < len(l.rest); i++ {
		switch c := l.rest[i]; {
		case c == '\\' && i+1 < len(l.rest) && strings.IndexByte(`"\`, l.rest[i+1]) >= 0:
			i++
			b.WriteByte(l.rest[i])
		case c == '"':
			l.rest = l.rest[i+1:]
			return b.String(), nil
		default:
			b.WriteByte(c)
		}
	}
	return "", fmt.Errorf("a quotation mark is not closed: %s", l.rest)
}

// inRegexp are the symbols and operators that the service allows besides letters and digits.
const inRegexp = `:_#=@/;,-^$?[]{}|\*+.` + "~ "

// regexp takes %one%. The guide's rules keep out what RE2 would understand otherwise.
func (l *lexer) regexp() (*regexp.Regexp, error) {
	text, rest, closed := strings.Cut(l.rest[1:], "%")
	if !closed || text == "" {
		return nil, fmt.Errorf("a regular expression is not closed by %%: %s", l.rest)
	}
	if l.regexps++; l.regexps > 2 {
		return nil, fmt.Errorf("there are more than two regular expressions")
	}
	for _, r := range text {
		if r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(inRegexp, r) {
			return nil, fmt.Errorf("the regular expression %%%s%% has the character %q, which is not supported", text, r)
		}
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, fmt.Errorf("the regular expression %%%s%%: %w", text, err)
	}
	l.rest = rest
	return re, nil
}

// until takes what comes before the first rune that ends it.
func (l *lexer) until(end func(rune) bool) string {
	i := strings.IndexFunc(l.rest, end)
	if i < 0 {
		i = len(l.rest)
	}
	word := l.rest[:i]
	l.rest = l.rest[i:]
	return word
}

// take takes the text if it is next.
func (l *lexer) take(text string) bool {
	l.space()
	rest, ok := strings.CutPrefix(l.rest, text)
	if ok {
		l.rest = rest
	}
	return ok
}

// word takes a keyword, in any case, if it is next and ends there.
func (l *lexer) word(keyword string) bool {
	l.space()
	n := len(keyword)
	if len(l.rest) < n || !strings.EqualFold(l.rest[:n], keyword) {
		return false
	}
	if len(l.rest) > n && strings.IndexByte(" \t)}&|", l.rest[n]) < 0 {
		return false
	}
	l.rest = l.rest[n:]
	return true
}
