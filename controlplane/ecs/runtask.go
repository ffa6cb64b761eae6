package ecs

import (
	"context"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// runTask implements ecs:RunTask. On container instances the tasks are placed at once or answered with failures; on Fargate
// they wait for the scheduler.
func (s *Service) runTask(ctx context.Context, in *ecs.RunTaskInput) (*ecs.RunTaskOutput, error) {
	count := 1
	if in.Count != nil {
		count = int(*in.Count)
	}
	if count < 1 || count > 10 {
		return nil, invalid("count must be between 1 and 10.")
	}
	if err := checkNames(in.Group, in.StartedBy); err != nil {
		return nil, err
	}
	if err := refuse(in); err != nil {
		return nil, err
	}
	own, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	unsigned := *in
	unsigned.ClientToken = nil
	request := controlplane.Request{Scope: scopeOf(ctx), Operation: "ecs:RunTask", Token: aws.ToString(in.ClientToken), Hash: controlplane.HashRequest(&unsigned)}
	now := api.CallFrom(ctx).Time
	out := &ecs.RunTaskOutput{}
	return answer(out, s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		out.Tasks, out.Failures = []types.Task{}, []types.Failure{}
		l := &launch{
			launchType: in.LaunchType, strategy: in.CapacityProviderStrategy, network: in.NetworkConfiguration,
			constraints: in.PlacementConstraints, spread: in.PlacementStrategy, platform: in.PlatformVersion,
			exec: in.EnableExecuteCommand,
		}
		var err error
		if l.cluster, err = cluster(tx, scope, in.Cluster); err != nil {
			return err
		}
		if ids, seen, same := request.Earlier(tx, now); seen {
			return s.earlierTasks(tx, scope, l.cluster.Name, ids, same, out)
		}
		if l.definition, err = runnable(tx, scope, in.TaskDefinition, "InvalidParameterException"); err != nil {
			return err
		}
		if err := s.passTaskRoles(ctx, l.definition, in.Overrides); err != nil {
			return err
		}
		if err := s.check(tx, l); err != nil {
			return err
		}
		demand, err := checkOverrides(l, in.Overrides)
		if err != nil {
			return err
		}
		var ids []string
		var tasks []*controlplane.Task
		have := map[string]int{}
		statuses := map[string]*controlplane.TaskStatus{}
		for range count {
			t := s.task(l, demand, in.Overrides, in.Group, in.StartedBy, now, have)
			if err := s.assumeRoles(t, l.definition); err != nil {
				return err
			}
			tags := controlplane.TaskTags(tx, t, own, string(in.PropagateTags), in.EnableECSManagedTags)
			tasks, statuses[t.Id] = append(tasks, t), controlplane.CreateTask(tx, t, tags)
		}
		if !l.fargate() {
			placed, why, err := s.Placer.PlaceNow(tx, tasks)
			if err != nil {
				return err
			}
			for _, t := range tasks[len(placed):] {
				controlplane.DeleteTask(tx, statuses[t.Id])
			}
			tasks, out.Failures = tasks[:len(placed)], append(out.Failures, why...)
			for _, st := range placed {
				statuses[st.Id] = st
			}
		}
		for _, t := range tasks {
			ids = append(ids, t.Id)
			out.Tasks = append(out.Tasks, s.taskShape(tx, t, statuses[t.Id], true))
		}
		request.Remember(tx, now, ids...)
		return nil
	}))
}

// earlierTasks answers a request that came before with the tasks it started then.
func (s *Service) earlierTasks(tx *state.Tx, scope controlplane.Scope, cluster string, ids []string, same bool, out *ecs.RunTaskOutput) error {
	if !same {
		conflict := awserr.New("ConflictException",
			"The RunTask request could not be processed due to conflicts. The provided clientToken is already in use with a different RunTask request.")
		names := make([]string, 0, len(ids))
		for _, id := range ids {
			names = append(names, scope.TaskARN(cluster, id))
		}
		conflict.Fields = map[string]any{"resourceIds": names}
		return conflict
	}
	for _, id := range ids {
		if t, status, ok := findTask(tx, scope, cluster, id); ok {
			out.Tasks = append(out.Tasks, s.taskShape(tx, t, status, true))
		}
	}
	return nil
}

var startedByForm = regexp.MustCompile(`^[a-zA-Z0-9/_-]{0,128}$`)

// checkNames refuses a group that services have and a startedBy that AWS would not take: "Up to 128 letters (uppercase and lowercase), numbers,
// hyphens (-), forward slash (/), and underscores (_) are allowed."
func checkNames(group, startedBy *string) error {
	if strings.HasPrefix(aws.ToString(group), "service:") {
		return invalid("Invalid namespace for group.")
	}
	if !startedByForm.MatchString(aws.ToString(startedBy)) {
		return invalid("startedBy can have up to 128 letters, numbers, hyphens, forward slashes and underscores.")
	}
	return nil
}

// startTask implements ecs:StartTask: the caller chooses the container instances, so the tasks have their nodes at once.
func (s *Service) startTask(ctx context.Context, in *ecs.StartTaskInput) (*ecs.StartTaskOutput, error) {
	if len(in.ContainerInstances) < 1 || len(in.ContainerInstances) > 10 {
		return nil, invalid("Container instances must have between 1 and 10 elements.")
	}
	if err := checkNames(in.Group, in.StartedBy); err != nil {
		return nil, err
	}
	if err := refuse(in); err != nil {
		return nil, err
	}
	own, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	now := api.CallFrom(ctx).Time
	out := &ecs.StartTaskOutput{}
	return answer(out, s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		out.Tasks, out.Failures = []types.Task{}, []types.Failure{}
		l := &launch{launchType: types.LaunchTypeEc2, network: in.NetworkConfiguration, exec: in.EnableExecuteCommand}
		var err error
		if l.cluster, err = cluster(tx, scope, in.Cluster); err != nil {
			return err
		}
		if l.definition, err = runnable(tx, scope, in.TaskDefinition, "InvalidParameterException"); err != nil {
			return err
		}
		if err := s.passTaskRoles(ctx, l.definition, in.Overrides); err != nil {
			return err
		}
		if err := s.check(tx, l); err != nil {
			return err
		}
		demand, err := checkOverrides(l, in.Overrides)
		if err != nil {
			return err
		}
		for _, ref := range in.ContainerInstances {
			name, err := member(scope, "container-instance", l.cluster.Name, ref)
			if err != nil {
				return err
			}
			ci, ok := controlplane.ContainerInstances.Get(tx, scope.Key(l.cluster.Name, name))
			if !ok || ci.Status == inactive {
				out.Failures = append(out.Failures, missing(scope.ContainerInstanceARN(l.cluster.Name, name)))
				continue
			}
			// The ledger is read within the transaction: of two that would overfill the node, one runs again.
			r, ok := instanceRoom(tx, ci)
			if !ok {
				out.Failures = append(out.Failures, types.Failure{Arn: aws.String(ci.ARN()), Reason: aws.String("AGENT")})
				continue
			}
			if why := r.lacks(demand, l.exec); why != "" {
				out.Failures = append(out.Failures, types.Failure{Arn: aws.String(ci.ARN()), Reason: aws.String(why)})
				continue
			}
			t := s.task(l, demand, in.Overrides, in.Group, in.StartedBy, now, nil)
			if err := s.assumeRoles(t, l.definition); err != nil {
				return err
			}
			tags := controlplane.TaskTags(tx, t, own, string(in.PropagateTags), in.EnableECSManagedTags)
			status, _ := controlplane.CreateTask(tx, t, tags).AdvancePlaced(ci.Node, r.gpus[:demand.Gpus]...)
			controlplane.TaskStatuses.Put(tx, status)
			out.Tasks = append(out.Tasks, s.taskShape(tx, t, status, true))
		}
		return nil
	}))
}
