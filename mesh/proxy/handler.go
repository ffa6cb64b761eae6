package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/api/agent"
)

// serverName is what Elastic Load Balancing calls itself in answers of its own.
const serverName = "awselb/2.0"

// ServeHTTP answers one request on this socket.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := hostOnly(r.Host)
	l := f.routes.Load().choose(host)
	if l == nil {
		ownError(w, http.StatusMisdirectedRequest)
		return
	}
	start := time.Now()
	x := exchange{w: w, front: f, listener: l, idle: l.idleTimeout, start: start}
	x.r = request{Request: r, host: host, path: rawPath(r), client: clientAddr(r)}
	l.stats.active.Add(1)
	defer func() {
		l.stats.active.Add(-1)
		l.stats.observe(x.status, time.Since(start))
	}()
	x.serve()
}

// exchange is one request and its answer.
type exchange struct {
	w        http.ResponseWriter
	r        request
	front    *front
	listener *listener
	idle     time.Duration
	start    time.Time
	status   int // what the client got; 0: nothing
	sticky   stickiness
}

func (x *exchange) serve() {
	r := x.r.Request
	if r.Method == http.MethodConnect || x.r.path == "" {
		x.fail(http.StatusBadRequest)
		return
	}
	if x.listener.dropInvalidHeaders {
		dropInvalidHeaders(r.Header)
	}
	switch a := x.listener.route(&x.r); {
	case a.forward != nil:
		x.forward(a)
	case a.redirect != nil:
		x.redirect(a.redirect)
	case a.fixed != nil:
		x.fixed(a.fixed)
	default:
		x.fail(http.StatusServiceUnavailable)
	}
}

func (x *exchange) fixed(f *agent.FixedResponse) {
	h := x.w.Header()
	h["Content-Type"] = nil // never sniffed
	if f.ContentType != "" {
		h["Content-Type"] = []string{f.ContentType}
	}
	h["Server"] = []string{serverName}
	x.status = int(f.Status)
	x.w.WriteHeader(x.status)
	if bodyAllowed(x.status) {
		x.w.Write([]byte(f.Body))
	}
}

func bodyAllowed(status int) bool { return status >= 200 && status != 204 && status != 304 }

// redirect fills in the parts of the request that the action keeps: #{protocol}, #{host}, #{port}, #{path} (without the
// leading slash) and #{query}.
func (x *exchange) redirect(a *agent.Redirect) {
	fill := strings.NewReplacer("#{protocol}", "http", "#{host}", x.r.host, "#{port}", x.front.port,
		"#{path}", strings.TrimPrefix(x.r.path, "/"), "#{query}", x.r.URL.RawQuery)
	keep := func(v, otherwise string) string {
		if v == "" {
			v = otherwise
		}
		return fill.Replace(v)
	}
	location := strings.ToLower(keep(a.Protocol, "#{protocol}")) + "://" + keep(a.Host, "#{host}") + ":" +
		keep(a.Port, "#{port}") + keep(a.Path, "/#{path}")
	query := fill.Replace(a.Query)
	if query != "" {
		location += "?" + query
	}
	x.w.Header()["Location"] = []string{location}
	x.fail(int(a.Status))
}

// fail answers with a page of the load balancer's own.
func (x *exchange) fail(status int) {
	x.status = status
	ownError(x.w, status)
}

func ownError(w http.ResponseWriter, status int) {
	text := http.StatusText(status)
	switch status { // Elastic Load Balancing's words where they differ
	case http.StatusServiceUnavailable:
		text = "Service Temporarily Unavailable"
	case http.StatusGatewayTimeout:
		text = "Gateway Time-out"
	}
	title := strconv.Itoa(status) + " " + text
	body := "<html>\r\n<head><title>" + title + "</title></head>\r\n<body>\r\n<center><h1>" + title +
		"</h1></center>\r\n</body>\r\n</html>\r\n"
	h := w.Header()
	h["Server"] = []string{serverName}
	h["Content-Type"] = []string{"text/html"}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	w.Write([]byte(body))
}

// rawPath is the path as the client sent it: it is what conditions see and what the target gets.
func rawPath(r *http.Request) string {
	u := requestURI(r)
	if i := strings.IndexByte(u, '?'); i >= 0 {
		u = u[:i]
	}
	return u
}

// requestURI is the request target in origin form.
func requestURI(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") || r.RequestURI == "*" {
		return r.RequestURI
	}
	return r.URL.RequestURI() // absolute form
}

func clientAddr(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(host)
	return a.Unmap()
}

// dropInvalidHeaders removes names outside [-A-Za-z0-9], as routing.http.drop_invalid_header_fields.enabled asks.
func dropInvalidHeaders(h http.Header) {
	for k := range h {
		for i := range len(k) {
			c := k[i]
			if c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
				delete(h, k)
				break
			}
		}
	}
}

// hopByHop are the fields of one connection, never passed on.
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect",
		"Host", "Content-Length", "Http2-Settings":
		return true
	}
	return false
}

// dropNominated removes the fields that the client's Connection header names as its own.
func dropNominated(h http.Header) {
	for _, v := range h["Connection"] {
		if strings.EqualFold(v, "keep-alive") {
			continue
		}
		for name := range strings.SplitSeq(v, ",") {
			delete(h, textproto.CanonicalMIMEHeaderKey(strings.Trim(name, " \t")))
		}
	}
}
