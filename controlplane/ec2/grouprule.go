package ec2

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

// ruleRequest is what the four operations on rules have in common.
type ruleRequest struct {
	groupID, groupName *string
	dryRun             *bool
	permissions        []types.IpPermission
	// The older way to give one permission.
	protocol, cidr, sourceGroup, sourceOwner *string
	from, to                                 *int32
	ids                                      []string // of rules, to revoke
	egress                                   bool
}

// all are the permissions of the request, whichever way they were given.
func (q ruleRequest) all() ([]types.IpPermission, error) {
	old := q.protocol != nil || q.cidr != nil || q.sourceGroup != nil || q.from != nil || q.to != nil
	switch {
	case old && len(q.permissions) > 0:
		return nil, awserr.New("InvalidParameterCombination", "The parameter 'ipPermissions' may not be used in combination with 'ipProtocol'")
	case !old:
		return q.permissions, nil
	case q.sourceGroup != nil && q.egress:
		return nil, awserr.New("InvalidParameterValue", "Use a set of IP permissions to specify a destination security group")
	}
	p := types.IpPermission{IpProtocol: q.protocol, FromPort: q.from, ToPort: q.to}
	if q.cidr != nil {
		p.IpRanges = []types.IpRange{{CidrIp: q.cidr}}
	}
	if q.sourceGroup != nil {
		if q.protocol == nil {
			p.IpProtocol = new("-1")
		}
		p.UserIdGroupPairs = []types.UserIdGroupPair{{GroupName: q.sourceGroup, UserId: q.sourceOwner}}
	}
	return []types.IpPermission{p}, nil
}

// authorizeSecurityGroupIngress implements ec2:AuthorizeSecurityGroupIngress.
func (s *Service) authorizeSecurityGroupIngress(ctx context.Context, in *ec2.AuthorizeSecurityGroupIngressInput) (*ec2.AuthorizeSecurityGroupIngressOutput, error) {
	rules, err := s.authorize(ctx, ruleRequest{groupID: in.GroupId, groupName: in.GroupName, dryRun: in.DryRun, permissions: in.IpPermissions, protocol: in.IpProtocol,
		cidr: in.CidrIp, sourceGroup: in.SourceSecurityGroupName, sourceOwner: in.SourceSecurityGroupOwnerId, from: in.FromPort, to: in.ToPort}, in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	return &ec2.AuthorizeSecurityGroupIngressOutput{Return: new(true), SecurityGroupRules: rules}, nil
}

// authorizeSecurityGroupEgress implements ec2:AuthorizeSecurityGroupEgress.
func (s *Service) authorizeSecurityGroupEgress(ctx context.Context, in *ec2.AuthorizeSecurityGroupEgressInput) (*ec2.AuthorizeSecurityGroupEgressOutput, error) {
	rules, err := s.authorize(ctx, ruleRequest{egress: true, groupID: in.GroupId, dryRun: in.DryRun, permissions: in.IpPermissions, protocol: in.IpProtocol,
		cidr: in.CidrIp, sourceGroup: in.SourceSecurityGroupName, sourceOwner: in.SourceSecurityGroupOwnerId, from: in.FromPort, to: in.ToPort}, in.TagSpecifications)
	if err != nil {
		return nil, err
	}
	return &ec2.AuthorizeSecurityGroupEgressOutput{Return: new(true), SecurityGroupRules: rules}, nil
}

func (s *Service) authorize(ctx context.Context, q ruleRequest, specs []types.TagSpecification) ([]types.SecurityGroupRule, error) {
	tags, err := tagSpecification(specs, "security-group-rule")
	if err != nil {
		return nil, err
	}
	permissions, err := q.all()
	if err != nil {
		return nil, err
	}
	if len(permissions) == 0 {
		return nil, awserr.New("MissingParameter", "The request must contain the parameter ipPermissions")
	}
	var made []types.SecurityGroupRule
	err = s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		made = nil
		old, err := groupOf(tx, scope, q.groupID, q.groupName)
		if err != nil {
			return err
		}
		rules, err := rulesOf(tx, scope, q.egress, permissions)
		if err != nil {
			return err
		}
		g := proto.CloneOf(old)
		for _, r := range rules {
			if slices.ContainsFunc(g.Rules, r.same) {
				return awserr.New("InvalidPermission.Duplicate", `the specified rule "%s" already exists`, r.words())
			}
			r.Id, r.Tags = "sgr-"+id.Hex(s.Rand, 17), tags
			g.Rules = append(g.Rules, r)
			made = append(made, g.ruleShape(r))
		}
		if g.full() {
			return awserr.New("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached.")
		}
		if err := dryRun(q.dryRun); err != nil {
			return err
		}
		return g.put(tx)
	})
	return made, err
}

// full says whether a direction has more rules than may be: those for blocks of IPv4, with those that name groups, or of IPv6, with these.
func (g *SecurityGroup) full() bool {
	for _, egress := range []bool{false, true} {
		v4, v6 := 0, 0
		for _, r := range g.Rules {
			if r.Egress != egress {
				continue
			}
			if r.CidrIpv6 == "" {
				v4++
			}
			if r.CidrIpv4 == "" {
				v6++
			}
		}
		if max(v4, v6) > maxRules {
			return true
		}
	}
	return false
}

// words are how EC2 says a rule in its errors.
func (r *SecurityGroupRule) words() string {
	if r.Protocol == "-1" {
		return fmt.Sprintf("peer: %s, ALL, ALLOW", r.place())
	}
	return fmt.Sprintf("peer: %s, %s, from port: %d, to port: %d, ALLOW", r.place(), strings.ToUpper(r.Protocol), r.FromPort, r.ToPort)
}

// revokeSecurityGroupIngress implements ec2:RevokeSecurityGroupIngress.
func (s *Service) revokeSecurityGroupIngress(ctx context.Context, in *ec2.RevokeSecurityGroupIngressInput) (*ec2.RevokeSecurityGroupIngressOutput, error) {
	gone, err := s.revoke(ctx, ruleRequest{groupID: in.GroupId, groupName: in.GroupName, dryRun: in.DryRun, permissions: in.IpPermissions, protocol: in.IpProtocol, ids: in.SecurityGroupRuleIds,
		cidr: in.CidrIp, sourceGroup: in.SourceSecurityGroupName, sourceOwner: in.SourceSecurityGroupOwnerId, from: in.FromPort, to: in.ToPort})
	if err != nil {
		return nil, err
	}
	return &ec2.RevokeSecurityGroupIngressOutput{Return: new(true), RevokedSecurityGroupRules: gone}, nil
}

// revokeSecurityGroupEgress implements ec2:RevokeSecurityGroupEgress.
func (s *Service) revokeSecurityGroupEgress(ctx context.Context, in *ec2.RevokeSecurityGroupEgressInput) (*ec2.RevokeSecurityGroupEgressOutput, error) {
	gone, err := s.revoke(ctx, ruleRequest{egress: true, groupID: in.GroupId, dryRun: in.DryRun, permissions: in.IpPermissions, protocol: in.IpProtocol, ids: in.SecurityGroupRuleIds,
		cidr: in.CidrIp, sourceGroup: in.SourceSecurityGroupName, sourceOwner: in.SourceSecurityGroupOwnerId, from: in.FromPort, to: in.ToPort})
	if err != nil {
		return nil, err
	}
	return &ec2.RevokeSecurityGroupEgressOutput{Return: new(true), RevokedSecurityGroupRules: gone}, nil
}

func (s *Service) revoke(ctx context.Context, q ruleRequest) ([]types.RevokedSecurityGroupRule, error) {
	permissions, err := q.all()
	switch {
	case err != nil:
		return nil, err
	case len(permissions) > 0 && len(q.ids) > 0:
		return nil, awserr.New("InvalidParameterCombination", "The parameters 'ipPermissions' and 'securityGroupRuleIds' may not be used together")
	case len(permissions) == 0 && len(q.ids) == 0:
		return nil, awserr.New("MissingParameter", "Either 'ipPermissions' or 'securityGroupRuleIds' should be provided.")
	}
	var gone []types.RevokedSecurityGroupRule
	err = s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		gone = nil
		old, err := groupOf(tx, scope, q.groupID, q.groupName)
		if err != nil {
			return err
		}
		rules, err := rulesOf(tx, scope, q.egress, permissions)
		if err != nil {
			return err
		}
		g := proto.CloneOf(old)
		remove := func(is func(*SecurityGroupRule) bool) bool {
			i := slices.IndexFunc(g.Rules, is)
			if i < 0 {
				return false
			}
			r := g.Rules[i]
			gone = append(gone, types.RevokedSecurityGroupRule{SecurityGroupRuleId: &r.Id, GroupId: &g.Id, IsEgress: &r.Egress, IpProtocol: &r.Protocol, FromPort: &r.FromPort, ToPort: &r.ToPort,
				CidrIpv4: optional(r.CidrIpv4), CidrIpv6: optional(r.CidrIpv6), ReferencedGroupId: optional(r.Group), Description: optional(r.Description)})
			g.Rules = slices.Delete(g.Rules, i, i+1)
			return true
		}
		for _, id := range q.ids {
			if !remove(func(r *SecurityGroupRule) bool { return r.Id == id && r.Egress == q.egress }) {
				return awserr.New(ruleKind.notFound, "The %s '%s' does not exist", ruleKind.noun, id)
			}
		}
		for _, rule := range rules {
			if !remove(rule.same) {
				return awserr.New("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
			}
		}
		if err := dryRun(q.dryRun); err != nil {
			return err
		}
		SecurityGroups.Put(tx, g)
		return nil
	})
	return gone, err
}

var ruleFilters = filters[types.SecurityGroupRule]{
	"group-id":               one(func(v types.SecurityGroupRule) *string { return v.GroupId }),
	"security-group-rule-id": one(func(v types.SecurityGroupRule) *string { return v.SecurityGroupRuleId }),
	anyTag: func(v types.SecurityGroupRule) (tags []string) {
		for _, t := range v.Tags {
			tags = append(tags, *t.Key+"\x00"+*t.Value)
		}
		return tags
	},
	"tag-key": func(v types.SecurityGroupRule) (keys []string) {
		for _, t := range v.Tags {
			keys = append(keys, *t.Key)
		}
		return keys
	},
}

// describeSecurityGroupRules implements ec2:DescribeSecurityGroupRules.
func (s *Service) describeSecurityGroupRules(ctx context.Context, in *ec2.DescribeSecurityGroupRulesInput) (*ec2.DescribeSecurityGroupRulesOutput, error) {
	match, err := ruleFilters.compile(in.Filters)
	if err != nil {
		return nil, err
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	var all []types.SecurityGroupRule
	for _, g := range groups(v, scope) {
		for _, r := range g.Rules {
			all = append(all, g.ruleShape(r))
		}
	}
	id := func(v types.SecurityGroupRule) string { return *v.SecurityGroupRuleId }
	exists := func(asked string) bool {
		return slices.ContainsFunc(all, func(v types.SecurityGroupRule) bool { return id(v) == asked })
	}
	if err := ruleKind.check(in.SecurityGroupRuleIds, exists); err != nil {
		return nil, err
	}
	if err := dryRun(in.DryRun); err != nil {
		return nil, err
	}
	found := []types.SecurityGroupRule{}
	for _, v := range all {
		if named(in.SecurityGroupRuleIds, v.SecurityGroupRuleId) && match(v) {
			found = append(found, v)
		}
	}
	slices.SortFunc(found, func(a, b types.SecurityGroupRule) int { return strings.Compare(id(a), id(b)) })
	page, next, err := api.Page(ctx, s.Pages, in, api.PageSize(in.MaxResults, maxPage, maxPage),
		func(last string) iter.Seq[types.SecurityGroupRule] { return after(found, id, last) }, id)
	if err != nil {
		return nil, err
	}
	return &ec2.DescribeSecurityGroupRulesOutput{SecurityGroupRules: page, NextToken: next}, nil
}

func (g *SecurityGroup) ruleShape(r *SecurityGroupRule) types.SecurityGroupRule {
	shape := types.SecurityGroupRule{
		SecurityGroupRuleId: &r.Id, SecurityGroupRuleArn: new(ruleARN(g.Account, g.Region, r.Id)),
		GroupId: &g.Id, GroupOwnerId: &g.Account, IsEgress: &r.Egress, IpProtocol: &r.Protocol, FromPort: &r.FromPort, ToPort: &r.ToPort,
		CidrIpv4: optional(r.CidrIpv4), CidrIpv6: optional(r.CidrIpv6), Description: optional(r.Description), Tags: shapeTags(r.Tags),
	}
	if r.Group != "" {
		shape.ReferencedGroupInfo = &types.ReferencedSecurityGroup{GroupId: &r.Group, UserId: &g.Account}
	}
	return shape
}
