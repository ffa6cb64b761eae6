package ecs

import (
	"context"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// listContainerInstances implements ecs:ListContainerInstances.
func (s *Service) listContainerInstances(ctx context.Context, in *ecs.ListContainerInstancesInput) (*ecs.ListContainerInstancesOutput, error) {
	size, err := pageSize(in.MaxResults, 100, 100)
	if err != nil {
		return nil, err
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	c, err := cluster(v, scope, in.Cluster)
	if err != nil {
		return nil, err
	}
	passes, err := instanceFilter(v, aws.ToString(in.Filter))
	if err != nil {
		return nil, err
	}
	page, next, err := api.Page(ctx, s.Pages, in, size,
		func(last state.Key) iter.Seq[*controlplane.ContainerInstance] {
			return filter(controlplane.ContainerInstances.ScanFrom(v, scope.Key(c.Name), last), func(ci *controlplane.ContainerInstance) bool {
				if in.Status == "" {
					return (ci.Status == active || ci.Status == draining) && passes(ci)
				}
				return ci.Status == string(in.Status) && passes(ci)
			})
		}, controlplane.ContainerInstances.Key)
	if err != nil {
		return nil, err
	}
	return &ecs.ListContainerInstancesOutput{ContainerInstanceArns: arns(page), NextToken: next}, nil
}

// describeContainerInstances implements ecs:DescribeContainerInstances.
func (s *Service) describeContainerInstances(ctx context.Context, in *ecs.DescribeContainerInstancesInput) (*ecs.DescribeContainerInstancesOutput, error) {
	if len(in.ContainerInstances) == 0 {
		return nil, invalid("Container instances cannot be empty.")
	}
	if len(in.ContainerInstances) > 100 {
		return nil, invalid("Container instances cannot have more than 100 elements.")
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	c, err := cluster(v, scope, in.Cluster)
	if err != nil {
		return nil, err
	}
	out := &ecs.DescribeContainerInstancesOutput{ContainerInstances: []types.ContainerInstance{}, Failures: []types.Failure{}}
	for _, ref := range in.ContainerInstances {
		name, err := member(scope, "container-instance", c.Name, ref)
		if err != nil {
			return nil, err
		}
		ci, ok := controlplane.ContainerInstances.Get(v, scope.Key(c.Name, name))
		if !ok {
			out.Failures = append(out.Failures, missing(scope.ContainerInstanceARN(c.Name, name)))
			continue
		}
		out.ContainerInstances = append(out.ContainerInstances,
			containerInstanceShape(v, ci, slices.Contains(in.Include, types.ContainerInstanceFieldTags)))
		if slices.Contains(in.Include, types.ContainerInstanceFieldContainerInstanceHealth) {
			out.ContainerInstances[len(out.ContainerInstances)-1].HealthStatus = instanceHealth(v, ci)
		}
	}
	return out, nil
}

// updateContainerInstancesState implements ecs:UpdateContainerInstancesState. The orchestrator moves the service tasks off a
// DRAINING instance; the scheduler places nothing on it.
func (s *Service) updateContainerInstancesState(ctx context.Context, in *ecs.UpdateContainerInstancesStateInput) (*ecs.UpdateContainerInstancesStateOutput, error) {
	switch {
	case in.Status != types.ContainerInstanceStatusActive && in.Status != types.ContainerInstanceStatusDraining:
		return nil, invalid("Container instance status should be one of [ACTIVE, DRAINING]")
	case len(in.ContainerInstances) == 0:
		return nil, invalid("Container instances cannot be empty.")
	case len(in.ContainerInstances) > 10:
		return nil, invalid("Container instances cannot have more than 10 elements.")
	}
	var changed []*controlplane.ContainerInstance
	out := &ecs.UpdateContainerInstancesStateOutput{ContainerInstances: []types.ContainerInstance{}}
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		changed, out.Failures = nil, []types.Failure{}
		c, err := cluster(tx, scope, in.Cluster)
		if err != nil {
			return err
		}
		for _, ref := range in.ContainerInstances {
			name, err := member(scope, "container-instance", c.Name, ref)
			if err != nil {
				return err
			}
			ci, ok := controlplane.ContainerInstances.Get(tx, scope.Key(c.Name, name))
			switch {
			case !ok:
				out.Failures = append(out.Failures, missing(scope.ContainerInstanceARN(c.Name, name)))
				continue
			case ci.Status == inactive:
				out.Failures = append(out.Failures, types.Failure{Arn: aws.String(ci.ARN()), Reason: aws.String("INACTIVE")})
				continue
			case ci.Status != string(in.Status):
				ci = proto.CloneOf(ci)
				ci.Status = string(in.Status)
				ci.Version++
				controlplane.ContainerInstances.Put(tx, ci)
			}
			changed = append(changed, ci)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	v := s.Store.View()
	for _, ci := range changed {
		out.ContainerInstances = append(out.ContainerInstances, containerInstanceShape(v, ci, true))
	}
	return out, nil
}

func containerInstanceShape(r state.Reader, ci *controlplane.ContainerInstance, withTags bool) types.ContainerInstance {
	out := types.ContainerInstance{
		ContainerInstanceArn: aws.String(ci.ARN()), Status: aws.String(ci.Status), StatusReason: optional(ci.StatusReason),
		RegisteredAt: timeOf(ci.Registered), Version: int64(ci.Version),
		Attributes: []types.Attribute{}, Attachments: []types.Attachment{}, Tags: []types.Tag{},
		RegisteredResources: []types.Resource{}, RemainingResources: []types.Resource{},
	}
	if withTags {
		out.Tags = tagList(controlplane.TagsOf(r, ci.Scope(), ci.ARN()))
	}
	i, ready := instanceRoom(r, ci)
	if i == nil {
		return out
	}
	n := i.node
	out.AgentConnected = ready
	out.Ec2InstanceId = optional(n.Attributes["ecs.instance-id"])
	out.VersionInfo = &types.VersionInfo{AgentVersion: optional(n.Version), DockerVersion: optional(n.Runtime)}
	if a := n.AmazonAgent; a != nil {
		out.VersionInfo.AgentHash, out.VersionInfo.DockerVersion = optional(a.Hash), optional(a.DockerVersion)
	}
	out.RunningTasksCount, out.PendingTasksCount = i.running, i.pending
	reserved := reservedPorts(n)
	out.RegisteredResources = resources(int64(n.Resources.GetCpuUnits()), int64(n.Resources.GetMemoryMib()), reserved)
	taken := map[string]bool{}
	maps.Copy(taken, reserved)
	maps.Copy(taken, i.ports)
	out.RemainingResources = resources(i.cpu, i.memory, taken)
	if has := n.Resources.GetGpus(); len(has) > 0 {
		out.RegisteredResources = append(out.RegisteredResources, gpuResource(has))
		out.RemainingResources = append(out.RemainingResources, gpuResource(i.gpus))
	}
	attributes := instanceAttributes(r, ci)
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		out.Attributes = append(out.Attributes, types.Attribute{Name: aws.String(name), Value: optional(attributes[name])})
	}
	return out
}

// count counts a task of this instance's cluster.
func (i *instance) count(st *controlplane.TaskStatus) {
	switch {
	case st.Observed == agentapi.TaskState_RUNNING:
		i.running++
	case st.Observed < agentapi.TaskState_RUNNING:
		i.pending++
	}
}

func portName(p *controlplane.HostPort) string {
	return strconv.Itoa(int(p.Port)) + "/" + p.Protocol
}

// reservedPorts are those of the node that tasks can not have. A range, which ECS's shape has no form for, is listed by its ends.
func reservedPorts(n *controlplane.Node) map[string]bool {
	ports := map[string]bool{}
	for _, p := range n.Resources.GetReservedPorts() {
		for _, port := range []uint32{p.First, max(p.First, p.Last)} {
			ports[portName(&controlplane.HostPort{Port: port, Protocol: p.Protocol})] = true
		}
	}
	return ports
}

// resources lists CPU, MEMORY, PORTS and PORTS_UDP as ECS does; PORTS are those taken.
func resources(cpu, memory int64, taken map[string]bool) []types.Resource {
	tcp, udp := []string{}, []string{}
	for _, p := range slices.Sorted(maps.Keys(taken)) {
		if port, ok := strings.CutSuffix(p, "/udp"); ok {
			udp = append(udp, port)
		} else if port, ok := strings.CutSuffix(p, "/tcp"); ok {
			tcp = append(tcp, port)
		}
	}
	return []types.Resource{
		{Name: aws.String("CPU"), Type: aws.String("INTEGER"), IntegerValue: int32(cpu)},
		{Name: aws.String("MEMORY"), Type: aws.String("INTEGER"), IntegerValue: int32(memory)},
		{Name: aws.String("PORTS"), Type: aws.String("STRINGSET"), StringSetValue: tcp},
		{Name: aws.String("PORTS_UDP"), Type: aws.String("STRINGSET"), StringSetValue: udp},
	}
}

// gpuResource is listed by instances that have GPUs.
func gpuResource(ids []string) types.Resource {
	return types.Resource{Name: aws.String("GPU"), Type: aws.String("STRINGSET"), StringSetValue: append([]string{}, ids...)}
}
