package server

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/seed-2f228079/neargate/api/auth"
)

// What a web page, opened on the machine that runs `dev`, can make its browser send.
func TestGuard(t *testing.T) {
	s, family, _ := newTestServer(t, func(c *Config) {
		c.Names = []string{"neargate.test"}
		c.Registry = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	})
	target := []string{"X-Amz-Target", ecsTarget + "CreateCluster", "Content-Type", jsonType}
	const create = `{"clusterName":"one"}`
	for name, c := range map[string]struct {
		method, path, body, service string
		header                      []string
		status                      int
	}{
		"by address":                        {"POST", "/", create, "ecs", target, 200},
		"by IPv6 address":                   {"POST", "/", create, "ecs", append(target, "Host", "[::1]:4566"), 200},
		"by localhost":                      {"POST", "/", create, "ecs", append(target, "Host", "localhost:4566"), 200},
		"by a name under localhost":         {"POST", "/", create, "ecs", append(target, "Host", "api.localhost:4566"), 200},
		"by its own name":                   {"POST", "/", create, "ecs", append(target, "Host", "NearGate.test:4566"), 200},
		"by a name under its own":           {"POST", "/", create, "ecs", append(target, "Host", "ecs.neargate.test"), 200},
		"a name made to resolve to us":      {"POST", "/", create, "ecs", append(target, "Host", "evil.example:4566"), 403},
		"a name that ends like ours":        {"POST", "/", create, "ecs", append(target, "Host", "evilneargate.test"), 403},
		"the REST API by a foreign name":    {"GET", "/api/v1/clusters/one/services", "", "ecs", []string{"Host", "evil.example"}, 403},
		"the description by a foreign name": {"GET", "/api/openapi.json", "", "", []string{"Host", "evil.example"}, 403},
		"metrics by a foreign name":         {"GET", "/metrics", "", "", []string{"Host", "evil.example"}, 403},
		"the registry by a foreign name":    {"GET", "/v2/", "", "", []string{"Host", "evil.example"}, 403},
		"the registry by an ECR name":       {"GET", "/v2/", "", "", []string{"Host", "000000000000.dkr.ecr.us-east-1.amazonaws.com"}, 418},
		"the API by an ECR name":            {"POST", "/", create, "ecs", append(target, "Host", "000000000000.dkr.ecr.us-east-1.amazonaws.com"), 403},
		"probes by any name":                {"GET", "/livez", "", "", []string{"Host", "some.pod"}, 200},
		"from a page elsewhere":             {"POST", "/", create, "ecs", append(target, "Origin", "http://evil.example"), 403},
		"from a page on another port":       {"POST", "/", create, "ecs", append(target, "Origin", "http://127.0.0.1:3000"), 403},
		"from a page without an origin":     {"POST", "/", create, "ecs", append(target, "Origin", "null"), 403},
		"from our own page":                 {"POST", "/", create, "ecs", append(target, "Origin", "http://127.0.0.1:4566", "Sec-Fetch-Site", "same-origin"), 200},
		"cross-site, without an origin":     {"GET", "/api/v1/clusters/one/services", "", "ecs", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		"cross-site to the registry":        {"GET", "/v2/", "", "", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		"typed into the address bar":        {"GET", "/console", "", "", []string{"Sec-Fetch-Site", "none"}, 404},
		"REST write as a form":              {"POST", "/api/v1/clusters", create, "ecs", []string{"Content-Type", "text/plain"}, 415},
		"REST write without a type":         {"POST", "/api/v1/clusters", create, "ecs", nil, 415},
		"action as a form":                  {"POST", "/api/v1/actions/ecs/CreateCluster", create, "ecs", []string{"Content-Type", formType}, 415},
		"REST write":                        {"POST", "/api/v1/clusters", create, "ecs", []string{"Content-Type", "application/json; charset=utf-8"}, 200},
	} {
		before := len(family.seen)
		w := ask(t, s, c.method, c.path, c.body, c.service, c.header...)
		if w.Code != c.status {
			t.Errorf("%s: HTTP %d %s, want %d", name, w.Code, w.Body, c.status)
		}
		if (c.status == 403 || c.status == 415) && len(family.seen) != before {
			t.Errorf("%s: refused, but it ran", name)
		}
	}
}

// A task reaches the AWS protocols by its host's address, as somebody, and nothing else; and test/test is not for it.
func TestFromTasks(t *testing.T) {
	roots, err := auth.NewStatic(auth.Root{Account: account, AccessKeyID: "AKIA", SecretAccessKey: "test"}, auth.Root{Account: second, AccessKeyID: "test", SecretAccessKey: "test"})
	if err != nil {
		t.Fatal(err)
	}
	s, family, _ := newTestServer(t, func(c *Config) {
		c.Credentials = roots
		c.Registry = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
		c.LoadBalancer = func(string) http.Handler { return c.Registry }
	})
	const create = `{"clusterName":"one"}`
	for name, c := range map[string]struct {
		method, path, key, host string
		status                  int
		want                    string
	}{
		"as somebody":               {"POST", "/", "AKIA", "169.254.170.2", 200, "cluster/one"},
		"by another address":        {"POST", "/", "AKIA", "127.0.0.1:51679", 200, "cluster/one"},
		"by a name":                 {"POST", "/", "AKIA", "evil.example", 403, "not a name of this server"},
		"with what everybody knows": {"POST", "/", "test", "169.254.170.2", 400, "not for tasks"},
		"nobody":                    {"POST", "/", "", "169.254.170.2", 400, "MissingAuthenticationToken"},
		"the registry":              {"GET", "/v2/", "", "169.254.170.2", 403, "MissingAuthenticationToken"},
		"metrics":                   {"GET", "/metrics", "", "169.254.170.2", 403, "MissingAuthenticationToken"},
		"the REST API":              {"GET", "/api/v1/clusters/one/services", "AKIA", "169.254.170.2", 400, "UnknownOperationException"},
	} {
		before := len(family.seen)
		r := httptest.NewRequest(c.method, c.path, strings.NewReader(create))
		r.Host = c.host
		r.Header.Set("X-Amz-Target", ecsTarget+"CreateCluster")
		if c.method == "GET" {
			r.Header.Del("X-Amz-Target")
		}
		r.Header.Set("Content-Type", jsonType)
		if c.key != "" {
			sum := sha256.Sum256([]byte(create))
			r.URL.Host = r.Host
			if err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: c.key, SecretAccessKey: "test"}, r, hex.EncodeToString(sum[:]), "ecs", region, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		r.Header.Set("Neargate-Task", "10.64.0.7:40000")
		w := httptest.NewRecorder()
		s.FromTasks().ServeHTTP(w, r)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: HTTP %d %s, want %d %s", name, w.Code, w.Body, c.status, c.want)
		}
		if ran := len(family.seen) > before; ran != (c.status == 200) || ran && family.seen[before].SourceIP.String() != "10.64.0.7" {
			t.Errorf("%s: ran %v, %+v", name, ran, family.seen[before:])
		}
	}
	// To programs of the machine the header says nothing.
	if w := ask(t, s, "GET", "/healthz", "", "", "Neargate-Task", "10.64.0.7:1"); w.Code != http.StatusTeapot {
		t.Errorf("the public port: %d %s", w.Code, w.Body)
	}
}

func TestGuardIsForLoopback(t *testing.T) {
	s, _, _ := newTestServer(t, func(c *Config) { c.Guard = false })
	w := ask(t, s, "POST", "/", `{"clusterName":"one"}`, "ecs", "X-Amz-Target", ecsTarget+"CreateCluster", "Host", "any.name.example")
	if w.Code != 200 {
		t.Errorf("HTTP %d %s", w.Code, w.Body)
	}
}

// A handler must not render names with whatever a client claims our name to be.
func TestCallHostIsOurs(t *testing.T) {
	s, family, _ := newTestServer(t, func(c *Config) { c.Guard = false })
	for host, want := range map[string]string{"127.0.0.1:4566": "127.0.0.1:4566", "api.localhost:1": "api.localhost:1", "evil.example": "localhost:4566"} {
		ask(t, s, "POST", "/", `{"clusterName":"one"}`, "ecs", "X-Amz-Target", ecsTarget+"CreateCluster", "Host", host)
		if got := family.seen[len(family.seen)-1].Host; got != want {
			t.Errorf("Host %s: the call has %s, want %s", host, got, want)
		}
	}
}

func TestWellKnownCredentialsStayAtHome(t *testing.T) {
	for _, c := range []struct {
		address, id, secret string
		ok                  bool
	}{
		{"127.0.0.1:4566", "test", "test", true}, {"[::1]:4566", "test", "test", true}, {"localhost:4566", "test", "test", true},
		{"0.0.0.0:4566", "test", "test", false}, {":4566", "test", "test", false}, {"192.0.2.1:4566", "test", "test", false}, {"host.example:4566", "test", "test", false},
		{"0.0.0.0:4566", "AKIAEXAMPLE", "long-and-secret", true},
	} {
		if err := CheckListen(c.address, c.id, c.secret); (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), c.address) {
			t.Errorf("%s with %s/%s: %v", c.address, c.id, c.secret, err)
		}
	}
}
