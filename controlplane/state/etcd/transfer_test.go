package etcd_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/etcd/etcdtest"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// A state moves from a raft engine to etcd, with all servers following, and back.
func TestTransfer(t *testing.T) {
	folder, err := raft.Open(raft.Options{Dir: t.TempDir(), NodeID: "server"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { folder.Close() })
	kept, err := state.New(folder, statetest.Schema, state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{}
	for i := range 60 {
		id := fmt.Sprint(i % 40)
		want[id] = int64(i)
		statetest.Put(t, kept, &statetest.Record{Id: id, Number: int64(i), Groups: []string{"all"}, Payload: make([]byte, 60_000)}) // more than one part
	}
	var saved bytes.Buffer
	if _, err := folder.Save(t.Context(), &saved, false); err != nil {
		t.Fatal(err)
	}

	server := etcdtest.Start(t)
	first, second := open(t, options(server, "", "first")), open(t, options(server, "", "second"))
	statetest.Put(t, first.Store, &statetest.Record{Id: "gone", Number: 1})
	watcher := second.Watch(t.Context(), 0)
	if _, err := watcher.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	var damaged *state.DamagedError
	if _, err := first.engine.Restore(t.Context(), bytes.NewReader(saved.Bytes()[:saved.Len()-10])); !errors.As(err, &damaged) {
		t.Errorf("a snapshot that was cut: %v", err)
	}
	if _, err := second.engine.Restore(t.Context(), bytes.NewReader(saved.Bytes())); err != state.ErrNotLeader {
		t.Errorf("on a follower: %v", err)
	}
	if number(first.View(), "gone") != 1 {
		t.Error("what was there has changed")
	}
	r, err := first.engine.Restore(t.Context(), &saved)
	if err != nil || r <= kept.Revision() {
		t.Fatalf("restored to %d, %v", r, err)
	}
	check := func(name string, s *state.Store) {
		t.Helper()
		v, err := s.Linearizable(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int64{}
		for rec := range statetest.Records.Scan(v, state.K()) {
			got[rec.GetId()] = rec.GetNumber()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if n := len(statetest.IDs(statetest.RecordsByGroup.Scan(v, state.K("all")))); n != 40 {
			t.Errorf("%s: %d records in the index", name, n)
		}
	}
	check("first", first.Store)
	check("second", second.Store)
	if _, err := watcher.Next(t.Context()); !errors.Is(err, state.ErrCompacted) {
		t.Errorf("watcher: %v", err)
	}
	want["0"] = 1000
	statetest.Put(t, first.Store, &statetest.Record{Id: "0", Number: 1000, Groups: []string{"all"}})
	if err := errors.Join(first.engine.Close(), second.engine.Close()); err != nil {
		t.Fatal(err)
	}
	again := open(t, options(server, "", "first"))
	check("started again", again.Store)

	if _, err := again.engine.Save(t.Context(), &saved, false); err != nil {
		t.Fatal(err)
	}
	if _, err := folder.Restore(t.Context(), &saved); err != nil {
		t.Fatal(err)
	}
	check("the raft engine", kept)
}
