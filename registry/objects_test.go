package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/internal/seal"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/bucket"
	"github.com/seed-2f228079/neargate/storage/s3/s3test"
)

// overObjectStore has a registry keep its blobs in the store, whose clock is the registry's from now on.
func overObjectStore(t testing.TB, store *s3test.Store) func(*registry.Config) {
	return func(c *registry.Config) {
		store.Now = c.Clock.Now
		overStoreAt(t, store.URL, 5<<20)(c)
	}
}

func overStoreAt(t testing.TB, address string, partSize int64) func(*registry.Config) {
	return func(c *registry.Config) {
		var err error
		c.Bucket, err = bucket.New(bucket.Config{Local: c.Blobs, Objects: s3test.Client(t, address), Owner: "us", PartSize: partSize, Clock: c.Clock, Log: c.Log})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestOverObjectStore: what holds of a registry holds wherever its blobs are.
func TestOverObjectStore(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"client": TestClient, "collect": TestCollect, "collect concurrently": TestCollectConcurrently, "lifecycle": TestLifecyclePolicy,
		"cache": TestPullThroughBlobs, "cache once": TestPullThroughOnce, "uploads": TestChunkedUpload, "mount": TestMount, "referrers": TestReferrers, "scan": TestScanOnPush,
		"signatures": TestSignedImages,
	} {
		t.Run(name, test)
	}
}

// stocked is a registry over an object store, which forgets its disk when it is told to.
type stocked struct {
	*bench
	objects *s3test.Store
	dir     string
}

func newStocked(t *testing.T) *stocked {
	t.Helper()
	s := &stocked{objects: s3test.Start(t), dir: filepath.Join(t.TempDir(), "0")}
	local, err := blob.Open(s.dir, blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.bench = newBench(t, func(c *registry.Config) {
		c.Blobs, c.ScrubFile, c.ScrubRate = local, filepath.Join(t.TempDir(), "scrub.json"), 1<<40
	}, overObjectStore(t, s.objects))
	s.blobs = local
	return s
}

// afresh is the registry on another server: its disk is empty.
func (s *stocked) afresh() {
	s.t.Helper()
	s.dir += "0"
	local, err := blob.Open(s.dir, blob.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.blobs, s.config.Blobs = local, local
	overObjectStore(s.t, s.objects)(&s.config)
	s.restart()
}

// keys are the digests that there are objects of.
func (s *stocked) keys() map[blob.Digest]bool {
	all := map[blob.Digest]bool{}
	for _, key := range s.objects.Keys() {
		if algorithm, rest, ok := strings.Cut(key, "/"); ok && algorithm != "quarantine" {
			all[blob.Digest(algorithm+":"+rest[3:])] = true
		}
	}
	return all
}

func objectPath(d blob.Digest) string { return "/" + s3test.Bucket + "/" + d.Path() }

// TestServersShareObjects: what one server has acknowledged another has at once, whole and in ranges.
func TestServersShareObjects(t *testing.T) {
	s := newStocked(t)
	s.create("users")
	layer := strings.Repeat("0123456789abcdef", 40<<10)
	d := blob.Sum([]byte(layer))
	s.pushImage("users", "v1", layer)
	if n := len(s.keys()); n != 3 {
		t.Errorf("%d objects, want manifest, config and layer", n)
	}
	s.afresh()
	if a := s.want(200, "HEAD", "/v2/users/blobs/"+string(d), nil); a.Header.Get("Content-Length") != fmt.Sprint(len(layer)) || s.objects.Count("GET", objectPath(d)) != 0 {
		t.Errorf("HEAD: %v", a.Header)
	}
	a := s.want(206, "GET", "/v2/users/blobs/"+string(d), nil, func(r *http.Request) { r.Header.Set("Range", "bytes=500000-500009") })
	if a.body != layer[500000:500010] {
		t.Errorf("a range: %q", a.body)
	}
	s.afresh()
	if a := s.want(200, "GET", "/v2/users/blobs/"+string(d), nil); a.body != layer {
		t.Errorf("%d bytes", len(a.body))
	}
	s.want(200, "GET", "/v2/users/manifests/v1", nil)
	s.afresh()
	s.want(201, "POST", "/v2/users/blobs/uploads/?mount="+string(d), nil)
	if n := s.objects.Count("GET", objectPath(d)); n != 2 {
		t.Errorf("%d requests for two pulls", n)
	}
}

// TestManyPull: fifty clients that pull an image at once cost the store one request for each blob.
func TestManyPull(t *testing.T) {
	s := newStocked(t)
	s.create("users")
	auth := remote.WithAuth(&authn.Basic{Username: "AWS", Password: s.token})
	ref, err := name.ParseReference(s.host() + "/users:v1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(2<<20, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, auth); err != nil {
		t.Fatal(err)
	}
	s.afresh()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			got, err := remote.Image(ref, auth)
			if err == nil {
				err = validate.Image(got)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for d := range s.keys() {
		if n := s.objects.Count("GET", objectPath(d)); n != 1 {
			t.Errorf("%s: %d requests", d, n)
		}
	}
}

// TestCollectObjects: what nothing refers to goes once it is old, from the whole listing; what is needed, or may be about to be, stays.
func TestCollectObjects(t *testing.T) {
	s := newStocked(t)
	s.objects.PageSize = 2
	s.create("users")
	kept := s.pushImage("users", "kept", "kept layer")
	var gone []blob.Digest
	for i := range 5 {
		gone = append(gone, s.pushImage("users", fmt.Sprint("gone", i), fmt.Sprint("gone layer", i)))
	}
	s.collect()
	before := len(s.keys())
	for _, d := range gone {
		s.want(202, "DELETE", "/v2/users/manifests/"+string(d), nil)
	}
	s.collect()
	if n := len(s.keys()); n != before {
		t.Errorf("%d of %d objects, although all are young", n, before)
	}
	s.age(25 * time.Hour)
	young := s.pushBlob("users", "young")
	s.collect() // the layers' records
	s.collect()
	if keys := s.keys(); len(keys) != 4 || !keys[kept] || !keys[young] || !keys[blob.Sum([]byte("kept layer"))] {
		t.Errorf("%d objects: %v", len(keys), keys)
	}
	o := s.reg.ObjectStore()
	if o.Lost != nil || o.Waiting != 0 || o.Compared.IsZero() {
		t.Errorf("%+v", o)
	}
}

// TestMoveToObjectStore: a registry that had its blobs on its disk is started with an object store, which fails half-way; what was pushed before is pulled all
// the while, and in the end everything is there.
func TestMoveToObjectStore(t *testing.T) {
	s := &stocked{objects: s3test.Start(t), dir: filepath.Join(t.TempDir(), "0")}
	local, err := blob.Open(s.dir, blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.bench = newBench(t, func(c *registry.Config) { c.Blobs = local })
	s.blobs = local
	s.create("users")
	for i := range 8 {
		s.pushImage("users", fmt.Sprint("v", i), fmt.Sprint("layer", i))
	}
	all := s.stored()
	if _, err := s.resource("GetObjectStore", &registry.GetObjectStoreInput{}); err == nil || !strings.Contains(err.Error(), "--blob-store") {
		t.Errorf("what is not in use: %v", err)
	}
	overObjectStore(t, s.objects)(&s.config)
	s.restart()
	var mu sync.Mutex
	puts := 0
	s.objects.Inject(func(r *http.Request) s3test.Fault {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodPut {
			puts++
		}
		return s3test.Fault{Cut: puts > 6}
	})
	stop := s.run()
	s.eventually(0, func(*state.View) bool { mu.Lock(); defer mu.Unlock(); return puts > 6 })
	s.want(200, "GET", "/v2/users/blobs/"+string(blob.Sum([]byte("layer7"))), nil)
	stop()
	some := len(s.keys())
	if some == 0 || some >= len(all) {
		t.Errorf("%d of %d are moved", some, len(all))
	}
	s.restart() // and goes on
	s.objects.Inject(nil)
	s.run()
	s.eventually(time.Second, func(*state.View) bool { return len(s.keys()) == len(all) && s.reg.ObjectStore().Waiting == 0 })
	// A put that was under way when the first one ended may have come to its end since.
	moved := func(n uint64) bool { return n > 0 && n <= uint64(len(all)-some) }
	s.eventually(time.Second, func(*state.View) bool { return moved(s.reg.ObjectStore().Moved) })
	var report *registry.ObjectStore
	s.eventually(time.Second, func(*state.View) bool { // it asks how the store is, for a second at most
		got, err := s.resource("GetObjectStore", &registry.GetObjectStoreInput{})
		if err != nil {
			t.Fatal(err)
		}
		report = got.(*registry.ObjectStore)
		return report.Error == ""
	})
	if !moved(report.Moved) || report.Lost != nil {
		t.Errorf("report %+v", report)
	}
	s.afresh()
	s.token = s.login(account, region)
	for i := range 8 {
		s.pullAll(s.token, "users", fmt.Sprint("v", i))
	}
}

// TestObjectStoreDown: pushes are refused so that clients try again, what is cached is pulled, nothing is lost, and the store's return is all it takes.
func TestObjectStoreDown(t *testing.T) {
	s := newStocked(t)
	s.create("users")
	s.pushImage("users", "old", "old layer")
	s.pushImage("users", "cached", "cached layer")
	s.afresh()
	s.pullAll(s.token, "users", "cached")
	s.objects.Down()
	s.pullAll(s.token, "users", "cached")
	unavailable := func(a answer) {
		t.Helper()
		if !strings.Contains(a.body, `"UNAVAILABLE"`) || a.Header.Get("Retry-After") == "" {
			t.Errorf("%v %s", a.Header, a.body)
		}
	}
	unavailable(s.want(503, "GET", "/v2/users/blobs/"+string(blob.Sum([]byte("old layer"))), nil))
	unavailable(s.want(503, "GET", "/v2/users/manifests/old", nil))
	content := []byte("new layer")
	push := "/v2/users/blobs/uploads/?digest=" + string(blob.Sum(content))
	unavailable(s.want(503, "POST", push, content))
	at := s.want(202, "POST", "/v2/users/blobs/uploads/", nil).Header.Get("Location")
	at = s.want(202, "PATCH", at, content).Header.Get("Location")
	s.objects.Inject(nil)
	s.want(201, "PUT", at+"?digest="+string(blob.Sum(content)), nil)
	s.want(201, "POST", push, content)
	s.pullAll(s.token, "users", "old")
	s.pushImage("users", "new", string(content))
	s.afresh()
	s.pullAll(s.token, "users", "new")
}

// TestWrongObject: nobody is given it, and a push brings it again; while a server has it right, it is replaced before anybody asks.
func TestWrongObject(t *testing.T) {
	s := newStocked(t)
	s.create("users")
	layer := strings.Repeat("wrong soon ", 60<<10)
	d := blob.Sum([]byte(layer))
	s.pushImage("users", "v1", layer)
	stop := s.run()
	scrubbed := (&rotting{bench: s.bench}).scrubbed
	s.objects.Spoil(t, d.Path())
	if got := scrubbed(); got.Rotten != 1 || got.Repaired != 1 || got.Lost != nil {
		t.Errorf("with a copy on the disk: %+v", got)
	}
	stop()
	s.afresh()
	s.token = s.login(account, region)
	if a := s.want(200, "GET", "/v2/users/blobs/"+string(d), nil); a.body != layer {
		t.Error("it is still wrong")
	}

	s.objects.Spoil(t, d.Path())
	s.afresh()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.server.URL+"/v2/users/blobs/"+string(d), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("AWS", s.token)
	if resp, err := http.DefaultClient.Do(req); err == nil {
		got, err := io.ReadAll(resp.Body)
		if resp.Body.Close(); err == nil && resp.StatusCode < 400 {
			t.Errorf("a wrong layer was given as if it were whole: %d, %d bytes", resp.StatusCode, len(got))
		}
	}
	s.eventually(0, func(*state.View) bool { return !s.keys()[d] })
	s.pushImage("users", "v1", layer)
	s.objects.Spoil(t, d.Path())
	s.afresh() // of one that nobody has read yet, a range is not given either
	if a := s.do("GET", "/v2/users/blobs/"+string(d), nil, func(r *http.Request) { r.Header.Set("Range", "bytes=0-9") }); a.StatusCode < 400 {
		t.Errorf("a range of it: %d", a.StatusCode)
	}
	s.want(404, "HEAD", "/v2/users/blobs/"+string(d), nil) // so that docker pushes it again
	s.pushImage("users", "v1", layer)
	s.afresh()
	if a := s.want(200, "GET", "/v2/users/blobs/"+string(d), nil); a.body != layer {
		t.Error("it is wrong after a push")
	}
	s.collect()
	for _, key := range s.objects.Keys() {
		if strings.HasPrefix(key, "quarantine/") {
			t.Errorf("%s is kept", key)
		}
	}

	s.objects.Spoil(t, d.Path())
	s.afresh()
	s.run()
	if got := (&rotting{bench: s.bench}).scrubbed(); got.Rotten < 1 || len(s.objects.Keys()) == 0 {
		t.Errorf("without a copy: %+v", got)
	}
	s.token = s.login(account, region)
	s.want(404, "GET", "/v2/users/blobs/"+string(d), nil)
}

// TestLostObject: one that vanished comes back from a disk that has it, and is named where none has.
func TestLostObject(t *testing.T) {
	s := newStocked(t)
	s.create("users")
	d := s.pushImage("users", "v1", "layer")
	s.objects.Lose(d.Path())
	s.collect()
	if !s.keys()[d] {
		t.Error("it is not back")
	}
	s.objects.Lose(d.Path())
	s.afresh()
	s.collect()
	if o := s.reg.ObjectStore(); !slices.Equal(o.Lost, []string{string(d)}) {
		t.Errorf("%+v", o)
	}
}

// TestRottenOnItsWay: a file that has rotted on the disk is not put into the object store, nor believed any more.
func TestRottenOnItsWay(t *testing.T) {
	r := newRotting(t)
	r.create("users")
	r.pushImage("users", "v1", "layer")
	d := blob.Sum([]byte("layer"))
	r.rot(d)
	store := s3test.Start(t)
	overObjectStore(t, store)(&r.config)
	r.restart()
	r.collect()
	if o := r.reg.ObjectStore(); o.Waiting != 1 || o.Moved != 2 {
		t.Errorf("%+v", o)
	}
	r.collect()
	if o := r.reg.ObjectStore(); o.Waiting != 0 || !slices.Equal(o.Lost, []string{string(d)}) {
		t.Errorf("%+v", o)
	}
	r.want(404, "GET", "/v2/users/blobs/"+string(d), nil)
	r.pushImage("users", "v1", "layer")
	if a := r.want(200, "GET", "/v2/users/blobs/"+string(d), nil); a.body != "layer" {
		t.Errorf("%q", a.body)
	}
}

// TestOtherServersCopies: what the object store does not give, because it is away or has it wrong, comes from another server's disk; and replaces the wrong one.
func TestOtherServersCopies(t *testing.T) {
	s := newStocked(t)
	s.create("users")
	layer := strings.Repeat("0123456789abcdef", 40<<10)
	d := blob.Sum([]byte(layer))
	s.pushImage("users", "v1", layer)
	from := s.blobs
	s.afresh()
	s.config.Copies = &donor{from: from, to: s.blobs}
	s.restart()
	s.objects.Down()
	if a := s.want(200, "GET", "/v2/users/blobs/"+string(d), nil); a.body != layer {
		t.Errorf("without the store: %d bytes", len(a.body))
	}
	s.objects.Inject(nil)
	s.objects.Spoil(t, d.Path())
	s.afresh()
	s.config.Copies = &donor{from: from, to: s.blobs}
	s.restart()
	s.do("GET", "/v2/users/blobs/"+string(d), nil, header("Range", "bytes=0-9"))
	if a := s.want(200, "GET", "/v2/users/blobs/"+string(d), nil); a.body != layer {
		t.Errorf("with a wrong object: %d bytes", len(a.body))
	}
	s.config.Copies = nil
	s.afresh()
	if a := s.want(200, "GET", "/v2/users/blobs/"+string(d), nil); a.body != layer {
		t.Errorf("it was not replaced: %d bytes", len(a.body))
	}
}

// TestKilledOverObjectStore is TestKilled with the blobs in an object store, on which only leases keep what is on its way, and a small cache. In the end there is
// no object that nothing refers to.
func TestKilledOverObjectStore(t *testing.T) {
	store, dir := s3test.Start(t), t.TempDir()
	killed(t, dir, "REGISTRY_TEST_BUCKET="+store.URL)
	if t.Failed() {
		return
	}
	engine, err := raft.Open(raft.Options{Dir: filepath.Join(dir, "state"), NodeID: "one", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	records, err := state.New(engine, append(controlplane.Schema[:len(controlplane.Schema):len(controlplane.Schema)], registry.Schema...), state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	local, err := blob.Open(t.TempDir(), blob.Options{}) // the disk is lost as well
	if err != nil {
		t.Fatal(err)
	}
	objects, err := crashBucket(store.URL, local)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.New(make([]byte, seal.KeySize), "test")
	if err != nil {
		t.Fatal(err)
	}
	reg, err := registry.New(registry.Config{Store: records, Blobs: local, Bucket: objects, Seal: sealer, Region: region, PublicName: func(string, string) string { return "registry" }})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); records.Leadership().Term == 0; {
		if time.Now().After(deadline) {
			t.Fatal("nobody leads")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := reg.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"owner": true}
	for l := range registry.Layers.Scan(records.View(), state.K()) {
		want[blob.Digest(l.Digest).Path()] = true
	}
	for m := range registry.Manifests.Scan(records.View(), state.K()) {
		want[blob.Digest(m.Digest).Path()] = true
	}
	keys := store.Keys()
	for _, key := range keys {
		if !want[key] {
			t.Errorf("nothing refers to %s", key)
		}
		delete(want, key)
	}
	for key := range want {
		t.Errorf("%s is missing", key)
	}
	if n := store.Uploads(); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
	t.Logf("%d objects", len(keys))
	for info, err := range objects.All(t.Context()) {
		r, _, oerr := objects.Open(t.Context(), info.Digest)
		if err = errors.Join(err, oerr); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil || blob.Sum(text) != info.Digest {
			t.Errorf("%s: %v", info.Digest, err)
		}
		r.Close()
	}
}

// BenchmarkBlobs pushes and pulls blobs, over HTTP, with the disk behind it, and with a Versity gateway that is on the same disk. Pulls from that are of what
// the server has not read before.
func BenchmarkBlobs(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 20} {
		content := make([]byte, size)
		for _, where := range []string{"disk", "object store"} {
			begin := func(b *testing.B) (*bench, func()) {
				if where == "disk" {
					r := newBench(b)
					r.create("users")
					return r, func() {}
				}
				over := overStoreAt(b, s3test.StartVersity(b), 0)
				r := newBench(b, over)
				r.create("users")
				return r, func() {
					for info := range r.blobs.All() {
						if _, err := r.blobs.Delete(info.Digest, func() (bool, error) { return true, nil }); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
			push := func(r *bench, i int) blob.Digest {
				copy(content, fmt.Sprintf("%20d", i))
				d := blob.Sum(content)
				r.want(201, "POST", "/v2/users/blobs/uploads/?digest="+string(d), content)
				return d
			}
			b.Run(fmt.Sprintf("push/%d/%s", size, where), func(b *testing.B) {
				r, _ := begin(b)
				b.SetBytes(int64(size))
				for i := 0; b.Loop(); i++ {
					push(r, i)
				}
			})
			b.Run(fmt.Sprintf("pull/%d/%s", size, where), func(b *testing.B) {
				r, forget := begin(b)
				d := push(r, 0)
				b.SetBytes(int64(size))
				for b.Loop() {
					b.StopTimer()
					forget()
					b.StartTimer()
					if a := r.want(200, "GET", "/v2/users/blobs/"+string(d), nil); !bytes.Equal([]byte(a.body), content) {
						b.Fatal("wrong content")
					}
				}
			})
		}
	}
}
