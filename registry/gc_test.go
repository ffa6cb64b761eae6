package registry_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/seed-2f228079/neargate/storage/blob"
)

func (b *bench) collect() {
	b.t.Helper()
	if _, err := b.reg.Collect(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

// stored are the blobs on the disk.
func (b *bench) stored() map[blob.Digest]bool {
	b.t.Helper()
	all := map[blob.Digest]bool{}
	for info, err := range b.blobs.All() {
		if err != nil {
			b.t.Fatal(err)
		}
		all[info.Digest] = true
	}
	return all
}

func TestCollect(t *testing.T) {
	b := newBench(t)
	b.create("users", "other")
	d := b.pushImage("users", "v1", "x")
	layer := b.pushBlob("users", "not yet in a manifest")
	b.age(23 * time.Hour)
	b.collect()
	if n := len(b.stored()); n != 4 {
		t.Fatalf("%d blobs, want manifest, config, layer and the new layer", n)
	}
	b.want(200, "HEAD", "/v2/users/blobs/"+string(layer), nil) // asked for: counted on for another day
	b.age(23 * time.Hour)
	b.collect()
	b.want(200, "GET", "/v2/users/blobs/"+string(layer), nil)
	b.age(2 * time.Hour)
	b.collect()
	if b.stored()[layer] {
		t.Error("the layer that nobody wanted is there")
	}
	b.want(404, "GET", "/v2/users/blobs/"+string(layer), nil)
	b.want(201, "POST", "/v2/other/blobs/uploads/?from=users&mount="+string(blob.Sum([]byte("x"))), nil)
	b.want(202, "DELETE", "/v2/users/manifests/"+string(d), nil)
	b.collect()
	if got := b.stored(); len(got) != 1 || !got[blob.Sum([]byte("x"))] {
		t.Errorf("after deletion %v, want the layer that was mounted", got)
	}
	b.age(25 * time.Hour)
	b.collect()
	if got := b.stored(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

// TestCollectDeletedRepository: its records go, however many, and those of its successor stay.
func TestCollectDeletedRepository(t *testing.T) {
	b := newBench(t)
	b.create("users")
	for i := range 60 { // 60 tags, 60 manifests, 120 layers: several transactions
		b.pushImage("users", fmt.Sprint("v", i), fmt.Sprint(i))
	}
	must[ecr.DeleteRepositoryOutput](b, &ecr.DeleteRepositoryInput{RepositoryName: new("users"), Force: true})
	b.create("users")
	b.pushImage("users", "v1", "1")
	got, err := b.reg.Collect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Records != 60+60+120 || got.Blobs != 3*60-3 {
		t.Errorf("%+v", got)
	}
	b.want(200, "GET", "/v2/users/manifests/v1", nil)
	if n := len(b.stored()); n != 3 {
		t.Errorf("%d blobs left, 3 wanted", n)
	}
}

// TestCollectConcurrently pushes, deletes, drops repositories and collects at once, over few contents so that blobs are shared
// and come back. Each worker has repositories of its own and knows, therefore, what has to be there: every image whose push was
// acknowledged pulls whole until its worker deletes it; at the end nothing else is left on the disk.
func TestCollectConcurrently(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	b := newBench(t)
	ctx, stop := context.WithCancel(t.Context())
	var collector, workers sync.WaitGroup
	collector.Go(func() {
		for ctx.Err() == nil {
			// Layers are never idle for long enough to be taken from under a push; blobs and records are collected all the time.
			if _, err := b.reg.Collect(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	var mu sync.Mutex
	expected := map[blob.Digest]bool{}
	for w := range 4 {
		workers.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(w)))
			repo := fmt.Sprint("repo", w)
			b.create(repo)
			model := map[string]string{} // content by tag
			for range 60 {
				tag := fmt.Sprint("v", rnd.IntN(3))
				switch rnd.IntN(5) {
				case 0, 1, 2:
					content := fmt.Sprint(rnd.IntN(6))
					b.pushImage(repo, tag, content)
					model[tag] = content
				case 3:
					if content, ok := model[tag]; ok {
						b.want(202, "DELETE", "/v2/"+repo+"/manifests/"+string(manifestOf(content)), nil)
						for t, c := range model {
							if c == content {
								delete(model, t)
							}
						}
					}
				case 4:
					if rnd.IntN(8) == 0 {
						must[ecr.DeleteRepositoryOutput](b, &ecr.DeleteRepositoryInput{RepositoryName: &repo, Force: true})
						b.create(repo)
						clear(model)
					}
				}
				for tag, content := range model {
					m := b.want(200, "GET", "/v2/"+repo+"/manifests/"+tag, nil).body
					if m != manifestText(content) {
						t.Errorf("%s:%s is %s", repo, tag, m)
					}
					for _, part := range []string{content, configOf(content)} {
						if got := b.want(200, "GET", "/v2/"+repo+"/blobs/"+string(blob.Sum([]byte(part))), nil).body; got != part {
							t.Errorf("%s:%s: layer %q", repo, tag, got)
						}
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for _, content := range model {
				for _, part := range []string{content, configOf(content), manifestText(content)} {
					expected[blob.Sum([]byte(part))] = true
				}
			}
		})
	}
	workers.Wait()
	stop()
	collector.Wait()

	// Deleted manifests that were tagged no more (their tag moved) are still images: delete them, then all else is garbage.
	for w := range 4 {
		repo := fmt.Sprint("repo", w)
		for _, id := range must[ecr.ListImagesOutput](b, &ecr.ListImagesInput{RepositoryName: &repo}).ImageIds {
			if id.ImageTag == nil {
				b.want(202, "DELETE", "/v2/"+repo+"/manifests/"+*id.ImageDigest, nil)
			}
		}
	}
	b.age(25 * time.Hour)
	b.collect()
	got := b.stored()
	for d := range expected {
		if !got[d] {
			t.Errorf("%s is gone", d)
		}
		delete(got, d)
	}
	if len(got) > 0 {
		t.Errorf("garbage left: %v", got)
	}
}

func configOf(content string) string { return `{"config":"` + content + `"}` }

// manifestText is what pushImage pushes.
func manifestText(content string) string {
	config := configOf(content)
	return marshal(map[string]any{"schemaVersion": 2, "mediaType": ociManifest,
		"config": desc(ociConfig, blob.Sum([]byte(config)), len(config)), "layers": []any{desc(ociLayer, blob.Sum([]byte(content)), len(content))}})
}

func manifestOf(content string) blob.Digest { return blob.Sum([]byte(manifestText(content))) }

// age lets time pass, and logs in again.
func (b *bench) age(d time.Duration) {
	b.t.Helper()
	b.clock.Advance(d)
	b.token = b.login(account, region)
}
