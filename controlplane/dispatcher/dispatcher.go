// Package dispatcher serves agents: each holds one stream, on which it gets the resource sets it subscribed to (assignments and
// what traffic needs) and reports what became of its tasks.
//
// A set comes in full first and then as changes, each update with the revision of the state it was read at. Subscribers acknowledge
// what they have applied, so that others can wait until everybody knows (Acknowledged, WaitAcked).
//
// Invariants:
//
//  1. What a subscriber has applied, after its last update, is what Full would give at that update's revision.
//  2. A subscriber that is slow is sent less often, not more at once: what waits for it is at most one change for each resource.
//  3. A node has one session; a newer one replaces the older.
//  4. A subscriber that went away is waited for until its lease is lost: until then it may still act on what it knows.
//  5. An agent reads and reports its own tasks only.
//  6. A node counts as a subscriber, on the leader, before the server that it has its session with sends it anything.
//  7. What an agent sends of a log goes to the reader whose request it names, if that request went to this agent's node; who reads
//     slowly slows the agent down and fills no memory, and the agent's call ends when the reader leaves.
//  8. An agent writes into log streams of its own tasks only, and what is acknowledged to it is durable.
//  9. An agent gets credentials of the roles of tasks that are on its node, and of no others.
//  10. An agent is told the secrets of tasks that are on its node, and of no others. They are in no assignment.
//  11. A command on a node ends when whoever asked for it leaves, and what it writes waits in the agent until it is taken.
//
// Lock order: Server.mu, then nothing. It is not held across I/O.
package dispatcher

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative controlplane/dispatcher/relay.proto

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/wrapperspb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/id"
	"github.com/seed-2f228079/neargate/internal/version"
)

// Source makes one kind's resources from records.
type Source interface {
	Kind() agentapi.Kind
	// Tables are those whose changes Delta wants to see.
	Tables() []state.TableInfo
	// Full is the whole set of a node.
	Full(v *state.View, node string) []*agentapi.Resource
	// Delta is what events change in the sets; v is after all of them.
	Delta(v *state.View, events []state.Event) []Change
}

// Change is one resource that changed in the set of one node, or of all.
type Change struct {
	Node     string // "": every subscriber's
	Name     string
	Resource *agentapi.Resource // nil: removed
}

// Reporter takes in task reports; orchestrator.Lifecycle is one.
type Reporter interface {
	Report(tx *state.Tx, node string, r *agentapi.TaskStatus) error
}

// Traffic takes in what proxies and health checkers report.
type Traffic interface {
	Health(ctx context.Context, node string, transitions []*agentapi.HealthTransition) error
	Drained(ctx context.Context, node string, drained []*agentapi.Drained) error
	// Repeat is what a node has reported as drained and is still of interest: a new leader has not heard it.
	Repeat(node string) []*agentapi.Drained
}

// Config of a Server. Zero durations have useful values.
type Config struct {
	Store    *state.Store
	Clock    clock.Clock
	Rand     io.Reader
	Log      *slog.Logger
	Rule     capacity.Rule
	Sources  []Source
	Reporter Reporter
	Traffic  Traffic // may be nil: reports of traffic are then refused
	// LogStreams keep the output of containers with the log driver awslogs; may be nil: it is then refused.
	LogStreams LogStreams
	// Roles make the credentials that tasks get; may be nil: they get none.
	Roles Roles
	// Secrets resolve what tasks are started with; may be nil: it is then refused.
	Secrets Secrets
	// Authorize says whether who is on the other end of the stream may act for the node; nil: everybody who can connect.
	Authorize func(ctx context.Context, nodeID string) error
	// Papers are those that hosts should have, and a channel that is closed when they are others; nil: hosts have none.
	Papers func() (*agentapi.Papers, <-chan struct{})
	// OldestAgent is the lowest version of agents that get a session; version.OldestAgent.
	OldestAgent uint32
	// Leader passes a message on to the server that leads, whose Relayed takes it in. Nil: this server is alone.
	Leader func(ctx context.Context, msg *Relay) (*RelayAnswer, error)
	// Self is the id of this server; Servers are those of the other servers, as far as they are known; nil: there are none.
	Self    string
	Servers func() []string

	Heartbeat time.Duration // how often agents report; 4 s
	Lease     time.Duration // silent for longer: the lease is lost; 10 s
	Grace     time.Duration // after that: the node is DOWN; 20 s
	// Away is for how long the tasks of a node with Amazon's agent are taken to run without a session; 5 min. That agent tries again after up to
	// 2 minutes and a fifth. It is not READY from the end of its lease on.
	Away time.Duration
}

// Server is the dispatcher of one server.
type Server struct {
	agentapi.UnimplementedDispatcherServer
	Config
	reports *reports

	mu          sync.Mutex
	subscribers map[string]*subscriber // by node
	callbacks   map[string]*callback   // by request: those whom no agent has answered yet
	published   map[agentapi.Kind]state.Revision
	changed     chan struct{} // closed when acknowledgements, leases or published revisions change; nil: nobody waits for it
	watching    bool          // the publisher follows: sessions may begin

	telling bool          // another server leads and is told of this one's nodes
	moved   []*subscriber // whose standing has changed since the last beat, while telling

	// On the leader: nodes that have their session with another server, and how far each of those has published.
	remotes map[string]*remote
	beats   map[string]map[int32]uint64
	lost    map[string][]string // by server: nodes whose sessions it is to end, with the answer to its next beat
	began   time.Time           // of this server's leadership
	term    uint64              // that it has begun
}

// lineage is the table of one record: the name of this cluster's state.
var lineage = state.NewTable("dispatcher.lineage", func(*wrapperspb.StringValue) state.Key { return state.K("incarnation") })

// Schema is the dispatcher's own tables.
var Schema = state.Schema{lineage}

// New makes a server. Register it with a grpc.Server and Run it.
func New(c Config) *Server {
	if c.Heartbeat == 0 {
		c.Heartbeat = 4 * time.Second
	}
	if c.Lease == 0 {
		c.Lease = 10 * time.Second
	}
	if c.Grace == 0 {
		c.Grace = 20 * time.Second
	}
	if c.Away == 0 {
		c.Away = 5 * time.Minute
	}
	if c.OldestAgent == 0 {
		c.OldestAgent = version.OldestAgent
	}
	s := &Server{
		Config: c, subscribers: map[string]*subscriber{}, callbacks: map[string]*callback{}, published: map[agentapi.Kind]state.Revision{},
		remotes: map[string]*remote{}, beats: map[string]map[int32]uint64{}, lost: map[string][]string{},
	}
	s.reports = newReports(s)
	return s
}

// Run publishes changes, commits reports and watches over nodes until ctx ends. Sessions are served while it runs.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.publish(ctx) })
	g.Go(func() error { return s.reports.run(ctx) })
	g.Go(func() error { return s.beat(ctx) })
	g.Go(func() error { return s.followPapers(ctx) })
	g.Go(func() error { return s.Store.RunLeader(ctx, s.watchNodes) })
	g.Go(func() error { return s.Store.RunLeader(ctx, s.makeLineage) })
	err := g.Wait()
	s.closeSessions("the server is shutting down")
	return err
}

// makeLineage names the state's lineage when it has no name yet: once in its life.
func (s *Server) makeLineage(ctx context.Context) error {
	for {
		_, err := s.Store.Update(ctx, func(tx *state.Tx) error {
			if _, ok := lineage.Get(tx, state.K("incarnation")); !ok {
				lineage.Put(tx, wrapperspb.String(id.UUID(s.Rand)))
			}
			return nil
		})
		if err == nil || ctx.Err() != nil || errors.Is(err, state.ErrNotLeader) {
			return nil
		}
		s.Log.Error("cannot name the state's lineage; trying again", "error", err)
		select {
		case <-s.Clock.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// incarnationOf is the name of the lineage that a view belongs to. A snapshot that is restored is put as a whole by a new revision, so that
// no view is both restored and of the lineage that was before.
func incarnationOf(v *state.View) (string, bool) {
	name, at, ok := lineage.GetRevision(v, state.K("incarnation"))
	if !ok {
		return "", false
	}
	return fmt.Sprintf("%s@%d", name.Value, at), true
}

// incarnation waits until the lineage has its name.
func (s *Server) incarnation(ctx context.Context) (string, error) {
	v := s.Store.View()
	if name, ok := incarnationOf(v); ok {
		return name, nil // a watch would stay until the session ends
	}
	w := s.Store.Watch(ctx, v.Revision(), lineage)
	for {
		if name, ok := incarnationOf(v); ok {
			return name, nil
		}
		b, err := w.Next(ctx)
		switch {
		case errors.Is(err, state.ErrCompacted):
			v = s.Store.View()
			w = s.Store.Watch(ctx, v.Revision(), lineage)
		case err != nil:
			return "", err
		default:
			v = b.View
		}
	}
}

// wake tells those who wait that something changed. s.mu is held.
func (s *Server) wake() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// change is what wake closes next. s.mu is held.
func (s *Server) change() <-chan struct{} {
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}
