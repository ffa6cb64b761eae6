package ec2

import (
	"context"
	"iter"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/addressing"
)

var vpcFilters = filters[types.Vpc]{
	"cidr":                                  one(func(v types.Vpc) *string { return v.CidrBlock }),
	"cidr-block-association.cidr-block":     one(func(v types.Vpc) *string { return v.CidrBlockAssociationSet[0].CidrBlock }),
	"cidr-block-association.association-id": one(func(v types.Vpc) *string { return v.CidrBlockAssociationSet[0].AssociationId }),
	"cidr-block-association.state": func(v types.Vpc) []string {
		return []string{string(v.CidrBlockAssociationSet[0].CidrBlockState.State)}
	},
	"dhcp-options-id": one(func(v types.Vpc) *string { return v.DhcpOptionsId }),
	"is-default":      flag(func(v types.Vpc) *bool { return v.IsDefault }),
	"isDefault":       flag(func(v types.Vpc) *bool { return v.IsDefault }),
	"owner-id":        one(func(v types.Vpc) *string { return v.OwnerId }),
	"state":           func(v types.Vpc) []string { return []string{string(v.State)} },
	"vpc-id":          one(func(v types.Vpc) *string { return v.VpcId }),

	"ipv6-cidr-block-association.association-id":  one(func(v types.Vpc) *string { return v.Ipv6CidrBlockAssociationSet[0].AssociationId }),
	"ipv6-cidr-block-association.ipv6-cidr-block": one(func(v types.Vpc) *string { return v.Ipv6CidrBlockAssociationSet[0].Ipv6CidrBlock }),
	"ipv6-cidr-block-association.state": func(v types.Vpc) []string {
		return []string{string(v.Ipv6CidrBlockAssociationSet[0].Ipv6CidrBlockState.State)}
	},
	"ipv6-cidr-block-association.ipv6-pool": nil,
	"tag-key":                               nil,
}

// describeVpcs implements ec2:DescribeVpcs.
func (s *Service) describeVpcs(ctx context.Context, in *ec2.DescribeVpcsInput) (*ec2.DescribeVpcsOutput, error) {
	c := api.CallFrom(ctx)
	match, err := vpcFilters.compile(in.Filters)
	if err != nil {
		return nil, err
	}
	if err := vpcKind.check(in.VpcIds, func(id string) bool { return s.Network.VPCExists(c.Account, c.Region, id) }); err != nil {
		return nil, err
	}
	if err := dryRun(in.DryRun); err != nil {
		return nil, err
	}
	found := []types.Vpc{}
	if v := s.Network.vpc(c.Account, c.Region); named(in.VpcIds, v.VpcId) && match(v) {
		found = append(found, v)
	}
	id := func(v types.Vpc) string { return *v.VpcId }
	page, next, err := api.Page(ctx, s.Pages, in, api.PageSize(in.MaxResults, maxPage, maxPage),
		func(last string) iter.Seq[types.Vpc] { return after(found, id, last) }, id)
	if err != nil {
		return nil, err
	}
	return &ec2.DescribeVpcsOutput{Vpcs: page, NextToken: next}, nil
}

func (n Network) vpc(account, region string) types.Vpc {
	cidr := addressing.VPC.String()
	return types.Vpc{
		VpcId:           new(n.DefaultVPC(account, region)),
		OwnerId:         &account,
		State:           types.VpcStateAvailable,
		CidrBlock:       &cidr,
		DhcpOptionsId:   new(stableID("dopt", account, region, "")),
		InstanceTenancy: types.TenancyDefault,
		IsDefault:       new(true),
		CidrBlockAssociationSet: []types.VpcCidrBlockAssociation{{
			AssociationId:  new(stableID("vpc-cidr-assoc", account, region, "")),
			CidrBlock:      &cidr,
			CidrBlockState: &types.VpcCidrBlockState{State: types.VpcCidrBlockStateCodeAssociated},
		}},
		Ipv6CidrBlockAssociationSet: []types.VpcIpv6CidrBlockAssociation{{
			AssociationId:        new(stableID("vpc-cidr-assoc", account, region, "ipv6")),
			Ipv6CidrBlock:        new(addressing.VPC6.String()),
			Ipv6CidrBlockState:   &types.VpcCidrBlockState{State: types.VpcCidrBlockStateCodeAssociated},
			Ipv6AddressAttribute: types.Ipv6AddressAttributePrivate, IpSource: types.IpSourceNone,
			NetworkBorderGroup: &region,
		}},
	}
}
