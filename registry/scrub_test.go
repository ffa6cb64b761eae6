package registry_test

import (
	"context"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/blob/blobtest"
)

// rotting is a registry whose disk one can spoil, and that reads it again.
type rotting struct {
	*bench
	dir string
}

func newRotting(t *testing.T, change ...func(*registry.Config)) *rotting {
	t.Helper()
	r := &rotting{dir: t.TempDir()}
	blobs, err := blob.Open(r.dir, blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r.bench = newBench(t, append([]func(*registry.Config){func(c *registry.Config) {
		c.Blobs, c.ScrubFile, c.ScrubRate = blobs, filepath.Join(t.TempDir(), "scrub.json"), 1<<40
	}}, change...)...)
	r.blobs = blobs
	return r
}

// rot changes a byte of a blob.
func (r *rotting) rot(d blob.Digest) {
	r.t.Helper()
	if err := blobtest.Rot(r.dir, d); err != nil {
		r.t.Fatal(err)
	}
}

// scrubbed waits for the end of a pass that began after now.
func (r *rotting) scrubbed() registry.Scrub {
	r.t.Helper()
	r.clock.Advance(8 * 24 * time.Hour)
	from := r.clock.Now()
	r.eventually(time.Second, func(*state.View) bool {
		s := r.reg.Scrub()
		return !s.Began.Before(from) && !s.Ended.IsZero()
	})
	return r.reg.Scrub()
}

func (r *rotting) wantScrub(what string, rotten, repaired uint64, lost ...string) {
	r.t.Helper()
	s := r.scrubbed()
	if s.Rotten != rotten || s.Repaired != repaired || !slices.Equal(s.Lost, lost) {
		r.t.Errorf("%s: %d rotten, %d repaired, lost %v; want %d, %d, %v", what, s.Rotten, s.Repaired, s.Lost, rotten, repaired, lost)
	}
}

// TestScrub: a layer that has rotted is given to nobody, is said to be lost, and comes back with the next push; so does a manifest.
func TestScrub(t *testing.T) {
	r := newRotting(t)
	r.create("users")
	manifest := r.pushImage("users", "v1", "layer")
	layer := blob.Sum([]byte("layer"))
	r.run()
	r.wantScrub("all is well", 0, 0)
	if s := r.reg.Scrub(); s.Blobs != 3 || s.Bytes == 0 {
		t.Errorf("it has read %+v", s)
	}
	r.rot(layer)
	r.rot(manifest)
	want := []string{string(layer), string(manifest)}
	slices.Sort(want)
	s := r.scrubbed()
	s.Lost = slices.Sorted(slices.Values(s.Lost)) // the scrubber has the other one
	if s.Rotten != 2 || s.Repaired != 0 || !slices.Equal(s.Lost, want) {
		t.Fatalf("%+v, want lost %v", s, want)
	}
	r.token = r.login(account, region) // the other one's time is up
	r.want(404, "GET", "/v2/users/blobs/"+string(layer), nil)
	r.want(404, "HEAD", "/v2/users/blobs/"+string(layer), nil) // so that docker pushes it again
	if a := r.do("GET", "/v2/users/manifests/v1", nil); a.StatusCode == 200 {
		t.Errorf("a manifest that is gone: %s", a.body)
	}
	r.pushImage("users", "v1", "layer")
	r.wantScrub("pushed again", 2, 2)
	r.token = r.login(account, region)
	if a := r.want(200, "GET", "/v2/users/blobs/"+string(layer), nil); a.body != "layer" {
		t.Errorf("the layer is %q", a.body)
	}
	if aside, err := r.blobs.Quarantined(); err != nil || len(aside) != 0 {
		t.Errorf("what has rotted is kept: %v, %v", aside, err)
	}
}

// donor is another server with the same blobs.
type donor struct {
	others
	from *blob.Store
	to   *blob.Store
}

func (d *donor) Fetch(ctx context.Context, digest blob.Digest) error {
	r, _, err := d.from.Open(digest)
	if err != nil {
		return err
	}
	defer r.Close()
	lease, _, err := d.to.Put(ctx, digest, r)
	lease.Release()
	return err
}

// TestScrubRepairs: what has rotted is fetched from another server, a cache's upstream, and a cluster that it was replicated to.
func TestScrubRepairs(t *testing.T) {
	t.Run("server", func(t *testing.T) {
		d := &donor{}
		r := newRotting(t, func(c *registry.Config) { c.Copies = d })
		var err error
		if d.from, err = blob.Open(t.TempDir(), blob.Options{}); err != nil {
			t.Fatal(err)
		}
		d.to = r.blobs
		r.create("users")
		r.pushImage("users", "v1", "layer")
		layer := blob.Sum([]byte("layer"))
		lease, _, err := d.from.Put(t.Context(), layer, strings.NewReader("layer"))
		if err != nil {
			t.Fatal(err)
		}
		lease.Release()
		r.rot(layer)
		r.run()
		r.wantScrub("from a server", 1, 1)
		r.holds(layer, "layer")
	})
	t.Run("upstream", func(t *testing.T) {
		u := newOpen(t)
		u.create("web")
		u.pushImage("web", "v1", "layer")
		r := newRotting(t)
		r.cacheOf("up", u.host(), "")
		r.want(200, "GET", "/v2/up/web/manifests/v1", nil)
		layer := blob.Sum([]byte("layer"))
		r.want(200, "GET", "/v2/up/web/blobs/"+string(layer), nil)
		r.rot(layer)
		r.run()
		r.wantScrub("from upstream", 1, 1)
		r.holds(layer, "layer")
	})
	t.Run("cluster", func(t *testing.T) {
		there := newCluster(t)
		r := newRotting(t, there.as("far", "AKIA"))
		r.create("users")
		r.replicateTo("far")
		stop := r.run()
		manifest := r.pushImage("users", "v1", "layer")
		r.replicated()
		stop()
		layer := blob.Sum([]byte("layer"))
		r.rot(layer)
		r.rot(manifest)
		there.fail(func(w http.ResponseWriter, req *http.Request) bool { // which has the wrong bytes at first
			if strings.Contains(req.URL.Path, "/blobs/") {
				w.Write([]byte("rotten there, too"))
				return true
			}
			return false
		})
		r.restart().run()
		r.wantScrub("from a cluster that has rotted itself", 2, 1, string(layer))
		there.heal()
		r.wantScrub("from a cluster", 2, 2)
		r.holds(layer, "layer")
	})
}

func (r *rotting) holds(d blob.Digest, want string) {
	r.t.Helper()
	if got, err := r.blobs.ReadAll(d, 1<<20); err != nil || string(got) != want {
		r.t.Errorf("the blob is %q, %v", got, err)
	}
}

// TestScrubGoesOn: no more is read than the rate says, and a restart goes on where it was.
func TestScrubGoesOn(t *testing.T) {
	r := newRotting(t, func(c *registry.Config) { c.ScrubRate = 1 << 20 })
	r.create("users")
	const n = 6
	for i := range n {
		r.pushBlob("users", strings.Repeat(string(rune('a'+i)), 1<<20))
	}
	began := r.clock.Now()
	stop := r.run()
	// A clock that stands still lets it read one, and then waits.
	var once sync.Once
	r.eventually(time.Second, func(*state.View) bool {
		once.Do(func() {
			if s := r.reg.Scrub(); s.Blobs > 1 {
				t.Errorf("%d were read at once", s.Blobs)
			}
		})
		return r.reg.Scrub().Blobs >= 2
	})
	stop()
	before := r.reg.Scrub()
	if took := r.clock.Now().Sub(began); before.Bytes > uint64(took.Seconds()+2)<<20 {
		t.Errorf("%d bytes were read in %v", before.Bytes, took)
	}
	r.restart().run()
	r.eventually(time.Second, func(*state.View) bool { return !r.reg.Scrub().Ended.IsZero() })
	after := r.reg.Scrub()
	if after.Blobs != n || after.Bytes != n<<20 || !after.Began.Equal(before.Began) {
		t.Errorf("before the restart %+v, after it %+v", before, after)
	}
}
