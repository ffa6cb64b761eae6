package elb

import (
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// The tables, all written by the operations alone; proxies follow them through the sources in source.go.
var (
	LoadBalancers = state.NewTable("elb.loadbalancer", func(l *LoadBalancer) state.Key { return state.K(l.Account, l.Region, l.Name) })
	Addresses     = state.NewTable("elb.address", func(a *Address) state.Key { return state.K(a.Address) })
	Listeners     = state.NewTable("elb.listener", func(l *Listener) state.Key {
		return state.K(l.Account, l.Region, l.LoadBalancer, portKey(l.Port))
	})
	Rules = state.NewTable("elb.rule", func(r *Rule) state.Key {
		return state.K(r.Account, r.Region, r.LoadBalancer, r.Listener, r.Id)
	})
	Priorities = state.NewTable("elb.priority", func(p *Priority) state.Key {
		return state.K(p.Account, p.Region, p.Listener, priorityKey(p.Priority))
	})
	TargetGroups = state.NewTable("elb.targetgroup", func(g *TargetGroup) state.Key { return state.K(g.Account, g.Region, g.Name) })
)

// Schema is every table of the family.
var Schema = state.Schema{LoadBalancers, Addresses, Listeners, Rules, Priorities, TargetGroups}

// The indexes: who forwards to a target group, by account, region and the group's ARN.
var (
	ListenersByGroup = state.NewIndex(Listeners, "group", func(l *Listener) []state.Key {
		return groupKeys(l.Account, l.Region, l.ActionsJson)
	})
	RulesByGroup = state.NewIndex(Rules, "group", func(r *Rule) []state.Key {
		return groupKeys(r.Account, r.Region, r.ActionsJson)
	})
)

func groupKeys(account, region, actions string) []state.Key {
	var keys []state.Key
	for _, g := range forwardedGroups(decodeActions(actions)) {
		keys = append(keys, state.K(account, region, g))
	}
	return keys
}

func portKey(p uint32) string     { return fmt.Sprintf("%05d", p) }
func priorityKey(p uint32) string { return fmt.Sprintf("%010d", p) }

func decodeActions(s string) []types.Action { return controlplane.DecodeShape[[]types.Action](s) }

func decodeConditions(s string) []types.RuleCondition {
	return controlplane.DecodeShape[[]types.RuleCondition](s)
}

// forwardedGroups are the ARNs of the target groups that actions name, each once.
func forwardedGroups(actions []types.Action) []string {
	var out []string
	seen := map[string]bool{"": true}
	add := func(g string) {
		if !seen[g] {
			seen[g] = true
			out = append(out, g)
		}
	}
	for _, a := range actions {
		add(aws.ToString(a.TargetGroupArn))
		if a.ForwardConfig != nil {
			for _, g := range a.ForwardConfig.TargetGroups {
				add(aws.ToString(g.TargetGroupArn))
			}
		}
	}
	return out
}

func kindOf(lbType string) string {
	if lbType == "network" {
		return "net"
	}
	return "app"
}

func elbARN(account, region, resource string) string {
	return arn.New("elasticloadbalancing", region, account, resource).String()
}

// ARN names the load balancer.
func (l *LoadBalancer) ARN() string {
	return elbARN(l.Account, l.Region, "loadbalancer/"+kindOf(l.Type)+"/"+l.Name+"/"+l.Id)
}

// LoadBalancerARN names the listener's load balancer.
func (l *Listener) LoadBalancerARN() string {
	return elbARN(l.Account, l.Region, "loadbalancer/"+kindOf(l.LoadBalancerType)+"/"+l.LoadBalancer+"/"+l.LoadBalancerId)
}

// ARN names the listener.
func (l *Listener) ARN() string {
	return elbARN(l.Account, l.Region, "listener/"+kindOf(l.LoadBalancerType)+"/"+l.LoadBalancer+"/"+l.LoadBalancerId+"/"+l.Id)
}

// DefaultRuleARN names the rule that stands for the listener's default actions.
func (l *Listener) DefaultRuleARN() string {
	return strings.Replace(l.ARN(), ":listener/", ":listener-rule/", 1) + "/" + l.DefaultRule
}

// ARN names the rule.
func (r *Rule) ARN() string {
	return elbARN(r.Account, r.Region, "listener-rule/"+kindOf(r.LoadBalancerType)+"/"+r.LoadBalancer+"/"+r.LoadBalancerId+"/"+r.Listener+"/"+r.Id)
}

// ARN names the target group.
func (g *TargetGroup) ARN() string {
	return elbARN(g.Account, g.Region, "targetgroup/"+g.Name+"/"+g.Id)
}

// parts splits an ARN of this scope: its kind and what follows. An ARN of another account or region names nothing here.
func parts(scope controlplane.Scope, text, kind string, n int) ([]string, bool) {
	a, err := arn.Parse(text)
	if err != nil || a.Service != "elasticloadbalancing" || a.Account != scope.Account || a.Region != scope.Region || a.Type() != kind {
		return nil, false
	}
	p := strings.Split(a.Rest(), "/")
	return p, len(p) == n
}

func findLoadBalancer(r state.Reader, scope controlplane.Scope, text string) (*LoadBalancer, error) {
	if p, ok := parts(scope, text, "loadbalancer", 3); ok {
		if l, ok := LoadBalancers.Get(r, scope.Key(p[1])); ok && l.ARN() == text {
			return l, nil
		}
	} else if !strings.HasPrefix(text, "arn:") {
		return nil, invalid("'%s' is not a valid load balancer ARN", text)
	}
	return nil, loadBalancerNotFound()
}

func findListener(r state.Reader, scope controlplane.Scope, text string) (*Listener, error) {
	if p, ok := parts(scope, text, "listener", 4); ok {
		for l := range Listeners.Scan(r, scope.Key(p[1])) {
			if l.ARN() == text {
				return l, nil
			}
		}
	} else if !strings.HasPrefix(text, "arn:") {
		return nil, invalid("'%s' is not a valid listener ARN", text)
	}
	return nil, listenerNotFound()
}

// findRule finds a rule; for a listener's default rule the listener comes alone.
func findRule(r state.Reader, scope controlplane.Scope, text string) (*Listener, *Rule, error) {
	p, ok := parts(scope, text, "listener-rule", 5)
	if !ok {
		if !strings.HasPrefix(text, "arn:") {
			return nil, nil, invalid("'%s' is not a valid listener rule ARN", text)
		}
		return nil, nil, ruleNotFound()
	}
	for l := range Listeners.Scan(r, scope.Key(p[1])) {
		if l.Id != p[3] {
			continue
		}
		if l.DefaultRuleARN() == text {
			return l, nil, nil
		}
		if rule, ok := Rules.Get(r, scope.Key(p[1], p[3], p[4])); ok && rule.ARN() == text {
			return l, rule, nil
		}
	}
	return nil, nil, ruleNotFound()
}

func findTargetGroup(r state.Reader, scope controlplane.Scope, text string) (*TargetGroup, error) {
	if p, ok := parts(scope, text, "targetgroup", 2); ok {
		if g, ok := TargetGroups.Get(r, scope.Key(p[0])); ok && g.ARN() == text {
			return g, nil
		}
	} else if !strings.HasPrefix(text, "arn:") {
		return nil, invalid("'%s' is not a valid target group ARN", text)
	}
	return nil, targetGroupNotFound()
}

// used says whether a listener or rule forwards to the group.
func used(r state.Reader, scope controlplane.Scope, group string) bool {
	return len(usersOf(r, scope, group)) > 0
}

// usersOf lists the ARNs of the load balancers that forward to the group, each once.
func usersOf(r state.Reader, scope controlplane.Scope, group string) []string {
	var out []string
	seen := map[string]bool{}
	add := func(a string) {
		if !seen[a] {
			seen[a] = true
			out = append(out, a)
		}
	}
	for l := range ListenersByGroup.Scan(r, scope.Key(group)) {
		add(l.LoadBalancerARN())
	}
	for rule := range RulesByGroup.Scan(r, scope.Key(group)) {
		add(elbARN(rule.Account, rule.Region, "loadbalancer/"+kindOf(rule.LoadBalancerType)+"/"+rule.LoadBalancer+"/"+rule.LoadBalancerId))
	}
	return out
}

// UsesSecurityGroup says whether a load balancer is in the group.
func UsesSecurityGroup(r state.Reader, account, region, group string) bool {
	for lb := range LoadBalancers.Scan(r, state.K(account, region)) {
		if slices.Contains(lb.SecurityGroups, group) {
			return true
		}
	}
	return false
}
