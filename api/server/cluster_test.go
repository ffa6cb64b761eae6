package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/seed-2f228079/neargate/api"
)

// cluster is a server's view of others, as a test has it.
type cluster struct {
	mu      sync.Mutex
	leaders []string // who leads, one change after the other; "" is this server, "nobody" fails
	servers map[string]http.Handler
	sent    []*http.Request
	unsent  int   // so many times a server cannot be reached
	lost    error // of a request that was sent
	barrier error
	reads   int
}

func (c *cluster) Leader(context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaders[0] == "nobody" {
		return "", errLeaderless
	}
	return c.leaders[0], nil
}

func (c *cluster) Changed(context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.leaders) > 1 {
		c.leaders = c.leaders[1:]
	}
}

func (c *cluster) Send(_ context.Context, id string, r *http.Request) (*http.Response, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unsent > 0 {
		c.unsent--
		return nil, false, errors.New("connection refused")
	}
	c.sent = append(c.sent, r)
	if c.lost != nil {
		return nil, true, c.lost
	}
	w := httptest.NewRecorder()
	in := httptest.NewRequest(r.Method, r.URL.RequestURI(), r.Body)
	in.Host, in.Header, in.ContentLength = r.Host, r.Header, r.ContentLength
	c.servers[id].ServeHTTP(w, in)
	return w.Result(), true, nil
}

func (c *cluster) Barrier(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads++
	return c.barrier
}

// with is a server that has the cluster.
func with(t *testing.T, c *cluster) (*Server, *clusters) {
	t.Helper()
	s, family, _ := newTestServer(t, func(cfg *Config) { cfg.Cluster = c })
	return s, family
}

func create(t *testing.T, s http.Handler) *httptest.ResponseRecorder {
	t.Helper()
	return ask(t, s, "POST", "/", `{"clusterName":"one"}`, "ecs", "X-Amz-Target", ecsTarget+"CreateCluster", "Content-Type", jsonType)
}

// TestWritesGoToTheLeader: as they came, and whoever leads takes them for the client's own.
func TestWritesGoToTheLeader(t *testing.T) {
	leader, did := with(t, &cluster{leaders: []string{""}})
	c := &cluster{leaders: []string{"b"}, servers: map[string]http.Handler{"b": leader.Forwarded()}}
	s, own := with(t, c)
	for name, answer := range map[string]*httptest.ResponseRecorder{
		"json": create(t, s),
		"rest": ask(t, s, "POST", "/api/v1/clusters", `{"clusterName":"one"}`, "ecs", "Content-Type", "application/json"),
	} {
		if answer.Code != 200 || !strings.Contains(answer.Body.String(), "cluster/one") {
			t.Errorf("%s: %d %s", name, answer.Code, answer.Body)
		}
	}
	if len(own.seen) != 0 || len(did.seen) != 2 || len(c.sent) != 2 {
		t.Errorf("here %d, there %d, sent %d", len(own.seen), len(did.seen), len(c.sent))
	}
	for i, plain := range did.seen {
		if plain.Secure {
			t.Errorf("call %d came by TLS", i)
		}
	}
	// A wrong signature is the leader's to find.
	r := httptest.NewRequest("POST", "/", strings.NewReader(`{"clusterName":"two"}`))
	r.Host = "127.0.0.1:4566"
	r.Header.Set("X-Amz-Target", ecsTarget+"CreateCluster")
	r.Header.Set("Content-Type", jsonType)
	sign(t, r, `{"clusterName":"another"}`, "ecs")
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != 400 || !strings.Contains(w.Body.String(), "InvalidSignatureException") || len(c.sent) != 3 || len(did.seen) != 2 {
		t.Errorf("a wrong signature: %d %s", w.Code, w.Body)
	}
	if reads := c.reads; reads != 0 {
		t.Errorf("%d barriers for writes", reads)
	}
}

// TestForwardedByTLS: policies may ask how the client came, whoever took its request.
func TestForwardedByTLS(t *testing.T) {
	leader, did := with(t, &cluster{leaders: []string{""}})
	s, _ := with(t, &cluster{leaders: []string{"b"}, servers: map[string]http.Handler{"b": leader.Forwarded()}})
	for _, secured := range []bool{true, false} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(`{"clusterName":"one"}`))
		r.Host = "127.0.0.1:4566"
		r.Header.Set("X-Amz-Target", ecsTarget+"CreateCluster")
		r.Header.Set("Content-Type", jsonType)
		sign(t, r, `{"clusterName":"one"}`, "ecs")
		r.Header.Set(secureHeader, "1") // which a client may say as much as it likes
		if secured {
			r.TLS = new(tls.ConnectionState)
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != 200 || did.seen[len(did.seen)-1].Secure != secured {
			t.Errorf("by TLS %v: %d, %+v", secured, w.Code, did.seen[len(did.seen)-1])
		}
	}
}

// TestForwardingAgain: a request is sent again only if surely nothing was done.
func TestForwardingAgain(t *testing.T) {
	deposed, _ := with(t, &cluster{leaders: []string{"c"}})
	leader, did := with(t, &cluster{leaders: []string{""}})
	servers := map[string]http.Handler{"b": deposed.Forwarded(), "c": leader.Forwarded()}

	c := &cluster{leaders: []string{"b", "c"}, servers: servers}
	s, _ := with(t, c)
	if w := create(t, s); w.Code != 200 || len(c.sent) != 2 || w.Header().Get(api.NotLeaderHeader) != "" {
		t.Errorf("by way of a leader that was deposed: %d %s after %d", w.Code, w.Body, len(c.sent))
	}
	c = &cluster{leaders: []string{"c"}, servers: servers, unsent: 3}
	s, _ = with(t, c)
	if w := create(t, s); w.Code != 200 || len(c.sent) != 1 {
		t.Errorf("to a leader that cannot be reached at first: %d %s", w.Code, w.Body)
	}
	c = &cluster{leaders: []string{"c", ""}, servers: servers, unsent: 1}
	s, own := with(t, c)
	if w := create(t, s); w.Code != 200 || len(c.sent) != 0 || len(own.seen) != 1 {
		t.Errorf("on a server that comes to lead meanwhile: %d %s", w.Code, w.Body)
	}
	before := len(did.seen)
	c = &cluster{leaders: []string{"c"}, servers: servers, lost: io.ErrUnexpectedEOF}
	s, _ = with(t, c)
	if w := create(t, s); w.Code != 503 || len(c.sent) != 1 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "it may have been carried out") {
		t.Errorf("lost on the way: %d %s after %d", w.Code, w.Body, len(c.sent))
	}
	if len(did.seen) != before {
		t.Error("a lost request was sent again")
	}
}

// TestForwardedOnce: a server that does not lead passes on nothing that was passed on to it.
func TestForwardedOnce(t *testing.T) {
	c := &cluster{leaders: []string{"b"}, servers: map[string]http.Handler{}}
	s, own := with(t, c)
	w := create(t, s.Forwarded())
	if w.Code != 503 || w.Header().Get(api.NotLeaderHeader) == "" || len(c.sent) != 0 || len(own.seen) != 0 {
		t.Errorf("%d %v, sent %d", w.Code, w.Header(), len(c.sent))
	}
}

func TestWithoutALeader(t *testing.T) {
	s, _ := with(t, &cluster{leaders: []string{"nobody"}, barrier: errLeaderless})
	if w := create(t, s); w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "No server leads") {
		t.Errorf("a write: %d %s", w.Code, w.Body)
	}
	if w := ask(t, s, "POST", "/", "Action=DescribeLoadBalancers&Version=2015-12-01", "elasticloadbalancing", "Content-Type", formType); w.Code != 503 || !strings.Contains(w.Body.String(), "<Code>ServiceUnavailable</Code>") {
		t.Errorf("a read: %d %s", w.Code, w.Body)
	}
	if w := ask(t, s, "GET", "/api/v1/clusters/one/services", "", "ecs", ConsistencyHeader, "stale"); w.Code != 200 {
		t.Errorf("a stale read: %d %s", w.Code, w.Body)
	}
	if w := ask(t, s, "GET", "/api/v1/clusters/one/services", "", "ecs", ConsistencyHeader, "eventual"); w.Code != 400 || !strings.Contains(w.Body.String(), "linearizable or stale") {
		t.Errorf("an unknown consistency: %d %s", w.Code, w.Body)
	}
	if w := ask(t, s, "GET", "/livez", "", ""); w.Code != 200 {
		t.Errorf("a probe: %d", w.Code)
	}
}

// TestRegistryOnAFollower: what it is sent goes to the leader; what it is asked is answered here, unless that turns out to write.
func TestRegistryOnAFollower(t *testing.T) {
	registry := func(name string, leads bool) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/writes" && !leads {
				w.Header().Set(api.NotLeaderHeader, "1")
				w.Header().Set("Content-Length", "5")
				w.WriteHeader(http.StatusServiceUnavailable)
				io.WriteString(w, "never")
				return
			}
			if r.Method == "HEAD" {
				w.Header().Set("Content-Length", "7") // of what a GET would have
				w.WriteHeader(http.StatusAccepted)
				return
			}
			body, _ := io.ReadAll(r.Body)
			w.WriteHeader(http.StatusAccepted)
			io.WriteString(w, name+" "+r.Method+" "+string(body))
		})
	}
	leader, _, _ := newTestServer(t, func(cfg *Config) {
		cfg.Cluster, cfg.Registry = &cluster{leaders: []string{""}}, registry("leader", true)
	})
	c := &cluster{leaders: []string{"b"}, servers: map[string]http.Handler{"b": leader.Forwarded()}}
	s, _, _ := newTestServer(t, func(cfg *Config) { cfg.Cluster, cfg.Registry = c, registry("follower", false) })
	for _, one := range []struct{ method, path, body, want string }{
		{"GET", "/v2/reads", "", "follower GET "},
		{"PUT", "/v2/any", "a layer", "leader PUT a layer"},
		{"POST", "/v2/any", "", "leader POST "},
		{"GET", "/v2/writes", "", "leader GET "},
		{"HEAD", "/v2/writes", "", ""},
	} {
		w := ask(t, s, one.method, one.path, one.body, "")
		if w.Code != http.StatusAccepted || w.Body.String() != one.want {
			t.Errorf("%s %s: %d %q, want %q", one.method, one.path, w.Code, w.Body, one.want)
		}
	}
	c.leaders, c.unsent = []string{"b", "nobody"}, 1
	if w := ask(t, s, "PUT", "/v2/any", "a layer", ""); w.Code != 503 || !strings.Contains(w.Body.String(), `"UNAVAILABLE"`) {
		t.Errorf("without a leader: %d %s", w.Code, w.Body)
	}
}

// DropNewsInput and the others are resources that write, and that move bytes.
type (
	DropNewsInput struct {
		Name string `json:"name"`
	}
	AddNewsInput     struct{}
	SaveNewsInput    struct{}
	RestoreNewsInput struct{}
	dropped          struct {
		Name string `json:"name"`
	}
)

func archive() []api.RESTResource {
	all := "*"
	return []api.RESTResource{
		api.Change("DELETE /news/{name}", "Drop it.", func(*api.Call, *DropNewsInput) string { return all },
			func(_ context.Context, in *DropNewsInput) (*dropped, error) { return &dropped{in.Name}, nil }),
		api.Download("GET /archive", "All of it.", func(*api.Call, *SaveNewsInput) string { return all },
			func(_ context.Context, _ *SaveNewsInput, w io.Writer) error {
				_, err := io.WriteString(w, "\x00old news")
				return err
			}),
		api.Create("POST /news", "More of it.", func(*api.Call, *AddNewsInput) string { return all },
			func(_ context.Context, _ *AddNewsInput, b *dropped) (*dropped, error) { return b, nil }),
		api.Upload("PUT /archive", "Other news.", func(*api.Call, *RestoreNewsInput) string { return all },
			func(_ context.Context, _ *RestoreNewsInput, body io.Reader) (*dropped, error) {
				text, err := io.ReadAll(body)
				return &dropped{string(text)}, err
			}),
	}
}

// TestResourcesThatWrite: they go to the leader, by whatever server, and bytes pass through; no page of another site can ask for them.
func TestResourcesThatWrite(t *testing.T) {
	leader, _, _ := newTestServer(t, func(cfg *Config) { cfg.Cluster, cfg.Resources = &cluster{leaders: []string{""}}, archive() })
	c := &cluster{leaders: []string{"b"}, servers: map[string]http.Handler{"b": leader.Forwarded()}}
	follower, _, _ := newTestServer(t, func(cfg *Config) { cfg.Cluster, cfg.Resources = c, archive() })
	for _, one := range []struct {
		method, path, body string
		header             []string
		status             int
		want               string
		sent               bool
	}{
		{"DELETE", "/api/v1/news/today", "", nil, 200, `{"name":"today"}`, true},
		{"GET", "/api/v1/archive", "", nil, 200, "\x00old news", false},
		{"PUT", "/api/v1/archive", "new", []string{"Content-Type", "application/octet-stream", "X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"}, 200, `{"name":"new"}`, true},
		{"PUT", "/api/v1/archive", "new", []string{"Content-Type", "text/plain"}, 415, "application/octet-stream", false},
		{"DELETE", "/api/v1/news/today", "a body", nil, 415, "what only has parameters has no body", false},
		{"POST", "/api/v1/news", `{"name":"of today"}`, []string{"Content-Type", "application/json"}, 200, `{"name":"of today"}`, true},
		{"POST", "/api/v1/news", `{"name":"x","colour":"red"}`, []string{"Content-Type", "application/json"}, 400, `unknown field \"colour\"`, true},
		{"POST", "/api/v1/news", `{"name":"x"} {}`, []string{"Content-Type", "application/json"}, 400, `something behind its JSON document`, true},
		{"POST", "/api/v1/news", "", []string{"Content-Type", "application/json"}, 400, `not the JSON document that is wanted`, true},
		{"POST", "/api/v1/news", `{"name":"x"}`, []string{"Content-Type", "text/plain"}, 415, "application/json", false},
	} {
		before := len(c.sent)
		r := httptest.NewRequest(one.method, one.path, strings.NewReader(one.body))
		r.Host = "127.0.0.1:4566"
		for i := 0; i+1 < len(one.header); i += 2 {
			r.Header.Set(one.header[i], one.header[i+1])
		}
		r.SetBasicAuth("test", "test")
		w := httptest.NewRecorder()
		follower.ServeHTTP(w, r)
		if w.Code != one.status || !strings.Contains(w.Body.String(), one.want) || (len(c.sent) > before) != one.sent {
			t.Errorf("%s %s: %d %q, passed on: %v", one.method, one.path, w.Code, w.Body, len(c.sent) > before)
		}
	}
}
