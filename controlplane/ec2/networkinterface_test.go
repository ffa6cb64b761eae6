package ec2

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// TestNetworkInterfacesAreThoseOfTasks: one for each task of network mode awsvpc that has its address, as long as it lives.
func TestNetworkInterfacesAreThoseOfTasks(t *testing.T) {
	s := newService(t)
	ctx := in(account, region)
	web := s.make(t, "web")
	var n Network
	subnets := []string{n.DefaultSubnet(account, region, "us-east-1a"), n.DefaultSubnet(account, region, "us-east-1b")}
	put := func(id, address, six string, observed agentapi.TaskState, groups ...string) *controlplane.Task {
		task := &controlplane.Task{Account: account, Region: region, Cluster: "c", Id: strings.Repeat(id, 32), TaskDefinition: "web:1", NetworkConfigurationJson: controlplane.EncodeShape(
			&ecstypes.NetworkConfiguration{AwsvpcConfiguration: &ecstypes.AwsVpcConfiguration{Subnets: subnets, SecurityGroups: groups}})}
		if _, err := s.Store.Update(ctx, func(tx *state.Tx) error {
			controlplane.Nodes.Put(tx, &controlplane.Node{Id: "n1", Attributes: map[string]string{"ecs.availability-zone": "us-east-1b"}})
			controlplane.Tasks.Put(tx, task)
			controlplane.TaskStatuses.Put(tx, &controlplane.TaskStatus{Account: account, Region: region, Cluster: "c", Id: task.Id, Node: "n1", SecurityGroups: groups, Observed: observed,
				Report: &agentapi.TaskStatus{Address: address, Ipv6Address: six, MacAddress: "02:42:0a:50:00:02"}})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return task
	}
	running, stopped := agentapi.TaskState_RUNNING, agentapi.TaskState_STOPPED
	both := put("a", "10.80.0.2", "fd8e:2f17:5b61::a50:2", running, web)
	plain := put("b", "10.80.0.3", "", running, controlplane.DefaultSecurityGroup)
	put("c", "10.80.0.4", "", running) // of network mode bridge
	put("d", "", "", running, web)     // not there yet
	over := put("e", "10.80.0.5", "", stopped, web)

	found := func(in ec2.DescribeNetworkInterfacesInput) (ids []string) {
		t.Helper()
		out, err := s.describeNetworkInterfaces(ctx, &in)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range out.NetworkInterfaces {
			ids = append(ids, *i.NetworkInterfaceId)
		}
		return ids
	}
	all := both.NetworkInterfaceID() + " " + plain.NetworkInterfaceID()
	for _, c := range []struct {
		filter []types.Filter
		want   string
	}{
		{nil, all},
		{filter("subnet-id", subnets[1]), all},
		{filter("subnet-id", subnets[0]), ""},
		{filter("vpc-id", n.DefaultVPC(account, region)), all},
		{filter("group-id", web), both.NetworkInterfaceID()},
		{filter("group-name", "default"), plain.NetworkInterfaceID()},
		{filter("network-interface-id", plain.NetworkInterfaceID()), plain.NetworkInterfaceID()},
		{filter("description", "arn:aws:ecs:us-east-1:000000000000:attachment/"+both.AttachmentID()), both.NetworkInterfaceID()},
		{filter("addresses.private-ip-address", "10.80.0.3"), plain.NetworkInterfaceID()},
		{filter("private-ip-address", "10.80.0.*"), all},
		{filter("ipv6-addresses.ipv6-address", "fd8e:2f17:5b61::a50:2"), both.NetworkInterfaceID()},
		{filter("availability-zone", "us-east-1b"), all},
		{filter("association.public-ip", "*"), ""},
	} {
		if got := strings.Join(found(ec2.DescribeNetworkInterfacesInput{Filters: c.filter}), " "); got != c.want {
			t.Errorf("%+v finds %q, want %q", c.filter, got, c.want)
		}
	}
	out, err := s.describeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{both.NetworkInterfaceID()}})
	if err != nil || len(out.NetworkInterfaces) != 1 {
		t.Fatal(out, err)
	}
	i := out.NetworkInterfaces[0]
	if *i.PrivateIpAddress != "10.80.0.2" || *i.Ipv6Addresses[0].Ipv6Address != "fd8e:2f17:5b61::a50:2" || *i.MacAddress != "02:42:0a:50:00:02" || *i.SubnetId != subnets[1] ||
		*i.AvailabilityZone != "us-east-1b" || *i.Groups[0].GroupId != web || *i.Groups[0].GroupName != "web" || i.Status != types.NetworkInterfaceStatusInUse || !*i.PrivateIpAddresses[0].Primary {
		t.Errorf("an interface: %+v", i)
	}
	for id, code := range map[string]string{over.NetworkInterfaceID(): "InvalidNetworkInterfaceID.NotFound", "eni-00000000": "InvalidNetworkInterfaceID.NotFound", "eni-x": "InvalidNetworkInterfaceId.Malformed"} {
		if _, err := s.describeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{id}}); !awserr.Is(err, code) {
			t.Errorf("%s: %v, want %s", id, err, code)
		}
	}
	if _, err := s.describeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{both.NetworkInterfaceID()}, MaxResults: new(int32(5))}); !awserr.Is(err, "InvalidParameterCombination") {
		t.Errorf("ids and pages: %v", err)
	}
	if out, err := s.describeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: filter("description", "nobody's")}); err != nil || out.NetworkInterfaces == nil || len(out.NetworkInterfaces) != 0 {
		t.Errorf("a filter that none fits: %+v, %v, want an empty list", out, err)
	}
	if _, err := s.describeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: filter("color", "red")}); !awserr.Is(err, "InvalidParameterValue") {
		t.Errorf("an unknown filter: %v", err)
	}
	if out, err := s.describeNetworkInterfaces(in("111111111111", region), &ec2.DescribeNetworkInterfacesInput{}); err != nil || len(out.NetworkInterfaces) != 0 {
		t.Errorf("another account sees %+v, %v", out, err)
	}
}
