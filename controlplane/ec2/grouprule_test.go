package ec2

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

// rule is what one rule is now.
func (s *Service) rule(t *testing.T, id string) types.SecurityGroupRule {
	t.Helper()
	out, err := s.describeSecurityGroupRules(in(account, region), &ec2.DescribeSecurityGroupRulesInput{SecurityGroupRuleIds: []string{id}})
	if err != nil || len(out.SecurityGroupRules) != 1 {
		t.Fatal(out, err)
	}
	return out.SecurityGroupRules[0]
}

func saidTags(tags []types.Tag) string {
	var list []string
	for _, t := range tags {
		list = append(list, *t.Key+"="+*t.Value)
	}
	return strings.Join(list, " ")
}

func TestRulesHaveTags(t *testing.T) {
	s := newService(t)
	ctx := in(account, region)
	web := s.make(t, "web")
	tag := func(pairs ...string) (list []types.Tag) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, types.Tag{Key: &pairs[i], Value: &pairs[i+1]})
		}
		return list
	}
	made, err := s.authorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &web, IpPermissions: []types.IpPermission{tcp(80, 80, "192.0.2.0/24", "198.51.100.0/24")},
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeSecurityGroupRule, Tags: tag("team", "a")}}})
	if err != nil || len(made.SecurityGroupRules) != 2 || saidTags(made.SecurityGroupRules[1].Tags) != "team=a" {
		t.Fatal(made, err)
	}
	one, two := *made.SecurityGroupRules[0].SecurityGroupRuleId, *made.SecurityGroupRules[1].SecurityGroupRuleId
	// Of several resources at once, two of them in one record.
	if _, err := s.createTags(ctx, &ec2.CreateTagsInput{Resources: []string{one, web, two}, Tags: tag("stage", "beta")}); err != nil {
		t.Fatal(err)
	}
	if got := saidTags(s.rule(t, one).Tags) + "; " + saidTags(s.rule(t, two).Tags) + "; " + saidTags(s.describe(t, web).Tags); got != "stage=beta team=a; stage=beta team=a; stage=beta" {
		t.Errorf("tags %s", got)
	}
	if _, err := s.deleteTags(ctx, &ec2.DeleteTagsInput{Resources: []string{one}, Tags: []types.Tag{{Key: new("team"), Value: new("b")}, {Key: new("stage")}}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		filter []types.Filter
		want   string
	}{{filter("tag:stage", "be*"), two}, {filter("tag-key", "stage"), two}} {
		out, err := s.describeSecurityGroupRules(ctx, &ec2.DescribeSecurityGroupRulesInput{Filters: c.filter})
		if err != nil || len(out.SecurityGroupRules) != 1 || *out.SecurityGroupRules[0].SecurityGroupRuleId != c.want {
			t.Errorf("%+v finds %+v, %v", c.filter, out, err)
		}
	}
	if got := saidTags(s.rule(t, one).Tags); got != "team=a" {
		t.Errorf("a tag with another value went as well: %s", got)
	}
	// The rules of a default group that has no record yet.
	outbound := stableID("sgr", account, region, "out")
	if _, err := s.createTags(ctx, &ec2.CreateTagsInput{Resources: []string{outbound}, Tags: tag("k", "v")}); err != nil || saidTags(s.rule(t, outbound).Tags) != "k=v" {
		t.Errorf("tags of a default rule: %s, %v", saidTags(s.rule(t, outbound).Tags), err)
	}
	if _, err := s.createTags(ctx, &ec2.CreateTagsInput{Resources: []string{web, "sgr-00000000"}, Tags: tag("k", "v")}); !awserr.Is(err, "InvalidSecurityGroupRuleId.NotFound") || saidTags(s.describe(t, web).Tags) != "stage=beta" {
		t.Errorf("with a rule that is not there: %v; the group has %s", err, saidTags(s.describe(t, web).Tags))
	}
	for _, from := range []int{0, 40} {
		var many []types.Tag
		for i := range 40 {
			many = append(many, tag(fmt.Sprintf("k%d", from+i), "v")...)
		}
		_, err = s.createTags(ctx, &ec2.CreateTagsInput{Resources: []string{two}, Tags: many})
	}
	if !awserr.Is(err, "TagLimitExceeded") {
		t.Errorf("more than 50: %v", err)
	}
	_, err = s.authorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &web, IpPermissions: []types.IpPermission{tcp(81, 81, "0.0.0.0/0")},
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeSecurityGroup, Tags: tag("team", "a")}}})
	if !awserr.Is(err, "InvalidParameterValue") {
		t.Errorf("tags of what is not made: %v", err)
	}
}

func TestRulesAreModified(t *testing.T) {
	s := newService(t)
	ctx := in(account, region)
	web, front := s.make(t, "web"), s.make(t, "front")
	made, err := s.authorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &web, IpPermissions: []types.IpPermission{tcp(80, 80, "192.0.2.0/24"), tcp(81, 81, "192.0.2.0/24")},
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeSecurityGroupRule, Tags: []types.Tag{{Key: new("team"), Value: new("a")}}}}})
	if err != nil {
		t.Fatal(err)
	}
	one, two := *made.SecurityGroupRules[0].SecurityGroupRuleId, *made.SecurityGroupRules[1].SecurityGroupRuleId
	modify := func(group string, rules ...types.SecurityGroupRuleUpdate) error {
		_, err := s.modifySecurityGroupRules(ctx, &ec2.ModifySecurityGroupRulesInput{GroupId: &group, SecurityGroupRules: rules})
		return err
	}
	to := func(id string, r types.SecurityGroupRuleRequest) types.SecurityGroupRuleUpdate {
		return types.SecurityGroupRuleUpdate{SecurityGroupRuleId: &id, SecurityGroupRule: &r}
	}
	port := func(n int32, cidr string) types.SecurityGroupRuleRequest {
		return types.SecurityGroupRuleRequest{IpProtocol: new("tcp"), FromPort: &n, ToPort: &n, CidrIpv4: &cidr}
	}
	if err := modify(web, to(one, types.SecurityGroupRuleRequest{IpProtocol: new("udp"), FromPort: new(int32(53)), ToPort: new(int32(53)), ReferencedGroupId: &front, Description: new("names")})); err != nil {
		t.Fatal(err)
	}
	r := s.rule(t, one)
	if *r.IpProtocol != "udp" || *r.FromPort != 53 || *r.ReferencedGroupInfo.GroupId != front || r.CidrIpv4 != nil || *r.Description != "names" || saidTags(r.Tags) != "team=a" || *r.IsEgress {
		t.Errorf("modified: %+v", r)
	}
	// Two rules change places in one request; what is a rule twice in the end is refused, and nothing has changed.
	if err := modify(web, to(one, port(80, "192.0.2.0/24"))); err != nil {
		t.Fatal(err)
	}
	if err := modify(web, to(one, port(81, "192.0.2.0/24")), to(two, port(80, "192.0.2.0/24"))); err != nil {
		t.Fatal(err)
	}
	if err := modify(web, to(one, port(80, "192.0.2.0/24"))); !awserr.Is(err, "InvalidPermission.Duplicate") || *s.rule(t, one).FromPort != 81 {
		t.Errorf("a rule that is there already: %v", err)
	}
	none := port(80, "0.0.0.0/0")
	none.CidrIpv4 = nil
	both := port(80, "0.0.0.0/0")
	both.CidrIpv6 = new("::/0")
	for _, c := range []struct {
		name, group, code string
		update            types.SecurityGroupRuleUpdate
	}{
		{"a rule of another group", front, "InvalidSecurityGroupRuleId.NotFound", to(one, port(1, "0.0.0.0/0"))},
		{"a malformed id", web, "InvalidSecurityGroupRuleId.Malformed", to("sgr-x", port(1, "0.0.0.0/0"))},
		{"no place", web, "InvalidParameterCombination", to(one, none)},
		{"two places", web, "InvalidParameterCombination", to(one, both)},
		{"no rule", web, "MissingParameter", types.SecurityGroupRuleUpdate{SecurityGroupRuleId: &one}},
		{"a malformed block", web, "InvalidParameterValue", to(one, port(1, "0.0.0.0/33"))},
		{"a group that is not there", "sg-00000000", "InvalidGroup.NotFound", to(one, port(1, "0.0.0.0/0"))},
	} {
		if err := modify(c.group, c.update); !awserr.Is(err, c.code) {
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		}
	}
	if err := modify(web); !awserr.Is(err, "MissingParameter") {
		t.Errorf("no rules: %v", err)
	}
}
