// Package proxy is the data plane of load balancers on one host: it opens the listeners it is told of and carries their
// requests (HTTP) and connections (TCP) to targets. It knows the control plane only as the sets of api/agent.
//
// Both halves are our own HTTP/1.1 (HTTP/2 towards targets is net/http's): conn serves a client's connection, upstream is a pooled one
// to a target, and an exchange carries a request from one to the other. Requests of a load balancer's name that come to the
// platform's own port are net/http's (handled); the exchange sees either through the client interface, so routing, forwarding,
// retries and counting are written once. A head is one string whose parts are the fields, in the order they came; nothing builds a map.
// Routes are compiled and immutable; every socket has its own behind an atomic pointer, and so has every target group
// its endpoints. A request takes no lock but the one of an endpoint's idle connections, for a push or a pop, and no goroutine of its own
// unless it has a body that is not here with its head.
//
// Invariants:
//   - What two parsers could read differently, in a request or in an answer, is refused and ends its connection.
//   - A connection carries another request only when all of the one before was read and all of its answer written.
//   - Once Apply has returned for a set in which an endpoint drains, no request is begun to it: see endpoint.enter.
//   - A request that has sent its first byte to a target is sent to no other, unless it is idempotent, has no body and the
//     connection turned out to be closed by the target before a byte of the answer.
//   - An answer is either passed on with its framing verified or the connection it came on is closed.
//
// Lock order: Proxy.mu before anything; connPool.mu and connections.mu are leaves. No lock is held across I/O.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/api/agent"
)

// Config is what a proxy is told at start.
type Config struct {
	// Shared are the addresses on which every load balancer's listeners answer, besides its own ones.
	Shared []string
	// Drained is called when a draining endpoint has no request in flight here. It must not block.
	Drained func(*agent.Drained)
	Logger  *slog.Logger
	// DialTimeout bounds the connection to a target; 0: 10 s, as Elastic Load Balancing has it. While other targets answer it is a fifth of that.
	DialTimeout time.Duration
}

// Proxy is the sink of LISTENERS and TARGETS on one host. Run it, then Apply sets.
type Proxy struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	dialer  net.Dialer
	gate    gate

	mu        sync.Mutex
	shared    []string
	listeners map[string]*agent.Listener // by resource name
	groups    map[string]*group          // by ARN: known ones and those only referred to
	names     map[string]string          // resource name of a target group → its ARN
	fronts    map[frontKey]*front
	byName    map[string]*front // a load balancer's DNS name → its first HTTP front, unbound to a socket
	closed    bool
	serving   sync.WaitGroup

	base   context.Context // ends when nothing is waited for any more
	cancel context.CancelFunc
}

// New makes a proxy without listeners.
func New(cfg Config) *Proxy {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 10 * time.Second
	}
	if cfg.Drained == nil {
		cfg.Drained = func(*agent.Drained) {}
	}
	base, cancel := context.WithCancel(context.Background())
	return &Proxy{
		base: base, cancel: cancel,
		cfg: cfg, log: cfg.Logger, metrics: newMetrics(), shared: cfg.Shared,
		dialer:    net.Dialer{Timeout: cfg.DialTimeout, KeepAlive: 30 * time.Second},
		listeners: map[string]*agent.Listener{}, groups: map[string]*group{}, names: map[string]string{},
		fronts: map[frontKey]*front{},
	}
}

// Kinds are the sets a proxy lives on.
func (p *Proxy) Kinds() []agent.Kind { return []agent.Kind{agent.Kind_LISTENERS, agent.Kind_TARGETS} }

// Apply makes u effective. Once it returns no new request is routed by the older set.
func (p *Proxy) Apply(ctx context.Context, u *agent.Update) error {
	if err := p.gate.wait(ctx); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch u.Kind {
	case agent.Kind_LISTENERS:
		p.applyListeners(u)
	case agent.Kind_TARGETS:
		p.applyTargets(u)
	default:
		return fmt.Errorf("apply a set of kind %s: a proxy takes listeners and targets", u.Kind)
	}
	return nil
}

// SetShared changes the shared addresses, for example once the tasks' bridge exists.
func (p *Proxy) SetShared(addresses []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shared = slices.Clone(addresses)
	p.reopen()
}

// Run waits for ctx, then closes the listeners, gives requests in flight up to five seconds and returns.
func (p *Proxy) Run(ctx context.Context) error {
	<-ctx.Done()
	p.mu.Lock()
	p.closed = true
	last := time.AfterFunc(5*time.Second, p.cancel)
	defer last.Stop()
	for k, f := range p.fronts {
		delete(p.fronts, k)
		p.retire(f, 5*time.Second)
	}
	for _, g := range p.groups {
		g.close()
	}
	p.mu.Unlock()
	p.serving.Wait()
	return nil
}

// Pause holds back every Apply, and so its acknowledgement, until the returned function is called. Tests of rollouts
// use it to stand for a proxy that hangs.
func (p *Proxy) Pause() (resume func()) { return p.gate.shut() }

// ForHost is the handler of the load balancer that has host (with or without port) as its own name, for a port that
// is not one of its listeners.
func (p *Proxy) ForHost(host string) (http.Handler, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.byName[hostOnly(host)]
	return f, ok
}

// Status is one socket as it stands.
type Status struct {
	Address string // host:port
	Error   error  // why it could not be opened; nil: open
}

// Sockets lists the sockets that listeners ask for, by address.
func (p *Proxy) Sockets() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Status
	for k, f := range p.fronts {
		out = append(out, Status{k.String(), f.failed})
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Address, b.Address) })
	return out
}

func (p *Proxy) applyListeners(u *agent.Update) {
	if u.Full {
		clear(p.listeners)
	}
	for _, n := range u.Removed {
		delete(p.listeners, n)
	}
	for _, r := range u.Resources {
		if l := r.GetListener(); l != nil {
			p.listeners[r.Name] = l
		}
	}
	p.reopen()
}

// applyTargets publishes the endpoints of every changed group before it looks at what drained, so that a request which
// leaves a draining endpoint finds the newer list.
func (p *Proxy) applyTargets(u *agent.Update) {
	named := map[string]bool{}
	for _, r := range u.Resources {
		tg := r.GetTargetGroup()
		if tg == nil {
			continue
		}
		named[r.Name] = true
		p.names[r.Name] = tg.Arn
		p.group(tg.Arn).set(tg, u.Revision)
	}
	gone := u.Removed
	if u.Full {
		for n := range p.names {
			if !named[n] {
				gone = append(gone, n)
			}
		}
	}
	for _, n := range gone {
		if arn, ok := p.names[n]; ok && !named[n] {
			delete(p.names, n)
			p.groups[arn].set(&agent.TargetGroup{Arn: arn}, u.Revision)
		}
	}
	p.dropUnused()
}

// group is the target group called arn, made empty when a listener knows it first.
func (p *Proxy) group(arn string) *group {
	g, ok := p.groups[arn]
	if !ok {
		g = newGroup(arn, p)
		p.groups[arn] = g
	}
	return g
}

// dropUnused forgets groups that neither set names any more.
func (p *Proxy) dropUnused() {
	used := map[string]bool{}
	for _, arn := range p.names {
		used[arn] = true
	}
	for _, l := range p.listeners {
		for _, r := range l.Rules {
			for _, a := range r.Actions {
				for _, w := range a.GetForward().GetGroups() {
					used[w.TargetGroupArn] = true
				}
			}
		}
	}
	for arn, g := range p.groups {
		if !used[arn] {
			g.close()
			delete(p.groups, arn)
		}
	}
}

// gate holds callers while it is shut. The zero value is open.
type gate struct {
	mu    sync.Mutex
	shutC chan struct{} // closed when the gate opens; nil: open
}

func (g *gate) shut() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := make(chan struct{})
	g.shutC = c
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		close(c)
		if g.shutC == c {
			g.shutC = nil
		}
	})
}

func (g *gate) wait(ctx context.Context) error {
	g.mu.Lock()
	c := g.shutC
	g.mu.Unlock()
	if c == nil {
		return nil
	}
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return errors.Join(errors.New("paused"), ctx.Err())
	}
}
