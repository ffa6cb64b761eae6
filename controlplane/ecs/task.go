package ecs

import (
	"context"
	"iter"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

func findTask(r state.Reader, scope controlplane.Scope, cluster, id string) (*controlplane.Task, *controlplane.TaskStatus, bool) {
	key := scope.Key(cluster, id)
	t, ok := controlplane.Tasks.Get(r, key)
	if !ok {
		return nil, nil, false
	}
	st, ok := controlplane.TaskStatuses.Get(r, key)
	return t, st, ok
}

// describeTasks implements ecs:DescribeTasks.
func (s *Service) describeTasks(ctx context.Context, in *ecs.DescribeTasksInput) (*ecs.DescribeTasksOutput, error) {
	if len(in.Tasks) == 0 {
		return nil, invalid("Tasks cannot be empty.")
	}
	if len(in.Tasks) > 100 {
		return nil, invalid("Tasks cannot have more than 100 elements.")
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	c, err := cluster(v, scope, in.Cluster)
	if err != nil {
		return nil, err
	}
	withTags := false
	for _, field := range in.Include {
		withTags = withTags || field == types.TaskFieldTags
	}
	out := &ecs.DescribeTasksOutput{Tasks: []types.Task{}, Failures: []types.Failure{}}
	for _, ref := range in.Tasks {
		id, err := taskID(scope, c.Name, ref)
		if err != nil {
			return nil, err
		}
		t, st, ok := findTask(v, scope, c.Name, id)
		if !ok {
			out.Failures = append(out.Failures, missing(scope.TaskARN(c.Name, id)))
			continue
		}
		out.Tasks = append(out.Tasks, s.taskShape(v, t, st, withTags))
	}
	return out, nil
}

func taskID(scope controlplane.Scope, cluster, ref string) (string, error) {
	id, err := member(scope, "task", cluster, ref)
	if err == nil && len(id) > 36 {
		return "", invalid("taskId longer than 36.")
	}
	return id, err
}

// stopTask implements ecs:StopTask. Stopping a task that is stopped or stopping already changes nothing.
func (s *Service) stopTask(ctx context.Context, in *ecs.StopTaskInput) (*ecs.StopTaskOutput, error) {
	reason := aws.ToString(in.Reason)
	if len(reason) > 1024 {
		return nil, invalid("Reason can not be longer than 1024 characters.")
	}
	if reason == "" {
		reason = "Task stopped by user"
	}
	out := &ecs.StopTaskOutput{}
	return answer(out, s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		c, err := cluster(tx, scope, in.Cluster)
		if err != nil {
			return err
		}
		id, err := taskID(scope, c.Name, aws.ToString(in.Task))
		if err != nil {
			return err
		}
		t, _, ok := findTask(tx, scope, c.Name, id)
		if !ok {
			return invalid("The referenced task was not found.")
		}
		// The clients of a load balancer must not notice, but nobody waits for DNS answers to expire: it is not planned.
		st, err := s.Lifecycle.Stop(tx, controlplane.Tasks.Key(t), string(types.TaskStopCodeUserInitiated), reason, false)
		if err != nil {
			return err
		}
		out.Task = new(s.taskShape(tx, t, st, true))
		return nil
	}))
}

// listTasks implements ecs:ListTasks. desiredStatus defaults to RUNNING; no task is ever wanted PENDING.
func (s *Service) listTasks(ctx context.Context, in *ecs.ListTasksInput) (*ecs.ListTasksOutput, error) {
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
	status := string(in.DesiredStatus)
	if status == "" {
		status = string(types.DesiredStatusRunning)
	}
	live := status == string(types.DesiredStatusRunning)
	within := scope.Key(c.Name)
	candidates := func(last state.Key) iter.Seq[*controlplane.TaskStatus] {
		return controlplane.TaskStatuses.ScanFrom(v, within, last)
	}
	if live {
		candidates = func(last state.Key) iter.Seq[*controlplane.TaskStatus] {
			return controlplane.LiveTasks.ScanFrom(v, within, within, last)
		}
	}
	wanted := []func(*controlplane.TaskStatus, *controlplane.Task) bool{
		func(st *controlplane.TaskStatus, _ *controlplane.Task) bool { return desiredStatus(st) == status },
	}
	if ref := aws.ToString(in.ServiceName); ref != "" {
		name, err := member(scope, "service", c.Name, ref)
		if err != nil {
			return nil, err
		}
		if svc, ok := controlplane.Services.Get(v, scope.Key(c.Name, name)); !ok || svc.Status == inactive {
			return nil, serviceNotFound()
		}
		if live {
			of := scope.Key(c.Name, name)
			candidates = func(last state.Key) iter.Seq[*controlplane.TaskStatus] {
				return controlplane.LiveTasksByService.ScanFrom(v, of, of, last)
			}
		}
		wanted = append(wanted, func(st *controlplane.TaskStatus, _ *controlplane.Task) bool { return st.Service == name })
	}
	if ref := aws.ToString(in.ContainerInstance); ref != "" {
		name, err := member(scope, "container-instance", c.Name, ref)
		if err != nil {
			return nil, err
		}
		ci, ok := controlplane.ContainerInstances.Get(v, scope.Key(c.Name, name))
		if !ok {
			return nil, invalid("The referenced container instance was not found.")
		}
		wanted = append(wanted, func(st *controlplane.TaskStatus, t *controlplane.Task) bool {
			return st.Node == ci.Node && t.LaunchType == string(types.LaunchTypeEc2)
		})
	}
	if family := aws.ToString(in.Family); family != "" {
		wanted = append(wanted, func(_ *controlplane.TaskStatus, t *controlplane.Task) bool {
			return strings.HasPrefix(t.TaskDefinition, family+":")
		})
	}
	if by := aws.ToString(in.StartedBy); by != "" {
		// "When you specify startedBy as the filter, it must be the only filter that you use."
		if aws.ToString(in.ContainerInstance)+aws.ToString(in.Family)+aws.ToString(in.ServiceName) != "" {
			return nil, invalid("startedBy must be the only filter: it can not be combined with containerInstance, family or serviceName.")
		}
		wanted = append(wanted, func(_ *controlplane.TaskStatus, t *controlplane.Task) bool { return t.StartedBy == by })
	}
	if in.LaunchType != "" {
		wanted = append(wanted, func(_ *controlplane.TaskStatus, t *controlplane.Task) bool {
			return t.LaunchType == string(in.LaunchType)
		})
	}
	if aws.ToString(in.DaemonName) != "" {
		return nil, client("'daemonName' is not supported by this platform: daemons of managed instances do not exist.")
	}
	key := controlplane.TaskStatuses.Key
	page, next, err := api.Page(ctx, s.Pages, in, size, func(last state.Key) iter.Seq[*controlplane.TaskStatus] {
		return filter(candidates(last), func(st *controlplane.TaskStatus) bool {
			t, ok := controlplane.Tasks.Get(v, key(st))
			for _, w := range wanted {
				ok = ok && w(st, t)
			}
			return ok
		})
	}, key)
	if err != nil {
		return nil, err
	}
	return &ecs.ListTasksOutput{TaskArns: arns(page), NextToken: next}, nil
}
