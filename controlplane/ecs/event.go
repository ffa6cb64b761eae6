package ecs

import (
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// TaskDetail is a task as events show it: as DescribeTasks does, with times as text. False: the task is gone.
func (s *Service) TaskDetail(r state.Reader, st *controlplane.TaskStatus) (map[string]any, bool) {
	t, ok := controlplane.Tasks.Get(r, controlplane.TaskStatuses.Key(st))
	if !ok {
		return nil, false
	}
	return controlplane.ShapeMembers(s.taskShape(r, t, st, false)), true
}

// ContainerInstanceDetail is a container instance as events show it.
func (s *Service) ContainerInstanceDetail(r state.Reader, ci *controlplane.ContainerInstance) map[string]any {
	return controlplane.ShapeMembers(containerInstanceShape(r, ci, false))
}
