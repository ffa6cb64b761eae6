//go:build linux && cgo

package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/runtimetest"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/ociclient/ocitest"
)

// newDriver opens a driver and pulls the suite's program.
func newDriver(t testing.TB) (*Driver, string) {
	t.Helper()
	d := openDriver(t, Config{Dir: t.TempDir()})
	return d, pullProg(t, d)
}

func openDriver(t testing.TB, cfg Config) *Driver {
	t.Helper()
	need(t)
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(context.Background(), true); err != nil {
			t.Error(err)
		}
	})
	return d
}

func pullProg(t testing.TB, d *Driver) string {
	t.Helper()
	r := ocitest.New(t)
	ref := r.Push(t, "prog:1", ocitest.Image(t, runtimetest.ProgConfig, runtimetest.ProgLayer(t)))
	if _, err := d.Pull(t.Context(), runtime.PullRequest{Image: ref}); err != nil {
		t.Fatal(err)
	}
	return ref
}

func newTask(image string, command ...string) runtime.Task {
	return runtime.Task{ID: runtimetest.TaskID(), Spec: &agentapi.TaskSpec{NetworkMode: "bridge",
		Containers: []*agentapi.ContainerSpec{{Name: "main", Image: image, Command: command, CommandSet: true}}}}
}

// With a program of its own for the shim, that is what runs, from a file that stays from one start to the next; where the file
// cannot be made, the driver's own program does it.
func TestShimProgram(t *testing.T) {
	need(t)
	tags, err := os.ReadFile("../../../scripts/tags")
	if err != nil {
		t.Fatal(err)
	}
	built := filepath.Join(t.TempDir(), "shim")
	build := exec.Command("go", "build", "-tags", strings.TrimSpace(string(tags)), "-o", built, "github.com/seed-2f228079/neargate/cmd/neargate-shim")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	content, err := exec.Command("gzip", "-c", built).Output()
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Readlink(ownProgram)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	t.Cleanup(func() { unix.Unmount(bin, unix.MNT_DETACH) })
	var file os.FileInfo
	for _, c := range []struct {
		name    string
		prepare func() error
		own     bool
	}{
		{"first", func() error { return nil }, false},
		{"again", func() error { return nil }, false},
		{"no place for it", func() error {
			return errors.Join(os.RemoveAll(bin), os.Mkdir(bin, 0o700), unix.Mount("none", bin, "tmpfs", unix.MS_NOEXEC, ""))
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.prepare(); err != nil {
				t.Fatal(err)
			}
			d := openDriver(t, Config{Dir: dir, Shim: string(content)})
			task := newTask(pullProg(t, d), "ignore")
			if _, err := d.Create(t.Context(), task); err != nil {
				t.Fatal(err)
			}
			started, err := d.Start(t.Context(), task.ID, "main")
			if err != nil {
				t.Fatal(err)
			}
			runs, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", parentOf(t, started.PID)))
			if err != nil {
				t.Fatal(err)
			}
			if (runs == own) != c.own || !c.own && filepath.Dir(runs) != bin {
				t.Errorf("the shim is %s", runs)
			}
			if c.own {
				return
			}
			st, err := os.Stat(runs)
			if err != nil {
				t.Fatal(err)
			}
			if file != nil && !os.SameFile(file, st) {
				t.Error("the second start wrote the program again")
			}
			file = st
		})
	}
}

// A shim that dies takes its containers along, and Wait says so.
func TestShimDies(t *testing.T) {
	d, image := newDriver(t)
	ctx := t.Context()
	task := newTask(image, "ignore")
	if _, err := d.Create(ctx, task); err != nil {
		t.Fatal(err)
	}
	started, err := d.Start(ctx, task.ID, "main")
	if err != nil {
		t.Fatal(err)
	}
	shim := parentOf(t, started.PID)
	if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e, err := d.Wait(ctx, task.ID, "main")
	if err != nil || e.Code != 137 || !strings.HasPrefix(e.Reason, "ContainerRuntimeError: ") {
		t.Errorf("exit = %+v, %v", e, err)
	}
	// Empty for a process that has ended but was not reaped yet.
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", started.PID)); err == nil && len(b) > 0 {
		t.Errorf("the container's process lives on: %q", b)
	}
	if err := d.Remove(ctx, task.ID); err != nil {
		t.Error(err)
	}
}

func TestConcurrentPullsFetchALayerOnce(t *testing.T) {
	need(t)
	d, err := New(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(t.Context(), true)
	r := ocitest.New(t)
	ref := r.Push(t, "prog:1", ocitest.Image(t, runtimetest.ProgConfig, runtimetest.ProgLayer(t)))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := d.Pull(t.Context(), runtime.PullRequest{Image: ref}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// Every pull may read the configuration; the layer is fetched by one.
	if n := r.Blobs.Load(); n > 9 {
		t.Errorf("%d blobs fetched", n)
	}
}

func TestTwoInstances(t *testing.T) {
	a, imageA := newDriver(t)
	b, imageB := newDriver(t)
	ctx := t.Context()
	taskA, taskB := newTask(imageA, "wait"), newTask(imageB, "wait")
	sa, err := a.Create(ctx, taskA)
	if err != nil {
		t.Fatal(err)
	}
	sb, err := b.Create(ctx, taskB)
	if err != nil {
		t.Fatal(err)
	}
	if sa.Gateway == sb.Gateway {
		t.Errorf("both use gateway %s", sa.Gateway)
	}
	if _, err := New(Config{Dir: a.cfg.Dir}); err == nil {
		t.Error("a second driver opened the same folder")
	}
	if _, err := b.Start(ctx, taskB.ID, "main"); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := b.Stop(ctx, taskB.ID, "main", 0); err != nil {
		t.Errorf("the other instance suffered: %v", err)
	}
}

// BenchmarkStart measures from Create to the first line that the program wrote, image at hand; warm: in a sandbox that was made ahead.
func BenchmarkStart(b *testing.B) {
	for name, cfg := range map[string]Config{"cold": {}, "warm": {Warm: 1}} {
		b.Run(name, func(b *testing.B) { benchmarkStart(b, cfg) })
	}
}

func benchmarkStart(b *testing.B, cfg Config) {
	cfg.Dir, cfg.Shim = b.TempDir(), staticShim(b)
	d := openDriver(b, cfg)
	image := pullProg(b, d)
	ctx := context.Background()
	var create, start, first, driver time.Duration
	for b.Loop() {
		task := newTask(image, "print", "up")
		b.StopTimer()
		if cfg.Warm > 0 && d.warm.kept != nil {
			for _, k := range d.warm.kept {
				if err := d.makeWarm(ctx, k.shape); err != nil {
					b.Fatal(err)
				}
			}
		}
		cpu := ownCPU(b)
		b.StartTimer()
		t0 := time.Now()
		if _, err := d.Create(ctx, task); err != nil {
			b.Fatal(err)
		}
		t1 := time.Now()
		if _, err := d.Start(ctx, task.ID, "main"); err != nil {
			b.Fatal(err)
		}
		t2 := time.Now()
		driver += ownCPU(b) - cpu
		r, err := d.Logs(ctx, task.ID, "main", runtime.LogOptions{Follow: true})
		if err != nil {
			b.Fatal(err)
		}
		l, err := r.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
		create += t1.Sub(t0)
		start += t2.Sub(t1)
		first += l.At.Sub(t0)
		b.StopTimer()
		r.Close()
		if err := d.Remove(ctx, task.ID); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	n := float64(b.N) * 1e6
	b.ReportMetric(float64(create)/n, "create-ms/op")
	b.ReportMetric(float64(start)/n, "start-ms/op")
	b.ReportMetric(float64(first)/n, "first-output-ms/op")
	b.ReportMetric(float64(driver)/n, "own-cpu-ms/op")
}

// ownCPU is this process's.
func ownCPU(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// parentOf reads the parent of a process: the shim, for a container's.
func parentOf(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// The second field, the name in parentheses, may hold anything.
	_, rest, _ := strings.Cut(string(b), ") ")
	var state string
	var parent int
	if _, err := fmt.Sscan(rest, &state, &parent); err != nil {
		t.Fatal(err)
	}
	return parent
}
