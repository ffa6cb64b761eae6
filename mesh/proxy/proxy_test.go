package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/api/agent"
)

// bed is a proxy with one listener on a free port of 127.0.0.1 and one target group.
type bed struct {
	t     testing.TB
	proxy *Proxy
	port  uint32
	rev   uint64

	mu      sync.Mutex
	drained map[string]uint64
}

const (
	testGroup    = "arn:aws:elasticloadbalancing:us-east-1:000000000000:targetgroup/web/0123456789abcdef"
	testListener = "arn:aws:elasticloadbalancing:us-east-1:000000000000:listener/app/web/0123456789abcdef/0123456789abcdef"
)

func newBed(t testing.TB, mod ...func(*agent.Listener)) *bed {
	return newBedThatDials(t, 0, mod...)
}

// newBedThatDials is one whose proxy waits so long for a target; 0: as long as proxies do.
func newBedThatDials(t testing.TB, within time.Duration, mod ...func(*agent.Listener)) *bed {
	b := &bed{t: t, drained: map[string]uint64{}}
	b.proxy = New(Config{Shared: []string{"127.0.0.1"}, DialTimeout: within, Drained: func(d *agent.Drained) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.drained[d.EndpointId] = d.Revision
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.proxy.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	l := &agent.Listener{
		Arn: testListener, LoadBalancerName: "web", DnsName: "web-1.us-east-1.elb.localhost", Protocol: "HTTP",
		IdleTimeoutSeconds: 60, Rules: []*agent.Rule{forwardTo(testGroup)},
	}
	for _, m := range mod {
		m(l)
	}
	for taken := true; taken; { // another program may have the port by now
		b.port = freePort(t)
		l.Port = b.port
		b.rev++
		b.apply(listenersUpdate(b.rev, l))
		taken = errors.Is(b.proxy.Sockets()[0].Error, syscall.EADDRINUSE)
	}
	b.open()
	return b
}

func forwardTo(groups ...string) *agent.Rule {
	f := &agent.Forward{}
	for _, g := range groups {
		f.Groups = append(f.Groups, &agent.WeightedGroup{TargetGroupArn: g, Weight: 1})
	}
	return &agent.Rule{Actions: []*agent.Action{{Body: &agent.Action_Forward{Forward: f}}}}
}

func (b *bed) listeners(ls ...*agent.Listener) {
	b.t.Helper()
	b.rev++
	b.apply(listenersUpdate(b.rev, ls...))
	b.open()
}

func listenersUpdate(rev uint64, ls ...*agent.Listener) *agent.Update {
	u := &agent.Update{Kind: agent.Kind_LISTENERS, Revision: rev, Full: true}
	for _, l := range ls {
		u.Resources = append(u.Resources, &agent.Resource{Name: l.Arn, Body: &agent.Resource_Listener{Listener: l}})
	}
	return u
}

// open says that every socket is.
func (b *bed) open() {
	b.t.Helper()
	for _, s := range b.proxy.Sockets() {
		if s.Error != nil {
			b.t.Fatalf("socket %s: %v", s.Address, s.Error)
		}
	}
}

func (b *bed) targets(tgs ...*agent.TargetGroup) uint64 {
	b.t.Helper()
	b.rev++
	u := &agent.Update{Kind: agent.Kind_TARGETS, Revision: b.rev, Full: true}
	for _, tg := range tgs {
		u.Resources = append(u.Resources, &agent.Resource{Name: tg.Arn, Body: &agent.Resource_TargetGroup{TargetGroup: tg}})
	}
	b.apply(u)
	return b.rev
}

func (b *bed) apply(u *agent.Update) {
	b.t.Helper()
	if err := b.proxy.Apply(context.Background(), u); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) url(path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", b.port, path) }

func (b *bed) drainedAt(id string) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.drained[id]
}

// group makes a target group of the given addresses, each healthy unless a state is given for it.
func targetGroup(addrs ...string) *agent.TargetGroup {
	tg := &agent.TargetGroup{Arn: testGroup, Protocol: "HTTP", ProtocolVersion: "HTTP1", Algorithm: "round_robin"}
	for _, a := range addrs {
		tg.Endpoints = append(tg.Endpoints, endpointAt(a, agent.EndpointState_ENDPOINT_HEALTHY))
	}
	return tg
}

func endpointAt(addr string, s agent.EndpointState) *agent.Endpoint {
	host, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	return &agent.Endpoint{Id: addr, Address: host, Port: uint32(n), State: s}
}

func freePort(t testing.TB) uint32 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint32(l.Addr().(*net.TCPAddr).Port)
}

// refusing is an address that nobody listens on, and nobody else can.
func refusing(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
}

// target is an HTTP server as a task runs it.
func target(t testing.TB, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// rawTarget answers every connection with f, byte by byte as f pleases.
func rawTarget(t testing.TB, f func(c net.Conn, br *bufio.Reader)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c, bufio.NewReader(c))
			}()
		}
	}()
	return l.Addr().String()
}

// readRequest reads one request head and says its first line; "" at the end.
func readRequest(br *bufio.Reader) string {
	r, err := http.ReadRequest(br)
	if err != nil {
		return ""
	}
	io.Copy(io.Discard, r.Body)
	return r.Method + " " + r.RequestURI
}

func get(t testing.TB, url string, mod ...func(*http.Request)) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mod {
		m(r)
	}
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: time.Minute}
	defer c.CloseIdleConnections()
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

func TestForwardHeaders(t *testing.T) {
	b := newBed(t)
	var seen atomic.Pointer[http.Request]
	b.targets(targetGroup(target(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r)
		w.Header()["Content-Type"] = nil
		w.Header().Set("X-Answer", "yes")
		w.WriteHeader(201)
		io.WriteString(w, "made")
	})))
	res, body := get(t, b.url("/a%2Fb?x=1&y"), func(r *http.Request) {
		r.Host = "shop.example:80"
		r.Header.Set("X-Forwarded-For", "192.0.2.1")
		r.Header.Set("X-Forwarded-Proto", "https")
		r.Header.Set("Connection", "X-Secret")
		r.Header.Set("X-Secret", "hop")
	})
	if res.StatusCode != 201 || body != "made" || res.Header.Get("X-Answer") != "yes" {
		t.Errorf("answer = %d %q %v", res.StatusCode, body, res.Header)
	}
	if ct, ok := res.Header["Content-Type"]; ok {
		t.Errorf("content type %q was made up", ct)
	}
	r := seen.Load()
	want := map[string]string{
		"X-Forwarded-For": "192.0.2.1, 127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Port": strconv.Itoa(int(b.port)), "X-Secret": "",
	}
	for k, v := range want {
		if got := strings.Join(r.Header[k], "|"); got != v {
			t.Errorf("%s = %q, want %q", k, got, v)
		}
	}
	if r.Host != "shop.example:80" || r.RequestURI != "/a%2Fb?x=1&y" {
		t.Errorf("target saw host %q, uri %q", r.Host, r.RequestURI)
	}
	if id := r.Header.Get("X-Amzn-Trace-Id"); !strings.HasPrefix(id, "Root=1-") || len(id) != len("Root=1-00000000-000000000000000000000000") {
		t.Errorf("trace id = %q", id)
	}
}

func TestBodies(t *testing.T) {
	b := newBed(t)
	b.targets(targetGroup(target(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, "%s %d %v %s", r.Method, len(body), r.TransferEncoding, r.Trailer.Get("X-Sum"))
	})))
	big := strings.Repeat("x", 3<<20)
	for name, c := range map[string]struct {
		method string
		body   io.Reader
		mod    func(*http.Request)
		want   string
	}{
		"length":   {"POST", strings.NewReader("hello"), nil, "POST 5 [] "},
		"large":    {"PUT", strings.NewReader(big), nil, fmt.Sprintf("PUT %d [] ", len(big))},
		"chunked":  {"POST", io.MultiReader(strings.NewReader(big)), nil, fmt.Sprintf("POST %d [chunked] ", len(big))},
		"empty":    {"POST", nil, nil, "POST 0 [] "},
		"continue": {"POST", strings.NewReader("hello"), func(r *http.Request) { r.Header.Set("Expect", "100-continue") }, "POST 5 [] "},
		"trailer": {"POST", io.MultiReader(strings.NewReader("abc")), func(r *http.Request) {
			r.Trailer = http.Header{"X-Sum": {"42"}}
		}, "POST 3 [chunked] 42"},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := http.NewRequest(c.method, b.url("/"), c.body)
			if c.mod != nil {
				c.mod(r)
			}
			res, err := (&http.Client{Transport: &http.Transport{ExpectContinueTimeout: 10 * time.Second, DisableKeepAlives: true}}).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			got, _ := io.ReadAll(res.Body)
			if string(got) != c.want {
				t.Errorf("target saw %q, want %q", got, c.want)
			}
		})
	}
}

// TestResponseShapes has the target send exact bytes; what the client reads is compared.
func TestResponseShapes(t *testing.T) {
	answers := map[string]string{
		"/length":     "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"/empty":      "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"/204":        "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
		"/304":        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n",
		"/chunked":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
		"/close":      "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
		"/http10":     "HTTP/1.0 200 OK\r\n\r\nhello",
		"/early":      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"/twice":      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\nX-A: 1\r\nX-A: 2\r\n\r\nhello",
		"/smuggle":    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"/lengths":    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
		"/minus":      "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
		"/fold":       "HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello",
		"/space":      "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
		"/gzip":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"/status":     "HTTP/1.1 20 OK\r\n\r\n",
		"/nonsense":   "SSH-2.0-OpenSSH_9.2\r\n\r\n",
		"/nothing":    "",
		"/switch":     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
		"/huge":       "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 70<<10) + "\r\n\r\n",
		"/endless":    "HTTP/1.1 200 " + strings.Repeat("a", 70<<10),
		"/long":       "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 20<<10) + "\r\nContent-Length: 5\r\n\r\nhello",
		"/unasked204": "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
	}
	addr := rawTarget(t, func(c net.Conn, br *bufio.Reader) {
		for {
			line := readRequest(br)
			if line == "" {
				return
			}
			path := line[strings.IndexByte(line, ' ')+1:]
			io.WriteString(c, answers[path])
			if path == "/close" || path == "/http10" || path == "/nothing" {
				return
			}
		}
	})
	b := newBed(t)
	b.targets(targetGroup(addr))
	want := map[string]string{
		"/length": "200 hello", "/empty": "200 ", "/204": "204 ", "/304": "304 ", "/chunked": "200 hello", "/close": "200 hello",
		"/http10": "200 hello", "/early": "200 hello", "/twice": "200 hello", "/long": "200 hello",
	}
	for path := range answers {
		t.Run(path[1:], func(t *testing.T) {
			res, body := get(t, b.url(path))
			got := strconv.Itoa(res.StatusCode) + " " + body
			if w, ok := want[path]; ok && got != w {
				t.Errorf("got %q, want %q", got, w)
			} else if !ok && res.StatusCode != 502 {
				t.Errorf("got %q, want 502: the answer is malformed", got)
			}
		})
	}
	t.Run("HEAD", func(t *testing.T) {
		res, err := http.Head(b.url("/length"))
		if err != nil || res.StatusCode != 200 || res.ContentLength != 5 {
			t.Errorf("HEAD: %v, %v", res, err)
		}
	})
}

// TestCutShort: a client must see that an answer is not whole.
func TestCutShort(t *testing.T) {
	for name, answer := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhe",
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.targets(targetGroup(rawTarget(t, func(c net.Conn, br *bufio.Reader) {
				readRequest(br)
				io.WriteString(c, answer)
			})))
			res, err := http.Get(b.url("/"))
			if err != nil {
				return
			}
			defer res.Body.Close()
			if body, err := io.ReadAll(res.Body); err == nil {
				t.Errorf("read %q without an error", body)
			}
		})
	}
}

func TestStreamingIsNotHeldBack(t *testing.T) {
	for _, length := range []bool{true, false} {
		t.Run(fmt.Sprint("length ", length), func(t *testing.T) {
			next := make(chan struct{})
			b := newBed(t)
			b.targets(targetGroup(target(t, func(w http.ResponseWriter, r *http.Request) {
				if length {
					w.Header().Set("Content-Length", "12")
				}
				for range 3 {
					io.WriteString(w, "tick")
					http.NewResponseController(w).Flush()
					<-next
				}
			})))
			res, err := http.Get(b.url("/"))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			for range 3 {
				var buf [4]byte
				if _, err := io.ReadFull(res.Body, buf[:]); err != nil || string(buf[:]) != "tick" {
					t.Fatalf("read %q, %v", buf, err)
				}
				next <- struct{}{}
			}
		})
	}
}

func TestUpgrade(t *testing.T) {
	b := newBed(t)
	b.targets(targetGroup(rawTarget(t, func(c net.Conn, br *bufio.Reader) {
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "Upgrade" {
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-Websocket-Accept: abc\r\n\r\nwelcome ")
		io.Copy(c, br)
	})))
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", b.port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nsaid too early")
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Sec-Websocket-Accept") != "abc" {
		t.Fatalf("%v, %v", res, err)
	}
	buf := make([]byte, len("welcome said too early"))
	if _, err := io.ReadFull(br, buf); err != nil || string(buf) != "welcome said too early" {
		t.Errorf("tunnel gave %q, %v", buf, err)
	}
	c.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(br); err != nil || len(rest) > 0 {
		t.Errorf("the tunnel's end: %q, %v", rest, err)
	}
}

func TestFailures(t *testing.T) {
	refused := refusing(t)
	ok := target(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "ok %s", b)
	})
	t.Run("no target", func(t *testing.T) {
		b := newBed(t)
		if res, body := get(t, b.url("/")); res.StatusCode != 503 || res.Header.Get("Server") != "awselb/2.0" ||
			!strings.Contains(body, "<title>503 Service Temporarily Unavailable</title>") {
			t.Errorf("%d %v %q", res.StatusCode, res.Header, body)
		}
	})
	t.Run("initial target", func(t *testing.T) {
		b := newBed(t)
		tg := targetGroup()
		tg.Endpoints = append(tg.Endpoints, endpointAt(ok, agent.EndpointState_ENDPOINT_INITIAL))
		b.targets(tg)
		if res, _ := get(t, b.url("/")); res.StatusCode != 503 {
			t.Errorf("%d", res.StatusCode)
		}
	})
	t.Run("fail open", func(t *testing.T) {
		b := newBed(t)
		tg := targetGroup()
		tg.Endpoints = append(tg.Endpoints, endpointAt(ok, agent.EndpointState_ENDPOINT_UNHEALTHY))
		b.targets(tg)
		if res, _ := get(t, b.url("/")); res.StatusCode != 200 {
			t.Errorf("%d", res.StatusCode)
		}
	})
	t.Run("refused", func(t *testing.T) {
		b := newBed(t)
		b.targets(targetGroup(refused))
		if res, _ := get(t, b.url("/")); res.StatusCode != 502 {
			t.Errorf("%d", res.StatusCode)
		}
	})
	t.Run("refused, then another", func(t *testing.T) {
		b := newBed(t)
		b.targets(targetGroup(refused, ok))
		for range 10 {
			res, err := http.Post(b.url("/"), "text/plain", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode != 200 || string(body) != "ok body" {
				t.Errorf("%d %q", res.StatusCode, body)
			}
		}
	})
	t.Run("late", func(t *testing.T) {
		b := newBed(t, func(l *agent.Listener) { l.IdleTimeoutSeconds = 1 })
		hold := make(chan struct{})
		t.Cleanup(func() { close(hold) })
		b.targets(targetGroup(rawTarget(t, func(c net.Conn, br *bufio.Reader) {
			readRequest(br)
			<-hold
		})))
		if res, _ := get(t, b.url("/")); res.StatusCode != 504 {
			t.Errorf("%d", res.StatusCode)
		}
	})
	t.Run("early answer", func(t *testing.T) {
		b := newBed(t)
		b.targets(targetGroup(rawTarget(t, func(c net.Conn, br *bufio.Reader) {
			br.ReadString('\n')
			io.WriteString(c, "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
			io.Copy(io.Discard, io.LimitReader(br, 1<<10))
		})))
		pr, pw := io.Pipe()
		t.Cleanup(func() { pw.Close() })
		go pw.Write([]byte("some"))
		r, _ := http.NewRequest("POST", b.url("/"), pr)
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 413 || string(body) != "big" {
			t.Errorf("%d %q", res.StatusCode, body)
		}
	})
}

// TestStaleConnection: a target that closes idle connections without saying so costs no request.
func TestStaleConnection(t *testing.T) {
	for _, method := range []string{"GET", "POST"} {
		t.Run(method, func(t *testing.T) {
			b := newBed(t)
			var served atomic.Int64
			closed := make(chan struct{}, 100)
			addr := rawTarget(t, func(c net.Conn, br *bufio.Reader) {
				defer func() { c.Close(); closed <- struct{}{} }()
				if readRequest(br) == "" {
					return
				}
				served.Add(1)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") // keep-alive, says HTTP/1.1, and lies
			})
			b.targets(targetGroup(addr))
			pool := &b.proxy.groups[testGroup].table.Load().all[addr].pool
			for i := range 20 {
				r, _ := http.NewRequest(method, b.url("/"), nil)
				if method == "POST" {
					r, _ = http.NewRequest(method, b.url("/"), strings.NewReader("body"))
				}
				res, err := http.DefaultTransport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if res.StatusCode != 200 {
					t.Fatalf("request %d: %d", i, res.StatusCode)
				}
				<-closed
				eventually(t, "the end has arrived", func() bool {
					pool.mu.Lock()
					defer pool.mu.Unlock()
					return len(pool.idle) == 1 && !pool.idle[0].alive()
				})
			}
			if n := served.Load(); n != 20 {
				t.Errorf("the target served %d requests of 20", n)
			}
		})
	}
}

// TestClientLeaves: the target's request ends and the endpoint is not held in flight.
func TestClientLeaves(t *testing.T) {
	b := newBed(t)
	arrived, gone := make(chan struct{}), make(chan struct{})
	addr := target(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(gone)
	})
	b.targets(targetGroup(addr))
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		r, _ := http.NewRequestWithContext(ctx, "GET", b.url("/"), nil)
		http.DefaultTransport.RoundTrip(r)
	}()
	<-arrived
	cancel()
	select {
	case <-gone:
	case <-time.After(time.Minute):
		t.Fatal("the target still works for a client that left")
	}
	e := b.proxy.groups[testGroup].table.Load().all[addr]
	eventually(t, "no request in flight", func() bool { return e.inFlight.Load() == 0 })
}

func TestDrain(t *testing.T) {
	b := newBed(t)
	arrived, hold := make(chan struct{}, 10), make(chan struct{})
	old := target(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-hold
		io.WriteString(w, "old")
	})
	fresh := target(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "new") })
	b.targets(targetGroup(old))
	got := make(chan string)
	go func() {
		_, body := get(t, b.url("/"))
		got <- body
	}()
	<-arrived
	tg := targetGroup(fresh)
	tg.Endpoints = append(tg.Endpoints, endpointAt(old, agent.EndpointState_ENDPOINT_DRAINING))
	rev := b.targets(tg)
	for range 20 {
		if _, body := get(t, b.url("/")); body != "new" {
			t.Fatalf("a draining endpoint got a new request: %q", body)
		}
	}
	if r := b.drainedAt(old); r != 0 {
		t.Fatalf("drained at %d while a request is in flight", r)
	}
	close(hold)
	if body := <-got; body != "old" {
		t.Errorf("the request in flight got %q", body)
	}
	eventually(t, "the drain is reported", func() bool { return b.drainedAt(old) == rev })
	// A later set that still has it, for example after a new session, is answered again.
	rev = b.targets(tg)
	eventually(t, "the drain is reported again", func() bool { return b.drainedAt(old) == rev })
}

// TestDrainRace: a drain that was reported with nothing in flight sees no request afterwards, whatever the schedule.
func TestDrainRace(t *testing.T) {
	p := New(Config{})
	for range 2000 {
		var drained atomic.Bool
		p.cfg.Drained = func(*agent.Drained) { drained.Store(true) }
		g := newGroup("g", p)
		tg := targetGroup("127.0.0.1:1")
		g.set(tg, 1)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				e := g.pick(nil)
				if e == nil {
					return
				}
				if drained.Load() {
					t.Error("a request entered after the drain was reported")
				}
				e.leave()
			})
		}
		tg.Endpoints[0].State = agent.EndpointState_ENDPOINT_DRAINING
		g.set(tg, 2)
		wg.Wait()
		if !drained.Load() {
			t.Fatal("the drain was never reported")
		}
	}
}

func TestPause(t *testing.T) {
	b := newBed(t)
	resume := b.proxy.Pause()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := b.proxy.Apply(ctx, &agent.Update{Kind: agent.Kind_TARGETS}); err == nil {
		t.Error("a paused proxy applied a set")
	}
	resume()
	b.targets(targetGroup())
}
