package ec2

import (
	"context"
	"iter"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/addressing"
	"github.com/seed-2f228079/neargate/internal/arn"
)

var subnetFilters = filters[types.Subnet]{
	"availability-zone":    one(subnetZone),
	"availabilityZone":     one(subnetZone),
	"availability-zone-id": one(func(v types.Subnet) *string { return v.AvailabilityZoneId }),
	"availabilityZoneId":   one(func(v types.Subnet) *string { return v.AvailabilityZoneId }),
	"available-ip-address-count": func(v types.Subnet) []string {
		return []string{strconv.Itoa(int(*v.AvailableIpAddressCount))}
	},
	"cidr":                            one(subnetBlock),
	"cidr-block":                      one(subnetBlock),
	"cidrBlock":                       one(subnetBlock),
	"default-for-az":                  flag(func(v types.Subnet) *bool { return v.DefaultForAz }),
	"defaultForAz":                    flag(func(v types.Subnet) *bool { return v.DefaultForAz }),
	"enable-dns64":                    flag(func(v types.Subnet) *bool { return v.EnableDns64 }),
	"ipv6-native":                     flag(func(v types.Subnet) *bool { return v.Ipv6Native }),
	"map-customer-owned-ip-on-launch": flag(func(v types.Subnet) *bool { return v.MapCustomerOwnedIpOnLaunch }),
	"map-public-ip-on-launch":         flag(func(v types.Subnet) *bool { return v.MapPublicIpOnLaunch }),
	"owner-id":                        one(func(v types.Subnet) *string { return v.OwnerId }),
	"private-dns-name-options-on-launch.hostname-type": func(v types.Subnet) []string {
		return []string{string(v.PrivateDnsNameOptionsOnLaunch.HostnameType)}
	},
	"private-dns-name-options-on-launch.enable-resource-name-dns-a-record": flag(func(v types.Subnet) *bool {
		return v.PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsARecord
	}),
	"private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record": flag(func(v types.Subnet) *bool {
		return v.PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsAAAARecord
	}),
	"ipv6-cidr-block-association.association-id":  one(func(v types.Subnet) *string { return v.Ipv6CidrBlockAssociationSet[0].AssociationId }),
	"ipv6-cidr-block-association.ipv6-cidr-block": one(func(v types.Subnet) *string { return v.Ipv6CidrBlockAssociationSet[0].Ipv6CidrBlock }),
	"ipv6-cidr-block-association.state": func(v types.Subnet) []string {
		return []string{string(v.Ipv6CidrBlockAssociationSet[0].Ipv6CidrBlockState.State)}
	},
	"state":      func(v types.Subnet) []string { return []string{string(v.State)} },
	"subnet-arn": one(func(v types.Subnet) *string { return v.SubnetArn }),
	"subnet-id":  one(func(v types.Subnet) *string { return v.SubnetId }),
	"vpc-id":     one(func(v types.Subnet) *string { return v.VpcId }),

	"customer-owned-ipv4-pool":   nil,
	"enable-lni-at-device-index": nil,
	"outpost-arn":                nil,
	"tag-key":                    nil,
}

func subnetZone(v types.Subnet) *string  { return v.AvailabilityZone }
func subnetBlock(v types.Subnet) *string { return v.CidrBlock }

// describeSubnets implements ec2:DescribeSubnets. Subnets come in the order of their zones.
func (s *Service) describeSubnets(ctx context.Context, in *ec2.DescribeSubnetsInput) (*ec2.DescribeSubnetsOutput, error) {
	c := api.CallFrom(ctx)
	match, err := subnetFilters.compile(in.Filters)
	if err != nil {
		return nil, err
	}
	exists := func(id string) bool { _, ok := s.Network.Subnet(c.Account, c.Region, id); return ok }
	if err := subnetKind.check(in.SubnetIds, exists); err != nil {
		return nil, err
	}
	if err := dryRun(in.DryRun); err != nil {
		return nil, err
	}
	found := []types.Subnet{}
	for _, v := range s.Network.subnets(c.Account, c.Region) {
		if named(in.SubnetIds, v.SubnetId) && match(v) {
			found = append(found, v)
		}
	}
	zone := func(v types.Subnet) string { return *v.AvailabilityZone }
	page, next, err := api.Page(ctx, s.Pages, in, api.PageSize(in.MaxResults, maxPage, maxPage),
		func(last string) iter.Seq[types.Subnet] { return after(found, zone, last) }, zone)
	if err != nil {
		return nil, err
	}
	return &ec2.DescribeSubnetsOutput{Subnets: page, NextToken: next}, nil
}

func (n Network) subnets(account, region string) []types.Subnet {
	var out []types.Subnet
	for i, zone := range n.Zones(region) {
		id, cidr := n.DefaultSubnet(account, region, zone), addressing.Subnet(i)
		out = append(out, types.Subnet{
			SubnetId:                    &id,
			SubnetArn:                   new(arn.New("ec2", region, account, "subnet/"+id).String()),
			VpcId:                       new(n.DefaultVPC(account, region)),
			OwnerId:                     &account,
			State:                       types.SubnetStateAvailable,
			AvailabilityZone:            &zone,
			AvailabilityZoneId:          new(zoneID(region, zone)),
			CidrBlock:                   new(cidr.String()),
			AvailableIpAddressCount:     new(int32(1<<(32-cidr.Bits()) - reservedAddresses)),
			DefaultForAz:                new(true),
			MapPublicIpOnLaunch:         new(true),
			MapCustomerOwnedIpOnLaunch:  new(false),
			AssignIpv6AddressOnCreation: new(true),
			Ipv6CidrBlockAssociationSet: []types.SubnetIpv6CidrBlockAssociation{{
				AssociationId:        new(stableID("subnet-cidr-assoc", account, region, zone)),
				Ipv6CidrBlock:        new(addressing.Subnet6(i).String()),
				Ipv6CidrBlockState:   &types.SubnetCidrBlockState{State: types.SubnetCidrBlockStateCodeAssociated},
				Ipv6AddressAttribute: types.Ipv6AddressAttributePrivate, IpSource: types.IpSourceNone,
			}},
			EnableDns64: new(false),
			Ipv6Native:  new(false),
			PrivateDnsNameOptionsOnLaunch: &types.PrivateDnsNameOptionsOnLaunch{
				HostnameType:                    types.HostnameTypeIpName,
				EnableResourceNameDnsARecord:    new(false),
				EnableResourceNameDnsAAAARecord: new(false),
			},
		})
	}
	return out
}
