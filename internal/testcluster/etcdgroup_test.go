package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/etcd"
	"github.com/seed-2f228079/neargate/controlplane/state/etcd/etcdtest"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/clock/clocktest"
)

// etcdGroup is three servers on an etcd of real processes, each with ways of its own to every member and with a clock of its own.
type etcdGroup struct {
	t    *testing.T
	etcd []*etcdtest.Server
	all  []*etcdServer
}

// lease is how long a leader that does not answer is waited for in this suite.
const lease = time.Second

func newEtcdGroup(t *testing.T, members int) *etcdGroup {
	t.Helper()
	// Leases last three halves of an election's time at least.
	g := &etcdGroup{t: t, etcd: etcdtest.StartCluster(t, members, "--heartbeat-interval=50", "--election-timeout=500")}
	for i := range 3 {
		s := &etcdServer{id: fmt.Sprint("s", i), t: t, clock: &stoppable{}}
		for _, member := range g.etcd {
			s.ways = append(s.ways, etcdtest.NewLink(t, member))
		}
		g.all = append(g.all, s)
		t.Cleanup(s.kill)
		s.start()
	}
	return g
}

func (g *etcdGroup) servers() []server {
	var out []server
	for _, s := range g.all {
		out = append(out, s)
	}
	return out
}

func (g *etcdGroup) members() []server { return g.servers() }

func (g *etcdGroup) mend() {
	for _, member := range g.etcd {
		member.Continue()
	}
	for _, s := range g.all {
		s.resume()
		s.start()
	}
}

// leader waits for a server that leads, other than those.
func (g *etcdGroup) leader(except ...*etcdServer) *etcdServer {
	g.t.Helper()
	var leader *etcdServer
	await(g.t, "somebody leads", func() bool {
	next:
		for _, s := range g.all {
			for _, e := range except {
				if s == e {
					continue next
				}
			}
			if store := s.Store(); store != nil && store.Leadership().Term != 0 {
				leader = s
				return true
			}
		}
		return false
	})
	return leader
}

func (g *etcdGroup) any(r *rand.Rand) *etcdServer { return g.all[r.IntN(len(g.all))] }

// follower is one that does not lead, as far as is known.
func (g *etcdGroup) follower(r *rand.Rand) *etcdServer {
	leader := g.leader()
	for {
		if s := g.any(r); s != leader {
			return s
		}
	}
}

// etcdLeader is the member that leads etcd.
func (g *etcdGroup) etcdLeader() *etcdtest.Server {
	g.t.Helper()
	var leader *etcdtest.Server
	await(g.t, "a member leads etcd", func() bool {
		for _, member := range g.etcd {
			if member.Leads() {
				leader = member
			}
		}
		return leader != nil
	})
	return leader
}

// etcdServer is one of the servers. Its engine and store are others after a restart.
type etcdServer struct {
	id    string
	t     *testing.T
	ways  []*etcdtest.Link
	clock *stoppable

	mu     sync.Mutex
	engine *etcd.Engine // nil: stopped
	store  *state.Store
}

func (s *etcdServer) name() string { return s.id }

func (s *etcdServer) Store() *state.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil {
		return nil
	}
	return s.store
}

func (s *etcdServer) save(ctx context.Context, w io.Writer) (state.Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.engine.Save(ctx, w, true)
}

// start runs the server, as often as it takes: etcd may be away just then.
func (s *etcdServer) start() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine != nil {
		return
	}
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	if os.Getenv("NEARGATE_VERBOSE") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("server", s.id)
	}
	o := etcd.Options{ServerID: s.id, Installation: "test", LeaseTTL: lease, SnapshotBytes: 256 << 10, Clock: s.clock, Logger: logger}
	for _, way := range s.ways {
		o.Endpoints = append(o.Endpoints, way.Endpoint)
	}
	await(s.t, s.id+" starts", func() bool {
		engine, err := etcd.Open(context.Background(), o)
		if err == nil {
			s.store, err = state.New(engine, statetest.Schema, state.Options{Logger: logger})
		}
		if err != nil {
			logger.Warn("start", "error", err)
			return false
		}
		s.engine = engine
		return true
	})
}

func (s *etcdServer) take() *etcd.Engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.engine
	s.engine = nil
	return e
}

// stop closes the server, which hands over if it leads.
func (s *etcdServer) stop() {
	if e := s.take(); e != nil {
		if err := e.Close(); err != nil {
			s.t.Errorf("stop %s: %v", s.id, err)
		}
	}
}

// kill ends the server without a word to etcd: its leases stay.
func (s *etcdServer) kill() {
	e := s.take()
	if e == nil {
		return
	}
	for _, way := range s.ways {
		way.Cut()
	}
	if err := e.Close(); err != nil && !errors.Is(err, context.Canceled) {
		s.t.Errorf("kill %s: %v", s.id, err)
	}
	for _, way := range s.ways {
		way.Heal()
	}
}

// hold lets nothing through to etcd, from it, or both.
func (s *etcdServer) hold(there, back bool) {
	for _, way := range s.ways {
		way.Hold(there, back)
	}
}

// pause is what SIGSTOP is to an engine, as far as a process can do that to a part of itself: its requests are under way, its time stands still.
func (s *etcdServer) pause() {
	s.clock.stop()
	s.hold(true, true)
}

// resume undoes pause, and all else that was done to the server's ways.
func (s *etcdServer) resume() {
	for _, way := range s.ways {
		way.Heal()
	}
	s.clock.goOn()
}

// stoppable is a clock that somebody sets, and that stands still at times: then it wakes nobody.
type stoppable struct {
	clocktest.Clock

	mu      sync.Mutex
	stopped chan struct{} // closed when it goes on; nil: it does
}

func (c *stoppable) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped == nil {
		c.stopped = make(chan struct{})
	}
}

func (c *stoppable) goOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped != nil {
		close(c.stopped)
		c.stopped = nil
	}
}

// After delivers once d has passed and the clock does not stand still.
func (c *stoppable) After(d time.Duration) <-chan time.Time {
	ch := make(chan time.Time, 1)
	time.AfterFunc(d, func() {
		c.mu.Lock()
		stopped := c.stopped
		c.mu.Unlock()
		if stopped != nil {
			<-stopped
		}
		ch <- c.Now()
	})
	return ch
}
