package wire

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

const (
	maxDepth  = 100  // of nested structures, lists and maps
	maxShared = 4096 // bytes of body that decoded strings may share
)

// reader walks a JSON text. Its methods leave i behind what they read.
type reader struct {
	s     string
	i     int
	depth int
	share bool // strings may be parts of s
	alloc allocator
}

// newReader refuses text that is not UTF-8: the decoders need not look at it again.
func newReader(body []byte) (*reader, error) {
	if !utf8.Valid(body) {
		return nil, serialization("The request body is not valid UTF-8")
	}
	return &reader{s: string(body), share: len(body) <= maxShared}, nil
}

// unexpected words a value of the wrong kind as AWS does: "NUMBER_VALUE can not be converted to a String", but "Expected list or null".
func unexpected(kind, want string) error {
	if strings.HasPrefix(want, "Expected ") {
		return serialization("%s", want)
	}
	return serialization("%s %s", kind, want)
}

func serialization(format string, args ...any) *awserr.Error {
	return awserr.WithStatus(400, "SerializationException", format, args...)
}

func (r *reader) syntax() error {
	if r.i >= len(r.s) {
		return serialization("Unexpected end of the request body")
	}
	c, _ := utf8.DecodeRuneInString(r.s[r.i:])
	return serialization("Unexpected character %s at position %d of the request body", strconv.QuoteRune(c), r.i)
}

// next is the first byte of the next token, 0 at the end.
func (r *reader) next() byte {
	for r.i < len(r.s) {
		switch c := r.s[r.i]; c {
		case ' ', '\t', '\n', '\r':
			r.i++
		default:
			return c
		}
	}
	return 0
}

// end refuses anything but white space up to the end.
func (r *reader) end() error {
	if r.next(); r.i < len(r.s) {
		return r.syntax()
	}
	return nil
}

func (r *reader) word(w string) bool {
	if strings.HasPrefix(r.s[r.i:], w) {
		r.i += len(w)
		return true
	}
	return false
}

// null reads a null if there is one.
func (r *reader) null() bool { return r.next() == 'n' && r.word("null") }

func (r *reader) enter() error {
	if r.depth++; r.depth > maxDepth {
		return serialization("The request body is nested more than %d levels deep", maxDepth)
	}
	r.i++
	return nil
}

// more says whether another element follows in the object or list that close ends; first is its own to keep.
func (r *reader) more(close byte, first *bool) (bool, error) {
	c := r.next()
	if c == close {
		r.i++
		r.depth--
		return false, nil
	}
	if *first {
		*first = false
		return true, nil
	}
	if c != ',' {
		return false, r.syntax()
	}
	r.i++
	if r.next() == close {
		return false, r.syntax()
	}
	return true, nil
}

// key reads an object's key and its colon. The key is part of s.
func (r *reader) key() (string, error) {
	if r.next() != '"' {
		return "", r.syntax()
	}
	k, err := r.quoted()
	if err != nil {
		return "", err
	}
	if r.next() != ':' {
		return "", r.syntax()
	}
	r.i++
	return k, nil
}

// string reads a string that is to be kept.
func (r *reader) string() (string, error) {
	s, err := r.quoted()
	if err == nil && !r.share {
		s = strings.Clone(s)
	}
	return s, err
}

// quoted reads a string; r is at its opening quote.
func (r *reader) quoted() (string, error) {
	start := r.i + 1
	for j := start; j < len(r.s); j++ {
		switch c := r.s[j]; {
		case c == '"':
			r.i = j + 1
			return r.s[start:j], nil
		case c == '\\':
			return r.escaped(start, j)
		case c < ' ':
			r.i = j
			return "", r.syntax()
		}
	}
	r.i = len(r.s)
	return "", r.syntax()
}

var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escaped reads on from the first backslash, at j.
func (r *reader) escaped(start, j int) (string, error) {
	b := append(make([]byte, 0, j-start+32), r.s[start:j]...)
	for j < len(r.s) {
		c := r.s[j]
		switch {
		case c == '"':
			r.i = j + 1
			return string(b), nil
		case c < ' ':
			r.i = j
			return "", r.syntax()
		case c != '\\':
			b = append(b, c)
			j++
		case j+1 < len(r.s) && r.s[j+1] == 'u':
			u, ok := r.hex4(j + 2)
			if !ok {
				r.i = j
				return "", r.syntax()
			}
			j += 6
			if low, ok := r.lowSurrogate(u, j); ok {
				u = (u-0xd800)<<10 | (low - 0xdc00) + 0x10000
				j += 6
			}
			b = utf8.AppendRune(b, u) // a lone surrogate becomes U+FFFD
		default:
			if j+1 >= len(r.s) || escapes[r.s[j+1]] == 0 {
				r.i = j
				return "", r.syntax()
			}
			b = append(b, escapes[r.s[j+1]])
			j += 2
		}
	}
	r.i = len(r.s)
	return "", r.syntax()
}

// lowSurrogate reads the second half of a pair whose first is high, from an escape at j.
func (r *reader) lowSurrogate(high rune, j int) (rune, bool) {
	if high < 0xd800 || high > 0xdbff || !strings.HasPrefix(r.s[min(j, len(r.s)):], `\u`) {
		return 0, false
	}
	low, ok := r.hex4(j + 2)
	return low, ok && low >= 0xdc00 && low <= 0xdfff
}

func (r *reader) hex4(i int) (rune, bool) {
	if i+4 > len(r.s) {
		return 0, false
	}
	var v rune
	for _, c := range []byte(r.s[i : i+4]) {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			v = v<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return v, true
}

// number reads a number as JSON spells it.
func (r *reader) number() (string, error) {
	start := r.i
	if r.peek() == '-' {
		r.i++
	}
	if r.peek() == '0' {
		r.i++
	} else if !r.digits() {
		return "", r.syntax()
	}
	if r.peek() == '.' {
		r.i++
		if !r.digits() {
			return "", r.syntax()
		}
	}
	if c := r.peek(); c == 'e' || c == 'E' {
		r.i++
		if c := r.peek(); c == '+' || c == '-' {
			r.i++
		}
		if !r.digits() {
			return "", r.syntax()
		}
	}
	return r.s[start:r.i], nil
}

func (r *reader) peek() byte {
	if r.i < len(r.s) {
		return r.s[r.i]
	}
	return 0
}

func (r *reader) digits() bool {
	start := r.i
	for c := r.peek(); c >= '0' && c <= '9'; c = r.peek() {
		r.i++
	}
	return r.i > start
}

// skip reads over any value.
func (r *reader) skip() error {
	switch c := r.next(); {
	case c == '"':
		_, err := r.quoted()
		return err
	case c == '{' || c == '[':
		if err := r.enter(); err != nil {
			return err
		}
		for first := true; ; {
			ok, err := r.more(c+2, &first) // '{'+2 == '}', '['+2 == ']'
			if err != nil || !ok {
				return err
			}
			if c == '{' {
				if _, err := r.key(); err != nil {
					return err
				}
			}
			if err := r.skip(); err != nil {
				return err
			}
		}
	case c == 't' && r.word("true"), c == 'f' && r.word("false"), c == 'n' && r.word("null"):
		return nil
	case c == '-' || c >= '0' && c <= '9':
		_, err := r.number()
		return err
	}
	return r.syntax()
}

// mismatch is the refusal of a value of the wrong JSON type, in the words AWS's JSON services use.
func (r *reader) mismatch(want string) error {
	switch c := r.next(); {
	case c == '"':
		return unexpected("STRING_VALUE", want)
	case c == '{':
		return serialization("Start of structure or map found where not expected.")
	case c == '[':
		return serialization("Start of list found where not expected")
	case c == 't' && r.word("true"):
		return unexpected("TRUE_VALUE", want)
	case c == 'f' && r.word("false"):
		return unexpected("FALSE_VALUE", want)
	case c == '-' || c >= '0' && c <= '9':
		n, err := r.number()
		if err != nil {
			return err
		}
		if strings.ContainsAny(n, ".eE") {
			return unexpected("DECIMAL_VALUE", want)
		}
		return unexpected("NUMBER_VALUE", want)
	}
	return r.syntax()
}

// quote shortens what a message repeats of a request.
func quote(s string) string {
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}
