package ec2

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/dispatcher"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

func (s *Service) make(t *testing.T, name string) string {
	t.Helper()
	out, err := s.createSecurityGroup(in(account, region), &ec2.CreateSecurityGroupInput{GroupName: &name, Description: &name})
	if err != nil {
		t.Fatal(err)
	}
	return *out.GroupId
}

func (s *Service) allow(t *testing.T, group string, p ...types.IpPermission) error {
	t.Helper()
	_, err := s.authorizeSecurityGroupIngress(in(account, region), &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &group, IpPermissions: p})
	return err
}

func (s *Service) describe(t *testing.T, id string) types.SecurityGroup {
	t.Helper()
	out, err := s.describeSecurityGroups(in(account, region), &ec2.DescribeSecurityGroupsInput{GroupIds: []string{id}})
	if err != nil || len(out.SecurityGroups) != 1 {
		t.Fatalf("group %s: %v, %v", id, out, err)
	}
	return out.SecurityGroups[0]
}

func tcp(from, to int32, cidrs ...string) types.IpPermission {
	p := types.IpPermission{IpProtocol: new("tcp"), FromPort: &from, ToPort: &to}
	for _, c := range cidrs {
		p.IpRanges = append(p.IpRanges, types.IpRange{CidrIp: &c})
	}
	return p
}

func fromGroup(p types.IpPermission, ids ...string) types.IpPermission {
	for _, id := range ids {
		p.UserIdGroupPairs = append(p.UserIdGroupPairs, types.UserIdGroupPair{GroupId: &id})
	}
	return p
}

// said is a permission in a line.
func said(list []types.IpPermission) string {
	var lines []string
	for _, p := range list {
		line := *p.IpProtocol
		if p.FromPort != nil {
			line += fmt.Sprintf(" %d-%d", *p.FromPort, *p.ToPort)
		}
		for _, r := range p.IpRanges {
			line += " " + *r.CidrIp
		}
		for _, r := range p.Ipv6Ranges {
			line += " " + *r.CidrIpv6
		}
		for _, g := range p.UserIdGroupPairs {
			line += " " + *g.GroupId
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

func TestSecurityGroupsAreMadeAndChanged(t *testing.T) {
	s := newService(t)
	ctx := in(account, region)
	out, err := s.createSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: new("web"), Description: new("of the web"), TagSpecifications: []types.TagSpecification{
		{ResourceType: types.ResourceTypeSecurityGroup, Tags: []types.Tag{{Key: new("team"), Value: new("a")}}}}})
	if err != nil {
		t.Fatal(err)
	}
	id := *out.GroupId
	g := s.describe(t, id)
	if *g.GroupName != "web" || *g.Description != "of the web" || *g.OwnerId != account || *g.VpcId != (Network{}).DefaultVPC(account, region) ||
		said(g.IpPermissions) != "" || said(g.IpPermissionsEgress) != "-1 0.0.0.0/0 ::/0" || *g.Tags[0].Key != "team" {
		t.Errorf("a new group: %+v", g)
	}
	if err := s.allow(t, id, fromGroup(tcp(80, 80, "10.1.2.3/8", "0.0.0.0/0"), id), types.IpPermission{IpProtocol: new("-1"), Ipv6Ranges: []types.Ipv6Range{{CidrIpv6: new("::/0")}}},
		types.IpPermission{IpProtocol: new("6"), FromPort: new(int32(443)), ToPort: new(int32(444)), IpRanges: []types.IpRange{{CidrIp: new("192.0.2.1/32"), Description: new("one")}}},
		types.IpPermission{IpProtocol: new("icmp"), FromPort: new(int32(8)), ToPort: new(int32(-1)), IpRanges: []types.IpRange{{CidrIp: new("0.0.0.0/0")}}}); err != nil {
		t.Fatal(err)
	}
	want := "tcp 80-80 10.0.0.0/8 0.0.0.0/0 " + id + "; -1 ::/0; tcp 443-444 192.0.2.1/32; icmp 8--1 0.0.0.0/0"
	if got := said(s.describe(t, id).IpPermissions); got != want {
		t.Errorf("rules %s, want %s", got, want)
	}
	rules, err := s.describeSecurityGroupRules(ctx, &ec2.DescribeSecurityGroupRulesInput{Filters: filter("group-id", id)})
	if err != nil || len(rules.SecurityGroupRules) != 8 {
		t.Fatalf("%d rules, %v", len(rules.SecurityGroupRules), err)
	}
	i := slices.IndexFunc(rules.SecurityGroupRules, func(r types.SecurityGroupRule) bool { return r.Description != nil })
	if r := rules.SecurityGroupRules[i]; *r.Description != "one" || *r.FromPort != 443 || *r.IsEgress || *r.CidrIpv4 != "192.0.2.1/32" {
		t.Errorf("a rule: %+v", r)
	}
	revoked, err := s.revokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: &id, SecurityGroupRuleIds: []string{*rules.SecurityGroupRules[i].SecurityGroupRuleId}})
	if err != nil || len(revoked.RevokedSecurityGroupRules) != 1 {
		t.Fatal(revoked, err)
	}
	if _, err := s.revokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupName: new("web"), IpPermissions: []types.IpPermission{tcp(80, 80, "10.0.0.0/8")}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.revokeSecurityGroupEgress(ctx, &ec2.RevokeSecurityGroupEgressInput{GroupId: &id, IpPermissions: []types.IpPermission{
		{IpProtocol: new("-1"), IpRanges: []types.IpRange{{CidrIp: new("0.0.0.0/0")}}, Ipv6Ranges: []types.Ipv6Range{{CidrIpv6: new("::/0")}}}}}); err != nil {
		t.Fatal(err)
	}
	g = s.describe(t, id)
	if got := said(g.IpPermissions); got != "tcp 80-80 0.0.0.0/0 "+id+"; -1 ::/0; icmp 8--1 0.0.0.0/0" || said(g.IpPermissionsEgress) != "" {
		t.Errorf("after revoking: %s, %s", got, said(g.IpPermissionsEgress))
	}
	if _, err := s.createTags(ctx, &ec2.CreateTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: new("stage"), Value: new("beta")}}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ value, want string }{{"other", "stage team"}, {"beta", "team"}} {
		if _, err := s.deleteTags(ctx, &ec2.DeleteTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: new("stage"), Value: &c.value}}}); err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, tag := range s.describe(t, id).Tags {
			keys = append(keys, *tag.Key)
		}
		if got := strings.Join(keys, " "); got != c.want {
			t.Errorf("tags %q, want %q", got, c.want)
		}
	}
	if found, err := s.describeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: filter("tag:team", "a")}); err != nil || len(found.SecurityGroups) != 1 {
		t.Errorf("groups by tag: %+v, %v", found, err)
	}
	if _, err := s.deleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &id}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.describeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{id}}); !awserr.Is(err, "InvalidGroup.NotFound") {
		t.Errorf("a deleted group: %v", err)
	}
}

// TestTheDefaultGroupChanges: it is a record from then on, with the same id and rules but for what was changed.
func TestTheDefaultGroupChanges(t *testing.T) {
	s := newService(t)
	id := (Network{}).DefaultSecurityGroup(account, region)
	if err := s.allow(t, id, tcp(22, 22, "0.0.0.0/0")); err != nil {
		t.Fatal(err)
	}
	if got := said(s.describe(t, id).IpPermissions); got != "-1 "+id+"; tcp 22-22 0.0.0.0/0" {
		t.Errorf("rules %s", got)
	}
	out, err := s.describeSecurityGroups(in(account, region), &ec2.DescribeSecurityGroupsInput{})
	if err != nil || len(out.SecurityGroups) != 1 {
		t.Errorf("groups %+v, %v", out, err)
	}
	elsewhere, err := s.describeSecurityGroups(in(account, "eu-west-1"), &ec2.DescribeSecurityGroupsInput{GroupNames: []string{"default"}})
	if err != nil || strings.Contains(said(elsewhere.SecurityGroups[0].IpPermissions), "22") {
		t.Errorf("another region's: %+v, %v", elsewhere, err)
	}
}

func TestSecurityGroupRefusals(t *testing.T) {
	s := newService(t)
	ctx := in(account, region)
	web := s.make(t, "web")
	other := s.make(t, "other")
	if err := s.allow(t, web, tcp(80, 80, "0.0.0.0/0"), fromGroup(tcp(81, 81), other)); err != nil {
		t.Fatal(err)
	}
	def := (Network{}).DefaultSecurityGroup(account, region)
	create := func(name, description string) error {
		_, err := s.createSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: &name, Description: &description})
		return err
	}
	remove := func(id string) error {
		_, err := s.deleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &id})
		return err
	}
	many := func(n int) (p types.IpPermission) {
		p = tcp(1, 1)
		for i := range n {
			p.IpRanges = append(p.IpRanges, types.IpRange{CidrIp: new(fmt.Sprintf("10.0.%d.0/24", i))})
		}
		return p
	}
	if _, err := s.Store.Update(ctx, func(tx *state.Tx) error {
		controlplane.TaskStatuses.Put(tx, &controlplane.TaskStatus{Account: account, Region: region, Cluster: "c", Id: "t", SecurityGroups: []string{web}, Observed: agentapi.TaskState_RUNNING})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, code, says string
		err              error
	}{
		{"no name", "MissingParameter", "GroupName", create("", "d")},
		{"no description", "MissingParameter", "GroupDescription", create("x", "")},
		{"the default's name", "InvalidParameterValue", "reserved", create("default", "d")},
		{"a name like an id", "InvalidParameterValue", "sg-*", create("sg-1", "d")},
		{"letters of a name", "InvalidParameterValue", "name", create("wéb", "d")},
		{"a long name", "InvalidParameterValue", "name", create(strings.Repeat("a", 256), "d")},
		{"letters of a description", "InvalidParameterValue", "description", create("x", "a<b")},
		{"a name that is taken", "InvalidGroup.Duplicate", "'web' already exists for VPC 'vpc-", create("web", "d")},
		{"another VPC", "InvalidVpcID.NotFound", "vpc-0123456789abcdef0", func() error {
			_, err := s.createSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: new("x"), Description: new("d"), VpcId: new("vpc-0123456789abcdef0")})
			return err
		}()},
		{"a dry run", "DryRunOperation", "would have succeeded", func() error {
			_, err := s.createSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: new("x"), Description: new("d"), DryRun: new(true)})
			return err
		}()},
		{"to delete the default", "CannotDelete", "cannot be deleted by a user", remove(def)},
		{"to delete what a task is in", "DependencyViolation", "dependent object", remove(web)},
		{"to delete what a rule names", "DependencyViolation", "dependent object", remove(other)},
		{"to delete what is not there", "InvalidGroup.NotFound", "sg-00000000", remove("sg-00000000")},
		{"no id", "InvalidGroupId.Malformed", "nonsense", remove("nonsense")},
		{"a rule that is there", "InvalidPermission.Duplicate", `"peer: 0.0.0.0/0, TCP, from port: 80, to port: 80, ALLOW" already exists`, s.allow(t, web, tcp(80, 80, "1.2.3.4/0"))},
		{"twice the same", "InvalidPermission.Duplicate", "already exists", s.allow(t, web, tcp(90, 90, "10.0.0.0/8", "10.1.0.0/8"))},
		{"too many rules", "RulesPerSecurityGroupLimitExceeded", "maximum number", s.allow(t, web, many(59))},
		{"no permission", "MissingParameter", "ipPermissions", s.allow(t, web)},
		{"no place", "MissingParameter", "IpRanges", s.allow(t, web, tcp(90, 90))},
		{"no ports", "InvalidParameterValue", "portRange", s.allow(t, web, types.IpPermission{IpProtocol: new("udp"), IpRanges: []types.IpRange{{CidrIp: new("0.0.0.0/0")}}})},
		{"ports the wrong way round", "InvalidParameterValue", "(90:80)", s.allow(t, web, tcp(90, 80, "0.0.0.0/0"))},
		{"a port that is none", "InvalidParameterValue", "(80:65536)", s.allow(t, web, tcp(80, 65536, "0.0.0.0/0"))},
		{"an unknown protocol", "InvalidParameterValue", "Unknown protocol", s.allow(t, web, types.IpPermission{IpProtocol: new("carrier"), IpRanges: []types.IpRange{{CidrIp: new("0.0.0.0/0")}}})},
		{"a malformed block", "InvalidParameterValue", "CIDR block 10.0.0.0/33 is malformed", s.allow(t, web, tcp(90, 90, "10.0.0.0/33"))},
		{"an unknown group in a rule", "InvalidGroup.NotFound", "sg-00000000", s.allow(t, web, fromGroup(tcp(90, 90), "sg-00000000"))},
		{"a prefix list", "InvalidPrefixListID.NotFound", "pl-1", s.allow(t, web, types.IpPermission{IpProtocol: new("-1"), PrefixListIds: []types.PrefixListId{{PrefixListId: new("pl-1")}}})},
		{"to revoke what is not there", "InvalidPermission.NotFound", "does not exist in this security group", func() error {
			_, err := s.revokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: &web, IpPermissions: []types.IpPermission{tcp(82, 82, "0.0.0.0/0")}})
			return err
		}()},
		{"to revoke an unknown rule", "InvalidSecurityGroupRuleId.NotFound", "sgr-00000000", func() error {
			_, err := s.revokeSecurityGroupEgress(ctx, &ec2.RevokeSecurityGroupEgressInput{GroupId: &web, SecurityGroupRuleIds: []string{"sgr-00000000"}})
			return err
		}()},
		{"to revoke nothing", "MissingParameter", "securityGroupRuleIds", func() error {
			_, err := s.revokeSecurityGroupEgress(ctx, &ec2.RevokeSecurityGroupEgressInput{GroupId: &web})
			return err
		}()},
		{"tags of what is none of ours", "InvalidGroupId.Malformed", "vpc-00000000", func() error {
			_, err := s.createTags(ctx, &ec2.CreateTagsInput{Resources: []string{"vpc-00000000"}, Tags: []types.Tag{{Key: new("a"), Value: new("b")}}})
			return err
		}()},
	} {
		if e, ok := awserr.As(c.err); !ok || e.Code != c.code || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: %v, want %s with %q", c.what, c.err, c.code, c.says)
		}
	}
	if err := s.allow(t, web, many(58)); err != nil { // sixty with the two that are there
		t.Errorf("sixty rules: %v", err)
	}
	if _, err := s.authorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupName: new("other"), IpProtocol: new("tcp"), FromPort: new(int32(22)), ToPort: new(int32(22)), CidrIp: new("0.0.0.0/0")}); err != nil {
		t.Errorf("the older way to give a rule: %v", err)
	}
}

// node is what a subscriber has been told of security groups.
type node map[string]string

func (n node) take(changes []dispatcher.Change, self string) {
	for _, c := range changes {
		switch {
		case c.Node != self:
		case c.Resource == nil:
			delete(n, c.Name)
		default:
			n[c.Name] = told(c.Resource)
		}
	}
}

func told(r *agentapi.Resource) string {
	g := r.GetSecurityGroup()
	var rules []string
	for _, r := range g.Ingress {
		rules = append(rules, fmt.Sprintf("%d %d-%d %s%s", r.Protocol, r.FromPort, r.ToPort, r.Cidr, r.Group))
	}
	return strings.Join(rules, ", ") + " of " + strings.Join(g.Members, " ")
}

// TestFirewallSets: after every change what nodes have been told is what they would be told if they asked.
func TestFirewallSets(t *testing.T) {
	s := newService(t)
	ctx := in(account, region)
	def := (Network{}).DefaultSecurityGroup(account, region)
	web, front, idle := s.make(t, "web"), s.make(t, "front"), s.make(t, "idle")
	nodes := map[string]node{"n1": {}, "n2": {}}
	v := s.Store.View()
	w := s.Store.Watch(t.Context(), v.Revision(), FirewallSource{}.Tables()...)
	step := func(what string, want map[string]string) {
		t.Helper()
		for now := s.Store.View(); v.Revision() < now.Revision(); {
			b, err := w.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			v = b.View
			for name, n := range nodes {
				n.take(FirewallSource{}.Delta(v, b.Events), name)
			}
		}
		for name, n := range nodes {
			full := node{}
			for _, r := range (FirewallSource{}).Full(v, name) {
				full[r.Name] = told(r)
			}
			if diff := cmp.Diff(full, n); diff != "" {
				t.Errorf("%s: what %s was told (-full +deltas):\n%s", what, name, diff)
			}
			var ids []string
			for id := range n {
				ids = append(ids, map[string]string{web: "web", front: "front", idle: "idle", def: "default"}[id])
			}
			slices.Sort(ids)
			if got := strings.Join(ids, " "); got != want[name] {
				t.Errorf("%s: %s knows %q, want %q", what, name, got, want[name])
			}
		}
	}
	task := func(id, node, address string, observed agentapi.TaskState, groups ...string) {
		t.Helper()
		report := &agentapi.TaskStatus{Address: address}
		if id == "t2" {
			report.Ipv6Address = "fd00::2"
		}
		_, err := s.Store.Update(ctx, func(tx *state.Tx) error {
			controlplane.TaskStatuses.Put(tx, &controlplane.TaskStatus{Account: account, Region: region, Cluster: "c", Id: id, Node: node, SecurityGroups: groups, Observed: observed,
				Report: report})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	running, stopped := agentapi.TaskState_RUNNING, agentapi.TaskState_STOPPED
	step("at first", nil)
	task("t1", "", "", running, web)
	step("a task that is not placed", nil)
	task("t1", "n1", "", running, web)
	step("placed", map[string]string{"n1": "web"})
	task("t1", "n1", "10.64.0.2", running, web)
	task("t2", "n2", "10.64.4.2", running, front)
	step("with another elsewhere", map[string]string{"n1": "web", "n2": "front"})
	if err := s.allow(t, web, fromGroup(tcp(80, 80), front)); err != nil {
		t.Fatal(err)
	}
	step("a rule that names its group", map[string]string{"n1": "front web", "n2": "front"})
	if got := nodes["n1"][front]; got != " of 10.64.4.2 fd00::2" {
		t.Errorf("the first node knows of the group %q", got)
	}
	task("t3", "n2", "10.64.4.3", running, front, controlplane.DefaultSecurityGroup)
	step("one more member", map[string]string{"n1": "front web", "n2": "default front"})
	if got := nodes["n1"][front]; got != " of 10.64.4.2 10.64.4.3 fd00::2" {
		t.Errorf("the first node knows of the group %q", got)
	}
	task("t2", "n2", "10.64.4.2", stopped, front)
	step("one less", map[string]string{"n1": "front web", "n2": "default front"})
	if _, err := s.revokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: &web, IpPermissions: []types.IpPermission{fromGroup(tcp(80, 80), front)}}); err != nil {
		t.Fatal(err)
	}
	step("the rule is gone", map[string]string{"n1": "web", "n2": "default front"})
	if err := s.allow(t, def, tcp(1, 1, "0.0.0.0/0")); err != nil {
		t.Fatal(err)
	}
	step("the default group has a record", map[string]string{"n1": "web", "n2": "default front"})
	task("t3", "n2", "10.64.4.3", stopped, front, controlplane.DefaultSecurityGroup)
	task("t1", "n1", "10.64.0.2", stopped, web)
	step("no task is left", nil)
}

func TestAdmits(t *testing.T) {
	s := newService(t)
	web, front := s.make(t, "web"), s.make(t, "front")
	def := (Network{}).DefaultSecurityGroup(account, region)
	subnets := []string{(Network{}).DefaultSubnet(account, region, "us-east-1a")}
	admits := func(groups, others []string, port uint32) bool {
		return s.Network.Admits(s.Store.View(), account, region, groups, others, subnets, port)
	}
	if !admits([]string{controlplane.DefaultSecurityGroup}, []string{def}, 80) || admits([]string{controlplane.DefaultSecurityGroup}, []string{front}, 80) {
		t.Error("the default group admits its members, and nobody else")
	}
	for _, c := range []struct {
		permission types.IpPermission
		port       uint32
		want       bool
	}{
		{fromGroup(tcp(80, 90), front), 85, true}, {fromGroup(tcp(80, 90), front), 91, false}, {fromGroup(tcp(80, 80), def), 80, false},
		{tcp(80, 80, "0.0.0.0/0"), 80, true}, {tcp(80, 80, "10.64.0.0/10"), 80, true}, {tcp(80, 80, "10.64.0.0/12"), 80, true}, {tcp(80, 80, "10.64.0.0/16"), 80, false},
		{types.IpPermission{IpProtocol: new("udp"), FromPort: new(int32(80)), ToPort: new(int32(80)), IpRanges: []types.IpRange{{CidrIp: new("0.0.0.0/0")}}}, 80, false},
	} {
		if err := s.allow(t, web, c.permission); err != nil {
			t.Fatal(err)
		}
		if got := admits([]string{web}, []string{front}, c.port); got != c.want {
			t.Errorf("%s admits port %d: %v", said([]types.IpPermission{c.permission}), c.port, got)
		}
		if _, err := s.revokeSecurityGroupIngress(in(account, region), &ec2.RevokeSecurityGroupIngressInput{GroupId: &web, IpPermissions: []types.IpPermission{c.permission}}); err != nil {
			t.Fatal(err)
		}
	}
}
