package testcluster_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// etcdFaults are what is done to servers on an etcd, and to it, under load.
type etcdFaults struct {
	t *testing.T
	*etcdGroup
	*rand.Rand
	load *load
	step int
}

func (f *etcdFaults) wait() { time.Sleep(time.Duration(50+f.IntN(450)) * time.Millisecond) }

// outlast waits until another server leads: the lease has run out.
func (f *etcdFaults) outlast(s *etcdServer) *etcdServer { f.t.Helper(); return f.leader(s) }

// TestEtcdFaults is TestFaults for the etcd engine: three servers on an etcd of one member, or of three, which are processes.
func TestEtcdFaults(t *testing.T) {
	seed := statetest.Seed(t)
	for _, c := range []struct {
		name    string
		members int
		fault   func(f *etcdFaults)
	}{
		{"Nothing", 1, func(f *etcdFaults) { f.wait() }},
		{"LeaderKilled", 1, func(f *etcdFaults) { s := f.leader(); s.kill(); f.outlast(s); s.start() }},
		{"LeaderKilledAndBack", 1, func(f *etcdFaults) { s := f.leader(); s.kill(); s.start(); f.wait() }},
		{"LeaderStopped", 1, func(f *etcdFaults) { s := f.leader(); s.stop(); f.wait(); s.start() }},
		{"FollowerKilled", 1, func(f *etcdFaults) { s := f.follower(f.Rand); s.kill(); f.wait(); s.start() }},
		{"LeaderPaused", 1, leaderPaused},
		{"LeaderCutOff", 1, func(f *etcdFaults) { s := f.leader(); s.hold(true, true); f.outlast(s); s.resume(); f.wait() }},
		{"OneWay", 1, etcdOneWay},
		{"SlowEtcd", 1, slowEtcd},
		{"ClocksAreSet", 1, clocksAreSet},
		{"Compaction", 1, compaction},
		{"QuotaAlarm", 1, quotaAlarm},
		{"EtcdKilled", 1, func(f *etcdFaults) { f.etcd[0].Kill(); f.wait(); f.etcd[0].Restart(); f.wait() }},
		{"EtcdPaused", 1, func(f *etcdFaults) { f.etcd[0].Stop(); f.wait(); f.etcd[0].Continue(); f.wait() }},
		{"MemberKilled", 3, func(f *etcdFaults) { m := f.etcd[f.IntN(3)]; m.Kill(); f.written(100); m.Restart(); f.wait() }},
		{"MemberPaused", 3, func(f *etcdFaults) { m := f.etcd[f.IntN(3)]; m.Stop(); f.written(100); m.Continue(); f.wait() }},
		{"LeadingMemberKilled", 3, func(f *etcdFaults) { m := f.etcdLeader(); m.Kill(); f.written(100); m.Restart(); f.wait() }},
		{"LeadingMemberPaused", 3, func(f *etcdFaults) { m := f.etcdLeader(); m.Stop(); f.written(100); m.Continue(); f.wait() }},
		{"RestartOfAll", 3, restartOfAll},
		{"Mixed", 3, etcdMixed},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newEtcdGroup(t, c.members)
			g.leader()
			f := &etcdFaults{t: t, etcdGroup: g, Rand: rand.New(rand.NewPCG(seed, 2))}
			f.load = begin(t, g, seed, 1000)
			for end := time.Now().Add(duration(t)); time.Now().Before(end) || f.step == 0; f.step++ {
				c.fault(f)
			}
			f.load.end()
		})
	}
}

// written waits until n more writes have been acknowledged.
func (f *etcdFaults) written(n int) {
	f.t.Helper()
	before := f.load.count()
	await(f.t, "writes are acknowledged", func() bool { return f.load.count() >= before+n })
}

// leaderPaused keeps a leader from noticing that its lease has run out. When it wakes what it had under way goes on to etcd, and it takes itself
// for the leader still: the fence alone keeps that from the log.
func leaderPaused(f *etcdFaults) {
	s := f.leader()
	s.pause()
	f.outlast(s)
	f.written(50)
	if f.IntN(2) == 0 { // its clock wakes it later than the network does
		s.hold(false, false)
		for _, way := range s.ways {
			way.Heal()
		}
		await(f.t, s.id+" finds that it was deposed", func() bool { return s.Store().Leadership().Term == 0 || f.leader() == s })
	}
	s.resume()
	f.wait()
}

// etcdOneWay lets requests arrive and answers not, or answers and no requests.
func etcdOneWay(f *etcdFaults) {
	s := f.any(f.Rand)
	if f.IntN(2) == 0 {
		s = f.leader()
	}
	if f.IntN(2) == 0 {
		s.hold(true, false)
	} else {
		s.hold(false, true)
	}
	if f.IntN(2) == 0 {
		f.outlast(s)
	}
	f.wait()
	s.resume()
	f.wait()
}

func slowEtcd(f *etcdFaults) {
	for _, s := range f.all {
		for _, way := range s.ways {
			way.Delay(time.Duration(f.IntN(150)) * time.Millisecond)
		}
	}
	f.wait()
}

func clocksAreSet(f *etcdFaults) {
	f.any(f.Rand).clock.Jump(time.Duration(f.IntN(48)-24) * time.Hour)
	f.leader().clock.Jump(time.Duration(f.IntN(48)-24) * time.Hour)
	f.wait()
}

// compaction takes etcd's history away while a server is cut off or down, and now and then the log as well.
func compaction(f *etcdFaults) {
	s := f.follower(f.Rand)
	await(f.t, s.id+" has something", func() bool { return s.Store().Revision() > 50 })
	if f.step%2 == 0 {
		s.hold(true, true) // its watchers go on, and are told that they missed something
	} else {
		s.kill()
	}
	f.written(1000)
	f.etcd[0].Compact()
	s.resume()
	s.start()
	leader := f.leader(s)
	await(f.t, s.id+" has caught up", func() bool { return s.Store().Revision()+100 > leader.Store().Revision() })
}

// quotaAlarm: nothing can be written while it lasts, for longer than the lease at times.
func quotaAlarm(f *etcdFaults) {
	f.etcd[0].QuotaAlarm(true)
	f.wait()
	if f.IntN(2) == 0 { // and nobody can begin to lead
		s := f.leader()
		s.kill()
		s.start()
	}
	f.etcd[0].QuotaAlarm(false)
	f.written(10)
}

func restartOfAll(f *etcdFaults) {
	for _, s := range f.all {
		if f.IntN(2) == 0 {
			s.kill()
		} else {
			s.stop()
		}
	}
	for _, m := range f.etcd {
		m.Kill()
	}
	var group sync.WaitGroup
	for _, m := range f.etcd { // none answers before a majority is there
		group.Go(func() { m.Restart() })
	}
	group.Wait()
	for _, s := range f.all {
		s.start()
	}
	f.written(10)
}

// etcdMixed is one after the other, some while the way is slow still.
func etcdMixed(f *etcdFaults) {
	all := []func(f *etcdFaults){
		leaderPaused, etcdOneWay, slowEtcd, clocksAreSet, restartOfAll,
		func(f *etcdFaults) { s := f.leader(); s.kill(); f.wait(); s.start() },
		func(f *etcdFaults) { m := f.etcdLeader(); m.Kill(); f.wait(); m.Restart() },
		func(f *etcdFaults) { m := f.etcd[f.IntN(3)]; m.Stop(); f.wait(); m.Continue() },
	}
	all[f.IntN(len(all))](f)
}
