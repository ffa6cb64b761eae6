package ecs

import (
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// diskAttribute is shown of a host that is short of disk, and says how short.
const diskAttribute = "neargate.disk-free"

// instanceHealth is what the host's agent says, as ECS shows it: whether there is an agent, and whether its runtime is in order. A host
// that is short of disk is IMPAIRED as a whole; ECS has no check of that, so it is no detail.
func instanceHealth(r state.Reader, ci *controlplane.ContainerInstance) *types.ContainerInstanceHealthStatus {
	n, ok := controlplane.Nodes.Get(r, state.K(ci.Node))
	agent, runtime := types.InstanceHealthCheckStateOk, types.InstanceHealthCheckStateOk
	switch {
	case !ok || n.Status != "READY":
		agent, runtime = types.InstanceHealthCheckStateImpaired, types.InstanceHealthCheckStateInsufficientData
	case n.Health == nil: // an agent of an earlier version
		runtime = types.InstanceHealthCheckStateInsufficientData
	case n.Health.Runtime != "":
		runtime = types.InstanceHealthCheckStateImpaired
	}
	out := &types.ContainerInstanceHealthStatus{OverallStatus: types.InstanceHealthCheckStateOk}
	switch {
	case agent != types.InstanceHealthCheckStateOk || runtime == types.InstanceHealthCheckStateImpaired || n.GetHealth().GetDisk() != "":
		out.OverallStatus = types.InstanceHealthCheckStateImpaired
	case runtime != types.InstanceHealthCheckStateOk:
		out.OverallStatus = types.InstanceHealthCheckStateInsufficientData
	}
	since := timeOf(n.GetHealthSince())
	out.Details = []types.InstanceHealthCheckResult{
		{Type: types.InstanceHealthCheckTypeContainerRuntime, Status: runtime, LastStatusChange: since, LastUpdated: since},
		{Type: types.InstanceHealthCheckTypeAgentConnectivity, Status: agent},
	}
	return out
}
