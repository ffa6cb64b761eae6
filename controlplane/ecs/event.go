package ecs

import (
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// TaskHost is what a task is shown with of its host as things are in r.
func (s *Service) TaskHost(r state.Reader, st *controlplane.TaskStatus) controlplane.TaskHost {
	return taskHost(r, st)
}

// TaskDetail is a task as events show it: as DescribeTasks does, with times as text. False: the task is gone.
func (s *Service) TaskDetail(r state.Reader, st *controlplane.TaskStatus, host controlplane.TaskHost) (string, bool) {
	t, ok := controlplane.Tasks.Get(r, controlplane.TaskStatuses.Key(st))
	if !ok {
		return "", false
	}
	return controlplane.EncodeShape(s.taskShapeOn(r, t, st, host, false)), true
}

// ContainerInstanceDetail is a container instance as events show it.
func (s *Service) ContainerInstanceDetail(r state.Reader, ci *controlplane.ContainerInstance) string {
	return controlplane.EncodeShape(containerInstanceShape(r, ci, false))
}
