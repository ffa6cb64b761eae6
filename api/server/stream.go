package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// streamElsewhere is elsewhere for a request whose body may be of any length: it passes through, and is not kept to be sent again.
func (s *Server) streamElsewhere(x *exchange, refuse func(error)) bool {
	if s.cfg.Cluster == nil {
		return false
	}
	body := &passing{Reader: x.r.Body}
	ctx, cancel := context.WithTimeout(x.r.Context(), leaderTimeout)
	defer cancel()
	for {
		here, leader := s.leads(ctx, x, refuse)
		if leader == "" {
			return !here
		}
		out := passOn(x.r.Context(), x.r, nil)
		if out.ContentLength = x.r.ContentLength; out.ContentLength != 0 {
			out.Body = body
		}
		if s.send(x, leader, out, refuse) {
			return true
		}
		if body.begun.Load() {
			refuse(unavailable("The server that led the cluster does not any more. Please try again."))
			return true
		}
		s.cfg.Cluster.Changed(ctx)
	}
}

// passing is a body on its way to another server.
type passing struct {
	io.Reader
	begun atomic.Bool // something of it was read, so it cannot be sent again
}

func (p *passing) Read(b []byte) (int, error) {
	p.begun.Store(true)
	return p.Reader.Read(b)
}

func (p *passing) Close() error { return nil } // it is the server's to close

// registry answers for the registry: what reads here, and only what turns out to write, or to be written, on the leader.
func (s *Server) registry(x *exchange) {
	if !isForwarded(x.r) && s.throttleRegistry(x) {
		return
	}
	if s.cfg.Cluster == nil {
		s.cfg.Registry.ServeHTTP(x.w, x.r)
		return
	}
	refuse := func(err error) { s.refuseRegistry(x, err) }
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		if !s.streamElsewhere(x, refuse) {
			s.cfg.Registry.ServeHTTP(x.w, x.r)
		}
		return
	}
	if s.elsewhere(x, false, nil, refuse) {
		return
	}
	a := &attempt{ResponseWriter: x.w}
	s.cfg.Registry.ServeHTTP(a, x.r)
	if a.unhandled && !s.elsewhere(x, true, nil, refuse) {
		s.cfg.Registry.ServeHTTP(x.w, x.r) // this server leads by now
	}
}

// refuseRegistry answers an error in the form of the distribution protocol.
func (s *Server) refuseRegistry(x *exchange, err error) {
	var e *awserr.Error
	if !errors.As(err, &e) {
		e = &awserr.Error{Status: http.StatusInternalServerError, Message: "An internal error has occurred."}
	}
	code := ""
	if e.RetryAfter > 0 {
		code = e.Code
		x.hint(e)
	}
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(struct {
		Errors []one `json:"errors"`
	}{[]one{{cmp.Or(code, "UNAVAILABLE"), e.Message}}})
	if err != nil {
		panic(err) // strings
	}
	x.write(e.Status, "application/json", body)
}

// attempt lets a handler say that the request is for the leader (api.NotLeaderHeader), before anything of its answer has gone out.
type attempt struct {
	http.ResponseWriter
	unhandled bool
}

func (a *attempt) WriteHeader(status int) {
	if h := a.Header(); status == http.StatusServiceUnavailable && h.Get(api.NotLeaderHeader) != "" {
		a.unhandled = true
		h.Del(api.NotLeaderHeader)
		h.Del("Content-Length")
		h.Del("Content-Type")
		return
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *attempt) Write(b []byte) (int, error) {
	if a.unhandled {
		return len(b), nil
	}
	return a.ResponseWriter.Write(b)
}

// ReadFrom keeps files going out without a copy.
func (a *attempt) ReadFrom(r io.Reader) (int64, error) {
	if a.unhandled {
		return io.Copy(io.Discard, r)
	}
	return io.Copy(a.ResponseWriter, r)
}

// Unwrap is for http.ResponseController.
func (a *attempt) Unwrap() http.ResponseWriter { return a.ResponseWriter }
