package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/datachannel"
)

// AgentChannels are the connections of Amazon's ECS agents: WebSockets that a signed request opens. Any server serves one.
type AgentChannels interface {
	// Needs is what the caller has to be allowed for the channel that a query asks for.
	Needs(c *api.Call, telemetry bool, q url.Values) (api.Access, error)
	// Open opens it; serve closes the channel in the end. Its ctx ends when the server shuts down.
	Open(c *api.Call, telemetry bool, q url.Values) (serve func(ctx context.Context, conn *datachannel.Conn), err error)
}

// Where the channels are: what DiscoverPollEndpoint answers, and what the agent puts behind it.
const (
	agentPollPath      = "/v1/ecs-agent/poll/ws"
	agentTelemetryPath = "/v1/ecs-agent/telemetry/ws"
)

// maxAgentChannels bounds what one server has open; an agent has two.
const maxAgentChannels = 4096

func isAgentChannel(r *http.Request) bool {
	return (r.URL.Path == agentPollPath || r.URL.Path == agentTelemetryPath) && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// agentChannel verifies, authorizes, and serves a channel.
func (s *Server) agentChannel(x *exchange) {
	select {
	case s.agents <- struct{}{}:
		defer func() { <-s.agents }()
	default:
		x.plain(http.StatusServiceUnavailable, "ServiceUnavailable", "This server has as many agents as it takes.")
		return
	}
	serve, err := s.openAgentChannel(x)
	if err != nil {
		s.refuseAgent(x, err)
		return
	}
	conn, err := datachannel.Accept(x.w, x.r)
	if err != nil {
		return // and the agent has been told
	}
	serve(s.leaving, conn)
}

func (s *Server) openAgentChannel(x *exchange) (func(context.Context, *datachannel.Conn), error) {
	telemetry, query := x.r.URL.Path == agentTelemetryPath, x.r.URL.Query()
	sig, err := auth.Parse(x.r)
	if err != nil {
		return nil, err
	}
	if sig == nil || sig.Service != "ecs" {
		return nil, auth.Missing()
	}
	if s.notForTasks(x.r, sig.AccessKeyID) {
		return nil, auth.WellKnown()
	}
	if s.cfg.Cluster != nil { // the key, and the instance, may be younger than what this server knows
		ctx, cancel := context.WithTimeout(x.r.Context(), leaderTimeout)
		defer cancel()
		if err := s.fresh(ctx, x.r); err != nil {
			return nil, err
		}
	}
	who, err := s.verifier.Verify(x.r.Context(), x.r, sig, nil)
	if err != nil {
		return nil, err
	}
	c := &api.Call{Identity: who, Region: sig.Region, RequestID: x.id, Service: "ecs", Operation: "Poll", Time: x.at, Host: s.cfg.PublicName, UserAgent: x.r.UserAgent(), Secure: x.r.TLS != nil}
	if telemetry {
		c.Operation = "StartTelemetrySession"
	}
	if s.own(hostname(x.r.Host)) {
		c.Host = x.r.Host
	}
	if from, err := netip.ParseAddrPort(x.r.RemoteAddr); err == nil {
		c.SourceIP = from.Addr().Unmap()
	}
	needs, err := s.cfg.AgentChannels.Needs(c, telemetry, query)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Authorizer.Authorize(x.r.Context(), c, needs); err != nil {
		return nil, err
	}
	if s.cfg.Observe != nil {
		s.cfg.Observe(c)
	}
	return s.cfg.AgentChannels.Open(c, telemetry, query)
}

// refuseAgent answers as ACS does: an object of the exception's name and its message.
func (s *Server) refuseAgent(x *exchange, err error) {
	var f *auth.Failure
	e, ok := awserr.As(err)
	switch {
	case ok:
	case errors.As(err, &f):
		e = f.In("json")
	default:
		s.log.Error("request failed", "method", x.r.Method, "path", x.r.URL.Path, "requestId", x.id, "error", err)
		e = awserr.WithStatus(http.StatusInternalServerError, "ServerException", "An internal error has occurred. The request id leads to it in the log.")
	}
	s.metrics.refusals.WithLabelValues("ecs", e.Code).Inc()
	s.log.Info("refused", "method", x.r.Method, "path", x.r.URL.Path, "code", e.Code, "message", e.Message, "from", x.r.RemoteAddr, "requestId", x.id)
	body, err := json.Marshal(map[string]string{e.Code: e.Message})
	if err != nil {
		panic(err) // two strings
	}
	x.write(max(e.Status, http.StatusBadRequest), "application/json", body)
}
