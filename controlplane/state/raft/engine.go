// Package raft is the engine of package state on hashicorp/raft and raft-wal: the default one.
//
// One goroutine, the proposer, joins the transactions that are waiting into one log entry, so that concurrent transactions
// share an fsync. Another, the leadership follower, turns raft's state into state.Leadership: a server leads, for package
// state, once a barrier of its term has been applied. Nothing is global: several groups can run in one process.
//
// Invariants:
//
//  1. A transaction is acknowledged only after its entry is durable on a majority and this server's machine has applied it.
//  2. An entry in a format of a newer version stops the engine: going on without it would make this server's copy another one.
//  3. Linearizable reads rest on the term's barrier and on a confirmation by a majority, never on a clock or lease. While
//     this server is the only voter it is the majority.
package raft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Options of an engine.
type Options struct {
	// Dir is the folder of this group, made if need be.
	Dir string
	// NodeID is this server's name in the group. It never changes for a given Dir.
	NodeID string
	// Transport connects to the other servers; closed with the engine. Nil: this server is alone.
	Transport raft.Transport
	// Servers are the first members of a new group, this one included. Ignored once Dir holds state. Empty: this server alone.
	Servers []raft.Server
	// SnapshotBytes is how many bytes of log are applied between two snapshots; 64 MiB by default.
	SnapshotBytes int64
	Logger        *slog.Logger
}

const (
	startTimeout = 30 * time.Second // of a server that is alone, replaying its log included
	segmentBytes = 16 << 20         // of the write-ahead log; written ahead when a segment is made
	snapshotKeep = 2
)

// Engine is a state.Engine. Open makes it.
type Engine struct {
	opts   Options
	alone  bool
	logger *slog.Logger

	log       *wal.WAL
	meta      metadb.BoltMetaDB // of log, which does not close it
	snapshots raft.SnapshotStore
	transport raft.Transport
	raft      *raft.Raft
	fsm       *fsm

	proposals chan *proposal
	reads     readIndex

	mu         sync.Mutex
	leadership state.Leadership
	changed    chan struct{} // leadership.Changed, to close
	closing    bool

	failed  chan error    // receives, once, why entries are no longer applied
	stop    chan struct{} // closed by Close
	workers sync.WaitGroup
}

// Open opens what dir holds. The engine runs once a store is made on it.
func Open(opts Options) (*Engine, error) {
	if opts.NodeID == "" {
		return nil, errors.New("raft: no node id")
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.SnapshotBytes <= 0 {
		opts.SnapshotBytes = 64 << 20
	}
	e := &Engine{
		opts:      opts,
		alone:     opts.Transport == nil,
		logger:    opts.Logger.With("part", "raft"),
		transport: opts.Transport,
		proposals: make(chan *proposal, maxBatch),
		changed:   make(chan struct{}),
		failed:    make(chan error, 1),
		stop:      make(chan struct{}),
	}
	e.leadership.Changed = e.changed
	e.reads.engine = e
	logDir := filepath.Join(opts.Dir, "log")
	if err := os.MkdirAll(logDir, 0o700); err != nil {
		return nil, fmt.Errorf("raft: %w", err)
	}
	var err error
	if e.log, err = wal.Open(logDir, wal.WithMetaStore(&e.meta), wal.WithSegmentSize(segmentBytes), wal.WithLogger(e.hclog())); err != nil {
		return nil, errors.Join(fmt.Errorf("raft: open log: %w", err), e.meta.Close())
	}
	if err := removeUnfinished(opts.Dir); err != nil {
		return nil, errors.Join(err, e.log.Close(), e.meta.Close())
	}
	if e.snapshots, err = raft.NewFileSnapshotStoreWithLogger(opts.Dir, snapshotKeep, e.hclog()); err != nil {
		return nil, errors.Join(fmt.Errorf("raft: open snapshots: %w", err), e.log.Close(), e.meta.Close())
	}
	if e.alone {
		_, e.transport = raft.NewInmemTransport(raft.ServerAddress(opts.NodeID))
	}
	return e, nil
}

// removeUnfinished removes snapshots that a crash cut short. Raft passes over them but leaves them for ever.
func removeUnfinished(dir string) error {
	found, err := filepath.Glob(filepath.Join(escapeGlob.Replace(dir), "snapshots", "*.tmp"))
	for _, name := range found {
		err = errors.Join(err, os.RemoveAll(name))
	}
	if err != nil {
		return fmt.Errorf("raft: remove unfinished snapshots: %w", err)
	}
	return nil
}

var escapeGlob = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

// Start implements state.Engine.
func (e *Engine) Start(m *state.Machine) error {
	conf := e.config()
	if err := e.bootstrap(conf); err != nil {
		return err
	}
	e.fsm = &fsm{machine: m, logger: e.logger, snapshotBytes: e.opts.SnapshotBytes, snapshotDue: make(chan struct{}, 1), failed: e.failed}
	notify := make(chan bool, 64) // raft waits when it is full
	conf.NotifyCh = notify
	var err error
	if e.raft, err = raft.NewRaft(conf, e.fsm, e.log, e.log, e.snapshots, e.transport); err != nil {
		return fmt.Errorf("raft: start: %w", err)
	}
	observations := make(chan raft.Observation, 64)
	observer := raft.NewObserver(observations, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	e.raft.RegisterObserver(observer)
	e.workers.Go(func() {
		e.followLeadership(notify, observations)
		e.raft.DeregisterObserver(observer)
	})
	e.workers.Go(e.propose)
	e.workers.Go(e.snapshotBySize)
	if !e.alone {
		return nil
	}
	if err := e.leadAtOnce(); err != nil {
		return errors.Join(err, e.Close())
	}
	select {
	case err := <-e.failed:
		return errors.Join(err, e.Close())
	default:
		return nil
	}
}

func (e *Engine) config() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(e.opts.NodeID)
	c.Logger = e.hclog()
	c.MaxAppendEntries = 1024
	c.NoLegacyTelemetry = true
	// Replay is bounded by bytes (see snapshotBySize), not by the number of entries, which are of very different sizes.
	c.SnapshotThreshold = 1 << 16
	if c.TrailingLogs = 8192; e.alone {
		c.TrailingLogs = 128 // nobody lags behind
	}
	return c
}

func (e *Engine) bootstrap(conf *raft.Config) error {
	has, err := raft.HasExistingState(e.log, e.log, e.snapshots)
	if err != nil {
		return fmt.Errorf("raft: read log: %w", err)
	}
	if has {
		return nil
	}
	servers := e.opts.Servers
	if len(servers) == 0 {
		servers = []raft.Server{{ID: conf.LocalID, Address: e.transport.LocalAddr()}}
	}
	if err := raft.BootstrapCluster(conf, e.log, e.log, e.snapshots, e.transport, raft.Configuration{Servers: servers}); err != nil {
		return fmt.Errorf("raft: begin group: %w", err)
	}
	return nil
}

// leadAtOnce makes this server, which is the only one, leader without waiting out an election timeout, and returns when
// everything in the log has been applied. It sends itself what a leader sends to whom it hands over to.
func (e *Engine) leadAtOnce() error {
	members := e.raft.GetConfiguration()
	if err := members.Error(); err != nil {
		return fmt.Errorf("raft: read members: %w", err)
	}
	if s := members.Configuration().Servers; len(s) != 1 || s[0].ID != raft.ServerID(e.opts.NodeID) {
		return fmt.Errorf("raft: %s belongs to the group %v, not to server %s alone", e.opts.Dir, s, e.opts.NodeID)
	}
	id, addr := raft.ServerID(e.opts.NodeID), e.transport.LocalAddr()
	_, self := raft.NewInmemTransport("self")
	self.Connect(addr, e.transport)
	defer self.Close()
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: self.EncodePeer(id, addr)}
	if err := self.TimeoutNow(id, addr, &raft.TimeoutNowRequest{RPCHeader: header}, &raft.TimeoutNowResponse{}); err != nil {
		return fmt.Errorf("raft: call election: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := e.awaitLeading(ctx); err != nil {
		return fmt.Errorf("raft: wait for leadership: %w", err)
	}
	return nil
}

// Run returns when ctx has ended or the engine cannot go on; the engine is closed then. It may be called before Start.
func (e *Engine) Run(ctx context.Context) error {
	var failed error
	select {
	case <-ctx.Done():
	case <-e.stop:
	case failed = <-e.failed:
	}
	return errors.Join(failed, e.Close())
}

// Close implements state.Engine. It may be called twice.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		e.workers.Wait()
		return nil
	}
	e.closing = true
	e.leadership = state.Leadership{}
	close(e.changed)
	e.mu.Unlock()

	close(e.stop)
	var errs []error
	if e.raft != nil {
		errs = append(errs, e.raft.Shutdown().Error())
	}
	e.workers.Wait()
	if c, ok := e.transport.(io.Closer); ok {
		errs = append(errs, c.Close())
	}
	errs = append(errs, e.log.Close(), e.meta.Close())
	return errors.Join(errs...)
}

// hclog passes what raft logs on to slog. Its chatter about elections and snapshots is for debugging.
func (e *Engine) hclog() hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Output: io.Discard, Level: hclog.Debug})
	l.RegisterSink(sink{e.logger})
	return l
}

type sink struct{ logger *slog.Logger }

func (s sink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch level {
	case hclog.Warn:
		to = slog.LevelWarn
	case hclog.Error:
		to = slog.LevelError
	}
	s.logger.Log(context.Background(), to, msg, args...)
}
