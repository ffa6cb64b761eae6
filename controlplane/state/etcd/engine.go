// Package etcd is the engine of package state on an etcd that exists already.
//
// The state is a log of entries and, now and then, a snapshot that takes the place of its beginning: what the raft engine keeps on
// disk, kept under a prefix of etcd. Every server feeds its machine from the log, in its order, so guards are evaluated where they are
// in the raft engine: on apply, on every server alike. docs/design/state.md says why not a key per record.
//
// One goroutine, leadership, holds a leader key with a lease, or waits for whoever holds it. Another, the proposer, joins the
// transactions that are waiting into one entry, one entry at a time. A third, the follower, watches the log; a fourth takes snapshots.
//
// Invariants:
//
//  1. Every write is one etcd transaction on the condition that the leader key is still the one that this term created. Hence nothing
//     that an earlier term sends, however late it arrives, has an effect.
//  2. The log has no holes and its entries never change: entry n is written together with the head, on the condition that the head is
//     n-1. An entry whose fate is not known is settled, by sending it again, before another one of the term is sent.
//  3. A transaction is acknowledged only after etcd has committed its entry and this server's machine has applied it.
//  4. Linearizable reads rest on a linearizable read of the head, never on the lease: clocks decide when a leader steps down, not
//     what is true.
//  5. An entry in a format of a newer version stops the engine, and so does a log that ends before what was applied.
//
// Lock order: feed.mu, then what package state locks. Engine.mu is taken on its own. None is held across I/O.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// Options of an engine.
type Options struct {
	// Connection says which etcd.
	Connection
	// Prefix is what the keys of this installation begin with, up to a slash; "/neargate" by default.
	Prefix string
	// ServerID is this server's name in the installation. It never changes, and no two servers have the same.
	ServerID string
	// Address is where other servers reach this one; empty: there are none.
	Address string
	// Installation names what the state belongs to, the same on all of its servers. A prefix that another one has taken is refused.
	Installation string
	// LeaseTTL is how long a leader that does not answer is waited for; 10 s by default, whole seconds.
	LeaseTTL time.Duration
	// DeadAfter is how long a server must have been silent before it is removed, if three others stay; 0: never. It counts from when the present
	// leader began to lead, at the earliest.
	DeadAfter time.Duration
	// SnapshotBytes is how many bytes of log are written between two snapshots, at least; 16 MiB by default. It is as many as the last
	// snapshot had, if those are more.
	SnapshotBytes int64
	// Clock tells a leader when its lease may have run out; the machine's by default. What is true does not depend on it.
	Clock  clock.Clock
	Logger *slog.Logger
}

const (
	startTimeout   = 30 * time.Second // to load the state
	requestTimeout = 6 * time.Second  // of one request to etcd, which may be made of several members in turn
	answerTimeout  = 3 * time.Second  // of one member
	feedTimeout    = time.Second      // within which an entry comes that is known to be in the log
	retryPause     = 100 * time.Millisecond
)

// Engine is a state.Engine. Open makes it.
type Engine struct {
	opts   Options
	keys   keys
	logger *slog.Logger
	client *clientv3.Client
	feed   *feed
	reads  reads

	proposals chan *proposal
	turn      chan struct{}             // of one: held while the log is written to
	snapping  chan struct{}             // of one: held while a snapshot is written; taken before turn
	overdue   chan struct{}             // of one: what is in the log does not come
	leases    map[clientv3.LeaseID]bool // this process's own, of all its terms; for takePart alone

	mu         sync.Mutex
	leadership state.Leadership
	changed    chan struct{} // leadership.Changed, to close
	term       *term         // the one announced in leadership; nil: this server does not lead
	known      []state.Member
	closing    bool

	resigned atomic.Bool // this server has handed over: another one's turn comes first

	life    context.Context // ends with Close
	end     context.CancelFunc
	failed  chan error // receives, once, why entries are no longer applied
	workers sync.WaitGroup
}

// Open connects to etcd and makes sure that the prefix is this installation's, or free. The engine runs once a store is made on it.
func Open(ctx context.Context, opts Options) (*Engine, error) {
	switch {
	case opts.ServerID == "":
		return nil, errors.New("etcd: no server id")
	case opts.Installation == "":
		return nil, errors.New("etcd: no installation")
	}
	if opts.LeaseTTL <= 0 {
		opts.LeaseTTL = 10 * time.Second
	}
	if opts.SnapshotBytes <= 0 {
		opts.SnapshotBytes = 16 << 20
	}
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	k, err := newKeys(opts.Prefix)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		opts: opts, keys: k,
		logger:    opts.Logger.With("part", "etcd"),
		proposals: make(chan *proposal, maxBatch),
		turn:      make(chan struct{}, 1),
		snapping:  make(chan struct{}, 1),
		overdue:   make(chan struct{}, 1),
		leases:    map[clientv3.LeaseID]bool{},
		changed:   make(chan struct{}),
		failed:    make(chan error, 1),
	}
	e.leadership.Changed = e.changed
	e.reads.engine = e
	e.life, e.end = context.WithCancel(context.Background())
	if e.client, err = opts.connect(ctx); err != nil {
		return nil, err
	}
	if err := e.claim(ctx); err != nil {
		return nil, errors.Join(err, e.client.Close())
	}
	return e, nil
}

// Start implements state.Engine: it loads the state, and returns when it is known who leads.
func (e *Engine) Start(m *state.Machine) error {
	e.feed = newFeed(m, e.logger, e.opts.SnapshotBytes)
	ctx, cancel := context.WithTimeout(e.life, startTimeout)
	defer cancel()
	revision, err := e.catchUp(ctx)
	for err != nil && !lasting(err) && pause(ctx, retryPause) {
		revision, err = e.catchUp(ctx)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("etcd: load the state below %s: %w", e.keys.prefix, err), e.Close())
	}
	if err := e.register(ctx); err != nil {
		return errors.Join(err, e.Close())
	}
	known := make(chan struct{})
	e.workers.Go(e.attend)
	e.workers.Go(e.heed)
	e.workers.Go(func() { e.follow(revision) })
	e.workers.Go(func() { e.takePart(sync.OnceFunc(func() { close(known) })) })
	e.workers.Go(e.propose)
	e.workers.Go(e.snapshots)
	select {
	case <-known:
		return nil
	case err := <-e.failed:
		return errors.Join(err, e.Close())
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("etcd: find out who leads: %w", ctx.Err()), e.Close())
	}
}

// Run returns when ctx has ended or the engine cannot go on; the engine is closed then. It may be called before Start.
func (e *Engine) Run(ctx context.Context) error {
	var failed error
	select {
	case <-ctx.Done():
	case <-e.life.Done():
	case failed = <-e.failed:
	}
	return errors.Join(failed, e.Close())
}

// fail ends what Run waits for. Only the first reason is kept.
func (e *Engine) fail(err error) {
	e.logger.Error("the state is no longer followed", "error", err)
	select {
	case e.failed <- err:
	default:
	}
}

// Close implements state.Engine. A leader hands over: the next one need not wait for its lease to end. It may be called twice.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		e.workers.Wait()
		return nil
	}
	e.closing = true
	e.leadership, e.term = state.Leadership{}, nil
	close(e.changed)
	e.mu.Unlock()

	e.end()
	e.workers.Wait()
	return e.client.Close()
}

func (e *Engine) closed() bool { return e.life.Err() != nil }

// pause waits before something is tried again. It returns false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
