// Package healthcheck probes the endpoints that the control plane assigns to this host and reports transitions. It is a data
// plane: it knows the set CHECKS and nothing else.
//
// Each check has one goroutine, which reports only when its verdict changes. Invariant: an endpoint's verdict goes to
// healthy after its first success if nothing was known of it, else after as many successes in a row as the threshold says, and to
// unhealthy after as many failures in a row.
package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// Config of a Checker.
type Config struct {
	// Report is called with every transition. It must not block.
	Report func(*agent.HealthTransition)
	Clock  clock.Clock  // nil: the machine's
	Logger *slog.Logger // nil: silent
}

// Checker is the sink of CHECKS on one host.
type Checker struct {
	cfg    Config
	client *http.Client
	base   context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	probes map[string]*probe // by resource name
	closed bool
}

type probe struct {
	check  *agent.HealthCheck
	cancel context.CancelFunc
}

// New makes a checker without checks.
func New(c Config) *Checker {
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	base, cancel := context.WithCancel(context.Background())
	return &Checker{
		cfg: c, base: base, cancel: cancel, probes: map[string]*probe{},
		client: &http.Client{
			// A fresh connection each time: a kept one would not notice that the target accepts none any more.
			Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Kinds is CHECKS.
func (c *Checker) Kinds() []agent.Kind { return []agent.Kind{agent.Kind_CHECKS} }

// Apply makes u effective. A check that is the same as before goes on undisturbed.
func (c *Checker) Apply(_ context.Context, u *agent.Update) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	keep := map[string]bool{}
	for _, r := range u.Resources {
		check := r.GetCheck()
		if check == nil {
			continue
		}
		keep[r.Name] = true
		if old := c.probes[r.Name]; old != nil {
			if proto.Equal(old.check, check) {
				continue
			}
			old.cancel()
		}
		c.start(r.Name, check)
	}
	for name, p := range c.probes {
		if u.Full && !keep[name] {
			p.cancel()
			delete(c.probes, name)
		}
	}
	for _, name := range u.Removed {
		if p := c.probes[name]; p != nil {
			p.cancel()
			delete(c.probes, name)
		}
	}
	return nil
}

func (c *Checker) start(name string, check *agent.HealthCheck) {
	if c.closed {
		return
	}
	ctx, cancel := context.WithCancel(c.base)
	c.probes[name] = &probe{check, cancel}
	c.wg.Go(func() {
		defer cancel()
		c.run(ctx, check)
	})
}

// Run waits for ctx, then ends all checks.
func (c *Checker) Run(ctx context.Context) error {
	<-ctx.Done()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
	return nil
}

// verdict counts towards a transition.
type verdict struct {
	check     *agent.HealthCheck
	state     agent.EndpointState // as last reported; 0: nothing known
	reason    string
	successes uint32
	failures  uint32
}

// observe takes in one result and says whether it is to be reported.
func (v *verdict) observe(f *failure) bool {
	if f == nil {
		v.failures, v.successes = 0, v.successes+1
		first := v.state == 0 && v.check.Initial
		if v.state == agent.EndpointState_ENDPOINT_HEALTHY || (!first && v.successes < v.check.HealthyThreshold) {
			return false
		}
		v.state, v.reason = agent.EndpointState_ENDPOINT_HEALTHY, ""
		return true
	}
	v.successes, v.failures = 0, v.failures+1
	if v.failures < v.check.UnhealthyThreshold || (v.state == agent.EndpointState_ENDPOINT_UNHEALTHY && v.reason == f.code+f.text) {
		return false
	}
	v.state, v.reason = agent.EndpointState_ENDPOINT_UNHEALTHY, f.code+f.text
	return true
}

func (c *Checker) run(ctx context.Context, check *agent.HealthCheck) {
	interval := time.Duration(max(check.IntervalMillis, 100)) * time.Millisecond
	v := verdict{check: check}
	// Until something is known the target is tried often: a task that is up after a second must not wait for the interval. Failures
	// of that time do not count faster than the interval lets them.
	quick, next := min(interval, 500*time.Millisecond), c.cfg.Clock.Now()
	for {
		f := c.probe(ctx, check)
		if ctx.Err() != nil {
			return
		}
		now := c.cfg.Clock.Now()
		if f == nil || !now.Before(next) {
			next = now.Add(interval)
			if v.observe(f) {
				c.report(check, v.state, f)
			}
		}
		wait := interval
		if v.state == 0 {
			wait = quick
		} else if v.successes+v.failures <= 1 {
			// Spread the checks of many endpoints over the interval.
			wait = interval - time.Duration(float64(interval)*spread(check)/2)
		}
		select {
		case <-ctx.Done():
			return
		case <-c.cfg.Clock.After(wait):
		}
	}
}

// spread is a number in [0, 1) that differs between endpoints.
func spread(check *agent.HealthCheck) float64 {
	h := fnv.New32a()
	io.WriteString(h, check.TargetGroupArn+check.EndpointId)
	return float64(h.Sum32()%1000) / 1000
}

func (c *Checker) report(check *agent.HealthCheck, state agent.EndpointState, f *failure) {
	t := &agent.HealthTransition{TargetGroupArn: check.TargetGroupArn, EndpointId: check.EndpointId, State: state}
	if f != nil {
		t.ReasonCode, t.Description = f.code, f.text
	}
	c.cfg.Logger.Info("target health", "target_group", check.TargetGroupArn, "target", check.EndpointId, "state", state, "reason", t.Description)
	c.cfg.Report(t)
}

// failure is why a probe failed, in Elastic Load Balancing's code and words.
type failure struct{ code, text string }

var (
	timedOut = &failure{"Target.Timeout", "Request timed out"}
	failed   = &failure{"Target.FailedHealthChecks", "Health checks failed"}
)

func (c *Checker) probe(ctx context.Context, check *agent.HealthCheck) *failure {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(check.TimeoutMillis, 50))*time.Millisecond)
	defer cancel()
	if check.Refused {
		return timedOut // as what security groups drop does
	}
	address := net.JoinHostPort(check.Address, strconv.Itoa(int(check.Port)))
	if check.Protocol == "TCP" {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return failureOf(err)
		}
		conn.Close()
		return nil
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+check.Path, nil)
	if err != nil {
		return failed
	}
	r.Header.Set("User-Agent", "ELB-HealthChecker/2.0")
	r.Header.Set("Accept-Encoding", "gzip, compressed")
	res, err := c.client.Do(r)
	if err != nil {
		return failureOf(err)
	}
	io.CopyN(io.Discard, res.Body, 4<<10)
	res.Body.Close()
	if !matches(check.Matcher, res.StatusCode) {
		return &failure{"Target.ResponseCodeMismatch", fmt.Sprintf("Health checks failed with these codes: [%d]", res.StatusCode)}
	}
	return nil
}

func failureOf(err error) *failure {
	var n net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout() {
		return timedOut
	}
	return failed
}

// matches reads "200", "200,202" and "200-299".
func matches(matcher string, status int) bool {
	for part := range strings.SplitSeq(matcher, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		l, err := strconv.Atoi(low)
		if err != nil {
			continue
		}
		h := l
		if isRange {
			if h, err = strconv.Atoi(high); err != nil {
				continue
			}
		}
		if l <= status && status <= h {
			return true
		}
	}
	return false
}
