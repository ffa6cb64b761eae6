package raft_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/testcluster"
)

func save(t *testing.T, s *testcluster.Server) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := s.Engine().Save(t.Context(), &b, false); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A snapshot that arrives late takes nothing away from a server that has gone on since.
func TestSnapshotIsLate(t *testing.T) {
	c := newCluster(t, func(o *raft.Options) { o.SnapshotBytes = 8 << 10 })
	leader := c.Leader()
	follower := c.Followers(leader)[0]
	var send func(id, address string) error
	var index uint64
	write := func() state.Revision {
		return put(t, c, &statetest.Record{Id: "a", Payload: make([]byte, 1000)})
	}
	c.Await("there is a snapshot", func() (ok bool) {
		write()
		var err error
		index, send, err = leader.Engine().KeepSnapshot()
		return err == nil
	})
	var last state.Revision
	for range 10 {
		last = write()
	}
	awaitRevision(t, c, follower, last)
	if err := send(follower.ID, follower.Address()); err != nil {
		t.Fatalf("the snapshot of entry %d: %v", index, err)
	}
	if r := follower.Store().Revision(); r < last {
		t.Errorf("it is back at revision %d after %d", r, last)
	}
	awaitRevision(t, c, follower, write())
}

// A snapshot of what a server has in its log, and does not know to be committed, does not take from it what comes after that.
func TestSnapshotOfTheLog(t *testing.T) {
	c := newCluster(t, func(o *raft.Options) { o.SnapshotBytes = 8 << 10 })
	leader := c.Leader()
	var send func(id, address string) error
	var last state.Revision
	write := func() { last = put(t, c, &statetest.Record{Id: "a", Payload: make([]byte, 1000)}) }
	c.Await("there is a snapshot", func() (ok bool) {
		write()
		var err error
		_, send, err = leader.Engine().KeepSnapshot()
		return err == nil
	})
	for range 5 {
		write()
	}
	other := c.Join("other") // the group knows nothing of it
	if err := leader.Engine().SendEntries(other.ID, other.Address(), 1); err != nil {
		t.Fatal(err)
	}
	if err := send(other.ID, other.Address()); err != nil {
		t.Fatalf("the snapshot: %v", err)
	}
	if err := leader.Engine().SendEntries(other.ID, other.Address(), math.MaxUint64); err != nil {
		t.Fatal(err)
	}
	awaitRevision(t, c, other, last)
}

// What was saved is restored on all servers, of the same cluster and of another, at a revision that is new to both.
func TestSaveAndRestore(t *testing.T) {
	c := newCluster(t, nil)
	put(t, c, &statetest.Record{Id: "kept", Number: 1, Groups: []string{"g"}})
	saved := save(t, c.Followers(c.Leader())[0])
	put(t, c, &statetest.Record{Id: "kept", Number: 2})
	last := put(t, c, &statetest.Record{Id: "later"})

	fresh := testcluster.New(t, testcluster.Config{Servers: 3, Schema: statetest.Schema})
	for name, target := range map[string]*testcluster.Cluster{"same": c, "fresh": fresh} {
		leader := target.Leader()
		watcher := leader.Store().Watch(t.Context(), 0)
		var before state.Revision
		if target == c {
			before = last
			watcher = leader.Store().Watch(t.Context(), last)
		}
		follower := target.Followers(leader)[0]
		if _, err := follower.Engine().Restore(t.Context(), bytes.NewReader(saved)); !errors.Is(err, state.ErrNotLeader) {
			t.Errorf("%s: restore on a follower: %v", name, err)
		}
		r, err := leader.Engine().Restore(t.Context(), bytes.NewReader(saved))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r <= before {
			t.Errorf("%s: revision %d after %d", name, r, before)
		}
		if _, err := watcher.Next(t.Context()); !errors.Is(err, state.ErrCompacted) {
			t.Errorf("%s: watcher: %v", name, err)
		}
		for _, s := range target.Servers() {
			awaitRevision(t, target, s, r)
			v, err := s.Store().Linearizable(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			kept, at, _ := statetest.Records.GetRevision(v, statetest.RecordKey("kept"))
			if _, ok := statetest.Records.Get(v, statetest.RecordKey("later")); ok || kept.GetNumber() != 1 || at != r {
				t.Errorf("%s: %s has %v of revision %d, later: %v", name, s.ID, kept, at, ok)
			}
			if ids := statetest.IDs(statetest.RecordsByGroup.Scan(v, state.K("g"))); len(ids) != 1 {
				t.Errorf("%s: in the index are %q", name, ids)
			}
		}
		if next := put(t, target, &statetest.Record{Id: "after"}); next != r+1 {
			t.Errorf("%s: revision %d after %d", name, next, r)
		}
	}
}

// A transaction that began before a restore does not take what it restored for what it had read.
func TestRestoreBreaksGuards(t *testing.T) {
	c := testcluster.New(t, testcluster.Config{Servers: 1, Schema: statetest.Schema})
	s := c.Servers()[0]
	put(t, c, &statetest.Record{Id: "a", Number: 1})
	saved := save(t, s)
	runs := 0
	if _, err := s.Store().Update(t.Context(), func(tx *state.Tx) error {
		rec, _ := statetest.Records.Get(tx, statetest.RecordKey("a"))
		if runs++; runs == 1 {
			if _, err := s.Engine().Restore(t.Context(), bytes.NewReader(saved)); err != nil {
				return err
			}
		}
		statetest.Records.Put(tx, &statetest.Record{Id: "a", Number: rec.GetNumber() + 1})
		return nil
	}); err != nil || runs != 2 {
		t.Errorf("ran %d times: %v", runs, err)
	}
}

// A damaged file is refused, wherever it is damaged or cut, and changes nothing.
func TestRestoreOfDamaged(t *testing.T) {
	c := testcluster.New(t, testcluster.Config{Servers: 1, Schema: statetest.Schema})
	s := c.Servers()[0]
	put(t, c, &statetest.Record{Id: "a", Payload: make([]byte, 100)})
	saved := save(t, s)
	before := s.Store().Revision()
	refused := func(what string, b []byte) {
		t.Helper()
		var damaged *state.DamagedError
		if _, err := s.Engine().Restore(t.Context(), bytes.NewReader(b)); !errors.As(err, &damaged) || !strings.Contains(err.Error(), "snapshot") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for n := range saved {
		refused(fmt.Sprintf("cut at %d", n), saved[:n])
		if n > len("neargate state ") && n < len("neargate state 1\n")-1 {
			continue // another version, not damage
		}
		b := bytes.Clone(saved)
		b[n] ^= 0x10
		if n >= len("neargate state 1\n") {
			refused(fmt.Sprintf("changed at %d", n), b)
		}
	}
	refused("longer", append(bytes.Clone(saved), 0))
	if s.Store().Revision() != before {
		t.Errorf("revision %d after %d", s.Store().Revision(), before)
	}
	put(t, c, &statetest.Record{Id: "b"})
}

// Damage on the disk is found at the start, and the error names the file and says what to do.
func TestDamagedAtStart(t *testing.T) {
	write := func(t *testing.T, dir string) {
		engine, err := raft.Open(raft.Options{Dir: dir, NodeID: "server"})
		if err != nil {
			t.Fatal(err)
		}
		s, err := state.New(engine, statetest.Schema, state.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 400 {
			if i >= 100 && i%100 == 0 {
				if err := engine.TakeSnapshot(); err != nil {
					t.Fatal(err)
				}
			}
			statetest.Put(t, s, &statetest.Record{Id: fmt.Sprint(i % 10), Number: int64(i), Payload: bytes.Repeat([]byte{'x'}, 1000)})
		}
		if err := engine.Close(); err != nil {
			t.Fatal(err)
		}
	}
	change := func(pattern string, change func(b []byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			files, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil || len(files) == 0 {
				t.Fatalf("no %s: %v", pattern, err)
			}
			for _, name := range files {
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, change(b), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	removeAll := func(t *testing.T, dir, pattern string) {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		for _, name := range files {
			err = errors.Join(err, os.RemoveAll(name))
		}
		if err != nil || len(files) == 0 {
			t.Fatalf("%q: %v", files, err)
		}
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	flipEntry := func(b []byte) []byte { // close to the end; the very last one would be taken for one that a crash cut short
		b[bytes.LastIndex(b, []byte("xxxxxxxx"))-5000] ^= 1
		return b
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string)
		file   string
	}{
		"snapshots":          {change("snapshots/*/state.bin", flip), "state.bin"},
		"snapshots cut":      {change("snapshots/*/state.bin", func(b []byte) []byte { return b[:len(b)/2] }), "state.bin"},
		"their descriptions": {change("snapshots/*/meta.json", func([]byte) []byte { return nil }), "snapshots/"},
		"an entry":           {change("log/*.wal", flipEntry), ".wal"},
		"log missing":        {func(t *testing.T, dir string) { removeAll(t, dir, "log/*.wal"); removeAll(t, dir, "snapshots/*") }, "log"},
		"metadata":           {change("log/wal-meta.db", func(b []byte) []byte { clear(b); return b }), "wal-meta.db"},
		"metadata halved":    {change("log/wal-meta.db", func(b []byte) []byte { return b[:3*4096] }), "wal-meta.db"},
		"metadata cut":       {change("log/wal-meta.db", func([]byte) []byte { return []byte("x") }), "wal-meta.db"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir)
			c.damage(t, dir)
			engine, err := raft.Open(raft.Options{Dir: dir, NodeID: "server"})
			if err == nil {
				_, err = state.New(engine, statetest.Schema, state.Options{})
			}
			var damaged *state.DamagedError
			if !errors.As(err, &damaged) || !strings.Contains(damaged.Path, dir) || !strings.Contains(damaged.Path, c.file) || damaged.Advice == "" {
				t.Errorf("started with %v", err)
			}
		})
	}
	// The last snapshot but one will do as long as the log goes on from it.
	t.Run("newest snapshot, whole log", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir)
		found, err := filepath.Glob(filepath.Join(dir, "snapshots", "*"))
		if err != nil || len(found) != 2 {
			t.Fatalf("%q, %v", found, err)
		}
		if err := os.Truncate(filepath.Join(found[1], "state.bin"), 100); err != nil {
			t.Fatal(err)
		}
		s := statetest.Open(t, open, dir)
		if rec, _ := statetest.Records.Get(s.View(), statetest.RecordKey("9")); s.Revision() != 400 || rec.GetNumber() != 399 {
			t.Errorf("%d at revision %d", rec.GetNumber(), s.Revision())
		}
	})
}
