package registry_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/seal"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
)

// shelf is what a worker knows of one repository, by digest.
type shelf struct {
	repo   string
	images map[blob.Digest]pushed
	unsure map[blob.Digest]pushed // whose deletion, or push, was not answered
}

// mounts is true once an image that another repository has is acknowledged in this one, whose layers it takes from there.
func (c *child) mounts(t *testing.T, from, to string, p pushed) bool {
	for _, content := range p.blobs {
		status, got, err := c.do("POST", "/v2/"+to+"/blobs/uploads/?mount="+string(blob.Sum([]byte(content)))+"&from="+from, "", "")
		if !c.acknowledged(t, 201, status, got, err) {
			return false
		}
	}
	status, got, err := c.do("PUT", "/v2/"+to+"/manifests/"+p.tag, p.manifest, ociManifest)
	return c.acknowledged(t, 201, status, got, err)
}

// TestKilledDeleting kills a registry with SIGKILL while images are pushed, mounted into another repository and deleted, and garbage is collected. After each
// restart what was acknowledged pulls byte for byte, what was deleted is gone, and of what was not answered all is there or nothing. In the end, a day later, the
// disk has what records name, and nothing else.
func TestKilledDeleting(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	dir := t.TempDir()
	const workers = 3
	var shelves [workers][2]*shelf
	for w := range shelves {
		for i := range shelves[w] {
			shelves[w][i] = &shelf{fmt.Sprintf("repo%d-%d", w, i), map[blob.Digest]pushed{}, map[blob.Digest]pushed{}}
		}
	}
	deleted := 0
	for round := range 4 {
		rnd := rand.New(rand.NewPCG(seed, uint64(round)))
		c := startChild(t, dir)
		var wg sync.WaitGroup
		acks := make(chan bool, 10_000)
		for w := range workers {
			own, rnd := shelves[w], rand.New(rand.NewPCG(seed, uint64(100+round*workers+w)))
			wg.Go(func() {
				for n := 0; ; n++ {
					at := own[rnd.IntN(2)]
					var digest blob.Digest
					for digest = range at.images { // any
						break
					}
					image := at.images[digest]
					other := own[0]
					if at == other {
						other = own[1]
					}
					switch what := rnd.IntN(4); {
					case what < 2 || digest == "":
						p := randomImage(rnd, fmt.Sprintf("v%d-%d", round, n))
						digest = blob.Sum([]byte(p.manifest))
						at.unsure[digest] = p
						if !c.push(t, at.repo, p) {
							return
						}
						at.images[digest] = p
						delete(at.unsure, digest)
					case what == 2:
						if _, there := other.images[digest]; there {
							continue
						}
						other.unsure[digest] = image
						if !c.mounts(t, at.repo, other.repo, image) {
							return
						}
						other.images[digest] = image
						delete(other.unsure, digest)
					default:
						delete(at.images, digest)
						at.unsure[digest] = image
						status, got, err := c.do("DELETE", "/v2/"+at.repo+"/manifests/"+string(digest), "", "")
						if !c.acknowledged(t, 202, status, got, err) {
							return
						}
						delete(at.unsure, digest)
					}
					acks <- true
				}
			})
		}
		go func() { wg.Wait(); close(acks) }() // should they end by themselves
		for range 5 + rnd.IntN(40) {
			<-acks
		}
		time.AfterFunc(time.Duration(rnd.IntN(20))*time.Millisecond, func() { c.cmd.Process.Kill() })
		wg.Wait()
		c.kill()
		if t.Failed() {
			return
		}

		c = startChild(t, dir)
		for _, own := range shelves {
			for _, at := range own {
				for digest, p := range at.images {
					c.pulls(t, at.repo, "manifests/"+string(digest), p)
				}
				for digest, p := range at.unsure {
					status, _, err := c.do("GET", "/v2/"+at.repo+"/manifests/"+string(digest), "", "")
					switch {
					case err != nil:
						t.Fatal(err)
					case status == 200:
						c.pulls(t, at.repo, "manifests/"+string(digest), p)
						at.images[digest] = p
					case status == 404:
						deleted++
					default:
						t.Errorf("%s of %s: %d", digest, at.repo, status)
					}
					delete(at.unsure, digest)
				}
			}
		}
		c.kill()
	}
	t.Logf("%d requests that were not answered had no effect, or had taken an image away", deleted)
	wantNoGarbage(t, dir)
}

// wantNoGarbage collects what a registry that was killed has left, as a day later, and compares records and blobs.
func wantNoGarbage(t *testing.T, dir string) {
	t.Helper()
	engine, err := raft.Open(raft.Options{Dir: filepath.Join(dir, "state"), NodeID: "one", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	store, err := state.New(engine, append(controlplane.Schema[:len(controlplane.Schema):len(controlplane.Schema)], registry.Schema...), state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { engine.Close() })
	later := clock.NewFake(time.Now().Add(25 * time.Hour))
	blobs, err := blob.Open(filepath.Join(dir, "blobs"), blob.Options{Clock: later})
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.New(make([]byte, seal.KeySize), "test")
	if err != nil {
		t.Fatal(err)
	}
	reg, err := registry.New(registry.Config{Store: store, Blobs: blobs, Seal: sealer, Region: region, Clock: later, PublicName: func(string, string) string { return "registry.test" }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	v := store.View()
	named, needed := map[blob.Digest]bool{}, map[string]bool{}
	for m := range registry.Manifests.Scan(v, state.K()) {
		named[blob.Digest(m.Digest)] = true
		for _, d := range m.Blobs {
			named[blob.Digest(d)], needed[m.Repository+d] = true, true
		}
	}
	for l := range registry.Layers.Scan(v, state.K()) {
		if !needed[l.Repository+l.Digest] {
			t.Errorf("no manifest names the layer %s any more", l.Digest)
		}
	}
	if len(needed) == 0 {
		t.Error("nothing is left to look at")
	}
	for info, err := range blobs.All() {
		if err != nil {
			t.Fatal(err)
		}
		if !named[info.Digest] {
			t.Errorf("garbage is left: %s", info.Digest)
		}
		delete(named, info.Digest)
	}
	for d := range named {
		t.Errorf("%s is gone", d)
	}
}
