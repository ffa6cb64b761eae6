package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
)

// TestThrottling: who calls too fast is told so in the words of the service's protocol, and when to come again. Those who read, those who
// write and other accounts have their own measure.
func TestThrottling(t *testing.T) {
	s, family, _ := newTestServer(t, func(c *Config) {
		c.Rates = Rates{Read: 1e-6, Write: 1e-6, Registry: 1e-6} // one, and then none for a long time
		c.Clock = clock.NewFake(time.Now())
		c.Registry = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	})
	create := func() (int, string, http.Header) {
		w := ask(t, s, "POST", "/", `{"clusterName":"one"}`, "ecs", "X-Amz-Target", ecsTarget+"CreateCluster", "Content-Type", "application/x-amz-json-1.1")
		return w.Code, w.Body.String(), w.Header()
	}
	if code, body, _ := create(); code != 200 {
		t.Fatalf("the first call: HTTP %d %s", code, body)
	}
	code, body, h := create()
	if code != 400 || !strings.Contains(body, "ThrottlingException") || h.Get("Retry-After") != "1000000" || len(family.seen) != 1 {
		t.Errorf("json: HTTP %d %s, Retry-After %q, %d calls", code, body, h.Get("Retry-After"), len(family.seen))
	}
	w := ask(t, s, "POST", "/api/v1/clusters", `{"clusterName":"one"}`, "ecs", "Content-Type", "application/json")
	if w.Code != 429 || !strings.Contains(w.Body.String(), "ThrottlingException") || w.Header().Get("Retry-After") == "" {
		t.Errorf("REST: HTTP %d %s %v", w.Code, w.Body, w.Header())
	}
	for _, service := range []struct{ name, form, code string }{
		{"sts", "Action=GetCallerIdentity&Version=2011-06-15", "<Code>Throttling</Code>"},
		{"ec2", "Action=DescribeVpcs&Version=2016-11-15", "<Code>RequestLimitExceeded</Code>"},
	} {
		var body string
		for range 2 {
			w = ask(t, s, "POST", "/", service.form, service.name, "Content-Type", "application/x-www-form-urlencoded")
			body = w.Body.String()
		}
		if !strings.Contains(body, service.code) || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: HTTP %d %s", service.name, w.Code, body)
		}
	}
	if w := ask(t, s, "GET", "/v2/", "", ""); w.Code != 204 {
		t.Errorf("the registry at first: HTTP %d %s", w.Code, w.Body)
	}
	if w := ask(t, s, "GET", "/v2/", "", ""); w.Code != 429 || !strings.Contains(w.Body.String(), "TOOMANYREQUESTS") || w.Header().Get("Retry-After") == "" {
		t.Errorf("the registry: HTTP %d %s", w.Code, w.Body)
	}
}

// TestTokenBuckets: twice the rate at once, then the rate; each caller has a bucket of its own, and there are never more than so many.
func TestTokenBuckets(t *testing.T) {
	var l limiter
	now := time.Unix(1000, 0)
	granted := func(who string, calls int) (n int) {
		for range calls {
			if l.take(caller{principal: who}, 10, now) == 0 {
				n++
			}
		}
		return n
	}
	if n := granted("a", 50); n != 20 {
		t.Errorf("%d at once, of 20", n)
	}
	if n := granted("b", 5); n != 5 {
		t.Errorf("%d of another's", n)
	}
	now = now.Add(time.Second)
	if n := granted("a", 50); n != 10 {
		t.Errorf("%d after a second, of 10", n)
	}
	now = now.Add(-time.Hour) // a clock that was set back gives nothing, and takes nothing
	if n := granted("b", 50); n != 15 {
		t.Errorf("%d with the clock set back, of 15", n)
	}
	now = now.Add(2 * time.Hour)
	if n := granted("a", 50); n != 20 {
		t.Errorf("%d after an hour, of 20", n)
	}
	for i := range 5 * maxBuckets {
		l.take(caller{principal: fmt.Sprint(i)}, 10, now)
		if i%100 == 0 && granted("a", 50) != 0 {
			t.Fatalf("who calls all the time is forgotten after %d others", i)
		}
	}
	if n := len(l.now) + len(l.old); n > 2*maxBuckets {
		t.Errorf("%d buckets", n)
	}
}
