package state

import "strings"

// Revision numbers committed transactions, from 1, without gaps. 0 is the empty store.
type Revision uint64

// Key is the ordered name of a record within its table, or an entry of an index. Made by K.
type Key string

// A part ends in 0x00; 0x00 and 0x01 within it become 0x01 0x01 and 0x01 0x02. Hence keys sort as their lists of parts do, a
// prefix of parts is a prefix of keys, and no two lists share a key.
var escape = strings.NewReplacer("\x00", "\x01\x01", "\x01", "\x01\x02")

// K joins parts into a key. K() is the prefix of every key.
func K(parts ...string) Key {
	n := len(parts)
	for _, p := range parts {
		n += len(p)
	}
	var b strings.Builder
	b.Grow(n)
	for _, p := range parts {
		b.WriteString(p)
		b.WriteByte(0)
	}
	// Nearly always there is nothing to escape, and one look at the whole finds that out sooner than one at each part.
	if k := b.String(); strings.Count(k, "\x00") == len(parts) && strings.IndexByte(k, 1) < 0 {
		return Key(k)
	}
	b.Reset()
	for _, p := range parts {
		b.WriteString(escape.Replace(p))
		b.WriteByte(0)
	}
	return Key(b.String())
}

// Parts undoes K. What follows the last complete part is returned as one more.
func (k Key) Parts() []string {
	var parts []string
	for rest := string(k); rest != ""; {
		part, after, _ := strings.Cut(rest, "\x00")
		if strings.IndexByte(part, 1) >= 0 {
			part = unescape.Replace(part)
		}
		parts, rest = append(parts, part), after
	}
	return parts
}

var unescape = strings.NewReplacer("\x01\x01", "\x00", "\x01\x02", "\x01")

// String is for people: the parts joined by slashes. Not unique; use string(k) for the key itself.
func (k Key) String() string { return strings.Join(k.Parts(), "/") }

// end is the first key after all that begin with k; empty means there is none.
func (k Key) end() Key {
	for i := len(k) - 1; i >= 0; i-- {
		if k[i] != 0xff {
			return k[:i] + Key(k[i]+1)
		}
	}
	return ""
}
