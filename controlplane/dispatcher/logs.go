package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/id"
)

// ErrNotConnected says that a node has no session with this server: what only its agent can answer is out of reach.
var ErrNotConnected = errors.New("the node is not connected")

// maxRequests is how many requests to one node may wait until its session sends them.
const maxRequests = 256

// logReader is who reads one container's output. It waits in Server.readers until the agent's call takes it out.
type logReader struct {
	session *subscriber
	request *agentapi.LogRequest
	left    <-chan struct{}          // closed when the reader is gone
	claimed chan struct{}            // closed when the agent's call is there
	chunks  chan []*agentapi.LogLine // unbuffered: the agent reads on when the reader has taken what there is
	ended   chan error               // capacity 1: no more chunks, and why
}

// ReadLogs asks the node for a container's output and returns its lines, in the chunks that they come in, once the agent has begun to
// answer. Of a node that has its session with another server the error is api.ElsewhereError. An error in the sequence is its end. The sequence is to be ranged over, once, or ctx to be cancelled; either
// ends the agent's call.
func (s *Server) ReadLogs(ctx context.Context, node string, req *agentapi.LogRequest) (iter.Seq2[[]*agentapi.LogLine, error], error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &logReader{
		request: proto.CloneOf(req), left: ctx.Done(), claimed: make(chan struct{}), chunks: make(chan []*agentapi.LogLine), ended: make(chan error, 1),
	}
	r.request.Id = id.Hex(s.Rand, 32)
	if err := s.await(ctx, node, r); err != nil {
		defer cancel()
		if errors.Is(err, ErrNotConnected) {
			if server, _ := s.Where(ctx, node); server != "" {
				return nil, &api.ElsewhereError{Server: server}
			}
		}
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

// await hands the request to the node's session and waits for the agent's call. A request that nobody took is withdrawn.
func (s *Server) await(ctx context.Context, node string, r *logReader) error {
	limit := s.Clock.After(s.Lease)
	if err := s.request(node, r); err != nil {
		return err
	}
	err := func() error {
		select {
		case <-r.claimed:
			return nil
		case <-r.session.gone:
			return fmt.Errorf("%w any more", ErrNotConnected)
		case <-limit:
			return fmt.Errorf("the agent of the node has not answered within %s", s.Lease)
		case <-ctx.Done():
			return ctx.Err()
		}
	}()
	if err != nil && s.claim(r.request.Id) == nil {
		return nil // the agent's call came at the last moment
	}
	return err
}

func (s *Server) request(node string, r *logReader) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.session = s.subscribers[node]
	if r.session == nil || r.session.close == nil {
		return ErrNotConnected
	}
	if len(r.session.requests) >= maxRequests {
		return fmt.Errorf("%d requests to the node wait already", maxRequests)
	}
	s.readers[r.request.Id] = r
	r.session.requests = append(r.session.requests, r.request)
	r.session.signal()
	return nil
}

// takeRequests takes what the node is to be asked for now.
func (s *Server) takeRequests(sub *subscriber) []*agentapi.LogRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := sub.requests
	sub.requests = nil
	return list
}

// reader is who waits for the request, or nil.
func (s *Server) reader(request string) *logReader {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readers[request]
}

// claim takes the reader who waits for the request; nil: it is taken, or gone.
func (s *Server) claim(request string) *logReader {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.readers[request]
	delete(s.readers, request)
	return r
}

// Logs takes an agent's answer to one request and hands it to the reader who waits for it: by the request's id, which nobody can
// guess, and only from who may act for the node that was asked.
func (s *Server) Logs(stream agentapi.Dispatcher_LogsServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	r := s.reader(first.RequestId)
	if r == nil {
		return status.Error(codes.NotFound, "nobody waits for this")
	}
	if s.Authorize != nil {
		if err := s.Authorize(stream.Context(), r.session.node); err != nil {
			return status.Error(codes.PermissionDenied, err.Error())
		}
	}
	if s.claim(first.RequestId) == nil {
		return status.Error(codes.NotFound, "nobody waits for this any more")
	}
	close(r.claimed)
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
