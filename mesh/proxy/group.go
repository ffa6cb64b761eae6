package proxy

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-2f228079/neargate/api/agent"
)

// group is one target group. It lives as long as a set names it; what changes is its table.
type group struct {
	arn   string
	proxy *Proxy
	table atomic.Pointer[groupTable]
	next  atomic.Uint64 // round robin
	stats *groupStats
}

// groupTable is what routing needs of a group, immutable.
type groupTable struct {
	all        map[string]*endpoint // by id, draining ones too
	routable   []*endpoint
	leastBusy  bool
	http2      bool
	stickiness time.Duration        // 0: off
	cookies    map[string]*endpoint // by cookie value, when sticky
}

func newGroup(arn string, p *Proxy) *group {
	g := &group{arn: arn, proxy: p, stats: p.metrics.group(arn)}
	g.table.Store(&groupTable{})
	return g
}

// set makes tg the group's endpoints. Endpoint objects are kept by id, since they carry the count in flight and the idle
// connections. The caller holds Proxy.mu.
func (g *group) set(tg *agent.TargetGroup, revision uint64) {
	old := g.table.Load()
	t := &groupTable{
		all:        make(map[string]*endpoint, len(tg.Endpoints)),
		leastBusy:  tg.Algorithm == "least_outstanding_requests",
		http2:      tg.ProtocolVersion == "HTTP2" || tg.ProtocolVersion == "GRPC",
		stickiness: time.Duration(tg.StickinessSeconds) * time.Second,
	}
	var unhealthy, draining []*endpoint
	for _, pe := range tg.Endpoints {
		e := old.all[pe.Id]
		if e == nil || e.address != joinHostPort(pe.Address, pe.Port) {
			e = newEndpoint(g, pe)
		}
		t.all[pe.Id] = e
		switch pe.State {
		case agent.EndpointState_ENDPOINT_DRAINING:
			draining = append(draining, e)
		case agent.EndpointState_ENDPOINT_HEALTHY:
			t.routable = append(t.routable, e)
		case agent.EndpointState_ENDPOINT_UNHEALTHY:
			unhealthy = append(unhealthy, e)
		}
	}
	// A group whose targets are all unhealthy is served by all of them (Elastic Load Balancing: "fail open").
	if len(t.routable) == 0 {
		t.routable = unhealthy
	}
	if t.stickiness > 0 {
		t.cookies = make(map[string]*endpoint, len(t.routable))
		for _, e := range t.routable {
			t.cookies[e.cookie] = e
		}
	}
	for _, e := range t.routable {
		e.pool.open()
		e.drainRevision.Store(0)
	}
	g.table.Store(t)
	for _, e := range draining {
		e.drain(revision)
	}
	for id, e := range old.all {
		if t.all[id] != e {
			e.close()
		}
	}
}

// close drops the idle connections; requests in flight go on.
func (g *group) close() {
	for _, e := range g.table.Swap(&groupTable{}).all {
		e.close()
	}
}

// pick chooses an endpoint other than those in tried and enters it: the caller owes a leave. Nil: there is none.
func (g *group) pick(tried []*endpoint) *endpoint {
	for range 8 {
		e := g.table.Load().choose(g, tried)
		if e == nil {
			return nil
		}
		if e.enter() {
			return e
		}
		// It began to drain meanwhile: the newer table, which set stored before, does not offer it.
	}
	return nil
}

func (t *groupTable) choose(g *group, tried []*endpoint) *endpoint {
	n := len(t.routable)
	if n == 0 {
		return nil
	}
	start := int(g.next.Add(1) % uint64(n))
	var best, silent *endpoint
	var busy int64
	for i := range n {
		e := t.routable[(start+i)%n]
		switch {
		case contains(tried, e):
		case e.avoided():
			silent = cmp.Or(silent, e)
		case !t.leastBusy || e.silent.Load() != 0: // to find out
			return e
		default:
			if b := e.inFlight.Load(); best == nil || b < busy {
				best, busy = e, b
			}
		}
	}
	return cmp.Or(best, silent)
}

// offersAnother returns whether a request has another choice than e, as far as is known.
func (t *groupTable) offersAnother(e *endpoint) bool {
	for _, other := range t.routable {
		if other != e && other.silent.Load() == 0 {
			return true
		}
	}
	return false
}

// stuck enters the endpoint that a stickiness cookie names; nil when it takes no new request.
func (g *group) stuck(cookie string) *endpoint {
	e := g.table.Load().cookies[cookie]
	if e == nil || !e.enter() {
		return nil
	}
	return e
}

func contains(list []*endpoint, e *endpoint) bool {
	for _, x := range list {
		if x == e {
			return true
		}
	}
	return false
}

// endpoint is one target of one group.
type endpoint struct {
	id      string
	address string // host:port
	cookie  string // names it to clients without telling them where it is
	group   *group
	pool    connPool
	h2      http2Transport

	inFlight atomic.Int64
	// drainRevision is the revision that drained the endpoint; 0 while it takes requests.
	drainRevision atomic.Uint64
	// silent is until when others are preferred, in Unix nanoseconds; 0: it answers, as far as is known.
	silent atomic.Int64
}

// silentFor is how long others are preferred to a target that did not answer; then one request finds out whether it does.
const silentFor = 10 * time.Second

// avoided returns whether others are to be preferred. The first to ask when the time is over is told that they are not.
func (e *endpoint) avoided() bool {
	until := e.silent.Load()
	if until == 0 {
		return false
	}
	now := time.Now()
	return now.UnixNano() < until || !e.silent.CompareAndSwap(until, now.Add(silentFor).UnixNano())
}

// connect dials the target. One whose host is gone answers nothing: it is not waited for as long if there are others, which are preferred then.
func (e *endpoint) connect(ctx context.Context) (net.Conn, error) {
	p := e.group.proxy
	within := ctx
	if e.group.table.Load().offersAnother(e) {
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, p.cfg.DialTimeout/5)
		defer cancel()
	}
	c, err := p.dialer.DialContext(within, "tcp", e.address)
	switch {
	case err == nil, errors.Is(err, syscall.ECONNREFUSED):
		e.silent.Store(0)
	case ctx.Err() == nil: // the client still waits
		e.silent.Store(time.Now().Add(silentFor).UnixNano())
	}
	return c, err
}

func newEndpoint(g *group, pe *agent.Endpoint) *endpoint {
	return &endpoint{id: pe.Id, address: joinHostPort(pe.Address, pe.Port), cookie: opaque(g.arn, pe.Id), group: g}
}

// enter counts a request in, unless the endpoint drains. The order decides: a request adds itself, then looks at
// drainRevision; drain sets drainRevision, then looks at inFlight. So either the request sees the drain and leaves,
// or the drain sees the request and waits for its leave.
func (e *endpoint) enter() bool {
	e.inFlight.Add(1)
	if e.drainRevision.Load() != 0 {
		e.leave()
		return false
	}
	return true
}

// leave counts a request out and reports the end of a drain.
func (e *endpoint) leave() {
	if e.inFlight.Add(-1) == 0 {
		if rev := e.drainRevision.Load(); rev != 0 {
			e.report(rev)
		}
	}
}

func (e *endpoint) drain(revision uint64) {
	e.drainRevision.Store(revision)
	e.close()
	if e.inFlight.Load() == 0 {
		e.report(revision)
	}
}

// report may come twice for one drain; the control plane takes it as the fact it is.
func (e *endpoint) report(revision uint64) {
	e.group.proxy.cfg.Drained(&agent.Drained{TargetGroupArn: e.group.arn, EndpointId: e.id, Revision: revision})
}

// close closes idle connections; those in use are closed when their request is done, if the endpoint still drains.
func (e *endpoint) close() {
	e.pool.close()
	e.h2.close()
}

// weightedGroups is the target of a forward action.
type weightedGroups struct {
	groups []*group
	upTo   []uint32 // cumulative weights
	total  uint32
}

func (w *weightedGroups) choose() *group {
	switch {
	case len(w.groups) == 1:
		return w.groups[0]
	case w.total == 0:
		return nil
	}
	n := rand.Uint32N(w.total)
	for i, u := range w.upTo {
		if n < u {
			return w.groups[i]
		}
	}
	return nil
}
