package dispatcher

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// LogStreams takes in what containers with the log driver awslogs write; logs.Family is one. Its errors are gRPC's.
type LogStreams interface {
	// OpenStream answers how to append to the container's stream, and how far that has been written. It refuses a node that the
	// task is not on.
	OpenStream(ctx context.Context, node, task, container string) (
		appendBatch func(ctx context.Context, events []*agentapi.ShipEvent, mark uint64) error, mark uint64, err error)
}

// ShipLogs takes one container's output from its node. What is acknowledged is durable. One batch is taken at a time: the
// transport holds up an agent that sends more.
func (s *Server) ShipLogs(stream agentapi.Dispatcher_ShipLogsServer) error {
	if s.LogStreams == nil {
		return status.Error(codes.Unimplemented, "this server keeps no logs")
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.NodeId == "" || first.TaskId == "" || first.Container == "" || len(first.Events) > 0 {
		return status.Error(codes.InvalidArgument, "shipping starts with node, task and container, and no events")
	}
	ctx := stream.Context()
	if s.Authorize != nil {
		if err := s.Authorize(ctx, first.NodeId); err != nil {
			return status.Error(codes.PermissionDenied, err.Error())
		}
	}
	appendBatch, mark, err := s.LogStreams.OpenStream(ctx, first.NodeId, first.TaskId, first.Container)
	if err != nil {
		return err
	}
	for {
		if err := stream.Send(&agentapi.ShipAck{Mark: mark}); err != nil {
			return err
		}
		b, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := appendBatch(ctx, b.Events, b.Mark); err != nil {
			return err
		}
		mark = b.Mark
	}
}
