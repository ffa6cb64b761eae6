package blob_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/storage/blob"
)

func put(t testing.TB, s *blob.Store, d blob.Digest, text string) {
	t.Helper()
	lease, info, err := s.Put(t.Context(), d, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	lease.Release()
	if info.Digest != d || info.Size != int64(len(text)) {
		t.Errorf("put: %+v", info)
	}
}

func files(t testing.TB, dir string, below ...string) []string {
	t.Helper()
	var list []string
	for _, b := range below {
		some, err := filepath.Glob(filepath.Join(dir, b))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, some...)
	}
	return list
}

// TestSmall: up to the limit a blob is in the log and has no file, beyond it has one; both are listed, in order, and read.
func TestSmall(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var want []blob.Digest
	for _, size := range []int{0, 1, 1000, 64<<10 - 1, 64 << 10, 64<<10 + 1, 300 << 10} {
		text := strings.Repeat("x", size)
		for _, d := range []blob.Digest{blob.Sum([]byte(text)), sha512Of(text)} {
			put(t, s, d, text)
			put(t, s, d, text) // again
			want = append(want, d)
			name := files(t, dir, "sha???/*/"+string(d)[7:])
			if (len(name) == 1) != (size > 64<<10) {
				t.Errorf("of %d bytes: %v", size, name)
			}
		}
	}
	slices.Sort(want)
	for range 2 {
		var got []blob.Digest
		for info, err := range s.All() {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, info.Digest)
			if again, err := s.Stat(info.Digest); err != nil || again != info {
				t.Errorf("%+v, %v; listed %+v", again, err, info)
			}
			if text := content(t, s, info.Digest); blob.SumAs(info.Digest, []byte(text)) != info.Digest || int64(len(text)) != info.Size {
				t.Errorf("%s has other content", info.Digest)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("listed %v, want %v", got, want)
		}
		s = open(t, dir)
	}
	for _, d := range want {
		if ok, err := s.Delete(d, func() (bool, error) { return true, nil }); !ok || err != nil {
			t.Errorf("delete %s: %v, %v", d, ok, err)
		}
		if _, err := s.Stat(d); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("deleted: %v", err)
		}
	}
	if n := len(list(t, open(t, dir))); n != 0 {
		t.Errorf("%d blobs are there after all", n)
	}
}

// TestSmallFilesStay: a small blob that has a file, from before there was a log, is served from it; pushed again it moves; deleted it is gone from both.
func TestSmallFilesStay(t *testing.T) {
	dir := t.TempDir()
	before, err := blob.Open(dir, blob.Options{Small: -1})
	if err != nil {
		t.Fatal(err)
	}
	var all []blob.Digest
	for i := range 4 {
		text := fmt.Sprint("text ", i)
		d := blob.Sum([]byte(text))
		put(t, before, d, text)
		all = append(all, d)
	}
	if n := len(files(t, dir, "sha256/*/*")); n != 4 {
		t.Fatalf("%d files", n)
	}
	s := open(t, dir)
	for i, d := range all {
		if got := content(t, s, d); got != fmt.Sprint("text ", i) {
			t.Errorf("it is %q", got)
		}
		if rotten, err := s.Check(t.Context(), d, unpaced); rotten || err != nil {
			t.Errorf("check: %v, %v", rotten, err)
		}
		if err := s.Touch(t.Context(), d); err != nil {
			t.Error(err)
		}
	}
	put(t, s, all[0], "text 0")
	if n := len(files(t, dir, "sha256/*/*")); n != 3 {
		t.Errorf("%d files are left", n)
	}
	// One that is in both, as after a crash between the two.
	name := filepath.Join(dir, "sha256", string(all[0])[7:9], string(all[0])[7:])
	if err := os.WriteFile(name, []byte("text 0"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if n := len(list(t, s)); n != 4 {
		t.Errorf("%d blobs, 4 expected", n)
	}
	for _, d := range all {
		if ok, err := s.Delete(d, func() (bool, error) { return true, nil }); !ok || err != nil {
			t.Errorf("delete: %v, %v", ok, err)
		}
	}
	if left := files(t, dir, "sha256/*/*"); left != nil || len(list(t, s)) != 0 {
		t.Errorf("left: %v", left)
	}
	// Without a log for new ones, what is in it is served.
	put(t, s, all[1], "text 1")
	again, err := blob.Open(dir, blob.Options{Small: -1})
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, again, all[1]); got != "text 1" {
		t.Errorf("it is %q", got)
	}
}

// TestSmallRot: a small blob that has rotted is given to nobody: whoever opens it finds it absent, and it is put aside.
func TestSmallRot(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	d := blob.Sum([]byte("hello"))
	put(t, s, d, "hello")
	lease, err := s.Lease(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	rot(t, dir, d)
	if r, _, err := s.Open(d); err == nil {
		b, _ := io.ReadAll(r)
		t.Errorf("rotten bytes are given out: %q", b)
	}
	lease.Release()
	if _, _, err := s.Open(d); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("open: %v", err)
	}
	if _, err := s.Stat(d); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("stat: %v", err)
	}
	if aside, err := s.Quarantined(); err != nil || !slices.Equal(aside, []blob.Digest{d}) {
		t.Errorf("put aside: %v, %v", aside, err)
	}
	put(t, s, d, "hello")
	if got := content(t, s, d); got != "hello" {
		t.Errorf("it is %q", got)
	}
}

// TestSmallUploads: what an upload brings stays in memory while it is small and there is room; it becomes a blob all the same, and no file is left.
func TestSmallUploads(t *testing.T) {
	dir := t.TempDir()
	s, err := blob.Open(dir, blob.Options{Memory: 200 << 10})
	if err != nil {
		t.Fatal(err)
	}
	uploads := func() int { return len(files(t, dir, "uploads/*")) }
	var open []*blob.Upload
	part := strings.Repeat("p", 32<<10)
	for i := range 10 { // there is room for six parts
		u, err := s.Begin("o")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Append(strings.NewReader(part)); err != nil {
			t.Fatal(err)
		}
		if _, err := u.Append(strings.NewReader(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		open = append(open, u)
	}
	if n := uploads(); n < 3 || n > 6 || s.Held() > 200<<10 {
		t.Errorf("%d of ten uploads have files, %d bytes are held", n, s.Held())
	}
	if _, err := open[0].Append(strings.NewReader(part + "x")); err != nil { // which makes it too large for memory
		t.Fatal(err)
	}
	for i, u := range open {
		text := part + fmt.Sprint(i)
		if i == 0 {
			text += part + "x"
		}
		d := sha512Of(text)
		if i%2 == 0 {
			d = blob.Sum([]byte(text))
		}
		if u.Size() != int64(len(text)) {
			t.Errorf("upload %d has %d bytes", i, u.Size())
		}
		lease, info, err := u.Commit(t.Context(), d)
		if err != nil || info.Size != int64(len(text)) {
			t.Fatalf("commit %d: %+v, %v", i, info, err)
		}
		lease.Release()
		if content(t, s, d) != text {
			t.Errorf("upload %d became something else", i)
		}
		if _, err := s.Resume("o", u.ID()); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("it is there still: %v", err)
		}
	}
	if uploads() != 0 || s.Held() != 0 {
		t.Errorf("%d files are left, %d bytes are held", uploads(), s.Held())
	}
}

// TestSmallUploadsEnd: uploads in memory expire and are cancelled, and who settles keeps them for the next process.
func TestSmallUploadsEnd(t *testing.T) {
	dir := t.TempDir()
	clk := clock.NewFake(time.Now())
	s, err := blob.Open(dir, blob.Options{Clock: clk, UploadExpiry: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	begin := func(text string) *blob.Upload {
		u, err := s.Begin("o")
		if err == nil {
			_, err = u.Append(strings.NewReader(text))
		}
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	old := begin("old")
	old.Release()
	cancelled := begin("cancelled")
	if err := cancelled.Cancel(); err != nil {
		t.Error(err)
	}
	clk.Advance(time.Hour)
	young, busy := begin("young"), begin("busy")
	young.Release()
	if n, err := s.ExpireUploads(); n != 1 || err != nil {
		t.Errorf("%d expired, %v", n, err)
	}
	for _, u := range []*blob.Upload{old, cancelled} {
		if _, err := s.Resume("o", u.ID()); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("it is there: %v", err)
		}
	}
	if err := s.Settle(); err != nil {
		t.Fatal(err)
	}
	busy.Release()
	if s.Held() != 0 {
		t.Errorf("%d bytes are held", s.Held())
	}
	late := begin("late")
	late.Release()
	s = open(t, dir)
	for text, u := range map[string]*blob.Upload{"young": young, "busy": busy, "late": late} {
		again, err := s.Resume("o", u.ID())
		if err != nil {
			t.Fatal(err)
		}
		if again.Size() != int64(len(text)) {
			t.Errorf("%s has %d bytes", text, again.Size())
		}
		again.Release()
	}
}

// TestTogether: many pushes at once, of the same blobs and of different ones, all there afterwards.
func TestTogether(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := range 20 {
				text := fmt.Sprint(i, " ", w/2)
				lease, _, err := s.Put(t.Context(), blob.Sum([]byte(text)), strings.NewReader(text))
				if err != nil {
					t.Error(err)
					return
				}
				lease.Release()
			}
		})
	}
	wg.Wait()
	if n := len(list(t, open(t, dir))); n != 160 {
		t.Errorf("%d blobs, 160 expected", n)
	}
}
