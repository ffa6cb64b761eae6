package logs

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// KeepSession keeps a part of what a session of ECS Exec in the task has shown, in a stream that is called like the session, which the first
// part makes. As AWS's agent in the container writes it, so is it held against what the task's role may: logs:CreateLogStream and
// logs:PutLogEvents. A task without a role has its sessions kept with the platform's own rights. A mark that was kept before is not kept again.
// Its errors are gRPC's; NotFound, of the group too, and PermissionDenied are final.
func (f *Family) KeepSession(ctx context.Context, task string, to *agentapi.SessionLog, events []*agentapi.ShipEvent, mark uint64) error {
	_, err := f.ship(ctx, &agentapi.ShipBatch{TaskId: task, Session: to, Events: events, Mark: mark})
	return err
}

func (f *Family) takeSession(ctx context.Context, b *agentapi.ShipBatch) error {
	s, err := f.sessionStream(ctx, b.TaskId, b.Session)
	if err != nil {
		return err
	}
	return f.appendOutput(ctx, s, b.Events, b.Mark)
}

// sessionStream finds the session's stream, or makes it.
func (f *Family) sessionStream(ctx context.Context, task string, to *agentapi.SessionLog) (s *LogStream, err error) {
	v, err := f.Store.Linearizable(ctx)
	if err != nil {
		return nil, err
	}
	t, role, err := roleOf(v, task)
	if err != nil {
		return nil, err
	}
	scope := controlplane.Scope{Account: t.Account, Region: to.Region}
	name := streamARN(scope, to.Group, to.Session)
	if err := f.mayAs(ctx, role, t, "logs:PutLogEvents", name); err != nil {
		return nil, err
	}
	if g, err := group(v, scope, &to.Group); err == nil {
		if s, err := streamOf(v, g, &to.Session); err == nil {
			return s, nil
		}
	}
	if err := f.mayAs(ctx, role, t, "logs:CreateLogStream", name); err != nil {
		return nil, err
	}
	_, err = f.Store.Update(ctx, func(tx *state.Tx) error {
		g, err := group(tx, scope, &to.Group)
		if err != nil {
			return err
		}
		if s, err = streamOf(tx, g, &to.Session); err == nil {
			return nil
		}
		s = f.newStream(g, to.Session, timestamppb.New(f.Clock.Now()))
		LogStreams.Put(tx, s)
		return nil
	})
	return s, err
}

// roleOf is a task and the role that its containers act as.
func roleOf(r state.Reader, task string) (*controlplane.Task, string, error) {
	for t := range controlplane.TasksByID.Scan(r, state.K(task)) {
		d, ok := controlplane.TaskDefinitions.Get(r, t.Scope().FamilyRevisionKey(t.TaskDefinition))
		if !ok {
			break
		}
		role, _ := t.Roles(d)
		return t, role, nil
	}
	return nil, "", status.Error(codes.NotFound, "the task is not known any more")
}
