package ecs

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/scheduler"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/id"
)

// launch is how tasks are to run: what RunTask, StartTask and services have in common.
type launch struct {
	cluster     *controlplane.Cluster
	definition  *controlplane.TaskDefinition
	shape       types.TaskDefinition
	launchType  types.LaunchType // empty with a strategy
	strategy    []types.CapacityProviderStrategyItem
	network     *types.NetworkConfiguration
	constraints []types.PlacementConstraint
	spread      []types.PlacementStrategy
	platform    *string
	exec        bool // commands may be run in them
}

// latestPlatform is what LATEST means on Fargate.
const latestPlatform = "1.4.0"

// check completes the launch with the cluster's defaults and refuses what can not run so.
func (s *Service) check(r state.Reader, l *launch) error {
	l.shape = l.definition.Shape()
	if l.launchType != "" && len(l.strategy) > 0 {
		return invalid("Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.")
	}
	if l.launchType == "" && len(l.strategy) == 0 {
		l.strategy = decode[[]types.CapacityProviderStrategyItem](l.cluster.DefaultStrategyJson)
	}
	if l.launchType == "" && len(l.strategy) == 0 {
		l.launchType = types.LaunchTypeEc2
	}
	if err := checkStrategy(l.strategy, l.cluster.CapacityProviders); err != nil {
		return err
	}
	switch l.launchType {
	case "", types.LaunchTypeEc2, types.LaunchTypeFargate:
	default:
		return client("'launchType' is not supported by this platform with the value %s: use EC2 or FARGATE.", l.launchType)
	}
	fargate := l.fargate()
	if fargate && !slices.Contains(l.shape.Compatibilities, types.CompatibilityFargate) {
		return invalid("Task definition does not support launch_type FARGATE.")
	}
	if p := aws.ToString(l.platform); p != "" {
		if !fargate {
			return invalid("The platform version must be null when specifying an EC2 launch type.")
		}
		if p != "LATEST" && p != latestPlatform {
			return client("'platformVersion' is not supported by this platform with the value %s: use LATEST or %s.", p, latestPlatform)
		}
	}
	if fargate && len(l.constraints) > 0 {
		return invalid("Placement constraints are not supported with FARGATE launch type.")
	}
	if fargate && len(l.spread) > 0 {
		return invalid("Placement strategies are not supported with FARGATE launch type.")
	}
	if len(l.constraints) > 10 {
		return invalid("Placement constraints can not be more than 10.")
	}
	if err := checkPlacement(l.allConstraints(), l.spread); err != nil {
		return err
	}
	return s.checkNetwork(r, l)
}

// fargate says whether the tasks run in the serverless pool: every capacity provider there is belongs to it.
func (l *launch) fargate() bool {
	return l.launchType == types.LaunchTypeFargate || l.launchType == "" && len(l.strategy) > 0
}

func (l *launch) platformVersion() string {
	if !l.fargate() {
		return ""
	}
	return latestPlatform
}

func checkPlacement(constraints []types.PlacementConstraint, strategies []types.PlacementStrategy) error {
	if len(strategies) > 5 {
		return invalid("Placement strategies can not be more than 5.")
	}
	for _, c := range constraints {
		switch {
		case c.Type == types.PlacementConstraintTypeMemberOf && aws.ToString(c.Expression) == "":
			return invalid("Expression is required for placement constraint of type memberOf.")
		case c.Type == types.PlacementConstraintTypeDistinctInstance && aws.ToString(c.Expression) != "":
			return invalid("Expression is not supported for placement constraint of type distinctInstance.")
		}
		if c.Type == types.PlacementConstraintTypeMemberOf {
			if _, err := scheduler.ParseExpression(*c.Expression); err != nil {
				return invalid("Invalid expression for placement constraint of type memberOf: %v.", err)
			}
		}
	}
	for _, p := range strategies {
		field := strings.ToLower(aws.ToString(p.Field))
		switch {
		case p.Type == types.PlacementStrategyTypeBinpack && field != "cpu" && field != "memory":
			return invalid("Invalid field for placement strategy of type binpack: it must be cpu or memory.")
		case p.Type == types.PlacementStrategyTypeSpread && field == "":
			return invalid("Field is required for placement strategy of type spread.")
		case p.Type == types.PlacementStrategyTypeRandom && field != "":
			return invalid("Field is not supported for placement strategy of type random.")
		}
	}
	return nil
}

func (s *Service) checkNetwork(r state.Reader, l *launch) error {
	var vpc *types.AwsVpcConfiguration
	if l.network != nil {
		vpc = l.network.AwsvpcConfiguration
	}
	if l.shape.NetworkMode != types.NetworkModeAwsvpc {
		if vpc != nil {
			return invalid("Network Configuration is not valid for the given networkMode of this task definition.")
		}
		return nil
	}
	switch {
	case vpc == nil:
		return invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
	case len(vpc.Subnets) == 0:
		return invalid("subnets can not be empty.")
	case len(vpc.Subnets) > 16:
		return invalid("subnets can have at most 16 items.")
	case len(vpc.SecurityGroups) > 5:
		return invalid("security groups can have at most 5 items.")
	case vpc.AssignPublicIp == types.AssignPublicIpEnabled && !l.fargate():
		return invalid("Assign public IP is not supported for this launch type.")
	}
	scope := l.cluster.Scope()
	for _, subnet := range vpc.Subnets {
		if _, ok := s.Network.Subnet(scope.Account, scope.Region, subnet); !ok {
			return invalid("Error retrieving subnet information for [%s]: The subnet ID '%s' does not exist", subnet, subnet)
		}
	}
	for _, group := range vpc.SecurityGroups {
		if _, ok := s.Network.SecurityGroup(r, scope.Account, scope.Region, group); !ok {
			return invalid("Error retrieving security group information for [%s]: The security group '%s' does not exist", group, group)
		}
	}
	return nil
}

// task makes a standalone task; have counts those already made, by capacity provider.
func (s *Service) task(l *launch, demand *controlplane.Demand, overrides *types.TaskOverride, group, startedBy *string, now time.Time, have map[string]int) *controlplane.Task {
	scope := l.cluster.Scope()
	t := &controlplane.Task{
		Account: scope.Account, Region: scope.Region, Cluster: l.cluster.Name, Id: id.Hex(s.Rand, 32),
		TaskDefinition: l.definition.FamilyRevision(), Group: aws.ToString(group), StartedBy: aws.ToString(startedBy),
		LaunchType: string(l.launchType), PlatformVersion: l.platformVersion(), Demand: demand,
		OverridesJson: controlplane.EncodeShape(overrides), NetworkConfigurationJson: controlplane.EncodeShape(l.network),
		PlacementConstraintsJson: controlplane.EncodeShape(l.allConstraints()), PlacementStrategyJson: controlplane.EncodeShape(l.spread),
		EnableExecuteCommand: l.exec, Created: timestamppb.New(now),
	}
	if t.Group == "" {
		t.Group = "family:" + l.definition.Family
	}
	if len(l.strategy) > 0 {
		t.CapacityProvider = controlplane.ProviderFor(l.strategy, have)
		t.LaunchType = string(types.LaunchTypeFargate)
		have[t.CapacityProvider]++
	}
	return t
}

// allConstraints are the request's and, as the scheduler looks at tasks only, the task definition's.
func (l *launch) allConstraints() []types.PlacementConstraint {
	all := slices.Clone(l.constraints)
	for _, c := range l.shape.PlacementConstraints {
		all = append(all, types.PlacementConstraint{Type: types.PlacementConstraintType(c.Type), Expression: c.Expression})
	}
	return all
}

// checkOverrides refuses overrides of containers that are not there and sizes that do not exist.
func checkOverrides(l *launch, overrides *types.TaskOverride) (*controlplane.Demand, error) {
	if overrides == nil {
		overrides = &types.TaskOverride{}
	} else if utf8.RuneCountInString(controlplane.EncodeShape(overrides)) > maxOverrides {
		return nil, invalid("Container Overrides length must be at most %d", maxOverrides)
	}
	for _, o := range overrides.ContainerOverrides {
		name := aws.ToString(o.Name)
		if !slices.ContainsFunc(l.shape.ContainerDefinitions, func(c types.ContainerDefinition) bool { return aws.ToString(c.Name) == name }) {
			return nil, invalid("Override for container named %s is not a container in the TaskDefinition.", name)
		}
	}
	if err := checkFileOverrides(l.shape, overrides); err != nil {
		return nil, err
	}
	if err := checkGPUOverrides(overrides); err != nil {
		return nil, err
	}
	if err := ephemeralStorage(overrides.EphemeralStorage); err != nil {
		return nil, err
	}
	demand, err := controlplane.DemandOf(l.shape, *overrides)
	if err != nil {
		return nil, client("%s", capital(err))
	}
	if l.fargate() && demand.Gpus > 0 {
		return nil, invalid("%s", fargateGPUs)
	}
	if l.fargate() && !fargateHas(demand.CpuUnits, demand.MemoryMib) {
		return nil, client("No Fargate configuration exists for given values: %d CPU, %d memory. See the Amazon ECS documentation for the valid values.", demand.CpuUnits, demand.MemoryMib)
	}
	return demand, nil
}
