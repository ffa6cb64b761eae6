package testcluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/testcluster"
)

// duration is how long each fault goes on: NEARGATE_FAULTS, or a little.
func duration(t *testing.T) time.Duration {
	if s := os.Getenv("NEARGATE_FAULTS"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatalf("NEARGATE_FAULTS: %v", err)
		}
		return d
	}
	if testing.Short() {
		return 500 * time.Millisecond
	}
	return 2 * time.Second
}

// fault is done to a cluster under load, again and again.
type fault func(f *faults)

type faults struct {
	t *testing.T
	*testcluster.Cluster
	*rand.Rand
	load *load
	step int
}

// for a while, which is random and outlasts elections now and then.
func (f *faults) wait() { time.Sleep(time.Duration(50+f.IntN(450)) * time.Millisecond) }

// any is one of the servers.
func (f *faults) any() *testcluster.Server { s := f.Servers(); return s[f.IntN(len(s))] }

// raftGroup is a cluster of the raft engine as a load has it.
type raftGroup struct {
	t *testing.T
	*testcluster.Cluster
}

type raftServer struct{ *testcluster.Server }

func (s raftServer) name() string { return s.ID }

func (s raftServer) save(ctx context.Context, w io.Writer) (state.Revision, error) {
	return s.Engine().Save(ctx, w, true)
}

func (g raftGroup) servers() []server {
	var out []server
	for _, s := range g.Servers() {
		out = append(out, raftServer{s})
	}
	return out
}

func (g raftGroup) members() []server {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	members, err := g.Leader().Engine().Members(ctx)
	if err != nil {
		g.t.Fatal(err)
	}
	var out []server
	for _, s := range g.Servers() {
		for _, m := range members {
			if m.ID == s.ID {
				out = append(out, raftServer{s})
			}
		}
	}
	return out
}

func (g raftGroup) mend() {
	g.Network.HealAll()
	for _, s := range g.Servers() {
		s.Resume()
		s.BreakDisk(nil)
		s.Start()
	}
}

// TestFaults checks, under a load of many clients and each kind of fault, that no acknowledged write is lost, that what clients saw is
// linearizable, that revisions increase, that every watcher sees every change once and in order, and that all machines agree.
// NEARGATE_SEED repeats the choices, though not the scheduling; NEARGATE_FAULTS=1m lets every fault go on for a minute.
func TestFaults(t *testing.T) {
	seed := statetest.Seed(t)
	for _, c := range []struct {
		name  string
		fault fault
	}{
		{"Nothing", func(f *faults) { f.wait() }},
		{"LeaderKilled", func(f *faults) { s := f.Leader(); s.Kill(); f.wait(); s.Start() }},
		{"LeaderStopped", func(f *faults) { s := f.Leader(); s.Stop(); f.wait(); s.Start() }},
		{"FollowerKilled", func(f *faults) { s := f.Followers(f.Leader())[0]; s.Kill(); f.wait(); s.Start() }},
		{"Partition", func(f *faults) { f.any().Isolate(); f.wait(); f.Network.HealAll(); f.wait() }},
		{"LeaderIsolated", func(f *faults) { f.Leader().Isolate(); f.wait(); f.Network.HealAll(); f.wait() }},
		{"OneWay", oneWay},
		{"SlowAndLossy", slowAndLossy},
		{"Pause", func(f *faults) { s := f.Leader(); s.Pause(); f.wait(); s.Resume(); f.wait() }},
		{"RestartOfAll", restartAll},
		{"Lagging", lagging},
		{"Membership", membership},
		{"DiskFails", diskFails},
		{"Mixed", mixed},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster := testcluster.New(t, testcluster.Config{Servers: 3, Schema: statetest.Schema, Seed: seed, Configure: func(o *raft.Options) {
				o.ElectionTimeout, o.SnapshotBytes, o.SegmentBytes = 150*time.Millisecond, 128<<10, 64<<10
			}})
			cluster.Leader()
			f := &faults{t: t, Cluster: cluster, Rand: rand.New(rand.NewPCG(seed, 2))}
			f.load = begin(t, raftGroup{t, cluster}, seed, 1000)
			for end := time.Now().Add(duration(t)); time.Now().Before(end) || f.step == 0; f.step++ {
				c.fault(f)
			}
			f.load.end()
		})
	}
}

// mixed is one after the other, some while the network is slow and lossy still.
func mixed(f *faults) {
	all := []fault{
		oneWay, slowAndLossy, restartAll, membership, diskFails,
		func(f *faults) { s := f.Leader(); s.Kill(); f.wait(); s.Start() },
		func(f *faults) { s := f.any(); s.Pause(); f.wait(); s.Resume() },
		func(f *faults) { f.any().Isolate(); f.wait(); f.Network.HealAll() },
	}
	all[f.IntN(len(all))](f)
}

func oneWay(f *faults) {
	from, to := f.any(), f.any()
	f.Network.Cut(from.ID, to.ID)
	f.wait()
	if f.IntN(2) == 0 {
		f.Network.Cut(f.Leader().ID, f.any().ID)
		f.wait()
	}
	f.Network.HealAll()
	f.wait()
}

func slowAndLossy(f *faults) {
	for _, a := range f.Servers() {
		for _, b := range f.Servers() {
			f.Network.Delay(a.ID, b.ID, time.Duration(f.IntN(20))*time.Millisecond)
			f.Network.Loss(a.ID, b.ID, float64(f.IntN(3))/50)
		}
	}
	f.wait()
}

func restartAll(f *faults) {
	for _, s := range f.Servers() {
		if f.IntN(2) == 0 {
			s.Kill()
		} else {
			s.Stop()
		}
	}
	for _, s := range f.Servers() {
		s.Start()
	}
	f.Leader()
	f.wait()
}

// lagging lets a server miss so much that it needs a snapshot. At the end its machine is as the others'.
func lagging(f *faults) {
	s := f.Followers(f.Leader())[f.IntN(2)]
	f.Await(s.ID+" has something", func() bool { return s.Store().Revision() > 50 })
	if f.step%2 == 0 {
		s.Isolate() // its watchers go on, and are told that they missed something
	} else {
		s.Kill()
	}
	before := f.load.count()
	f.Await("much has been written", func() bool { return f.load.count() > before+1000 })
	f.Network.HealAll()
	s.Start()
	leader := f.Leader(s)
	f.Await(s.ID+" has caught up", func() bool { return s.Store().Revision()+100 > leader.Store().Revision() })
	f.Await("a watcher was told to list again", func() bool { return f.load.relisted.Load() > 0 })
}

// membership adds a server, waits until it has a vote, hands leadership to it, removes another one, and so on.
func membership(f *faults) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	id := fmt.Sprint("n", f.step)
	joined := f.Join(id)
	f.load.watch(ctx, raftServer{joined})
	f.onLeader(ctx, func(e *raft.Engine) error { return e.AddServer(ctx, id, joined.Address()) })
	f.Await(id+" has a vote", func() bool {
		members, err := f.Leader().Engine().Members(ctx)
		for _, m := range members {
			if m.ID == id && m.Voter {
				return true
			}
		}
		return err != nil && ctx.Err() != nil
	})
	if f.IntN(2) == 0 {
		f.onLeader(ctx, func(e *raft.Engine) error { return e.TransferLeadership(ctx, "") })
	}
	gone := f.load.group.members()[0].(raftServer).Server
	f.onLeader(ctx, func(e *raft.Engine) error {
		if err := e.RemoveServer(ctx, gone.ID); !errors.Is(err, state.ErrNotMember) {
			return err
		}
		return nil
	})
	gone.Kill()
	f.Remove(gone)
}

// onLeader tries until it has been done.
func (f *faults) onLeader(ctx context.Context, do func(*raft.Engine) error) {
	f.t.Helper()
	var err error
	f.Await("the leader has done it", func() bool {
		if e := f.Leader().Engine(); e != nil {
			err = do(e)
		}
		return err == nil || ctx.Err() != nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// diskFails lets writes fail, before or after they have reached the disk.
func diskFails(f *faults) {
	s := f.any()
	if f.IntN(2) == 0 {
		s = f.Leader()
	}
	errs := []error{syscall.ENOSPC, syscall.EIO}
	err := errs[f.IntN(2)]
	ops := [][]raft.DiskOp{{raft.DiskAppend}, {raft.DiskSync}, {raft.DiskStable}, {raft.DiskTruncate}, {raft.DiskAppend, raft.DiskStable, raft.DiskHeal}}
	broken := ops[f.IntN(len(ops))]
	s.BreakDisk(func(op raft.DiskOp) error {
		for _, b := range broken {
			if b == op {
				return err
			}
		}
		return nil
	})
	f.wait()
	s.BreakDisk(nil)
	f.wait()
}
