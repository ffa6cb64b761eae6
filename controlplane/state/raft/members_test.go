package raft_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/testcluster"
	"github.com/seed-2f228079/neargate/internal/trust"
)

// member is what the leader says about a server.
func member(t *testing.T, c *testcluster.Cluster, id string) (state.Member, bool) {
	t.Helper()
	members, err := c.Leader().Engine().Members(t.Context())
	if err != nil {
		return state.Member{}, false // it has lost leadership just now
	}
	for _, m := range members {
		if m.ID == id {
			return m, true
		}
	}
	return state.Member{ID: id}, true
}

func awaitMember(t *testing.T, c *testcluster.Cluster, id, what string, ok func(state.Member) bool) {
	t.Helper()
	c.Await(id+" is "+what, func() bool { m, known := member(t, c, id); return known && ok(m) })
}

func TestMembers(t *testing.T) {
	c := newCluster(t, nil)
	leader := c.Leader()
	r := put(t, c, &statetest.Record{Id: "a"})
	for _, s := range c.Servers() { // followers ask the leader
		c.Await("all are healthy on "+s.ID, func() bool {
			members, err := s.Engine().Members(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if leader = c.Leader(); !slices.ContainsFunc(members, func(m state.Member) bool { return m.Leader && m.ID == leader.ID }) {
				return false // elected meanwhile
			}
			healthy := 0
			for _, m := range members {
				if m.Leader != (m.ID == leader.ID) || !m.Voter || m.Address != m.ID {
					t.Fatalf("%+v", m)
				}
				if m.Healthy && m.Reason == "" && m.Revision >= r && !m.LastContact.IsZero() {
					healthy++
				}
			}
			return healthy == 3 && len(members) == 3
		})
	}
	gone := c.Followers(leader)[0]
	gone.Kill()
	awaitMember(t, c, gone.ID, "unhealthy", func(m state.Member) bool { return !m.Healthy && strings.HasPrefix(m.Reason, "silent: ") })
	gone.Start()
	awaitMember(t, c, gone.ID, "healthy", func(m state.Member) bool { return m.Healthy })
}

func TestAddAndRemove(t *testing.T) {
	c := newCluster(t, nil)
	leader := c.Leader()
	follower := c.Followers(leader)[0]
	const behind = 1024 // entries that a voter may be
	for range behind + 100 {
		put(t, c, &statetest.Record{Id: "a"})
	}
	all := leader.Engine().LastIndex()

	var inUse *state.AddressInUseError
	if err := onLeader(t, c, func(e *raft.Engine) error { return e.AddServer(t.Context(), "new", follower.Address()) }); !errors.As(err, &inUse) || inUse.ID != follower.ID {
		t.Errorf("add at an address in use: %v", err)
	}
	if err := follower.Engine().AddServer(t.Context(), "new", "new"); !errors.Is(err, state.ErrNotLeader) {
		t.Errorf("add on a follower: %v", err)
	}
	if err := onLeader(t, c, func(e *raft.Engine) error { return e.RemoveServer(t.Context(), "who") }); !errors.Is(err, state.ErrNotMember) {
		t.Errorf("remove a stranger: %v", err)
	}

	joined := c.Join("new")
	if l := joined.Store().Leadership(); l.Leader != "" || l.Term != 0 {
		t.Errorf("before it is added it knows %+v", l)
	}
	if err := onLeader(t, c, func(e *raft.Engine) error { return e.AddServer(t.Context(), "new", joined.Address()) }); err != nil {
		t.Fatal(err)
	}
	awaitMember(t, c, "new", "a voter", func(m state.Member) bool { return m.Voter })
	if has := joined.Engine().LastIndex(); has < all-behind {
		t.Errorf("it was given a vote with %d entries of %d", has, all)
	}
	c.Await("it has what there was", func() bool {
		_, ok := statetest.Records.Get(joined.Store().View(), statetest.RecordKey("a"))
		return ok
	})
	remove := func(id string) func(e *raft.Engine) error {
		return func(e *raft.Engine) error { return e.RemoveServer(t.Context(), id) }
	}
	follower = c.Followers(c.Leader())[0]
	if err := onLeader(t, c, remove(follower.ID)); err != nil && !errors.Is(err, state.ErrNotMember) { // the second time
		t.Fatal(err)
	}
	follower.Kill()
	// A leader hands over before it is removed.
	c.Await("a leader refuses to remove itself", func() bool {
		leader = c.Leader()
		err := leader.Engine().RemoveServer(t.Context(), leader.ID)
		if !errors.Is(err, state.ErrNotLeader) && !errors.Is(err, state.ErrUncertain) { // it did not get through with handing over
			t.Fatalf("remove the leader: %v", err)
		}
		return errors.Is(err, state.ErrNotLeader)
	})
	if err := onLeader(t, c, remove(leader.ID)); err != nil && !errors.Is(err, state.ErrNotMember) {
		t.Fatal(err)
	}
	if m, _ := member(t, c, leader.ID); m.Address != "" {
		t.Errorf("still there: %+v", m)
	}
	put(t, c, &statetest.Record{Id: "b"})
}

func TestOnlyVoterStays(t *testing.T) {
	c := testcluster.New(t, testcluster.Config{Servers: 1, Schema: statetest.Schema})
	leader := c.Servers()[0]
	if leader.Store().Leadership().Term == 0 {
		t.Error("the only voter does not lead at once")
	}
	if err := leader.Engine().RemoveServer(t.Context(), leader.ID); !errors.Is(err, state.ErrLastVoter) {
		t.Errorf("remove: %v", err)
	}
	if err := leader.Engine().TransferLeadership(t.Context(), ""); !errors.Is(err, state.ErrLastVoter) {
		t.Errorf("transfer: %v", err)
	}
}

func TestTransferLeadership(t *testing.T) {
	c := newCluster(t, nil)
	for range 3 {
		handOver(t, c, c.Followers(c.Leader())[0])
		put(t, c, &statetest.Record{Id: "a"})
	}
}

// A server that has been silent for long is removed, but never so that too few stay.
func TestDeadServers(t *testing.T) {
	fake := clock.NewFake(time.Now())
	c := testcluster.New(t, testcluster.Config{Servers: 4, Schema: statetest.Schema, Configure: func(o *raft.Options) {
		o.Clock, o.Autopilot.DeadAfter = fake, time.Hour
	}})
	leader := c.Leader()
	const step = 20 * time.Second
	await := func(what string, ok func([]state.Member) bool) {
		t.Helper()
		c.Await(what, func() bool {
			if fake.Waiters() > 0 { // the leader has asked everybody: while it asks, those who answer slowly must not grow old
				fake.Advance(step)
			}
			members, err := leader.Engine().Members(t.Context())
			return err == nil && ok(members)
		})
	}
	await("all are healthy", func(members []state.Member) bool {
		for _, m := range members {
			if !m.Healthy {
				return false
			}
		}
		return len(members) == 4
	})
	first, second := c.Followers(leader)[0], c.Followers(leader)[1]
	first.Kill()
	var heard time.Time // of it
	await(first.ID+" is removed", func(members []state.Member) bool {
		for _, m := range members {
			if m.ID == first.ID {
				heard = m.LastContact
				return false
			}
		}
		return true
	})
	if d := fake.Now().Sub(heard); d < time.Hour {
		t.Errorf("removed after %s", d)
	}
	second.Kill()
	fake.Advance(2 * time.Hour)
	await(second.ID+" is known to be silent for long", func(members []state.Member) bool {
		for _, m := range members {
			if m.ID == second.ID {
				return !m.Healthy && fake.Now().Sub(m.LastContact) > 3*time.Hour
			}
		}
		t.Fatalf("%s was removed, which leaves two", second.ID)
		return false
	})
}

// A server that comes back at another address is reached there once the leader has been told.
func TestAddressChanges(t *testing.T) {
	c := testcluster.New(t, testcluster.Config{Servers: 3, Schema: statetest.Schema, Loopback: true})
	leader := c.Leader()
	s := c.Followers(leader)[0]
	s.Kill()
	old := s.Address()
	s.Move()
	s.Start()
	if s.Address() == old {
		t.Fatal("it has not moved")
	}
	r := put(t, c, &statetest.Record{Id: "a"})
	if err := onLeader(t, c, func(e *raft.Engine) error { return e.AddServer(t.Context(), s.ID, s.Address()) }); err != nil {
		t.Fatal(err)
	}
	awaitRevision(t, c, s, r)
	awaitMember(t, c, s.ID, "a voter at its new address", func(m state.Member) bool { return m.Voter && m.Address == s.Address() && m.Healthy })
}

// The peer port gives listener and dialer: each side knows that it speaks to a server, and to which.
func TestOverPeerPort(t *testing.T) {
	const protocol = "neargate-raft/1"
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	authority, err := trust.OpenAuthority(t.TempDir(), clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	var servers []raft.Server
	var transports []*raft.Transport
	for i := range 3 {
		id := fmt.Sprint("s", i)
		credential, err := authority.ServerCredential(id, quiet)
		if err != nil {
			t.Fatal(err)
		}
		port := trust.NewPort(credential, quiet)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		transports = append(transports, &raft.Transport{Listener: port.Handle(protocol, trust.Server), Address: l.Addr().String(),
			Dial: func(ctx context.Context, id, address string) (net.Conn, error) {
				return credential.Dial(ctx, protocol, trust.Identity{Role: trust.Server, ID: id}, address)
			}})
		servers = append(servers, raft.Server{ID: id, Address: l.Addr().String()})
		served := make(chan error, 1)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { served <- port.Serve(ctx, l) }()
		t.Cleanup(func() {
			cancel()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := transports[0].Dial(t.Context(), "s2", servers[1].Address); err == nil || !strings.Contains(err.Error(), "it is server s1 and not server s2") {
		t.Errorf("dial of another server: %v", err)
	}
	var stores []*state.Store
	for i, tr := range transports {
		engine, err := raft.Open(raft.Options{Dir: t.TempDir(), NodeID: servers[i].ID, Servers: servers, Transport: tr, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { engine.Abort() })
		s, err := state.New(engine, statetest.Schema, state.Options{})
		if err != nil {
			t.Fatal(err)
		}
		stores = append(stores, s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		_, err := stores[0].Update(ctx, func(tx *state.Tx) error { statetest.Records.Put(tx, &statetest.Record{Id: "a"}); return nil })
		if errors.Is(err, state.ErrNotLeader) {
			stores = append(stores[1:], stores[0])
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		break
	}
	for _, s := range stores {
		if v, err := s.Linearizable(ctx); err != nil || v.Revision() != 1 {
			t.Errorf("linearizable: %v", err)
		}
	}
}
