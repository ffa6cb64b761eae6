package etcd_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
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

const writerEndpoint = "NEARGATE_WRITER_ENDPOINT" // set: this process is the writer that TestLeaderDies kills

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
		ServerID: "writer", Installation: "test", LeaseTTL: shortLease, SnapshotBytes: 64 << 10})
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
				n, err := countUp(context.Background(), s, id)
				if errors.Is(err, state.ErrNotLeader) {
					err = pauseBriefly()
				} else if err == nil {
					fmt.Printf("%s %d\n", id, n) // one write, so whole lines
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

func countUp(ctx context.Context, s *state.Store, id string) (n int64, err error) {
	_, err = s.Update(ctx, func(tx *state.Tx) error {
		rec, _ := statetest.Records.Get(tx, statetest.RecordKey(id))
		n = rec.GetNumber() + 1
		statetest.Records.Put(tx, &statetest.Record{Id: id, Number: n, Groups: []string{"all"}, Payload: make([]byte, 500)})
		statetest.Claims.Put(tx, &statetest.Record{Id: id, Number: n})
		return nil
	})
	return n, err
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

// A leader that is killed, or stopped for long, is followed by another one when its lease has run out; nothing acknowledged is lost, and
// the one that wakes up finds out that it has been deposed.
func TestLeaderDies(t *testing.T) {
	server := etcdtest.Start(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerEndpoint+"="+server.Endpoint)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	var mu sync.Mutex
	acknowledged, total := map[string]int64{}, 0
	read := make(chan error, 1)
	go func() {
		for lines := bufio.NewReader(out); ; {
			line, err := lines.ReadString('\n')
			if err == io.EOF {
				read <- nil
				return
			}
			var id string
			var n int64
			if _, err := fmt.Sscan(line, &id, &n); err != nil {
				read <- fmt.Errorf("%q: %w", line, err)
				return
			}
			mu.Lock()
			acknowledged[id] = max(acknowledged[id], n)
			total++
			mu.Unlock()
		}
	}()
	soFar := func() int {
		mu.Lock()
		defer mu.Unlock()
		return total
	}
	eventually(t, "300 writes by the other process", func() bool { return soFar() > 300 })
	s := open(t, short(options(server, "", "heir")))
	if l := s.Leadership(); l.Leader != "writer" {
		t.Fatalf("%+v", l)
	}

	cmd.Process.Signal(syscall.SIGSTOP)
	eventually(t, "the heir leads", leads(s))
	statetest.Put(t, s.Store, &statetest.Record{Id: "heir", Number: 1})
	cmd.Process.Signal(syscall.SIGCONT)
	// The writer follows now, and leads again when the heir has gone.
	if err := s.engine.Close(); err != nil {
		t.Fatal(err)
	}
	before := soFar()
	eventually(t, "the writer goes on", func() bool { return soFar() > before+300 })

	heir := open(t, short(options(server, "", "heir")))
	began := time.Now()
	cmd.Process.Kill()
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	eventually(t, "the heir leads", leads(heir))
	t.Logf("led %v after the kill; %d writes were acknowledged", time.Since(began).Round(time.Millisecond), soFar())
	holdsAll(t, heir.View(), acknowledged)
	if number(heir.View(), "heir") != 1 {
		t.Error("what the heir wrote is lost")
	}
	statetest.Put(t, heir.Store, &statetest.Record{Id: "heir", Number: 2})
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
				n, err := countUp(attempt, s.Store, id)
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
	s := open(t, short(options(server, "", "server")))
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
	again := open(t, short(options(server, "", "server")))
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
