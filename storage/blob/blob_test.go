package blob_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/storage/blob"
)

func open(t *testing.T, dir string) *blob.Store {
	t.Helper()
	s, err := blob.Open(dir, blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func content(t *testing.T, s *blob.Store, d blob.Digest) string {
	t.Helper()
	b, err := s.ReadAll(d, 1<<30)
	if err != nil {
		t.Fatalf("read %s: %v", d, err)
	}
	return string(b)
}

func list(t *testing.T, s *blob.Store) map[blob.Digest]int64 {
	t.Helper()
	all := map[blob.Digest]int64{}
	for info, err := range s.All() {
		if err != nil {
			t.Fatal(err)
		}
		all[info.Digest] = info.Size
	}
	return all
}

func sha512Of(s string) blob.Digest {
	sum := sha512.Sum512([]byte(s))
	return blob.Digest("sha512:" + hex.EncodeToString(sum[:]))
}

func TestPut(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, d := range []blob.Digest{blob.Sum([]byte("hello")), sha512Of("hello")} {
		lease, info, err := s.Put(t.Context(), d, strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		lease.Release()
		if info.Size != 5 || info.Digest != d {
			t.Errorf("put: %+v", info)
		}
		if got := content(t, open(t, dir), d); got != "hello" {
			t.Errorf("reopened: %q", got)
		}
	}
	wrong := blob.Sum([]byte("other"))
	if _, _, err := s.Put(t.Context(), wrong, strings.NewReader("hello")); !errors.Is(err, blob.ErrMismatch) {
		t.Errorf("wrong digest: %v", err)
	}
	if _, err := s.Stat(wrong); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("wrong digest is visible: %v", err)
	}
	if n := len(list(t, s)); n != 2 {
		t.Errorf("%d blobs listed, 2 expected", n)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "partial")); len(left) != 0 {
		t.Errorf("partial files left: %v", left)
	}
}

func TestRangeRead(t *testing.T) {
	s := open(t, t.TempDir())
	for _, more := range []int{0, 200_000} {
		testRangeRead(t, s, "0123456789"+strings.Repeat("x", more))
	}
}

func testRangeRead(t *testing.T, s *blob.Store, text string) {
	d := blob.Sum([]byte(text))
	lease, _, err := s.Put(t.Context(), d, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	lease.Release()
	r, _, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Seek(4, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 3)
	if _, err := io.ReadFull(r, b); err != nil || string(b) != "456" {
		t.Errorf("range: %q, %v", b, err)
	}
	if _, ok := r.(*os.File); !ok && len(text) > 100 {
		t.Errorf("the reader is a %T: no sendfile", r)
	}
	if ok, err := s.Delete(d, func() (bool, error) { return true, nil }); !ok || err != nil {
		t.Fatalf("delete: %v, %v", ok, err)
	}
	if rest, err := io.ReadAll(r); err != nil || string(rest) != text[7:] {
		t.Errorf("open reader of a deleted blob: %d bytes, %v", len(rest), err)
	}
}

func TestParseDigest(t *testing.T) {
	good := []string{"sha256:" + strings.Repeat("0a", 32), "sha512:" + strings.Repeat("f9", 64)}
	bad := []string{"", "sha256", "sha256:", "sha256:" + strings.Repeat("0A", 32), "sha256:" + strings.Repeat("0", 63), "sha512:" + strings.Repeat("0", 64),
		"md5:" + strings.Repeat("0", 32), "sha256:../../" + strings.Repeat("0", 58), "sha256:" + strings.Repeat("0", 64) + "\n"}
	for _, s := range good {
		if d, err := blob.ParseDigest(s); err != nil || string(d) != s {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range bad {
		if d, err := blob.ParseDigest(s); err == nil {
			t.Errorf("%q was accepted as %q", s, d)
		}
	}
}

// TestConcurrentWriters has many writers of few digests, together with deletions: every acknowledged blob that is leased can
// be read whole.
func TestConcurrentWriters(t *testing.T) {
	s := open(t, t.TempDir())
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(w)))
			for range 40 {
				body := strings.Repeat(fmt.Sprint(rnd.IntN(4)), 10_000)
				d := blob.Sum([]byte(body))
				lease, _, err := s.Put(t.Context(), d, strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				if b, err := s.ReadAll(d, 1<<20); err != nil || string(b) != body {
					t.Errorf("leased blob %s: %v", d, err)
				}
				lease.Release()
				if _, err := s.Delete(d, func() (bool, error) { return true, nil }); err != nil && !errors.Is(err, blob.ErrLeased) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestLeases(t *testing.T) {
	s := open(t, t.TempDir())
	d := blob.Sum([]byte("x"))
	lease, _, err := s.Put(t.Context(), d, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	unreferenced := func() (bool, error) { return true, nil }
	if _, err := s.Delete(d, unreferenced); !errors.Is(err, blob.ErrLeased) {
		t.Errorf("delete of a leased blob: %v", err)
	}
	lease.Release()
	lease.Release()
	if ok, err := s.Delete(d, func() (bool, error) { return false, nil }); ok || err != nil {
		t.Errorf("delete of a referenced blob: %v, %v", ok, err)
	}

	// While Delete asks, a lease waits; afterwards it is given, and the blob is gone.
	asking, answer := make(chan bool), make(chan bool)
	deleted := make(chan bool)
	go func() {
		ok, _ := s.Delete(d, func() (bool, error) { asking <- true; return <-answer, nil })
		deleted <- ok
	}()
	<-asking
	leased := make(chan *blob.Lease)
	go func() {
		l, _ := s.Lease(t.Context(), d)
		leased <- l
	}()
	select {
	case <-leased:
		t.Fatal("a lease was given during a deletion")
	case answer <- true:
	}
	if !<-deleted {
		t.Error("not deleted")
	}
	(<-leased).Release()
	if _, err := s.Stat(d); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("after deletion: %v", err)
	}
}

func TestUpload(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	u, err := s.Begin("alice")
	if err != nil {
		t.Fatal(err)
	}
	id := u.ID()
	if _, err := u.Append(strings.NewReader("hello ")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resume("alice", id); !errors.Is(err, blob.ErrBusy) {
		t.Errorf("resume while held: %v", err)
	}
	// A connection that breaks leaves what arrived.
	if _, err := u.Append(io.MultiReader(strings.NewReader("wor"), iotest{errors.New("cut")})); err == nil {
		t.Error("no error from a broken reader")
	}
	u.Release()

	for _, owner := range []string{"bob", ""} {
		if _, err := s.Resume(owner, id); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("resume by %q: %v", owner, err)
		}
	}
	for _, id := range []string{"", "../../../etc/passwd", strings.Repeat("A", 26), id + "x"} {
		if _, err := s.Resume("alice", id); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("resume of %q: %v", id, err)
		}
	}

	if err := s.Settle(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir) // a restart
	for _, step := range []string{"ld", "!"} {
		u, err := s.Resume("alice", id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Append(strings.NewReader(step)); err != nil {
			t.Fatal(err)
		}
		u.Release()
	}
	u, err = s.Resume("alice", id)
	if err != nil {
		t.Fatal(err)
	}
	if u.Size() != 12 {
		t.Errorf("size %d", u.Size())
	}
	d := sha512Of("hello world!")
	lease, info, err := u.Commit(t.Context(), d)
	if err != nil || info.Size != 12 {
		t.Fatalf("commit: %+v, %v", info, err)
	}
	lease.Release()
	if got := content(t, s, d); got != "hello world!" {
		t.Errorf("content %q", got)
	}
	if _, err := s.Resume("alice", id); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("resume after commit: %v", err)
	}
}

func TestUploadMismatchAndCancel(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, end := range []func(u *blob.Upload) error{
		func(u *blob.Upload) error { return u.Cancel() },
		func(u *blob.Upload) error {
			if _, _, err := u.Commit(t.Context(), blob.Sum([]byte("y"))); !errors.Is(err, blob.ErrMismatch) {
				return fmt.Errorf("commit with a wrong digest: %v", err)
			}
			return nil
		},
	} {
		u, err := s.Begin("o")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Append(strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		if err := end(u); err != nil {
			t.Error(err)
		}
		u.Release()
		if left, _ := os.ReadDir(filepath.Join(dir, "uploads")); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	}
}

func TestExpireUploads(t *testing.T) {
	clk := clock.NewFake(time.Now())
	s, err := blob.Open(t.TempDir(), blob.Options{Clock: clk, UploadExpiry: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	idle, err := s.Begin("o")
	if err != nil {
		t.Fatal(err)
	}
	idle.Release()
	busy, err := s.Begin("o")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.ExpireUploads(); n != 0 || err != nil {
		t.Errorf("young uploads: %d, %v", n, err)
	}
	clk.Advance(2 * time.Hour)
	if n, err := s.ExpireUploads(); n != 1 || err != nil {
		t.Errorf("expired: %d, %v", n, err)
	}
	if _, err := s.Resume("o", idle.ID()); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("resume of an expired upload: %v", err)
	}
	if _, err := busy.Append(bytes.NewReader([]byte("x"))); err != nil {
		t.Error(err)
	}
	busy.Release()
}

type iotest struct{ err error }

func (r iotest) Read([]byte) (int, error) { return 0, r.err }

// TestTouch: a blob is as if written now; one that is not here is not made.
func TestTouch(t *testing.T) {
	s := open(t, t.TempDir())
	d := blob.Sum([]byte("old"))
	if err := s.Touch(t.Context(), d); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
	lease, _, err := s.Put(t.Context(), d, strings.NewReader("old"))
	if err != nil {
		t.Fatal(err)
	}
	lease.Release()
	before, err := s.Stat(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Touch(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if after, err := s.Stat(d); err != nil || after.Modified.Before(before.Modified) || content(t, s, d) != "old" {
		t.Errorf("%v became %v, %v", before, after, err)
	}
	if deleted, err := s.Delete(d, func() (bool, error) { return true, nil }); !deleted || err != nil {
		t.Errorf("it is held still: %v, %v", deleted, err)
	}
}

// TestHandOver: an upload that is given away goes on in the other store and is here no more.
func TestHandOver(t *testing.T) {
	from, to := open(t, t.TempDir()), open(t, t.TempDir())
	u, err := from.Begin("owner")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Append(strings.NewReader("hello ")); err != nil {
		t.Fatal(err)
	}
	id := u.ID()
	name := blob.UploadName("owner", id)
	give := func(content io.Reader, size int64) error { return to.Adopt(name, content, size) }
	if err := from.HandOver(name, give); !errors.Is(err, blob.ErrBusy) {
		t.Errorf("while it is written: %v", err)
	}
	u.Release()
	for _, bad := range []string{"", "../x", id, name + "0", blob.UploadName("somebody", id)} {
		if err := from.HandOver(bad, give); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := to.Adopt("../../"+name, strings.NewReader("x"), 1); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("a name that leaves the folder: %v", err)
	}
	if err := to.Adopt(name, strings.NewReader("hel"), 6); !errors.Is(err, blob.ErrReceive) {
		t.Errorf("half of it: %v", err)
	}
	if _, err := to.Resume("owner", id); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("half of it was kept: %v", err)
	}
	if err := from.HandOver(name, give); err != nil {
		t.Fatal(err)
	}
	if err := to.Adopt(name, strings.NewReader("other"), 5); err == nil {
		t.Error("an upload that is there was replaced")
	}
	if _, err := from.Resume("owner", id); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("it is in both stores: %v", err)
	}
	again, err := to.Resume("owner", id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Append(strings.NewReader("world")); err != nil {
		t.Fatal(err)
	}
	lease, _, err := again.Commit(t.Context(), blob.Sum([]byte("hello world")))
	if err != nil {
		t.Fatal(err)
	}
	lease.Release()
}
