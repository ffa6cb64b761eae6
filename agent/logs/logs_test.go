package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

func read(t *testing.T, r *Reader) (out []runtime.LogLine) {
	t.Helper()
	defer r.Close()
	for {
		l, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, l)
	}
}

func TestRotationKeepsTheNewestWithinTheLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "c.log")
	const limit = 64 << 10
	w, err := Open(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	// A follower that keeps up misses nothing over many rotations.
	ended := make(chan struct{})
	r, err := Read(t.Context(), path, runtime.LogOptions{Follow: true}, ended)
	if err != nil {
		t.Fatal(err)
	}
	const n = 5000
	for i := range n {
		w.Copy(strings.NewReader(fmt.Sprintf("line %d %s\n", i, strings.Repeat("x", 40))), false)
		l, err := r.Next()
		if err != nil || !strings.HasPrefix(l.Text, fmt.Sprintf("line %d ", i)) {
			t.Fatalf("line %d: %q, %v", i, l.Text, err)
		}
	}
	close(ended)
	if rest := read(t, r); len(rest) != 0 {
		t.Errorf("%d lines too many", len(rest))
	}
	w.Close()
	var size int64
	for _, p := range []string{path, path + ".1"} {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		size += st.Size()
	}
	if size > limit {
		t.Errorf("%d bytes on disk, limit %d", size, limit)
	}
	r, err = Read(t.Context(), path, runtime.LogOptions{Tail: 700}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// 700 lines need both files.
	if got := read(t, r); len(got) < 400 || !strings.HasPrefix(got[len(got)-1].Text, fmt.Sprintf("line %d ", n-1)) {
		t.Errorf("tail: %d lines", len(got))
	}
}

// What comes in one piece is larger than a file may be, and stays within the limit all the same.
func TestBurstStaysWithinTheLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.log")
	const limit = 8 << 10
	w, err := Open(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	var burst strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&burst, "line %d\n", i)
	}
	w.Copy(strings.NewReader(burst.String()), false)
	w.Close()
	var size int64
	for _, p := range []string{path, path + ".1"} {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		size += st.Size()
	}
	r, err := Read(t.Context(), path, runtime.LogOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := read(t, r)
	if size > limit || size < limit/2 || lines[len(lines)-1].Text != "line 1999" {
		t.Errorf("%d bytes, up to %q", size, lines[len(lines)-1].Text)
	}
	for i, l := range lines {
		if want := fmt.Sprintf("line %d", 2000-len(lines)+i); l.Text != want {
			t.Fatalf("%q, want %q", l.Text, want)
		}
	}
}

func TestTailCountsPartsAsOneLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.log")
	w, err := Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Copy(strings.NewReader("first\n"+strings.Repeat("x", 3*MaxLine+5)+"\nlast without end"), true)
	w.Close()
	r, err := Read(context.Background(), path, runtime.LogOptions{Tail: 2}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := read(t, r)
	if len(got) != 5 || !got[0].Partial || got[3].Partial || len(got[3].Text) != 5 || got[4].Text != "last without end" || !got[4].Stderr {
		t.Errorf("%d records, %+v", len(got), got[len(got)-1])
	}
}

func TestLineOfExactlyTheLimitIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.log")
	w, err := Open(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Copy(strings.NewReader(strings.Repeat("y", MaxLine)+"\n\nz\n"), false)
	w.Close()
	r, err := Read(context.Background(), path, runtime.LogOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := read(t, r)
	if len(got) != 3 || len(got[0].Text) != MaxLine || got[0].Partial || got[1].Text != "" || got[2].Text != "z" {
		t.Errorf("%d records", len(got))
	}
}
