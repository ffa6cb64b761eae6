package orchestrator

import (
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/scheduler"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// daemonInstances are the container instances that a DAEMON service has a task on: those that are ACTIVE, meet its placement constraints, and can have
// its task by what their agent is. One whose agent is away counts while it has a task, which is taken to run, and gets none.
func (s *step) daemonInstances() map[string]*controlplane.ContainerInstance {
	def, _ := controlplane.TaskDefinitions.Get(s.v, s.service.Scope().FamilyRevisionKey(s.primary.TaskDefinition))
	meets, _ := s.hostConstraints(def)
	instances := map[string]*controlplane.ContainerInstance{} // by id
	for c := range controlplane.ContainerInstances.Scan(s.v, s.service.Scope().Key(s.service.Cluster)) {
		n, ok := controlplane.Nodes.Get(s.v, state.K(c.Node))
		if !ok || c.Status != capacity.Active || n.Status == capacity.NodeDown || n.Status != capacity.NodeReady && !s.livesOn(n.Id) {
			continue
		}
		if s.canHave(def, n) && meets(c, n) {
			instances[c.Id] = c
		}
	}
	return instances
}

// canHave says whether a host can have a task of the service by what its agent is.
func (s *step) canHave(def *controlplane.TaskDefinition, n *controlplane.Node) bool {
	return n.AmazonAgent == nil || !s.service.EnableExecuteCommand && def.GetDemand().AmazonAgentLacks(n.Attributes) == ""
}

// livesOn says whether the service has a task on the node.
func (s *step) livesOn(node string) bool {
	for i := range s.live {
		if s.live[i].status.Node == node {
			return true
		}
	}
	return false
}

// hostConstraints is what the service and its task definition ask of instances. What changes with the tasks that an instance has is the scheduler's to
// ask; dynamic: there is such a thing.
func (s *step) hostConstraints(def *controlplane.TaskDefinition) (meets func(*controlplane.ContainerInstance, *controlplane.Node) bool, dynamic bool) {
	var texts []string
	for _, c := range controlplane.DecodeShape[[]types.PlacementConstraint](s.service.PlacementConstraintsJson) {
		if c.Type == types.PlacementConstraintTypeMemberOf && c.Expression != nil {
			texts = append(texts, *c.Expression)
		}
	}
	if def != nil {
		for _, c := range def.Shape().PlacementConstraints {
			if c.Expression != nil {
				texts = append(texts, *c.Expression)
			}
		}
	}
	var all []*scheduler.Expression
	for _, text := range texts {
		if e, err := scheduler.ParseExpression(text); err == nil && !e.Dynamic {
			all = append(all, e)
		} else {
			dynamic = true
		}
	}
	return func(c *controlplane.ContainerInstance, n *controlplane.Node) bool {
		for _, e := range all {
			if !e.Match(func(name string) []string { return capacity.Facts(c, n, name) }) {
				return false
			}
		}
		return true
	}, dynamic
}
