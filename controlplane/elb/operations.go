package elb

import "github.com/seed-2f228079/neargate/api"

// Operations is the family's table.
func (s *Service) Operations() []api.Operation {
	return []api.Operation{
		api.Write(s.addTags),
		api.Write(s.createListener, api.Route("POST /listeners")),
		api.Write(s.createLoadBalancer, api.Route("POST /load-balancers")),
		api.Write(s.createRule, api.Route("POST /listener-rules")),
		api.Write(s.createTargetGroup, api.Route("POST /target-groups")),
		api.Write(s.deleteListener),
		api.Write(s.deleteLoadBalancer),
		api.Write(s.deleteRule),
		api.Write(s.deleteTargetGroup),
		api.Write(s.deregisterTargets),
		api.Read(s.describeListeners, api.Route("GET /listeners")),
		api.Read(s.describeLoadBalancerAttributes),
		api.Read(s.describeLoadBalancers, api.Route("GET /load-balancers")),
		api.Read(s.describeRules, api.Route("GET /listener-rules")),
		api.Read(s.describeTags),
		api.Read(s.describeTargetGroupAttributes),
		api.Read(s.describeTargetGroups, api.Route("GET /target-groups")),
		api.Read(s.describeTargetHealth, api.Route("GET /target-health")),
		api.Write(s.modifyListener),
		api.Write(s.modifyLoadBalancerAttributes),
		api.Write(s.modifyRule),
		api.Write(s.modifyTargetGroup),
		api.Write(s.modifyTargetGroupAttributes),
		api.Write(s.registerTargets),
		api.Write(s.removeTags),
		api.Write(s.setRulePriorities),
		api.Write(s.setSecurityGroupsOp),
		api.Write(s.setSubnetsOp),
	}
}
