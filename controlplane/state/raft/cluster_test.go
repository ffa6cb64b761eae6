package raft_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/testcluster"
)

// group is three servers behind the one of them that leads.
type group struct {
	*raft.Engine
	others []*raft.Engine
	once   sync.Once
}

func openGroup(dir string) (state.Engine, error) {
	network := testcluster.NewNetwork(0)
	var servers []raft.Server
	for i := range 3 {
		servers = append(servers, raft.Server{ID: fmt.Sprint("s", i), Address: fmt.Sprint("s", i)})
	}
	g := &group{}
	for _, s := range servers {
		e, err := raft.Open(raft.Options{Dir: dir + "/" + s.ID, NodeID: s.ID, Servers: servers, ElectionTimeout: 300 * time.Millisecond, Transport: &raft.Transport{
			Listener: network.Listen(s.ID), Dial: network.Dialer(s.ID), Address: s.Address,
		}})
		if err != nil {
			return nil, err
		}
		if g.Engine == nil {
			g.Engine = e
		} else {
			g.others = append(g.others, e)
		}
	}
	return g, nil
}

func (g *group) Start(m *state.Machine) error {
	if err := g.Engine.Start(m); err != nil {
		return err
	}
	for _, e := range g.others {
		if _, err := state.New(e, statetest.Schema, state.Options{}); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		l := g.Leadership()
		if l.Term != 0 {
			return nil
		}
		for _, e := range g.others {
			if e.Leadership().Term != 0 {
				_ = e.TransferLeadership(ctx, "s0") // tried again
			}
		}
		select {
		case <-l.Changed:
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *group) Close() error {
	err := g.Engine.Close()
	g.once.Do(func() {
		for _, e := range g.others {
			err = errors.Join(err, e.Abort())
		}
	})
	return err
}

func TestEngineOfThree(t *testing.T) { statetest.RunEngine(t, openGroup) }

func TestDurableOfThree(t *testing.T) { statetest.RunDurable(t, openGroup) }

func newCluster(t *testing.T, configure func(*raft.Options)) *testcluster.Cluster {
	t.Helper()
	return testcluster.New(t, testcluster.Config{Servers: 3, Schema: statetest.Schema, Configure: configure})
}

// put puts a record, on whoever leads.
func put(t testing.TB, c *testcluster.Cluster, rec *statetest.Record) state.Revision {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := c.Update(ctx, func(tx *state.Tx) error { statetest.Records.Put(tx, rec); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// awaitRevision waits until a server has applied a transaction.
func awaitRevision(t *testing.T, c *testcluster.Cluster, s *testcluster.Server, r state.Revision) {
	t.Helper()
	c.Await(fmt.Sprintf("%s is at revision %d", s.ID, r), func() bool { return s.Store() != nil && s.Store().Revision() >= r })
}

// What followers answer, and that their reads see every write acknowledged before.
func TestFollowers(t *testing.T) {
	c := newCluster(t, nil)
	leader := c.Leader()
	for i := range 20 {
		r := put(t, c, &statetest.Record{Id: fmt.Sprint(i)})
		for _, s := range c.Followers(leader) {
			v, err := s.Store().Linearizable(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := statetest.Records.Get(v, statetest.RecordKey(fmt.Sprint(i))); !ok || v.Revision() < r {
				t.Fatalf("%s does not see revision %d", s.ID, r)
			}
		}
	}
	for _, s := range c.Followers(leader) {
		ran := false
		if _, err := s.Store().Update(t.Context(), func(*state.Tx) error { ran = true; return nil }); !errors.Is(err, state.ErrNotLeader) || ran {
			t.Errorf("update on a follower: %v, ran: %v", err, ran)
		}
		if _, err := s.Engine().Commit(t.Context(), &state.Transaction{}); !errors.Is(err, state.ErrNotLeader) {
			t.Errorf("commit on a follower: %v", err)
		}
		if l := s.Store().Leadership(); l.Leader != leader.ID || l.Term != 0 {
			t.Errorf("%s takes %q for the leader, itself in term %d", s.ID, l.Leader, l.Term)
		}
	}
}

// Without a majority nothing is answered but that there is no leader, and what was under way is not known. Local reads go on.
func TestNoQuorum(t *testing.T) {
	c := newCluster(t, nil)
	leader := c.Leader()
	r := put(t, c, &statetest.Record{Id: "before"})
	for _, s := range c.Servers() {
		awaitRevision(t, c, s, r)
	}
	for _, s := range c.Servers() {
		s.Isolate()
	}
	write := func(tx *state.Tx) error { statetest.Records.Put(tx, &statetest.Record{Id: "lost"}); return nil }
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := leader.Store().Update(ctx, write); !errors.Is(err, state.ErrUncertain) || state.Retryable(err) {
		t.Errorf("a write under way: %v", err)
	}
	c.Await("nobody leads", func() bool {
		for _, s := range c.Servers() {
			if s.Store().Leadership().Leader != "" {
				return false
			}
		}
		return true
	})
	for _, s := range c.Servers() {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := s.Store().Update(ctx, write); !errors.Is(err, state.ErrNoLeader) || errors.Is(err, state.ErrUncertain) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("update: %v", err)
		}
		cancel()
		ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := s.Store().Linearizable(ctx); !errors.Is(err, state.ErrNoLeader) || !state.Retryable(err) {
			t.Errorf("linearizable: %v", err)
		}
		cancel()
		if _, ok := statetest.Records.Get(s.Store().View(), statetest.RecordKey("before")); !ok {
			t.Errorf("%s does not show what it has", s.ID)
		}
	}
	read := make(chan error, 1)
	go func() {
		_, err := leader.Store().Linearizable(t.Context())
		read <- err
	}()
	c.Network.HealAll()
	if err := <-read; err != nil {
		t.Errorf("a read that waited for a leader: %v", err)
	}
}
