package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// Execution is a command on a node. One goroutine may Send while another one receives.
type Execution struct {
	stream agentapi.Dispatcher_ExecSessionServer
	first  *agentapi.ExecOutput
	ctx    context.Context // the session's, of which Execution is the handle
	cancel context.CancelFunc
	credit chan struct{} // filled by messages that the node has not taken yet
}

// maxInput is how many messages of input may be on the way: agent.proto has it.
const maxInput = 64

// OpenExec has the node run a command and returns it once the agent has answered. Of a node that has its session with another server
// the error is api.ElsewhereError. The command ends with ctx, or Close.
func (s *Server) OpenExec(ctx context.Context, node string, req *agentapi.ExecRequest) (*Execution, error) {
	ctx, cancel := context.WithCancel(ctx)
	c := s.newCallback(ctx)
	req = proto.CloneOf(req)
	req.Id = c.id
	c.request = &agentapi.Down{Body: &agentapi.Down_Exec{Exec: req}}
	c.exec = &Execution{ctx: ctx, cancel: cancel, credit: make(chan struct{}, maxInput)}
	if err := s.call(ctx, node, c); err != nil {
		cancel()
		return nil, err
	}
	<-c.claimed // also when the call came at the last moment
	return c.exec, nil
}

// Send gives the command input, as fast as the command takes it.
func (e *Execution) Send(in *agentapi.ExecInput) error {
	select {
	case e.credit <- struct{}{}:
		return e.stream.Send(in)
	case <-e.ctx.Done():
		return e.ctx.Err()
	}
}

// Recv is what the command writes next, or its exit, after which comes io.EOF. A slow reader slows the command down.
func (e *Execution) Recv() (*agentapi.ExecOutput, error) {
	for {
		out := e.first
		if e.first = nil; out == nil {
			var err error
			if out, err = e.stream.Recv(); errors.Is(err, io.EOF) {
				return nil, err
			} else if err != nil {
				return nil, fmt.Errorf("the connection to the node was lost: %s", status.Convert(err).Message())
			}
		}
		for range min(out.Taken, maxInput) {
			select {
			case <-e.credit:
			default: // an agent that counts wrongly
			}
		}
		if len(out.Output)+len(out.Errors) > 0 || out.Exit != nil {
			return out, nil
		}
	}
}

// Close ends the agent's call and, by that, a command that runs still.
func (e *Execution) Close() { e.cancel() }

// ExecSession takes an agent's answer to one request and stands until whoever asked has left.
func (s *Server) ExecSession(stream agentapi.Dispatcher_ExecSessionServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	c, err := s.answer(stream.Context(), first.RequestId, func(c *callback) bool { return c.exec != nil })
	if err != nil {
		return err
	}
	c.exec.stream, c.exec.first = stream, first
	close(c.claimed)
	select {
	case <-c.left:
	case <-stream.Context().Done(): // the agent is lost, which Recv tells too
	}
	return nil
}
