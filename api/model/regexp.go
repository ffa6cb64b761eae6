package model

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// rewritten are the patterns that RE2 does not take as AWS writes them, with what they accept spelt for RE2. Each was
// reviewed by hand; TestPatterns compiles every pattern of every table and tries these.
var rewritten = map[string]string{
	// Java's escapes, and the surrogate pairs that stand for U+10000–U+10FFFF.
	`[\u0009\u000A\u000D\u0020-\u007e]+`:                           `[\x{9}\x{A}\x{D}\x{20}-\x{7e}]+`,
	`[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*`: `[\x{20}-\x{D7FF}\x{E000}-\x{FFFD}\x{10000}-\x{10FFFF}\r\n\t]*`,
	`[\u0020-\u00FF]+`:                                `[\x{20}-\x{FF}]+`,
	`[\u0009\u000A\u000D\u0020-\u00FF]+`:              `[\x{9}\x{A}\x{D}\x{20}-\x{FF}]+`,
	`\u002F[\u0021-\u007F]*`:                          `/[\x{21}-\x{7F}]*`,
	`(\u002F)|(\u002F[\u0021-\u007E]+\u002F)`:         `(/)|(/[\x{21}-\x{7E}]+/)`,
	`[\u0009\u000A\u000D\u0020-\u007E\u00A1-\u00FF]*`: `[\x{9}\x{A}\x{D}\x{20}-\x{7E}\x{A1}-\x{FF}]*`,
	`[\u0009\u000A\u000D\u0020-\u007E\u0085\u00A0-\uD7FF\uE000-\uFFFD\u10000-\u10FFFF]+`: `[\x{9}\x{A}\x{D}\x{20}-\x{7E}\x{85}\x{A0}-\x{D7FF}\x{E000}-\x{FFFD}\x{10000}-\x{10FFFF}]+`,
	// Java's class of printable ASCII.
	`\p{Print}+`: `[ -~]+`,
	// A bound above RE2's 1000; the shape's max says it again.
	`^[!-~]{1,1024}$`: `^[!-~]+$`,
	`^.{1,100000}$`:   `.+`,
	// Look-aheads.
	// Not only white space.
	`^(?!\s*$).+`: `.*\S.*`,
	// ISO 8601: separators between date, or time, are all there or none is; a year and a month without one are no date.
	`^([\-]?\d{4}(?!\d{2}\b))((-?)((0[1-9]|1[0-2])(\3([12]\d|0[1-9]|3[01]))?|W([0-4]\d|5[0-2])(-?[1-7])?|(00[1-9]|0[1-9]\d|[12]\d{2}|3([0-5]\d|6[1-6])))([T\s]((([01]\d|2[0-3])((:?)[0-5]\d)?|24\:?00)([\.,]\d(?!:))?)?(\17[0-5]\d([\.,]\d)?)?([zZ]|([\-])([01]\d|2[0-3]):?([0-5]\d)?)?)?)?$`: `-?\d{4}(?:(?:-(?:(?:0[1-9]|1[0-2])(?:-(?:[12]\d|0[1-9]|3[01]))?|W(?:[0-4]\d|5[0-2])(?:-?[1-7])?|(?:00[1-9]|0[1-9]\d|[12]\d{2}|3(?:[0-5]\d|6[1-6])))|(?:0[1-9]|1[0-2])(?:[12]\d|0[1-9]|3[01])|W(?:[0-4]\d|5[0-2])(?:-?[1-7])?|(?:00[1-9]|0[1-9]\d|[12]\d{2}|3(?:[0-5]\d|6[1-6])))(?:[T\s](?:(?:[01]\d|2[0-3]):[0-5]\d(?:[.,]\d|:[0-5]\d(?:[.,]\d)?)?|(?:[01]\d|2[0-3])[0-5]\d(?:[.,]\d)?(?:[0-5]\d(?:[.,]\d)?)?|(?:[01]\d|2[0-3])(?:[.,]\d)?|24:?00(?:[.,]\d)?)?(?:[zZ]|-(?:[01]\d|2[0-3]):?(?:[0-5]\d)?)?)?|(?:0[1-9]|1[0-2])T(?:(?:[01]\d|2[0-3]):[0-5]\d(?:[.,]\d|:[0-5]\d(?:[.,]\d)?)?|(?:[01]\d|2[0-3])[0-5]\d(?:[.,]\d)?(?:[0-5]\d(?:[.,]\d)?)?|(?:[01]\d|2[0-3])(?:[.,]\d)?|24:?00(?:[.,]\d)?)?(?:[zZ]|-(?:[01]\d|2[0-3]):?(?:[0-5]\d)?)?)?`,
	// No hyphen after a hyphen (the last character is none anyway): hyphens stand alone between letters.
	`^[a-z0-9]([a-z0-9]|-(?!-)){1,61}[a-z0-9]$`: `^[a-z0-9](?:[a-z0-9]|-[a-z0-9])+$`,
	// At most 127 characters in all; maxRunes says it again.
	`((?=^.{1,127}$)^([a-zA-Z0-9_][a-zA-Z0-9-_]{0,61}[a-zA-Z0-9_]|[a-zA-Z0-9])(\.([a-zA-Z0-9_][a-zA-Z0-9-_]{0,61}[a-zA-Z0-9_]|[a-zA-Z0-9]))*$)|(^\.$)`: `(^([a-zA-Z0-9_][a-zA-Z0-9-_]{0,61}[a-zA-Z0-9_]|[a-zA-Z0-9])(\.([a-zA-Z0-9_][a-zA-Z0-9-_]{0,61}[a-zA-Z0-9_]|[a-zA-Z0-9]))*$)|(^\.$)`,
	// Neither spaces at the ends, nor control characters, ":", "/" or "|" anywhere.
	`(?!((^[ ]+.*)|(.*([\u0000-\u001f]|[\u007f-\u009f]|[:/|])+.*)|(.*[ ]+$))).+`: `[^ \x{0}-\x{1f}\x{7f}-\x{9f}:/|](?:[^\x{0}-\x{1f}\x{7f}-\x{9f}:/|]*[^ \x{0}-\x{1f}\x{7f}-\x{9f}:/|])?`,
}

// Pattern is a compiled pattern of a model.
type Pattern struct {
	re       *regexp.Regexp
	maxRunes int // 0: any number; for what RE2 cannot say
}

// MatchString says whether the whole of s is what the pattern describes.
func (p *Pattern) MatchString(s string) bool {
	if p.maxRunes > 0 && strings.Count(s, "")-1 > p.maxRunes {
		return false
	}
	return p.re.MatchString(s)
}

// maxRunes are the lengths that a rewritten pattern no longer says.
var maxRunes = map[string]int{
	`((?=^.{1,127}$)^([a-zA-Z0-9_][a-zA-Z0-9-_]{0,61}[a-zA-Z0-9_]|[a-zA-Z0-9])(\.([a-zA-Z0-9_][a-zA-Z0-9-_]{0,61}[a-zA-Z0-9_]|[a-zA-Z0-9]))*$)|(^\.$)`: 127,
	`^[!-~]{1,1024}$`: 1024,
	`^.{1,100000}$`:   100000,
	`^[a-z0-9]([a-z0-9]|-(?!-)){1,61}[a-z0-9]$`: 63,
}

var patterns sync.Map // pattern -> *Pattern

// Regexp compiles a model's pattern. AWS matches the whole value, whether the pattern says so or not.
func Regexp(pattern string) (*Pattern, error) {
	if p, ok := patterns.Load(pattern); ok {
		return p.(*Pattern), nil
	}
	text, ok := rewritten[pattern]
	if !ok {
		text = pattern
	}
	re, err := regexp.Compile(`\A(?:` + text + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	p := &Pattern{re: re, maxRunes: maxRunes[pattern]}
	patterns.Store(pattern, p)
	return p, nil
}

// PortablePattern is a pattern, anchored, in the dialect of ECMA-262, which JSON Schema uses. Those that only Java or only
// RE2 spells so have none.
func PortablePattern(pattern string) (string, bool) {
	if _, special := rewritten[pattern]; pattern == "" || special {
		return "", false
	}
	return "^(?:" + pattern + ")$", true
}
