package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"runtime/debug"
	"time"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/api/wire"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

// perform runs an operation on decoded input: everything that all calls have in common, wherever they come from. The
// error is an *awserr.Error, ready to be shown in the service's protocol.
func (s *Server) perform(ctx context.Context, b *binding, c *api.Call, in any) (out any, err error) {
	if e := s.throttle(b, c); e != nil {
		return nil, e
	}
	return s.run(ctx, b, c, in)
}

// run is perform without the throttle, which is not for calls of our own parts.
func (s *Server) run(ctx context.Context, b *binding, c *api.Call, in any) (out any, err error) {
	began := s.clock.Now()
	var needs []api.Access
	var cause error // what the caller does not get to see
	defer func() {
		if p := recover(); p != nil {
			cause = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			out, err = nil, internal(b)
		}
		s.record(ctx, b, c, resourcesOf(needs), began, err, cause)
	}()
	if err := b.validate(in); err != nil {
		return nil, s.shown(b, err, &cause)
	}
	needs = b.Needs(c, in)
	for _, a := range needs {
		if b.Unsigned || b.Open {
			break
		}
		if err := s.cfg.Authorizer.Authorize(ctx, c, a); err != nil {
			return nil, s.shown(b, err, &cause)
		}
	}
	if s.cfg.Observe != nil {
		s.cfg.Observe(c)
	}
	if s.cfg.Cluster != nil && b.wire != nil && b.Events == nil {
		limit, cancel := context.WithTimeout(ctx, operationTimeout)
		defer cancel()
		ctx = limit
	}
	out, err = b.Call(api.WithCall(ctx, c), in)
	if err != nil {
		return nil, s.shown(b, err, &cause)
	}
	return out, nil
}

// operationTimeout is how long an operation may take where it can lose its leader on the way: nobody else ends its waiting for another.
const operationTimeout = time.Minute

// shown is err as the client may see it. What is not an answer by itself becomes cause, and an internal failure.
func (s *Server) shown(b *binding, err error, cause *error) *awserr.Error {
	if e, ok := awserr.As(err); ok {
		return e
	}
	var f *auth.Failure
	if errors.As(err, &f) {
		if codec, err := b.service.codec(); err == nil {
			return f.In(string(codec.Protocol()))
		}
		return f.In(string(wire.RESTJSON))
	}
	*cause = err
	switch {
	case s.cfg.Retryable != nil && s.cfg.Retryable(err):
		reason := ""
		if s.cfg.Reason != nil {
			reason = s.cfg.Reason(err)
		}
		return awserr.WithStatus(http.StatusServiceUnavailable, "ServiceUnavailable", "%s Please try again.", cmp.Or(reason, "The service is temporarily unavailable."))
	case s.cfg.TooLarge != nil && s.cfg.TooLarge(err):
		return awserr.WithStatus(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "This call asks for more than is done at once: split it, or make what it holds smaller.")
	}
	return internal(b)
}

// internal is the service's own word for a failure that is ours. SDKs retry its status.
func internal(b *binding) *awserr.Error {
	const message = "An internal error has occurred. The request id leads to it in the log."
	code := "InternalFailure"
	if codec, err := b.service.codec(); err == nil {
		switch {
		case codec.Model().ErrorShape("ServerException") != nil:
			code = "ServerException"
		case codec.Protocol() == wire.EC2:
			code = "InternalError"
		}
	}
	return awserr.WithStatus(http.StatusInternalServerError, code, message)
}

// record counts a call and writes it down: changes and failures of ours always, reads only when debugging.
func (s *Server) record(ctx context.Context, b *binding, c *api.Call, resources []string, began time.Time, err, cause error) {
	took, code := s.clock.Now().Sub(began), "OK"
	if e, ok := awserr.As(err); ok {
		code = e.Code
	}
	s.metrics.called(b.Service, b.Name, code, took)
	level := slog.LevelDebug
	if b.Mode == api.ModeWrite {
		level = slog.LevelInfo
	}
	if cause != nil {
		level = slog.LevelError
		if ctx.Err() != nil { // the client left: that is not a failure
			level = slog.LevelDebug
		}
	}
	if !s.log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("action", b.Action()), slog.String("resource", resourceText(resources)), slog.String("code", code), slog.String("caller", c.ARN),
		slog.String("account", c.Account), slog.String("region", c.Region), slog.String("requestId", c.RequestID), slog.Duration("took", took)}
	if cause != nil {
		attrs = append(attrs, slog.String("cause", cause.Error()))
	}
	s.log.LogAttrs(ctx, level, "call", attrs...)
}

func resourcesOf(needs []api.Access) []string {
	if len(needs) == 0 {
		return nil
	}
	return needs[0].Resources
}

// resourceText is what a call was on, in a word.
func resourceText(arns []string) string {
	switch len(arns) {
	case 0:
		return "*"
	case 1:
		return arns[0]
	}
	return fmt.Sprintf("%s and %d more", arns[0], len(arns)-1)
}

// Invoke implements api.Invoker.
func (s *Server) Invoke(ctx context.Context, who api.Identity, region string, in any) (any, error) {
	b := s.services.byInput[reflect.TypeOf(in)]
	if b == nil {
		return nil, fmt.Errorf("invoke %T: no such operation is bound", in)
	}
	out, err := s.run(ctx, b, &api.Call{Identity: who, Region: region, RequestID: id.UUID(rand.Reader), Service: b.Service,
		Operation: b.Name, Time: s.clock.Now(), Host: s.cfg.PublicName}, in)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// call is the context of a request's call.
func (x *exchange) call(b *binding, who api.Identity, region string) *api.Call {
	host := x.s.cfg.PublicName
	if x.s.own(hostname(x.r.Host)) {
		host = x.r.Host
	}
	c := &api.Call{Identity: who, Region: region, RequestID: x.id, Service: b.Service, Operation: b.Name, Time: x.at, Host: host,
		UserAgent: x.r.UserAgent(), Secure: x.r.TLS != nil}
	if from, err := netip.ParseAddrPort(x.r.RemoteAddr); err == nil {
		c.SourceIP = from.Addr().Unmap()
	}
	return c
}
