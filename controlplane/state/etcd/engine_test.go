package etcd_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/etcd"
	"github.com/seed-2f228079/neargate/controlplane/state/etcd/etcdtest"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// options are those of one server on an etcd.
func options(server *etcdtest.Server, prefix, id string) etcd.Options {
	return etcd.Options{Connection: etcd.Connection{Endpoints: []string{server.Endpoint}}, Prefix: prefix, ServerID: id, Installation: "test"}
}

// by makes a way to etcd that can be cut, and o go by it.
func by(t testing.TB, server *etcdtest.Server, o *etcd.Options) *etcdtest.Link {
	t.Helper()
	way := etcdtest.NewLink(t, server)
	o.Endpoints = []string{way.Endpoint}
	return way
}

// byFolder opens engines whose prefix stands for the folder, so that a folder is a state of its own.
func byFolder(server *etcdtest.Server, change func(*etcd.Options)) statetest.Opener {
	return func(dir string) (state.Engine, error) {
		o := options(server, fmt.Sprintf("/test/%x", sha256.Sum256([]byte(dir))), "server")
		change(&o)
		return etcd.Open(context.Background(), o)
	}
}

func unchanged(*etcd.Options) {}

// smallSnapshots takes a snapshot every few entries.
func smallSnapshots(o *etcd.Options) { o.SnapshotBytes = 2 << 10 }

func TestEngine(t *testing.T) { statetest.RunEngine(t, byFolder(etcdtest.Start(t), unchanged)) }

func TestDurable(t *testing.T) { statetest.RunDurable(t, byFolder(etcdtest.Start(t), unchanged)) }

func TestDurableBySnapshots(t *testing.T) {
	statetest.RunDurable(t, byFolder(etcdtest.Start(t), smallSnapshots))
}

// opened is an engine and the store on it.
type opened struct {
	*state.Store
	engine *etcd.Engine
}

func open(t testing.TB, o etcd.Options) opened {
	t.Helper()
	engine, err := etcd.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := state.New(engine, statetest.Schema, state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return opened{s, engine}
}

// raw is a client that looks at, and tampers with, what the engines keep.
func raw(t testing.TB, server *etcdtest.Server) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{server.Endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func keysBelow(t testing.TB, c *clientv3.Client, prefix string) []string {
	t.Helper()
	r, err := c.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, kv := range r.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// eventually waits for a condition of what other processes do.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never came about: ", what)
		}
	}
}

func leads(s opened) func() bool { return func() bool { return s.Leadership().Term != 0 } }

func number(s *state.View, id string) int64 {
	r, _ := statetest.Records.Get(s, statetest.RecordKey(id))
	return r.GetNumber()
}

func put(ctx context.Context, s opened, id string, n int64) error {
	_, err := s.Update(ctx, func(tx *state.Tx) error {
		statetest.Records.Put(tx, &statetest.Record{Id: id, Number: n})
		return nil
	})
	return err
}

// Two servers: one leads, both know everything, and who follows says so.
func TestTwoServers(t *testing.T) {
	server := etcdtest.Start(t)
	lasting := func(id string) etcd.Options { o := options(server, "", id); o.LeaseTTL = time.Hour; return o }
	first, second := open(t, lasting("first")), open(t, lasting("second"))
	if l := second.Leadership(); l.Term != 0 || l.Leader != "first" {
		t.Fatalf("second knows %+v", l)
	}
	for i := range 50 {
		r := statetest.Put(t, first.Store, &statetest.Record{Id: fmt.Sprint(i % 7), Number: int64(i)})
		v, err := second.Linearizable(t.Context())
		if err != nil || v.Revision() < r || number(v, fmt.Sprint(i%7)) != int64(i) {
			t.Fatalf("second reads revision %d after %d, %v", v.Revision(), r, err)
		}
	}
	if err := put(t.Context(), second, "x", 1); err != state.ErrNotLeader {
		t.Errorf("update on a follower: %v", err)
	}
	// A leader that ends hands over at once, not only when its lease has run out.
	if err := first.engine.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second one leads", leads(second))
	if err := put(t.Context(), second, "x", 1); err != nil {
		t.Fatal(err)
	}
	// The one that comes back has everything, and follows.
	again := open(t, lasting("first"))
	if again.Leadership().Leader != "second" || number(again.View(), "x") != 1 || again.Revision() != 51 {
		t.Errorf("%+v at revision %d", again.Leadership(), again.Revision())
	}
}

// Servers that start at once on an etcd that holds nothing yet all find it theirs.
func TestServersBeginAtOnce(t *testing.T) {
	server := etcdtest.Start(t)
	for round := range 20 {
		var group sync.WaitGroup
		for i := range 4 {
			group.Go(func() {
				e, err := etcd.Open(t.Context(), options(server, fmt.Sprint("/new/", round), fmt.Sprint("server", i)))
				if err != nil {
					t.Error(err)
					return
				}
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
	}
}

func end(t *testing.T, s opened) {
	t.Helper()
	if err := s.engine.Close(); err != nil {
		t.Fatal(err)
	}
}

// A server that is silent for long is removed, and refused when it comes back, as long as three others stay.
func TestDeadServersAreRemoved(t *testing.T) {
	const deadAfter = 2 * shortLease
	server := etcdtest.Start(t)
	var all []opened
	for i := range 4 {
		o := options(server, "", fmt.Sprint("server", i))
		o.LeaseTTL, o.DeadAfter, o.Address = shortLease, deadAfter, o.ServerID+":1"
		all = append(all, open(t, o))
	}
	ids := func() (ids []string) {
		members, err := all[3].engine.Members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range members {
			ids = append(ids, m.ID)
		}
		return ids
	}
	if got := ids(); len(got) != 4 {
		t.Fatalf("the members are %v", got)
	}
	stay := []string{"server1", "server2", "server3"}
	end(t, all[0]) // it leads
	eventually(t, "it is removed", func() bool { return slices.Equal(ids(), stay) })
	end(t, all[1])
	time.Sleep(2 * deadAfter)
	if got := ids(); !slices.Equal(got, stay) {
		t.Errorf("the members are %v, want %v", got, stay)
	}
	again := options(server, "", "server0")
	again.Address = "server0:1"
	e, err := etcd.Open(t.Context(), again)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := state.New(e, statetest.Schema, state.Options{}); !errors.Is(err, etcd.ErrRemoved) {
		t.Errorf("it comes back: %v", err)
	}
}

// Large transactions that come together still fit into what etcd takes at once.
func TestLargeBatches(t *testing.T) {
	s := open(t, options(etcdtest.Start(t), "", "server"))
	var group sync.WaitGroup
	for w := range 12 {
		group.Go(func() {
			for i := range 4 {
				size := state.MaxBytes - 1000
				if (w+i)%3 > 0 {
					size = 383 << 10 // with which an entry is not full yet
				}
				if _, err := s.Update(t.Context(), func(tx *state.Tx) error {
					statetest.Records.Put(tx, &statetest.Record{Id: fmt.Sprint(w), Number: int64(i), Payload: make([]byte, size)})
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}

// A data directory that was copied makes two servers of one id: the later one leads, and they do not depose one another for ever.
func TestSameServerTwice(t *testing.T) {
	server := etcdtest.Start(t)
	first := open(t, options(server, "", "server"))
	statetest.Put(t, first.Store, &statetest.Record{Id: "a", Number: 1})
	second := open(t, options(server, "", "server"))
	eventually(t, "the first one is deposed", func() bool { return first.Leadership().Term == 0 })
	term := second.Leadership().Term
	for i := range 100 {
		statetest.Put(t, second.Store, &statetest.Record{Id: fmt.Sprint(i), Number: 2})
	}
	if v, err := first.Linearizable(t.Context()); err != nil || number(v, "a") != 1 || v.Revision() != 101 {
		t.Errorf("the first one reads revision %d, %v", v.Revision(), err)
	}
	if now := second.Leadership().Term; term == 0 || now != term {
		t.Errorf("term %d after %d", now, term)
	}
	if err := second.engine.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first one leads again", leads(first))
}

// Snapshots take the place of the log, the one before them and etcd's own history.
func TestLogIsCut(t *testing.T) {
	server := etcdtest.Start(t)
	o := options(server, "/cut", "server")
	o.SnapshotBytes = 1 << 20
	s := open(t, o)
	const written = 400 // of 50 kB, all to one record
	for i := range written {
		statetest.Put(t, s.Store, &statetest.Record{Id: "a", Number: int64(i), Payload: make([]byte, 50_000)})
	}
	c := raw(t, server)
	// Since the snapshot before the last one, at most: two cycles of log, and one that began meanwhile.
	eventually(t, "the log is cut", func() bool { return len(keysBelow(t, c, "/cut/log/")) < 100 })
	eventually(t, "one snapshot is left", func() bool { return len(keysBelow(t, c, "/cut/snap/")) == 1 })
	eventually(t, "etcd's history is compacted", func() bool {
		_, err := c.Get(t.Context(), "/cut/head", clientv3.WithRev(5))
		return err != nil && strings.Contains(err.Error(), "compacted")
	})
	if err := s.engine.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, o)
	if n := number(again.View(), "a"); n != written-1 || again.Revision() != written {
		t.Errorf("record %d at revision %d", n, again.Revision())
	}
}

// A server that etcd's compaction has cut off from the past goes on without a gap for its watchers.
func TestCompactionWhileBehind(t *testing.T) {
	server := etcdtest.Start(t)
	first := open(t, options(server, "", "first"))
	o := options(server, "", "second")
	way := by(t, server, &o)
	second := open(t, o)
	statetest.Put(t, first.Store, &statetest.Record{Id: "0"})
	w := second.Watch(t.Context(), 0)
	if b, err := w.Next(t.Context()); err != nil || len(b.Events) != 1 {
		t.Fatalf("%v, %v", b.Events, err)
	}
	way.Cut()
	c := raw(t, server)
	for i := range 100 {
		statetest.Put(t, first.Store, &statetest.Record{Id: fmt.Sprint(i), Number: 1})
	}
	r, err := c.Get(t.Context(), "/neargate/head")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(t.Context(), r.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	way.Heal()
	next := state.Revision(2)
	for next <= 101 {
		b, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range b.Events {
			if e.Revision != next {
				t.Fatalf("event of revision %d, want %d", e.Revision, next)
			}
			next++
		}
	}
}

// A server that the log no longer reaches takes the snapshot, and its watchers are told that there is a gap.
func TestSnapshotWhileBehind(t *testing.T) {
	server := etcdtest.Start(t)
	o := options(server, "", "first")
	o.SnapshotBytes = 4 << 10
	first := open(t, o)
	o = options(server, "", "second")
	way := by(t, server, &o)
	second := open(t, o)
	statetest.Put(t, first.Store, &statetest.Record{Id: "0"})
	w := second.Watch(t.Context(), 0)
	if _, err := w.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	way.Cut()
	c := raw(t, server)
	i := int64(0)
	eventually(t, "the log is cut", func() bool {
		i++
		statetest.Put(t, first.Store, &statetest.Record{Id: "1", Number: i, Payload: make([]byte, 500)})
		keys := keysBelow(t, c, "/neargate/log/")
		return keys[0] > "/neargate/log/0000000000000003"
	})
	// And the history of etcd that still has those entries.
	r, err := c.Get(t.Context(), "/neargate/head")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(t.Context(), r.Header.Revision); err != nil && !strings.Contains(err.Error(), "compacted") {
		t.Fatal(err)
	}
	way.Heal()
	v, err := second.Linearizable(t.Context())
	if err != nil || number(v, "1") != i {
		t.Fatalf("reads %d, want %d, %v", number(v, "1"), i, err)
	}
	if _, err := w.Next(t.Context()); !errors.Is(err, state.ErrCompacted) {
		t.Errorf("watcher: %v", err)
	}
}

// A snapshot that cannot be read just now is not a damaged one, which would end the engine.
func TestSnapshotOutOfReach(t *testing.T) {
	server := etcdtest.Start(t)
	o := options(server, "", "server")
	smallSnapshots(&o)
	s := open(t, o)
	for i := range 20 {
		statetest.Put(t, s.Store, &statetest.Record{Id: fmt.Sprint(i), Payload: make([]byte, 500)})
	}
	c := raw(t, server)
	eventually(t, "there is a snapshot", func() bool { return len(keysBelow(t, c, "/neargate/snapshot")) == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var damaged *state.DamagedError
	if err := s.engine.LoadSnapshot(ctx); !errors.Is(err, context.Canceled) || errors.As(err, &damaged) {
		t.Errorf("got %v", err)
	}
}

// What must not be taken for this installation's.
func TestPrefix(t *testing.T) {
	server := etcdtest.Start(t)
	c := raw(t, server)
	mine := open(t, options(server, "/team/a", "server"))
	statetest.Put(t, mine.Store, &statetest.Record{Id: "x", Number: 1})
	write := func(key, value string) {
		if _, err := c.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	write("/other/thing", "1")
	write("/newer/format", "neargate state 2 test")
	write("/odd/format", "a house")
	for _, test := range []struct {
		name, prefix, installation, want string
	}{
		{"another installation", "/team/a", "else", "another installation (test; this one is else)"},
		{"something else there", "/other", "test", "holds something else"},
		{"another use of the key", "/odd", "test", "holds something else"},
		{"newer format", "/newer", "test", "format 2, known is 1"},
		{"within another", "/team/a/b", "test", "lies within"},
		{"around another", "/team", "test", "holds something else"},
		{"no name", "//", "test", "no prefix"},
		{"empty name", "/a//b", "test", "no prefix"},
	} {
		o := options(server, test.prefix, "server")
		o.Installation = test.installation
		if e, err := etcd.Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
			if err == nil {
				e.Close()
			}
		}
	}
	// One whose name begins like it is apart.
	o := options(server, "team/ab/", "server")
	o.Installation = "else"
	other := open(t, o)
	statetest.Put(t, other.Store, &statetest.Record{Id: "x", Number: 2})
	if number(mine.View(), "x") != 1 || number(other.View(), "x") != 2 || mine.Revision() != 1 || other.Revision() != 1 {
		t.Errorf("%d at %d and %d at %d", number(mine.View(), "x"), mine.Revision(), number(other.View(), "x"), other.Revision())
	}
}

// A log of a later version, and one that is not what was written, stop the engine with a clear error.
func TestDamage(t *testing.T) {
	server := etcdtest.Start(t)
	c := raw(t, server)
	for _, test := range []struct {
		name   string
		tamper func(prefix string) error
		want   string
	}{
		{"newer entry", func(p string) error { _, err := c.Put(t.Context(), p+"/log/0000000000000002", "\x63\x00"); return err }, "entry of format 99"},
		{"missing entry", func(p string) error { _, err := c.Delete(t.Context(), p+"/log/0000000000000002"); return err }, "the entry is missing"},
		{"no head", func(p string) error { _, err := c.Put(t.Context(), p+"/head", "three"); return err }, "is no head"},
		{"no pointer", func(p string) error { _, err := c.Put(t.Context(), p+"/snapshot", "{"); return err }, "no pointer"},
		{"no snapshot", func(p string) error {
			if _, err := c.Put(t.Context(), p+"/snapshot", `{"id":"x","index":3,"parts":1}`); err != nil {
				return err
			}
			_, err := c.Delete(t.Context(), p+"/log/", clientv3.WithPrefix())
			return err
		}, "part of the snapshot in force is missing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			prefix := "/damage/" + strings.ReplaceAll(test.name, " ", "-")
			s := open(t, options(server, prefix, "server"))
			for i := range 3 {
				statetest.Put(t, s.Store, &statetest.Record{Id: fmt.Sprint(i)})
			}
			if err := s.engine.Close(); err != nil {
				t.Fatal(err)
			}
			if err := test.tamper(prefix); err != nil {
				t.Fatal(err)
			}
			engine, err := etcd.Open(t.Context(), options(server, prefix, "server"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := state.New(engine, statetest.Schema, state.Options{}); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("start: %v", err)
			}
		})
	}
	t.Run("while it runs", func(t *testing.T) {
		first, second := open(t, options(server, "/damage/runs", "first")), open(t, options(server, "/damage/runs", "second"))
		statetest.Put(t, first.Store, &statetest.Record{Id: "a"})
		if _, err := c.Put(t.Context(), "/damage/runs/log/0000000000000002", "\x63\x00"); err != nil {
			t.Fatal(err)
		}
		if err := second.engine.Run(t.Context()); !errors.Is(err, state.ErrUnknownFormat) {
			t.Errorf("run: %v", err)
		}
	})
	t.Run("log shorter than what was applied", func(t *testing.T) {
		o := options(server, "/damage/short", "server")
		way := by(t, server, &o)
		s := open(t, o)
		for i := range 3 {
			statetest.Put(t, s.Store, &statetest.Record{Id: fmt.Sprint(i)})
		}
		way.Cut()
		if _, err := c.Put(t.Context(), "/damage/short/head", "1 1"); err != nil {
			t.Fatal(err)
		}
		r, err := c.Put(t.Context(), "/damage/short/log/0000000000000001", "x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Compact(t.Context(), r.Header.Revision); err != nil {
			t.Fatal(err)
		}
		way.Heal()
		var damaged *state.DamagedError
		if err := s.engine.Run(t.Context()); !errors.As(err, &damaged) {
			t.Errorf("run: %v", err)
		}
	})
}
