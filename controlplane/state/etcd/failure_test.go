package etcd_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/etcd"
	"github.com/seed-2f228079/neargate/controlplane/state/etcd/etcdtest"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

const (
	writerEndpoint = "NEARGATE_WRITER_ENDPOINT" // set: this process is a writer that TestProcessesDie kills
	writerID       = "NEARGATE_WRITER_ID"
)

func TestMain(m *testing.M) {
	if endpoint := os.Getenv(writerEndpoint); endpoint != "" {
		if err := writeForEver(endpoint); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeForEver counts up in pairs of records that must stay equal, and prints each number that was acknowledged.
func writeForEver(endpoint string) error {
	engine, err := etcd.Open(context.Background(), etcd.Options{Connection: etcd.Connection{Endpoints: []string{endpoint}},
		ServerID: os.Getenv(writerID), Installation: "test", LeaseTTL: shortLease, SnapshotBytes: 64 << 10})
	if err != nil {
		return err
	}
	s, err := state.New(engine, statetest.Schema, state.Options{})
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	for w := range 8 {
		group.Go(func() {
			for id := fmt.Sprint(w); ; {
				n, revision, err := countUp(context.Background(), s, id)
				if errors.Is(err, state.ErrNotLeader) || errors.Is(err, state.ErrUncertain) {
					err = pauseBriefly()
				} else if err == nil {
					fmt.Printf("%s %d %d\n", id, n, revision) // one write, so whole lines
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
			}
		})
	}
	group.Wait()
	return nil
}

func pauseBriefly() error { time.Sleep(10 * time.Millisecond); return nil }

func countUp(ctx context.Context, s *state.Store, id string) (n int64, revision state.Revision, err error) {
	revision, err = s.Update(ctx, func(tx *state.Tx) error {
		rec, _ := statetest.Records.Get(tx, statetest.RecordKey(id))
		n = rec.GetNumber() + 1
		statetest.Records.Put(tx, &statetest.Record{Id: id, Number: n, Groups: []string{"all"}, Payload: make([]byte, 500)})
		statetest.Claims.Put(tx, &statetest.Record{Id: id, Number: n})
		return nil
	})
	return n, revision, err
}

const shortLease = 2 * time.Second // the shortest etcd gives

func short(o etcd.Options) etcd.Options {
	o.LeaseTTL = shortLease
	return o
}

// holdsAll looks for every acknowledged number, and for halves of transactions.
func holdsAll(t *testing.T, v *state.View, acknowledged map[string]int64) {
	t.Helper()
	for id, n := range acknowledged {
		rec, _ := statetest.Records.Get(v, statetest.RecordKey(id))
		claim, _ := statetest.Claims.Get(v, statetest.RecordKey(id))
		if rec.GetNumber() < n {
			t.Errorf("%s is %d, acknowledged was %d", id, rec.GetNumber(), n)
		}
		if claim.GetNumber() != rec.GetNumber() {
			t.Errorf("half a transaction: %s is %d and %d", id, rec.GetNumber(), claim.GetNumber())
		}
	}
}

// ledger is what processes have said that they were acknowledged.
type ledger struct {
	mu      sync.Mutex
	highest map[string]int64 // by record
	writes  map[state.Revision]acknowledgement
	broken  []string // lines that cannot be
	last    time.Time
	longest time.Duration // without a line
}

type acknowledgement struct {
	record, process string
	number          int64
}

// read notes what a process prints until it ends.
func (l *ledger) read(process string, out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		a := acknowledgement{process: process}
		var revision state.Revision
		_, err := fmt.Sscan(lines.Text(), &a.record, &a.number, &revision)
		l.mu.Lock()
		if other, twice := l.writes[revision]; err != nil || twice {
			l.broken = append(l.broken, fmt.Sprintf("%s: %q, %v before, %v", process, lines.Text(), other, err))
		}
		l.writes[revision], l.highest[a.record] = a, max(l.highest[a.record], a.number)
		if now := time.Now(); !l.last.IsZero() {
			l.longest, l.last = max(l.longest, now.Sub(l.last)), now
		} else {
			l.last = now
		}
		l.mu.Unlock()
	}
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.writes)
}

// check looks for numbers that were counted twice, or in another order than that of revisions: each write reads the one before.
func (l *ledger) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.broken {
		t.Errorf("impossible: %s", line)
	}
	before := map[string]acknowledgement{}
	for _, r := range slices.Sorted(maps.Keys(l.writes)) {
		a := l.writes[r]
		if b, ok := before[a.record]; ok && a.number <= b.number {
			t.Errorf("revision %d: %v after %v", r, a, b)
		}
		before[a.record] = a
	}
}

// writer is a process that counts up whenever it leads.
type writer struct {
	id    string
	cmd   *exec.Cmd
	ended chan struct{} // closed when all it said has been noted
}

func (l *ledger) startWriter(t *testing.T, server *etcdtest.Server, id string) *writer {
	t.Helper()
	w := &writer{id: id, cmd: exec.Command(os.Args[0]), ended: make(chan struct{})}
	w.cmd.Env = append(os.Environ(), writerEndpoint+"="+server.Endpoint, writerID+"="+id)
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	w.cmd.Stderr = &log
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.ended)
		l.read(id, out)
	}()
	t.Cleanup(func() {
		w.kill()
		if t.Failed() {
			t.Logf("%s, process %d, said:\n%s", id, w.cmd.Process.Pid, log.String())
		}
	})
	return w
}

func (w *writer) kill() {
	w.cmd.Process.Kill()
	<-w.ended
	w.cmd.Wait()
}

// Servers that are processes are killed with SIGKILL, or stopped with SIGSTOP beyond their lease, whichever leads and at any moment of its
// writing. Nothing acknowledged is lost or done twice, and who wakes up finds out that it has been deposed.
func TestProcessesDie(t *testing.T) {
	server := etcdtest.Start(t)
	l := &ledger{highest: map[string]int64{}, writes: map[state.Revision]acknowledgement{}}
	writers := map[string]*writer{}
	for _, id := range []string{"p0", "p1", "p2"} {
		writers[id] = l.startWriter(t, server, id)
	}
	c := raw(t, server)
	leader := func(except string) *writer {
		t.Helper()
		var w *writer
		eventually(t, "a process leads", func() bool {
			r, err := c.Get(t.Context(), "/neargate/leader")
			if err == nil && len(r.Kvs) == 1 && string(r.Kvs[0].Value) != except {
				w = writers[string(r.Kvs[0].Value)]
			}
			return w != nil
		})
		return w
	}
	r := rand.New(rand.NewPCG(statetest.Seed(t), 0))
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		before := l.count()
		eventually(t, "writes are acknowledged", func() bool { return l.count() > before+1+r.IntN(300) })
		w := leader("")
		if r.IntN(2) == 0 {
			w.kill()
			leader(w.id)
			writers[w.id] = l.startWriter(t, server, w.id)
			continue
		}
		w.cmd.Process.Signal(syscall.SIGSTOP)
		leader(w.id)
		before = l.count()
		eventually(t, "its successor's writes are acknowledged", func() bool { return l.count() > before+r.IntN(300) })
		w.cmd.Process.Signal(syscall.SIGCONT)
	}
	before := l.count()
	eventually(t, "writes are acknowledged", func() bool { return l.count() > before+100 })
	for _, w := range writers {
		w.kill()
	}
	l.check(t)
	s := open(t, short(options(server, "", "heir")))
	eventually(t, "the heir leads", leads(s))
	holdsAll(t, s.View(), l.highest)
	if last := slices.Max(slices.Collect(maps.Keys(l.writes))); s.Revision() < last {
		t.Errorf("at revision %d, acknowledged was %d", s.Revision(), last)
	}
	t.Logf("%d writes were acknowledged, none for %v at the longest", l.count(), l.longest.Round(time.Millisecond))
}

// The fence: a leader that was stopped between looking and writing writes nothing once its key has gone, though nobody has written
// since and all else that its write depends on still holds.
func TestFence(t *testing.T) {
	server := etcdtest.Start(t)
	first := open(t, options(server, "", "first"))
	open(t, options(server, "", "second"))
	statetest.Put(t, first.Store, &statetest.Record{Id: "a", Number: 1})
	late := first.engine.Hold()
	c := raw(t, server)
	leader, err := c.Get(t.Context(), "/neargate/leader")
	if err != nil {
		t.Fatal(err)
	}
	head, err := c.Get(t.Context(), "/neargate/head")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Revoke(t.Context(), clientv3.LeaseID(leader.Kvs[0].Lease)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another term", func() bool {
		l, err := c.Get(t.Context(), "/neargate/leader")
		return err == nil && len(l.Kvs) == 1 && l.Kvs[0].CreateRevision != leader.Kvs[0].CreateRevision
	})
	if err := late(&state.Transaction{Ops: []state.Op{{Table: "statetest.record", Key: statetest.RecordKey("late")}}}); err != state.ErrNotLeader {
		t.Errorf("a deposed leader's write: %v", err)
	}
	if now, err := c.Get(t.Context(), "/neargate/head"); err != nil || string(now.Kvs[0].Value) != string(head.Kvs[0].Value) {
		t.Errorf("the head is %q after %q, %v", now.Kvs[0].Value, head.Kvs[0].Value, err)
	}
}

// Etcd is killed again and again while there are writes. Each is there, or was not acknowledged; nobody is told that one failed that
// has succeeded.
func TestEtcdDies(t *testing.T) {
	server := etcdtest.Start(t)
	s := open(t, short(options(server, "", "server")))
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	acknowledged := map[string]int64{}
	var group sync.WaitGroup
	uncertain := 0
	for w := range 8 {
		group.Go(func() {
			id := fmt.Sprint(w)
			for sure := int64(0); ctx.Err() == nil; {
				attempt, done := context.WithTimeout(ctx, time.Second)
				n, _, err := countUp(attempt, s.Store, id)
				done()
				switch {
				case err == nil && n != sure+1 && sure >= 0:
					t.Errorf("%s became %d after %d", id, n, sure)
				case errors.Is(err, state.ErrUncertain):
					mu.Lock()
					uncertain++
					mu.Unlock()
					sure = -1 // it may be one or two more
					continue
				case err != nil && !state.Retryable(err) && !errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
					t.Errorf("%s: %v", id, err)
				}
				if err == nil {
					sure = n
					mu.Lock()
					acknowledged[id] = n
					mu.Unlock()
				}
			}
		})
	}
	sum := func() (n int64) {
		mu.Lock()
		defer mu.Unlock()
		for _, a := range acknowledged {
			n += a
		}
		return n
	}
	for round := range 4 {
		before := sum()
		eventually(t, "writes go on", func() bool { return sum() > before+100 })
		server.Kill()
		at := sum()
		if round == 2 { // longer than the lease
			eventually(t, "the leader steps down", func() bool { return s.Leadership().Term == 0 })
			// What is known can still be read; what must be current cannot.
			for what, try := range map[string]func(ctx context.Context) error{
				"linearizable read": func(ctx context.Context) error { _, err := s.Linearizable(ctx); return err },
				"update":            func(ctx context.Context) error { return put(ctx, s, "x", 1) },
			} {
				soon, done := context.WithTimeout(t.Context(), 100*time.Millisecond)
				if err := try(soon); !state.Retryable(err) {
					t.Errorf("%s without etcd: %v", what, err)
				}
				done()
			}
			if int64(len(statetest.IDs(statetest.Records.Scan(s.View(), state.K())))) != 8 || at == 0 {
				t.Error("a stale read fails")
			}
		}
		server.Restart()
	}
	before := sum()
	eventually(t, "writes go on", func() bool { return sum() > before+100 })
	cancel()
	group.Wait()
	v, err := s.Linearizable(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	holdsAll(t, v, acknowledged)
	t.Logf("%d writes acknowledged, %d uncertain", sum(), uncertain)
}

// When etcd's quota is used up nothing can be written, which is said; what is there can be read, and all is well again once there is room.
func TestNoSpace(t *testing.T) {
	server := etcdtest.Start(t, "--quota-backend-bytes=16777216")
	s := open(t, options(server, "", "server"))
	if err := s.engine.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	var readOnly *state.ReadOnlyError
	written := int64(0)
	for readOnly == nil {
		_, err := s.Update(t.Context(), func(tx *state.Tx) error {
			statetest.Records.Put(tx, &statetest.Record{Id: "a", Number: written + 1, Payload: make([]byte, 500<<10)})
			return nil
		})
		if err == nil {
			written++
		} else if !errors.As(err, &readOnly) || !state.Retryable(err) || !strings.Contains(err.Error(), "etcdctl alarm disarm") {
			t.Fatal(err)
		}
	}
	reads := func(s opened) {
		t.Helper()
		v, err := s.Linearizable(t.Context())
		if err != nil || number(v, "a") != written {
			t.Errorf("reads %d, want %d, %v", number(v, "a"), written, err)
		}
		if err := s.engine.Health(t.Context()); !errors.As(err, &readOnly) {
			t.Errorf("health: %v", err)
		}
	}
	reads(s)
	if err := s.engine.Close(); err != nil {
		t.Fatal(err)
	}
	// A server that starts meanwhile can read, too. It cannot lead: etcd gives no leases.
	again := open(t, options(server, "", "server"))
	reads(again)

	server.Restart("--quota-backend-bytes=1073741824")
	c := raw(t, server)
	if _, err := c.AlarmDisarm(t.Context(), &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), again, "a", written+1); err != nil {
		t.Fatal(err)
	}
	if err := again.engine.Health(t.Context()); err != nil {
		t.Error(err)
	}
}
