package elb

import (
	"context"
	"iter"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

// maxRules of a load balancer's listener, without the default rule: "Quotas for your Application Load Balancers".
const maxRules = 100

func checkPriority(p *int32) error {
	if p == nil {
		return invalid("A rule priority must be specified")
	}
	if *p < 1 || *p > 50000 {
		return invalid("Rule priority '%d' must be between '1' and '50000' inclusive", *p)
	}
	return nil
}

// createRule implements elasticloadbalancing:CreateRule. Repeating it with the same settings answers the rule that is there.
func (s *Service) createRule(ctx context.Context, in *elbv2.CreateRuleInput) (*elbv2.CreateRuleOutput, error) {
	if err := checkPriority(in.Priority); err != nil {
		return nil, err
	}
	if len(in.Transforms) > 0 {
		return nil, notYet("A transform of a rule")
	}
	conditions, err := checkConditions(in.Conditions)
	if err != nil {
		return nil, err
	}
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	newID := id.Hex(s.Rand, 16)
	var rule *Rule
	err = s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		l, err := findListener(tx, scope, aws.ToString(in.ListenerArn))
		if err != nil {
			return err
		}
		if l.LoadBalancerType != "application" {
			return awserr.New("InvalidConfigurationRequest", "Rules are not supported for listeners of a network load balancer")
		}
		lb, err := findLoadBalancer(tx, scope, l.LoadBalancerARN())
		if err != nil {
			return err
		}
		actions, err := checkActions(tx, scope, lb, in.Actions)
		if err != nil {
			return err
		}
		rule = &Rule{
			Account: scope.Account, Region: scope.Region, LoadBalancer: l.LoadBalancer, LoadBalancerId: l.LoadBalancerId,
			LoadBalancerType: l.LoadBalancerType, Listener: l.Id, Id: newID, Priority: uint32(*in.Priority),
			ConditionsJson: conditions, ActionsJson: actions,
		}
		if claim, ok := Priorities.Get(tx, scope.Key(l.Id, priorityKey(rule.Priority))); ok {
			old, _ := Rules.Get(tx, scope.Key(l.LoadBalancer, l.Id, claim.Rule))
			if old != nil && old.ConditionsJson == conditions && old.ActionsJson == actions {
				rule = old
				return nil
			}
			return priorityInUse(rule.Priority)
		}
		count := 0
		for range Rules.Scan(tx, scope.Key(l.LoadBalancer, l.Id)) {
			count++
		}
		if count >= maxRules {
			return awserr.New("TooManyRules", "The maximum number of rules has been reached on load balancer '%s'", lb.ARN())
		}
		Rules.Put(tx, rule)
		claim(tx, rule)
		controlplane.PutTags(tx, scope, rule.ARN(), tags)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elbv2.CreateRuleOutput{Rules: []types.Rule{renderRule(rule)}}, nil
}

func priorityInUse(p uint32) error {
	return awserr.New("PriorityInUse", "Priority '%d' is currently in use", p)
}

func claim(tx *state.Tx, r *Rule) {
	Priorities.Put(tx, &Priority{Account: r.Account, Region: r.Region, Listener: r.Listener, Priority: r.Priority, Rule: r.Id})
}

func dropRule(tx *state.Tx, scope controlplane.Scope, r *Rule) {
	Rules.Delete(tx, Rules.Key(r))
	Priorities.Delete(tx, scope.Key(r.Listener, priorityKey(r.Priority)))
	controlplane.PutTags(tx, scope, r.ARN(), nil)
}

func renderRule(r *Rule) types.Rule {
	return types.Rule{
		RuleArn: aws.String(r.ARN()), Priority: aws.String(strconv.Itoa(int(r.Priority))), IsDefault: aws.Bool(false),
		Conditions: renderConditions(decodeConditions(r.ConditionsJson)), Actions: decodeActions(r.ActionsJson),
	}
}

func renderDefaultRule(l *Listener) types.Rule {
	return types.Rule{
		RuleArn: aws.String(l.DefaultRuleARN()), Priority: aws.String("default"), IsDefault: aws.Bool(true),
		Conditions: []types.RuleCondition{}, Actions: decodeActions(l.ActionsJson),
	}
}

// describeRules implements elasticloadbalancing:DescribeRules: by ascending priority, the default rule last.
func (s *Service) describeRules(ctx context.Context, in *elbv2.DescribeRulesInput) (*elbv2.DescribeRulesOutput, error) {
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	out := &elbv2.DescribeRulesOutput{Rules: []types.Rule{}}
	if in.ListenerArn != nil && len(in.RuleArns) > 0 || in.ListenerArn == nil && len(in.RuleArns) == 0 {
		return nil, invalid("You must specify either listener rule ARNs or a listener ARN")
	}
	for _, a := range in.RuleArns {
		l, r, err := findRule(v, scope, a)
		if err != nil {
			return nil, err
		}
		if r == nil {
			out.Rules = append(out.Rules, renderDefaultRule(l))
			continue
		}
		out.Rules = append(out.Rules, renderRule(r))
	}
	if in.ListenerArn == nil {
		return out, nil
	}
	l, err := findListener(v, scope, *in.ListenerArn)
	if err != nil {
		return nil, err
	}
	var rules []*Rule
	for p := range Priorities.Scan(v, scope.Key(l.Id)) {
		if r, ok := Rules.Get(v, scope.Key(l.LoadBalancer, l.Id, p.Rule)); ok {
			rules = append(rules, r)
		}
	}
	rules = append(rules, nil) // the default
	key := func(r *Rule) string {
		if r == nil {
			return "default"
		}
		return priorityKey(r.Priority)
	}
	page, next, err := api.Page(ctx, s.Pages, in, api.PageSize(in.PageSize, 400, 400), func(after string) iter.Seq[*Rule] {
		return slices.Values(rules[slices.IndexFunc(rules, func(r *Rule) bool { return key(r) > after || r == nil }):])
	}, key)
	if err != nil {
		return nil, err
	}
	for _, r := range page {
		if r == nil {
			out.Rules = append(out.Rules, renderDefaultRule(l))
			continue
		}
		out.Rules = append(out.Rules, renderRule(r))
	}
	out.NextMarker = next
	return out, nil
}

// modifyRule implements elasticloadbalancing:ModifyRule.
func (s *Service) modifyRule(ctx context.Context, in *elbv2.ModifyRuleInput) (*elbv2.ModifyRuleOutput, error) {
	if len(in.Transforms) > 0 {
		return nil, notYet("A transform of a rule")
	}
	var rule *Rule
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		l, old, err := findRule(tx, scope, aws.ToString(in.RuleArn))
		if err != nil {
			return err
		}
		if old == nil {
			return awserr.New("OperationNotPermitted", "Default rule '%s' cannot be modified", l.DefaultRuleARN())
		}
		lb, err := findLoadBalancer(tx, scope, l.LoadBalancerARN())
		if err != nil {
			return err
		}
		rule = proto.Clone(old).(*Rule)
		if in.Conditions != nil {
			if rule.ConditionsJson, err = checkConditions(in.Conditions); err != nil {
				return err
			}
		}
		if in.Actions != nil {
			if rule.ActionsJson, err = checkActions(tx, scope, lb, in.Actions); err != nil {
				return err
			}
		}
		Rules.Put(tx, rule)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elbv2.ModifyRuleOutput{Rules: []types.Rule{renderRule(rule)}}, nil
}

// deleteRule implements elasticloadbalancing:DeleteRule.
func (s *Service) deleteRule(ctx context.Context, in *elbv2.DeleteRuleInput) (*elbv2.DeleteRuleOutput, error) {
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		l, r, err := findRule(tx, scope, aws.ToString(in.RuleArn))
		if err != nil {
			return err
		}
		if r == nil {
			return awserr.New("OperationNotPermitted", "Default rule '%s' cannot be deleted", l.DefaultRuleARN())
		}
		dropRule(tx, scope, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elbv2.DeleteRuleOutput{}, nil
}

// setRulePriorities implements elasticloadbalancing:SetRulePriorities: all or none, so that rules can change places.
func (s *Service) setRulePriorities(ctx context.Context, in *elbv2.SetRulePrioritiesInput) (*elbv2.SetRulePrioritiesOutput, error) {
	if len(in.RulePriorities) == 0 {
		return nil, invalid("At least one rule priority must be specified")
	}
	if len(in.RulePriorities) > rulesPerTransaction {
		return nil, invalid("At most %d rule priorities can be set at once", rulesPerTransaction)
	}
	var rules []*Rule
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		rules = nil
		for _, p := range in.RulePriorities {
			if err := checkPriority(p.Priority); err != nil {
				return err
			}
			l, old, err := findRule(tx, scope, aws.ToString(p.RuleArn))
			if err != nil {
				return err
			}
			if old == nil {
				return awserr.New("OperationNotPermitted", "Priority of default rule '%s' cannot be modified", l.DefaultRuleARN())
			}
			r := proto.Clone(old).(*Rule)
			Priorities.Delete(tx, scope.Key(old.Listener, priorityKey(old.Priority)))
			r.Priority = uint32(*p.Priority)
			rules = append(rules, r)
		}
		for _, r := range rules {
			if _, taken := Priorities.Get(tx, scope.Key(r.Listener, priorityKey(r.Priority))); taken {
				return priorityInUse(r.Priority)
			}
			claim(tx, r)
			Rules.Put(tx, r)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := &elbv2.SetRulePrioritiesOutput{}
	for _, r := range rules {
		out.Rules = append(out.Rules, renderRule(r))
	}
	return out, nil
}
