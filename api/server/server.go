// Package server is the one port that the outside speaks to: the AWS protocols, the REST API under /api/v1 with its
// OpenAPI document, the registry, load balancers' own names, health and metrics.
//
// Whatever comes in, an operation runs through one pipeline (perform): throttling, validation, authorization, the
// handler, then metrics and audit, with panics turned into internal failures. Calls between our own parts take the same
// way through Invoke.
//
// It knows no family: operations come as a table (api.Operation), models and codecs are bound when they are first needed,
// so that a start costs nothing for services nobody calls. docs/design/api.md tells the order of dispatch and why.
//
// Invariants: a request body is read only once the service is known, and never beyond its limit; gin sees only /api/v1;
// what a GET reaches under /api/v1 changes nothing.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// Config is what a server is made of. Operations, Credentials, Account and Region are needed; the rest has useful zeros.
type Config struct {
	Operations  []api.Operation
	Resources   []api.RESTResource // what the REST API has beside operations
	Credentials auth.Credentials
	Authorizer  auth.Authorizer // nil: auth.RootOnly
	Account     string          // of unsigned calls
	Region      string          // of HTTP Basic and unsigned calls

	// Registry answers unsigned requests under /v2/. It authenticates by itself.
	Registry http.Handler
	// DataChannels answers requests for data channels; nil: there are none.
	DataChannels DataChannels
	// AgentChannels serves Amazon's ECS agents; nil: there are none.
	AgentChannels AgentChannels
	// LoadBalancer is the handler of the load balancer or gateway that has this host name (lower case, without port), or nil.
	LoadBalancer func(host string) http.Handler
	// Ready says how the parts of this server are. The server is ready when no check has an error.
	Ready func(ctx context.Context) []Check
	// Retryable says that an error of a handler will pass (no leader just now): clients are told to try again.
	Retryable func(error) bool
	// Reason is a sentence that says to clients why it has not passed yet (the disk is full); "": nothing that is theirs to know. May be nil.
	Reason func(error) string
	// TooLarge says that an error of a handler is that the call asks for more than is done at once. May be nil.
	TooLarge func(error) bool
	// Observe is told of every call that was authorized, before its handler runs; nil: nobody is.
	Observe func(c *api.Call)
	// Cluster is what this server has of the others; nil: it is alone.
	Cluster Cluster
	// Rates are how fast calls may come.
	Rates Rates

	// Guard turns on the protections of a server that trusts its loopback: control paths refuse foreign Host and Origin
	// headers and cross-site requests.
	Guard bool
	// Names are host names that this server goes by, beside IP addresses and localhost: the public name, the domain. A
	// name also stands for every name below it.
	Names []string
	// PublicName is the host:port that names are rendered with when the client's Host header is not one of ours.
	PublicName string

	Metrics *prometheus.Registry // nil: one of its own
	Clock   clock.Clock          // nil: the real one
	Logger  *slog.Logger         // nil: slog.Default
}

// Server answers requests. It is safe for concurrent use.
type Server struct {
	cfg       Config
	services  catalogue
	resources []*resource
	verifier  *auth.Verifier
	limits    limiter
	clock     clock.Clock
	log       *slog.Logger
	metrics   metrics
	rest      http.Handler
	openapi   func() ([]byte, error)
	channels  chan struct{}   // capacity maxDataChannels: those that are open
	agents    chan struct{}   // likewise, maxAgentChannels
	waiting   sync.Mutex      // of who takes all of channels and agents
	leaving   context.Context // ends when the server begins to shut down
	leave     context.CancelFunc
}

// New checks cfg. It binds no operation yet.
func New(cfg Config) (*Server, error) {
	if cfg.Credentials == nil || cfg.Account == "" || cfg.Region == "" {
		return nil, errors.New("api server: credentials, account and region are needed")
	}
	if err := cfg.Rates.Check(); err != nil {
		return nil, fmt.Errorf("api server: %w", err)
	}
	if cfg.Authorizer == nil {
		cfg.Authorizer = auth.RootOnly{}
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	services, err := newCatalogue(cfg.Operations)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, services: services, clock: cfg.Clock, log: cfg.Logger,
		verifier: auth.NewVerifier(cfg.Credentials, cfg.Clock), channels: make(chan struct{}, maxDataChannels), agents: make(chan struct{}, maxAgentChannels)}
	if s.metrics, err = newMetrics(cfg.Metrics); err != nil {
		return nil, err
	}
	s.leaving, s.leave = context.WithCancel(context.Background())
	if s.resources, err = newResources(cfg.Resources); err != nil {
		return nil, err
	}
	if s.rest, err = s.newREST(); err != nil {
		return nil, err
	}
	s.openapi = s.newOpenAPI()
	return s, nil
}

// Times and sizes of the HTTP server. There is no limit on a whole request or answer: image layers take as long as they
// take, and a followed log has no end. Bodies of operations have a time of their own (see readBody).
const (
	headerTimeout   = 20 * time.Second
	idleTimeout     = 3 * time.Minute
	maxHeaderBytes  = 128 << 10
	shutdownTimeout = 5 * time.Second
)

// Run serves on l until ctx ends, then lets requests in flight finish for a moment. It closes l.
func (s *Server) Run(ctx context.Context, l net.Listener) error { return s.serve(ctx, l, s, nil) }

func (s *Server) serve(ctx context.Context, l net.Listener, handler http.Handler, connected func(context.Context, net.Conn) context.Context) error {
	h := &http.Server{
		Handler:           handler,
		ConnContext:       connected,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	h.RegisterOnShutdown(s.leave)
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve API on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := h.Shutdown(grace); err != nil {
		h.Close() // those who are left have had their moment
	}
	<-failed
	s.waitForChannels()
	return nil
}

// waitForChannels returns once no data channel, and none of an agent, is open: they have been told to end, and the HTTP server does not know of them. It gives back
// what it takes, for the server may have several listeners, each of which waits.
func (s *Server) waitForChannels() {
	s.waiting.Lock()
	defer s.waiting.Unlock()
	for _, open := range []chan struct{}{s.channels, s.agents} {
		for range cap(open) {
			open <- struct{}{}
		}
		for range cap(open) {
			<-open
		}
	}
}

// ServeHTTP decides by host and path who answers. The order matters: see docs/design/api.md.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.cfg.LoadBalancer != nil {
		if h := s.cfg.LoadBalancer(hostname(r.Host)); h != nil {
			h.ServeHTTP(w, r)
			return
		}
	}
	x := s.newExchange(w, r)
	defer x.recover()
	signed := auth.Signed(r)
	if reason := s.refused(r, !signed && isRegistry(r.URL.Path)); reason != "" {
		x.plain(http.StatusForbidden, "AccessDenied", reason)
		return
	}
	switch path := r.URL.Path; {
	case s.health(x, path):
	case path == "/console" || strings.HasPrefix(path, "/console/"):
		x.plain(http.StatusNotFound, "NotFound", "There is no web console yet. The API is described by /api/openapi.json.")
	case path == "/api" || strings.HasPrefix(path, "/api/"):
		s.api(x, path)
	case s.cfg.DataChannels != nil && isDataChannel(r):
		s.dataChannel(x)
	case s.cfg.AgentChannels != nil && isAgentChannel(r):
		s.agentChannel(x)
	case signed:
		s.aws(x)
	case isRegistry(path) && s.cfg.Registry != nil:
		s.registry(x)
	default:
		s.aws(x)
	}
}

func (s *Server) api(x *exchange, path string) {
	switch {
	case path == "/api/openapi.json":
		s.serveOpenAPI(x)
	case strings.HasPrefix(path, "/api/v1/"):
		s.rest.ServeHTTP(unheard{x.w.Header()}, x.r.WithContext(context.WithValue(x.r.Context(), exchangeKey{}, x)))
	default:
		x.plain(http.StatusNotFound, "NotFound", "The REST API is under /api/v1 and described by /api/openapi.json.")
	}
}

// isRegistry says whether path belongs to the OCI distribution protocol. (Signed, it is API Gateway's or AppSync's.)
func isRegistry(path string) bool { return path == "/v2" || strings.HasPrefix(path, "/v2/") }

// hostname is the host of a Host header, in lower case and without its port.
func hostname(hostport string) string {
	hostport = strings.ToLower(hostport)
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		return h
	}
	return strings.Trim(hostport, "[]")
}
