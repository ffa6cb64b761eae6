package registry_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
	"github.com/seed-2f228079/neargate/storage/blob/blobtest"
)

// TestKilledScrub kills a registry with SIGKILL while it reads its blobs again, some of which have rotted: after the last start it has found each of
// those, gives it to nobody and says that it is lost; what is good was not taken for rotten; what is pushed again is there again.
func TestKilledScrub(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	scrub := filepath.Join(t.TempDir(), "scrub.json")
	c := startChild(t, dir)
	var images []pushed
	blobs := map[blob.Digest]string{}
	for i := range 25 {
		p := randomImage(rnd, fmt.Sprint("v", i))
		if !c.push(t, "scrubbed", p) {
			t.Fatal("no push")
		}
		images = append(images, p)
		for _, content := range p.blobs {
			blobs[blob.Sum([]byte(content))] = content
		}
	}
	c.kill()
	rotten := map[blob.Digest]bool{}
	for d := range blobs { // whatever the order
		if len(rotten) < 10 {
			rotten[d] = true
			if err := blobtest.Rot(filepath.Join(dir, "blobs"), d); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("REGISTRY_TEST_SCRUB", scrub)
	for range 5 {
		c := startChild(t, dir)
		killed := make(chan bool)
		time.AfterFunc(time.Duration(rnd.IntN(200))*time.Millisecond, func() { c.cmd.Process.Kill(); close(killed) })
		<-killed
		c.kill()
	}
	c = startChild(t, dir)
	var report registry.Scrub
	patience, again := time.After(2*time.Minute), time.NewTicker(10*time.Millisecond)
	defer again.Stop()
	for report.Ended.IsZero() {
		select {
		case <-patience:
			t.Fatalf("the pass does not end: %+v", report)
		case <-again.C:
		}
		b, err := os.ReadFile(scrub)
		if err == nil {
			err = json.Unmarshal(b, &report)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the report: %v", err)
		}
	}
	if len(report.Lost) != len(rotten) {
		t.Errorf("%d are lost, %d have rotted", len(report.Lost), len(rotten))
	}
	for _, d := range report.Lost {
		if !rotten[blob.Digest(d)] {
			t.Errorf("%s is said to be lost", d)
		}
	}
	for d, content := range blobs {
		want := 200
		if rotten[d] {
			want, content = 404, ""
		}
		if status, got, err := c.do("GET", "/v2/scrubbed/blobs/"+string(d), "", ""); err != nil || status != want || want == 200 && got != content {
			t.Errorf("%s: %d, %v; rotten: %v", d, status, err, rotten[d])
		}
	}
	for _, p := range images {
		if !c.push(t, "scrubbed", p) {
			t.Fatal("no push")
		}
		c.pulls(t, "scrubbed", "manifests/"+p.tag, p)
	}
}
