package raft_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// tryPut waits for a leader a little longer than an election takes.
func tryPut(t *testing.T, s *state.Store, rec *statetest.Record) error {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := s.Update(ctx, func(tx *state.Tx) error { statetest.Records.Put(tx, rec); return nil })
	return err
}

// A leader whose disk fails says so, acknowledges nothing, and another one leads; it comes back when its disk is well.
func TestLeadersDiskFails(t *testing.T) {
	for _, op := range []raft.DiskOp{raft.DiskAppend, raft.DiskSync} {
		t.Run(string(op), func(t *testing.T) {
			c := newCluster(t, nil)
			leader := c.Leader()
			put(t, c, &statetest.Record{Id: "before"})
			leader.BreakDisk(func(o raft.DiskOp) error {
				if o == op || o == raft.DiskHeal {
					return syscall.EIO
				}
				return nil
			})
			err := tryPut(t, leader.Store(), &statetest.Record{Id: "failed"})
			var disk *state.DiskError
			if !errors.As(err, &disk) || !errors.Is(err, syscall.EIO) || !errors.Is(err, state.ErrUncertain) || state.Retryable(err) {
				t.Fatalf("got %v", err)
			}
			if c.Leader(leader) == leader {
				t.Fatal("it leads still")
			}
			r := put(t, c, &statetest.Record{Id: "after"})
			awaitMember(t, c, leader.ID, "unhealthy", func(m state.Member) bool { return !m.Healthy })
			if _, ok := statetest.Records.Get(leader.Store().View(), statetest.RecordKey("before")); !ok {
				t.Error("it cannot be read any more")
			}
			leader.BreakDisk(nil)
			awaitRevision(t, c, leader, r)
			awaitMember(t, c, leader.ID, "healthy", func(m state.Member) bool { return m.Healthy })
			// What failed was never sent to anybody, and so is gone.
			v, err := leader.Store().Linearizable(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := statetest.Records.Get(v, statetest.RecordKey("failed")); ok {
				t.Error("what was not acknowledged, nor sent to others, is there")
			}
		})
	}
}

// A server that is alone refuses writes while its disk fails, shows what it has, and goes on when the disk is well. Terms that cannot
// be written do not end the process.
func TestOnlyDiskFails(t *testing.T) {
	var broken atomic.Bool
	dir := t.TempDir()
	s := statetest.Open(t, func(dir string) (state.Engine, error) {
		return raft.Open(raft.Options{Dir: dir, NodeID: "server", Disk: func(raft.DiskOp) error {
			if broken.Load() {
				return syscall.EIO
			}
			return nil
		}})
	}, dir)
	last := statetest.Put(t, s, &statetest.Record{Id: "a", Number: 1})
	broken.Store(true)
	var disk *state.DiskError
	if err := tryPut(t, s, &statetest.Record{Id: "a", Number: 2}); !errors.As(err, &disk) {
		t.Fatalf("got %v", err)
	}
	for err := error(nil); !errors.Is(err, state.ErrNoLeader); { // it steps down in a moment, and cannot lead again
		if err = tryPut(t, s, &statetest.Record{Id: "a", Number: 3}); !state.Retryable(err) {
			t.Fatalf("then %v", err)
		}
	}
	if rec, _ := statetest.Records.Get(s.View(), statetest.RecordKey("a")); rec.GetNumber() != 1 {
		t.Errorf("reads %v", rec)
	}
	broken.Store(false)
	deadline := time.Now().Add(30 * time.Second)
	err := error(state.ErrNoLeader)
	for err != nil && time.Now().Before(deadline) {
		err = tryPut(t, s, &statetest.Record{Id: "a", Number: 4})
	}
	if err != nil || s.Revision() != last+1 {
		t.Errorf("revision %d after %d (%v): something was committed that had failed", s.Revision(), last, err)
	}
}

// filesystem is one of so many bytes, in memory.
func filesystem(t *testing.T, bytes int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system that fills up")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", bytes)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves so many bytes free on a file system, until the function is called.
func fill(t *testing.T, dir string, left int64) (remove func()) {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, int64(fs.Bavail)*int64(fs.Bsize)-left); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

// When room runs low writes are refused before they fail: the server goes on leading, and so linearizable reads go on.
func TestRoomRunsLow(t *testing.T) {
	dir := filesystem(t, 128<<20)
	s := statetest.Open(t, open, filepath.Join(dir, "state"))
	statetest.Put(t, s, &statetest.Record{Id: "a"})
	term := s.Leadership().Term
	remove := fill(t, dir, 32<<20)
	deadline := time.Now().Add(10 * time.Second)
	var err error
	for err == nil && time.Now().Before(deadline) { // it looks now and then
		err = tryPut(t, s, &statetest.Record{Id: "a"})
	}
	var disk *state.DiskError
	if !errors.As(err, &disk) || !errors.Is(err, syscall.ENOSPC) || errors.Is(err, state.ErrUncertain) || !state.Retryable(err) {
		t.Fatalf("got %v", err)
	}
	before := s.Revision()
	if v, err := s.Linearizable(t.Context()); err != nil || v.Revision() != before {
		t.Errorf("linearizable: %v", err)
	}
	remove()
	for err != nil && time.Now().Before(deadline) {
		err = tryPut(t, s, &statetest.Record{Id: "a"})
	}
	if err != nil || s.Revision() != before+1 || s.Leadership().Term != term {
		t.Errorf("after there was room: %v at revision %d in term %d", err, s.Revision(), s.Leadership().Term)
	}
}

// A disk that is full to the last byte, as when somebody else fills it at once.
func TestDiskIsFull(t *testing.T) {
	dir := filesystem(t, 128<<20)
	full := func(dir string) (state.Engine, error) {
		return raft.Open(raft.Options{Dir: dir, NodeID: "server", MinFreeBytes: 1, SnapshotBytes: 8 << 20})
	}
	acked := -1
	t.Run("", func(t *testing.T) {
		s := statetest.Open(t, full, filepath.Join(dir, "state"))
		for range 3 {
			remove := fill(t, dir, 4<<20)
			var err error
			for err == nil {
				if err = tryPut(t, s, &statetest.Record{Id: fmt.Sprint((acked + 1) % 10), Number: int64(acked + 1), Payload: make([]byte, 500<<10)}); err == nil {
					acked++
				}
			}
			var disk *state.DiskError
			if !errors.As(err, &disk) || !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("after %d: %v", acked, err)
			}
			if rec, _ := statetest.Records.Get(s.View(), statetest.RecordKey(fmt.Sprint(acked%10))); rec.GetNumber() != int64(acked) {
				t.Errorf("%d acknowledged, %d read", acked, rec.GetNumber())
			}
			remove()
			deadline := time.Now().Add(30 * time.Second)
			for err != nil && time.Now().Before(deadline) {
				err = tryPut(t, s, &statetest.Record{Id: fmt.Sprint((acked + 1) % 10), Number: int64(acked + 1)})
			}
			if err != nil {
				t.Fatalf("there is room again, and still: %v", err)
			}
			acked++
		}
	})
	s := statetest.Open(t, open, filepath.Join(dir, "state"))
	if rec, _ := statetest.Records.Get(s.View(), statetest.RecordKey(fmt.Sprint(acked%10))); rec.GetNumber() != int64(acked) {
		t.Errorf("after a restart %d, acknowledged was %d", rec.GetNumber(), acked)
	}
}

// In a group a full disk takes the server out of the leadership, and the others go on.
func TestLeaderRunsOutOfRoom(t *testing.T) {
	dir := filesystem(t, 128<<20)
	c := newCluster(t, func(o *raft.Options) {
		if o.NodeID == "s0" {
			o.Dir = dir
		}
	})
	full := c.Servers()[0]
	if leader := c.Leader(); leader != full {
		if err := leader.Engine().TransferLeadership(t.Context(), full.ID); err != nil {
			t.Fatal(err)
		}
	}
	c.Await("s0 leads", func() bool { return full.Store().Leadership().Term != 0 })
	put(t, c, &statetest.Record{Id: "a"})
	fill(t, dir, 32<<20)
	c.Await("another one leads", func() bool { l := c.Leader(); return l != full })
	put(t, c, &statetest.Record{Id: "b"})
}
