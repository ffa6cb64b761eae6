package elb

import (
	"hash/fnv"
	"strconv"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/dispatcher"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/mesh"
)

// ListenerSource is the set LISTENERS: every listener with its rules, for every proxy.
type ListenerSource struct{ Service *Service }

// Kind is LISTENERS.
func (ListenerSource) Kind() agent.Kind { return agent.Kind_LISTENERS }

// Tables are those a listener is made of.
func (ListenerSource) Tables() []state.TableInfo {
	return []state.TableInfo{LoadBalancers, Listeners, Rules}
}

// Full is every listener.
func (s ListenerSource) Full(v *state.View, _ string) []*agent.Resource {
	var out []*agent.Resource
	for l := range Listeners.Scan(v, state.K()) {
		if r := s.resource(v, l); r != nil {
			out = append(out, r)
		}
	}
	return out
}

// Delta is the listeners that changed, themselves, by a rule or by their load balancer.
func (s ListenerSource) Delta(v *state.View, events []state.Event) []dispatcher.Change {
	changed := map[string]state.Key{} // listener's name → key of its load balancer
	for _, e := range events {
		for _, m := range []any{e.Old, e.New} {
			switch m := m.(type) {
			case *Listener:
				if m != nil {
					changed[m.ARN()] = state.K(m.Account, m.Region, m.LoadBalancer)
				}
			case *Rule:
				if m != nil {
					l := &Listener{Account: m.Account, Region: m.Region, LoadBalancer: m.LoadBalancer, LoadBalancerId: m.LoadBalancerId, LoadBalancerType: m.LoadBalancerType, Id: m.Listener}
					changed[l.ARN()] = state.K(m.Account, m.Region, m.LoadBalancer)
				}
			case *LoadBalancer:
				if m != nil {
					for l := range Listeners.Scan(v, state.K(m.Account, m.Region, m.Name)) {
						changed[l.ARN()] = state.K(m.Account, m.Region, m.Name)
					}
				}
			}
		}
	}
	var out []dispatcher.Change
	for name, lb := range changed {
		c := dispatcher.Change{Name: name}
		for l := range Listeners.Scan(v, lb) {
			if l.ARN() == name {
				c.Resource = s.resource(v, l)
			}
		}
		out = append(out, c)
	}
	return out
}

func (s ListenerSource) resource(v *state.View, l *Listener) *agent.Resource {
	lb, ok := LoadBalancers.Get(v, state.K(l.Account, l.Region, l.LoadBalancer))
	if !ok {
		return nil
	}
	idle, _ := strconv.Atoi(lb.attribute("idle_timeout.timeout_seconds"))
	out := &agent.Listener{
		Arn: l.ARN(), LoadBalancerArn: lb.ARN(), LoadBalancerName: lb.Name, DnsName: s.Service.DNSName(lb), Addresses: []string{lb.Address},
		Port: l.Port, Protocol: l.Protocol, IdleTimeoutSeconds: uint32(idle),
		PreserveHost:       lb.attribute("routing.http.preserve_host_header.enabled") == "true",
		DropInvalidHeaders: lb.attribute("routing.http.drop_invalid_header_fields.enabled") == "true",
	}
	for p := range Priorities.Scan(v, state.K(l.Account, l.Region, l.Id)) {
		if r, ok := Rules.Get(v, state.K(l.Account, l.Region, l.LoadBalancer, l.Id, p.Rule)); ok {
			out.Rules = append(out.Rules, &agent.Rule{Arn: r.ARN(), Priority: r.Priority,
				Conditions: wireConditions(decodeConditions(r.ConditionsJson)), Actions: wireActions(decodeActions(r.ActionsJson))})
		}
	}
	out.Rules = append(out.Rules, &agent.Rule{Arn: l.DefaultRuleARN(), Actions: wireActions(decodeActions(l.ActionsJson))})
	return &agent.Resource{Name: out.Arn, Body: &agent.Resource_Listener{Listener: out}}
}

func wireConditions(cs []types.RuleCondition) []*agent.Condition {
	var out []*agent.Condition
	for _, c := range cs {
		w := &agent.Condition{Field: aws.ToString(c.Field)}
		switch {
		case c.HostHeaderConfig != nil:
			w.Values = c.HostHeaderConfig.Values
		case c.PathPatternConfig != nil:
			w.Values = c.PathPatternConfig.Values
		case c.HttpRequestMethodConfig != nil:
			w.Values = c.HttpRequestMethodConfig.Values
		case c.SourceIpConfig != nil:
			w.Values = c.SourceIpConfig.Values
		case c.HttpHeaderConfig != nil:
			w.Header, w.Values = aws.ToString(c.HttpHeaderConfig.HttpHeaderName), c.HttpHeaderConfig.Values
		case c.QueryStringConfig != nil:
			for _, p := range c.QueryStringConfig.Values {
				w.Query = append(w.Query, &agent.QueryPair{Key: aws.ToString(p.Key), Value: aws.ToString(p.Value)})
			}
		}
		out = append(out, w)
	}
	return out
}

func wireActions(as []types.Action) []*agent.Action {
	var out []*agent.Action
	for _, a := range as {
		switch {
		case a.ForwardConfig != nil:
			f := &agent.Forward{}
			for _, g := range a.ForwardConfig.TargetGroups {
				f.Groups = append(f.Groups, &agent.WeightedGroup{TargetGroupArn: aws.ToString(g.TargetGroupArn), Weight: uint32(aws.ToInt32(g.Weight))})
			}
			if st := a.ForwardConfig.TargetGroupStickinessConfig; st != nil && aws.ToBool(st.Enabled) {
				f.StickinessSeconds = uint32(aws.ToInt32(st.DurationSeconds))
			}
			out = append(out, &agent.Action{Body: &agent.Action_Forward{Forward: f}})
		case a.RedirectConfig != nil:
			c := a.RedirectConfig
			status := uint32(302)
			if c.StatusCode == types.RedirectActionStatusCodeEnumHttp301 {
				status = 301
			}
			out = append(out, &agent.Action{Body: &agent.Action_Redirect{Redirect: &agent.Redirect{
				Protocol: aws.ToString(c.Protocol), Host: aws.ToString(c.Host), Port: aws.ToString(c.Port), Path: aws.ToString(c.Path),
				Query: aws.ToString(c.Query), Status: status}}})
		case a.FixedResponseConfig != nil:
			c := a.FixedResponseConfig
			status, _ := strconv.Atoi(aws.ToString(c.StatusCode))
			out = append(out, &agent.Action{Body: &agent.Action_Fixed{Fixed: &agent.FixedResponse{
				Status: uint32(status), ContentType: aws.ToString(c.ContentType), Body: aws.ToString(c.MessageBody)}}})
		}
	}
	return out
}

// TargetSource is the set TARGETS: every target group with its endpoints, for every proxy. An endpoint that lets nothing of its load
// balancers through is none of them.
type TargetSource struct{ admission }

// NewTargetSource makes one; without a firewall every endpoint is admitted.
func NewTargetSource(f Firewall) TargetSource { return TargetSource{admission{f}} }

// Kind is TARGETS.
func (TargetSource) Kind() agent.Kind { return agent.Kind_TARGETS }

// Tables are those a target group is made of.
func (s TargetSource) Tables() []state.TableInfo {
	own := []state.TableInfo{TargetGroups, mesh.Endpoints}
	if s.Firewall != nil {
		own = append(own, Listeners, Rules) // who forwards to a group
	}
	return append(own, s.tables()...)
}

// Full is every target group.
func (s TargetSource) Full(v *state.View, _ string) []*agent.Resource {
	var out []*agent.Resource
	for g := range TargetGroups.Scan(v, state.K()) {
		out = append(out, s.resource(v, g))
	}
	return out
}

// Delta is the groups that changed, themselves or by an endpoint.
func (s TargetSource) Delta(v *state.View, events []state.Event) []dispatcher.Change {
	var out []dispatcher.Change
	for arn, g := range changedGroups(v, events, s.changed(events)) {
		c := dispatcher.Change{Name: arn}
		if g != nil {
			c.Resource = s.resource(v, g)
		}
		out = append(out, c)
	}
	return out
}

// changedGroups are the groups that events concern, or all that there are besides; nil: gone.
func changedGroups(v *state.View, events []state.Event, all bool) map[string]*TargetGroup {
	out := map[string]*TargetGroup{}
	if all {
		for g := range TargetGroups.Scan(v, state.K()) {
			out[g.ARN()] = g
		}
	}
	add := func(account, region, arn string) {
		g, err := findTargetGroup(v, controlplane.Scope{Account: account, Region: region}, arn)
		if err != nil {
			g = nil
		}
		out[arn] = g
	}
	for _, e := range events {
		for _, m := range []any{e.Old, e.New} {
			switch m := m.(type) {
			case *TargetGroup:
				if m != nil {
					add(m.Account, m.Region, m.ARN())
				}
			case *mesh.Endpoint:
				if m != nil && !m.Discovery {
					add(m.Account, m.Region, m.Group)
				}
			case *Listener:
				if m != nil {
					for _, arn := range forwardedGroups(decodeActions(m.ActionsJson)) {
						add(m.Account, m.Region, arn)
					}
				}
			case *Rule:
				if m != nil {
					for _, arn := range forwardedGroups(decodeActions(m.ActionsJson)) {
						add(m.Account, m.Region, arn)
					}
				}
			}
		}
	}
	return out
}

func (s TargetSource) resource(v *state.View, g *TargetGroup) *agent.Resource {
	out := &agent.TargetGroup{
		Arn: g.ARN(), Protocol: g.Protocol, ProtocolVersion: g.ProtocolVersion, Algorithm: g.attribute("load_balancing.algorithm.type"),
	}
	if g.attribute("stickiness.enabled") == "true" {
		out.StickinessSeconds = g.seconds("stickiness.lb_cookie.duration_seconds")
	}
	for e := range mesh.Endpoints.Scan(v, state.K(g.Account, g.Region, out.Arn)) {
		if e.State != agent.EndpointState_ENDPOINT_DRAINING && s.refused(v, g, e, e.Port) {
			continue
		}
		out.Endpoints = append(out.Endpoints, &agent.Endpoint{Id: e.Id, Address: e.Address, Port: e.Port, Weight: e.Weight, State: e.State, Zone: e.Zone})
	}
	return &agent.Resource{Name: out.Arn, Body: &agent.Resource_TargetGroup{TargetGroup: out}}
}

// CheckSource is the set CHECKS: what each node has to probe. A task's endpoint is probed by its own node, any other, and one on a node
// with Amazon's agent, by one of the nodes that are READY. Groups that nobody forwards to are not probed.
type CheckSource struct{ admission }

// NewCheckSource makes one; without a firewall every endpoint is admitted.
func NewCheckSource(f Firewall) CheckSource { return CheckSource{admission{f}} }

// Kind is CHECKS.
func (CheckSource) Kind() agent.Kind { return agent.Kind_CHECKS }

// Tables are those a check is made of.
func (s CheckSource) Tables() []state.TableInfo {
	return append([]state.TableInfo{TargetGroups, mesh.Endpoints, Listeners, Rules, controlplane.Nodes}, s.tables()...)
}

// Full is every check of the node.
func (s CheckSource) Full(v *state.View, node string) []*agent.Resource {
	var out []*agent.Resource
	ready := sync.OnceValue(func() []string { return readyNodes(v) }) // all there are: only for what no task's node probes
	for g := range TargetGroups.Scan(v, state.K()) {
		for _, c := range checksOf(v, g) {
			if prober(v, c.endpoint, ready) == node {
				out = append(out, s.resource(v, c))
			}
		}
	}
	return out
}

// Delta is the checks that came, went or changed.
func (s CheckSource) Delta(v *state.View, events []state.Event) []dispatcher.Change {
	ready := sync.OnceValue(func() []string { return readyNodes(v) }) // all there are: only for what no task's node probes
	var out []dispatcher.Change
	groups := changedGroups(v, events, s.changed(events))
	moved := nodesChanged(events)
	if moved { // what no task's node probes may have another prober now
		for g := range TargetGroups.Scan(v, state.K()) {
			groups[g.ARN()] = g
		}
	}
	for _, g := range groups {
		if g == nil {
			continue
		}
		for _, c := range checksOf(v, g) {
			owner := prober(v, c.endpoint, ready)
			out = append(out, dispatcher.Change{Node: owner, Name: c.name(), Resource: s.resource(v, c)})
			if !moved || ownProber(v, c.endpoint) != "" {
				continue
			}
			for _, n := range ready() {
				if n != owner {
					out = append(out, dispatcher.Change{Node: n, Name: c.name()})
				}
			}
		}
		if !used(v, controlplane.Scope{Account: g.Account, Region: g.Region}, g.ARN()) {
			for e := range mesh.Endpoints.Scan(v, state.K(g.Account, g.Region, g.ARN())) {
				out = append(out, dispatcher.Change{Name: check{g, e}.name()})
			}
		}
	}
	for _, e := range events {
		old, _ := e.Old.(*mesh.Endpoint)
		now, _ := e.New.(*mesh.Endpoint)
		if old != nil && !old.Discovery && (now == nil || now.State == agent.EndpointState_ENDPOINT_DRAINING) {
			out = append(out, dispatcher.Change{Name: old.Group + "/" + old.Id})
		}
	}
	return out
}

func nodesChanged(events []state.Event) bool {
	for _, e := range events {
		old, was := e.Old.(*controlplane.Node)
		now, is := e.New.(*controlplane.Node)
		if (was || is) && (old.GetStatus() != now.GetStatus()) {
			return true
		}
	}
	return false
}

type check struct {
	group    *TargetGroup
	endpoint *mesh.Endpoint
}

func (c check) name() string { return c.endpoint.Group + "/" + c.endpoint.Id }

// checksOf lists what has to be probed of a group.
func checksOf(v *state.View, g *TargetGroup) []check {
	if !g.HealthCheckEnabled || !used(v, controlplane.Scope{Account: g.Account, Region: g.Region}, g.ARN()) {
		return nil
	}
	var out []check
	for e := range mesh.Endpoints.Scan(v, state.K(g.Account, g.Region, g.ARN())) {
		if e.State != agent.EndpointState_ENDPOINT_DRAINING {
			out = append(out, check{g, e})
		}
	}
	return out
}

// resource does not depend on the endpoint's state, so that a transition does not restart its own check.
func (s CheckSource) resource(v *state.View, c check) *agent.Resource {
	g, e := c.group, c.endpoint
	return &agent.Resource{Name: c.name(), Body: &agent.Resource_Check{Check: &agent.HealthCheck{
		TargetGroupArn: e.Group, EndpointId: e.Id, Address: e.Address, Port: healthPort(g, e), Protocol: g.HealthCheckProtocol,
		Path: g.HealthCheckPath, Matcher: g.Matcher, IntervalMillis: g.HealthCheckIntervalSeconds * 1000, TimeoutMillis: g.HealthCheckTimeoutSeconds * 1000,
		HealthyThreshold: g.HealthyThreshold, UnhealthyThreshold: g.UnhealthyThreshold, Initial: true,
		Refused: s.refused(v, g, e, healthPort(g, e)),
	}}}
}

func readyNodes(v *state.View) []string {
	var out []string
	for n := range controlplane.Nodes.Scan(v, state.K()) {
		if n.Status == "READY" && n.AmazonAgent == nil {
			out = append(out, n.Id)
		}
	}
	return out
}

// ownProber is the node that an endpoint is on, if that one probes: Amazon's agent does not.
func ownProber(v *state.View, e *mesh.Endpoint) string {
	if n, ok := controlplane.Nodes.Get(v, state.K(e.Node)); ok && n.AmazonAgent != nil {
		return ""
	}
	return e.Node
}

// prober is the node that probes the endpoint: by rendezvous hashing, so that a node that comes or goes moves few checks.
func prober(v *state.View, e *mesh.Endpoint, ready func() []string) string {
	if own := ownProber(v, e); own != "" {
		return own
	}
	best, most := "", uint64(0)
	for _, n := range ready() {
		h := fnv.New64a()
		h.Write([]byte(n + "/" + e.Group + "/" + e.Id))
		if s := h.Sum64(); best == "" || s > most {
			best, most = n, s
		}
	}
	return best
}
