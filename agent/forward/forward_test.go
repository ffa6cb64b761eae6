package forward

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

const task = "10.64.0.7"

// servers are those of a cluster, of which the first that is not nil is reached.
func servers(t *testing.T, list ...*httptest.Server) *Forwarder {
	f := New(Config{
		Allowed: func(from netip.Addr) bool { return from == netip.MustParseAddr(task) }, Logger: slog.New(slog.DiscardHandler),
		Dial: func(ctx context.Context) (net.Conn, error) {
			for _, s := range list {
				if conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String()); err == nil {
					return conn, nil
				}
			}
			return nil, errors.New("there is no server")
		},
	})
	t.Cleanup(f.Close)
	return f
}

func call(f *Forwarder, from, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	r.Host, r.RemoteAddr = "169.254.170.2", from+":40000"
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 signature")
	r.Header.Set("Accept-Encoding", "gzip")
	r.Header.Set(agentapi.TaskHeader, "1.2.3.4:5")
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

// What is signed arrives as it was sent; the address is the agent's to say.
func TestPassesOnAsItCame(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Amzn-Requestid", "id")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, strings.Join([]string{r.Method, r.Host, r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("Accept-Encoding"), r.Header.Get(agentapi.TaskHeader), string(body)}, " | "))
	}))
	defer server.Close()
	w := call(servers(t, server), task, "/v2/a%2Fb?x=1;y&z=%zz", "body")
	const want = "POST | 169.254.170.2 | /v2/a%2Fb?x=1;y&z=%zz | AWS4-HMAC-SHA256 signature | gzip | " + task + ":40000 | body"
	if w.Code != http.StatusBadRequest || w.Body.String() != want || w.Header().Get("X-Amzn-Requestid") != "id" {
		t.Errorf("%d %v\n%s\nwant\n%s", w.Code, w.Header(), w.Body, want)
	}
}

func TestSurvivesItsServer(t *testing.T) {
	answer := func(name string) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, name) }))
	}
	first, second := answer("first"), answer("second")
	defer second.Close()
	f := servers(t, first, second)
	if w := call(f, task, "/", ""); w.Body.String() != "first" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	first.CloseClientConnections()
	first.Close()
	w := call(f, task, "/", "")
	if w.Code == http.StatusServiceUnavailable { // it went out on the lost connection: the SDK calls again
		w = call(f, task, "/", "")
	}
	if w.Code != 200 || w.Body.String() != "second" {
		t.Errorf("after the loss of a server: %d %s", w.Code, w.Body)
	}
	second.CloseClientConnections()
	second.Close()
	if w := call(f, task, "/", ""); w.Code != http.StatusServiceUnavailable || w.Header().Get("X-Amzn-Errortype") != "ServiceUnavailable" {
		t.Errorf("without servers: %d %s", w.Code, w.Body)
	}
}

func TestForTasksOnly(t *testing.T) {
	if w := call(servers(t), "10.64.0.8", "/", ""); w.Code != http.StatusForbidden {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
