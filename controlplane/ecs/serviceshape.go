package ecs

import (
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// serviceShape renders a service as DescribeServices shows it.
func serviceShape(r state.Reader, svc *controlplane.Service, withTags bool) *types.Service {
	scope := svc.Scope()
	counts := controlplane.CountRevisions(r, svc)
	var running, pending uint32
	for _, n := range counts {
		running, pending = running+n.Running, pending+n.Pending
	}
	breaker := decode[types.DeploymentConfiguration](svc.DeploymentConfigurationJson).DeploymentCircuitBreaker
	if breaker == nil {
		breaker = &types.DeploymentCircuitBreaker{}
	}
	out := &types.Service{
		ServiceArn: aws.String(svc.ARN()), ServiceName: aws.String(svc.Name), ClusterArn: aws.String(scope.ClusterARN(svc.Cluster)),
		Status: aws.String(svc.Status), DesiredCount: int32(svc.DesiredCount), RunningCount: int32(running), PendingCount: int32(pending),
		TaskDefinition:     aws.String(scope.TaskDefinitionARN(svc.TaskDefinition)),
		LaunchType:         types.LaunchType(svc.LaunchType),
		SchedulingStrategy: types.SchedulingStrategy(svc.SchedulingStrategy),
		DeploymentConfiguration: &types.DeploymentConfiguration{
			DeploymentCircuitBreaker: breaker, Strategy: types.DeploymentStrategyRolling,
			MaximumPercent: new(int32(svc.MaximumPercent)), MinimumHealthyPercent: new(int32(svc.MinimumHealthyPercent)),
		},
		DeploymentController: &types.DeploymentController{Type: types.DeploymentControllerType(svc.DeploymentController)},
		LoadBalancers:        append([]types.LoadBalancer{}, decode[[]types.LoadBalancer](svc.LoadBalancersJson)...),
		ServiceRegistries:    append([]types.ServiceRegistry{}, decode[[]types.ServiceRegistry](svc.ServiceRegistriesJson)...),
		PlacementConstraints: append([]types.PlacementConstraint{}, decode[[]types.PlacementConstraint](svc.PlacementConstraintsJson)...),
		PlacementStrategy:    append([]types.PlacementStrategy{}, decode[[]types.PlacementStrategy](svc.PlacementStrategyJson)...),
		NetworkConfiguration: decode[*types.NetworkConfiguration](svc.NetworkConfigurationJson),

		CapacityProviderStrategy:    decode[[]types.CapacityProviderStrategyItem](svc.CapacityProviderStrategyJson),
		AvailabilityZoneRebalancing: types.AvailabilityZoneRebalancing(svc.AvailabilityZoneRebalancing),
		ResourceManagementType:      types.ResourceManagementTypeCustomer,
		CreatedAt:                   timeOf(svc.Created), CreatedBy: optional(svc.CreatedBy), RoleArn: optional(svc.RoleArn),
		PropagateTags: types.PropagateTags(svc.PropagateTags), EnableECSManagedTags: svc.EnableEcsManagedTags,
		EnableExecuteCommand: svc.EnableExecuteCommand, PlatformVersion: optional(svc.PlatformVersion),
		Deployments: []types.Deployment{}, Events: []types.ServiceEvent{}, Tags: []types.Tag{},
	}
	if svc.PlatformVersion != "" {
		out.PlatformFamily = aws.String("Linux")
	}
	if len(out.LoadBalancers) > 0 {
		out.HealthCheckGracePeriodSeconds = new(int32(svc.HealthCheckGraceSeconds))
		if out.RoleArn == nil {
			out.RoleArn = aws.String(arn.New("iam", "", svc.Account, "role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS").String())
		}
	}
	if withTags {
		out.Tags = tagList(controlplane.TagsOf(r, scope, svc.ARN()))
	}
	key := scope.Key(svc.Cluster, svc.Name)
	for d := range controlplane.Deployments.Scan(r, key) {
		if d.Status != inactive {
			out.Deployments = append(out.Deployments, deploymentShape(d, counts[controlplane.RevisionID(d.Id)]))
		}
	}
	// PRIMARY first, then the newer ones.
	slices.SortFunc(out.Deployments, func(a, b types.Deployment) int {
		if (*a.Status == primary) != (*b.Status == primary) {
			if *a.Status == primary {
				return -1
			}
			return 1
		}
		return b.CreatedAt.Compare(*a.CreatedAt)
	})
	out.CurrentServiceRevisions = currentRevisions(svc, counts, out.Deployments)
	if svc.ServiceDeployment != "" {
		out.CurrentServiceDeployment = aws.String(scope.ServiceDeploymentARN(svc.Cluster, svc.Name, svc.ServiceDeployment))
	}
	events := controlplane.ServiceEventsOf(r, key)
	out.Events = slices.Grow(out.Events, len(events))
	for _, e := range events {
		out.Events = append(out.Events, types.ServiceEvent{Id: aws.String(e.Id), CreatedAt: timeOf(e.Created), Message: aws.String(e.Message)})
	}
	return out
}

func deploymentShape(d *controlplane.Deployment, n *controlplane.RevisionCount) types.Deployment {
	out := types.Deployment{
		Id: aws.String(d.Id), Status: aws.String(d.Status), TaskDefinition: aws.String(d.Scope().TaskDefinitionARN(d.TaskDefinition)),
		DesiredCount: int32(d.DesiredCount), RunningCount: int32(n.GetRunning()), PendingCount: int32(n.GetPending()), FailedTasks: int32(d.FailedTasks),
		CreatedAt: timeOf(d.Created), UpdatedAt: timeOf(d.Updated), LaunchType: types.LaunchType(d.LaunchType),
		PlatformVersion:          optional(d.PlatformVersion),
		NetworkConfiguration:     decode[*types.NetworkConfiguration](d.NetworkConfigurationJson),
		CapacityProviderStrategy: decode[[]types.CapacityProviderStrategyItem](d.CapacityProviderStrategyJson),
		RolloutState:             types.DeploymentRolloutState(d.RolloutState), RolloutStateReason: optional(d.RolloutReason),
	}
	if d.PlatformVersion != "" {
		out.PlatformFamily = aws.String("Linux")
	}
	return out
}
