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

var interfaceFilters = filters[types.NetworkInterface]{
	"addresses.primary":                func(v types.NetworkInterface) []string { return []string{"true"} }, // it has but one
	"addresses.private-ip-address":     one(func(v types.NetworkInterface) *string { return v.PrivateIpAddress }),
	"attachment.attachment-id":         one(func(v types.NetworkInterface) *string { return v.Attachment.AttachmentId }),
	"attachment.delete-on-termination": flag(func(v types.NetworkInterface) *bool { return v.Attachment.DeleteOnTermination }),
	"attachment.device-index": func(v types.NetworkInterface) []string {
		return []string{strconv.Itoa(int(*v.Attachment.DeviceIndex))}
	},
	"attachment.instance-owner-id": one(func(v types.NetworkInterface) *string { return v.Attachment.InstanceOwnerId }),
	"attachment.status":            func(v types.NetworkInterface) []string { return []string{string(v.Attachment.Status)} },
	"availability-zone":            one(func(v types.NetworkInterface) *string { return v.AvailabilityZone }),
	"availability-zone-id":         one(func(v types.NetworkInterface) *string { return v.AvailabilityZoneId }),
	"description":                  one(func(v types.NetworkInterface) *string { return v.Description }),
	"group-id":                     ofGroups(func(g types.GroupIdentifier) string { return *g.GroupId }),
	"group-name":                   ofGroups(func(g types.GroupIdentifier) string { return *g.GroupName }),
	"interface-type":               func(v types.NetworkInterface) []string { return []string{string(v.InterfaceType)} },
	"ipv6-addresses.ipv6-address": func(v types.NetworkInterface) (list []string) {
		for _, a := range v.Ipv6Addresses {
			list = append(list, *a.Ipv6Address)
		}
		return list
	},
	"mac-address":          one(func(v types.NetworkInterface) *string { return v.MacAddress }),
	"network-interface-id": one(func(v types.NetworkInterface) *string { return v.NetworkInterfaceId }),
	"owner-id":             one(func(v types.NetworkInterface) *string { return v.OwnerId }),
	"private-ip-address":   one(func(v types.NetworkInterface) *string { return v.PrivateIpAddress }),
	"requester-managed":    flag(func(v types.NetworkInterface) *bool { return v.RequesterManaged }),
	"source-dest-check":    flag(func(v types.NetworkInterface) *bool { return v.SourceDestCheck }),
	"status":               func(v types.NetworkInterface) []string { return []string{string(v.Status)} },
	"subnet-id":            one(func(v types.NetworkInterface) *string { return v.SubnetId }),
	"vpc-id":               one(func(v types.NetworkInterface) *string { return v.VpcId }),

	"addresses.association.owner-id":  nil,
	"addresses.association.public-ip": nil,
	"association.allocation-id":       nil,
	"association.association-id":      nil,
	"association.ip-owner-id":         nil,
	"association.public-dns-name":     nil,
	"association.public-ip":           nil,
	"attachment.attach-time":          nil,
	"attachment.instance-id":          nil,
	"operator.managed":                nil,
	"operator.principal":              nil,
	"private-dns-name":                nil,
	"requester-id":                    nil,
	"tag-key":                         nil,
}

func ofGroups(f func(types.GroupIdentifier) string) func(types.NetworkInterface) []string {
	return func(v types.NetworkInterface) (list []string) {
		for _, g := range v.Groups {
			list = append(list, f(g))
		}
		return list
	}
}

// describeNetworkInterfaces implements ec2:DescribeNetworkInterfaces. There are those of tasks with network mode awsvpc, from when they have their address
// until they are over; by the id that describe-tasks shows.
func (s *Service) describeNetworkInterfaces(ctx context.Context, in *ec2.DescribeNetworkInterfacesInput) (*ec2.DescribeNetworkInterfacesOutput, error) {
	match, err := interfaceFilters.compile(in.Filters)
	if err != nil {
		return nil, err
	}
	if len(in.NetworkInterfaceIds) > 0 && in.MaxResults != nil {
		return nil, awserr.New("InvalidParameterCombination", "The parameter MaxResults cannot be used with the parameter NetworkInterfaceIds")
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	live := map[string]*controlplane.TaskStatus{}
	for t := range controlplane.LiveTasks.Scan(v, scope.Key()) {
		if len(t.SecurityGroups) > 0 && t.Report.GetAddress() != "" {
			live[controlplane.NetworkInterfaceID(t.Id)] = t
		}
	}
	if err := interfaceKind.check(in.NetworkInterfaceIds, func(id string) bool { return live[id] != nil }); err != nil {
		return nil, err
	}
	if err := dryRun(in.DryRun); err != nil {
		return nil, err
	}
	found := []types.NetworkInterface{}
	for id, t := range live {
		if !named(in.NetworkInterfaceIds, &id) {
			continue
		}
		if shape, ok := s.Network.interfaceShape(v, t); ok && match(shape) {
			found = append(found, shape)
		}
	}
	id := func(v types.NetworkInterface) string { return *v.NetworkInterfaceId }
	slices.SortFunc(found, func(a, b types.NetworkInterface) int { return cmp.Compare(id(a), id(b)) })
	page, next, err := api.Page(ctx, s.Pages, in, api.PageSize(in.MaxResults, maxPage, maxPage),
		func(last string) iter.Seq[types.NetworkInterface] { return after(found, id, last) }, id)
	if err != nil {
		return nil, err
	}
	return &ec2.DescribeNetworkInterfacesOutput{NetworkInterfaces: page, NextToken: next}, nil
}

// interfaceShape is a task's interface as EC2 shows it. What it has not (public addresses, names, tags of its own) is left out.
func (n Network) interfaceShape(r state.Reader, st *controlplane.TaskStatus) (types.NetworkInterface, bool) {
	t, ok := controlplane.Tasks.Get(r, controlplane.TaskStatuses.Key(st))
	if !ok {
		return types.NetworkInterface{}, false
	}
	node, _ := controlplane.Nodes.Get(r, state.K(st.Node))
	zone := node.GetAttributes()["ecs.availability-zone"]
	subnet := t.Subnet(zone, func(id string) (string, bool) { return n.Subnet(t.Account, t.Region, id) })
	if of, ok := n.Subnet(t.Account, t.Region, subnet); ok {
		zone = of // a host in no zone of the region has its tasks in a subnet all the same
	}
	address, six := st.Report.GetAddress(), st.Report.GetIpv6Address()
	shape := types.NetworkInterface{
		NetworkInterfaceId: new(t.NetworkInterfaceID()), SubnetId: &subnet, VpcId: new(n.DefaultVPC(t.Account, t.Region)), OwnerId: &t.Account,
		AvailabilityZone: &zone, AvailabilityZoneId: new(zoneID(t.Region, zone)),
		Description:   new(arn.New("ecs", t.Region, t.Account, "attachment/"+t.AttachmentID()).String()),
		InterfaceType: types.NetworkInterfaceTypeInterface, Status: types.NetworkInterfaceStatusInUse, RequesterManaged: new(true), SourceDestCheck: new(true),
		MacAddress: optional(st.Report.GetMacAddress()), PrivateIpAddress: &address,
		PrivateIpAddresses: []types.NetworkInterfacePrivateIpAddress{{Primary: new(true), PrivateIpAddress: &address}},
		Ipv6Addresses:      []types.NetworkInterfaceIpv6Address{}, Ipv4Prefixes: []types.Ipv4PrefixSpecification{}, Ipv6Prefixes: []types.Ipv6PrefixSpecification{},
		Groups: []types.GroupIdentifier{}, TagSet: []types.Tag{},
		Attachment: &types.NetworkInterfaceAttachment{AttachmentId: new("eni-attach-" + t.NetworkInterfaceID()[len("eni-"):]), Status: types.AttachmentStatusAttached,
			DeleteOnTermination: new(true), DeviceIndex: new(int32(1)), InstanceOwnerId: &t.Account},
	}
	if six != "" {
		shape.Ipv6Addresses = append(shape.Ipv6Addresses, types.NetworkInterfaceIpv6Address{Ipv6Address: &six, IsPrimaryIpv6: new(false)})
	}
	for _, id := range ids(st) {
		g := findGroup(r, st.Scope(), id)
		shape.Groups = append(shape.Groups, types.GroupIdentifier{GroupId: &id, GroupName: new(g.GetName())})
	}
	return shape, true
}
