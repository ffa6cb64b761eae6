package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-2f228079/neargate/api/agent"
)

func TestHost(t *testing.T) {
	for _, c := range []struct {
		port, given string
		preserve    bool
		want        string
	}{
		{"80", "shop.example", false, "shop.example"},
		{"80", "shop.example:8080", false, "shop.example"},
		{"443", "[::1]:443", false, "[::1]"},
		{"443", "[::1]", false, "[::1]"},
		{"8080", "shop.example", false, "shop.example:8080"},
		{"8080", "shop.example:8080", false, "shop.example:8080"},
		{"8080", "shop.example:9", false, "shop.example:9"},
		{"8080", "[::1]", false, "[::1]:8080"},
		{"8080", "", false, ""},
		{"80", "shop.example:8080", true, "shop.example:8080"},
		{"8080", "shop.example", true, "shop.example"},
	} {
		if got := (&listener{port: c.port, preserveHost: c.preserve}).host(c.given); got != c.want {
			t.Errorf("port %s, preserve %v: %q becomes %q, want %q", c.port, c.preserve, c.given, got, c.want)
		}
	}
}

// TestTCPListener: bytes of a client reach a target and its answer comes back, each side may close first, and a connection that
// no target takes is closed.
func TestTCPListener(t *testing.T) {
	b := newBed(t, func(l *agent.Listener) { l.Protocol = "TCP" })
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				said, _ := io.ReadAll(c) // until the client's half is closed
				fmt.Fprintf(c, "%d bytes: %s", len(said), said)
			}()
		}
	}()
	tg := targetGroup(server.Addr().String())
	tg.Protocol, tg.ProtocolVersion = "TCP", ""
	b.targets(tg)
	for range 3 {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", b.port))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "not HTTP\x00at all")
		c.(*net.TCPConn).CloseWrite()
		got, err := io.ReadAll(c)
		c.Close()
		if want := "15 bytes: not HTTP\x00at all"; string(got) != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	b.targets(&agent.TargetGroup{Arn: testGroup, Protocol: "TCP"})
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", b.port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("without a target: %d bytes, %v; want the connection closed", n, err)
	}
}

// TestTCPListenerGoes: a connection that was accepted when the listener went ends: nothing would end it later, and Run would wait for it.
func TestTCPListenerGoes(t *testing.T) {
	b := newBed(t, func(l *agent.Listener) { l.Protocol = "TCP" })
	tg := targetGroup(rawTarget(t, func(c net.Conn, br *bufio.Reader) {
		io.WriteString(c, "carried")
		io.Copy(io.Discard, br)
	}))
	tg.Protocol, tg.ProtocolVersion = "TCP", ""
	b.targets(tg)
	for _, f := range b.proxy.fronts {
		f.open.shutdown(t.Context())
	}
	if got, _ := io.ReadAll(io.LimitReader(b.dial(t, ""), 7)); len(got) > 0 {
		t.Errorf("got %q", got)
	}
}

// TestHTTP2Target: a gRPC-shaped exchange, with a body both ways and trailers, over HTTP/2 without TLS on both sides.
func TestHTTP2Target(t *testing.T) {
	target := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "Grpc-Status")
		w.Header().Set("Content-Type", "application/grpc")
		fmt.Fprintf(w, "%s %s te=%s host=%s: %s", r.Proto, r.URL.Path, r.Header.Get("Te"), r.Host, said)
		w.Header().Set("Grpc-Status", "7")
	}))
	target.Config.Protocols = new(http.Protocols)
	target.Config.Protocols.SetUnencryptedHTTP2(true)
	target.Start()
	defer target.Close()
	b := newBed(t)
	tg := targetGroup(strings.TrimPrefix(target.URL, "http://"))
	tg.ProtocolVersion = "GRPC"
	b.targets(tg)
	req, err := http.NewRequest("POST", b.url("/pkg.Service/Method"), strings.NewReader("message"))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "shop.example"
	req.Header.Set("Te", "trailers")
	req.Header.Set("Content-Type", "application/grpc")
	client := &http.Transport{}
	defer client.CloseIdleConnections()
	res, err := client.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if want := fmt.Sprintf("HTTP/2.0 /pkg.Service/Method te=trailers host=shop.example:%d: message", b.port); string(body) != want || err != nil {
		t.Errorf("got %d %q, %v, want %q", res.StatusCode, body, err, want)
	}
	if got := res.Trailer.Get("Grpc-Status"); got != "7" {
		t.Errorf("trailer Grpc-Status %q, want 7", got)
	}
}

// TestMetrics: what was served is counted under the listener's and the target group's names.
func TestMetrics(t *testing.T) {
	b := newBed(t)
	b.targets(targetGroup(target(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(404)
		}
	})))
	for _, path := range []string{"/", "/", "/no"} {
		res, err := http.Get(b.url(path))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(b.proxy); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`neargate_lb_active listener=` + testListener + ` 0`,
		`neargate_lb_request_seconds listener=` + testListener + ` 3`,
		`neargate_lb_requests_total class=2xx listener=` + testListener + ` 2`,
		`neargate_lb_requests_total class=4xx listener=` + testListener + ` 1`,
		`neargate_target_connection_errors_total target_group=` + testGroup + ` 0`,
		`neargate_target_failures_total target_group=` + testGroup + ` 0`,
		`neargate_target_response_seconds target_group=` + testGroup + ` 3`,
		`neargate_target_responses_total class=2xx target_group=` + testGroup + ` 2`,
		`neargate_target_responses_total class=4xx target_group=` + testGroup + ` 1`,
	}
	var got []string
	for deadline := time.Now().Add(time.Minute); !slices.Equal(got, want) && time.Now().Before(deadline); runtime.Gosched() {
		got = nil // a request is counted when it is over, which may be after the client has its answer
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.Metric {
				line := f.GetName()
				for _, l := range m.Label {
					line += " " + l.GetName() + "=" + l.GetValue()
				}
				got = append(got, fmt.Sprintf("%s %v", line, m.GetCounter().GetValue()+m.GetGauge().GetValue()+float64(m.GetHistogram().GetSampleCount())))
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("metrics:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
