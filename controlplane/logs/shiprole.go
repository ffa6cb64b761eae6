package logs

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// The log driver of ECS makes its requests with the task's execution role, and so is a container's output held against what that one may.
// A task without one ships with the platform's own rights, as one on an instance does whose own role may.

// may says whether the task's execution role may do something.
func (f *Family) may(ctx context.Context, t *controlplane.Task, d *controlplane.TaskDefinition, action, resource string) error {
	_, role := t.Roles(d)
	return f.mayAs(ctx, role, t, action, resource)
}

// mayAs says whether a role of the task may do something; without one it is done with the platform's own rights.
func (f *Family) mayAs(ctx context.Context, role string, t *controlplane.Task, action, resource string) error {
	if role == "" || f.TaskMay == nil {
		return nil
	}
	err := f.TaskMay(ctx, role, t.ARN(), action, resource)
	if e, ok := awserr.As(err); ok {
		return status.Error(codes.PermissionDenied, e.Message)
	}
	if err != nil {
		return status.Error(codes.PermissionDenied, "AccessDeniedException: "+err.Error())
	}
	return nil
}

// mayAppend is asked with each batch, as each PutLogEvents is authorized. A task whose record is gone had the right to begin.
func (f *Family) mayAppend(ctx context.Context, task string, s *LogStream) error {
	v := f.Store.View()
	for t := range controlplane.TasksByID.Scan(v, state.K(task)) {
		d, ok := controlplane.TaskDefinitions.Get(v, t.Scope().FamilyRevisionKey(t.TaskDefinition))
		if !ok {
			continue
		}
		for g := range LogGroupsByID.Scan(v, state.K(s.Group)) {
			return f.may(ctx, t, d, "logs:PutLogEvents", streamARN(controlplane.Scope{Account: g.Account, Region: g.Region}, g.Name, s.Name))
		}
	}
	return nil
}

// streamARN is how policies name a stream, and, without a name, a group that is about to be made.
func streamARN(scope controlplane.Scope, group, stream string) string {
	return groupARN(scope, group) + streamPart + stream
}

// streamPart stands between a group's ARN and a stream's name.
const streamPart = ":log-stream:"
