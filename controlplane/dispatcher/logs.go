package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// logReader is who reads one container's output.
type logReader struct {
	left   <-chan struct{}          // closed when the reader is gone
	chunks chan []*agentapi.LogLine // unbuffered: the agent reads on when the reader has taken what there is
	ended  chan error               // capacity 1: no more chunks, and why
}

// ReadLogs asks the node for a container's output and returns its lines, in the chunks that they come in, once the agent has begun to
// answer. Of a node that has its session with another server the error is api.ElsewhereError. An error in the sequence is its end. The sequence is to be ranged over, once, or ctx to be cancelled; either
// ends the agent's call.
func (s *Server) ReadLogs(ctx context.Context, node string, req *agentapi.LogRequest) (iter.Seq2[[]*agentapi.LogLine, error], error) {
	ctx, cancel := context.WithCancel(ctx)
	c := s.newCallback(ctx)
	r := &logReader{left: c.left, chunks: make(chan []*agentapi.LogLine), ended: make(chan error, 1)}
	req = proto.CloneOf(req)
	req.Id = c.id
	c.request, c.logs = &agentapi.Down{Body: &agentapi.Down_Logs{Logs: req}}, r
	if err := s.call(ctx, node, c); err != nil {
		cancel()
		return nil, err
	}
	return func(yield func([]*agentapi.LogLine, error) bool) {
		defer cancel()
		for {
			select {
			case lines := <-r.chunks:
				if !yield(lines, nil) {
					return
				}
			case err := <-r.ended:
				if err != nil {
					yield(nil, err)
				}
				return
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			}
		}
	}, nil
}

// Logs takes an agent's answer to one request and hands it to the reader who waits for it.
func (s *Server) Logs(stream agentapi.Dispatcher_LogsServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	c, err := s.answer(stream.Context(), first.RequestId, func(c *callback) bool { return c.logs != nil })
	if err != nil {
		return err
	}
	r := c.logs
	close(c.claimed)
	ended := make(chan error, 1)
	go func() { ended <- r.take(stream, first) }() // ends with the stream, which ends with this call
	select {
	case err := <-ended:
		r.ended <- err
	case <-r.left:
	}
	return stream.SendAndClose(&agentapi.LogsRead{})
}

// take hands on what comes, as fast as the reader takes it. Nil: all of it came.
func (r *logReader) take(stream agentapi.Dispatcher_LogsServer, chunk *agentapi.LogChunk) error {
	for {
		if len(chunk.Lines) > 0 {
			select {
			case r.chunks <- chunk.Lines:
			case <-r.left:
				return nil
			}
		}
		if chunk.Error != "" {
			return errors.New(chunk.Error)
		}
		var err error
		if chunk, err = stream.Recv(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("the connection to the node was lost: %s", status.Convert(err).Message())
		}
	}
}
