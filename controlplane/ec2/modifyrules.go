package ec2

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// maxGroupBytes is what a group's record may take: its rules with their descriptions are far below, only their tags could exceed it.
const maxGroupBytes = 512 << 10

// put keeps a group that was changed.
func (g *SecurityGroup) put(tx *state.Tx) error {
	if proto.Size(g) > maxGroupBytes {
		return awserr.New("TagLimitExceeded", "The rules of the security group '%s' have more tags than fit: %d KiB with everything.", g.Id, maxGroupBytes>>10)
	}
	SecurityGroups.Put(tx, g)
	return nil
}

func isRule(id string) bool { return strings.HasPrefix(id, ruleKind.prefix+"-") }

func ruleARN(account, region, id string) string {
	return arn.New("ec2", region, account, "security-group-rule/"+id).String()
}

// ruleWithID finds the group that has the rule, and where; nil: none has.
func ruleWithID(r state.Reader, scope controlplane.Scope, id string) (*SecurityGroup, int) {
	for _, g := range groups(r, scope) {
		if i := slices.IndexFunc(g.Rules, func(r *SecurityGroupRule) bool { return r.Id == id }); i >= 0 {
			return g, i
		}
	}
	return nil, -1
}

// modifySecurityGroupRules implements ec2:ModifySecurityGroupRules: a rule becomes what the request says and stays inbound or outbound, with its id and
// its tags.
func (s *Service) modifySecurityGroupRules(ctx context.Context, in *ec2.ModifySecurityGroupRulesInput) (*ec2.ModifySecurityGroupRulesOutput, error) {
	if len(in.SecurityGroupRules) == 0 {
		return nil, awserr.New("MissingParameter", "The request must contain the parameter securityGroupRule")
	}
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		old, err := groupOf(tx, scope, in.GroupId, nil)
		if err != nil {
			return err
		}
		g := proto.CloneOf(old)
		for _, u := range in.SecurityGroupRules {
			i := slices.IndexFunc(g.Rules, func(r *SecurityGroupRule) bool { return r.Id == str(u.SecurityGroupRuleId) })
			if err := ruleKind.check([]string{str(u.SecurityGroupRuleId)}, func(string) bool { return i >= 0 }); err != nil {
				return err
			}
			p, err := permissionOf(u.SecurityGroupRule)
			if err != nil {
				return err
			}
			was := g.Rules[i]
			rules, err := rulesOf(tx, scope, was.Egress, []types.IpPermission{p})
			if err != nil {
				return err
			}
			rules[0].Id, rules[0].Tags = was.Id, was.Tags
			g.Rules[i] = rules[0]
		}
		for i, r := range g.Rules { // once all are what they are to be: two may change places
			if slices.ContainsFunc(g.Rules[:i], r.same) {
				return awserr.New("InvalidPermission.Duplicate", `the specified rule "%s" already exists`, r.words())
			}
		}
		if g.full() {
			return awserr.New("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached.")
		}
		if err := dryRun(in.DryRun); err != nil {
			return err
		}
		return g.put(tx)
	})
	if err != nil {
		return nil, err
	}
	return &ec2.ModifySecurityGroupRulesOutput{Return: new(true)}, nil
}

// permissionOf is the one rule that a request describes, in the other way to say it.
func permissionOf(r *types.SecurityGroupRuleRequest) (types.IpPermission, error) {
	if r == nil {
		return types.IpPermission{}, awserr.New("MissingParameter", "The request must contain the parameter securityGroupRule")
	}
	p := types.IpPermission{IpProtocol: r.IpProtocol, FromPort: r.FromPort, ToPort: r.ToPort}
	places := 0
	if r.CidrIpv4 != nil {
		places++
		p.IpRanges = []types.IpRange{{CidrIp: r.CidrIpv4, Description: r.Description}}
	}
	if r.CidrIpv6 != nil {
		places++
		p.Ipv6Ranges = []types.Ipv6Range{{CidrIpv6: r.CidrIpv6, Description: r.Description}}
	}
	if r.ReferencedGroupId != nil {
		places++
		p.UserIdGroupPairs = []types.UserIdGroupPair{{GroupId: r.ReferencedGroupId, Description: r.Description}}
	}
	if r.PrefixListId != nil {
		places++
		p.PrefixListIds = []types.PrefixListId{{PrefixListId: r.PrefixListId}}
	}
	if places != 1 {
		return p, awserr.New("InvalidParameterCombination", "A rule must contain exactly one of: CidrIpv4, CidrIpv6, PrefixListId, ReferencedGroupId")
	}
	return p, nil
}
