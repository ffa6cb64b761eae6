package raft_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

const crashDir = "NEARGATE_CRASH_DIR" // set: this process is the writer of TestCrash

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		if err := writeForEver(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeForEver counts up in several records at once, in pairs that must stay equal, and prints each number that was acknowledged.
func writeForEver(dir string) error {
	engine, err := raft.Open(raft.Options{Dir: dir, NodeID: "server", SnapshotBytes: 64 << 10})
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
			id := fmt.Sprint(w)
			for {
				var n int64
				_, err := s.Update(context.Background(), func(tx *state.Tx) error {
					rec, _ := statetest.Records.Get(tx, statetest.RecordKey(id))
					n = rec.GetNumber() + 1
					statetest.Records.Put(tx, &statetest.Record{Id: id, Number: n, Groups: []string{"all"}, Payload: make([]byte, 500)})
					statetest.Claims.Put(tx, &statetest.Record{Id: id, Number: n})
					return nil
				})
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				fmt.Printf("%s %d\n", id, n) // one write, so whole lines
			}
		})
	}
	group.Wait()
	return nil
}

// TestCrash kills a process that writes, at random moments, and looks for every write that it had acknowledged.
func TestCrash(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	r := rand.New(rand.NewPCG(statetest.Seed(t), 0))
	dir := t.TempDir()
	acknowledged := map[string]int64{}
	var revision state.Revision
	for round := range rounds {
		// After many entries and some snapshots, or, now and then, at any moment of the start.
		writes, sooner := 1+r.IntN(1500), time.Minute
		if r.IntN(4) == 0 {
			sooner = time.Duration(r.IntN(50)) * time.Millisecond
		}
		crash(t, dir, writes, sooner, acknowledged)

		engine, err := open(dir)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		s, err := state.New(engine, statetest.Schema, state.Options{})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for id, n := range acknowledged {
			rec, _ := statetest.Records.Get(s.View(), statetest.RecordKey(id))
			claim, _ := statetest.Claims.Get(s.View(), statetest.RecordKey(id))
			if rec.GetNumber() < n || rec.GetNumber() > n+1 {
				t.Fatalf("round %d: %s is %d, acknowledged was %d", round, id, rec.GetNumber(), n)
			}
			if claim.GetNumber() != rec.GetNumber() {
				t.Fatalf("round %d: half a transaction: %d and %d", round, rec.GetNumber(), claim.GetNumber())
			}
			acknowledged[id] = rec.GetNumber() // the next writer goes on from here, and may be killed before it acknowledges anything
		}
		if got := len(statetest.IDs(statetest.RecordsByGroup.Scan(s.View(), state.K("all")))); got < len(acknowledged) {
			t.Fatalf("round %d: %d records in the index, %d were acknowledged", round, got, len(acknowledged))
		}
		if s.Revision() < revision {
			t.Fatalf("round %d: revision %d after %d", round, s.Revision(), revision)
		}
		revision = s.Revision()
		if left, _ := filepath.Glob(filepath.Join(dir, "snapshots", "*.tmp")); len(left) > 0 {
			t.Fatalf("round %d: unfinished snapshots are still there: %q", round, left)
		}
		if err := engine.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if revision == 0 {
		t.Error("nothing was written")
	}
}

// crash runs a writer until it has acknowledged so many writes or the time has passed, kills it, and notes all it has acknowledged. It does not end by
// itself.
func crash(t *testing.T, dir string, writes int, sooner time.Duration, acknowledged map[string]int64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(sooner, func() { cmd.Process.Kill() })
	defer timer.Stop()
	lines := bufio.NewReader(out)
	for seen := 0; ; seen++ {
		if seen == writes {
			cmd.Process.Kill()
		}
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break // what was in the pipe has been read, too
		}
		var id string
		var n int64
		if _, err := fmt.Sscan(line, &id, &n); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		acknowledged[id] = max(acknowledged[id], n)
	}
	if cmd.Wait(); cmd.ProcessState.Exited() {
		t.Fatalf("the writer ended: %v: %s", cmd.ProcessState, &stderr)
	}
}
