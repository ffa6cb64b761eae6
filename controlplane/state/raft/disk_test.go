package raft_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	hraft "github.com/hashicorp/raft"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// tryPut waits for a leader a little longer than an election takes.
func tryPut(t *testing.T, s *state.Store, rec *statetest.Record) error {
	return tryPutFor(t, 3*time.Second, s, rec)
}

func tryPutFor(t *testing.T, patience time.Duration, s *state.Store, rec *statetest.Record) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
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
			err := tryPutFor(t, time.Minute, leader.Store(), &statetest.Record{Id: "failed"})
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

// A server whose disk fails can vote for nobody, itself included, and says so before anybody begins a term that counts on it: by itself it begins none
// either, which would depose whoever is elected in an earlier one.
func TestServerThatCannotVoteAbstains(t *testing.T) {
	c := newCluster(t, nil)
	broken := c.Leader()
	put(t, c, &statetest.Record{Id: "before"})
	broken.BreakDisk(func(o raft.DiskOp) error {
		if o == raft.DiskAppend || o == raft.DiskHeal {
			return syscall.EIO
		}
		return nil
	})
	if err := tryPutFor(t, time.Minute, broken.Store(), &statetest.Record{Id: "failed"}); !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v", err)
	}
	put(t, c, &statetest.Record{Id: "after"})
	stopped := c.Leader(broken)
	left := c.Followers(stopped)
	stopped.Stop()
	// Nobody can be elected by the two that are left, for as many elections as there may be in that time.
	first := max(left[0].Engine().Term(), left[1].Engine().Term())
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, s := range left {
			if term := s.Engine().Term(); term > first {
				t.Fatalf("%s, where %s cannot vote, has come to term %d from %d", s.ID, broken.ID, term, first)
			}
			if s == broken {
				continue
			}
			if granted, err := s.Engine().AskPreVote(broken.ID, broken.Address()); err != nil || granted {
				t.Fatalf("%s would vote for %s: %t, %v", broken.ID, s.ID, granted, err)
			}
		}
	}
	stopped.Start()
	put(t, c, &statetest.Record{Id: "again"})
}

func entries(term, from, to uint64) (logs []*hraft.Log) {
	for i := from; i <= to; i++ {
		logs = append(logs, &hraft.Log{Index: i, Term: term, Type: hraft.LogNoop})
	}
	return logs
}

// terms are those of all entries of a log.
func terms(t *testing.T, d hraft.LogStore) (terms []uint64) {
	t.Helper()
	last, err := d.LastIndex()
	for i := uint64(1); i <= last && err == nil; i++ {
		var l hraft.Log
		if err = d.GetLog(i, &l); err == nil {
			terms = append(terms, l.Term)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return terms
}

// A process may end when a segment of the log has been filled, and before the log has noted that, or in the middle of filling it. The log goes on
// after what was written.
func TestSegmentIsFullAtTheStart(t *testing.T) {
	for name, damage := range map[string]func(f *os.File, index int64) error{
		"whole":         func(*os.File, int64) error { return nil },
		"without end":   func(f *os.File, index int64) error { return f.Truncate(index + 4) },
		"without a sum": func(f *os.File, index int64) error { _, err := f.WriteAt([]byte{0xff}, index); return err },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			open := func() (hraft.LogStore, func()) {
				ctx, stop := context.WithCancel(t.Context())
				d, closed, err := raft.OpenDisk(ctx, dir, func(raft.DiskOp) error { return nil }, unhealed(t))
				if err != nil {
					t.Fatal(err)
				}
				return d, func() {
					stop()
					if err := closed(); err != nil {
						t.Error(err)
					}
				}
			}
			d, closed := open()
			if err := errors.Join(d.StoreLogs(entries(1, 1, 3)), d.StoreLogs(entries(1, 4, 5))); err != nil {
				t.Fatal(err)
			}
			closed()
			segment, index, err := raft.SealTail(dir)
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(segment, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(damage(f, int64(index)), f.Close()); err != nil {
				t.Fatal(err)
			}
			want := []uint64{1, 1, 1, 1, 1}
			for i := uint64(6); i < 9; i++ {
				d, closed := open()
				if got := terms(t, d); !slices.Equal(got, want) {
					t.Fatalf("terms %v, want %v", got, want)
				}
				if err := d.StoreLogs(entries(2, i, i)); err != nil {
					t.Fatal(err)
				}
				want = append(want, 2)
				closed()
			}
		})
	}
}

// When what a leader has instead of the end of a log cannot be stored, that end is there again as soon as the disk is well: raft believes in it
// and could not go on otherwise. That holds wherever it fails, as often as it does, and when the server starts again.
func TestEndIsNotReplaced(t *testing.T) {
	for _, op := range []raft.DiskOp{raft.DiskTruncate, raft.DiskAppend, raft.DiskSync} {
		t.Run(string(op), func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var broken atomic.Bool
			dir := t.TempDir()
			inject := func(o raft.DiskOp) error {
				if o == op && broken.Load() {
					return syscall.EIO
				}
				return nil
			}
			d, closed, err := raft.OpenDisk(ctx, dir, inject, unhealed(t))
			if err != nil {
				t.Fatal(err)
			}
			replace := func(term, from, to uint64) error {
				last, err := d.LastIndex()
				if err != nil {
					return err
				}
				return errors.Join(d.DeleteRange(from, last), d.StoreLogs(entries(term, from, to)))
			}
			if err := d.StoreLogs(entries(1, 1, 6)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				broken.Store(true)
				if err := replace(2, 4, 8); !errors.Is(err, syscall.EIO) {
					t.Fatalf("got %v", err)
				}
				if l := (hraft.Log{}); d.GetLog(4, &l) != nil || l.Term != 1 {
					t.Fatalf("entry 4 is shown as one of term %d before what was to replace it is stored", l.Term)
				}
				broken.Store(false)
				for deadline := time.Now().Add(30 * time.Second); d.DeleteRange(7, 6) != nil; time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("it does not heal")
					}
				}
				if got, want := terms(t, d), []uint64{1, 1, 1, 1, 1, 1}; !slices.Equal(got, want) {
					t.Fatalf("terms after a failure: %v, want %v", got, want)
				}
			}
			if err := replace(2, 4, 8); err != nil {
				t.Fatal(err)
			}
			want := []uint64{1, 1, 1, 2, 2, 2, 2, 2}
			if got := terms(t, d); !slices.Equal(got, want) {
				t.Fatalf("terms once replaced: %v, want %v", got, want)
			}
			stop()
			if err := closed(); err != nil {
				t.Fatal(err)
			}
			ctx, stop = context.WithCancel(t.Context())
			d, closed, err = raft.OpenDisk(ctx, dir, inject, unhealed(t))
			if err != nil {
				t.Fatal(err)
			}
			if got := terms(t, d); !slices.Equal(got, want) {
				t.Errorf("terms after a restart: %v, want %v", got, want)
			}
			stop()
			if err := closed(); err != nil {
				t.Error(err)
			}
		})
	}
}

// unhealed fails the test.
func unhealed(t *testing.T) func(error) {
	return func(err error) { t.Errorf("the log cannot be healed: %v", err) }
}

// Raft forgets a change of members with the end that it is in, and reads it again only when it starts: once that end is put back the server has to.
func TestMembersAreNotReplaced(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var broken atomic.Bool
	dir, told := t.TempDir(), make(chan error, 1)
	d, closed, err := raft.OpenDisk(ctx, dir, func(o raft.DiskOp) error {
		if o == raft.DiskAppend && broken.Load() {
			return syscall.EIO
		}
		return nil
	}, func(err error) {
		select {
		case told <- err:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	logs := entries(1, 1, 6)
	logs[4].Type = hraft.LogConfiguration
	if err := d.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if err := d.StoreLogs(entries(2, 4, 8)); !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v", err)
	}
	broken.Store(false)
	select {
	case err := <-told:
		if !strings.Contains(err.Error(), "start the server again") {
			t.Errorf("it ends with %q", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it goes on")
	}
	if d.StoreLogs(entries(2, 7, 7)) == nil {
		t.Error("it takes entries still")
	}
	stop()
	if err := closed(); err != nil {
		t.Fatal(err)
	}
	ctx, stop = context.WithCancel(t.Context())
	d, closed, err = raft.OpenDisk(ctx, dir, func(raft.DiskOp) error { return nil }, unhealed(t))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := terms(t, d), []uint64{1, 1, 1, 1, 1, 1}; !slices.Equal(got, want) {
		t.Errorf("terms after a restart: %v, want %v", got, want)
	}
	stop()
	if err := closed(); err != nil {
		t.Error(err)
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
	if err := tryPutFor(t, time.Minute, s, &statetest.Record{Id: "a", Number: 2}); !errors.As(err, &disk) {
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
	// Once: what is given up may be committed all the same.
	if err := tryPutFor(t, time.Minute, s, &statetest.Record{Id: "a", Number: 4}); err != nil || s.Revision() != last+1 {
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
	for err = syscall.ENOSPC; errors.Is(err, syscall.ENOSPC); { // a snapshot, or a segment of the log, took some of it meanwhile
		var fs syscall.Statfs_t
		if err := syscall.Statfs(dir, &fs); err != nil {
			t.Fatal(err)
		}
		err = syscall.Fallocate(int(f.Fd()), 0, 0, int64(fs.Bavail)*int64(fs.Bsize)-left)
	}
	if err != nil {
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
	deadline := time.Now().Add(time.Minute)
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
	for deadline = time.Now().Add(time.Minute); err != nil && time.Now().Before(deadline); {
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
	handOver(t, c, full)
	put(t, c, &statetest.Record{Id: "a"})
	fill(t, dir, 32<<20)
	c.Await("another one leads", func() bool { l := c.Leader(); return l != full })
	put(t, c, &statetest.Record{Id: "b"})
}
