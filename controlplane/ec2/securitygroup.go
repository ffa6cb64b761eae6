package ec2

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

var groupFilters = filters[types.SecurityGroup]{
	"description": one(func(v types.SecurityGroup) *string { return v.Description }),
	"group-id":    one(func(v types.SecurityGroup) *string { return v.GroupId }),
	"group-name":  one(func(v types.SecurityGroup) *string { return v.GroupName }),
	"owner-id":    one(func(v types.SecurityGroup) *string { return v.OwnerId }),
	"vpc-id":      one(func(v types.SecurityGroup) *string { return v.VpcId }),
	anyTag: func(v types.SecurityGroup) (tags []string) {
		for _, t := range v.Tags {
			tags = append(tags, *t.Key+"\x00"+*t.Value)
		}
		return tags
	},
	"tag-key": func(v types.SecurityGroup) (keys []string) {
		for _, t := range v.Tags {
			keys = append(keys, *t.Key)
		}
		return keys
	},
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
		prefix + "from-port":  each(func(p types.IpPermission) []string { return port(p.FromPort) }),
		prefix + "to-port":    each(func(p types.IpPermission) []string { return port(p.ToPort) }),
		prefix + "protocol":   each(func(p types.IpPermission) []string { return []string{str(p.IpProtocol)} }),
		prefix + "group-id":   pairs(func(g types.UserIdGroupPair) *string { return g.GroupId }),
		prefix + "group-name": pairs(func(g types.UserIdGroupPair) *string { return g.GroupName }),
		prefix + "user-id":    pairs(func(g types.UserIdGroupPair) *string { return g.UserId }),
		prefix + "ipv6-cidr": each(func(p types.IpPermission) (out []string) {
			for _, r := range p.Ipv6Ranges {
				out = append(out, str(r.CidrIpv6))
			}
			return out
		}),
		prefix + "prefix-list-id": nil,
	}
}

// describeSecurityGroups implements ec2:DescribeSecurityGroups.
func (s *Service) describeSecurityGroups(ctx context.Context, in *ec2.DescribeSecurityGroupsInput) (*ec2.DescribeSecurityGroupsOutput, error) {
	match, err := groupFilters.compile(in.Filters)
	if err != nil {
		return nil, err
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	exists := func(id string) bool { return findGroup(v, scope, id) != nil }
	if err := groupKind.check(in.GroupIds, exists); err != nil {
		return nil, err
	}
	for _, name := range in.GroupNames {
		if _, err := groupNamed(v, scope, name); err != nil {
			return nil, err
		}
	}
	if err := dryRun(in.DryRun); err != nil {
		return nil, err
	}
	found := []types.SecurityGroup{}
	for _, g := range groups(v, scope) {
		asked := len(in.GroupIds)+len(in.GroupNames) == 0 || slices.Contains(in.GroupIds, g.Id) || slices.Contains(in.GroupNames, g.Name)
		if shape := g.shape(v); asked && match(shape) {
			found = append(found, shape)
		}
	}
	id := func(v types.SecurityGroup) string { return *v.GroupId }
	page, next, err := api.Page(ctx, s.Pages, in, api.PageSize(in.MaxResults, maxPage, maxPage),
		func(last string) iter.Seq[types.SecurityGroup] { return after(found, id, last) }, id)
	if err != nil {
		return nil, err
	}
	return &ec2.DescribeSecurityGroupsOutput{SecurityGroups: page, NextToken: next}, nil
}

const (
	defaultGroupName = "default"
	maxGroups        = 2500 // of a VPC; AWS's quota
	maxRules         = 60   // of one direction and family of addresses; AWS's quota
)

// defaultGroup lets its members talk to one another and to everybody outside, as every VPC's default group does.
func (n Network) defaultGroup(account, region string) *SecurityGroup {
	id := n.DefaultSecurityGroup(account, region)
	return &SecurityGroup{
		Account: account, Region: region, Id: id, Name: defaultGroupName, Description: "default VPC security group", Vpc: n.DefaultVPC(account, region),
		Rules: []*SecurityGroupRule{
			{Id: stableID("sgr", account, region, "in"), Protocol: "-1", FromPort: -1, ToPort: -1, Group: id},
			{Id: stableID("sgr", account, region, "out"), Egress: true, Protocol: "-1", FromPort: -1, ToPort: -1, CidrIpv4: "0.0.0.0/0"},
			{Id: stableID("sgr", account, region, "out6"), Egress: true, Protocol: "-1", FromPort: -1, ToPort: -1, CidrIpv6: "::/0"},
		},
	}
}

// findGroup is the group with the id; nil: there is none.
func findGroup(r state.Reader, scope controlplane.Scope, id string) *SecurityGroup {
	if g, ok := SecurityGroups.Get(r, scope.Key(id)); ok {
		return g
	}
	if g := (Network{}).defaultGroup(scope.Account, scope.Region); g.Id == id {
		return g
	}
	return nil
}

// groups are all of the account and region, by id.
func groups(r state.Reader, scope controlplane.Scope) []*SecurityGroup {
	def := (Network{}).defaultGroup(scope.Account, scope.Region)
	list := []*SecurityGroup{}
	for g := range SecurityGroups.Scan(r, scope.Key()) {
		if def != nil && g.Id == def.Id {
			def = nil
		}
		list = append(list, g)
	}
	if def != nil {
		list = append(list, def)
	}
	slices.SortFunc(list, func(a, b *SecurityGroup) int { return cmp.Compare(a.Id, b.Id) })
	return list
}

// groupNamed finds a group by its name, which is one of the default VPC's.
func groupNamed(r state.Reader, scope controlplane.Scope, name string) (*SecurityGroup, error) {
	for _, g := range groups(r, scope) {
		if g.Name == name {
			return g, nil
		}
	}
	return nil, awserr.New(groupKind.notFound, "The security group '%s' does not exist in default VPC '%s'", name, Network{}.DefaultVPC(scope.Account, scope.Region))
}

// groupOf finds the group that a request means, by id or by name.
func groupOf(r state.Reader, scope controlplane.Scope, id, name *string) (*SecurityGroup, error) {
	switch {
	case id == nil && name == nil:
		return nil, awserr.New("MissingParameter", "The request must contain the parameter groupName or groupId")
	case id == nil:
		return groupNamed(r, scope, *name)
	}
	if err := groupKind.check([]string{*id}, func(id string) bool { return findGroup(r, scope, id) != nil }); err != nil {
		return nil, err
	}
	return findGroup(r, scope, *id), nil
}

func (g *SecurityGroup) scope() controlplane.Scope {
	return controlplane.Scope{Account: g.Account, Region: g.Region}
}

// ARN names the group.
func (g *SecurityGroup) ARN() string { return groupARN(g.Account, g.Region, g.Id) }

func groupARN(account, region, id string) string {
	return arn.New("ec2", region, account, "security-group/"+id).String()
}

// shape is the group as EC2 shows it: rules alike but for their other side are one permission.
func (g *SecurityGroup) shape(r state.Reader) types.SecurityGroup {
	return types.SecurityGroup{
		GroupId: &g.Id, GroupName: &g.Name, Description: &g.Description, OwnerId: &g.Account, VpcId: &g.Vpc, SecurityGroupArn: new(g.ARN()),
		IpPermissions: g.permissions(false), IpPermissionsEgress: g.permissions(true), Tags: tagsOf(r, g.scope(), g.ARN()),
	}
}

func (g *SecurityGroup) permissions(egress bool) []types.IpPermission {
	list := []types.IpPermission{}
	for _, rule := range g.Rules {
		if rule.Egress != egress {
			continue
		}
		from, to := rule.ports()
		i := slices.IndexFunc(list, func(p types.IpPermission) bool {
			return *p.IpProtocol == rule.Protocol && equal(p.FromPort, from) && equal(p.ToPort, to)
		})
		if i < 0 {
			i = len(list)
			list = append(list, types.IpPermission{IpProtocol: &rule.Protocol, FromPort: from, ToPort: to,
				IpRanges: []types.IpRange{}, Ipv6Ranges: []types.Ipv6Range{}, PrefixListIds: []types.PrefixListId{}, UserIdGroupPairs: []types.UserIdGroupPair{}})
		}
		p := &list[i]
		description := optional(rule.Description)
		switch {
		case rule.Group != "":
			p.UserIdGroupPairs = append(p.UserIdGroupPairs, types.UserIdGroupPair{GroupId: &rule.Group, UserId: &g.Account, Description: description})
		case rule.CidrIpv6 != "":
			p.Ipv6Ranges = append(p.Ipv6Ranges, types.Ipv6Range{CidrIpv6: &rule.CidrIpv6, Description: description})
		default:
			p.IpRanges = append(p.IpRanges, types.IpRange{CidrIp: &rule.CidrIpv4, Description: description})
		}
	}
	return list
}

// ports are nil for all protocols, which have none.
func (r *SecurityGroupRule) ports() (from, to *int32) {
	if r.Protocol == "-1" {
		return nil, nil
	}
	return &r.FromPort, &r.ToPort
}

func equal(a, b *int32) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
