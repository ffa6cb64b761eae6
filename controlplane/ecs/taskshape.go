package ecs

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/id"
)

// taskShape renders a task as DescribeTasks shows it.
func (s *Service) taskShape(r state.Reader, t *controlplane.Task, st *controlplane.TaskStatus, withTags bool) types.Task {
	return s.taskShapeOn(r, t, st, taskHost(r, st), withTags)
}

// taskHost is what r knows of the host that a task is on.
func taskHost(r state.Reader, st *controlplane.TaskStatus) controlplane.TaskHost {
	h := controlplane.TaskHost{Connected: true}
	if st.Node == "" {
		return h
	}
	if n, ok := controlplane.Nodes.Get(r, state.K(st.Node)); ok {
		h.Zone, h.Architecture, h.Connected = n.Attributes["ecs.availability-zone"], n.Attributes["ecs.cpu-architecture"], n.Status == "READY"
	}
	if ci, ok := membership(r, &controlplane.ContainerInstance{Account: st.Account, Region: st.Region, Cluster: st.Cluster, Node: st.Node}); ok {
		h.Instance = ci.Id
	}
	return h
}

// taskShapeOn is taskShape with a host that was read before.
func (s *Service) taskShapeOn(r state.Reader, t *controlplane.Task, st *controlplane.TaskStatus, host controlplane.TaskHost, withTags bool) types.Task {
	scope := t.Scope()
	def, defined := controlplane.TaskDefinitions.Get(r, scope.FamilyRevisionKey(t.TaskDefinition))
	var shape types.TaskDefinition
	if defined {
		shape = s.shapeOf(def)
	}
	report := st.Report
	out := types.Task{
		TaskArn: aws.String(t.ARN()), ClusterArn: aws.String(scope.ClusterARN(t.Cluster)),
		TaskDefinitionArn: aws.String(scope.TaskDefinitionARN(t.TaskDefinition)),
		Attachments:       []types.Attachment{}, Attributes: []types.Attribute{}, Containers: []types.Container{},
		Cpu: aws.String(strconv.Itoa(int(t.Demand.GetCpuUnits()))), Memory: aws.String(strconv.Itoa(int(t.Demand.GetMemoryMib()))),
		CreatedAt: timeOf(t.Created), DesiredStatus: aws.String(desiredStatus(st)), LastStatus: aws.String(st.Observed.String()),
		EnableExecuteCommand: t.EnableExecuteCommand, Group: aws.String(t.Group), HealthStatus: healthOf(st.Health),
		LaunchType: types.LaunchType(t.LaunchType), Overrides: overridesShape(t, shape),
		PullStartedAt: timeOf(report.GetPullStarted()), PullStoppedAt: timeOf(report.GetPullStopped()), StartedAt: timeOf(report.GetStarted()),
		ExecutionStoppedAt: timeOf(report.GetExecutionStopped()), StoppingAt: timeOf(st.Stopping), StoppedAt: timeOf(st.Stopped),
		StopCode: types.TaskStopCode(st.StopCode), Tags: []types.Tag{}, Version: int64(st.Version),
		InferenceAccelerators: []types.InferenceAccelerator{},
	}
	if gib := controlplane.EphemeralGiB(shape, decode[types.TaskOverride](t.OverridesJson)); gib > 0 {
		out.EphemeralStorage = &types.EphemeralStorage{SizeInGiB: int32(gib)}
	} else if t.LaunchType == string(types.LaunchTypeFargate) {
		out.EphemeralStorage = &types.EphemeralStorage{SizeInGiB: 20} // what Fargate gives to who does not ask; here it is no limit
	}
	if t.LaunchType == string(types.LaunchTypeFargate) {
		out.FargateEphemeralStorage = &types.TaskEphemeralStorage{SizeInGiB: out.EphemeralStorage.SizeInGiB}
	}
	out.StartedBy, out.StoppedReason = optional(t.StartedBy), optional(st.StoppedReason)
	out.CapacityProviderName = optional(t.CapacityProvider)
	if t.LaunchType == string(types.LaunchTypeFargate) {
		out.PlatformVersion, out.PlatformFamily = optional(t.PlatformVersion), aws.String("Linux")
	}
	if st.Node != "" {
		out.Connectivity, out.ConnectivityAt = types.ConnectivityConnected, timeOf(report.GetConnected())
		if !host.Connected {
			out.Connectivity = types.ConnectivityDisconnected
		}
		out.AvailabilityZone = optional(host.Zone)
		if host.Architecture != "" {
			out.Attributes = append(out.Attributes, types.Attribute{Name: aws.String("ecs.cpu-architecture"), Value: aws.String(host.Architecture)})
		}
		if t.LaunchType == string(types.LaunchTypeEc2) && host.Instance != "" {
			out.ContainerInstanceArn = aws.String(scope.ContainerInstanceARN(t.Cluster, host.Instance))
		}
	}
	if withTags {
		out.Tags = tagList(controlplane.TagsOf(r, scope, t.ARN()))
	}
	var attachment *types.Attachment
	if shape.NetworkMode == types.NetworkModeAwsvpc {
		attachment = s.networkAttachment(t, st, aws.ToString(out.AvailabilityZone))
		out.Attachments = append(out.Attachments, *attachment)
	}
	gpus := controlplane.ContainerGPUs(st.Gpus, shape, decode[types.TaskOverride](t.OverridesJson))
	for _, c := range shape.ContainerDefinitions {
		out.Containers = append(out.Containers, containerShape(t, st, c, attachment))
		out.Containers[len(out.Containers)-1].GpuIds = gpus[aws.ToString(c.Name)]
	}
	return out
}

// decodedDefinition is a definition's record with what it holds.
type decodedDefinition struct {
	record *controlplane.TaskDefinition
	shape  types.TaskDefinition
}

// shapeOf is d.Shape(), shared: not to be changed.
func (s *Service) shapeOf(d *controlplane.TaskDefinition) types.TaskDefinition {
	last := s.decoded.Load()
	if last == nil || last.record != d {
		last = &decodedDefinition{d, d.Shape()}
		s.decoded.Store(last)
	}
	return last.shape
}

// membership is the container instance by which the node of like belongs to like's cluster, or did last.
func membership(r state.Reader, like *controlplane.ContainerInstance) (last *controlplane.ContainerInstance, ok bool) {
	for ci := range controlplane.ContainerInstancesByNode.Scan(r, state.K(like.Node)) {
		switch {
		case ci.Account != like.Account || ci.Region != like.Region || ci.Cluster != like.Cluster:
		case ci.Status != inactive:
			return ci, true
		case last == nil || last.Registered.AsTime().Before(ci.Registered.AsTime()):
			last = ci
		}
	}
	return last, last != nil
}

// desiredStatus is RUNNING or STOPPED: that a task first leaves the traffic is not ECS's desired status.
func desiredStatus(st *controlplane.TaskStatus) string {
	if st.Desired > agentapi.TaskState_RUNNING {
		return string(types.DesiredStatusStopped)
	}
	return string(types.DesiredStatusRunning)
}

func healthOf(h string) types.HealthStatus {
	if h == "" {
		return types.HealthStatusUnknown
	}
	return types.HealthStatus(h)
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// overridesShape lists every container, as ECS does, with its overrides where it has any.
func overridesShape(t *controlplane.Task, def types.TaskDefinition) *types.TaskOverride {
	over := decode[types.TaskOverride](t.OverridesJson)
	given := over.ContainerOverrides
	over.ContainerOverrides = []types.ContainerOverride{}
	over.InferenceAcceleratorOverrides = []types.InferenceAcceleratorOverride{}
	for _, c := range def.ContainerDefinitions {
		i := slices.IndexFunc(given, func(o types.ContainerOverride) bool { return aws.ToString(o.Name) == aws.ToString(c.Name) })
		if i < 0 {
			over.ContainerOverrides = append(over.ContainerOverrides, types.ContainerOverride{Name: c.Name})
			continue
		}
		over.ContainerOverrides = append(over.ContainerOverrides, given[i])
	}
	return &over
}

func containerShape(t *controlplane.Task, st *controlplane.TaskStatus, c types.ContainerDefinition, network *types.Attachment) types.Container {
	name := aws.ToString(c.Name)
	out := types.Container{
		ContainerArn: aws.String(t.Scope().ContainerARN(t.Cluster, t.Id, id.UUIDOf(t.Id+"/"+name))), TaskArn: aws.String(t.ARN()),
		Name: c.Name, Image: c.Image, Cpu: aws.String(strconv.Itoa(int(c.Cpu))), HealthStatus: types.HealthStatusUnknown,
		Memory: number(c.Memory), MemoryReservation: number(c.MemoryReservation),
		NetworkBindings: []types.NetworkBinding{}, NetworkInterfaces: []types.NetworkInterface{},
		LastStatus: aws.String("PENDING"),
	}
	if network != nil {
		out.NetworkInterfaces = append(out.NetworkInterfaces, types.NetworkInterface{AttachmentId: network.Id, PrivateIpv4Address: optional(st.Report.GetAddress()), Ipv6Address: optional(st.Report.GetIpv6Address())})
	}
	i := slices.IndexFunc(st.Report.GetContainers(), func(s *agentapi.ContainerStatus) bool { return s.Name == name })
	if i >= 0 {
		s := st.Report.Containers[i]
		switch s.State {
		case agentapi.ContainerState_CONTAINER_RUNNING:
			out.LastStatus = aws.String("RUNNING")
		case agentapi.ContainerState_CONTAINER_STOPPED:
			out.LastStatus = aws.String("STOPPED")
		}
		out.HealthStatus = types.HealthStatus(controlplane.HealthName(s.Health))
		out.ExitCode, out.Reason, out.RuntimeId, out.ImageDigest = s.ExitCode, optional(s.Reason), optional(s.RuntimeId), optional(s.ImageDigest)
		if network == nil {
			for _, p := range s.Ports {
				if p.Count > 1 {
					out.NetworkBindings = append(out.NetworkBindings, types.NetworkBinding{
						BindIP: aws.String(cmp.Or(p.BindIp, "0.0.0.0")), Protocol: types.TransportProtocol(cmp.Or(p.Protocol, "tcp")),
						ContainerPortRange: aws.String(portRange(p.ContainerPort, p.Count)), HostPortRange: aws.String(portRange(p.HostPort, p.Count)),
					})
					continue
				}
				out.NetworkBindings = append(out.NetworkBindings, types.NetworkBinding{
					BindIP: aws.String(cmp.Or(p.BindIp, "0.0.0.0")), ContainerPort: new(int32(p.ContainerPort)), HostPort: new(int32(p.HostPort)),
					Protocol: types.TransportProtocol(cmp.Or(p.Protocol, "tcp")),
				})
			}
		}
	}
	if !st.Live() {
		out.LastStatus = aws.String("STOPPED")
	}
	var report *agentapi.ContainerStatus
	if i >= 0 {
		report = st.Report.Containers[i]
	}
	out.ManagedAgents = managedAgents(t, report, st.Live())
	return out
}

func portRange(first, count uint32) string { return fmt.Sprintf("%d-%d", first, first+count-1) }

// networkAttachment is how ECS shows the address that a task of network mode awsvpc has for itself.
func (s *Service) networkAttachment(t *controlplane.Task, st *controlplane.TaskStatus, zone string) *types.Attachment {
	a := &types.Attachment{
		Id: aws.String(t.AttachmentID()), Type: aws.String("ElasticNetworkInterface"), Status: aws.String("PRECREATED"), Details: []types.KeyValuePair{},
	}
	detail := func(name, value string) {
		a.Details = append(a.Details, types.KeyValuePair{Name: &name, Value: &value})
	}
	if subnet := t.Subnet(zone, func(id string) (string, bool) { return s.Network.Subnet(t.Account, t.Region, id) }); subnet != "" {
		detail("subnetId", subnet)
	}
	if ip := st.Report.GetAddress(); ip != "" {
		a.Status = aws.String("ATTACHED")
		detail("networkInterfaceId", t.NetworkInterfaceID())
		if mac := st.Report.GetMacAddress(); mac != "" {
			detail("macAddress", mac)
		}
		detail("privateIPv4Address", ip)
		if six := st.Report.GetIpv6Address(); six != "" {
			detail("ipv6Address", six)
		}
	}
	if !st.Live() {
		a.Status = aws.String("DELETED")
	}
	return a
}

func number(n *int32) *string {
	if n == nil {
		return nil
	}
	return aws.String(strconv.Itoa(int(*n)))
}
