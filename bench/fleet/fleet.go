// Package fleet is a crowd of hosts that run nothing. Each has a key, a certificate, a connection and a session of its own and speaks
// the agents' protocol as package agent does, but its tasks are entries of a map: thousands share a process, so that what is
// measured is the servers.
//
// A host reports a task ACTIVATING soon, RUNNING after Start, and STOPPED when it is told to stop; as with an agent, what is not urgent goes with
// what is, or a moment later. It follows assignments only: what
// proxies and DNS servers subscribe to is not in it.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/trust"
)

// Config of a Fleet.
type Config struct {
	Servers []string // peer addresses
	Token   string   // the cluster's join token
	Dir     string   // hosts' keys go below it
	Hosts   int
	Zones   []string // hosts take them in turns
	Cluster string
	CPU     uint32 // of a host, in units
	Memory  uint32 // MiB
	Start   time.Duration
	Log     *slog.Logger
}

// Fleet is the hosts. Safe for concurrent use.
type Fleet struct {
	cfg    Config
	hosts  []*host
	wg     sync.WaitGroup
	cancel context.CancelFunc

	connected atomic.Int64
	running   atomic.Int64
	started   atomic.Int64 // tasks that became RUNNING, ever
	sessions  atomic.Int64 // begun, ever
}

// joining is how many hosts join at a time: below what a peer port takes.
const joining = 32

// Begin joins all hosts and opens their sessions. It returns when each has been welcomed. Close ends them.
func Begin(ctx context.Context, cfg Config) (*Fleet, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	secret, err := trust.NewSecret(cfg.Token)
	if err != nil {
		return nil, err
	}
	live, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &Fleet{cfg: cfg, cancel: cancel, hosts: make([]*host, cfg.Hosts)}
	g, join := errgroup.WithContext(ctx)
	g.SetLimit(joining)
	for i := range cfg.Hosts {
		g.Go(func() error {
			h, err := f.join(join, i, secret)
			if err != nil {
				return fmt.Errorf("host %d: %w", i, err)
			}
			f.hosts[i] = h
			life, end := context.WithCancel(live)
			h.end = end
			f.wg.Go(func() { h.run(life) })
			select {
			case <-h.welcomed:
				return nil
			case <-join.Done():
				return join.Err()
			}
		})
	}
	if err := g.Wait(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (f *Fleet) join(ctx context.Context, i int, secret *trust.Secret) (*host, error) {
	keys := filepath.Join(f.cfg.Dir, fmt.Sprintf("%05d", i))
	if err := os.MkdirAll(keys, 0o700); err != nil {
		return nil, err
	}
	m := &trust.Membership{Keys: keys, Servers: f.cfg.Servers, Secret: secret, Clock: clock.Real{}, Log: f.cfg.Log}
	credential, err := m.Join(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := credential.DialServers(f.cfg.Servers)
	if err != nil {
		return nil, err
	}
	return newHost(f, i, credential.ID(), conn), nil
}

// Lose ends the hosts of a zone for good, all at once and without a word, and returns how many they were.
func (f *Fleet) Lose(zone string) (lost int) {
	for _, h := range f.hosts {
		if h.zone == zone {
			h.lose()
			lost++
		}
	}
	return lost
}

// Connected is the number of hosts that have a session.
func (f *Fleet) Connected() int { return int(f.connected.Load()) }

// Running is the number of tasks that run.
func (f *Fleet) Running() int { return int(f.running.Load()) }

// Started is the number of tasks that have begun to run since the fleet began.
func (f *Fleet) Started() int { return int(f.started.Load()) }

// Sessions is how many sessions have begun; more than hosts means that some were lost.
func (f *Fleet) Sessions() int { return int(f.sessions.Load()) }

// Close ends all hosts.
func (f *Fleet) Close() error {
	f.cancel()
	f.wg.Wait()
	var errs []error
	for _, h := range f.hosts {
		if h != nil {
			errs = append(errs, h.conn.Close())
		}
	}
	return errors.Join(errs...)
}
