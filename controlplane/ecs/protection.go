package ecs

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	defaultProtection = 120  // minutes
	maxProtection     = 2880 // minutes
)

// updateTaskProtection implements ecs:UpdateTaskProtection. The orchestrator spares protected tasks when it scales in and deploys; StopTask,
// failing health checks and a lost host end them all the same.
func (s *Service) updateTaskProtection(ctx context.Context, in *ecs.UpdateTaskProtectionInput) (*ecs.UpdateTaskProtectionOutput, error) {
	minutes := int32(defaultProtection)
	if in.ExpiresInMinutes != nil {
		minutes = *in.ExpiresInMinutes
	}
	switch {
	case len(in.Tasks) == 0:
		return nil, invalid("Tasks cannot be empty.")
	case len(in.Tasks) > 10:
		return nil, invalid("Tasks cannot have more than 10 elements.")
	case minutes < 1 || minutes > maxProtection:
		return nil, invalid("expiresInMinutes must be between 1 and %d.", maxProtection)
	}
	now := api.CallFrom(ctx).Time
	until := time.Time{}
	if in.ProtectionEnabled {
		until = now.Add(time.Duration(minutes) * time.Minute)
	}
	out := &ecs.UpdateTaskProtectionOutput{}
	return answer(out, s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) (err error) {
		out.ProtectedTasks, out.Failures, err = protections(tx, scope, in.Cluster, in.Tasks, now, func(st *controlplane.TaskStatus) *controlplane.TaskStatus {
			st, changed := st.AdvanceProtection(until)
			if changed {
				controlplane.TaskStatuses.Put(tx, st)
			}
			return st
		})
		return err
	}))
}

// getTaskProtection implements ecs:GetTaskProtection.
func (s *Service) getTaskProtection(ctx context.Context, in *ecs.GetTaskProtectionInput) (*ecs.GetTaskProtectionOutput, error) {
	switch {
	case len(in.Tasks) == 0:
		return nil, invalid("Tasks cannot be empty.")
	case len(in.Tasks) > 100:
		return nil, invalid("Tasks cannot have more than 100 elements.")
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	out := &ecs.GetTaskProtectionOutput{}
	out.ProtectedTasks, out.Failures, err = protections(v, scope, in.Cluster, in.Tasks, api.CallFrom(ctx).Time, func(st *controlplane.TaskStatus) *controlplane.TaskStatus { return st })
	return answer(out, err)
}

// protections says of each task whether it is protected once change was applied, or why it cannot be.
func protections(r state.Reader, scope controlplane.Scope, clusterRef *string, refs []string, now time.Time,
	change func(*controlplane.TaskStatus) *controlplane.TaskStatus,
) (tasks []types.ProtectedTask, failures []types.Failure, err error) {
	tasks, failures = []types.ProtectedTask{}, []types.Failure{}
	c, err := cluster(r, scope, clusterRef)
	if err != nil {
		return nil, nil, err
	}
	for _, ref := range refs {
		id, err := taskID(scope, c.Name, ref)
		if err != nil {
			return nil, nil, err
		}
		t, st, ok := findTask(r, scope, c.Name, id)
		switch {
		case !ok:
			failures = append(failures, missing(scope.TaskARN(c.Name, id)))
			continue
		case t.Service == "" || !st.Live():
			failures = append(failures, types.Failure{Arn: aws.String(t.ARN()), Reason: aws.String("TASK_NOT_VALID"),
				Detail: aws.String("Only running tasks that belong to a service can be protected.")})
			continue
		}
		st = change(st)
		p := types.ProtectedTask{TaskArn: aws.String(t.ARN()), ProtectionEnabled: st.Protected(now)}
		if p.ProtectionEnabled {
			p.ExpirationDate = aws.Time(st.ProtectedUntil.AsTime())
		}
		tasks = append(tasks, p)
	}
	return tasks, failures, nil
}
