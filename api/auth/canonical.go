package auth

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// appendCanonicalRequest appends the text that client and server must agree on, as "Create a signed AWS API request" of the IAM
// User Guide describes it, for every service but S3 (which neither normalises paths nor encodes them twice).
func appendCanonicalRequest(b []byte, r *http.Request, s *Signature, body []byte) ([]byte, error) {
	query, err := canonicalQuery(r.URL.RawQuery, s.Presigned)
	if err != nil {
		return nil, err
	}
	b = append(append(b, r.Method...), '\n')
	b = append(append(b, canonicalPath(r.URL.EscapedPath())...), '\n')
	b = append(append(b, query...), '\n')
	for _, h := range s.headers {
		b = append(append(b, h...), ':')
		b = append(appendHeader(b, r, h), '\n')
	}
	b = append(b, '\n')
	for i, h := range s.headers {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, h...)
	}
	return appendPayloadHash(append(b, '\n'), r, body)
}

func appendStringToSign(b []byte, s *Signature, canonical [sha256.Size]byte) []byte {
	b = append(append(b, algorithm...), '\n')
	b = append(s.Time.AppendFormat(b, timeFormat), '\n')
	for _, part := range [...]string{s.day, s.Region, s.Service} {
		b = append(append(b, part...), '/')
	}
	b = append(append(b, terminator...), '\n')
	return hex.AppendEncode(b, canonical[:])
}

// canonicalPath normalises the path as it stands in the request line and encodes it once more.
func canonicalPath(escaped string) string {
	if escaped == "/" {
		return escaped
	}
	var kept []string
	for seg := range strings.SplitSeq(escaped, "/") {
		switch seg {
		case "", ".":
		case "..":
			if len(kept) > 0 {
				kept = kept[:len(kept)-1]
			}
		default:
			kept = append(kept, seg)
		}
	}
	path := "/" + strings.Join(kept, "/")
	if strings.HasSuffix(escaped, "/") && path != "/" {
		path += "/"
	}
	return awsEncode(path, true)
}

func canonicalQuery(raw string, presigned bool) (string, error) {
	if raw == "" {
		return "", nil
	}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return "", fail(incomplete, "The query string is malformed.")
	}
	type pair struct{ k, v string }
	var pairs []pair
	for k, vs := range q {
		if presigned && k == "X-Amz-Signature" {
			continue
		}
		for _, v := range vs {
			pairs = append(pairs, pair{awsEncode(k, false), awsEncode(v, false)})
		}
	}
	// By name, then by value: sorting "name=value" would put a-b before a.
	slices.SortFunc(pairs, func(x, y pair) int { return cmp.Or(strings.Compare(x.k, y.k), strings.Compare(x.v, y.v)) })
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p.k + "=" + p.v)
	}
	return b.String(), nil
}

// appendHeader appends the value of a header: several joined by commas, outer space dropped, inner runs of it made one.
func appendHeader(b []byte, r *http.Request, name string) []byte {
	switch name {
	case "host": // net/http takes it out of the headers
		return append(b, r.Host...)
	case "content-length":
		return strconv.AppendInt(b, r.ContentLength, 10)
	}
	for i, v := range headerValues(r.Header, name) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendValue(b, v)
	}
	return b
}

// headerValues is h.Values(name), of a name in lower case mostly, for which nothing is allocated.
func headerValues(h http.Header, name string) []string {
	var key [64]byte
	if len(name) > len(key) {
		return h.Values(name)
	}
	upper := true
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z':
			if upper {
				c -= 'a' - 'A'
			}
		case c != '-' && (c < '0' || c > '9'):
			return h.Values(name)
		}
		key[i], upper = c, c == '-'
	}
	return h[string(key[:len(name)])]
}

func appendValue(b []byte, v string) []byte {
	begin, gap := len(b), false
	for i := range len(v) {
		if v[i] == ' ' || v[i] == '\t' {
			gap = len(b) > begin
			continue
		}
		if gap {
			b, gap = append(b, ' '), false
		}
		b = append(b, v[i])
	}
	return b
}

// awsEncode percent-encodes everything but RFC 3986's unreserved characters, and the slash in paths.
func awsEncode(s string, path bool) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(s) + 16)
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == '~', path && c == '/':
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}
