package elb

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/seed-2f228079/neargate/api"
)

// Operations is the family's table. What describes, AWS holds against no resource; what makes a thing, against the ARN it will have but for
// its id.
func (s *Service) Operations() []api.Operation {
	return []api.Operation{
		api.Write(s.addTags, api.Resources(func(_ *api.Call, in *elb.AddTagsInput) []string { return in.ResourceArns })),
		api.Write(s.createListener, api.Route("POST /listeners"), on(func(in *elb.CreateListenerInput) *string { return in.LoadBalancerArn }),
			api.Tagged(func(_ *api.Call, in *elb.CreateListenerInput) string {
				return below(in.LoadBalancerArn, ":loadbalancer/", ":listener/")
			})),
		api.Write(s.createLoadBalancer, api.Route("POST /load-balancers"), api.Resource(func(c *api.Call, in *elb.CreateLoadBalancerInput) string {
			return elbARN(c.Account, c.Region, "loadbalancer/"+kindOf(string(in.Type))+"/"+aws.ToString(in.Name)+"/*")
		})),
		api.Write(s.createRule, api.Route("POST /listener-rules"), on(func(in *elb.CreateRuleInput) *string { return in.ListenerArn }),
			api.Tagged(func(_ *api.Call, in *elb.CreateRuleInput) string {
				return below(in.ListenerArn, ":listener/", ":listener-rule/")
			})),
		api.Write(s.createTargetGroup, api.Route("POST /target-groups"), api.Resource(func(c *api.Call, in *elb.CreateTargetGroupInput) string {
			return elbARN(c.Account, c.Region, "targetgroup/"+aws.ToString(in.Name)+"/*")
		})),
		api.Write(s.deleteListener, on(func(in *elb.DeleteListenerInput) *string { return in.ListenerArn })),
		api.Write(s.deleteLoadBalancer, on(func(in *elb.DeleteLoadBalancerInput) *string { return in.LoadBalancerArn })),
		api.Write(s.deleteRule, on(func(in *elb.DeleteRuleInput) *string { return in.RuleArn })),
		api.Write(s.deleteTargetGroup, on(func(in *elb.DeleteTargetGroupInput) *string { return in.TargetGroupArn })),
		api.Write(s.deregisterTargets, on(func(in *elb.DeregisterTargetsInput) *string { return in.TargetGroupArn })),
		api.Read(s.describeListeners, api.Route("GET /listeners")),
		api.Read(s.describeLoadBalancerAttributes),
		api.Read(s.describeLoadBalancers, api.Route("GET /load-balancers")),
		api.Read(s.describeRules, api.Route("GET /listener-rules")),
		api.Read(s.describeTags),
		api.Read(s.describeTargetGroupAttributes),
		api.Read(s.describeTargetGroups, api.Route("GET /target-groups")),
		api.Read(s.describeTargetHealth, api.Route("GET /target-health")),
		api.Write(s.modifyListener, on(func(in *elb.ModifyListenerInput) *string { return in.ListenerArn })),
		api.Write(s.modifyLoadBalancerAttributes, on(func(in *elb.ModifyLoadBalancerAttributesInput) *string { return in.LoadBalancerArn })),
		api.Write(s.modifyRule, on(func(in *elb.ModifyRuleInput) *string { return in.RuleArn })),
		api.Write(s.modifyTargetGroup, on(func(in *elb.ModifyTargetGroupInput) *string { return in.TargetGroupArn })),
		api.Write(s.modifyTargetGroupAttributes, on(func(in *elb.ModifyTargetGroupAttributesInput) *string { return in.TargetGroupArn })),
		api.Write(s.registerTargets, on(func(in *elb.RegisterTargetsInput) *string { return in.TargetGroupArn })),
		api.Write(s.removeTags, api.Resources(func(_ *api.Call, in *elb.RemoveTagsInput) []string { return in.ResourceArns })),
		api.Write(s.setRulePriorities, api.Resources(func(_ *api.Call, in *elb.SetRulePrioritiesInput) []string {
			return ruleARNs(in.RulePriorities)
		})),
		api.Write(s.setSecurityGroupsOp, on(func(in *elb.SetSecurityGroupsInput) *string { return in.LoadBalancerArn })),
		api.Write(s.setSubnetsOp, on(func(in *elb.SetSubnetsInput) *string { return in.LoadBalancerArn })),
	}
}

// on says that an operation is on what one of its members names.
func on[I any](member func(*I) *string) api.Option {
	return api.Resource(func(_ *api.Call, in *I) string { return aws.ToString(member(in)) })
}

// below is the ARN of what will be made below parent, but for its id.
func below(parent *string, kind, made string) string {
	return strings.Replace(aws.ToString(parent), kind, made, 1) + "/*"
}

func ruleARNs(pairs []types.RulePriorityPair) []string {
	var out []string
	for _, p := range pairs {
		out = append(out, aws.ToString(p.RuleArn))
	}
	return out
}
