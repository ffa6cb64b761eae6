package controlplane

import (
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/internal/id"
)

// A task of network mode awsvpc has a network interface of its own, which ECS shows as an attachment of the task and EC2 by itself. It has no record: what
// it is follows from the task.

// NetworkInterfaceID is how EC2 names the task's interface.
func (t *Task) NetworkInterfaceID() string { return NetworkInterfaceID(t.Id) }

// NetworkInterfaceID is how EC2 names the interface of the task with the id.
func NetworkInterfaceID(task string) string { return "eni-" + task[:min(17, len(task))] }

// AttachmentID is how ECS names what the interface is attached by.
func (t *Task) AttachmentID() string { return id.UUIDOf(t.Id) }

// Subnet is which of the subnets that were asked for the interface is in: that of its host's zone, from whose block its address is; empty: none
// was asked for. zoneOf says which zone a subnet is in.
func (t *Task) Subnet(zone string, zoneOf func(subnet string) (zone string, ok bool)) string {
	vpc := DecodeShape[types.NetworkConfiguration](t.NetworkConfigurationJson).AwsvpcConfiguration
	if vpc == nil || len(vpc.Subnets) == 0 {
		return ""
	}
	for _, asked := range vpc.Subnets {
		if in, ok := zoneOf(asked); ok && in == zone {
			return asked
		}
	}
	return vpc.Subnets[0]
}
