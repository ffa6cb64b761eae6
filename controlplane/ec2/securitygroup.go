package ec2

import (
	"context"
	"iter"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

var groupFilters = filters[types.SecurityGroup]{
	"description": one(func(v types.SecurityGroup) *string { return v.Description }),
	"group-id":    one(func(v types.SecurityGroup) *string { return v.GroupId }),
	"group-name":  one(func(v types.SecurityGroup) *string { return v.GroupName }),
	"owner-id":    one(func(v types.SecurityGroup) *string { return v.OwnerId }),
	"vpc-id":      one(func(v types.SecurityGroup) *string { return v.VpcId }),
	"tag-key":     nil,
}.
	with(permissionFilters("ip-permission.", func(v types.SecurityGroup) []types.IpPermission { return v.IpPermissions })).
	with(permissionFilters("egress.ip-permission.", func(v types.SecurityGroup) []types.IpPermission { return v.IpPermissionsEgress }))

// permissionFilters are the filters over a group's rules, which inbound and outbound rules have alike.
func permissionFilters(prefix string, rules func(types.SecurityGroup) []types.IpPermission) filters[types.SecurityGroup] {
	each := func(values func(types.IpPermission) []string) func(types.SecurityGroup) []string {
		return func(v types.SecurityGroup) (out []string) {
			for _, p := range rules(v) {
				out = append(out, values(p)...)
			}
			return out
		}
	}
	port := func(p *int32) []string {
		if p == nil {
			return nil
		}
		return []string{strconv.Itoa(int(*p))}
	}
	pairs := func(f func(types.UserIdGroupPair) *string) func(types.SecurityGroup) []string {
		return each(func(p types.IpPermission) (out []string) {
			for _, g := range p.UserIdGroupPairs {
				if s := f(g); s != nil {
					out = append(out, *s)
				}
			}
			return out
		})
	}
	return filters[types.SecurityGroup]{
		prefix + "cidr": each(func(p types.IpPermission) (out []string) {
			for _, r := range p.IpRanges {
				out = append(out, str(r.CidrIp))
			}
			return out
		}),
		prefix + "from-port":      each(func(p types.IpPermission) []string { return port(p.FromPort) }),
		prefix + "to-port":        each(func(p types.IpPermission) []string { return port(p.ToPort) }),
		prefix + "protocol":       each(func(p types.IpPermission) []string { return []string{str(p.IpProtocol)} }),
		prefix + "group-id":       pairs(func(g types.UserIdGroupPair) *string { return g.GroupId }),
		prefix + "group-name":     pairs(func(g types.UserIdGroupPair) *string { return g.GroupName }),
		prefix + "user-id":        pairs(func(g types.UserIdGroupPair) *string { return g.UserId }),
		prefix + "ipv6-cidr":      nil,
		prefix + "prefix-list-id": nil,
	}
}

// describeSecurityGroups implements ec2:DescribeSecurityGroups.
func (s *Service) describeSecurityGroups(ctx context.Context, in *ec2.DescribeSecurityGroupsInput) (*ec2.DescribeSecurityGroupsOutput, error) {
	c := api.CallFrom(ctx)
	match, err := groupFilters.compile(in.Filters)
	if err != nil {
		return nil, err
	}
	exists := func(id string) bool { _, ok := s.network.SecurityGroup(c.Account, c.Region, id); return ok }
	if err := groupKind.check(in.GroupIds, exists); err != nil {
		return nil, err
	}
	g := s.network.defaultGroup(c.Account, c.Region)
	for _, name := range in.GroupNames { // names are those of the default VPC's groups
		if name != *g.GroupName {
			return nil, awserr.New(groupKind.notFound, "The security group '%s' does not exist in default VPC '%s'", name, *g.VpcId)
		}
	}
	if err := dryRun(in.DryRun); err != nil {
		return nil, err
	}
	found := []types.SecurityGroup{}
	asked := len(in.GroupIds)+len(in.GroupNames) == 0 || slices.Contains(in.GroupIds, *g.GroupId) || slices.Contains(in.GroupNames, *g.GroupName)
	if asked && match(g) {
		found = append(found, g)
	}
	id := func(v types.SecurityGroup) string { return *v.GroupId }
	page, next, err := api.Page(ctx, s.pages, in, api.PageSize(in.MaxResults, maxPage, maxPage),
		func(last string) iter.Seq[types.SecurityGroup] { return after(found, id, last) }, id)
	if err != nil {
		return nil, err
	}
	return &ec2.DescribeSecurityGroupsOutput{SecurityGroups: page, NextToken: next}, nil
}

// defaultGroup lets its members talk to one another and to everybody outside, as every VPC's default group does.
func (n Network) defaultGroup(account, region string) types.SecurityGroup {
	id := n.DefaultSecurityGroup(account, region)
	return types.SecurityGroup{
		GroupId:          &id,
		GroupName:        new("default"),
		Description:      new("default VPC security group"),
		OwnerId:          &account,
		VpcId:            new(n.DefaultVPC(account, region)),
		SecurityGroupArn: new(arn.New("ec2", region, account, "security-group/"+id).String()),
		IpPermissions: []types.IpPermission{{
			IpProtocol:       new("-1"),
			UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: &id, UserId: &account}},
		}},
		IpPermissionsEgress: []types.IpPermission{{
			IpProtocol: new("-1"),
			IpRanges:   []types.IpRange{{CidrIp: new("0.0.0.0/0")}},
		}},
	}
}
