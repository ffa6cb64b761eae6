package blob_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/blob/blobtest"
)

func unpaced(context.Context, int) error { return nil }

func rot(t *testing.T, dir string, d blob.Digest) {
	t.Helper()
	if err := blobtest.Rot(dir, d); err != nil {
		t.Fatal(err)
	}
}

// TestCheck: what has rotted is put aside and reads as absent; the next copy takes its place; what is leased or good stays.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, text := range []string{"hello", strings.Repeat("long ", 200_000)} {
		for _, d := range []blob.Digest{blob.Sum([]byte(text)), sha512Of(text)} {
			lease, _, err := s.Put(t.Context(), d, strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			read := 0
			if rotten, err := s.Check(t.Context(), d, func(_ context.Context, n int) error { read += n; return nil }); rotten || err != nil || read != len(text) {
				t.Errorf("a good one: %v, %v, %d bytes", rotten, err, read)
			}
			rot(t, dir, d)
			if rotten, err := s.Check(t.Context(), d, unpaced); rotten || !errors.Is(err, blob.ErrLeased) {
				t.Errorf("a leased one: %v, %v", rotten, err)
			}
			lease.Release()
			if rotten, err := s.Check(t.Context(), d, unpaced); !rotten || err != nil {
				t.Errorf("a rotten one: %v, %v", rotten, err)
			}
			if _, err := s.Stat(d); !errors.Is(err, blob.ErrNotFound) {
				t.Errorf("it is still there: %v", err)
			}
			if _, err := s.Check(t.Context(), d, unpaced); !errors.Is(err, blob.ErrNotFound) {
				t.Errorf("once more: %v", err)
			}
			s = open(t, dir)
			if list, err := s.Quarantined(); err != nil || !slices.Equal(list, []blob.Digest{d}) {
				t.Errorf("put aside are %v, %v", list, err)
			}
			lease, _, err = s.Put(t.Context(), d, strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			lease.Release()
			s = open(t, dir) // in which the rotten one is still, too
			if got := content(t, s, d); got != text {
				t.Error("the next copy has other content")
			}
			if err := s.Discard(d); err != nil {
				t.Fatal(err)
			}
			if list, err := s.Quarantined(); err != nil || len(list) != 0 {
				t.Errorf("put aside are %v, %v", list, err)
			}
		}
	}
	// A copy that comes while the rotten one is read is not put aside in its place.
	d := blob.Sum([]byte("hello"))
	rot(t, dir, d)
	rotten, err := s.Check(t.Context(), d, func(ctx context.Context, _ int) error {
		lease, _, err := s.Put(ctx, d, strings.NewReader("hello"))
		lease.Release()
		return err
	})
	if rotten || err != nil || content(t, s, d) != "hello" {
		t.Errorf("replaced while it was read: %v, %v", rotten, err)
	}
	stop := errors.New("stop")
	if _, err := s.Check(t.Context(), d, func(context.Context, int) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
}
