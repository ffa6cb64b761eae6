package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/bucket"
	"github.com/seed-2f228079/neargate/storage/s3/s3test"
)

// server is what one server has of a bucket.
type server struct {
	*bucket.Bucket
	dir string
}

func open(t testing.TB, store *s3test.Store, change func(*bucket.Config)) server {
	t.Helper()
	dir := t.TempDir()
	local, err := blob.Open(dir, blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := bucket.Config{Local: local, Objects: store.Client(t), Prefix: "neargate/one", Owner: "us", PartSize: 5 << 20}
	if change != nil {
		change(&c)
	}
	b, err := bucket.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return server{b, dir}
}

// content is some that is always the same for a seed.
func content(seed uint64, size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}

// push is what the registry does before a record refers to a blob.
func (s server) push(ctx context.Context, text []byte) (blob.Digest, error) {
	d := blob.Sum(text)
	lease, _, err := s.Local.Put(ctx, d, bytes.NewReader(text))
	if err != nil {
		return d, err
	}
	defer lease.Release()
	return d, s.Put(ctx, d)
}

func (s server) pull(ctx context.Context, d blob.Digest) ([]byte, error) {
	r, _, err := s.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func key(d blob.Digest) string  { return "neargate/one/" + d.Path() }
func path(d blob.Digest) string { return "/" + s3test.Bucket + "/" + key(d) }

// TestPushAndPull: what one server has put the others get, byte for byte, of every size around the limits.
func TestPushAndPull(t *testing.T) {
	store := s3test.Start(t)
	one, two := open(t, store, nil), open(t, store, nil)
	for i, size := range []int{0, 1, 256 << 10, 256<<10 + 1, 5 << 20, 5<<20 + 1, 12 << 20} {
		text := content(uint64(i), size)
		d, err := one.push(t.Context(), text)
		if err != nil {
			t.Fatalf("push of %d bytes: %v", size, err)
		}
		if _, err := one.push(t.Context(), text); err != nil {
			t.Fatalf("again: %v", err)
		}
		got, err := two.pull(t.Context(), d)
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("pull of %d bytes: %d, %v", size, len(got), err)
		}
		eventually(t, func() error { _, err := two.Local.Stat(d); return err })
		if got, err := two.pull(t.Context(), d); err != nil || !bytes.Equal(got, text) || store.Count("GET", path(d)) != 1 {
			t.Errorf("pull from the cache: %d bytes, %v, after %d gets", len(got), err, store.Count("GET", path(d)))
		}
		if size > 256<<10 && store.Count("PUT", path(d)) > (size+5<<20-1)/(5<<20) {
			t.Errorf("%d bytes that were there were written again", size)
		}
	}
	if _, err := two.pull(t.Context(), blob.Sum([]byte("none"))); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("pull of what is nowhere: %v", err)
	}
	if store.Uploads() != 0 {
		t.Error("there are uploads left")
	}
}

// TestSHA512: the other algorithm is no part's signature.
func TestSHA512(t *testing.T) {
	store := s3test.Start(t)
	one, two := open(t, store, nil), open(t, store, nil)
	text := content(1, 600<<10)
	d := blob.SumAs("sha512:", text)
	lease, _, err := one.Local.Put(t.Context(), d, bytes.NewReader(text))
	if err == nil {
		err = one.Put(t.Context(), d)
	}
	if err != nil {
		t.Fatal(err)
	}
	lease.Release()
	if got, err := two.pull(t.Context(), d); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestManyPullOne: fifty clients that pull one layer cost the store one request, and each gets all of it while it comes.
func TestManyPullOne(t *testing.T) {
	store := s3test.Start(t)
	one, two := open(t, store, nil), open(t, store, nil)
	text := content(1, 9<<20)
	d, err := one.push(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	store.Inject(func(r *http.Request) s3test.Fault { return s3test.Fault{Release: release} })
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			r, info, err := two.Open(t.Context(), d)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			offset := int64(i) * 1000
			if _, err := r.Seek(offset, io.SeekStart); err != nil {
				t.Error(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || info.Size != int64(len(text)) || !bytes.Equal(got, text[offset:]) {
				t.Errorf("reader %d: %d bytes of %d, %v", i, len(got), info.Size, err)
			}
		})
	}
	eventually(t, func() error {
		if store.Count("GET", path(d)) == 0 {
			return errors.New("nobody asked yet")
		}
		return nil
	})
	close(release)
	wg.Wait()
	if n := store.Count("GET", path(d)); n != 1 {
		t.Errorf("the store was asked %d times", n)
	}
}

// TestReaderLeaves: it does not wait for what does not come, and the others get theirs.
func TestReaderLeaves(t *testing.T) {
	store := s3test.Start(t)
	one, two := open(t, store, nil), open(t, store, nil)
	text := content(1, 1<<20)
	d, err := one.push(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	store.Inject(func(r *http.Request) s3test.Fault { return s3test.Fault{Release: release} })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := two.pull(ctx, d); !errors.Is(err, context.Canceled) {
		t.Errorf("a reader that left: %v", err)
	}
	close(release)
	if got, err := two.pull(t.Context(), d); err != nil || !bytes.Equal(got, text) {
		t.Errorf("another: %d bytes, %v", len(got), err)
	}
}

// TestFaults: refusals that pass, connections that are cut before and after the deed, and bodies that end early are no client's business.
func TestFaults(t *testing.T) {
	store := s3test.Start(t)
	one, two := open(t, store, nil), open(t, store, nil)
	for i, size := range []int{1000, 3 << 20, 12 << 20} {
		for name, fault := range map[string]s3test.Fault{"503": {Status: 503}, "500": {Status: 500}, "cut": {Cut: true}, "lost": {Lost: true}, "short": {After: 100_000}} {
			text := content(uint64(i), size)
			text[0] = name[0]
			seen := map[string]bool{}
			var mu sync.Mutex
			store.Inject(func(r *http.Request) s3test.Fault { // each request meets it once
				mu.Lock()
				defer mu.Unlock()
				id := r.Method + " " + r.URL.String()
				if seen[id] {
					return s3test.Fault{}
				}
				seen[id] = true
				return fault
			})
			d, err := one.push(t.Context(), text)
			if err != nil {
				t.Errorf("%s: push of %d bytes: %v", name, size, err)
				continue
			}
			if got, err := two.pull(t.Context(), d); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%s: pull of %d bytes: %d, %v", name, size, len(got), err)
			}
		}
	}
}

// TestStoreDown: what is cached is pulled, what is not and what is pushed is refused for the time being, and the store's return is all it takes.
func TestStoreDown(t *testing.T) {
	store := s3test.Start(t)
	one, two := open(t, store, nil), open(t, store, nil)
	cached, text := content(1, 1<<20), content(2, 1<<20)
	d, err := one.push(t.Context(), cached)
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Health(t.Context()); err != nil {
		t.Errorf("health: %v", err)
	}
	store.Down()
	if got, err := one.pull(t.Context(), d); err != nil || !bytes.Equal(got, cached) {
		t.Errorf("pull of what is cached: %v", err)
	}
	if _, err := two.pull(t.Context(), d); !errors.Is(err, bucket.ErrUnavailable) {
		t.Errorf("pull of what is not: %v", err)
	}
	if _, err := one.push(t.Context(), text); !errors.Is(err, bucket.ErrUnavailable) {
		t.Errorf("push: %v", err)
	}
	if err := one.Health(t.Context()); err == nil {
		t.Error("the store is healthy")
	}
	store.Inject(nil)
	if d, err = one.push(t.Context(), text); err != nil {
		t.Errorf("push when it is back: %v", err)
	}
	if got, err := two.pull(t.Context(), d); err != nil || !bytes.Equal(got, text) {
		t.Errorf("pull when it is back: %v", err)
	}
	if err := one.Health(t.Context()); err != nil {
		t.Errorf("health when it is back: %v", err)
	}
}

// TestWrongContent: nobody gets it for whole, and the next put replaces it.
func TestWrongContent(t *testing.T) {
	store, clk := s3test.Start(t), clock.NewFake(time.Now())
	one, two := open(t, store, nil), open(t, store, func(c *bucket.Config) { c.Clock = clk })
	for i, size := range []int{1000, 3 << 20} {
		text := content(uint64(i), size)
		d, err := one.push(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		store.Spoil(t, key(d))
		if got, err := two.pull(t.Context(), d); !errors.Is(err, bucket.ErrWrong) || len(got) >= size {
			t.Errorf("pull of %d wrong bytes: %d, %v", size, len(got), err)
		}
		if _, err := two.Local.Stat(d); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("it was kept: %v", err)
		}
		free := func(context.Context, int) error { return nil }
		if wrong, err := one.Check(t.Context(), d, free); !wrong || err != nil {
			t.Errorf("check of what is wrong: %v, %v", wrong, err)
		}
		if _, err := one.push(t.Context(), text); err != nil {
			t.Error(err)
		}
		if wrong, err := one.Check(t.Context(), d, free); wrong || err != nil {
			t.Errorf("check after the put: %v, %v", wrong, err)
		}
		if _, err := two.pull(t.Context(), d); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("who found it wrong asks again at once: %v", err)
		}
		clk.Advance(2 * time.Minute)
		if got, err := two.pull(t.Context(), d); err != nil || !bytes.Equal(got, text) {
			t.Errorf("pull after the put: %v", err)
		}

		store.Spoil(t, key(d))
		if wrong, err := one.Check(t.Context(), d, free); !wrong || err != nil {
			t.Errorf("check of what is wrong again: %v, %v", wrong, err)
		}
		if err := one.SetAside(t.Context(), d); err != nil {
			t.Error(err)
		}
		if _, err := one.Stat(t.Context(), d); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("what was set aside: %v", err)
		}
		for info, err := range one.Aside(t.Context()) {
			if info.Digest != d || err != nil {
				t.Errorf("aside: %v, %v", info, err)
			}
			if err := one.Discard(t.Context(), d); err != nil {
				t.Error(err)
			}
		}
		if keys := store.Keys(); !slices.Equal(keys, []string{"neargate/one/owner"}) {
			t.Errorf("the store has %v", keys)
		}
	}
}

// TestDelete: not what is young, leased or referred to.
func TestDelete(t *testing.T) {
	store := s3test.Start(t)
	one := open(t, store, nil)
	text := content(1, 1<<20)
	d, err := one.push(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	unreferenced := func(yes bool) func() (bool, error) { return func() (bool, error) { return yes, nil } }
	if removed, err := one.Delete(t.Context(), d, unreferenced(true)); removed || err != nil {
		t.Errorf("what is young: %v, %v", removed, err)
	}
	store.Age(25 * time.Hour)
	if _, err := one.push(t.Context(), text); err != nil { // who counts on it makes it young
		t.Fatal(err)
	}
	if removed, err := one.Delete(t.Context(), d, unreferenced(true)); removed || err != nil {
		t.Errorf("what was pushed again: %v, %v", removed, err)
	}
	if n := store.Count("PUT", path(d)); n != 2 || store.Count("GET", path(d)) != 0 {
		t.Errorf("it was written %d times", n)
	}
	store.Age(25 * time.Hour)
	lease, err := one.Local.Lease(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.Delete(t.Context(), d, unreferenced(true)); !errors.Is(err, blob.ErrLeased) {
		t.Errorf("what is leased: %v", err)
	}
	lease.Release()
	if removed, err := one.Delete(t.Context(), d, unreferenced(false)); removed || err != nil {
		t.Errorf("what is referred to: %v, %v", removed, err)
	}
	if removed, err := one.Delete(t.Context(), d, unreferenced(true)); !removed || err != nil {
		t.Errorf("garbage: %v, %v", removed, err)
	}
	if _, err := one.Has(t.Context(), d); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("it is there: %v", err)
	}
}

// TestListIsPaged: in order, whatever the page.
func TestListIsPaged(t *testing.T) {
	store := s3test.Start(t)
	store.PageSize = 3
	one := open(t, store, nil)
	var want, got []blob.Digest
	for i := range 10 {
		d, err := one.push(t.Context(), content(uint64(i), 100+i))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, d)
	}
	slices.Sort(want)
	for info, err := range one.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.Digest)
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, not %v", got, want)
	}
}

// TestOwner: two clusters that name one place would delete each other's blobs.
func TestOwner(t *testing.T) {
	store := s3test.Start(t)
	one, other := open(t, store, nil), open(t, store, func(c *bucket.Config) { c.Owner = "them" })
	if _, err := one.push(t.Context(), []byte("ours")); err != nil {
		t.Fatal(err)
	}
	if _, err := other.push(t.Context(), []byte("theirs")); err == nil || !strings.Contains(err.Error(), "belongs to another cluster") {
		t.Errorf("a push of another cluster: %v", err)
	}
	if err := other.Health(t.Context()); err == nil {
		t.Error("it is healthy")
	}
	if n := len(store.Keys()); n != 2 {
		t.Errorf("the store has %v", store.Keys())
	}
}

// TestCacheIsBounded: what was used last stays, what the store does not have stays too.
func TestCacheIsBounded(t *testing.T) {
	store := s3test.Start(t)
	one := open(t, store, func(c *bucket.Config) { c.CacheBytes = 4 << 20 })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- one.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	only := content(99, 1<<20)
	lease, _, err := one.Local.Put(t.Context(), blob.Sum(only), bytes.NewReader(only))
	if err != nil {
		t.Fatal(err)
	}
	lease.Release()
	var last blob.Digest
	for i := range 12 {
		if last, err = one.push(t.Context(), content(uint64(i), 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() error {
		var total int64
		for info := range one.Local.All() {
			total += info.Size
		}
		if total > 4<<20 {
			return fmt.Errorf("%d bytes are here", total)
		}
		return nil
	})
	for _, d := range []blob.Digest{last, blob.Sum(only)} {
		if _, err := one.Local.Stat(d); err != nil {
			t.Errorf("%s: %v", d, err)
		}
	}
	if n := len(store.Keys()); n != 13 {
		t.Errorf("the store has %d objects", n)
	}
}

// TestDownloadsLeftBehind: what a process that was killed had on its way is cleared away by the next.
func TestDownloadsLeftBehind(t *testing.T) {
	store := s3test.Start(t)
	one, two := open(t, store, nil), open(t, store, nil)
	d, err := one.push(t.Context(), content(1, 3<<20))
	if err != nil {
		t.Fatal(err)
	}
	held := make(chan struct{})
	store.Inject(func(r *http.Request) s3test.Fault { // the rest does not come
		if r.Header.Get("Range") != "" {
			return s3test.Fault{Release: held}
		}
		return s3test.Fault{After: 2 << 20}
	})
	r, _, err := two.Open(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(two.dir, "uploads", "*"))
	if err != nil || len(left) != 1 {
		t.Fatalf("downloads: %v, %v", left, err)
	}
	text, err := os.ReadFile(left[0])
	if err != nil {
		t.Fatal(err)
	}
	open(t, store, func(c *bucket.Config) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "uploads"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "uploads", filepath.Base(left[0])), text, 0o600); err != nil {
			t.Fatal(err)
		}
		local, err := blob.Open(dir, blob.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if left, err := os.ReadDir(filepath.Join(dir, "uploads")); err != nil || len(left) != 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
		c.Local = local
	})
	close(held)
	eventually(t, func() error { _, err := two.Local.Stat(d); return err })
}

// TestStaleUploads: parts that a killed process left are cleared away once they are old, but no upload of this one.
func TestStaleUploads(t *testing.T) {
	store := s3test.Start(t)
	one := open(t, store, nil)
	text := content(1, 12<<20)
	store.Inject(func(r *http.Request) s3test.Fault { // it cannot even clear away
		return s3test.Fault{Cut: r.URL.Query().Has("partNumber") || r.Method == http.MethodDelete}
	})
	if _, err := one.push(t.Context(), text); !errors.Is(err, bucket.ErrUnavailable) {
		t.Fatalf("push: %v", err)
	}
	store.Inject(nil)
	if n, err := one.AbortUploads(t.Context()); n != 0 || err != nil || store.Uploads() != 1 {
		t.Errorf("aborted %d of %d, %v", n, store.Uploads(), err)
	}
	store.Age(25 * time.Hour)
	if n, err := one.AbortUploads(t.Context()); n != 1 || err != nil || store.Uploads() != 0 {
		t.Errorf("aborted %d, and %d are left, %v", n, store.Uploads(), err)
	}
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
