package logs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// Appender writes a batch of a container's output into its stream, unless its mark says that it was written before.
type Appender = func(ctx context.Context, events []*agentapi.ShipEvent, mark uint64) error

// OpenStream finds the log stream for what a container of a task writes, or makes it (and, with awslogs-create-group, its group), for
// the node that the task is on. It answers how far the stream has been written: the mark of its last batch. The caller has found
// out that it is the node. In a cluster the leader does all of that, whichever server the node is with.
func (f *Family) OpenStream(ctx context.Context, node, task, container string) (Appender, uint64, error) {
	mark, err := f.ship(ctx, &agentapi.ShipBatch{NodeId: node, TaskId: task, Container: container})
	if err != nil {
		return nil, 0, err
	}
	return func(ctx context.Context, events []*agentapi.ShipEvent, mark uint64) error {
		_, err := f.ship(ctx, &agentapi.ShipBatch{NodeId: node, TaskId: task, Container: container, Events: events, Mark: mark})
		return err
	}, mark, nil
}

func (f *Family) ship(ctx context.Context, b *agentapi.ShipBatch) (mark uint64, err error) {
	if _, err := f.leads(); err != nil && f.Servers != nil {
		return f.Servers.Ship(ctx, b)
	}
	return f.Take(ctx, b)
}

// Take takes a batch of a container's output, from a node or from the server that the node is with, or one of a session of ECS Exec, and answers the stream's mark. A
// batch without mark and events opens the stream. Its errors are gRPC's.
func (f *Family) Take(ctx context.Context, b *agentapi.ShipBatch) (mark uint64, err error) {
	if b.Session != nil {
		return b.Mark, shipError(f.takeSession(ctx, b))
	}
	open := b.Mark == 0 && len(b.Events) == 0
	s, err := f.outputStream(ctx, b.NodeId, b.TaskId, b.Container, open)
	if err == nil && open {
		mark, err = f.mark(ctx, s)
	} else if err == nil {
		if err = f.mayAppend(ctx, b.TaskId, s); err == nil {
			mark, err = b.Mark, f.appendOutput(ctx, s, b.Events, b.Mark)
		}
	}
	return mark, shipError(err)
}

// outputStream is the stream that takes the container's output. One that was opened before is found by its own record: the task's may
// be gone when a node comes back after a long time.
// One that has been opened is looked for in what this server has.
func (f *Family) outputStream(ctx context.Context, node, task, container string, open bool) (_ *LogStream, err error) {
	v := f.Store.View()
	if open {
		if v, err = f.Store.Linearizable(ctx); err != nil {
			return nil, err
		}
	}
	for s := range LogStreamsByTask.Scan(v, state.K(task, container)) {
		if s.Node == node && exists(LogGroupsByID, v, s.Group) {
			return s, nil
		}
	}
	if !open {
		return nil, noStream()
	}
	var s *LogStream
	_, err = f.Store.Update(ctx, func(tx *state.Tx) error {
		to, t, d, err := f.assigned(tx, node, task, container)
		if err != nil {
			return err
		}
		scope := controlplane.Scope{Account: t.Account, Region: to.Region}
		if err := f.may(ctx, t, d, "logs:CreateLogStream", streamARN(scope, to.Group, to.Stream)); err != nil {
			return err
		}
		now := timestamppb.New(f.Clock.Now())
		g, err := group(tx, scope, &to.Group)
		if err != nil {
			if !to.CreateGroup {
				return err
			}
			if err := f.may(ctx, t, d, "logs:CreateLogGroup", streamARN(scope, to.Group, "")); err != nil {
				return err
			}
			f.putGroup(tx, scope, &LogGroup{Name: to.Group, Class: "STANDARD"}, now)
			if g, err = group(tx, scope, &to.Group); err != nil {
				return err
			}
		}
		old, err := streamOf(tx, g, &to.Stream)
		if err != nil {
			old = f.newStream(g, to.Stream, now)
		}
		s = proto.CloneOf(old)
		s.Task, s.Container, s.Node = task, container, node
		LogStreams.Put(tx, s)
		return nil
	})
	return s, err
}

// assigned is where the output of a container goes whose task is placed on the node.
func (f *Family) assigned(r state.Reader, node, task, container string) (to controlplane.AWSLogs, t *controlplane.Task, d *controlplane.TaskDefinition, err error) {
	for t := range controlplane.TasksByID.Scan(r, state.K(task)) {
		st, ok := controlplane.TaskStatuses.Get(r, controlplane.Tasks.Key(t))
		if !ok || st.Node != node {
			break
		}
		d, ok := controlplane.TaskDefinitions.Get(r, t.Scope().FamilyRevisionKey(t.TaskDefinition))
		if !ok {
			break
		}
		for _, c := range d.Shape().ContainerDefinitions {
			if to, ok := controlplane.AWSLogsOf(c, task); ok && aws.ToString(c.Name) == container {
				return to, t, d, nil
			}
		}
		return to, nil, nil, status.Errorf(codes.PermissionDenied,
			"the task has no container %s with log driver %s", container, types.LogDriverAwslogs)
	}
	return to, nil, nil, status.Error(codes.PermissionDenied, "the task is not one of this node")
}

func (f *Family) appendOutput(ctx context.Context, s *LogStream, events []*agentapi.ShipEvent, mark uint64) error {
	v := f.Store.View()
	if now, ok := LogStreams.Get(v, LogStreams.Key(s)); !ok || now.Data != s.Data || !exists(LogGroupsByID, v, s.Group) {
		return noStream()
	}
	b := stream.Batch{Ingested: f.Clock.Now().UnixMilli(), Mark: mark}
	size := 0
	for _, e := range events {
		size += len(e.Text) + eventOverhead
		b.Records = append(b.Records, stream.Record{Time: max(0, e.TimeMillis), Data: []byte(e.Text)})
	}
	if mark == 0 || len(events) == 0 || len(events) > maxEvents || size > maxBatchBytes {
		return status.Errorf(codes.InvalidArgument, "a batch of %d events and %d bytes with mark %d", len(events), size, mark)
	}
	_, _, err := f.append(ctx, s, b)
	return err
}

// shipError is err as an agent can tell it from others: NotFound and PermissionDenied are final for a container that is being
// started, the rest passes.
func shipError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	switch e, ok := awserr.As(err); {
	case ok && e.Code == "ResourceNotFoundException":
		return status.Error(codes.NotFound, e.Error())
	case errors.Is(err, stream.ErrNoSpace):
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	return status.Error(codes.Unavailable, fmt.Sprintf("keep logs: %v", err))
}

// SegmentAge is how old a segment of events may become before another begins: retention drops whole segments.
const SegmentAge = 24 * time.Hour
