package ecsagent

import (
	"context"
	"io"

	"google.golang.org/grpc/metadata"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// stream is the agent's end of a session with the dispatcher, in memory: what gRPC would carry.
type stream struct {
	ctx  context.Context
	ups  chan *agentapi.Up
	down func(*agentapi.Down) error
}

// Recv gives the dispatcher what the agent says. Like gRPC's it ends with the session.
func (s *stream) Recv() (*agentapi.Up, error) {
	select {
	case up := <-s.ups:
		return up, nil
	case <-s.ctx.Done():
		return nil, io.EOF
	}
}

// Send takes what the dispatcher says; it returns once the connection has taken it.
func (s *stream) Send(d *agentapi.Down) error { return s.down(d) }

// say hands the dispatcher a message, when it takes one.
func (s *stream) say(up *agentapi.Up) error {
	select {
	case s.ups <- up:
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

func (s *stream) Context() context.Context     { return s.ctx }
func (s *stream) SetHeader(metadata.MD) error  { return nil }
func (s *stream) SendHeader(metadata.MD) error { return nil }
func (s *stream) SetTrailer(metadata.MD)       {}
func (s *stream) SendMsg(m any) error          { return s.Send(m.(*agentapi.Down)) }
func (s *stream) RecvMsg(any) error            { return io.ErrUnexpectedEOF } // messages come by Recv
