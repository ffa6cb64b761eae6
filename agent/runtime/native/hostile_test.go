//go:build linux && cgo

package native

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/runtimetest"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/internal/ociclient/ocitest"
)

// What images bring is out of reach for the host's other users, set-id programs among it.
func TestLayersAreClosedToOthers(t *testing.T) {
	need(t)
	d := openDriver(t, Config{Dir: filepath.Join(t.TempDir(), "open")})
	pullProg(t, d)
	for _, dir := range []string{"layers", "tasks", "images"} {
		if st, err := os.Stat(filepath.Join(d.cfg.Dir, dir)); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, st, err)
		}
	}
}

// An image whose user database is a pipe holds nobody up: its container does not start, and its task can be removed.
func TestPipesInImages(t *testing.T) {
	need(t)
	d := openDriver(t, Config{Dir: t.TempDir()})
	pullProg(t, d)
	// The builder makes no pipes, so the unpacked layer gets one.
	r := ocitest.New(t)
	ref := r.Push(t, "pipe:1", ocitest.Image(t, runtimetest.ProgConfig, runtimetest.ProgLayer(t), []ociclient.File{ociclient.Text("etc/passwd", "")}))
	if _, err := d.Pull(t.Context(), runtime.PullRequest{Image: ref}); err != nil {
		t.Fatal(err)
	}
	img, _, err := d.images.lookUp(ref)
	if err != nil {
		t.Fatal(err)
	}
	passwd := filepath.Join(d.images.layer(img.Config.DiffIDs[1]), "etc/passwd")
	if err := os.Remove(passwd); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(passwd, 0o644); err != nil {
		t.Fatal(err)
	}
	task := newTask(ref, "print", "x")
	task.Spec.Containers[0].User = "alice"
	if _, err := d.Create(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Start(t.Context(), task.ID, "main"); err == nil || !strings.Contains(err.Error(), "CannotStartContainerError: unable to find user alice: the image's /etc/passwd is no regular file") {
		t.Errorf("start: %v", err)
	}
	if err := d.Remove(t.Context(), task.ID); err != nil {
		t.Error(err)
	}
}

// More layers than overlayfs takes are refused when the image is pulled.
func TestTooManyLayers(t *testing.T) {
	need(t)
	d := openDriver(t, Config{Dir: t.TempDir()})
	var many [][]ociclient.File
	for n := range maxLayers + 1 {
		many = append(many, []ociclient.File{ociclient.Text(fmt.Sprint("f", n), "x")})
	}
	r := ocitest.New(t)
	_, err := d.Pull(t.Context(), runtime.PullRequest{Image: r.Push(t, "many:1", ocitest.Image(t, runtimetest.ProgConfig, many...))})
	if err == nil || !strings.HasPrefix(err.Error(), "CannotPullContainerError: ") || !strings.Contains(err.Error(), "501 layers") {
		t.Errorf("pull: %v", err)
	}
	if left := layers(t, d); len(left) != 0 {
		t.Errorf("%d layers are here", len(left))
	}
}

// A task that does nothing but fork, and one that takes all the memory it can, stay within their limits; a neighbour goes on answering.
func TestNeighboursOfGreedyTasks(t *testing.T) {
	need(t)
	d := openDriver(t, Config{Dir: t.TempDir(), PidsLimit: 120})
	image := pullProg(t, d)
	ctx := t.Context()
	neighbour := newTask(image, "serve", ":80", "alive")
	neighbour.Spec.Containers[0].Ports = []*agentapi.PortMapping{{ContainerPort: 80, Protocol: "tcp"}}
	sb, err := d.Create(ctx, neighbour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Start(ctx, neighbour.ID, "main"); err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", sb.Ports["main"][0].HostPort)
	client := &http.Client{Timeout: 30 * time.Second}
	answers := func() bool {
		r, err := client.Get(url)
		if err == nil {
			r.Body.Close()
		}
		return err == nil
	}
	eventually(t, "the neighbour answers", answers)

	bomb, hog := newTask(image, "bomb"), newTask(image, "alloc", "200")
	bomb.Spec.CpuUnits, hog.Spec.MemoryMib = 256, 64
	for _, task := range []runtime.Task{bomb, hog} {
		if _, err := d.Create(ctx, task); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Start(ctx, task.ID, "main"); err != nil {
			t.Fatal(err)
		}
	}
	most := uint64(0)
	eventually(t, "the bomb has all that it gets", func() bool {
		if !answers() {
			t.Error("the neighbour does not answer")
		}
		s, err := d.Stats(ctx, bomb.ID, "main")
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, s.PIDs.Current)
		return most >= 100
	})
	if most > 120 {
		t.Errorf("%d processes and threads", most)
	}
	if e, err := d.Wait(ctx, hog.ID, "main"); err != nil || !e.OOM {
		t.Errorf("the hog ended as %+v, %v", e, err)
	}
	if err := d.Remove(ctx, bomb.ID); err != nil {
		t.Error(err)
	}
	if !answers() {
		t.Error("the neighbour does not answer afterwards")
	}
}
