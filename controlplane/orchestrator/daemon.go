package orchestrator

import (
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane"
)

// planDaemon gives every container instance that is to have one a task of the primary deployment. An instance's old task goes
// before the new one comes, as far as the minimum healthy percent lets.
//
// A daemon task is bound to its instance by a placement constraint; so the scheduler places it like any other.
func (s *step) planDaemon() (start []*controlplane.Task, stop []victim) {
	instances := s.daemonInstances()
	if uint32(len(instances)) != s.service.DesiredCount {
		s.service = proto.CloneOf(s.service)
		s.service.DesiredCount = uint32(len(instances))
		controlplane.Services.Put(s.tx, s.service)
		s.changePrimary(func(d *controlplane.Deployment) { d.DesiredCount = s.service.DesiredCount })
	}
	occupied := map[string]bool{} // instances that have a task, also one that is leaving
	for i := range s.live {
		occupied[daemonInstance(s.live[i].task)] = true
	}
	spare := -((len(instances)*int(s.service.MinimumHealthyPercent) + 99) / 100)
	members := s.members()
	for i := range members {
		if members[i].healthy {
			spare++
		}
	}
	for i := range members {
		m := &members[i]
		_, wanted := instances[daemonInstance(m.task)]
		switch {
		case m.failed != "":
			stop = append(stop, victim{m.id(), m.failed, false})
		case m.current && wanted, m.protected:
		case !m.healthy || !wanted:
			stop = append(stop, victim{m.id(), "", false})
		case spare > 0:
			spare--
			stop = append(stop, victim{m.id(), "", true})
		}
	}
	free := make([]string, 0, len(instances))
	for instance := range instances {
		if !occupied[instance] {
			free = append(free, instance)
		}
	}
	if len(free) == 0 || s.throttled(len(instances)) {
		return nil, stop
	}
	slices.Sort(free)
	for _, instance := range free[:min(len(free), lookTasks)] {
		t := s.newTask()
		own := controlplane.DecodeShape[[]types.PlacementConstraint](t.PlacementConstraintsJson)
		t.PlacementStrategyJson = ""
		t.PlacementConstraintsJson = controlplane.EncodeShape(append([]types.PlacementConstraint{{
			Type: types.PlacementConstraintTypeMemberOf, Expression: aws.String(daemonConstraint + instance),
		}}, own...))
		start = append(start, t)
	}
	return start, stop
}

const daemonConstraint = "containerInstanceId == "

// daemonInstance is the instance that a daemon task is bound to. The constraint that says so is in front of the service's own, and nothing in it needs an
// escape, so it is found without decoding the list: a look asks this of every task.
func daemonInstance(t *controlplane.Task) string {
	_, after, _ := strings.Cut(t.PlacementConstraintsJson, daemonConstraint)
	instance, _, _ := strings.Cut(after, `"`)
	return instance
}
