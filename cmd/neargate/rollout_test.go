package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"

	"github.com/seed-2f228079/neargate/agent"
	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/client"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/orchestrator"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/mesh"
	"github.com/seed-2f228079/neargate/mesh/proxy"
)

// The rollouts of this file update the three services of examples/microservices, which end at once on SIGTERM, while clients
// keep asking them. The first must lose nothing; the second, which stops tasks before it withdraws them, must lose something,
// or the first proves nothing.

func TestRolloutLosesNothing(t *testing.T) {
	t.Parallel()
	p := startDev(t, seams{})
	p.up("v1")
	load := p.startLoad()
	p.up("v2")
	load.end(t)
	if n := len(load.failures); n > 0 {
		t.Errorf("%d of %d requests failed; the first: %s", n, load.total, load.failures[0])
	}
	if load.versions["v1"] == 0 || load.versions["v2"] == 0 {
		t.Errorf("the load did not see both versions: %v", load.versions)
	}
}

// killFirst is a router whose tasks seem never to get requests: they are stopped without being withdrawn before, and their
// endpoints go only with the report that they have ended. It is the order of a drain, reversed.
type killFirst struct{ orchestrator.Router }

func (killFirst) Clear(state.Reader, *controlplane.Task) bool { return true }

func TestRolloutReversed(t *testing.T) {
	t.Parallel()
	p := startDev(t, seams{routers: func(rs []orchestrator.Router) (all []orchestrator.Router) {
		for _, r := range rs {
			all = append(all, killFirst{r})
		}
		return all
	}})
	p.up("v1")
	load := p.startLoad()
	p.up("v2")
	load.end(t)
	if len(load.failures) == 0 {
		t.Errorf("none of %d requests failed: the harness proves nothing", load.total)
	}
	t.Logf("%d of %d requests failed", len(load.failures), load.total)
}

// TestRolloutBesidesPausedProxy has a second proxy that hangs all through the rollout: old tasks are waited with for as long as
// the bound says and no longer, and nothing is lost on the way through the proxy that lives.
func TestRolloutBesidesPausedProxy(t *testing.T) {
	t.Parallel()
	// An address of this process alone, since the second proxy stands for one on another machine.
	second := proxy.New(proxy.Config{Shared: []string{fmt.Sprintf("127.77.%d.%d", os.Getpid()>>8&255, os.Getpid()&255)}})
	var control *controlPlane
	p := startDev(t, seams{joined: func(c *controlPlane, _ *host) ([]part, error) {
		control = c
		dispatch, port, err := c.local()
		if err != nil {
			return nil, err
		}
		// The host has no room for a task: it only proxies.
		a, err := agent.New(agent.Config{
			Dir: t.TempDir(), Driver: fake.New(fake.Config{}), Client: dispatch, NodeID: "second", NodeName: "second", Address: "127.0.0.1",
			Resources: &agentapi.NodeResources{}, Sinks: []agent.Sink{second}, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			return nil, err
		}
		return []part{port, {"second agent", a.Run}, {"second proxy", second.Run}}, nil
	}})
	p.up("v1")
	load := p.startLoad()
	drains := watchDrains(t, control.store)
	resume := second.Pause()
	defer resume()
	p.up("v2")
	took := drains.end(t, 6)
	load.end(t)
	if n := len(load.failures); n > 0 {
		t.Errorf("%d of %d requests failed through the proxy that lives; the first: %s", n, load.total, load.failures[0])
	}
	if len(took) != 6 {
		t.Errorf("%d tasks were drained, want 6: %v", len(took), took)
	}
	for _, d := range took {
		// The sweep comes every tenth of a second, on a machine that has other work too; the proxy would have them wait for ever.
		if d < mesh.AckBound || d > mesh.AckBound+time.Minute {
			t.Errorf("a task was drained in %v; a proxy that does not acknowledge is to be waited for %v", d, mesh.AckBound)
		}
	}
}

// drains sees how long endpoints take from their withdrawal to their end.
type drains struct {
	stop func()

	mu   sync.Mutex
	took []time.Duration
}

func watchDrains(t *testing.T, store *state.Store) *drains {
	ctx, cancel := context.WithCancel(t.Context())
	changes := store.Watch(ctx, store.Revision(), mesh.Endpoints)
	d := &drains{}
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			b, err := changes.Next(ctx)
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("watch endpoints: %v", err)
				}
				return
			}
			for _, e := range b.Events {
				if was, ok := e.Old.(*mesh.Endpoint); ok && e.New == nil && was.Draining != nil {
					d.mu.Lock()
					d.took = append(d.took, time.Since(was.Draining.AsTime()))
					d.mu.Unlock()
				}
			}
		}
	})
	d.stop = func() { cancel(); watching.Wait() }
	t.Cleanup(d.stop)
	return d
}

// end returns all that were seen, once so many were.
func (d *drains) end(t *testing.T, n int) []time.Duration {
	t.Helper()
	eventually(t, func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if len(d.took) < n {
			return fmt.Errorf("%d tasks were drained, want %d", len(d.took), n)
		}
		return nil
	})
	d.stop()
	return d.took
}

// devUnderTest is dev in this process, with the clients that the rollouts need.
type devUnderTest struct {
	t    *testing.T
	host *host
	c    *client.Client
}

func startDev(t *testing.T, s seams) *devUnderTest {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the native driver needs root")
	}
	p := &devUnderTest{t: t}
	joined := s.joined
	s.joined = func(c *controlPlane, h *host) ([]part, error) {
		p.host = h
		if joined == nil {
			return nil, nil
		}
		return joined(c, h)
	}
	free := freeAddresses(t, 2)
	listen := free[0]
	f := devFlags{data: t.TempDir(), listen: listen, dns: free[1], runtime: "native", account: "000000000000", region: "us-east-1", seams: s}
	var out lockedBuffer
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- dev(ctx, f, &out) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("dev ended with %v", err)
		}
		if t.Failed() {
			t.Logf("dev said:\n%s", out.String())
		}
	})
	var err error
	p.c, err = client.New(client.Config{Endpoint: "http://" + listen, Region: f.region, AccessKey: "test", SecretKey: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ready, stop := context.WithTimeout(ctx, 2*time.Minute)
	defer stop()
	if err := p.c.WaitReady(ready); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return p
}

// lockedBuffer collects what dev prints.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// exampleDir holds the example's binaries once buildExample was called; TestMain removes it.
var exampleDir string

func removeExample() {
	if exampleDir != "" {
		os.RemoveAll(exampleDir)
	}
}

// buildExample builds the example's services and the program that brings them up, once for all tests.
var buildExample = sync.OnceValue(func() (err error) {
	if exampleDir, err = os.MkdirTemp("", "neargate-rollout-"); err != nil {
		return err
	}
	tags, err := os.ReadFile("../../scripts/tags")
	if err != nil {
		return err
	}
	for _, build := range [][]string{
		{"CGO_ENABLED=0", "users"}, {"CGO_ENABLED=0", "threads"}, {"CGO_ENABLED=0", "posts"},
		{"CGO_ENABLED=1", "up"}, // as the platform is built, so that the SDK is compiled once
	} {
		b := exec.Command("go", "build", "-tags", strings.TrimSpace(string(tags)), "-o", filepath.Join(exampleDir, build[1]), "../../examples/microservices/"+build[1])
		b.Env = append(os.Environ(), build[0])
		if out, err := b.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", build[1], err, out)
		}
	}
	return nil
})

// up deploys a version of the example and returns once all three services are stable.
func (p *devUnderTest) up(version string) {
	p.t.Helper()
	if err := buildExample(); err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(exampleDir, "up"), "-images", exampleDir, "-version", version)
	cmd.Env = append(os.Environ(), "NEARGATE_ENDPOINT="+p.c.Config.Endpoint, "AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test", "AWS_REGION=us-east-1")
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("up %s: %v\n%s", version, err, out)
	}
}

// load is what clients saw of the three services while they kept asking.
type load struct {
	base string // http://address
	name string // of the load balancer
	stop chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	total    int
	failures []string
	versions map[string]int // answers by version; posts does not say its version with every answer
}

// startLoad starts clients with connections of their own, kept alive: for each service some that read, and for posts some
// that send a body and, always in flight, some that read an answer which takes half a second. It returns once every client was answered.
func (p *devUnderTest) startLoad() *load {
	p.t.Helper()
	out, err := p.c.ELB.DescribeLoadBalancers(p.t.Context(), &elasticloadbalancingv2.DescribeLoadBalancersInput{Names: []string{"microservices"}})
	if err != nil {
		p.t.Fatal(err)
	}
	// The bridge's address is this platform's alone, and the shared loopback address may be another's.
	l := &load{base: "http://" + p.host.gateway.String(), name: *out.LoadBalancers[0].DNSName, stop: make(chan struct{}), versions: map[string]int{}}
	post := `{"thread":1,"author":2,"text":"` + strings.Repeat("still here ", 500) + `"}`
	var asks []func(*http.Client) error
	for range 2 {
		asks = append(asks, slices.Repeat([]func(*http.Client) error{
			func(c *http.Client) error { return l.ask(c, "GET", "/api/posts/stream?n=25", "", 200, "tick 24\n") },
		}, 4)...)
		asks = append(asks,
			func(c *http.Client) error { return l.ask(c, "GET", "/api/users", "", 200, "ada") },
			func(c *http.Client) error { return l.ask(c, "GET", "/api/threads/1", "", 200, "split") },
			func(c *http.Client) error { return l.ask(c, "GET", "/api/posts/in-thread/2", "", 200, "neargate logs") },
			func(c *http.Client) error { return l.ask(c, "POST", "/api/posts", post, 201, "still here ") })
	}
	var first sync.WaitGroup
	for _, ask := range asks {
		first.Add(1)
		l.wg.Go(func() {
			c := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
			defer c.CloseIdleConnections()
			answered := sync.OnceFunc(first.Done)
			pace := time.NewTicker(5 * time.Millisecond) // the machine has to start containers too
			defer pace.Stop()
			for {
				l.count(ask(c))
				answered()
				select {
				case <-l.stop:
					return
				case <-pace.C:
				}
			}
		})
	}
	first.Wait()
	return l
}

// ask sends one request and reads all of the answer, which must contain part.
func (l *load) ask(c *http.Client, method, path, body string, status int, part string) error {
	req, err := http.NewRequest(method, l.base+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Host = l.name
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", method, path, err)
	case res.StatusCode != status:
		return fmt.Errorf("%s %s: %s %s", method, path, res.Status, got)
	case !bytes.Contains(got, []byte(part)):
		return fmt.Errorf("%s %s: the answer lacks %q: %q", method, path, part, got)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if v := res.Header.Get("X-Version"); v != "" {
		l.versions[v]++
	}
	return nil
}

func (l *load) count(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	if err != nil {
		l.failures = append(l.failures, err.Error())
	}
}

// end stops the clients. A load that hardly asked anything proves nothing.
func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	if l.total < 500 {
		t.Errorf("only %d requests were sent", l.total)
	}
	t.Logf("%d requests", l.total)
}
