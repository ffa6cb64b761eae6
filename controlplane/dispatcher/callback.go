package dispatcher

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/id"
)

// ErrNotConnected says that a node has no session with this server: what only its agent can answer is out of reach.
var ErrNotConnected = errors.New("the node is not connected")

// maxRequests is how many requests to one node may wait until its session sends them.
const maxRequests = 256

// callback is somebody here who has asked a node for something, which its agent answers with a call of its own. It waits in
// Server.callbacks until that call takes it out.
type callback struct {
	id      string
	request *agentapi.Down
	session *subscriber
	left    <-chan struct{} // closed when whoever waits is gone
	claimed chan struct{}   // closed when the agent's call is there

	logs *logReader // one of these is set
	exec *Execution
}

func (s *Server) newCallback(ctx context.Context) *callback {
	return &callback{id: id.Hex(s.Rand, 32), left: ctx.Done(), claimed: make(chan struct{})}
}

// call asks the node and waits for its agent's call. A request that nobody took is withdrawn. Of a node that has its session with
// another server the error is api.ElsewhereError.
func (s *Server) call(ctx context.Context, node string, c *callback) error {
	err := s.await(ctx, node, c)
	if errors.Is(err, ErrNotConnected) {
		if server, _ := s.Where(ctx, node); server != "" {
			return &api.ElsewhereError{Server: server}
		}
	}
	return err
}

func (s *Server) await(ctx context.Context, node string, c *callback) error {
	limit := s.Clock.After(s.Lease)
	if err := s.request(node, c); err != nil {
		return err
	}
	err := func() error {
		select {
		case <-c.claimed:
			return nil
		case <-c.session.gone:
			return fmt.Errorf("%w any more", ErrNotConnected)
		case <-limit:
			return fmt.Errorf("the agent of the node has not answered within %s", s.Lease)
		case <-ctx.Done():
			return ctx.Err()
		}
	}()
	if err != nil && s.claim(c.id) == nil {
		return nil // the agent's call came at the last moment
	}
	return err
}

func (s *Server) request(node string, c *callback) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.session = s.subscribers[node]
	if c.session == nil || !c.session.open {
		return ErrNotConnected
	}
	if len(c.session.requests) >= maxRequests {
		return fmt.Errorf("%d requests to the node wait already", maxRequests)
	}
	s.callbacks[c.id] = c
	c.session.requests = append(c.session.requests, c.request)
	s.signal(c.session)
	return nil
}

// claim takes out who waits for the request; nil: it is taken, or gone.
func (s *Server) claim(request string) *callback {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.callbacks[request]
	delete(s.callbacks, request)
	return c
}

// answer takes out who waits for an agent's call: by the request's id, which nobody can guess, and only for who may act for the
// node that was asked.
func (s *Server) answer(ctx context.Context, request string, wanted func(*callback) bool) (*callback, error) {
	s.mu.Lock()
	c := s.callbacks[request]
	s.mu.Unlock()
	if c == nil || !wanted(c) {
		return nil, status.Error(codes.NotFound, "nobody waits for this")
	}
	if s.Authorize != nil {
		if err := s.Authorize(ctx, c.session.node); err != nil {
			return nil, status.Error(codes.PermissionDenied, err.Error())
		}
	}
	if s.claim(request) == nil {
		return nil, status.Error(codes.NotFound, "nobody waits for this any more")
	}
	return c, nil
}
