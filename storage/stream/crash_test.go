package stream_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/storage/stream"
)

// TestMain turns the test binary into the writer that TestKilledWriter kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("STREAM_TEST_WRITE"); dir != "" {
		writeForever(dir)
		return
	}
	os.Exit(m.Run())
}

var small = stream.Options{SegmentBytes: 4 << 10, JournalBytes: 32 << 10, OpenFiles: 3}

// writeForever appends to twenty streams from four sides, with checkpoints and retention in between, and prints each record once it is
// acknowledged.
func writeForever(dir string) {
	s, err := stream.Open(dir, small)
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	fail(err)
	go s.Run(context.Background())
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("w%d-%d", w, rand.IntN(5))
				var b stream.Batch
				for range 1 + rand.IntN(5) {
					b.Records = append(b.Records, stream.Record{Time: int64(i), Data: []byte(strings.Repeat("y", rand.IntN(300)))})
				}
				first, _, err := s.Append(context.Background(), name, b)
				fail(err)
				for n, r := range b.Records {
					fmt.Println(name, first+uint64(n), len(r.Data))
				}
				if i%40 == 39 {
					// What retention takes away is said first: it may go.
					info, err := s.Stat(name)
					fail(err)
					if info.Next > 100 {
						fmt.Println(name, "drop", info.Next-100)
						_, err = s.Drop(name, 0, 3*small.SegmentBytes)
						fail(err)
					}
				}
			}
		}()
	}
	select {}
}

// TestKilledWriter kills a process that appends, with SIGKILL, again and again on one folder: every acknowledged record that retention
// did not take is there, with its data, and positions have no gap.
func TestKilledWriter(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	acknowledged, dropped, total := map[string]map[uint64]int{}, map[string]bool{}, 0
	for range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "STREAM_TEST_WRITE="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(out)
		killAt := 1 + rnd.IntN(3000)
		for n := 0; ; n++ {
			if n == killAt {
				cmd.Process.Kill()
			}
			line, err := r.ReadString('\n')
			if err != nil {
				if n < killAt {
					t.Fatalf("the writer ended by itself after %d records", n)
				}
				break
			}
			var name string
			var pos uint64
			var size int
			if f := strings.Fields(line); f[1] == "drop" {
				dropped[f[0]] = true
				continue
			}
			if _, err := fmt.Sscan(line, &name, &pos, &size); err != nil {
				t.Fatalf("line %q: %v", line, err)
			}
			if acknowledged[name] == nil {
				acknowledged[name] = map[uint64]int{}
			}
			acknowledged[name][pos] = size
			total++
		}
		cmd.Wait()

		s := open(t, dir, small)
		for name, want := range acknowledged {
			info, err := s.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			if info.First > 0 && !dropped[name] {
				t.Errorf("%s begins at %d and nothing was dropped", name, info.First)
			}
			next := info.First
			for r, err := range s.From(name, 0) {
				if err != nil {
					t.Fatal(err)
				}
				if r.Position != next {
					t.Errorf("%s: %d comes after %d", name, r.Position, next-1)
				}
				next = r.Position + 1
				if size, ok := want[r.Position]; ok && size != len(r.Data) {
					t.Errorf("%s: record %d has %d bytes, %d were acknowledged", name, r.Position, len(r.Data), size)
				}
			}
			for pos := range want {
				if pos >= next {
					t.Errorf("%s: acknowledged record %d is lost", name, pos)
				}
				if pos < info.First {
					delete(want, pos)
				}
			}
		}
		s.Close()
	}
	t.Logf("%d records acknowledged", total)
}
