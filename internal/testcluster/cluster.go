// Package testcluster runs several servers' engines and stores in one process, over a network whose links can be cut, delayed and
// made lossy, with disks that can stall and fail. It is for tests only.
//
// A killed server is closed without handing over, its connections broken; what it has on the disk is kept. That no unsynced data is
// lost thereby is a limit of one process; state/raft's TestCrash kills processes.
package testcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
)

// Config says what cluster to make.
type Config struct {
	Servers int // first members, called s0, s1, …
	Schema  state.Schema
	Seed    uint64
	// Loopback uses TCP on 127.0.0.1 instead of a Network, whose functions do nothing then.
	Loopback bool
	// Configure changes the options of an engine before it is opened.
	Configure func(*raft.Options)
}

// Patient is a Configure with which nobody loses the leadership because the machine stands still for a second or two: for tests that are not about
// that. Who leads first, and next, takes as long to be found.
func Patient(o *raft.Options) { o.ElectionTimeout = 2 * time.Second }

// Cluster is a group of servers.
type Cluster struct {
	Network *Network

	t      testing.TB
	config Config
	dir    string

	mu      sync.Mutex
	servers []*Server
}

// Server is one of them. Its engine and store are others after a restart. One whose engine cannot go on is started again, as whatever runs server
// processes does.
type Server struct {
	ID      string
	Dir     string
	cluster *Cluster
	founder bool
	address string

	mu       sync.Mutex
	listener net.Listener // on Loopback, of address, until the server starts: nobody else takes it
	engine   *raft.Engine // nil: stopped
	store    *state.Store

	fault   sync.Mutex    // after mu
	stalled chan struct{} // closed when the disk goes on; nil: it does
	broken  func(raft.DiskOp) error
}

// New starts a cluster. It ends with t.
func New(t testing.TB, config Config) *Cluster {
	t.Helper()
	c := &Cluster{Network: NewNetwork(config.Seed), t: t, config: config, dir: t.TempDir()}
	t.Cleanup(c.close)
	for i := range config.Servers {
		c.add(fmt.Sprint("s", i), true)
	}
	for _, s := range c.Servers() {
		s.Start()
	}
	return c
}

func (c *Cluster) close() {
	c.Network.HealAll()
	var group sync.WaitGroup
	for _, s := range c.Servers() {
		group.Go(s.Kill)
	}
	group.Wait()
	for _, s := range c.Servers() {
		if s.listener != nil {
			s.listener.Close()
		}
	}
}

func (c *Cluster) add(id string, founder bool) *Server {
	s := &Server{ID: id, Dir: filepath.Join(c.dir, id), cluster: c, founder: founder, address: id}
	if c.config.Loopback {
		s.Move()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers = append(c.servers, s)
	return s
}

// Join starts a server that is to be added to the group.
func (c *Cluster) Join(id string) *Server {
	s := c.add(id, false)
	s.Start()
	return s
}

// Remove forgets a server that has been killed for good.
func (c *Cluster) Remove(gone *Server) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.servers = slices.DeleteFunc(slices.Clone(c.servers), func(s *Server) bool { return s == gone })
}

// Servers are all servers, running or not.
func (c *Cluster) Servers() []*Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Server(nil), c.servers...)
}

// Start opens what the server's directory holds. It does nothing if the server runs.
func (s *Server) Start() {
	s.cluster.t.Helper()
	if err := s.TryStart(); err != nil {
		s.cluster.t.Fatalf("start %s: %v", s.ID, err)
	}
}

// TryStart is Start for servers that may not come up.
func (s *Server) TryStart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine != nil {
		return nil
	}
	return s.open()
}

// open makes the engine and the store. s.mu is held.
func (s *Server) open() error {
	c := s.cluster
	opts := raft.Options{
		Dir: s.Dir, NodeID: s.ID, Disk: s.disk, Logger: logger(s.ID),
		Autopilot: raft.Autopilot{Interval: 100 * time.Millisecond, StableAfter: 300 * time.Millisecond},
	}
	if c.config.Loopback {
		l, err := s.listener, error(nil)
		if s.listener = nil; l == nil {
			l, err = net.Listen("tcp", s.address)
		}
		if err != nil {
			return err
		}
		opts.Transport = &raft.Transport{Listener: l, Address: s.address, Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}}
	} else {
		opts.Transport = &raft.Transport{Listener: c.Network.Listen(s.ID), Address: s.ID, Dial: c.Network.Dialer(s.ID)}
	}
	for _, other := range c.Servers() {
		if s.founder && other.founder {
			opts.Servers = append(opts.Servers, raft.Server{ID: other.ID, Address: other.address})
		}
	}
	if c.config.Configure != nil {
		c.config.Configure(&opts)
	}
	engine, err := raft.Open(opts)
	if err != nil {
		return errors.Join(err, opts.Transport.Listener.Close())
	}
	store, err := state.New(engine, c.config.Schema, state.Options{Logger: opts.Logger})
	if err != nil {
		return errors.Join(err, engine.Abort())
	}
	s.engine, s.store = engine, store
	go s.supervise(engine)
	return nil
}

// supervise starts the server again when its engine has ended by itself. It returns once it has, or has been closed.
func (s *Server) supervise(e *raft.Engine) {
	err := e.Run(context.Background())
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == e {
		s.engine = nil
		s.cluster.Network.Reset(s.ID)
		logger(s.ID).Error("the engine ended", "error", err, "again", s.open())
	}
}

// logger is quiet unless NEARGATE_VERBOSE is set.
func logger(id string) *slog.Logger {
	if os.Getenv("NEARGATE_VERBOSE") == "" {
		return slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("server", id)
}

// Move gives a server that is stopped another address, on Loopback.
func (s *Server) Move() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.cluster.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listener, s.address = l, l.Addr().String()
}

// Address is the one by which others dial the server.
func (s *Server) Address() string { return s.address }

// Engine is the running engine, nil if there is none.
func (s *Server) Engine() *raft.Engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.engine
}

// Store is the running store, nil if there is none.
func (s *Server) Store() *state.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.engine == nil {
		return nil
	}
	return s.store
}

// LastStore is the running store, or the one that ran last.
func (s *Server) LastStore() *state.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store
}

func (s *Server) take() *raft.Engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.engine
	s.engine = nil
	s.stall(false)
	return e
}

// stall stops the server's disk, or lets it go on.
func (s *Server) stall(stop bool) {
	s.fault.Lock()
	defer s.fault.Unlock()
	switch {
	case stop && s.stalled == nil:
		s.stalled = make(chan struct{})
	case !stop && s.stalled != nil:
		close(s.stalled)
		s.stalled = nil
	}
}

// Stop closes the server, which hands over if it leads.
func (s *Server) Stop() {
	if e := s.take(); e != nil {
		if err := e.Close(); err != nil {
			s.cluster.t.Errorf("stop %s: %v", s.ID, err)
		}
	}
}

// Kill ends the server as it stands.
func (s *Server) Kill() {
	if e := s.take(); e != nil {
		s.cluster.Network.Reset(s.ID)
		if err := e.Abort(); err != nil {
			s.cluster.t.Errorf("kill %s: %v", s.ID, err)
		}
	}
}

// Pause stops the server's disk and all its links, as far as a process can do that to a part of itself. Resume undoes it.
func (s *Server) Pause() {
	s.stall(true)
	s.Isolate()
}

// Resume lets a paused server go on.
func (s *Server) Resume() {
	s.stall(false)
	for _, other := range s.cluster.Servers() {
		s.cluster.Network.Heal(s.ID, other.ID)
		s.cluster.Network.Heal(other.ID, s.ID)
	}
}

// Isolate cuts all links of the server.
func (s *Server) Isolate() {
	for _, other := range s.cluster.Servers() {
		if other != s {
			s.cluster.Network.Cut(s.ID, other.ID)
			s.cluster.Network.Cut(other.ID, s.ID)
		}
	}
}

// BreakDisk makes the server's disk answer as broken says; nil mends it.
func (s *Server) BreakDisk(broken func(raft.DiskOp) error) {
	s.fault.Lock()
	defer s.fault.Unlock()
	s.broken = broken
}

func (s *Server) disk(op raft.DiskOp) error {
	s.fault.Lock()
	stalled, broken := s.stalled, s.broken
	s.fault.Unlock()
	if stalled != nil {
		<-stalled
	}
	if broken != nil {
		return broken(op)
	}
	return nil
}

// Leader waits for a server that leads, among those that are not in except.
func (c *Cluster) Leader(except ...*Server) *Server {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		for _, s := range c.Servers() {
			if store := s.Store(); store != nil && !slices.Contains(except, s) && store.Leadership().Term != 0 {
				return s
			}
		}
		if !pause(ctx, 2*time.Millisecond) {
			c.t.Fatal("nobody leads")
		}
	}
}

// Followers are the running servers but for leader.
func (c *Cluster) Followers(leader *Server) []*Server {
	var out []*Server
	for _, s := range c.Servers() {
		if s != leader && s.Engine() != nil {
			out = append(out, s)
		}
	}
	return out
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// Await waits until ok, at most a minute.
func (c *Cluster) Await(what string, ok func() bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for !ok() {
		if !pause(ctx, 2*time.Millisecond) {
			c.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// Update is Update on the cluster's servers, none of which is paused: it waits for a leader, and for its disk, as long as ctx allows.
func (c *Cluster) Update(ctx context.Context, fn func(tx *state.Tx) error) (state.Revision, error) {
	return Update(ctx, time.Hour, func() []*state.Store {
		var stores []*state.Store
		for _, s := range c.Servers() {
			if store := s.Store(); store != nil {
				stores = append(stores, store)
			}
		}
		return stores
	}, fn)
}

// Update runs fn on whichever of the stores leads, going on as long as nothing was committed. One that takes itself for the leader may have been
// stopped, and is given up after patience. It returns an error that is state.ErrUncertain as it is: only the caller knows whether fn may run twice.
func Update(ctx context.Context, patience time.Duration, stores func() []*state.Store, fn func(tx *state.Tx) error) (state.Revision, error) {
	for {
		err := error(state.ErrNotLeader)
		for _, store := range stores() {
			if store.Leadership().Term == 0 {
				continue
			}
			var r state.Revision
			attempt, cancel := context.WithTimeout(ctx, patience)
			r, err = store.Update(attempt, fn)
			cancel()
			if err == nil {
				return r, nil
			}
			if !state.Retryable(err) && !errors.Is(err, state.ErrClosed) || errors.Is(err, state.ErrUncertain) {
				return 0, err
			}
		}
		if !pause(ctx, 2*time.Millisecond) {
			return 0, fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}
