package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/api/agent"
)

// rawClient is a client that says what it is told, byte by byte.
type rawClient struct {
	t testing.TB
	*net.TCPConn
	br *bufio.Reader
}

func (b *bed) dial(t testing.TB, said string) *rawClient {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", b.port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute)) // a test that hangs says where
	r := &rawClient{t, c.(*net.TCPConn), bufio.NewReader(c)}
	r.say(said)
	return r
}

func (c *rawClient) say(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads one answer to a request with method.
func (c *rawClient) answer(method string) (*http.Response, string) {
	c.t.Helper()
	res, err := http.ReadResponse(c.br, &http.Request{Method: method})
	if err != nil {
		c.t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return res, string(body)
}

// expect reads one answer and compares its status and body.
func (c *rawClient) expect(method, want string) *http.Response {
	c.t.Helper()
	res, body := c.answer(method)
	if got := fmt.Sprintf("%d %s", res.StatusCode, body); got != want && !(strings.HasSuffix(want, "…") && strings.HasPrefix(got, strings.TrimSuffix(want, "…"))) {
		c.t.Errorf("%q, want %q", got, want)
	}
	return res
}

// ends says that the connection ends in order, with nothing left to read.
func (c *rawClient) ends() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.br); err != nil || len(rest) > 0 {
		c.t.Errorf("at the end: %q, %v", rest, err)
	}
}

// echo tells the request it got: method, URI, length of the body, trailer X-Sum.
func echo(t testing.TB) string {
	return target(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		fmt.Fprintf(w, "%s %s %d %s", r.Method, r.RequestURI, len(body), r.Trailer.Get("X-Sum"))
	})
}

// TestRefusedOnTheWire: a malformed request is answered and ends the connection; its target never hears of it, nor of what follows.
func TestRefusedOnTheWire(t *testing.T) {
	b := newBed(t)
	var reached atomic.Int64
	b.targets(targetGroup(target(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) })))
	smuggled := "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, c := range map[string]struct {
		said string
		want int
	}{
		"both lengths":  {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, 400},
		"two lengths":   {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n" + smuggled, 400},
		"bare LF":       {"GET / HTTP/1.1\nHost: x\n\n", 400},
		"bare LF, late": {"GET / HTTP/1.1\r\nHost: x\r\nX-A: b\n\n", 400},
		"TLS":           {"\x16\x03\x01\x02\x00\x01", 400},
		"long field":    {"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 20<<10) + "\r\n\r\n", 400},
		"long head":     {"GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 70), 400},
		"long target":   {"GET /" + strings.Repeat("a", 20<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", 414},
		"endless line":  {"GET /" + strings.Repeat("a", 70<<10), 414},
		"TRACE":         {"TRACE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405},
		"CONNECT":       {"CONNECT x:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400},
		"version":       {"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 505},
	} {
		t.Run(name, func(t *testing.T) {
			want := fmt.Sprintf("%d <html>…", c.want)
			c := b.dial(t, c.said)
			res := c.expect("GET", want)
			if res.Header.Get("Server") != "awselb/2.0" || !res.Close || res.Header.Get("Date") == "" {
				t.Errorf("header %v", res.Header)
			}
			c.ends()
		})
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d requests reached the target", n)
	}
}

// TestLongHead: within the limits everything passes, whatever the size of our buffers.
func TestLongHead(t *testing.T) {
	b := newBed(t)
	var got atomic.Int64
	b.targets(targetGroup(target(t, func(w http.ResponseWriter, r *http.Request) {
		got.Store(int64(len(r.Header["X-A"])*10000 + len(r.URL.Path)))
	})))
	c := b.dial(t, "")
	for range 3 {
		c.say("GET /" + strings.Repeat("p", 15<<10) + " HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 9<<10)+"\r\n", 4) + "\r\n")
		c.expect("GET", "200 ")
		if want := int64(4*10000 + 15<<10 + 1); got.Load() != want {
			t.Errorf("got %d, want %d", got.Load(), want)
		}
	}
}

// TestFieldsInOrder: what the client sent reaches the target in its order and spelling, but for what belongs to the connection.
func TestFieldsInOrder(t *testing.T) {
	b := newBed(t)
	heads := make(chan string, 1)
	b.targets(targetGroup(rawTarget(t, func(c net.Conn, br *bufio.Reader) {
		head, err := readHead(br, 1<<20)
		if err == nil {
			heads <- head
			io.WriteString(c, "HTTP/1.1 200 OK\r\nx-lower: 1\r\nX-b: 2\r\nX-A: 3\r\nKeep-Alive: timeout=5\r\nConnection: x-b\r\nContent-Length: 0\r\n\r\n")
		}
	})))
	c := b.dial(t, "GET http://shop.example/a HTTP/1.1\r\nhost: ignored\r\nx-zeta: 1\r\nX-Alpha:  two \r\nX_Under: 3\r\nTE: trailers\r\nConnection: x-hop, te\r\n"+
		"X-Hop: 4\r\nKeep-Alive: 5\r\nProxy-Connection: 6\r\nx-zeta: 7\r\nX-Forwarded-For: 192.0.2.1\r\nX-Amzn-Trace-Id: Root=1-a\r\n\r\n")
	head, _, _ := strings.Cut(<-heads, "X-Amzn-Trace-Id")
	if want := fmt.Sprintf("GET /a HTTP/1.1\r\nHost: shop.example:%d\r\nx-zeta: 1\r\nX-Alpha: two\r\nX_Under: 3\r\nx-zeta: 7\r\n"+
		"X-Forwarded-For: 192.0.2.1, 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: %d\r\n", b.port, b.port); head != want {
		t.Errorf("target got\n%q, want\n%q", head, want)
	}
	got, err := readHead(c.br, 1<<20)
	if want := "HTTP/1.1 200 OK\r\nx-lower: 1\r\nX-A: 3\r\nContent-Length: 0\r\nDate: "; err != nil || !strings.HasPrefix(got, want) {
		t.Errorf("client got\n%q, %v, want\n%q…", got, err, want)
	}
}

func TestDropInvalidFields(t *testing.T) {
	b := newBed(t, func(l *agent.Listener) { l.DropInvalidHeaders = true })
	b.targets(targetGroup(target(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Good"), r.Header.Get("X_Bad"), r.Header.Get("X.bad"))
	})))
	b.dial(t, "GET / HTTP/1.1\r\nHost: x\r\nX_Bad: 1\r\nX-Good: 2\r\nX.Bad: 3\r\n\r\n").expect("GET", "200 2")
}

func TestPipelining(t *testing.T) {
	b := newBed(t)
	b.targets(targetGroup(echo(t)))
	c := b.dial(t, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n"+
		"POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\r\n"+ // an empty line too many, as old clients have it
		"POST /3 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3;ext=1\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 42\r\n\r\n"+
		"HEAD /4 HTTP/1.1\r\nHost: x\r\n\r\n"+
		"GET /5 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"+
		"GET /never HTTP/1.1\r\nHost: x\r\n\r\n")
	c.expect("GET", "200 GET /1 0 ")
	c.expect("POST", "200 POST /2 5 ")
	c.expect("POST", "200 POST /3 7 42")
	if res := c.expect("HEAD", "200 "); res.Header.Get("Content-Length") != "10" {
		t.Errorf("HEAD: %v", res.Header)
	}
	if res := c.expect("GET", "200 GET /5 0 "); !res.Close {
		t.Error("the end is not announced")
	}
	c.ends()
}

func TestHTTP10(t *testing.T) {
	b := newBed(t)
	b.targets(targetGroup(target(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			http.NewResponseController(w).Flush() // so that the answer has no length
		}
		fmt.Fprintf(w, "%s %v", r.Proto, r.Header["Connection"])
	})))
	plain := b.dial(t, "GET / HTTP/1.0\r\n\r\n")
	plain.expect("GET", "200 HTTP/1.1 []")
	plain.ends()
	kept := b.dial(t, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
	for range 2 {
		if res := kept.expect("GET", "200 HTTP/1.1 []"); res.Header.Get("Connection") != "keep-alive" {
			t.Errorf("header %v", res.Header)
		}
		kept.say("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
	}
	kept.expect("GET", "200 HTTP/1.1 []")
	// HTTP/1.0 has no chunks: an answer without a length ends with the connection.
	kept.say("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
	if res := kept.expect("GET", "200 HTTP/1.1 []"); len(res.TransferEncoding) > 0 || res.ContentLength >= 0 {
		t.Errorf("%v, length %d", res.TransferEncoding, res.ContentLength)
	}
	kept.ends()
}

// TestWithoutBody: such answers leave the connection in step.
func TestWithoutBody(t *testing.T) {
	b := newBed(t)
	b.targets(targetGroup(rawTarget(t, func(c net.Conn, br *bufio.Reader) {
		for {
			switch line := readRequest(br); line {
			case "":
				return
			case "GET /204":
				io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
			case "GET /304":
				io.WriteString(c, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n")
			case "HEAD /chunked":
				io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			default:
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}
	})))
	c := b.dial(t, "")
	for _, path := range []string{"GET /204", "GET /304", "HEAD /chunked", "GET /ok", "GET /204", "GET /ok"} {
		c.say(path + " HTTP/1.1\r\nHost: x\r\n\r\n")
		want := map[string]string{"GET /204": "204 ", "GET /304": "304 ", "HEAD /chunked": "200 ", "GET /ok": "200 ok"}[path]
		c.expect(path[:strings.IndexByte(path, ' ')], want)
	}
}

func TestContinue(t *testing.T) {
	b := newBed(t, func(l *agent.Listener) {
		l.Rules = []*agent.Rule{forwardTo(testGroup), fixedRule(1, "fixed", &agent.Condition{Field: "path-pattern", Values: []string{"/fixed"}})}
	})
	b.targets(targetGroup(echo(t)))
	head := func(path string) string {
		return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
	}
	c := b.dial(t, head("/1"))
	c.expect("POST", "100 ")
	c.say("hello")
	c.expect("POST", "200 POST /1 5 ")
	// Who does not wait is not told.
	c.say(head("/2") + "hello")
	res, _ := c.answer("POST")
	if res.StatusCode == 100 { // the two came apart
		c.expect("POST", "200 POST /2 5 ")
	}
	// Nobody wants this one's body, and whether it comes cannot be known: the connection ends.
	c.say(head("/fixed"))
	if res := c.expect("POST", "200 fixed"); !res.Close {
		t.Error("the connection is kept")
	}
	c.ends()
}

// TestUnwantedBody: a body that no target gets is read over, and the connection goes on.
func TestUnwantedBody(t *testing.T) {
	b := newBed(t, func(l *agent.Listener) { l.Rules = []*agent.Rule{fixedRule(0, "fixed")} })
	c := b.dial(t, "")
	for range 2 {
		c.say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000))
		c.expect("POST", "200 fixed")
	}
	c.say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n" + strings.Repeat("x", 100000))
	if res := c.expect("POST", "200 fixed"); !res.Close {
		t.Error("a connection with 10 MB to come is kept")
	}
}

// TestBrokenBody: the client is told, and the target does not take half a body for a whole one.
func TestBrokenBody(t *testing.T) {
	for name, c := range map[string]struct{ said, want string }{
		"bad chunk":     {"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", "400 <html>…"},
		"bad extension": {"Transfer-Encoding: chunked\r\n\r\n3;" + strings.Repeat("a", 300) + "\r\nabc\r\n0\r\n\r\n", "400 <html>…"},
		"bad trailer":   {"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 3\r\n\r\n", "400 <html>…"},
		"stalls":        {"Content-Length: 5\r\n\r\nabc", "408 <html>…"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, func(l *agent.Listener) {
				if name == "stalls" {
					l.IdleTimeoutSeconds = 1
				}
			})
			whole := make(chan bool, 1)
			b.targets(targetGroup(target(t, func(w http.ResponseWriter, r *http.Request) {
				_, err := io.ReadAll(r.Body)
				whole <- err == nil
			})))
			client := b.dial(t, "POST / HTTP/1.1\r\nHost: x\r\n"+c.said)
			client.expect("POST", c.want)
			if <-whole {
				t.Error("the target took it for whole")
			}
			client.ends()
		})
	}
}

// TestEarlyAnswer: an answer given while the body is still sent reaches the client, which sends on without reading.
func TestEarlyAnswer(t *testing.T) {
	b := newBed(t)
	b.targets(targetGroup(rawTarget(t, func(c net.Conn, br *bufio.Reader) {
		readHead(br, 1<<20)
		io.WriteString(c, "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\n\r\nbig")
		io.Copy(io.Discard, br)
	})))
	c := b.dial(t, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"+strings.Repeat("x", 100000))
	if res := c.expect("POST", "413 big"); !res.Close {
		t.Error("the connection is kept")
	}
}

// TestInterimThenEnd: a target that began to answer has begun the request's work; it is not asked again.
func TestInterimThenEnd(t *testing.T) {
	b := newBed(t)
	var asked atomic.Int64
	b.targets(targetGroup(rawTarget(t, func(c net.Conn, br *bufio.Reader) {
		for readRequest(br) != "" {
			if asked.Add(1) == 2 {
				io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})))
	c := b.dial(t, "")
	for _, want := range []string{"200 ok", "502 <html>…", "200 ok"} {
		c.say("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		c.expect("GET", want)
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times", n)
	}
}

// TestHTTP2Kept: bodies and answers over HTTP/2 leave the client's connection in step.
func TestHTTP2Kept(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %d %s", r.Method, r.RequestURI, len(body), r.Trailer.Get("X-Sum"))
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	b := newBed(t)
	tg := targetGroup(s.Listener.Addr().String())
	tg.ProtocolVersion = "HTTP2"
	b.targets(tg)
	c := b.dial(t, "")
	for range 3 {
		c.say("POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
		c.expect("POST", "200 POST /1 5 ")
		c.say("POST /2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n")
		c.expect("POST", "200 POST /2 3 42")
		c.say("HEAD /3 HTTP/1.1\r\nHost: x\r\n\r\n")
		c.expect("HEAD", "200 ")
		c.say("GET /4 HTTP/1.1\r\nHost: x\r\n\r\n")
		c.expect("GET", "200 GET /4 0 ")
	}
}

func TestEarlyHints(t *testing.T) {
	b := newBed(t)
	b.targets(targetGroup(rawTarget(t, func(c net.Conn, br *bufio.Reader) {
		for readRequest(br) != "" {
			io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nX-A: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})))
	c := b.dial(t, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if res := c.expect("GET", "103 "); res.Header.Get("Link") != "</a.css>" || len(res.Header) != 1 {
		t.Errorf("hints %v", res.Header)
	}
	if res := c.expect("GET", "200 ok"); res.Header.Get("Link") != "" {
		t.Errorf("header %v", res.Header)
	}
	b.dial(t, "GET / HTTP/1.0\r\n\r\n").expect("GET", "200 ok")
}

// TestLargeBodies: megabytes both ways at once, framed either way.
func TestLargeBodies(t *testing.T) {
	b := newBed(t)
	b.targets(targetGroup(target(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		if r.ContentLength > 0 {
			w.Header().Set("Content-Length", fmt.Sprint(r.ContentLength))
		}
		io.Copy(w, r.Body)
	})))
	body := make([]byte, 5<<20)
	for i := range body {
		body[i] = byte(i * 7 >> 3)
	}
	for _, chunked := range []bool{false, true} {
		r, _ := http.NewRequest("POST", b.url("/"), bytes.NewReader(body))
		if chunked {
			r.ContentLength = -1
		}
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || !bytes.Equal(got, body) || (res.ContentLength < 0) != chunked {
			t.Errorf("chunked %v: %d bytes of length %d, %v", chunked, len(got), res.ContentLength, err)
		}
	}
}

// TestBackPressure: who does not read holds up who writes; nothing is piled up between them.
func TestBackPressure(t *testing.T) {
	const much = 64 << 20
	// stuck writes until nothing goes through for a moment, and says how much did.
	stuck := func(c net.Conn) (n int) {
		piece := make([]byte, 64<<10)
		for n < much {
			c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			k, err := c.Write(piece)
			if n += k; err != nil {
				return n
			}
		}
		return n
	}
	t.Run("request", func(t *testing.T) {
		b := newBed(t)
		hold := make(chan struct{})
		defer close(hold)
		b.targets(targetGroup(rawTarget(t, func(net.Conn, *bufio.Reader) { <-hold })))
		c := b.dial(t, fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", much))
		if n := stuck(c); n >= much {
			t.Errorf("%d bytes went to a target that reads none", n)
		}
	})
	t.Run("answer", func(t *testing.T) {
		b := newBed(t)
		wrote := make(chan int, 1)
		b.targets(targetGroup(rawTarget(t, func(c net.Conn, br *bufio.Reader) {
			readRequest(br)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", much)
			wrote <- stuck(c)
		})))
		b.dial(t, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if n := <-wrote; n >= much {
			t.Errorf("%d bytes went to a client that reads none", n)
		}
	})
}
