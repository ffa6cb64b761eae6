package blob_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/storage/blob"
)

// TestMain turns the test binary into the writer that TestKilledWriter kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("BLOB_TEST_WRITE"); dir != "" {
		writeForever(dir)
		return
	}
	os.Exit(m.Run())
}

// writeForever puts and uploads random blobs, small and large, and prints each digest once it is acknowledged. Others it deletes again, so that
// there is something to compact, which it does all the time.
func writeForever(dir string) {
	s, err := blob.Open(dir, blob.Options{})
	if err == nil {
		err = s.SegmentBytes(256 << 10) // so that there are many
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		for {
			if _, err := s.Compact(context.Background()); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}()
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				b := make([]byte, 1+rand.IntN([]int{1 << 10, 16 << 10, 128 << 10}[i%3]))
				for i := range b {
					b[i] = byte(rand.Uint32())
				}
				d := blob.Sum(b)
				var err error
				var lease *blob.Lease
				if i%2 == w%2 {
					lease, _, err = s.Put(context.Background(), d, bytes.NewReader(b))
				} else {
					var u *blob.Upload
					if u, err = s.Begin("w"); err == nil {
						half := len(b) / 2
						u.Append(bytes.NewReader(b[:half]))
						u.Append(bytes.NewReader(b[half:]))
						lease, _, err = u.Commit(context.Background(), d)
					}
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				if i%4 == 3 {
					lease.Release()
					if _, err := s.Delete(d, func() (bool, error) { return true, nil }); err != nil {
						fmt.Fprintln(os.Stderr, err)
						os.Exit(1)
					}
					continue
				}
				fmt.Println(d)
			}
		}()
	}
	select {}
}

// TestKilledWriter kills a process that writes blobs, with SIGKILL, again and again on one folder: every acknowledged blob is
// there, and every blob that is visible has the content its name says.
func TestKilledWriter(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	acknowledged := map[blob.Digest]bool{}
	for range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "BLOB_TEST_WRITE="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(out)
		killAt := 1 + rnd.IntN(200)
		for n := 0; ; n++ {
			if n == killAt {
				cmd.Process.Kill()
			}
			line, err := r.ReadString('\n')
			if err != nil {
				if n < killAt {
					t.Fatalf("the writer ended by itself after %d blobs", n)
				}
				break
			}
			acknowledged[blob.Digest(strings.TrimSpace(line))] = true
		}
		cmd.Wait()

		s := open(t, dir)
		visible := list(t, s)
		for d := range acknowledged {
			if _, ok := visible[d]; !ok {
				t.Errorf("acknowledged blob %s is lost", d)
			}
		}
		for d := range visible {
			f, _, err := s.Open(d)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(f)
			f.Close()
			if err != nil || blob.Sum(b) != d {
				t.Errorf("blob %s has other content (%v)", d, err)
			}
		}
	}
	t.Logf("%d blobs acknowledged", len(acknowledged))
}
