// Package forward is what tasks have in AWS_ENDPOINT_URL: it passes their API calls on to a server of the cluster, whichever answers.
//
// A call goes on as it came, Host and all, since that is what its signature covers; the server learns from which address it is. Nothing is
// sent twice: when a server is lost with a call under way, the program's SDK, which knows whether it may, sends it again.
package forward

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// Config is what a Forwarder is told.
type Config struct {
	// Dial connects to any server's port for tasks.
	Dial func(ctx context.Context) (net.Conn, error)
	// Allowed says whether who has the address may call.
	Allowed func(from netip.Addr) bool
	Logger  *slog.Logger
}

// Forwarder answers tasks. It is safe for concurrent use.
type Forwarder struct {
	cfg   Config
	to    *http.Transport
	proxy *httputil.ReverseProxy
}

// answerWithin is longer than any operation takes.
const answerWithin = 2 * time.Minute

// New makes a forwarder; no connection is made yet.
func New(cfg Config) *Forwarder {
	f := &Forwarder{cfg: cfg}
	f.to = &http.Transport{
		DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return cfg.Dial(ctx) },
		DisableCompression: true, MaxIdleConnsPerHost: 32, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: answerWithin,
	}
	f.proxy = &httputil.ReverseProxy{
		Rewrite: rewrite, Transport: f.to, FlushInterval: -1, ErrorHandler: f.failed, ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return f
}

// Close ends the connections that are idle.
func (f *Forwarder) Close() { f.to.CloseIdleConnections() }

func rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host = "http", "servers"
	r.Out.URL.RawQuery = r.In.URL.RawQuery // as it was signed
	r.Out.Host = r.In.Host
	r.Out.Header.Set(agentapi.TaskHeader, r.In.RemoteAddr)
}

// ServeHTTP passes a task's call on.
func (f *Forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !f.cfg.Allowed(from.Addr().Unmap()) {
		refuse(w, http.StatusForbidden, "AccessDeniedException", "The API is here for the tasks of this host.")
		return
	}
	f.proxy.ServeHTTP(w, r)
}

// RoundTrip sends what the agent itself calls for a task.
func (f *Forwarder) RoundTrip(r *http.Request) (*http.Response, error) { return f.to.RoundTrip(r) }

func (f *Forwarder) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil { // the program left
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	f.cfg.Logger.Warn("pass on an API call of a task", "from", r.RemoteAddr, "error", err)
	refuse(w, http.StatusServiceUnavailable, "ServiceUnavailable", "No server of the cluster can be reached just now. Please try again.")
}

// refuse answers in the form that SDKs of the JSON protocols read. All of them go by the status.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-Errortype", code)
	w.WriteHeader(status)
	_, _ = w.Write([]byte(`{"__type":"` + code + `","message":"` + message + `"}`))
}
