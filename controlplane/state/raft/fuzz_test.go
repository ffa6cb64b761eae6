package raft_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// FuzzDamagedFiles changes or cuts one file of a server that is stopped. It starts with what it had, or, where the damage looks like a write
// that a crash cut short, with the beginning of it; or it says what is wrong. It never panics, and never starts with something else.
func FuzzDamagedFiles(f *testing.F) {
	const written = 60
	whole := f.TempDir()
	engine, err := raft.Open(raft.Options{Dir: whole, NodeID: "server", SnapshotBytes: 8 << 10, SegmentBytes: 16 << 10})
	if err != nil {
		f.Fatal(err)
	}
	s, err := state.New(engine, statetest.Schema, state.Options{})
	if err != nil {
		f.Fatal(err)
	}
	for i := range written {
		statetest.Put(f, s, &statetest.Record{Id: "a", Number: int64(i), Payload: bytes.Repeat([]byte{'x'}, 500)})
	}
	if err := engine.Close(); err != nil {
		f.Fatal(err)
	}
	var files []string
	err = filepath.WalkDir(whole, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			name, _ := filepath.Rel(whole, path)
			files = append(files, name)
		}
		return err
	})
	if err != nil || len(files) < 4 {
		f.Fatalf("%q, %v", files, err)
	}
	for i := range files { // found by fuzzing, in the file of the log's metadata: a fault, and a panic with the first write
		f.Add(uint8(i), uint32(1546821663), uint8(4), true)
		f.Add(uint8(i), uint32(263303185), uint8(8), true)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 6 * len(files) {
		f.Add(uint8(i%len(files)), r.Uint32(), uint8(1<<r.IntN(8)), r.IntN(3) == 0)
	}
	f.Fuzz(func(t *testing.T, file uint8, at uint32, mask uint8, cut bool) {
		dir := filepath.Join(t.TempDir(), "state")
		if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, files[int(file)%len(files)])
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 {
			return
		}
		if i := int(at) % len(b); cut {
			b = b[:i]
		} else {
			b[i] ^= mask
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		engine, err := raft.Open(raft.Options{Dir: dir, NodeID: "server"})
		if err != nil {
			said(t, name, err)
			return
		}
		s, err := state.New(engine, statetest.Schema, state.Options{})
		if err != nil {
			said(t, name, err)
			return
		}
		defer engine.Close()
		rec, _ := statetest.Records.Get(s.View(), statetest.RecordKey("a"))
		if r := s.Revision(); r > written || r > 0 && (rec.GetNumber() != int64(r)-1 || !bytes.Equal(rec.Payload, bytes.Repeat([]byte{'x'}, 500))) {
			t.Errorf("%s: started with %v at revision %d", name, rec, r)
		}
	})
}

// said holds an error against what somebody needs who reads it: where it is, and what to do. A file that can be read, but is another server's or
// another group's, is no damage to whoever reads it.
func said(t *testing.T, name string, err error) {
	t.Helper()
	var damaged *state.DamagedError
	if errors.As(err, &damaged) && damaged.Path != "" && damaged.Advice != "" {
		return
	}
	if !strings.Contains(err.Error(), "belongs to the group") || !strings.Contains(err.Error(), filepath.Dir(filepath.Dir(filepath.Dir(name)))) {
		t.Errorf("%s: %v", name, err)
	}
}
