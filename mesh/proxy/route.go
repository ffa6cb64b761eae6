package proxy

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/api/agent"
)

// routes is what one socket serves, immutable.
type routes struct {
	listeners []*listener   // by load balancer name
	idle      time.Duration // the longest idle timeout among them
}

func newRoutes(listeners ...*listener) *routes {
	r := &routes{listeners: listeners}
	for _, l := range listeners {
		r.idle = max(r.idle, l.idleTimeout)
	}
	return r
}

// listener is a compiled agent.Listener.
type listener struct {
	arn, loadBalancer, dnsName string
	port                       string
	tcp                        bool
	idleTimeout                time.Duration
	dropInvalidHeaders         bool
	preserveHost               bool
	rules                      []rule // by priority, the default last
	hostRules                  []pattern
	stats                      *listenerStats
}

type rule struct {
	conditions []condition
	action     action
}

// condition holds for a request or not.
type condition func(*request) bool

// action is the deciding action of a rule; exactly one member is set.
type action struct {
	forward  *weightedGroups
	redirect *agent.Redirect
	fixed    *agent.FixedResponse
	sticky   time.Duration // of the choice among groups
}

// compile makes a listener; the caller holds Proxy.mu for its groups.
func (p *Proxy) compile(l *agent.Listener) *listener {
	c := &listener{
		arn: l.Arn, loadBalancer: l.LoadBalancerName, dnsName: strings.ToLower(strings.TrimSuffix(l.DnsName, ".")),
		port: strconv.Itoa(int(l.Port)), tcp: l.Protocol == "TCP",
		idleTimeout: time.Duration(l.IdleTimeoutSeconds) * time.Second, dropInvalidHeaders: l.DropInvalidHeaders, preserveHost: l.PreserveHost,
		stats: p.metrics.listener(l.Arn, l.LoadBalancerName),
	}
	if c.idleTimeout == 0 {
		c.idleTimeout = 60 * time.Second
	}
	rules := slices.Clone(l.Rules)
	slices.SortStableFunc(rules, func(a, b *agent.Rule) int { return int(order(a)) - int(order(b)) })
	for _, r := range rules {
		cr := rule{action: p.compileAction(r.Actions)}
		for _, cond := range r.Conditions {
			if cond.Field == "host-header" {
				c.hostRules = append(c.hostRules, compilePatterns(cond.Values, true)...)
			}
			cr.conditions = append(cr.conditions, compileCondition(cond))
		}
		c.rules = append(c.rules, cr)
	}
	return c
}

// order puts the default rule, priority 0, last.
func order(r *agent.Rule) uint32 {
	if r.Priority == 0 {
		return 1 << 30
	}
	return r.Priority
}

func (p *Proxy) compileAction(actions []*agent.Action) action {
	if len(actions) == 0 {
		return action{}
	}
	last := actions[len(actions)-1]
	f := last.GetForward()
	if f == nil {
		return action{redirect: last.GetRedirect(), fixed: last.GetFixed()}
	}
	w := &weightedGroups{}
	for _, g := range f.Groups {
		w.groups = append(w.groups, p.group(g.TargetGroupArn))
		w.total += g.Weight
		w.upTo = append(w.upTo, w.total)
	}
	return action{forward: w, sticky: time.Duration(f.StickinessSeconds) * time.Second}
}

// compileCondition follows Elastic Load Balancing's table of case: hosts, header values and query strings are compared
// without case, paths and methods with it.
func compileCondition(c *agent.Condition) condition {
	switch c.Field {
	case "host-header":
		ps := compilePatterns(c.Values, true)
		return func(r *request) bool { return matchAny(ps, r.host) }
	case "path-pattern":
		ps := compilePatterns(c.Values, false)
		return func(r *request) bool { return matchAny(ps, r.path) }
	case "http-request-method":
		return func(r *request) bool { return slices.Contains(c.Values, r.method) }
	case "http-header":
		ps := compilePatterns(c.Values, true)
		return func(r *request) bool {
			return slices.ContainsFunc(r.header, func(f field) bool {
				return strings.EqualFold(f.name, c.Header) && matchAny(ps, strings.ToLower(f.value))
			})
		}
	case "query-string":
		return compileQuery(c.Query)
	case "source-ip":
		return compileSource(c.Values)
	}
	return func(*request) bool { return false } // a condition newer than this proxy: never guess
}

func compileQuery(pairs []*agent.QueryPair) condition {
	type pair struct {
		key, value pattern
		anyKey     bool
	}
	ps := make([]pair, len(pairs))
	for i, q := range pairs {
		ps[i] = pair{compilePattern(q.Key, true), compilePattern(q.Value, true), q.Key == ""}
	}
	return func(r *request) bool {
		if r.query == nil {
			r.query, _ = url.ParseQuery(r.rawQuery) // what of it can be read
		}
		for k, vs := range r.query {
			k = strings.ToLower(k)
			for _, p := range ps {
				if !p.anyKey && !p.key.match(k) {
					continue
				}
				if slices.ContainsFunc(vs, func(v string) bool { return p.value.match(strings.ToLower(v)) }) {
					return true
				}
			}
		}
		return false
	}
}

func compileSource(values []string) condition {
	var nets []netip.Prefix
	for _, v := range values {
		if n, err := netip.ParsePrefix(v); err == nil {
			nets = append(nets, n.Masked())
		}
	}
	return func(r *request) bool {
		return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(r.client) })
	}
}

// choose finds the listener for a host: the load balancer of that name, else the one with a host-header rule for
// it, else the only one, else nil.
func (r *routes) choose(host string) *listener {
	if r == nil || len(r.listeners) == 0 {
		return nil
	}
	if len(r.listeners) == 1 {
		return r.listeners[0]
	}
	for _, l := range r.listeners {
		if l.dnsName == host {
			return l
		}
	}
	for _, l := range r.listeners {
		if matchAny(l.hostRules, host) {
			return l
		}
	}
	return nil
}

func (l *listener) route(r *request) action {
next:
	for i := range l.rules {
		for _, c := range l.rules[i].conditions {
			if !c(r) {
				continue next
			}
		}
		return l.rules[i].action
	}
	return action{}
}

// host is the Host header that targets get. Unless it is preserved, a port other than 80 and 443 is appended if the client gave
// none, and on those two the client's port is removed ("Host header preservation" in the guide of Application Load Balancers).
func (l *listener) host(given string) string { return string(l.appendHost(nil, given)) }

func (l *listener) appendHost(b []byte, given string) []byte {
	if l.preserveHost || given == "" {
		return append(b, given...)
	}
	colon := strings.LastIndexByte(given, ':')
	if colon < strings.IndexByte(given, ']') {
		colon = -1 // within an IPv6 address
	}
	switch standard := l.port == "80" || l.port == "443"; {
	case standard && colon >= 0:
		return append(b, given[:colon]...)
	case !standard && colon < 0:
		return append(append(append(b, given...), ':'), l.port...)
	}
	return append(b, given...)
}

// hostOnly is a Host header without its port, in lower case.
func hostOnly(h string) string {
	if i := strings.LastIndexByte(h, ':'); i >= 0 && strings.IndexByte(h[i:], ']') < 0 {
		h = h[:i]
	}
	return strings.ToLower(strings.TrimSuffix(h, "."))
}

func joinHostPort(address string, port uint32) string {
	return net.JoinHostPort(address, strconv.Itoa(int(port)))
}
