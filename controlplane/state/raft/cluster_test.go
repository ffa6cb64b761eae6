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

// group is three servers behind one of them, which is to lead: whoever else does hands over to it.
type group struct {
	*raft.Engine
	others []*raft.Engine
	once   sync.Once
	end    context.CancelFunc
	handed sync.WaitGroup
}

func openGroup(dir string) (state.Engine, error) {
	network := testcluster.NewNetwork(0)
	var servers []raft.Server
	for i := range 3 {
		servers = append(servers, raft.Server{ID: fmt.Sprint("s", i), Address: fmt.Sprint("s", i)})
	}
	g := &group{}
	for _, s := range servers {
		e, err := raft.Open(raft.Options{Dir: dir + "/" + s.ID, NodeID: s.ID, Servers: servers, Transport: &raft.Transport{
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
	if err := g.handOver(ctx); err != nil {
		return err
	}
	life, end := context.WithCancel(context.Background())
	g.end = end
	g.handed.Go(func() {
		for g.handOver(life) == nil { // an election on a busy machine may have taken it away
			select {
			case <-g.Leadership().Changed:
			case <-life.Done():
			}
		}
	})
	return nil
}

// handOver returns once the one that is to lead does.
func (g *group) handOver(ctx context.Context) error {
	for {
		l := g.Leadership()
		if l.Term != 0 {
			return ctx.Err()
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
	if g.end != nil {
		g.end()
		g.handed.Wait()
	}
	err := g.Engine.Close()
	g.once.Do(func() {
		for _, e := range g.others {
			err = errors.Join(err, e.Abort())
		}
	})
	return err
}

func TestEngineOfThree(t *testing.T) { statetest.RunEngine(t, openGroup) }

// TestRandomThroughElections: the model holds although the leadership goes back and forth.
func TestRandomThroughElections(t *testing.T) {
	var g *group
	s := statetest.Open(t, func(dir string) (state.Engine, error) {
		e, err := openGroup(dir)
		g, _ = e.(*group)
		return e, err
	}, t.TempDir())
	ctx, end := context.WithCancel(t.Context())
	var taking sync.WaitGroup
	lost := 0
	taking.Go(func() {
		for ctx.Err() == nil {
			l := g.Leadership()
			if l.Term != 0 && g.TransferLeadership(ctx, "") == nil {
				lost++
			}
			for r := s.Revision(); s.Revision() < r+5 && ctx.Err() == nil; { // and something is written
				select {
				case <-time.After(5 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		}
	})
	statetest.RunRandom(t, s)
	end()
	taking.Wait()
	if lost == 0 {
		t.Error("the leadership was never lost")
	}
	t.Logf("the leadership was lost %d times", lost)
}

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

// onLeader has whoever leads do something, again if it has lost the leadership meanwhile or it is not known what became of it: on a busy machine
// an election, and what raft allows its time for, may take longer than that.
func onLeader(t *testing.T, c *testcluster.Cluster, do func(e *raft.Engine) error) (err error) {
	t.Helper()
	c.Await("the leader has done it", func() bool {
		err = do(c.Leader().Engine())
		return !errors.Is(err, state.ErrNotLeader) && !errors.Is(err, state.ErrUncertain)
	})
	return err
}

// handOver returns once that server leads.
func handOver(t *testing.T, c *testcluster.Cluster, to *testcluster.Server) {
	t.Helper()
	if err := onLeader(t, c, func(e *raft.Engine) error {
		if to.Engine() == e {
			return nil
		}
		return e.TransferLeadership(t.Context(), to.ID)
	}); err != nil {
		t.Fatal(err)
	}
	c.Await(to.ID+" leads", func() bool { return to.Store().Leadership().Term != 0 })
}

// Followers learn of a write when it is acknowledged, also if no other follows, and from whoever leads.
func TestFollowersLearnOfTheLastWrite(t *testing.T) {
	c := newCluster(t, func(o *raft.Options) { raft.SetCommitTimeout(o, time.Hour) })
	for range 2 {
		for i := range 20 {
			r := put(t, c, &statetest.Record{Id: fmt.Sprint(i)})
			for _, s := range c.Servers() {
				awaitRevision(t, c, s, r)
			}
		}
		handOver(t, c, c.Followers(c.Leader())[0])
	}
}

// So does one whose disk takes longer than an election.
func TestSlowFollowerLearnsOfTheLastWrite(t *testing.T) {
	c := newCluster(t, func(o *raft.Options) { raft.SetCommitTimeout(o, time.Hour) })
	slow := c.Followers(c.Leader())[0]
	slow.BreakDisk(func(op raft.DiskOp) error {
		if op == raft.DiskSync {
			time.Sleep(700 * time.Millisecond)
		}
		return nil
	})
	awaitRevision(t, c, slow, put(t, c, &statetest.Record{Id: "a"}))
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

// A server that starts may hear of the leader before it looks out for that, and knows it all the same.
func TestLeaderThatWasNotObserved(t *testing.T) {
	c := newCluster(t, nil)
	leader := c.Leader()
	for _, s := range c.Followers(leader) {
		c.Await("it knows who leads", func() bool { return s.Store().Leadership().Leader == c.Leader().ID })
		s.Engine().FollowAnew()
		c.Await("it knows again", func() bool { return s.Store().Leadership().Leader == c.Leader().ID })
	}
}

// What was read on one server is there for whoever reads on another one afterwards, though a follower may apply a change before the leader does.
func TestLeaderBehindFollowers(t *testing.T) {
	c := newCluster(t, nil)
	leader := c.Leader()
	last := put(t, c, &statetest.Record{Id: "a"})
	release := leader.Engine().HoldApplying()
	var group sync.WaitGroup
	defer group.Wait()
	defer release()
	write := func(id string) {
		if _, err := leader.Store().Update(t.Context(), func(tx *state.Tx) error { statetest.Records.Put(tx, &statetest.Record{Id: id}); return nil }); err != nil {
			t.Error(err)
		}
	}
	group.Go(func() { write("b") })
	c.Await("the leader has applied one more", func() bool { return leader.Store().Revision() == last+1 })
	group.Go(func() { write("c") })
	follower := c.Followers(leader)[0]
	c.Await("a follower has all", func() bool { return follower.Store().Revision() == last+2 })
	if r := leader.Store().Revision(); r == last+2 {
		t.Fatal("so has the leader, and nothing is tested")
	}
	read := make(chan state.Revision)
	group.Go(func() {
		v, err := leader.Store().Linearizable(t.Context())
		if err != nil {
			t.Error(err)
			read <- 0
			return
		}
		read <- v.Revision()
	})
	select {
	case r := <-read:
		t.Fatalf("read revision %d while a follower shows %d", r, last+2)
	case <-time.After(100 * time.Millisecond):
	}
	release()
	if r := <-read; r < last+2 {
		t.Errorf("read revision %d, a follower showed %d before", r, last+2)
	}
}
