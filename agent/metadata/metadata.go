// Package metadata is what a host offers to the programs in its tasks, at one address:
//
//   - the task metadata endpoint (version 4, and 3 with the same answers), ECS_CONTAINER_METADATA_URI_V4: what a task and its containers are, and
//     what they use;
//   - the credentials of the task's role, AWS_CONTAINER_CREDENTIALS_RELATIVE_URI (credentials.go);
//   - scale-in protection and fault injection, ECS_AGENT_URI (protection.go, fault.go);
//   - the API of the cluster, AWS_ENDPOINT_URL: whatever is signed, or asks for nothing of the above.
//
// A container's URIs name its task and itself. An address is answered about its own task only; on the loopback address, where tasks with
// network mode host ask, about those tasks only. The URIs by which a program acts as its task have an id in them that is hard to guess.
//
// See "Amazon ECS task metadata endpoint version 4", "task IAM role" and "task scale-in protection endpoint" in the ECS developer guide.
package metadata

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// Task is what the agent knows of a task.
type Task struct {
	Assignment *agentapi.Assignment
	Status     *agentapi.TaskStatus
}

// Config is what a server is told.
type Config struct {
	// Task finds the task with an id, if whoever has the address may know of it.
	Task func(id string, from netip.Addr) (Task, bool)
	// Stats of a running container: runtime.Driver's.
	Stats func(ctx context.Context, taskID, container string) (runtime.Stats, error)
	// Storage is what a task uses of its ephemeral storage; nil: the driver gives none.
	Storage func(ctx context.Context, taskID string) (runtime.Storage, error)
	Zone    string // availability zone of this host
	// Named finds the task whose containers know an id that is hard to guess, if whoever has the address may use it; ErrUnknown: there is none.
	Named func(id string, from netip.Addr) (Task, error)
	// Credentials are those of a task's role; ErrUnknown: it has none.
	Credentials func(ctx context.Context, taskID string) (*agentapi.RoleCredentialsAnswer, error)
	// Faults makes tasks' networks faulty; nil: the driver cannot.
	Faults runtime.FaultInjector
	// Endpoint is where the tasks of a network mode have this server; invalid: nowhere.
	Endpoint func(networkMode string) netip.AddrPort
	// Clock is that of the limit of requests; nil: the machine's.
	Clock clock.Clock
	// API passes on what is for the cluster.
	API API
	// Listeners are served until Run's context ends.
	Listeners []net.Listener
	Logger    *slog.Logger
}

// API is the way to the cluster's API; forward.Forwarder is one.
type API interface {
	http.Handler
	http.RoundTripper
}

// Server answers containers.
type Server struct {
	cfg Config

	mu       sync.Mutex
	previous map[string]runtime.Stats // by endpoint: the sample before, for programs that take differences

	asked limiter // for faults
}

// New makes a server.
func New(cfg Config) *Server {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	return &Server{cfg: cfg, previous: map[string]runtime.Stats{}}
}

// EndpointID names a container in its URI, by the form that Fargate's runtime ids have.
func EndpointID(taskID, container string) string {
	return fmt.Sprintf("%s-%010d", taskID, crc32.ChecksumIEEE([]byte(container)))
}

// Run serves the listeners until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	h := &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug)}
	ended := make(chan error, len(s.cfg.Listeners))
	for _, l := range s.cfg.Listeners {
		go func() { ended <- h.Serve(l) }()
	}
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-ended:
		ended <- failed // counted again below
	}
	h.Close()
	for range s.cfg.Listeners {
		<-ended
	}
	if ctx.Err() != nil {
		return nil
	}
	return failed
}

// ServeHTTP decides by the path who answers. A signed request is the API's, whose services have paths like ours.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	version, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	switch {
	case err != nil:
		fail(w, http.StatusBadRequest, err.Error())
	case signed(r):
		s.cfg.API.ServeHTTP(w, r)
	case version == "v3" || version == "v4":
		s.metadata(w, r, version, rest, from.Addr().Unmap())
	case version == "v2" && (rest == "credentials" || strings.HasPrefix(rest, "credentials/")):
		s.credentials(w, r, strings.TrimPrefix(strings.TrimPrefix(rest, "credentials"), "/"), from.Addr().Unmap())
	case version == "api":
		id, what, _ := strings.Cut(rest, "/")
		if fault, ok := strings.CutPrefix(what, "fault/v1/"); ok {
			s.fault(w, r, id, fault, from.Addr().Unmap())
			return
		}
		s.protection(w, r, rest, from.Addr().Unmap())
	default:
		s.cfg.API.ServeHTTP(w, r)
	}
}

// signed says whether a request has a signature, in its header or its query.
func signed(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-") || r.URL.Query().Has("X-Amz-Signature")
}

// metadata answers GET /v4/ENDPOINT, …/task, …/stats and …/task/stats, and the same below /v3.
func (s *Server) metadata(w http.ResponseWriter, r *http.Request, version, rest string, from netip.Addr) {
	endpoint, what, _ := strings.Cut(rest, "/")
	if r.Method != http.MethodGet {
		fail(w, http.StatusMethodNotAllowed, "the task metadata endpoint is read with GET")
		return
	}
	taskID, _, _ := strings.Cut(endpoint, "-")
	t, ok := s.task(r.Context(), taskID, endpoint, from)
	container := t.container(endpoint)
	if !ok || container == nil {
		fail(w, http.StatusNotFound, fmt.Sprintf("V%s metadata handler: unable to get container for endpoint %q", version[1:], endpoint))
		return
	}
	var answer any
	var err error
	switch strings.TrimSuffix(what, "/") {
	case "":
		answer = describeContainer(t, container)
	case "task":
		answer = s.describeTask(r.Context(), t)
	case "stats":
		answer, err = s.stats(r.Context(), t, container)
	case "task/stats":
		answer, err = s.taskStats(r.Context(), t)
	default:
		fail(w, http.StatusNotFound, "404 page not found")
		return
	}
	switch {
	case errors.Is(err, runtime.ErrNotFound):
		fail(w, http.StatusNotFound, fmt.Sprintf("V%s stats handler: unable to get container stats: the container does not run", version[1:]))
	case err != nil:
		s.cfg.Logger.Warn("statistics for a container", "task", taskID, "error", err)
		fail(w, http.StatusInternalServerError, fmt.Sprintf("V%s stats handler: unable to get container stats", version[1:]))
	default:
		write(w, http.StatusOK, answer)
	}
}

// startWithin is how long the word of a container's start may take to come after its first question.
const startWithin = 2 * time.Second

// task finds the task. A program may ask before its own start is known here: then it waits.
func (s *Server) task(ctx context.Context, id, endpoint string, from netip.Addr) (Task, bool) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for {
		t, ok := s.cfg.Task(id, from)
		c := t.container(endpoint)
		if !ok || c == nil || t.status(c.Name).GetState() >= agentapi.ContainerState_CONTAINER_RUNNING {
			return t, ok
		}
		select {
		case <-ctx.Done():
			return t, ok
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s *Server) stats(ctx context.Context, t Task, c *agentapi.ContainerSpec) (*containerStats, error) {
	now, err := s.cfg.Stats(ctx, t.Assignment.TaskId, c.Name)
	if err != nil {
		return nil, err
	}
	endpoint := EndpointID(t.Assignment.TaskId, c.Name)
	before := s.keep(endpoint, now)
	now.PreRead, now.PreCPU = before.Read, before.CPU
	out := &containerStats{Name: c.Name, ID: endpoint, Stats: now}
	if status := t.status(c.Name); status != nil && status.RuntimeId != "" {
		out.ID = status.RuntimeId
	}
	return out, nil
}

// keepFor bounds how long a sample waits for the next one; nobody takes differences over longer times.
const keepFor = 10 * time.Minute

// keep replaces the sample before, and answers it. Samples of tasks that are gone end with their time.
func (s *Server) keep(endpoint string, now runtime.Stats) (before runtime.Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e, old := range s.previous {
		if now.Read.Sub(old.Read) > keepFor {
			delete(s.previous, e)
		}
	}
	before = s.previous[endpoint]
	s.previous[endpoint] = now
	return before
}

// taskStats has an entry a container; those that do not run have none to show.
func (s *Server) taskStats(ctx context.Context, t Task) (map[string]*containerStats, error) {
	all := map[string]*containerStats{}
	for _, c := range t.Assignment.Spec.Containers {
		one, err := s.stats(ctx, t, c)
		switch {
		case errors.Is(err, runtime.ErrNotFound):
			all[EndpointID(t.Assignment.TaskId, c.Name)] = nil
		case err != nil:
			return nil, err
		default:
			all[one.ID] = one
		}
	}
	return all, nil
}

// fail answers as the ECS agent does: the text as a JSON string.
func fail(w http.ResponseWriter, status int, text string) { write(w, status, text) }

func write(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // our own structs
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(b)
}

// container is the one that an endpoint names; nil: none.
func (t Task) container(endpoint string) *agentapi.ContainerSpec {
	for _, c := range t.Assignment.GetSpec().GetContainers() {
		if EndpointID(t.Assignment.TaskId, c.Name) == endpoint {
			return c
		}
	}
	return nil
}

func (t Task) status(container string) *agentapi.ContainerStatus {
	for _, c := range t.Status.GetContainers() {
		if c.Name == container {
			return c
		}
	}
	return nil
}
