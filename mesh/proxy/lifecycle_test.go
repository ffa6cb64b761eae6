package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/api/agent"
)

// oneSecond makes the shortest idle timeout.
func oneSecond(l *agent.Listener) { l.IdleTimeoutSeconds = 1 }

// fiveSeconds makes one within which a target answers, whatever else its machine does.
func fiveSeconds(l *agent.Listener) { l.IdleTimeoutSeconds = 5 }

// TestSlowClients: who says nothing, or too slowly, is let go after the idle timeout, and not before.
func TestSlowClients(t *testing.T) {
	b := newBed(t, fiveSeconds)
	b.targets(targetGroup(echo(t)))
	start := time.Now()
	silent := b.dial(t, "")
	between := b.dial(t, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
	between.expect("GET", "200 GET /1 0 ")
	dripping := b.dial(t, "GET / HTTP/1.1\r\n")
	go func() {
		for range time.Tick(50 * time.Millisecond) { // a byte now and then does not help
			if _, err := io.WriteString(dripping, "X"); err != nil {
				return
			}
		}
	}()
	silent.ends()
	between.ends()
	if took := time.Since(start); took < 5*time.Second {
		t.Errorf("closed after %s", took)
	}
	dripping.expect("GET", "408 <html>…")
}

// TestClientDoesNotRead: it holds neither the target's connection nor its drain beyond the idle timeout.
func TestClientDoesNotRead(t *testing.T) {
	b := newBed(t, oneSecond)
	arrived := make(chan struct{})
	addr := target(t, func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		io.CopyN(w, zeros{}, 64<<20)
	})
	b.targets(targetGroup(addr))
	b.dial(t, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	e := b.proxy.groups[testGroup].table.Load().all[addr]
	<-arrived
	eventually(t, "the request ends", func() bool { return e.inFlight.Load() == 0 })
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// TestClientLeavesWith: however a client leaves, and whatever it said before, the target's request ends and is counted as 460.
func TestClientLeavesWith(t *testing.T) {
	const get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, leave := range map[string]func(*rawClient){
		"close":                func(c *rawClient) { c.Close() },
		"reset":                func(c *rawClient) { c.SetLinger(0); c.Close() },
		"close after the next": func(c *rawClient) { c.say(get); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			arrived, gone := make(chan struct{}), make(chan struct{})
			addr := target(t, func(w http.ResponseWriter, r *http.Request) {
				close(arrived)
				<-r.Context().Done()
				close(gone)
			})
			b.targets(targetGroup(addr))
			c := b.dial(t, get)
			<-arrived
			leave(c)
			<-gone
			e := b.proxy.groups[testGroup].table.Load().all[addr]
			eventually(t, "no request in flight", func() bool { return e.inFlight.Load() == 0 })
			stats := b.proxy.metrics.listener(testListener, "web")
			eventually(t, "a 4xx is counted", func() bool { return stats.codes[4].Load() == 1 })
			if n := e.group.stats.failed.Load(); n != 0 {
				t.Error("it is counted as the target's failure")
			}
		})
	}
}

// TestClientLeavesStream: also while an endless answer has nothing new to say.
func TestClientLeavesStream(t *testing.T) {
	b := newBed(t)
	gone := make(chan struct{})
	b.targets(targetGroup(target(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "tick")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})))
	c := b.dial(t, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := http.ReadResponse(c.br, nil); err != nil {
		t.Fatal(err)
	}
	c.Close()
	<-gone
}

// TestListenerGoes: idle connections are closed at once, requests in flight are answered and end their connections.
func TestListenerGoes(t *testing.T) {
	b := newBed(t)
	arrived, hold := make(chan struct{}), make(chan struct{})
	b.targets(targetGroup(target(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(arrived)
			<-hold
		}
		io.WriteString(w, "ok")
	})))
	fresh := b.dial(t, "")
	idle := b.dial(t, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	idle.expect("GET", "200 ok")
	busy := b.dial(t, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-arrived
	b.listeners()
	idle.ends()
	fresh.ends()
	if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", b.port)); err == nil {
		c.Close()
		t.Error("the socket is still open")
	}
	close(hold)
	if res := busy.expect("GET", "200 ok"); !res.Close {
		t.Error("the end is not announced")
	}
}

// TestListenerGoesForGood: what is not done within the idle timeout is ended.
func TestListenerGoesForGood(t *testing.T) {
	b := newBed(t, oneSecond)
	gone := make(chan struct{})
	b.targets(targetGroup(rawTarget(t, func(c net.Conn, br *bufio.Reader) {
		if readRequest(br) == "" {
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
		for range time.Tick(20 * time.Millisecond) { // never silent for long, never done
			if _, err := io.WriteString(c, "x"); err != nil {
				close(gone)
				return
			}
		}
	})))
	c := b.dial(t, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := c.br.Peek(1); err != nil {
		t.Fatal(err)
	}
	b.listeners()
	<-gone
	if _, err := io.ReadAll(c.br); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

// TestTunnelGoes: a tunnel outlives the listener for the idle timeout at most.
func TestTunnelGoes(t *testing.T) {
	b := newBed(t, fiveSeconds)
	b.targets(targetGroup(rawTarget(t, func(c net.Conn, br *bufio.Reader) {
		if _, err := http.ReadRequest(br); err != nil {
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		io.Copy(c, br)
	})))
	c := b.dial(t, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	if res, err := http.ReadResponse(c.br, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("%v, %v", res, err)
	}
	b.listeners()
	c.say("still here")
	buf := make([]byte, len("still here"))
	if _, err := io.ReadFull(c.br, buf); err != nil || string(buf) != "still here" {
		t.Fatalf("%q, %v", buf, err)
	}
	io.ReadAll(c.br) // until the end, or the deadline of the test's connection
	if _, err := c.Write([]byte("x")); err == nil {
		eventually(t, "the tunnel is gone", func() bool { _, err := c.Write([]byte("x")); return err != nil })
	}
}

// TestCutShortIsReset: the end of an answer that the connection's end marks cannot be taken for a whole one.
func TestCutShortIsReset(t *testing.T) {
	b := newBed(t)
	b.targets(targetGroup(rawTarget(t, func(c net.Conn, br *bufio.Reader) {
		readRequest(br)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nhe")
	})))
	c := b.dial(t, "GET / HTTP/1.0\r\n\r\n")
	if got, err := io.ReadAll(c.br); err == nil {
		t.Errorf("%q is taken for whole", got)
	}
}

// TestIdleTimeoutFollows: a shorter idle timeout reaches the connections that are open.
func TestIdleTimeoutFollows(t *testing.T) {
	b := newBed(t)
	b.targets(targetGroup(echo(t)))
	c := b.dial(t, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
	c.expect("GET", "200 GET /1 0 ")
	b.listeners(&agent.Listener{Arn: testListener, LoadBalancerName: "web", Port: b.port, Protocol: "HTTP", IdleTimeoutSeconds: 5,
		Rules: []*agent.Rule{forwardTo(testGroup)}})
	c.say("GET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
	c.expect("GET", "200 GET /2 0 ")
	c.ends()
}

// TestPlatformPort: what comes through net/http's server on the platform's port is served alike.
func TestPlatformPort(t *testing.T) {
	b := newBed(t)
	b.targets(targetGroup(rawTarget(t, func(c net.Conn, br *bufio.Reader) {
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			if r.Header.Get("Upgrade") != "" {
				io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
				io.Copy(c, br)
				return
			}
			body, _ := io.ReadAll(r.Body)
			said := fmt.Sprintf("%s %s %d %s %s", r.Method, r.RequestURI, len(body), r.Trailer.Get("X-Sum"), r.Header.Get("X-Forwarded-For"))
			switch r.URL.Path {
			case "/cut":
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
				return
			case "/hints":
				io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
			case "/wait":
				br.ReadByte() // until the proxy closes
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nX-After: 1\r\n\r\n", len(said), said)
		}
	})))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h, ok := b.proxy.ForHost("web-1.us-east-1.elb.localhost"); ok {
			h.ServeHTTP(w, r)
		}
	}))
	defer s.Close()
	here := &bed{t: t, port: uint32(s.Listener.Addr().(*net.TCPAddr).Port)}
	for name, c := range map[string]struct{ said, want string }{
		"get":     {"GET /a%2Fb?c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "200 GET /a%2Fb?c 0  127.0.0.1"},
		"length":  {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", "200 POST / 5  127.0.0.1"},
		"trailer": {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 42\r\n\r\n", "200 POST / 3 42 127.0.0.1"},
		"trace":   {"TRACE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "405 <html>…"},
	} {
		t.Run(name, func(t *testing.T) {
			client := here.dial(t, c.said)
			res := client.expect("GET", c.want)
			if name != "trace" && res.Trailer.Get("X-After") != "1" {
				t.Errorf("trailer %v", res.Trailer)
			}
			client.ends()
		})
	}
	t.Run("hints", func(t *testing.T) {
		client := here.dial(t, "GET /hints HTTP/1.1\r\nHost: x\r\n\r\n")
		if res := client.expect("GET", "103 "); res.Header.Get("Link") != "</a.css>" {
			t.Errorf("hints %v", res.Header)
		}
		client.expect("GET", "200 GET…")
	})
	t.Run("cut short", func(t *testing.T) {
		client := here.dial(t, "GET /cut HTTP/1.1\r\nHost: x\r\n\r\n")
		res, err := http.ReadResponse(client.br, nil)
		if err != nil {
			return
		}
		if body, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("%q is taken for whole", body)
		}
	})
	t.Run("upgrade", func(t *testing.T) {
		client := here.dial(t, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nearly")
		if res, err := http.ReadResponse(client.br, nil); err != nil || res.StatusCode != 101 {
			t.Fatalf("%v, %v", res, err)
		}
		client.CloseWrite()
		if got, err := io.ReadAll(client.br); string(got) != "early" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("client leaves", func(t *testing.T) {
		stats := b.proxy.metrics.listener(testListener, "web")
		before := stats.codes[4].Load()
		client := here.dial(t, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
		eventually(t, "it is in flight", func() bool { return stats.active.Load() == 1 })
		client.Close()
		eventually(t, "it is counted", func() bool { return stats.codes[4].Load() == before+1 })
	})
}

// BenchmarkExchange is a small request over kept connections: client, proxy and target in one process. What it is for is the
// allocations: those of the proxy, client and target having none.
func BenchmarkExchange(b *testing.B) {
	bed := newBed(b)
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 512\r\n\r\n" + strings.Repeat("x", 512))
	bed.targets(targetGroup(rawTarget(b, func(c net.Conn, br *bufio.Reader) {
		buf := make([]byte, 4<<10)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	})))
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", bed.port))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	ask := []byte("GET /api/users/7 HTTP/1.1\r\nHost: bench.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
	buf, body := make([]byte, 4<<10), answer[len(answer)-512:]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(ask); err != nil {
			b.Fatal(err)
		}
		for n := 0; !bytes.HasSuffix(buf[:n], body); {
			k, err := c.Read(buf[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += k
		}
	}
}
