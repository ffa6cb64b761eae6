package dispatcher

import (
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// streams takes what node a ships; it is at mark 7.
type streams struct{ batches []*agentapi.ShipBatch }

func (s *streams) OpenStream(_ context.Context, node, task, container string) (func(context.Context, []*agentapi.ShipEvent, uint64) error, uint64, error) {
	if node != "a" || task != "t" || container != "web" {
		return nil, 0, status.Error(codes.PermissionDenied, "the task is not one of this node")
	}
	return func(_ context.Context, events []*agentapi.ShipEvent, mark uint64) error {
		if mark == 99 {
			return status.Error(codes.ResourceExhausted, "the disk is full")
		}
		s.batches = append(s.batches, &agentapi.ShipBatch{Events: events, Mark: mark})
		return nil
	}, 7, nil
}

func TestShipLogs(t *testing.T) {
	p := newPlane(t)
	p.Authorize = func(ctx context.Context, node string) error {
		if md, _ := metadata.FromIncomingContext(ctx); len(md["node"]) != 1 || md["node"][0] != node {
			return errors.New("the certificate names another node")
		}
		return nil
	}
	begin := func(caller string, first *agentapi.ShipBatch) agentapi.Dispatcher_ShipLogsClient {
		t.Helper()
		call, err := agentapi.NewDispatcherClient(p.dial).ShipLogs(metadata.AppendToOutgoingContext(t.Context(), "node", caller))
		if err == nil {
			err = call.Send(first)
		}
		if err != nil && !errors.Is(err, io.EOF) { // EOF: the server has refused already, and Recv says why
			t.Fatal(err)
		}
		return call
	}
	mine := &agentapi.ShipBatch{NodeId: "a", TaskId: "t", Container: "web"}
	if _, err := begin("a", mine).Recv(); status.Code(err) != codes.Unimplemented {
		t.Errorf("without streams: %v", err)
	}
	kept := &streams{}
	p.LogStreams = kept
	for _, c := range []struct {
		caller string
		first  *agentapi.ShipBatch
		want   codes.Code
	}{
		{"b", mine, codes.PermissionDenied}, // in another's name
		{"b", &agentapi.ShipBatch{NodeId: "b", TaskId: "t", Container: "web"}, codes.PermissionDenied},
		{"a", &agentapi.ShipBatch{NodeId: "a", TaskId: "other", Container: "web"}, codes.PermissionDenied},
		{"a", &agentapi.ShipBatch{NodeId: "a", TaskId: "t"}, codes.InvalidArgument},
		{"a", &agentapi.ShipBatch{NodeId: "a", TaskId: "t", Container: "web", Events: []*agentapi.ShipEvent{{Text: "early"}}}, codes.InvalidArgument},
	} {
		if _, err := begin(c.caller, c.first).Recv(); status.Code(err) != c.want {
			t.Errorf("%s begins with %v: %v, want %s", c.caller, c.first, err, c.want)
		}
	}
	call := begin("a", mine)
	for i, want := range []uint64{7, 8, 9} {
		if ack, err := call.Recv(); err != nil || ack.Mark != want {
			t.Fatalf("acknowledgement %d: %v, %v", i, ack, err)
		}
		if want < 9 {
			if err := call.Send(&agentapi.ShipBatch{Events: []*agentapi.ShipEvent{{Text: "x"}}, Mark: want + 1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(kept.batches) != 2 {
		t.Errorf("%d batches are kept", len(kept.batches))
	}
	if err := call.Send(&agentapi.ShipBatch{Events: []*agentapi.ShipEvent{{Text: "x"}}, Mark: 99}); err != nil {
		t.Fatal(err)
	}
	if _, err := call.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("what could not be kept: %v", err)
	}
}
