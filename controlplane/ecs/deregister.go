package ecs

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// activeInstance finds the container instance that a request is about.
func activeInstance(r state.Reader, scope controlplane.Scope, clusterRef, ref *string) (*controlplane.ContainerInstance, error) {
	c, err := cluster(r, scope, clusterRef)
	if err != nil {
		return nil, err
	}
	if aws.ToString(ref) == "" {
		return nil, invalid("Container instance can not be blank.")
	}
	name, err := member(scope, "container-instance", c.Name, *ref)
	if err != nil {
		return nil, err
	}
	ci, ok := controlplane.ContainerInstances.Get(r, scope.Key(c.Name, name))
	if !ok || ci.Status == inactive {
		return nil, invalid("The referenced container instance was not found.")
	}
	return ci, nil
}

// deregisterContainerInstance implements ecs:DeregisterContainerInstance. The record stays, INACTIVE, so that nothing makes the node
// an instance again before its agent starts anew; with force the orchestrator ends the tasks that it has.
func (s *Service) deregisterContainerInstance(ctx context.Context, in *ecs.DeregisterContainerInstanceInput) (*ecs.DeregisterContainerInstanceOutput, error) {
	var gone *controlplane.ContainerInstance
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		ci, err := activeInstance(tx, scope, in.Cluster, in.ContainerInstance)
		if err != nil {
			return err
		}
		for st := range controlplane.LiveTasksByNode.Scan(tx, state.K(ci.Node)) {
			if t, ok := controlplane.Tasks.Get(tx, controlplane.TaskStatuses.Key(st)); ok && ci.Has(t) && !aws.ToBool(in.Force) {
				return invalid("Found running tasks on the instance.")
			}
		}
		gone = proto.CloneOf(ci)
		gone.Status = inactive
		gone.Version++
		controlplane.ContainerInstances.Put(tx, gone)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.DeregisterContainerInstanceOutput{ContainerInstance: new(containerInstanceShape(s.Store.View(), gone, true))}, nil
}

// updateContainerAgent implements ecs:UpdateContainerAgent. An agent is the program on its host; the platform brings it no other, and
// says so in the way that ECS says it of agents that it cannot update.
func (s *Service) updateContainerAgent(ctx context.Context, in *ecs.UpdateContainerAgentInput) (*ecs.UpdateContainerAgentOutput, error) {
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := activeInstance(v, scope, in.Cluster, in.ContainerInstance); err != nil {
		return nil, err
	}
	return nil, awserr.New("NoUpdateAvailableException", "There is no update available for your container agent: it is the program on its host, and is updated by replacing it there.")
}
