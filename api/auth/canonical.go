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

// canonicalRequest is the text that client and server must agree on, as "Create a signed AWS API request" of the IAM User
// Guide describes it, for every service but S3 (which neither normalises paths nor encodes them twice).
func canonicalRequest(r *http.Request, s *Signature, payload string) (string, error) {
	query, err := canonicalQuery(r.URL.RawQuery, s.Presigned)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, part := range []string{r.Method, canonicalPath(r.URL.EscapedPath()), query} {
		b.WriteString(part)
		b.WriteByte('\n')
	}
	for _, h := range s.headers {
		b.WriteString(h)
		b.WriteByte(':')
		b.WriteString(canonicalHeader(r, h))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.WriteString(strings.Join(s.headers, ";"))
	b.WriteByte('\n')
	b.WriteString(payload)
	return b.String(), nil
}

func stringToSign(s *Signature, canonical string) string {
	sum := sha256.Sum256([]byte(canonical))
	return strings.Join([]string{algorithm, s.Time.Format(timeFormat),
		s.day + "/" + s.Region + "/" + s.Service + "/" + terminator, hex.EncodeToString(sum[:])}, "\n")
}

// canonicalPath normalises the path as it stands in the request line and encodes it once more.
func canonicalPath(escaped string) string {
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

// canonicalHeader is the value of a header: several joined by commas, outer space dropped, inner runs of it made one.
func canonicalHeader(r *http.Request, name string) string {
	switch name {
	case "host": // net/http takes it out of the headers
		return r.Host
	case "content-length":
		return strconv.FormatInt(r.ContentLength, 10)
	}
	var b strings.Builder
	for i, v := range r.Header.Values(name) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strings.Join(strings.FieldsFunc(v, func(c rune) bool { return c == ' ' || c == '\t' }), " "))
	}
	return b.String()
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
