package healthcheck

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/api/agent"
)

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		matcher string
		status  int
		want    bool
	}{{"200", 200, true}, {"200", 201, false}, {"200,202", 202, true}, {"200-299", 250, true}, {"200-299,404", 404, true}, {"200-299", 300, false}, {"", 200, false}} {
		if got := matches(c.matcher, c.status); got != c.want {
			t.Errorf("matches(%q, %d) = %v", c.matcher, c.status, got)
		}
	}
}

func TestVerdict(t *testing.T) {
	check := &agent.HealthCheck{HealthyThreshold: 3, UnhealthyThreshold: 2, Initial: true}
	v := verdict{check: check}
	for i, c := range []struct {
		f      *failure
		report bool
		state  agent.EndpointState
	}{
		{failed, false, 0},
		{nil, true, agent.EndpointState_ENDPOINT_HEALTHY}, // initial: the first success
		{nil, false, agent.EndpointState_ENDPOINT_HEALTHY},
		{failed, false, agent.EndpointState_ENDPOINT_HEALTHY},
		{nil, false, agent.EndpointState_ENDPOINT_HEALTHY},
		{failed, false, agent.EndpointState_ENDPOINT_HEALTHY},
		{failed, true, agent.EndpointState_ENDPOINT_UNHEALTHY},
		{failed, false, agent.EndpointState_ENDPOINT_UNHEALTHY},
		{timedOut, true, agent.EndpointState_ENDPOINT_UNHEALTHY}, // another reason is news
		{nil, false, agent.EndpointState_ENDPOINT_UNHEALTHY},
		{nil, false, agent.EndpointState_ENDPOINT_UNHEALTHY},
		{nil, true, agent.EndpointState_ENDPOINT_HEALTHY},
	} {
		if got := v.observe(c.f); got != c.report || v.state != c.state {
			t.Errorf("step %d: report %v in state %s, want %v in %s", i, got, v.state, c.report, c.state)
		}
	}
}

func TestChecker(t *testing.T) {
	var status atomic.Int64
	status.Store(503)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			t.Errorf("probed %s", r.URL.Path)
		}
		w.WriteHeader(int(status.Load()))
	}))
	defer s.Close()
	host, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	n, _ := strconv.Atoi(port)
	reports := make(chan *agent.HealthTransition, 10)
	c := New(Config{Report: func(h *agent.HealthTransition) { reports <- h }})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	check := &agent.HealthCheck{
		TargetGroupArn: "g", EndpointId: "e", Address: host, Port: uint32(n), Protocol: "HTTP", Path: "/healthz", Matcher: "200",
		IntervalMillis: 100, TimeoutMillis: 60000, HealthyThreshold: 2, UnhealthyThreshold: 2, Initial: true,
	}
	u := &agent.Update{Kind: agent.Kind_CHECKS, Full: true, Resources: []*agent.Resource{{Name: "g/e", Body: &agent.Resource_Check{Check: check}}}}
	c.Apply(ctx, u)
	next := func() *agent.HealthTransition {
		select {
		case h := <-reports:
			return h
		case <-time.After(time.Minute):
			t.Fatal("no transition")
			return nil
		}
	}
	if h := next(); h.State != agent.EndpointState_ENDPOINT_UNHEALTHY || h.ReasonCode != "Target.ResponseCodeMismatch" ||
		h.Description != "Health checks failed with these codes: [503]" {
		t.Errorf("first transition %v", h)
	}
	status.Store(200)
	if h := next(); h.State != agent.EndpointState_ENDPOINT_HEALTHY || h.ReasonCode != "" {
		t.Errorf("second transition %v", h)
	}
	s.Close()
	if h := next(); h.State != agent.EndpointState_ENDPOINT_UNHEALTHY || h.ReasonCode != "Target.FailedHealthChecks" {
		t.Errorf("third transition %v", h)
	}
	c.Apply(ctx, &agent.Update{Kind: agent.Kind_CHECKS, Removed: []string{"g/e"}})
	if len(c.probes) != 0 {
		t.Error("a removed check is kept")
	}
	cancel()
	<-ended
}
