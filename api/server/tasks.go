package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"

	"github.com/seed-2f228079/neargate/api/agent"
)

// Requests of tasks come by their agents, which pass on what programs send to AWS_ENDPOINT_URL. They are signed for the host that the
// program knows, an address of its own host, and come as they are.
//
// What a task reaches so are the AWS protocols and no more: neither the REST API nor the registry nor load balancers. And where the server
// trusts its loopback, a task is not of this machine: the well-known root credentials are none for it.

type taskKey struct{}

// FromTasks answers what agents pass on for tasks. Only agents may reach it.
func (s *Server) FromTasks() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(context.WithValue(r.Context(), taskKey{}, true))
		r.RemoteAddr = r.Header.Get(agent.TaskHeader)
		r.Header.Del(agent.TaskHeader)
		r.TLS, _ = r.Context().Value(securedKey{}).(*tls.ConnectionState)
		x := s.newExchange(w, r)
		defer x.recover()
		if reason := s.refused(r, false); reason != "" {
			x.plain(http.StatusForbidden, "AccessDenied", reason)
			return
		}
		s.aws(x)
	})
}

// RunTasks serves agents on l, for their tasks, until ctx ends. It closes l.
func (s *Server) RunTasks(ctx context.Context, l net.Listener) error {
	return s.serve(ctx, agentListener{l}, s.FromTasks(), func(ctx context.Context, c net.Conn) context.Context {
		if secured, ok := c.(agentConn).Conn.(*tls.Conn); ok {
			ctx = context.WithValue(ctx, securedKey{}, new(secured.ConnectionState()))
		}
		return ctx
	})
}

type securedKey struct{}

// agentConn hides from net/http that a connection is TLS: it would look for the protocol's name among its own.
type agentConn struct{ net.Conn }

type agentListener struct{ net.Listener }

func (l agentListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return agentConn{c}, nil
}

// notForTasks says whether the request is a task's, with the credentials that everybody knows.
func (s *Server) notForTasks(r *http.Request, accessKeyID string) bool {
	return s.cfg.Guard && accessKeyID == wellKnownKey && r.Context().Value(taskKey{}) != nil
}
