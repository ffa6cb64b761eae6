// Package raft is the engine of package state on hashicorp/raft and raft-wal: the default one.
//
// One goroutine, the proposer, joins the transactions that are waiting into one log entry, so that concurrent transactions
// share an fsync. Another, the leadership follower, turns raft's state into state.Leadership: a server leads, for package
// state, once a barrier of its term has been applied. A third, on the leader, looks after the members. Nothing is global: several
// groups can run in one process. What servers say to one another goes over connections that the caller supplies (Transport).
//
// Invariants:
//
//  1. A transaction is acknowledged only after its entry is durable on a majority and this server's machine has applied it.
//  2. An entry in a format of a newer version, or a damaged one, stops the engine: going on without it would make this server's
//     copy another one.
//  3. Linearizable reads, on any server, rest on the term's barrier and on a confirmation by a majority that began after the
//     read, never on a clock or lease.
//  4. After a write to the disk has failed nothing more is acknowledged, nor voted for, until the log has been opened anew.
//  5. A server that is alone, or the only voter, leads at once.
package raft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// Options of an engine.
type Options struct {
	// Dir is the folder of this group, made if need be.
	Dir string
	// NodeID is this server's name in the group. It never changes for a given Dir.
	NodeID string
	// Transport connects to the other servers. Nil: this server is alone.
	Transport *Transport
	// Servers are the first members of a new group, this one included: the same list on each of them. Ignored once Dir holds state.
	// Empty: the group is this server if it is alone; with a transport it waits for the leader of a group to add it.
	Servers []Server
	// ElectionTimeout is for how long a leader may be silent; 500 ms by default. The same on all servers.
	ElectionTimeout time.Duration
	Autopilot       Autopilot
	// SnapshotBytes is how many bytes of log are applied between two snapshots, or as many as the last one had; 64 MiB by default.
	SnapshotBytes int64
	// SegmentBytes is the size of the log's files, which are allocated as a whole; 16 MiB by default.
	SegmentBytes int64
	// MinFreeBytes is how much room Dir's file system must have for writes to be accepted; 64 MiB by default.
	MinFreeBytes int64
	// Disk, if set, is asked before things are done to the disk, and its error is as good as the disk's own. It may block. For tests.
	Disk func(DiskOp) error
	// commitTimeout is after what time raft itself tells followers what is committed, if nothing else comes. For tests.
	commitTimeout time.Duration
	Clock         clock.Clock // of the autopilot; the machine's by default
	Logger        *slog.Logger
}

const (
	startTimeout = 30 * time.Second // of a server that is alone, replaying its log included
	snapshotKeep = 2
	// aloneTimeout is raft's default: a shorter one would wake a server that is alone more often, for nothing.
	aloneTimeout = time.Second
)

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.SnapshotBytes <= 0 {
		o.SnapshotBytes = 64 << 20
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 16 << 20
	}
	if o.MinFreeBytes <= 0 {
		o.MinFreeBytes = 64 << 20
	}
	if o.ElectionTimeout <= 0 {
		o.ElectionTimeout = 500 * time.Millisecond
	}
	if o.Transport == nil {
		o.ElectionTimeout = aloneTimeout
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	o.Autopilot.setDefaults()
}

// address is this server's own.
func (o *Options) address() string {
	if o.Transport == nil {
		return o.NodeID
	}
	return o.Transport.Address
}

// Engine is a state.Engine. Open makes it.
type Engine struct {
	opts    Options
	alone   bool
	timeout time.Duration // as Options.ElectionTimeout
	logger  *slog.Logger

	disk      *disk
	room      *room
	snapshots *snapshots
	links     *links
	raft      *raft.Raft
	fsm       *fsm

	proposals  chan *proposal
	slots      chan struct{} // one is held for every entry under way; see idle
	reads      readIndex
	callers    callers
	confirmers confirmers
	notices    notices
	health     health

	mu         sync.Mutex
	leadership state.Leadership
	changed    chan struct{} // leadership.Changed, to close
	closing    bool

	failed  chan error      // of one: why this engine cannot go on
	started chan struct{}   // closed when raft and fsm are there
	life    context.Context // ends with Close
	end     context.CancelFunc
	stop    <-chan struct{} // life's
	down    chan struct{}   // closed when raft has ended
	workers sync.WaitGroup
}

// Open opens what dir holds. The engine runs once a store is made on it.
func Open(opts Options) (_ *Engine, err error) {
	switch t := opts.Transport; {
	case opts.NodeID == "":
		return nil, errors.New("raft: no node id")
	case t != nil && (t.Listener == nil || t.Dial == nil || t.Address == ""):
		return nil, errors.New("raft: a transport needs a listener, a dial function and an address")
	}
	opts.setDefaults()
	e := &Engine{
		opts:      opts,
		alone:     opts.Transport == nil,
		timeout:   opts.ElectionTimeout,
		logger:    opts.Logger.With("part", "raft"),
		proposals: make(chan *proposal, maxBatch),
		slots:     make(chan struct{}, maxInFlight),
		changed:   make(chan struct{}),
		health:    health{interval: opts.Autopilot.Interval},
		failed:    make(chan error, 1),
		started:   make(chan struct{}),
		down:      make(chan struct{}),
	}
	e.life, e.end = context.WithCancel(context.Background())
	e.stop = e.life.Done()
	e.leadership.Changed = e.changed
	e.reads.engine = e
	e.room = &room{dir: opts.Dir, minimum: opts.MinFreeBytes, logger: e.logger}
	e.disk, err = openDisk(&disk{
		dir: filepath.Join(opts.Dir, "log"), size: opts.SegmentBytes, space: e.room.check, inject: opts.Disk, fail: e.fail,
		logger: e.hclog(), closing: e.life,
	})
	if err != nil {
		return nil, fmt.Errorf("raft: open log: %w", err)
	}
	if e.snapshots, err = openSnapshots(opts.Dir, e.hclog()); err != nil {
		return nil, errors.Join(fmt.Errorf("raft: open snapshots: %w", err), e.disk.Close())
	}
	t := Transport{Address: opts.address()}
	if !e.alone {
		t = *opts.Transport
	}
	e.links = newLinks(t, e.config(), 10*e.timeout, e.callee, e.outdated, e.abstains)
	e.callers.links = e.links
	e.notices = notices{engine: e, due: make(chan struct{}, 1), to: map[raft.ServerID]*noticed{}}
	e.links.sending, e.links.answered = e.notices.sending, e.notices.answered
	return e, nil
}

// Start implements state.Engine.
func (e *Engine) Start(m *state.Machine) error {
	conf := e.config()
	if err := e.bootstrap(conf); err != nil {
		return err
	}
	e.fsm = &fsm{machine: m, logger: e.logger, fail: e.fail, told: e.notices.applied, file: e.disk.file, snapshotBytes: e.opts.SnapshotBytes, snapshotDue: make(chan struct{}, 1)}
	notify := make(chan bool, 64) // raft waits when it is full
	conf.NotifyCh = notify
	if err := e.newRaft(conf); err != nil {
		return fmt.Errorf("raft: start: %w", err)
	}
	close(e.started)
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
	e.workers.Go(e.disk.heal)
	if !e.alone {
		e.workers.Go(e.autopilot)
		e.workers.Go(e.notices.run)
	}
	if err := e.leadAtOnce(conf); err != nil {
		return errors.Join(err, e.Abort())
	}
	select {
	case err := <-e.failed:
		return errors.Join(err, e.Abort())
	default:
		return nil
	}
}

// newRaft starts raft on what is on the disk.
func (e *Engine) newRaft(conf *raft.Config) (err error) {
	if err := e.snapshots.prepare(e.disk); err != nil {
		return err
	}
	defer func() { // raft panics when it cannot read its log
		if p := recover(); p != nil {
			err = &state.DamagedError{Path: e.disk.dir, Advice: adviceDamaged, Err: fmt.Errorf("%v", p)}
		}
	}()
	switch e.raft, err = raft.NewRaft(conf, e.fsm, e.disk, e.disk, e.snapshots, e.links); {
	case err != nil && e.fsm.halted != nil:
		return e.fsm.halted
	case err != nil && e.snapshots.damage() != nil:
		return e.snapshots.damage()
	}
	e.snapshots.offerAll()
	return err
}

func (e *Engine) config() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(e.opts.NodeID)
	c.Logger = e.hclog()
	// A leader that hears of nobody gives up no sooner than the others give it up.
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = e.timeout, e.timeout, e.timeout
	if e.opts.commitTimeout > 0 {
		c.CommitTimeout = e.opts.commitTimeout
	}
	c.MaxAppendEntries = 64 // of up to maxBatch transactions each
	c.NoLegacyTelemetry = true
	c.ShutdownOnRemove = false
	// Replay is bounded by bytes (see snapshotBySize), not by the number of entries, which are of very different sizes.
	c.SnapshotThreshold = 1 << 16
	c.TrailingLogs = maxTrailing // see snapshotBySize, too
	return c
}

// rpcTimeout is how long another server may take to answer a call.
func (e *Engine) rpcTimeout() time.Duration { return e.timeout }

func (e *Engine) bootstrap(conf *raft.Config) error {
	has, err := raft.HasExistingState(e.disk, e.disk, e.snapshots)
	if err != nil {
		return fmt.Errorf("raft: read log: %w", err)
	}
	if has {
		return nil
	}
	var members raft.Configuration
	for _, s := range e.opts.Servers {
		members.Servers = append(members.Servers, raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Address)})
	}
	switch {
	case len(members.Servers) > 0:
	case e.alone:
		members.Servers = []raft.Server{{ID: conf.LocalID, Address: e.links.LocalAddr()}}
	default:
		return nil // somebody will add this server
	}
	if err := raft.BootstrapCluster(conf, e.disk, e.disk, e.snapshots, e.links, members); err != nil {
		return fmt.Errorf("raft: begin group: %w", err)
	}
	return nil
}

// leadAtOnce makes this server, if it is the only voter, leader without waiting out an election timeout, and returns when
// everything in the log has been applied. It sends itself what a leader sends to whom it hands over to.
func (e *Engine) leadAtOnce(conf *raft.Config) error {
	id := raft.ServerID(e.opts.NodeID)
	only := true
	members := e.configuration()
	for _, s := range members {
		only = only && (s.ID == id || s.Suffrage != raft.Voter)
	}
	switch {
	case e.alone && len(members) == 0:
		return &state.DamagedError{Path: e.disk.dir, Advice: adviceDamaged, Err: errors.New("there was a log, and it is empty")}
	case e.alone && (len(members) != 1 || members[0].ID != id):
		return fmt.Errorf("raft: %s belongs to the group %v, not to server %s alone", e.opts.Dir, members, e.opts.NodeID)
	case len(members) == 0 || !only:
		return nil
	}
	self := e.links.loopback(conf)
	defer self.Close()
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: e.links.EncodePeer(id, e.links.LocalAddr())}
	if err := self.TimeoutNow(id, "", &raft.TimeoutNowRequest{RPCHeader: header}, &raft.TimeoutNowResponse{}); err != nil {
		return fmt.Errorf("raft: call election: %w", err)
	}
	self.CloseStreams()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := e.awaitLeading(ctx); err != nil {
		select {
		case failed := <-e.failed:
			return failed
		default:
		}
		return fmt.Errorf("raft: wait for leadership: %w", err)
	}
	return nil
}

// fail ends the engine: Run returns err, or Start does.
func (e *Engine) fail(err error) {
	select {
	case e.failed <- err:
	default:
	}
}

// Run returns when ctx has ended or the engine cannot go on; the engine is closed then. It may be called before Start.
func (e *Engine) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-e.stop:
	case err := <-e.failed:
		return errors.Join(err, e.Abort())
	}
	return e.Close()
}

// Close implements state.Engine. A leader hands over first, so that the others need not wait out an election timeout. It may be
// called twice.
func (e *Engine) Close() error { return e.close(true) }

// Abort closes the engine at once, whoever leads.
func (e *Engine) Abort() error { return e.close(false) }

func (e *Engine) close(handOver bool) error {
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		<-e.down
		e.workers.Wait()
		return nil
	}
	e.closing = true
	leading := e.leadership.Term != 0
	e.leadership = state.Leadership{}
	close(e.changed)
	e.mu.Unlock()

	if handOver && leading && !e.alone {
		e.handOver()
	}
	e.end()
	var errs []error
	if e.raft != nil {
		ended := e.raft.Shutdown()
		errs = append(errs, e.links.Close(), ended.Error()) // in this order: raft waits for its connections
	} else {
		errs = append(errs, e.links.Close())
	}
	close(e.down)
	e.workers.Wait()
	errs = append(errs, e.disk.Close())
	return errors.Join(errs...)
}

// handOver lets what has been proposed come to its end, and another server lead.
func (e *Engine) handOver() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*e.timeout)
	defer cancel()
	if _, err := e.idle(ctx); err != nil {
		e.logger.Warn("some transactions are still under way", "error", err)
	}
	to, err := pick(e.describe(), "")
	if err != nil {
		return // there is nobody
	}
	if err := e.await(ctx, "hand over to "+string(to.ID), func() raft.Future {
		return e.raft.LeadershipTransferToServer(to.ID, to.Address)
	}); err != nil {
		e.logger.Warn("leadership could not be handed over", "error", err)
	}
}

func (e *Engine) closed() bool { return e.Leadership().Changed == nil }

// Health says why nothing can be written on this server though somebody may lead: its disk fails, or has no room left.
func (e *Engine) Health(context.Context) error { return e.writable() }

// writable says why nothing can be written on this server, nil if it can.
func (e *Engine) writable() error {
	if err := e.disk.problem(); err != nil {
		return err
	}
	return e.room.check()
}
