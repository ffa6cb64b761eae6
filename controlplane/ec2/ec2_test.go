package ec2

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

const (
	account = "000000000000"
	region  = "us-east-1"
)

// plain does not hide anything, but it binds: enough for the paging of these listings.
type plain struct{}

func (plain) Seal(v, bound []byte) []byte { return append(slices.Clone(bound), v...) }
func (plain) Open(sealed, bound []byte) ([]byte, error) {
	v, ok := strings.CutPrefix(string(sealed), string(bound))
	if !ok {
		return nil, errors.New("bound to something else")
	}
	return []byte(v), nil
}

func in(account, region string) context.Context {
	return api.WithCall(context.Background(), &api.Call{Identity: api.Identity{Account: account}, Region: region, Service: "ec2"})
}

func filter(name string, values ...string) []types.Filter {
	return []types.Filter{{Name: &name, Values: values}}
}

func newService(t *testing.T) *Service {
	store := statetest.New(t, slices.Concat(controlplane.Schema, Schema)...)
	return New(Config{Store: store, Rand: rand.Reader, Pages: api.NewPages(plain{})})
}

func TestDefaultNetwork(t *testing.T) {
	service := newService(t)
	vpcs, err := service.describeVpcs(in(account, region), &ec2.DescribeVpcsInput{Filters: filter("is-default", "true")})
	if err != nil || len(vpcs.Vpcs) != 1 {
		t.Fatalf("default VPCs: %v, %v", vpcs, err)
	}
	vpc := *vpcs.Vpcs[0].VpcId
	subnets, err := service.describeSubnets(in(account, region), &ec2.DescribeSubnetsInput{Filters: filter("vpc-id", vpc)})
	if err != nil || len(subnets.Subnets) != 3 {
		t.Fatalf("subnets: %v, %v", subnets, err)
	}
	for i, want := range []struct{ zone, id, cidr string }{
		{"us-east-1a", "use1-az1", "10.64.0.0/12"}, {"us-east-1b", "use1-az2", "10.80.0.0/12"}, {"us-east-1c", "use1-az3", "10.96.0.0/12"},
	} {
		s := subnets.Subnets[i]
		if *s.AvailabilityZone != want.zone || *s.AvailabilityZoneId != want.id || *s.CidrBlock != want.cidr || *s.AvailableIpAddressCount != 1048571 {
			t.Errorf("subnet %d: %s %s %s with %d addresses, want %+v with 1048571", i, *s.AvailabilityZone, *s.AvailabilityZoneId, *s.CidrBlock, *s.AvailableIpAddressCount, want)
		}
		if zone, ok := (Network{}).Subnet(account, region, *s.SubnetId); zone != want.zone || !ok {
			t.Errorf("Network.Subnet(%s) = %q, %v", *s.SubnetId, zone, ok)
		}
	}
	six := vpcs.Vpcs[0].Ipv6CidrBlockAssociationSet[0]
	if *six.Ipv6CidrBlock != "fd8e:2f17:5b60::/44" || six.Ipv6CidrBlockState.State != types.VpcCidrBlockStateCodeAssociated || !strings.HasPrefix(*six.AssociationId, "vpc-cidr-assoc-") {
		t.Errorf("the VPC's IPv6 block: %+v", six)
	}
	second, err := service.describeSubnets(in(account, region), &ec2.DescribeSubnetsInput{Filters: filter("ipv6-cidr-block-association.ipv6-cidr-block", "fd8e:2f17:5b61::/48")})
	if err != nil || len(second.Subnets) != 1 || *second.Subnets[0].AvailabilityZone != "us-east-1b" || !*second.Subnets[0].AssignIpv6AddressOnCreation {
		t.Errorf("the subnet with an IPv6 block: %+v, %v", second, err)
	}
	groups, err := service.describeSecurityGroups(in(account, region), &ec2.DescribeSecurityGroupsInput{GroupNames: []string{"default"}})
	if err != nil || len(groups.SecurityGroups) != 1 || *groups.SecurityGroups[0].VpcId != vpc {
		t.Fatalf("default security group: %v, %v", groups, err)
	}
	zones, err := service.describeAvailabilityZones(in(account, region), &ec2.DescribeAvailabilityZonesInput{})
	if err != nil || len(zones.AvailabilityZones) != 3 || *zones.AvailabilityZones[2].ZoneName != "us-east-1c" {
		t.Errorf("zones: %v, %v", zones, err)
	}
}

// Ids are part of what users write into their scripts: they must never change.
func TestIDsAreStable(t *testing.T) {
	var n Network
	got := []string{n.DefaultVPC(account, region), n.DefaultSubnet(account, region, "us-east-1a"), n.DefaultSecurityGroup(account, region)}
	want := []string{"vpc-e253fe0cbf4d22ff6", "subnet-91fee3b3e02ae47d8", "sg-b7c231db7f80925cc"}
	if !slices.Equal(got, want) {
		t.Errorf("ids %v, want %v", got, want)
	}
}

func TestAccountsAndRegionsAreApart(t *testing.T) {
	service := newService(t)
	seen := map[string]string{}
	for _, where := range [][2]string{{account, region}, {"111111111111", region}, {account, "eu-west-1"}} {
		name := where[0] + "/" + where[1]
		out, err := service.describeSubnets(in(where[0], where[1]), &ec2.DescribeSubnetsInput{})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range out.Subnets {
			if *s.OwnerId != where[0] || !strings.HasPrefix(*s.AvailabilityZone, where[1]) {
				t.Errorf("%s shows a subnet of %s in %s", name, *s.OwnerId, *s.AvailabilityZone)
			}
			for _, id := range []string{*s.SubnetId, *s.VpcId} {
				if other, ok := seen[id]; ok && other != name {
					t.Errorf("%s is in %s and in %s", id, other, name)
				}
				seen[id] = name
			}
		}
	}
	foreign := Network{}.DefaultVPC("111111111111", region)
	if _, err := service.describeVpcs(in(account, region), &ec2.DescribeVpcsInput{VpcIds: []string{foreign}}); !awserr.Is(err, "InvalidVpcID.NotFound") {
		t.Errorf("another account's VPC: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	service := newService(t)
	ctx, yes := in(account, region), true
	missing := "-00000000000000000"
	for name, c := range map[string]struct {
		call func() error
		want string
	}{
		"unknown vpc": {func() error {
			_, err := service.describeVpcs(ctx, &ec2.DescribeVpcsInput{VpcIds: []string{"vpc" + missing}})
			return err
		}, "InvalidVpcID.NotFound: The vpc ID 'vpc-00000000000000000' does not exist"},
		"malformed vpc, after an unknown one": {func() error {
			_, err := service.describeVpcs(ctx, &ec2.DescribeVpcsInput{VpcIds: []string{"vpc" + missing, "net-1"}})
			return err
		}, `InvalidVpcID.Malformed: Invalid id: "net-1" (expecting "vpc-...")`},
		"unknown subnet": {func() error {
			_, err := service.describeSubnets(ctx, &ec2.DescribeSubnetsInput{SubnetIds: []string{"subnet" + missing}})
			return err
		}, "InvalidSubnetID.NotFound: The subnet ID 'subnet-00000000000000000' does not exist"},
		"malformed subnet": {func() error {
			_, err := service.describeSubnets(ctx, &ec2.DescribeSubnetsInput{SubnetIds: []string{"subnet-xyz"}})
			return err
		}, `InvalidSubnetID.Malformed: Invalid id: "subnet-xyz" (expecting "subnet-...")`},
		"unknown group": {func() error {
			_, err := service.describeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{"sg" + missing}})
			return err
		}, "InvalidGroup.NotFound: The security group 'sg-00000000000000000' does not exist"},
		"unknown group name": {func() error {
			_, err := service.describeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupNames: []string{"web"}})
			return err
		}, "InvalidGroup.NotFound: The security group 'web' does not exist in default VPC '" + Network{}.DefaultVPC(account, region) + "'"},
		"malformed group": {func() error {
			_, err := service.describeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{"default"}})
			return err
		}, `InvalidGroupId.Malformed: Invalid id: "default" (expecting "sg-...")`},
		"unknown zone": {func() error {
			_, err := service.describeAvailabilityZones(ctx, &ec2.DescribeAvailabilityZonesInput{ZoneNames: []string{"us-east-1z"}})
			return err
		}, "InvalidParameterValue: Invalid availability zone: [us-east-1z]"},
		"unknown filter": {func() error {
			_, err := service.describeVpcs(ctx, &ec2.DescribeVpcsInput{Filters: filter("colour", "red")})
			return err
		}, "InvalidParameterValue: The filter 'colour' is invalid"},
		"too many values": {func() error {
			_, err := service.describeVpcs(ctx, &ec2.DescribeVpcsInput{Filters: filter("vpc-id", make([]string, 201)...)})
			return err
		}, "FilterLimitExceeded: The maximum number of filter values specified on a single call is 200"},
		"dry run": {func() error {
			_, err := service.describeSubnets(ctx, &ec2.DescribeSubnetsInput{DryRun: &yes})
			return err
		}, "DryRunOperation: Request would have succeeded, but DryRun flag is set."},
		"foreign token": {func() error {
			_, err := service.describeVpcs(ctx, &ec2.DescribeVpcsInput{NextToken: new("AAAA")})
			return err
		}, "InvalidNextToken: The specified NextToken is not valid."},
	} {
		if err := c.call(); err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v\nwant %s", name, err, c.want)
		}
	}
}

func TestFilters(t *testing.T) {
	service := newService(t)
	for _, c := range []struct {
		filters []types.Filter
		zones   string
	}{
		{nil, "abc"},
		{filter("availability-zone", "us-east-1a", "us-east-1c"), "ac"},
		{filter("availability-zone", "*b"), "b"},
		{filter("availabilityZone", "us-east-?a"), "a"},
		{filter("cidr-block", "10.8?.0.0/12"), "b"},
		{append(filter("default-for-az", "true"), filter("availability-zone-id", "use1-az1")...), "a"},
		{append(filter("availability-zone", "*a"), filter("availability-zone", "*b")...), ""},
		{filter("tag:Name", "*"), ""},
		{filter("state", "Available"), ""}, // values are case-sensitive
	} {
		out, err := service.describeSubnets(in(account, region), &ec2.DescribeSubnetsInput{Filters: c.filters})
		if err != nil {
			t.Fatal(err)
		}
		var got string
		for _, s := range out.Subnets {
			got += strings.TrimPrefix(*s.AvailabilityZone, region)
		}
		if got != c.zones {
			t.Errorf("filters %v give zones %q, want %q", c.filters, got, c.zones)
		}
	}
	groups, err := service.describeSecurityGroups(in(account, region), &ec2.DescribeSecurityGroupsInput{Filters: filter("egress.ip-permission.cidr", "0.0.0.0/0")})
	if err != nil || len(groups.SecurityGroups) != 1 {
		t.Errorf("groups open to the outside: %v, %v", groups, err)
	}
}

func TestPaging(t *testing.T) {
	service := newService(t)
	var zones []string
	ask := &ec2.DescribeSubnetsInput{MaxResults: new(int32(2))}
	for {
		out, err := service.describeSubnets(in(account, region), ask)
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Subnets) > 2 {
			t.Errorf("page of %d, 2 asked", len(out.Subnets))
		}
		for _, s := range out.Subnets {
			zones = append(zones, *s.AvailabilityZone)
		}
		if ask.NextToken = out.NextToken; out.NextToken == nil {
			break
		}
	}
	if want := (Network{}).Zones(region); !slices.Equal(zones, want) {
		t.Errorf("pages show %v, want %v", zones, want)
	}
}

func TestWildcard(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "abc", true}, {"a*c", "abbc", true}, {"a*c", "abcb", false},
		{"?", "", false}, {"?", "a", true}, {"a?", "ab", true}, {"*b*b", "abab", true}, {"**a", "ba", true},
		{`\*amazon\?\\`, `*amazon?\`, true}, {`\*`, "a", false}, {`a\`, "a", false}, {"A", "a", false}, {"abc", "ab", false},
	} {
		if got := wildcard(c.pattern, c.s); got != c.want {
			t.Errorf("wildcard(%q, %q) = %v", c.pattern, c.s, got)
		}
	}
}

func TestZoneIDs(t *testing.T) {
	for zone, want := range map[string]string{
		"us-east-1a": "use1-az1", "eu-west-3b": "euw3-az2", "ap-southeast-2c": "apse2-az3", "ap-northeast-1a": "apne1-az1",
		"eu-central-1a": "euc1-az1", "us-gov-west-1a": "usgw1-az1", "af-south-1a": "afs1-az1",
	} {
		if got := zoneID(zone[:len(zone)-1], zone); got != want {
			t.Errorf("%s: %s, want %s", zone, got, want)
		}
	}
}
