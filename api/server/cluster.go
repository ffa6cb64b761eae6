package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/wire"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Any server takes any request. What reads is answered here, once this server has everything that was acknowledged anywhere before the
// request came, or at once where the client says that it takes what is older. What writes goes to the leader as it came, signature
// and all, and takes the one pipeline there.
//
// Invariants: a request is passed on once, never by whom it was passed on to. It is sent again only if surely nothing was done.

// Cluster is what a server has of the others.
type Cluster interface {
	// Leader waits until somebody leads and says who; "" is this server.
	Leader(ctx context.Context) (id string, err error)
	// Changed returns once somebody else may lead than when it was called, a moment later, or with ctx.
	Changed(ctx context.Context)
	// Send passes a request on to a server. Unless sent, it has surely not got there.
	Send(ctx context.Context, id string, r *http.Request) (answer *http.Response, sent bool, err error)
	// Barrier returns once this server has everything that any server acknowledged before the call.
	Barrier(ctx context.Context) error
}

// ConsistencyHeader says what a reading request wants: "linearizable", which is the default, or "stale", what this server has.
const ConsistencyHeader = "X-Neargate-Consistency"

// What servers tell one another of the client: where it is, and whether it came by TLS.
const (
	clientHeader = "Neargate-Client"
	secureHeader = "Neargate-Secure"
)

// leaderTimeout is how long a request waits for a leader: a few elections.
const leaderTimeout = 15 * time.Second

// atOnce is the context of who does not wait.
var atOnce = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

type forwardedKey struct{}

// Forwarded answers requests that other servers pass on. Only they may reach it.
func (s *Server) Forwarded() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(context.WithValue(r.Context(), forwardedKey{}, true))
		r.RemoteAddr = r.Header.Get(clientHeader)
		r.Header.Del(clientHeader)
		if r.TLS = nil; r.Header.Get(secureHeader) != "" {
			r.TLS = new(tls.ConnectionState)
		}
		r.Header.Del(secureHeader)
		s.ServeHTTP(w, r)
	})
}

func isForwarded(r *http.Request) bool { return r.Context().Value(forwardedKey{}) != nil }

func unavailable(message string) error {
	return awserr.WithStatus(http.StatusServiceUnavailable, "ServiceUnavailable", "%s", message)
}

// elsewhere has a request answered where it has to be. False: here, and now.
func (s *Server) elsewhere(x *exchange, forLeader bool, body []byte, refuse func(error)) bool {
	if s.cfg.Cluster == nil {
		return false
	}
	if forLeader { // mostly it is known who leads
		if leader, err := s.cfg.Cluster.Leader(atOnce); err == nil && leader == "" {
			return false
		}
	}
	ctx, cancel := context.WithTimeout(x.r.Context(), leaderTimeout)
	defer cancel()
	if !forLeader {
		err := s.fresh(ctx, x.r)
		if err != nil {
			refuse(err)
		}
		return err != nil
	}
	for {
		here, leader := s.leads(ctx, x, refuse)
		if leader == "" {
			return !here
		}
		// Its context is the request's: the answer may take longer than a leader is waited for.
		if s.send(x, leader, passOn(x.r.Context(), x.r, body), refuse) {
			return true
		}
		s.cfg.Cluster.Changed(ctx)
	}
}

// leads finds out where to do what writes: here, or with the leader named. With neither the request has been refused.
func (s *Server) leads(ctx context.Context, x *exchange, refuse func(error)) (here bool, leader string) {
	leader, err := s.cfg.Cluster.Leader(ctx)
	switch {
	case err != nil:
		refuse(unavailable("No server leads the cluster just now. Please try again."))
		return false, ""
	case leader == "":
		return true, ""
	case isForwarded(x.r):
		x.w.Header().Set(api.NotLeaderHeader, "1")
		refuse(unavailable("This server does not lead the cluster any more. Please try again."))
		return false, ""
	}
	return false, leader
}

// fresh makes sure that a read sees what it has to.
func (s *Server) fresh(ctx context.Context, r *http.Request) error {
	switch want := r.Header.Get(ConsistencyHeader); want {
	case "stale":
		return nil
	case "", "linearizable":
	default:
		return awserr.WithStatus(http.StatusBadRequest, "ValidationError", "The header %s is %q: it is linearizable or stale.", ConsistencyHeader, want)
	}
	if err := s.cfg.Cluster.Barrier(ctx); err != nil {
		return unavailable("No server leads the cluster just now, so that the latest state cannot be read. Please try again, or accept what is older with " + ConsistencyHeader + ": stale.")
	}
	return nil
}

// send passes a request on and its answer back. False: nothing was done anywhere.
func (s *Server) send(x *exchange, leader string, out *http.Request, refuse func(error)) bool {
	answer, sent, err := s.cfg.Cluster.Send(out.Context(), leader, out)
	switch {
	case err != nil && !sent:
		s.log.Debug("cannot reach the leader", "leader", leader, "error", err)
		return false
	case err != nil:
		if x.r.Context().Err() == nil {
			s.log.Warn("lost the leader with a request under way", "leader", leader, "requestId", x.id, "error", err)
		}
		refuse(unavailable("The server that leads the cluster was lost while it had this request: it may have been carried out, or not."))
		return true
	}
	defer answer.Body.Close()
	if answer.Header.Get(api.NotLeaderHeader) != "" {
		_, _ = io.Copy(io.Discard, answer.Body) // the connection is of use again
		return false
	}
	x.relay(answer)
	return true
}

// relay gives another server's answer. One that is cut must not look whole.
func (x *exchange) relay(answer *http.Response) {
	for name, values := range answer.Header {
		if !slices.Contains(hopByHop, name) {
			x.w.Header()[name] = values
		}
	}
	if n := answer.ContentLength; n >= 0 && n <= smallBody && x.r.Method != http.MethodHead { // in one piece, with the headers
		body := make([]byte, n)
		if _, err := io.ReadFull(answer.Body, body); err != nil {
			panic(http.ErrAbortHandler)
		}
		x.w.WriteHeader(answer.StatusCode)
		x.w.Write(body) // the client may be gone; that is its affair
		return
	}
	x.w.WriteHeader(answer.StatusCode)
	var to io.Writer = x.w
	if answer.ContentLength < 0 { // it comes as it is made
		to = flushing{x.w, http.NewResponseController(x.w), answer.Header.Get("Content-Type") == wire.EventStreamType}
	}
	if _, err := io.Copy(to, answer.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// flushing sends out every piece as it comes.
type flushing struct {
	io.Writer
	control *http.ResponseController
	events  bool // of an event stream, which clients have to keep up with
}

func (f flushing) Write(b []byte) (int, error) {
	if f.events && f.control.SetWriteDeadline(time.Now().Add(eventTimeout)) == nil {
		defer f.control.SetWriteDeadline(time.Time{})
	}
	n, err := f.Writer.Write(b)
	if err == nil {
		err = f.control.Flush()
	}
	return n, err
}

// hopByHop are the headers that concern one connection only (RFC 9110, 7.6.1).
var hopByHop = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect"}

// passOn is r for another server: everything that is signed is as it was.
func passOn(ctx context.Context, r *http.Request, body []byte) *http.Request {
	out := &http.Request{Method: r.Method, Host: r.Host, Header: r.Header.Clone(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		URL: &url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery, ForceQuery: r.URL.ForceQuery}}
	for _, name := range hopByHop {
		out.Header.Del(name)
	}
	if out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", "") // none, rather than our client's
	}
	out.Header.Set(clientHeader, r.RemoteAddr)
	if out.Header.Del(secureHeader); r.TLS != nil {
		out.Header.Set(secureHeader, "1")
	}
	if out.Body = http.NoBody; len(body) > 0 {
		out.ContentLength = int64(len(body))
		out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		out.Body, _ = out.GetBody() // never fails
	}
	return out.WithContext(ctx)
}
