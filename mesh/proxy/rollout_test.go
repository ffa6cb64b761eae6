package proxy

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/api/agent"
)

// worker is a target that works on requests, for as long as it is held at least.
type worker struct {
	*httptest.Server
	working atomic.Int64
	held    sync.RWMutex
}

func newWorker() *worker {
	s := &worker{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		s.working.Add(1)
		defer s.working.Add(-1)
		time.Sleep(2 * time.Millisecond) // work, so that requests are in flight
		s.held.RLock()
		defer s.held.RUnlock()
		io.WriteString(w, "ok")
	}))
	return s
}

// rollout replaces three targets one by one under the load of POST requests and says how many were answered and failed.
func rollout(t *testing.T, replace func(b *bed, set []*agent.Endpoint, old *worker, oldAddr string)) (total, failed int64) {
	b := newBed(t)
	var servers []*worker
	var set []*agent.Endpoint
	for range 3 {
		s := newWorker()
		servers = append(servers, s)
		set = append(set, endpointAt(s.Listener.Addr().String(), agent.EndpointState_ENDPOINT_HEALTHY))
	}
	b.targets(&agent.TargetGroup{Arn: testGroup, Endpoints: set})
	var all, bad atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			c := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
			defer c.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				res, err := c.Post(b.url("/"), "text/plain", strings.NewReader("hello"))
				all.Add(1)
				if err != nil {
					bad.Add(1)
					continue
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 || string(body) != "ok" {
					bad.Add(1)
				}
			}
		})
	}
	more := func(n int64) {
		from := all.Load()
		eventually(t, "requests go on", func() bool { return all.Load() > from+n })
	}
	for i := range servers {
		more(100)
		fresh := newWorker()
		defer fresh.Close()
		old := servers[i]
		oldAddr := set[i].Id
		set[i] = endpointAt(fresh.Listener.Addr().String(), agent.EndpointState_ENDPOINT_HEALTHY)
		replace(b, append([]*agent.Endpoint{}, set...), old, oldAddr)
	}
	more(100)
	close(stop)
	clients.Wait()
	return all.Load(), bad.Load()
}

// kill ends a target as SIGKILL would: with the requests it has.
func kill(s *worker) {
	s.CloseClientConnections()
	s.Listener.Close()
}

func TestRollout(t *testing.T) {
	total, failed := rollout(t, func(b *bed, set []*agent.Endpoint, old *worker, oldAddr string) {
		draining := append(set, endpointAt(oldAddr, agent.EndpointState_ENDPOINT_DRAINING))
		rev := b.targets(&agent.TargetGroup{Arn: testGroup, Endpoints: draining})
		eventually(t, "the drain is over", func() bool { return b.drainedAt(oldAddr) >= rev })
		b.targets(&agent.TargetGroup{Arn: testGroup, Endpoints: set})
		kill(old)
	})
	if failed != 0 {
		t.Errorf("%d of %d requests failed", failed, total)
	}
}

// TestRolloutReversed is the negative control: a target that is killed before it is withdrawn costs requests, so TestRollout can fail.
func TestRolloutReversed(t *testing.T) {
	total, failed := rollout(t, func(b *bed, set []*agent.Endpoint, old *worker, _ string) {
		old.held.Lock()
		defer old.held.Unlock()
		eventually(t, "it has a request", func() bool { return old.working.Load() > 0 })
		kill(old)
		b.targets(&agent.TargetGroup{Arn: testGroup, Endpoints: set})
	})
	if failed == 0 {
		t.Errorf("none of %d requests failed: the harness proves nothing", total)
	}
}
