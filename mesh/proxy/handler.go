package proxy

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/api/agent"
)

// serverName is what Elastic Load Balancing calls itself in answers of its own.
const serverName = "awselb/2.0"

// exchange is one request and its answer.
type exchange struct {
	c        client
	r        request
	front    *front
	listener *listener
	idle     time.Duration
	start    time.Time
	now      time.Time // the last look at the clock: looks are not free either
	end      time.Time // once the answer was given
	status   int       // what the client got; 0: nothing
	sticky   stickiness
}

// run answers the request and counts it under its listener.
func (x *exchange) run() {
	l := x.front.routes.Load().choose(x.r.host)
	if l == nil {
		x.fail(http.StatusMisdirectedRequest)
		return
	}
	x.listener, x.idle = l, l.idleTimeout
	l.stats.active.Add(1)
	defer func() {
		x.end = time.Now()
		l.stats.active.Add(-1)
		l.stats.observe(x.status, x.end.Sub(x.start))
	}()
	x.serve()
}

func (x *exchange) serve() {
	switch {
	case x.r.method == http.MethodConnect || x.r.path == "":
		x.fail(http.StatusBadRequest)
		return
	case x.r.method == http.MethodTrace: // Application Load Balancers do not pass it on
		x.fail(http.StatusMethodNotAllowed)
		return
	}
	if x.listener.dropInvalidHeaders {
		x.r.dropInvalidFields()
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
	var h header
	if f.ContentType != "" {
		h = header{{name: "Content-Type", value: f.ContentType}}
	}
	x.reply(int(f.Status), h, f.Body)
}

// redirect fills in the parts of the request that the action keeps: #{protocol}, #{host}, #{port}, #{path} (without the
// leading slash) and #{query}.
func (x *exchange) redirect(a *agent.Redirect) {
	fill := strings.NewReplacer("#{protocol}", "http", "#{host}", x.r.host, "#{port}", x.front.port,
		"#{path}", strings.TrimPrefix(x.r.path, "/"), "#{query}", x.r.rawQuery)
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
	x.reply(int(a.Status), header{{name: "Content-Type", value: "text/html"}, {name: "Location", value: location}}, page(int(a.Status)))
}

// fail answers with a page of the load balancer's own.
func (x *exchange) fail(status int) {
	x.reply(status, header{{name: "Content-Type", value: "text/html"}}, page(status))
}

// reply answers with a body of the load balancer's own.
func (x *exchange) reply(status int, h header, body string) {
	x.status, x.now = status, time.Now()
	h = append(h, field{name: "Server", value: serverName})
	has := status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
	if has {
		h = append(h, field{name: "Content-Length", value: strconv.Itoa(len(body)), kind: fieldContentLength})
	}
	f := bodyLength
	if !has || x.r.method == http.MethodHead {
		f = bodyNone
	}
	if x.c.answer(status, h, f, false) != nil {
		return // nobody is there to read it
	}
	if f == bodyLength {
		x.c.Write([]byte(body))
	}
	x.c.finish(nil)
}

// page is what Elastic Load Balancing shows for a status.
func page(status int) string {
	text := http.StatusText(status)
	switch status { // its words where they differ
	case http.StatusServiceUnavailable:
		text = "Service Temporarily Unavailable"
	case http.StatusGatewayTimeout:
		text = "Gateway Time-out"
	}
	title := strconv.Itoa(status) + " " + text
	return "<html>\r\n<head><title>" + title + "</title></head>\r\n<body>\r\n<center><h1>" + title +
		"</h1></center>\r\n</body>\r\n</html>\r\n"
}
