package raft_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

func open(dir string) (state.Engine, error) {
	return raft.Open(raft.Options{Dir: dir, NodeID: "server"})
}

// smallSnapshots takes a snapshot every few entries.
func smallSnapshots(dir string) (state.Engine, error) {
	return raft.Open(raft.Options{Dir: dir, NodeID: "server", SnapshotBytes: 2 << 10})
}

func TestEngine(t *testing.T) { statetest.RunEngine(t, open) }

func TestDurable(t *testing.T) { statetest.RunDurable(t, open) }

func TestDurableBySnapshots(t *testing.T) { statetest.RunDurable(t, smallSnapshots) }

// With snapshots the log does not grow with what was ever written.
func TestLogIsCut(t *testing.T) {
	dir := t.TempDir()
	engine, err := raft.Open(raft.Options{Dir: dir, NodeID: "server", SnapshotBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { engine.Close() })
	s, err := state.New(engine, statetest.Schema, state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	written := 0 // of half a MiB, all to one record
	for ; written < 200 || folderSize(t, dir) > 90<<20; written++ {
		if written == 600 { // a snapshot may be late, but not all of them
			t.Fatalf("%d MiB in the folder after %d MiB were written", folderSize(t, dir)>>20, written/2)
		}
		statetest.Put(t, s, &statetest.Record{Id: "a", Number: int64(written), Payload: make([]byte, 512<<10)})
	}
	if n, err := filepath.Glob(filepath.Join(dir, "snapshots", "*")); err != nil || len(n) == 0 {
		t.Errorf("no snapshots, %v", err)
	}
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
	again := statetest.Open(t, open, dir)
	if rec, _ := statetest.Records.Get(again.View(), statetest.RecordKey("a")); rec.GetNumber() != int64(written-1) || again.Revision() != state.Revision(written) {
		t.Errorf("record %d at revision %d", rec.GetNumber(), again.Revision())
	}
}

// As many bytes of log come between two snapshots as the state has: a large one is not written again for every small part of it that changes.
func TestSnapshotsFollowTheState(t *testing.T) {
	dir := t.TempDir()
	s := statetest.Open(t, smallSnapshots, dir)
	const records, size = 64, 16 << 10
	for i := range records {
		statetest.Put(t, s, &statetest.Record{Id: fmt.Sprint(i), Payload: make([]byte, size)})
	}
	seen := map[string]bool{}
	note := func() (more bool) {
		names, err := filepath.Glob(filepath.Join(dir, "snapshots", "*-*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if !strings.HasSuffix(name, ".tmp") && !seen[name] {
				seen[name], more = true, true
			}
		}
		return more
	}
	note()
	before := len(seen)
	for i := range 4 * records {
		statetest.Put(t, s, &statetest.Record{Id: "0", Number: int64(i), Payload: make([]byte, size)})
		note()
	}
	for end := time.Now().Add(time.Minute); len(seen) == before && time.Now().Before(end); time.Sleep(time.Millisecond) { // one may be late
		note()
	}
	if taken := len(seen) - before; taken < 1 || taken > 8 {
		t.Errorf("%d snapshots while four times as much changed as there is", taken)
	}
}

func folderSize(t *testing.T, dir string) (size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if info, statErr := os.Stat(path); err == nil && statErr == nil && !d.IsDir() {
			size += info.Size() // one that was removed meanwhile counts for nothing
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// A folder of another server is not taken over.
func TestOtherNode(t *testing.T) {
	dir := t.TempDir()
	e, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.New(e, nil, state.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	other, err := raft.Open(raft.Options{Dir: dir, NodeID: "other"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.New(other, nil, state.Options{}); err == nil || !strings.Contains(err.Error(), "not to server other alone") {
		t.Fatalf("got %v", err)
	}
}

// An entry of a later version stops the engine with a clear error instead of being passed over.
func TestNewerLog(t *testing.T) {
	dir := t.TempDir()
	e, err := raft.Open(raft.Options{Dir: dir, NodeID: "server"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.New(e, nil, state.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := e.ApplyRaw([]byte{99, 0}); err == nil || !strings.Contains(err.Error(), "does not know") {
		t.Fatalf("apply: %v", err)
	}
	if err := e.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "does not know") {
		t.Fatalf("run: %v", err)
	}
	again, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.New(again, nil, state.Options{}); err == nil || !strings.Contains(err.Error(), "entry of format 99") {
		t.Fatalf("restart: %v", err)
	}
}

// A server does not start on a state that is of a later version, be it in the log or in a snapshot, and says so.
func TestStateIsNotAdmitted(t *testing.T) {
	for name, open := range map[string]func(string) (state.Engine, error){"log": open, "snapshot": smallSnapshots} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			engine, err := open(dir)
			if err != nil {
				t.Fatal(err)
			}
			s, err := state.New(engine, statetest.Schema, state.Options{})
			if err != nil {
				t.Fatal(err)
			}
			statetest.Put(t, s, &statetest.Record{Id: "newer"})
			for i := range 100 {
				statetest.Put(t, s, &statetest.Record{Id: "a", Number: int64(i), Payload: make([]byte, 200)})
			}
			if err := engine.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := open(dir)
			if err != nil {
				t.Fatal(err)
			}
			_, err = state.New(again, statetest.Schema, state.Options{Admit: func(v *state.View) error {
				if _, ok := statetest.Records.Get(v, statetest.RecordKey("newer")); ok {
					return fmt.Errorf("%w: of version 2", state.ErrUnknownFormat)
				}
				return nil
			}})
			if !errors.Is(err, state.ErrUnknownFormat) || !strings.Contains(err.Error(), "of version 2") {
				t.Errorf("got %v", err)
			}
		})
	}
}
