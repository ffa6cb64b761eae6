package ecs

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/id"
)

// Limits of one registration. The agent of ECS says some seventy attributes of itself.
const (
	maxAgentAttributes = 300
	maxReservedPorts   = 100
	maxIdentity        = 16 << 10
)

// instanceName is what instances are called.
var instanceName = regexp.MustCompile(`^[0-9a-f]{32}$`)

// registration is what RegisterContainerInstance says of a host, read.
type registration struct {
	resources  *agentapi.NodeResources
	attributes map[string]string // the agent's own and the host's
	custom     map[string]string
	tags       map[string]string
	address    string
}

// registerContainerInstance implements ecs:RegisterContainerInstance: Amazon's ECS agent makes its host an instance of a cluster, or says who it is
// after it has started anew. Until it is connected the instance has no agent, and gets no tasks; what it is told then is the gateway's
// (controlplane/ecsagent).
func (s *Service) registerContainerInstance(ctx context.Context, in *ecs.RegisterContainerInstanceInput) (*ecs.RegisterContainerInstanceOutput, error) {
	g, err := readRegistration(ctx, in)
	if err != nil {
		return nil, err
	}
	now := api.CallFrom(ctx).Time
	var made *controlplane.ContainerInstance
	err = s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		c, err := cluster(tx, scope, in.Cluster)
		if err != nil {
			return err
		}
		n := &controlplane.Node{Id: "ecs-" + id.Hex(s.Rand, 32), Status: capacity.NodeAway, Registered: timestamppb.New(now)}
		ci := &controlplane.ContainerInstance{
			Account: scope.Account, Region: scope.Region, Cluster: c.Name, Id: capacity.InstanceID(n.Id, c), Node: n.Id, Status: active, Registered: timestamppb.New(now),
		}
		if ref := aws.ToString(in.ContainerInstanceArn); ref != "" {
			name, err := member(scope, "container-instance", c.Name, ref)
			if err != nil {
				return err
			}
			switch old, node, err := registered(tx, scope.Key(c.Name, name)); {
			case err != nil:
				return err
			case old != nil:
				ci, n = old, node
			case instanceName.MatchString(name):
				// It was lost for so long that it was forgotten, or the state is one of before. The agent goes by no other name than it has.
				ci.Id = name
			default:
				return invalid("The referenced container instance was not found.")
			}
			if ci.Status == inactive {
				ci.Status, ci.Registered = active, timestamppb.New(now)
			}
			if was, is := n.Attributes["ecs.instance-type"], g.attributes["ecs.instance-type"]; was != "" && is != "" && was != is {
				return client("Container instance type changes are not supported. Container instance %s was previously registered as %s.", ci.Id, was)
			}
		}
		if n.AmazonAgent == nil {
			n.AmazonAgent = &controlplane.AmazonAgent{}
		}
		if version := in.VersionInfo; version != nil { // the agent itself says it when it connects
			n.Version, n.AmazonAgent.Hash, n.AmazonAgent.DockerVersion = aws.ToString(version.AgentVersion), aws.ToString(version.AgentHash), aws.ToString(version.DockerVersion)
		}
		n.DownSince = nil // whatever its status: it is there
		n.Runtime, n.Resources, n.Attributes = capacity.RuntimeAmazon, g.resources, g.attributes
		n.Name, n.Address = cmp.Or(g.attributes["ecs.instance-id"], n.Id), g.address
		if ci.Attributes == nil && len(g.custom) > 0 {
			ci.Attributes = map[string]string{}
		}
		maps.Copy(ci.Attributes, g.custom) // those of PutAttributes stay
		if len(ci.Attributes) > maxAttributes {
			return invalid("A container instance can have up to %d custom attributes.", maxAttributes)
		}
		ci.Version++
		controlplane.Nodes.Put(tx, n)
		controlplane.ContainerInstances.Put(tx, ci)
		made = ci
		return controlplane.AddTags(tx, scope, ci.ARN(), g.tags, tagCodes)
	})
	if err != nil {
		return nil, err
	}
	return &ecs.RegisterContainerInstanceOutput{ContainerInstance: new(containerInstanceShape(s.Store.View(), made, true))}, nil
}

// registered are copies of the records of an instance that an agent says it is; nil: there is none.
func registered(tx *state.Tx, key state.Key) (*controlplane.ContainerInstance, *controlplane.Node, error) {
	ci, ok := controlplane.ContainerInstances.Get(tx, key)
	if !ok {
		return nil, nil, nil
	}
	n, ok := controlplane.Nodes.Get(tx, state.K(ci.Node))
	if !ok || n.AmazonAgent == nil {
		return nil, nil, invalid("The container instance %s was not registered by RegisterContainerInstance.", ci.Id)
	}
	return proto.CloneOf(ci), proto.CloneOf(n), nil
}

func readRegistration(ctx context.Context, in *ecs.RegisterContainerInstanceInput) (g registration, err error) {
	if g.tags, err = tagSet(in.Tags); err != nil {
		return g, err
	}
	if g.resources, err = readResources(in.TotalResources); err != nil {
		return g, err
	}
	if len(in.Attributes) > maxAgentAttributes {
		return g, invalid("Attributes cannot have more than %d elements.", maxAgentAttributes)
	}
	g.attributes, g.custom = map[string]string{}, map[string]string{}
	if g.address, err = identity(aws.ToString(in.InstanceIdentityDocument), g.attributes); err != nil {
		return g, err
	}
	if ip := api.CallFrom(ctx).SourceIP; g.address == "" && ip.IsValid() {
		g.address = ip.Unmap().String()
	}
	for _, a := range in.Attributes {
		name, value := aws.ToString(a.Name), aws.ToString(a.Value)
		switch {
		case !attributeName.MatchString(name):
			return g, invalid("Attribute name '%s' is invalid: it must have between 1 and 128 letters, numbers, hyphens, underscores, slashes or periods.", name)
		case value != "" && !attributeValue.MatchString(value):
			return g, invalid("Attribute value '%s' of '%s' is invalid.", value, name)
		case strings.HasPrefix(name, "ecs.") || strings.HasPrefix(name, "com.amazonaws.ecs."):
			g.attributes[name] = value
		default:
			g.custom[name] = value
		}
	}
	return g, nil
}

// readResources reads totalResources. CPU and MEMORY are what tasks share; PORTS and PORTS_UDP they cannot have.
func readResources(list []types.Resource) (*agentapi.NodeResources, error) {
	r, seen := &agentapi.NodeResources{}, map[string]bool{}
	for _, res := range list {
		name, kind := aws.ToString(res.Name), "INTEGER"
		if seen[name] {
			return nil, invalid("The resource %s is given more than once.", name)
		}
		seen[name] = true
		switch name {
		case "CPU", "MEMORY":
			if res.IntegerValue < 0 {
				return nil, invalid("The integer value of the resource %s must not be negative.", name)
			}
		case "PORTS", "PORTS_UDP", "GPU", "NEURON_CORES":
			kind = "STRINGSET"
		default:
			return nil, invalid("The resource %s is not one of [CPU, MEMORY, PORTS, PORTS_UDP, GPU, NEURON_CORES].", name)
		}
		if aws.ToString(res.Type) != kind {
			return nil, invalid("The type of the resource %s must be %s.", name, kind)
		}
		switch name {
		case "CPU":
			r.CpuUnits = uint32(res.IntegerValue)
		case "MEMORY":
			r.MemoryMib = uint32(res.IntegerValue)
		case "PORTS", "PORTS_UDP":
			protocol := "tcp"
			if name == "PORTS_UDP" {
				protocol = "udp"
			}
			if len(res.StringSetValue) > maxReservedPorts {
				return nil, invalid("The resource %s cannot have more than %d elements.", name, maxReservedPorts)
			}
			for _, text := range res.StringSetValue {
				port, err := strconv.ParseUint(text, 10, 16)
				if err != nil || port == 0 {
					return nil, invalid("The resource %s has '%s', which is not a port.", name, text)
				}
				r.ReservedPorts = append(r.ReservedPorts, &agentapi.PortRange{First: uint32(port), Last: uint32(port), Protocol: protocol})
			}
		}
	}
	if !seen["CPU"] || !seen["MEMORY"] {
		return nil, invalid("totalResources must have CPU and MEMORY.")
	}
	return r, nil
}

// identity takes what the platform shows of an instance of EC2 from its identity document. Its signature is not looked at: only AWS could vouch for
// it, and hosts may be anybody's; who may register is IAM's to say.
func identity(document string, attributes map[string]string) (address string, err error) {
	if document == "" {
		return "", nil
	}
	var d struct{ InstanceID, InstanceType, ImageID, AvailabilityZone, Architecture, PrivateIP string }
	if len(document) > maxIdentity || json.Unmarshal([]byte(document), &d) != nil {
		return "", client("The instance identity document is not a document of EC2.")
	}
	if d.Architecture == "aarch64" {
		d.Architecture = "arm64"
	}
	for name, value := range map[string]string{
		"ecs.instance-id": d.InstanceID, "ecs.instance-type": d.InstanceType, "ecs.ami-id": d.ImageID, "ecs.availability-zone": d.AvailabilityZone, "ecs.cpu-architecture": d.Architecture,
	} {
		switch {
		case value == "":
		case !attributeValue.MatchString(value):
			return "", client("The instance identity document is not a document of EC2.")
		default:
			attributes[name] = value
		}
	}
	if _, err := netip.ParseAddr(d.PrivateIP); d.PrivateIP != "" && err != nil {
		return "", client("The instance identity document is not a document of EC2.")
	}
	return d.PrivateIP, nil
}

// AgentPath is below which the gateway answers the agents of ECS: what they poll, and their telemetry.
const (
	AgentPollPath      = "/v1/ecs-agent/poll/"
	AgentTelemetryPath = "/v1/ecs-agent/telemetry/"
)

// discoverPollEndpoint implements ecs:DiscoverPollEndpoint: both are this server, as the client calls it. The agent of an instance that is INACTIVE is told
// so where it polls. There is no Service Connect, and so no
// endpoint of it.
func (s *Service) discoverPollEndpoint(ctx context.Context, in *ecs.DiscoverPollEndpointInput) (*ecs.DiscoverPollEndpointOutput, error) {
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	c, err := cluster(v, scope, in.Cluster)
	if err != nil {
		return nil, err
	}
	if ref := aws.ToString(in.ContainerInstance); ref != "" {
		name, err := member(scope, "container-instance", c.Name, ref)
		if err != nil {
			return nil, err
		}
		if _, ok := controlplane.ContainerInstances.Get(v, scope.Key(c.Name, name)); !ok {
			return nil, invalid("The referenced container instance was not found.")
		}
	}
	call := api.CallFrom(ctx)
	base := "http://" + call.Host
	if call.Secure {
		base = "https://" + call.Host
	}
	return &ecs.DiscoverPollEndpointOutput{Endpoint: aws.String(base + AgentPollPath), TelemetryEndpoint: aws.String(base + AgentTelemetryPath)}, nil
}
