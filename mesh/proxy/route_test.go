package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/api/agent"
)

func TestWildcard(t *testing.T) {
	for _, c := range []struct {
		pattern, value string
		want           bool
	}{
		{"/img/*", "/img/", true}, {"/img/*", "/img", false}, {"/img/*", "/img/a/b", true},
		{"*.example.com", "www.example.com", true}, {"*.example.com", "example.com", false},
		{"/a?c", "/abc", true}, {"/a?c", "/ac", false}, {"*", "", true}, {"?", "", false},
		{"/*/b/*", "/x/b/y", true}, {"/*/b/*", "/x/c/y", false}, {"a*b*c", "aXbXbXc", true}, {"a*b*c", "aXbXbX", false},
		{"/API", "/api", false},
	} {
		if got := compilePattern(c.pattern, false).match(c.value); got != c.want {
			t.Errorf("%q matches %q = %v", c.pattern, c.value, got)
		}
	}
	if !compilePattern("*.Example.COM", true).match("www.example.com") {
		t.Error("hosts are compared without case")
	}
}

func fixedRule(priority uint32, body string, conditions ...*agent.Condition) *agent.Rule {
	return &agent.Rule{Priority: priority, Conditions: conditions, Actions: []*agent.Action{{Body: &agent.Action_Fixed{
		Fixed: &agent.FixedResponse{Status: 200, ContentType: "text/plain", Body: body}}}}}
}

func TestRules(t *testing.T) {
	b := newBed(t, func(l *agent.Listener) {
		l.Rules = []*agent.Rule{
			fixedRule(0, "default"),
			fixedRule(10, "path", &agent.Condition{Field: "path-pattern", Values: []string{"/img/*", "/css"}}),
			fixedRule(20, "host", &agent.Condition{Field: "host-header", Values: []string{"*.Example.com"}}),
			fixedRule(30, "both", &agent.Condition{Field: "http-request-method", Values: []string{"GET"}},
				&agent.Condition{Field: "http-header", Header: "x-Kind", Values: []string{"B*"}}),
			fixedRule(40, "query", &agent.Condition{Field: "query-string", Query: []*agent.QueryPair{{Key: "v", Value: "2*"}, {Value: "beta"}}}),
			fixedRule(50, "source", &agent.Condition{Field: "source-ip", Values: []string{"127.0.0.0/8"}},
				&agent.Condition{Field: "path-pattern", Values: []string{"/local"}}),
			{Priority: 60, Conditions: []*agent.Condition{{Field: "path-pattern", Values: []string{"/old*"}}}, Actions: []*agent.Action{{
				Body: &agent.Action_Redirect{Redirect: &agent.Redirect{Protocol: "HTTPS", Host: "new.#{host}", Port: "443",
					Path: "/v2/#{path}", Query: "#{query}", Status: 301}}}}},
			fixedRule(5, "unknown", &agent.Condition{Field: "moon-phase", Values: []string{"*"}}),
		}
	})
	for _, c := range []struct {
		path, host, header, want string
	}{
		{"/", "", "", "default"}, {"/img/a", "", "", "path"}, {"/IMG/a", "", "", "default"}, {"/css", "", "", "path"},
		{"/css?x", "", "", "path"}, {"/", "WWW.example.com:8080", "", "host"}, {"/img/a", "www.example.com", "", "path"},
		{"/", "", "bee", "both"}, {"/", "", "ant", "default"}, {"/?v=2.1", "", "", "query"}, {"/?v=1", "", "", "default"},
		{"/?any=BETA", "", "", "query"}, {"/local", "", "", "source"},
	} {
		_, body := get(t, b.url(c.path), func(r *http.Request) {
			r.Host = c.host
			if c.header != "" {
				r.Header.Set("X-Kind", c.header)
			}
		})
		if body != c.want {
			t.Errorf("%s (host %q, header %q) → %q, want %q", c.path, c.host, c.header, body, c.want)
		}
	}
	res, _ := get(t, b.url("/old/x?a=b"), func(r *http.Request) { r.Host = "site.org:81" })
	if got, want := res.Header.Get("Location"), "https://new.site.org:443/v2/old/x?a=b"; res.StatusCode != 301 || got != want {
		t.Errorf("redirect %d to %q, want %q", res.StatusCode, got, want)
	}
}

// TestSharedAddress: two load balancers on one port of the shared address, and each on its own.
func TestSharedAddress(t *testing.T) {
	b := newBed(t)
	lb := func(name, own string, hosts ...string) *agent.Listener {
		l := &agent.Listener{
			Arn: testListener + name, LoadBalancerName: name, DnsName: name + "-1.us-east-1.elb.localhost", Addresses: []string{own},
			Port: b.port, Protocol: "HTTP", Rules: []*agent.Rule{fixedRule(0, name)},
		}
		if hosts != nil {
			l.Rules = append(l.Rules, fixedRule(1, name+" by host", &agent.Condition{Field: "host-header", Values: hosts}))
		}
		return l
	}
	b.listeners(lb("one", "127.77.0.1"), lb("two", "127.77.0.2", "two.example"))
	ask := func(address, host string) string {
		res, body := get(t, fmt.Sprintf("http://%s:%d/", address, b.port), func(r *http.Request) { r.Host = host })
		if res.StatusCode != 200 {
			return fmt.Sprint(res.StatusCode)
		}
		return body
	}
	for _, c := range []struct{ address, host, want string }{
		{"127.0.0.1", "ONE-1.us-east-1.elb.localhost", "one"},
		{"127.0.0.1", fmt.Sprintf("two-1.us-east-1.elb.localhost:%d", b.port), "two"},
		{"127.0.0.1", "two.example", "two by host"},
		{"127.0.0.1", "other.example", "421"},
		{"127.77.0.1", "other.example", "one"},
		{"127.77.0.2", "other.example", "two"},
	} {
		if got := ask(c.address, c.host); got != c.want {
			t.Errorf("%s with host %s → %s, want %s", c.address, c.host, got, c.want)
		}
	}
	b.listeners(lb("two", "127.77.0.2"))
	if got := ask("127.0.0.1", "other.example"); got != "two" {
		t.Errorf("the only one left is not chosen: %s", got)
	}
	if h, ok := b.proxy.ForHost("TWO-1.us-east-1.elb.localhost:4566"); !ok || h == nil {
		t.Error("no handler by the load balancer's name")
	}
}

// TestPortInUse: what cannot be opened is shown, and tried again.
func TestPortInUse(t *testing.T) {
	b := newBed(t)
	l := &agent.Listener{Arn: testListener, LoadBalancerName: "web", Port: b.port, Protocol: "HTTP", Rules: []*agent.Rule{fixedRule(0, "hi")}}
	other := newBed(t)
	l.Port = other.port
	u := &agent.Update{Kind: agent.Kind_LISTENERS, Full: true, Resources: []*agent.Resource{{Name: "l", Body: &agent.Resource_Listener{Listener: l}}}}
	b.apply(u)
	if s := b.proxy.Sockets(); len(s) != 1 || s[0].Error == nil || !strings.Contains(s[0].Error.Error(), "in use") {
		t.Fatalf("sockets %v", s)
	}
	other.listeners() // gives the port up
	b.apply(u)
	if s := b.proxy.Sockets(); s[0].Error != nil {
		t.Fatal(s[0].Error)
	}
	if _, body := get(t, fmt.Sprintf("http://127.0.0.1:%d/", l.Port)); body != "hi" {
		t.Errorf("%q", body)
	}
}

func TestChoice(t *testing.T) {
	p := New(Config{})
	g := newGroup("g", p)
	tg := targetGroup("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
	g.set(tg, 1)
	count := map[string]int{}
	for range 300 {
		e := g.pick(nil)
		count[e.id]++
		e.leave()
	}
	for id, n := range count {
		if n != 100 {
			t.Errorf("round robin gave %s %d of 300", id, n)
		}
	}
	tg.Algorithm = "least_outstanding_requests"
	g.set(tg, 2)
	var held []*endpoint
	for range 3 {
		held = append(held, g.pick(nil))
	}
	if held[0] == held[1] || held[1] == held[2] || held[0] == held[2] {
		t.Error("least outstanding requests chose a busy target")
	}
	held[1].leave()
	if e := g.pick(nil); e != held[1] {
		t.Error("the idle target was not chosen")
	}
	w := weightedGroups{groups: []*group{g, newGroup("h", p), newGroup("none", p)}, upTo: []uint32{3, 4, 4}, total: 4}
	chosen := map[string]int{}
	for range 4000 {
		chosen[w.choose().arn]++
	}
	if chosen["none"] != 0 || chosen["g"] < 2700 || chosen["g"] > 3300 {
		t.Errorf("weights 3:1:0 gave %v", chosen)
	}
}

func TestStickiness(t *testing.T) {
	b := newBed(t)
	say := func(s string) string {
		return target(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, s) })
	}
	tg := targetGroup(say("a"), say("b"), say("c"))
	tg.StickinessSeconds = 60
	b.targets(tg)
	res, first := get(t, b.url("/"))
	cookies := res.Cookies()
	if len(cookies) != 2 || cookies[0].Name != "AWSALB" || cookies[1].Name != "AWSALBCORS" {
		t.Fatalf("cookies %v", cookies)
	}
	for range 6 {
		if _, body := get(t, b.url("/"), func(r *http.Request) { r.AddCookie(cookies[0]) }); body != first {
			t.Fatalf("went to %s instead of %s", body, first)
		}
	}
}

func FuzzResponse(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close, x-a\r\nX-A: b\r\n\r\n", "GET")
	f.Add("HTTP/1.0 304 \r\nTransfer-Encoding: chunked\r\n\r\n", "HEAD")
	f.Fuzz(func(t *testing.T, head, method string) {
		if !strings.HasSuffix(head, "\r\n\r\n") || strings.Index(head, "\r\n\r\n") != len(head)-4 {
			return // readHead gives nothing else
		}
		var r response
		if r.parse(head, method) != nil {
			return
		}
		if r.status < 100 || r.status > 599 || (r.framing == bodyLength && r.length <= 0) {
			t.Errorf("%q → %+v", head, r)
		}
		for _, f := range r.header {
			if !isToken(f.name) || strings.ContainsAny(f.value, "\r\n\x00") {
				t.Errorf("%q passes on %q: %q", head, f.name, f.value)
			}
			switch f.kind {
			case fieldConnection, fieldTransferEncoding, fieldKeepAlive:
				t.Errorf("%q passes on %s", head, f.name)
			}
		}
	})
}
