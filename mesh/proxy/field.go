package proxy

import (
	"fmt"
	"strings"
)

// field is one line of a header, as it was sent.
type field struct {
	name, value string
	kind        fieldKind // of name; what the proxy has to know is looked up once
}

// header is the fields of a message in the order they came.
type header []field

// fieldKind tells the fields that mean something to a proxy.
type fieldKind uint8

const (
	fieldOther fieldKind = iota
	fieldHost
	fieldContentLength
	fieldTransferEncoding
	fieldConnection
	fieldKeepAlive
	fieldProxyConnection
	fieldTE
	fieldTrailer
	fieldUpgrade
	fieldExpect
	fieldHTTP2Settings
	fieldForwardedFor
	fieldForwardedProto
	fieldForwardedPort
	fieldTraceID
	fieldCookie
	fieldDate
	fieldContentType
)

// kindOf compares name with those of its length only.
func kindOf(name string) fieldKind {
	is := func(s string, k fieldKind) fieldKind {
		if strings.EqualFold(name, s) {
			return k
		}
		return fieldOther
	}
	switch len(name) {
	case 2:
		return is("TE", fieldTE)
	case 4:
		return max(is("Host", fieldHost), is("Date", fieldDate))
	case 6:
		return max(is("Cookie", fieldCookie), is("Expect", fieldExpect))
	case 7:
		return max(is("Upgrade", fieldUpgrade), is("Trailer", fieldTrailer))
	case 10:
		return max(is("Connection", fieldConnection), is("Keep-Alive", fieldKeepAlive))
	case 12:
		return is("Content-Type", fieldContentType)
	case 14:
		return max(is("Content-Length", fieldContentLength), is("HTTP2-Settings", fieldHTTP2Settings))
	case 15:
		return max(is("X-Forwarded-For", fieldForwardedFor), is("X-Amzn-Trace-Id", fieldTraceID))
	case 16:
		return max(is("X-Forwarded-Port", fieldForwardedPort), is("Proxy-Connection", fieldProxyConnection))
	case 17:
		return max(is("X-Forwarded-Proto", fieldForwardedProto), is("Transfer-Encoding", fieldTransferEncoding))
	}
	return fieldOther
}

// ofRequest says whether the request half writes the field itself or it belongs to one connection, so that what the client
// sent is not passed on.
func (k fieldKind) ofRequest() bool { return k != fieldOther && k < fieldCookie }

// first is the value of the first field of a kind.
func (h header) first(k fieldKind) string {
	for i := range h {
		if h[i].kind == k {
			return h[i].value
		}
	}
	return ""
}

// has says whether a list-valued field of a kind names what, compared without case.
func (h header) has(k fieldKind, what string) bool {
	for i := range h {
		if h[i].kind == k && listHas(h[i].value, what) {
			return true
		}
	}
	return false
}

func listHas(list, what string) bool {
	if len(list) == len(what) { // mostly the only one
		return strings.EqualFold(list, what)
	}
	for v := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.Trim(v, " \t"), what) {
			return true
		}
	}
	return false
}

// cookie is the value of the first cookie of a name, without quotes.
func (h header) cookie(name string) string {
	for i := range h {
		if h[i].kind != fieldCookie {
			continue
		}
		for part := range strings.SplitSeq(h[i].value, ";") {
			if k, v, ok := strings.Cut(strings.Trim(part, " \t"), "="); ok && k == name {
				return strings.Trim(v, `"`)
			}
		}
	}
	return ""
}

// without keeps the fields for which drop is false, in place.
func (h header) without(drop func(*field) bool) header {
	kept := h[:0]
	for i := range h {
		if !drop(&h[i]) {
			kept = append(kept, h[i])
		}
	}
	return kept
}

// withoutNominated removes the fields that a Connection field's value names as the connection's own (RFC 9110 §7.6.1). The
// framing cannot be nominated away.
func (h header) withoutNominated(connection string) header {
	nominates := false
	for v := range strings.SplitSeq(connection, ",") {
		switch v = strings.Trim(v, " \t"); {
		case v == "", strings.EqualFold(v, "keep-alive"), strings.EqualFold(v, "close"), strings.EqualFold(v, "upgrade"):
		default:
			nominates = true
		}
	}
	if !nominates {
		return h
	}
	return h.without(func(f *field) bool {
		return f.kind != fieldConnection && f.kind != fieldContentLength && f.kind != fieldTransferEncoding && listHas(connection, f.name)
	})
}

// forget empties h, so that it holds no message's text, for another message to fill it.
func (h header) forget() header {
	if cap(h) > 64 {
		return nil
	}
	clear(h[:cap(h)])
	return h[:0]
}

// appendField writes one line.
func appendField(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, value...), "\r\n"...)
}

// cutField takes the first line off rest, which ends with the empty line of its head, strictly: what two parsers could
// read differently is refused. ok is false at the empty line.
func cutField(rest string) (f field, tail string, ok bool, err error) {
	i := strings.IndexByte(rest, '\n')
	if i < 1 || rest[i-1] != '\r' {
		return f, "", false, fmt.Errorf("a line of the header ends without CR LF")
	}
	line, tail := rest[:i-1], rest[i+1:]
	if line == "" {
		return f, tail, false, nil
	}
	colon := strings.IndexByte(line, ':')
	// A folded line begins with white space, and white space before the colon is no token either.
	if colon < 0 || !isToken(line[:colon]) {
		return f, "", false, fmt.Errorf("header line %.40q", line)
	}
	f.name, f.value = line[:colon], strings.Trim(line[colon+1:], " \t")
	if !isFieldValue(f.value) {
		return f, "", false, fmt.Errorf("value of %.40s", f.name)
	}
	f.kind = kindOf(f.name)
	return f, tail, true, nil
}

func isToken(s string) bool {
	for i := range len(s) {
		if !tokenByte[s[i]] {
			return false
		}
	}
	return s != ""
}

func isFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < ' ' && c != '\t') || c == 0x7f {
			return false
		}
	}
	return true
}

// tokenByte has the characters of an RFC 9110 token.
var tokenByte = byteSet("!#$%&'*+-.^_`|~")

// byteSet holds letters, digits and the bytes of more.
func byteSet(more string) (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	for i := range len(more) {
		t[more[i]] = true
	}
	return t
}
