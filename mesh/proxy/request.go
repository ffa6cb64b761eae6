package proxy

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// The limits of Application Load Balancers.
const (
	maxRequestLine = 16 << 10
	maxFieldLine   = 16 << 10 // one line of the header
	maxRequestHead = 64 << 10
)

// request is what a client asks for, whichever front it came through.
type request struct {
	method    string
	target    string // in origin form, or "*"; what the target gets
	path      string // as sent, without the query
	rawQuery  string
	givenHost string // as sent
	host      string // lower case, without port
	header    header
	length    int64 // of the body; 0: none; -1: chunked
	minor     int   // of HTTP/1: 0 or 1; a client of HTTP/2 counts as 1
	client    netip.Addr
	query     url.Values // parsed when first asked for
	// upgrade is the protocol the client wants to switch to; empty: none.
	upgrade string
	// close: the client wants no further request on its connection.
	close bool
	// expects: the client waits for 100 before it sends the body.
	expects bool
}

// refusal is a request that is answered with an error before it is routed.
type refusal struct {
	status int
	reason string
}

func (r *refusal) Error() string { return strconv.Itoa(r.status) + ": " + r.reason }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// parse reads a head as readHead returns it (RFC 9112). Whatever a target could read differently is refused: that a request is
// hidden in another one's body needs two who disagree where it ends. Strings of r are parts of head; r's header is reused.
func (r *request) parse(head string) error {
	fields := r.header[:0]
	*r = request{client: r.client}
	i := strings.IndexByte(head, '\n')
	if i > maxRequestLine {
		return refuse(http.StatusRequestURITooLong, "request line above %d bytes", maxRequestLine)
	}
	if i < 1 || head[i-1] != '\r' {
		return refuse(http.StatusBadRequest, "the request line ends without CR LF")
	}
	if err := r.parseLine(head[:i-1]); err != nil {
		return err
	}
	rest := head[i+1:]
	for {
		f, tail, more, err := cutField(rest)
		if err != nil {
			return refuse(http.StatusBadRequest, "%v", err)
		}
		if !more {
			break
		}
		if len(rest)-len(tail) > maxFieldLine {
			return refuse(http.StatusBadRequest, "a line of the header above %d bytes", maxFieldLine)
		}
		fields, rest = append(fields, f), tail
	}
	r.header = fields
	return r.interpret()
}

// parseLine reads "GET /path HTTP/1.1".
func (r *request) parseLine(line string) error {
	method, rest, _ := strings.Cut(line, " ")
	uri, version, ok := strings.Cut(rest, " ")
	if !ok || !isToken(method) {
		return refuse(http.StatusBadRequest, "request line %.40q", line)
	}
	switch {
	case version == "HTTP/1.1":
		r.minor = 1
	case version == "HTTP/1.0":
	case len(version) == 8 && strings.HasPrefix(version, "HTTP/") && isDigit(version[5]) && version[6] == '.' && isDigit(version[7]):
		return refuse(http.StatusHTTPVersionNotSupported, "version %s", version)
	default:
		return refuse(http.StatusBadRequest, "version %.20q", version)
	}
	r.method = method
	return r.parseTarget(uri)
}

// parseTarget takes origin form, absolute form, whose authority then stands for the Host field, and the asterisk of OPTIONS.
func (r *request) parseTarget(uri string) error {
	if !isTarget(uri) {
		return refuse(http.StatusBadRequest, "request target %.40q", uri)
	}
	switch {
	case uri[0] == '/':
	case uri == "*" && r.method == http.MethodOptions:
	default:
		scheme, rest, ok := strings.Cut(uri, "://")
		if !ok || (!strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https")) {
			return refuse(http.StatusBadRequest, "request target %.40q", uri)
		}
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		r.givenHost, uri = rest[:end], rest[end:]
		if r.givenHost == "" || !isHost(r.givenHost) {
			return refuse(http.StatusBadRequest, "authority %.40q", r.givenHost)
		}
		if uri == "" && r.method == http.MethodOptions {
			uri = "*"
		} else if uri == "" || uri[0] == '?' {
			uri = "/" + uri
		}
	}
	r.setTarget(uri)
	return nil
}

func (r *request) setTarget(uri string) {
	r.target = uri
	r.path, r.rawQuery, _ = strings.Cut(uri, "?")
}

// interpret takes from the header what decides how the request goes on.
func (r *request) interpret() error {
	hosts, lengths, chunked := 0, 0, false
	connection := false
	for i := range r.header {
		switch f := &r.header[i]; f.kind {
		case fieldHost:
			if hosts++; !isHost(f.value) {
				return refuse(http.StatusBadRequest, "host %.40q", f.value)
			}
			if r.givenHost == "" {
				r.givenHost = f.value
			}
		case fieldContentLength:
			lengths++
			n, ok := parseLength(f.value)
			if !ok {
				return refuse(http.StatusBadRequest, "content length %.40q", f.value)
			}
			r.length = n
		case fieldTransferEncoding:
			if chunked || r.minor == 0 {
				return refuse(http.StatusBadRequest, "transfer encoding twice or in HTTP/1.0")
			}
			if !strings.EqualFold(f.value, "chunked") {
				return refuse(http.StatusNotImplemented, "transfer encoding %.40q", f.value)
			}
			chunked = true
		case fieldExpect:
			if !strings.EqualFold(f.value, "100-continue") {
				return refuse(http.StatusExpectationFailed, "expectation %.40q", f.value)
			}
			r.expects = r.minor > 0
		case fieldConnection:
			connection = true
		}
	}
	switch {
	case hosts > 1 || (hosts == 0 && r.minor > 0):
		return refuse(http.StatusBadRequest, "%d Host fields", hosts)
	case lengths > 1 || (lengths > 0 && chunked):
		return refuse(http.StatusBadRequest, "the length of the body is given twice")
	case chunked:
		r.length = -1
	}
	r.host = hostOnly(r.givenHost)
	r.expects = r.expects && r.length != 0
	r.close = r.minor == 0
	if connection {
		r.close = r.header.has(fieldConnection, "close") || (r.minor == 0 && !r.header.has(fieldConnection, "keep-alive"))
		r.findUpgrade()
	}
	return nil
}

// findUpgrade takes an Upgrade that the Connection field names. Requests with a body and h2c are not switched: that is the server's to
// choose.
func (r *request) findUpgrade() {
	if r.minor == 0 || r.length != 0 || !r.header.has(fieldConnection, "upgrade") {
		return
	}
	if up := r.header.first(fieldUpgrade); !strings.EqualFold(up, "h2c") {
		r.upgrade = up
	}
}

// dropNominated removes the fields that the client's Connection fields name as its own.
func (r *request) dropNominated() {
	connection := ""
	for i := range r.header {
		if r.header[i].kind == fieldConnection {
			connection += "," + r.header[i].value
		}
	}
	if connection != "" {
		r.header = r.header.withoutNominated(connection)
	}
}

// dropInvalidFields removes names outside [-A-Za-z0-9], as routing.http.drop_invalid_header_fields.enabled asks.
func (r *request) dropInvalidFields() {
	r.header = r.header.without(func(f *field) bool {
		for i := range len(f.name) {
			if !nameByte[f.name[i]] {
				return true
			}
		}
		return false
	})
}

// parseLength reads a Content-Length: digits alone.
func parseLength(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	n := int64(0)
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isTarget refuses what cannot stand in a request target, and fragments; broken escapes only before the query, as is the habit.
func isTarget(s string) bool {
	query := false
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ' || c == 0x7f || c == '#':
			return false
		case c == '?':
			query = true
		case c == '%' && !query && (i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2])):
			return false
		}
	}
	return s != ""
}

func isHex(c byte) bool {
	return isDigit(c) || ('a' <= c && c <= 'f') || ('A' <= c && c <= 'F')
}

// isHost says whether s may stand in a Host field; it may be empty.
func isHost(s string) bool {
	for i := range len(s) {
		if !hostByte[s[i]] {
			return false
		}
	}
	return true
}

var (
	hostByte = byteSet("-._~!$&'()*+;=:[]%")
	nameByte = byteSet("-")
)
