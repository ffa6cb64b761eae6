//go:build linux && cgo

package native

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/runtimetest"
	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/internal/ociclient/ocitest"
)

// pullNamed pulls an image of the suite's program with a layer of its own.
func pullNamed(t *testing.T, d *Driver, r *ocitest.Registry, name string) string {
	t.Helper()
	own := []ociclient.File{ociclient.Text("data/name", name)}
	ref := r.Push(t, name, ocitest.Image(t, runtimetest.ProgConfig, runtimetest.ProgLayer(t), own))
	if _, err := d.Pull(t.Context(), runtime.PullRequest{Image: ref}); err != nil {
		t.Fatal(err)
	}
	return ref
}

// age makes an image, or everything when ref is empty, as old as said.
func age(t *testing.T, d *Driver, ref string, by time.Duration) {
	t.Helper()
	images, err := d.images.list()
	if err != nil {
		t.Fatal(err)
	}
	then := time.Now().Add(-by)
	for _, i := range images {
		if ref != "" && !slices.Contains(i.names, ref) {
			continue
		}
		for _, p := range i.records {
			if err := os.Chtimes(p, then, then); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func layers(t *testing.T, d *Driver) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(d.cfg.Dir, "layers"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func clean(t *testing.T, d *Driver, c runtime.Cleanup, want ...string) {
	t.Helper()
	got, err := d.CleanImages(t.Context(), c)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("removed %v, %v; want %v", got, err, want)
	}
}

// Images go the longest unused first, so many at once, never one that a task has; layers go with the last image that needs them.
func TestCleanImages(t *testing.T) {
	need(t)
	d := openDriver(t, Config{Dir: t.TempDir()})
	r := ocitest.New(t)
	a, b, c := pullNamed(t, d, r, "img-a:1"), pullNamed(t, d, r, "img-b:1"), pullNamed(t, d, r, "img-c:1")
	if n := len(layers(t, d)); n != 4 {
		t.Fatalf("%d layers", n)
	}
	clean(t, d, runtime.Cleanup{MinimumAge: time.Hour})
	age(t, d, a, 2*time.Hour)
	age(t, d, b, 3*time.Hour)
	age(t, d, c, 4*time.Hour)
	task := newTask(c, "wait")
	if _, err := d.Create(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	clean(t, d, runtime.Cleanup{MinimumAge: time.Hour, Most: 1}, b)
	clean(t, d, runtime.Cleanup{MinimumAge: time.Hour, Most: 1}, a)
	// The layers themselves are young yet.
	clean(t, d, runtime.Cleanup{MinimumAge: time.Hour})
	if n := len(layers(t, d)); n != 4 {
		t.Errorf("%d layers", n)
	}
	clean(t, d, runtime.Cleanup{})
	if n := len(layers(t, d)); n != 2 {
		t.Errorf("%d layers, want that of the program and that of %s", n, c)
	}
	if _, err := d.Start(t.Context(), task.ID, "main"); err != nil {
		t.Errorf("the image that is in use: %v", err)
	}
	// Having been in use counts from when the task went.
	if err := d.Remove(t.Context(), task.ID); err != nil {
		t.Fatal(err)
	}
	clean(t, d, runtime.Cleanup{MinimumAge: time.Hour})
	if _, err := d.Create(t.Context(), newTask(a, "wait")); err == nil || !strings.Contains(err.Error(), "was not pulled") {
		t.Errorf("a task of an image that is gone: %v", err)
	}
	if _, err := d.Pull(t.Context(), runtime.PullRequest{Image: a}); err != nil {
		t.Fatal(err)
	}
	if out := runTask(t, d, newTask(a, "cat", "/data/name"), "main"); out != "img-a:1" && out != "img-a:1\n" {
		t.Errorf("pulled again: %q", out)
	}
}

// A pull that is under way loses nothing to a clean-up, nor does a task that is made meanwhile.
func TestCleanImagesBesidePulls(t *testing.T) {
	need(t)
	d := openDriver(t, Config{Dir: t.TempDir()})
	r := ocitest.New(t)
	pullNamed(t, d, r, "base:1")
	clean := make(chan struct{})
	stop := make(chan struct{})
	var cleaning sync.WaitGroup
	cleaning.Go(func() {
		close(clean)
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := d.CleanImages(t.Context(), runtime.Cleanup{}); err != nil {
					t.Error(err)
				}
			}
		}
	})
	<-clean
	var pulls sync.WaitGroup
	for n := range 3 {
		pulls.Go(func() {
			for i := range 4 {
				ref := r.Push(t, fmt.Sprintf("p%d-%d:1", n, i), ocitest.Image(t, runtimetest.ProgConfig, runtimetest.ProgLayer(t), []ociclient.File{ociclient.Text("data/x", fmt.Sprint(n, i))}))
				img, err := d.Pull(t.Context(), runtime.PullRequest{Image: ref})
				if err != nil || img.Digest == "" {
					t.Errorf("pull: %v", err)
					continue
				}
				// Between the pull and this the image may have gone, which Create says; never is there half of one.
				task := newTask(ref, "print", "x")
				if _, err := d.Create(t.Context(), task); err != nil {
					if !strings.Contains(err.Error(), errNotPulled.Error()) {
						t.Error(err)
					}
					continue
				}
				if _, err := d.Start(t.Context(), task.ID, "main"); err != nil {
					t.Error(err)
				}
				if err := d.Remove(t.Context(), task.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	pulls.Wait()
	close(stop)
	cleaning.Wait()
	if len(d.images.held) != 0 {
		t.Errorf("layers are still held: %v", d.images.held)
	}
}

// What a killed process left of a pull or of a clean-up goes at the next start, even while its unpacker has not noticed yet.
func TestLeftoversOfPullsGo(t *testing.T) {
	need(t)
	d := openDriver(t, Config{Dir: t.TempDir()})
	image := pullProg(t, d)
	before := layers(t, d)
	for _, left := range []string{"layers/.tmp-1/root/a", "layers/.tmp-gone-2/b", "images/.tmp-3", ".overlay-4/upper"} {
		path := filepath.Join(d.cfg.Dir, left)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	late := filepath.Join(d.cfg.Dir, "layers", ".tmp-1", "root")
	done := make(chan struct{})
	go func() { // the unpacker
		defer close(done)
		for i := range 200 {
			if err := os.WriteFile(filepath.Join(late, fmt.Sprint(i)), nil, 0o600); err != nil {
				return
			}
		}
	}()
	if _, err := d.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-done
	if left := must(t)(filepath.Glob(filepath.Join(d.cfg.Dir, ".overlay-*"))); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if after := layers(t, d); !slices.Equal(after, before) {
		t.Errorf("layers %v, then %v", before, after)
	}
	images, err := os.ReadDir(filepath.Join(d.cfg.Dir, "images"))
	if err != nil || len(images) != 2 {
		t.Errorf("images %v, %v", images, err)
	}
	runTask(t, d, newTask(image, "print", "x"), "main")
}

// When the disk is full a pull says so, and leaves nothing of what it had unpacked.
func TestPullOnAFullDisk(t *testing.T) {
	need(t)
	dir := smallDisk(t, "48m")
	d := openDriver(t, Config{Dir: dir})
	r := ocitest.New(t)
	large := []ociclient.File{ociclient.Text("large", strings.Repeat("0123456789abcdef", 4<<20))}
	ref := r.Push(t, "large:1", ocitest.Image(t, runtimetest.ProgConfig, large))
	_, err := d.Pull(t.Context(), runtime.PullRequest{Image: ref})
	if err == nil || !strings.HasPrefix(err.Error(), "CannotPullContainerError: ") || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("pull: %v", err)
	}
	if failed := new(runtime.PullError); !errors.As(err, &failed) || !failed.Retryable {
		t.Error("it is not tried again")
	}
	if left := layers(t, d); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := d.Pull(t.Context(), runtime.PullRequest{Image: r.Push(t, "small:1", ocitest.Image(t, runtimetest.ProgConfig, []ociclient.File{ociclient.Text("small", "x")}))}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A registry that stops in the middle of a layer leaves nothing.
func TestPullThatBreaksOff(t *testing.T) {
	need(t)
	d := openDriver(t, Config{Dir: t.TempDir()})
	r := ocitest.New(t)
	ref := r.Push(t, "cut:1", ocitest.Image(t, runtimetest.ProgConfig, runtimetest.ProgLayer(t)))
	r.Fail = func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodGet || !strings.Contains(req.URL.Path, "/blobs/") || r.Blobs.Load() == 0 {
			return false
		}
		w.Header().Set("Content-Length", "1000000")
		io.WriteString(w, "\x1f\x8b\x08\x00")
		return true
	}
	if _, err := d.Pull(t.Context(), runtime.PullRequest{Image: ref}); err == nil {
		t.Error("pulled")
	}
	if left := layers(t, d); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}
