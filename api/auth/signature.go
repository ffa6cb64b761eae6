package auth

import (
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	terminator = "aws4_request"
	timeFormat = "20060102T150405Z"
	maxExpires = 7 * 24 * time.Hour
)

// isRegion keeps what becomes part of keys and names to what a region can be.
func isRegion(name string) bool {
	return name != "" && len(name) <= 32 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// Signature is what a request says about its signature. Nothing of it is verified yet.
type Signature struct {
	AccessKeyID     string
	Region, Service string // of the credential scope
	Time            time.Time
	SessionToken    string
	Presigned       bool
	Expires         time.Duration // of a presigned request, from Time on

	day     string // of the credential scope: 20060102
	headers []string
	value   []byte
}

// Signed says whether r carries a signature or looks as if it should.
func Signed(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-") || strings.Contains(r.URL.RawQuery, "X-Amz-Algorithm=")
}

// Parse reads r's signature. It is nil, without error, when r has none. An error is a *Failure.
func Parse(r *http.Request) (*Signature, error) {
	if h := r.Header.Get("Authorization"); strings.HasPrefix(h, "AWS4-") {
		return parseHeader(r, h)
	}
	if !strings.Contains(r.URL.RawQuery, "X-Amz-Algorithm=") {
		return nil, nil
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fail(incomplete, "The query string is malformed.")
	}
	return parseQuery(q)
}

func parseHeader(r *http.Request, h string) (*Signature, error) {
	kind, rest, _ := strings.Cut(h, " ")
	if kind != algorithm {
		return nil, fail(incomplete, "Unsupported AWS 'algorithm': '%s'.", kind)
	}
	var credential, headers, value string
	for p := range strings.SplitSeq(rest, ",") {
		k, v, ok := strings.Cut(strings.TrimSpace(p), "=")
		if !ok {
			return nil, fail(incomplete, "'%s' not a valid key=value pair (missing equal-sign) in Authorization header: '%s'.", strings.TrimSpace(p), h)
		}
		switch k {
		case "Credential":
			credential = v
		case "SignedHeaders":
			headers = v
		case "Signature":
			value = v
		}
	}
	var lacks strings.Builder
	for _, param := range [...][2]string{{"Credential", credential}, {"Signature", value}, {"SignedHeaders", headers}} {
		if param[1] == "" {
			lacks.WriteString("Authorization header requires '" + param[0] + "' parameter. ")
		}
	}
	date := r.Header.Get("X-Amz-Date")
	if date == "" {
		date = isoDate(r.Header.Get("Date"))
	}
	if date == "" {
		lacks.WriteString("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ")
	}
	if lacks.Len() > 0 {
		return nil, fail(incomplete, "%sAuthorization=%s", lacks.String(), kind)
	}
	return newSignature(credential, headers, value, date, r.Header.Get("X-Amz-Security-Token"))
}

func parseQuery(q url.Values) (*Signature, error) {
	if a := q.Get("X-Amz-Algorithm"); a != algorithm {
		return nil, fail(incomplete, "Unsupported AWS 'algorithm': '%s'.", a)
	}
	for _, k := range []string{"X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"} {
		if q.Get(k) == "" {
			return nil, fail(incomplete, "AWS query-string parameters must include '%s'. Re-examine the query-string parameters.", k)
		}
	}
	s, err := newSignature(q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Signature"), q.Get("X-Amz-Date"), q.Get("X-Amz-Security-Token"))
	if err != nil {
		return nil, err
	}
	s.Presigned, s.Expires = true, MaxSkew // without X-Amz-Expires, as a signature in a header
	if e := q.Get("X-Amz-Expires"); e != "" {
		n, err := strconv.ParseInt(e, 10, 64)
		if err != nil || n < 0 || n > int64(maxExpires/time.Second) {
			return nil, fail(incomplete, "X-Amz-Expires must be a number of seconds from 0 to 604800.")
		}
		s.Expires = time.Duration(n) * time.Second
	}
	return s, nil
}

func newSignature(credential, headers, value, date, token string) (*Signature, error) {
	scope := strings.Split(credential, "/")
	if len(scope) != 5 {
		return nil, fail(incomplete, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '%s'", credential)
	}
	if scope[4] != terminator {
		return nil, fail(mismatch, "Credential should be scoped with a valid terminator: '%s', not '%s'.", terminator, scope[4])
	}
	if !isRegion(scope[2]) {
		return nil, fail(mismatch, "Credential should be scoped to a valid region, not '%s'.", scope[2])
	}
	at, err := time.Parse(timeFormat, date)
	if err != nil {
		return nil, fail(incomplete, "Date must be in ISO-8601 'basic format'. Got '%s'. See http://en.wikipedia.org/wiki/ISO_8601", date)
	}
	if day := date[:8]; day != scope[1] {
		return nil, fail(mismatch, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s', from '%s'.", scope[1], day, date)
	}
	raw, err := hex.DecodeString(value)
	if err != nil {
		raw = nil // equal to no signature
	}
	return &Signature{AccessKeyID: scope[0], day: scope[1], Region: scope[2], Service: scope[3],
		Time: at, SessionToken: token, headers: strings.Split(headers, ";"), value: raw}, nil
}

// checkCoverage refuses a signature that leaves out what decides the meaning of the request. AWS's rule: host, and every
// x-amz- header that is there. (X-Amz-Security-Token may be added after signing: it is checked against the credential.)
func (s *Signature) checkCoverage(r *http.Request) error {
	if !slices.Contains(s.headers, "host") {
		return fail(mismatch, "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
	}
	const prefix = "x-amz-"
	for name := range r.Header {
		if len(name) < len(prefix) || !strings.EqualFold(name[:len(prefix)], prefix) {
			continue // most of them
		}
		name = strings.ToLower(name)
		if name != "x-amz-security-token" && !slices.Contains(s.headers, name) {
			return fail(mismatch, "There were headers present in the request which were not signed: %s", name)
		}
	}
	return nil
}

// isoDate turns the Date header, in either of its forms, into the form of X-Amz-Date.
func isoDate(date string) string {
	if t, err := http.ParseTime(date); err == nil {
		return t.UTC().Format(timeFormat)
	}
	return date
}
