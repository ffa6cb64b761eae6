package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestRequestRefused: what two parsers could read differently, or no parser should, has its status.
func TestRequestRefused(t *testing.T) {
	long := strings.Repeat("a", 17<<10)
	for name, c := range map[string]struct {
		head string
		want int
	}{
		"length and chunks":       {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"two lengths":             {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400},
		"a length twice":          {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 400},
		"a list of lengths":       {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n", 400},
		"signed length":           {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n", 400},
		"negative length":         {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400},
		"hexadecimal length":      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n", 400},
		"empty length":            {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n", 400},
		"endless length":          {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999999999999\r\n\r\n", 400},
		"chunked twice":           {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"chunked in 1.0":          {"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"gzip":                    {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501},
		"identity":                {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n", 501},
		"nearly chunked":          {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400},
		"quoted chunked":          {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", 501},
		"folded line":             {"GET / HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\n\r\n", 400},
		"folded first line":       {"GET / HTTP/1.1\r\n Host: x\r\nHost: x\r\n\r\n", 400},
		"bare LF":                 {"GET / HTTP/1.1\r\nHost: x\nX-A: b\r\n\r\n", 400},
		"bare LF in request line": {"GET / HTTP/1.1\nHost: x\r\n\r\n", 400},
		"bare CR":                 {"GET / HTTP/1.1\r\nHost: x\r\nX-A: b\rContent-Length: 5\r\n\r\n", 400},
		"CR before CR LF":         {"GET / HTTP/1.1\r\nHost: x\r\r\n\r\n", 400},
		"space before colon":      {"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400},
		"tab before colon":        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length\t: 5\r\n\r\n", 400},
		"no colon":                {"GET / HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n", 400},
		"no name":                 {"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", 400},
		"NUL in a value":          {"GET / HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n", 400},
		"not a token":             {"GET / HTTP/1.1\r\nHost: x\r\nX(A): b\r\n\r\n", 400},
		"no host":                 {"GET / HTTP/1.1\r\nX-A: b\r\n\r\n", 400},
		"two hosts":               {"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
		"a host twice":            {"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400},
		"a list of hosts":         {"GET / HTTP/1.1\r\nHost: x, y\r\n\r\n", 400},
		"host with a path":        {"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", 400},
		"host with a user":        {"GET / HTTP/1.1\r\nHost: u@x\r\n\r\n", 400},
		"two hosts in 1.0":        {"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400},
		"no host, absolute":       {"GET http://x/ HTTP/1.1\r\n\r\n", 400},
		"no version":              {"GET /\r\nHost: x\r\n\r\n", 400},
		"two spaces":              {"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"space in the target":     {"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"tab in the target":       {"GET /a\tb HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"fragment":                {"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"broken escape":           {"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"relative target":         {"GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"asterisk":                {"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"other scheme":            {"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"user in the authority":   {"GET http://u@x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"method":                  {"G@T / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
		"HTTP/2":                  {"PRI * HTTP/2.0\r\n\r\n", 505},
		"HTTP/0.9":                {"GET / HTTP/0.9\r\nHost: x\r\n\r\n", 505},
		"HTTP/1.2":                {"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505},
		"lower-case version":      {"GET / http/1.1\r\nHost: x\r\n\r\n", 400},
		"expectation":             {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: tea\r\n\r\n", 417},
		"long target":             {"GET /" + long + " HTTP/1.1\r\nHost: x\r\n\r\n", 414},
		"long field":              {"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + long + "\r\n\r\n", 400},
	} {
		var r request
		err := r.parse(c.head)
		var refused *refusal
		if !errors.As(err, &refused) || refused.status != c.want {
			t.Errorf("%s: %v, want %d", name, err, c.want)
		}
	}
}

func TestRequestParse(t *testing.T) {
	for _, c := range []struct{ head, want string }{
		{"GET /a?b=c HTTP/1.1\r\nHost: X.Example:80\r\n\r\n", "GET /a?b=c path=/a query=b=c host=x.example len=0 minor=1"},
		{"GET / HTTP/1.0\r\n\r\n", "GET / path=/ query= host= len=0 minor=0 close"},
		{"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET / path=/ query= host= len=0 minor=0"},
		{"GET / HTTP/1.1\r\nHost:\r\nConnection: x, close\r\n\r\n", "GET / path=/ query= host= len=0 minor=1 close"},
		{"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-Continue\r\n\r\n", "POST / path=/ query= host=x len=5 minor=1 expects"},
		{"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n", "POST / path=/ query= host=x len=-1 minor=1"},
		{"GET / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n", "GET / path=/ query= host=x len=0 minor=1"},
		{"GET http://y:8?q HTTP/1.1\r\nHost: x\r\n\r\n", "GET /?q path=/ query=q host=y len=0 minor=1"},
		{"OPTIONS http://y HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * path=* query= host=y len=0 minor=1"},
		{"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * path=* query= host=x len=0 minor=1"},
		{"GET //a/../%2e?%zz?# HTTP/1.1\r\nHost: x\r\n\r\n", ""},
		{"GET //a/../%2e?%zz? HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET //a/../%2e?%zz? path=//a/../%2e query=%zz? host=[::1] len=0 minor=1"},
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "GET / path=/ query= host=x len=0 minor=1 upgrade=websocket"},
		{"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n", "GET / path=/ query= host=x len=0 minor=1"},
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "GET / path=/ query= host=x len=0 minor=1"},
		{"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n", "POST / path=/ query= host=x len=1 minor=1"},
	} {
		var r request
		if err := r.parse(c.head); (err != nil) != (c.want == "") {
			t.Errorf("%q: %v", c.head, err)
		} else if got := describe(&r); err == nil && got != c.want {
			t.Errorf("%q is\n%s, want\n%s", c.head, got, c.want)
		}
	}
}

func describe(r *request) string {
	s := fmt.Sprintf("%s %s path=%s query=%s host=%s len=%d minor=%d", r.method, r.target, r.path, r.rawQuery, r.host, r.length, r.minor)
	for name, is := range map[string]bool{" close": r.close, " expects": r.expects, " upgrade=" + r.upgrade: r.upgrade != ""} {
		if is {
			s += name // never two at once above
		}
	}
	return s
}

// FuzzRequest: whatever is accepted is well-formed, means to us what it means to net/http, and is passed on as the same request.
func FuzzRequest(f *testing.F) {
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /a%20b?c HTTP/1.1\r\nhost: x:80\r\nContent-Length: 5\r\nConnection: close, X-A\r\nX-A: b\r\n\r\n",
		"PUT http://y/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-B\r\n\r\n",
		"OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\nCookie: a=b; AWSALB=\"c\"\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: a\r\nConnection: upgrade\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
		"GET /\xff HTTP/1.1\r\nHost: [::1]\r\nX:\r\n\r\n",
	} {
		f.Add(head)
	}
	f.Fuzz(func(t *testing.T, head string) {
		head, _, _ = strings.Cut(head, "\r\n\r\n") // as readHead does
		if head += "\r\n\r\n"; head[0] == '\r' {
			return
		}
		var r request
		if r.parse(head) != nil {
			return
		}
		if r.target == "" || (r.target[0] != '/' && r.target != "*") || strings.ContainsAny(r.target+r.givenHost+r.method, " \r\n\x00") {
			t.Errorf("%q → target %q, host %q", head, r.target, r.givenHost)
		}
		if std, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head))); err == nil {
			sameRequest(t, head, &r, std)
		}
		// What goes to the target is read as the same request.
		x := exchange{r: r, listener: &listener{port: "80", preserveHost: true}, front: &front{port: "80"}}
		x.r.header = slices.Clone(r.header)
		x.r.dropNominated()
		var again request
		sent := string(x.appendHead(nil))
		if err := again.parse(sent); err != nil {
			t.Fatalf("%q is sent as %q: %v", head, sent, err)
		}
		if again.method != r.method || again.target != r.target || again.givenHost != r.givenHost || again.length != r.length || again.upgrade != r.upgrade {
			t.Errorf("%q is sent as %q", head, sent)
		}
	})
}

func sameRequest(t *testing.T, head string, r *request, std *http.Request) {
	t.Helper()
	target := std.RequestURI
	if !strings.HasPrefix(target, "/") && target != "*" {
		target = "/" + strings.TrimPrefix(std.URL.RequestURI(), "/")
		if std.Method == http.MethodOptions && std.URL.Path == "" && std.URL.RawQuery == "" && !std.URL.ForceQuery {
			target = "*"
		}
	}
	if r.method != std.Method || r.givenHost != std.Host || r.length != std.ContentLength || r.minor != std.ProtoMinor {
		t.Errorf("%q: we read %s, net/http %s host %q length %d", head, describe(r), std.Method, std.Host, std.ContentLength)
	}
	if strings.HasPrefix(std.RequestURI, "/") && r.target != target {
		t.Errorf("%q: target %q, net/http %q", head, r.target, target)
	}
	if std.Close && !r.close {
		t.Errorf("%q: net/http closes", head)
	}
	ours := http.Header{}
	for _, f := range r.header {
		switch f.kind {
		case fieldHost, fieldTransferEncoding, fieldTrailer, fieldContentLength:
		default:
			ours.Add(f.name, f.value)
		}
	}
	for k, vs := range std.Header {
		if k != "Content-Length" && k != "Trailer" && !slices.Equal(vs, ours[k]) {
			t.Errorf("%q: %s is %q, net/http %q", head, k, ours[k], vs)
		}
	}
	for k := range ours {
		if _, ok := std.Header[k]; !ok {
			t.Errorf("%q: net/http has no %s", head, k)
		}
	}
}
