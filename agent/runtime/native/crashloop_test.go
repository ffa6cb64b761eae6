//go:build linux && cgo

package native

import (
	"flag"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// The slow suite is go test ./agent/runtime/native -run CrashLoop -crashes 1000.
var crashes = flag.Int("crashes", 30, "how often the tests of crash loops let a program crash")

// holdings is what the driver and a shim have of the host; a leak makes one of them grow.
type holdings struct {
	DriverFiles, ShimFiles, ShimThreads, Processes, Mounts, ShimMounts, Cgroups, Links, Folders, Loops int
}

func count(t *testing.T, pattern string) int {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// hold counts; shim 0: there is none.
func hold(t *testing.T, d *Driver, shim int) (h holdings) {
	t.Helper()
	h.DriverFiles = count(t, "/proc/self/fd/*")
	if shim != 0 {
		proc := "/proc/" + strconv.Itoa(shim)
		h.ShimFiles, h.ShimThreads = count(t, proc+"/fd/*"), count(t, proc+"/task/*")
		mounts, err := os.ReadFile(proc + "/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		h.ShimMounts = strings.Count(string(mounts), "\n")
	}
	for _, p := range must(t)(filepath.Glob("/proc/[0-9]*/cmdline")) {
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), d.cfg.Dir+"/") {
			h.Processes++
		}
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(d.cfg.Dir))
	if err != nil {
		t.Fatal(err)
	}
	h.Mounts = len(mounts)
	roots, err := cgroupRoots()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range roots {
		filepath.WalkDir(filepath.Join(r, d.cgroupParent()), func(_ string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				h.Cgroups++
			}
			return nil
		})
	}
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.Contains(l.Name, d.net.Short()) {
			h.Links++
		}
	}
	err = filepath.WalkDir(filepath.Join(d.cfg.Dir, "tasks"), func(_ string, e fs.DirEntry, err error) error {
		h.Folders++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Loops = len(loops(t, d.cfg.Dir))
	return h
}

func must(t *testing.T) func([]string, error) []string {
	return func(v []string, err error) []string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// settles waits until no more is held than was: a process that has ended is reaped, and a loop device freed, a moment later. The Go
// runtime starts a thread when it thinks it needs one, so of threads a few more are none too many.
func settles(t *testing.T, before holdings, now func() holdings) {
	t.Helper()
	before.ShimThreads += 4
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		after := now()
		grown := false
		for i, was := 0, reflect.ValueOf(before); i < was.NumField(); i++ {
			grown = grown || reflect.ValueOf(after).Field(i).Int() > was.Field(i).Int()
		}
		if !grown {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("what is held: %s", cmp.Diff(before, after))
		}
	}
}

// A container that its restart policy starts again and again leaves nothing behind in its task.
func TestCrashLoopWithinATask(t *testing.T) {
	d, image := newDriver(t)
	ctx := t.Context()
	task := newTask(image, "count", "/data/runs", "then", "exit", "3")
	task.Spec.Containers = append(task.Spec.Containers, &agentapi.ContainerSpec{Name: "other", Image: image, Command: []string{"wait"}, CommandSet: true})
	if d.CheckStorage() == nil {
		withStorage(task, 64)
	}
	if _, err := d.Create(ctx, task); err != nil {
		t.Fatal(err)
	}
	other, err := d.Start(ctx, task.ID, "other")
	if err != nil {
		t.Fatal(err)
	}
	shim := parentOf(t, other.PID)
	last, err := d.Start(ctx, task.ID, "main")
	if err != nil {
		t.Fatal(err)
	}
	crash := func() {
		t.Helper()
		if e, err := d.Wait(ctx, task.ID, "main"); err != nil || e.Code != 3 {
			t.Fatalf("exit %+v, %v", e, err)
		}
		if last, err = d.Restart(ctx, task.ID, "main", last); err != nil {
			t.Fatal(err)
		}
	}
	ended := func() holdings {
		if _, err := d.Wait(ctx, task.ID, "main"); err != nil {
			t.Fatal(err)
		}
		return hold(t, d, shim)
	}
	for range 5 {
		crash()
	}
	before := ended()
	for range *crashes {
		crash()
	}
	settles(t, before, ended)
}

// A task that fails again and again, a new one each time as a service makes them, leaves nothing behind on its host.
func TestCrashLoopOfTasks(t *testing.T) {
	d, image := newDriver(t)
	ctx := t.Context()
	crash := func() {
		t.Helper()
		task := newTask(image, "exit", "3")
		task.Spec.Containers[0].Ports = []*agentapi.PortMapping{{ContainerPort: 80, Protocol: "tcp"}}
		if _, err := d.Create(ctx, task); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Start(ctx, task.ID, "main"); err != nil {
			t.Fatal(err)
		}
		if e, err := d.Wait(ctx, task.ID, "main"); err != nil || e.Code != 3 {
			t.Fatalf("exit %+v, %v", e, err)
		}
		if err := d.Remove(ctx, task.ID); err != nil {
			t.Fatal(err)
		}
		if err := d.RemoveLogs(ctx, task.ID); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		crash()
	}
	before := hold(t, d, 0)
	for range *crashes {
		crash()
	}
	settles(t, before, func() holdings { return hold(t, d, 0) })
	if left, err := os.ReadDir(filepath.Join(d.cfg.Dir, "logs")); err != nil || len(left) != 0 {
		t.Errorf("logs of %d tasks, %v", len(left), err)
	}
	// Addresses are given back: the next task gets one as long as anybody does, and the driver remembers no task.
	if len(d.tasks) != 0 {
		t.Errorf("%d tasks are remembered", len(d.tasks))
	}
}
