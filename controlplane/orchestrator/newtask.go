package orchestrator

import (
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/id"
)

// newTask is a task of the primary deployment, but for what complete adds.
func (s *step) newTask() *controlplane.Task {
	d := s.primary
	return &controlplane.Task{
		Account: d.Account, Region: d.Region, Cluster: d.Cluster, Id: id.Hex(s.Rand, 32), TaskDefinition: d.TaskDefinition,
		Group: "service:" + d.Service, Service: d.Service, Deployment: d.Id, LaunchType: d.LaunchType, StartedBy: d.Id,
		NetworkConfigurationJson: d.NetworkConfigurationJson, PlatformVersion: d.PlatformVersion,
		PlacementConstraintsJson: s.service.PlacementConstraintsJson, PlacementStrategyJson: s.service.PlacementStrategyJson,
		EnableExecuteCommand: s.service.EnableExecuteCommand, Created: timestamppb.New(s.now),
	}
}

// complete adds what comes from the task definition and the capacity provider strategy.
func (s *step) complete(tasks []*controlplane.Task) error {
	def, ok := controlplane.TaskDefinitions.Get(s.v, s.service.Scope().FamilyRevisionKey(s.primary.TaskDefinition))
	if !ok {
		return fmt.Errorf("service %s: task definition %s is gone", s.service.Name, s.primary.TaskDefinition)
	}
	var constraints []types.PlacementConstraint
	for _, c := range def.Shape().PlacementConstraints {
		constraints = append(constraints, types.PlacementConstraint{Type: types.PlacementConstraintType(c.Type), Expression: c.Expression})
	}
	strategy := controlplane.DecodeShape[[]types.CapacityProviderStrategyItem](s.primary.CapacityProviderStrategyJson)
	using := map[string]int{}
	if len(strategy) > 0 {
		for i := range s.live {
			using[s.live[i].task.CapacityProvider]++
		}
	}
	for _, t := range tasks {
		t.Demand = def.Demand
		if len(constraints) > 0 {
			own := controlplane.DecodeShape[[]types.PlacementConstraint](t.PlacementConstraintsJson)
			t.PlacementConstraintsJson = controlplane.EncodeShape(append(own, constraints...))
		}
		if provider := controlplane.ProviderFor(strategy, using); provider != "" {
			using[provider]++
			t.CapacityProvider = provider
			t.LaunchType = string(types.LaunchTypeEc2)
			if strings.HasPrefix(provider, "FARGATE") {
				t.LaunchType = string(types.LaunchTypeFargate)
			}
		}
	}
	return nil
}
