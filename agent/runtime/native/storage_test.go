//go:build linux && cgo

package native

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

func needStorage(t *testing.T, d *Driver) {
	t.Helper()
	if lacks := d.CheckStorage(); len(lacks) > 0 {
		t.Skipf("this host has no ephemeral storage to give:\n%s", strings.Join(lacks, "\n"))
	}
}

// loops are the loop devices on files below dir.
func loops(t *testing.T, dir string) (out []string) {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(b), dir+"/") {
			out = append(out, string(b))
		}
	}
	return out
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// run starts every container of the task and waits for the named one; it answers what that one wrote.
func runTask(t *testing.T, d *Driver, task runtime.Task, name string) string {
	t.Helper()
	ctx := t.Context()
	if _, err := d.Create(ctx, task); err != nil {
		t.Fatal(err)
	}
	for _, c := range task.Spec.Containers {
		if _, err := d.Start(ctx, task.ID, c.Name); err != nil {
			t.Fatal(err)
		}
	}
	return endOf(t, d, task, name)
}

func endOf(t *testing.T, d *Driver, task runtime.Task, name string) string {
	t.Helper()
	ctx := t.Context()
	e, err := d.Wait(ctx, task.ID, name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Logs(ctx, task.ID, name, runtime.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var text strings.Builder
	for {
		l, err := r.Next()
		if err != nil {
			if e.Code != 0 {
				t.Errorf("%s: exit %+v: %s", name, e, text.String())
			}
			return text.String()
		}
		text.WriteString(l.Text + "\n")
	}
}

func withStorage(task runtime.Task, mib uint32) runtime.Task {
	task.Spec.EphemeralStorageMib = mib
	task.Spec.Volumes = []*agentapi.VolumeSpec{{Name: "scratch", Scope: "task"}}
	for _, c := range task.Spec.Containers {
		c.Mounts = []*agentapi.MountPoint{{Volume: "scratch", ContainerPath: "/scratch"}}
	}
	return task
}

// Writable layer and volumes have the asked size together; who writes more gets ENOSPC, and a neighbour notices nothing.
func TestEphemeralStorageIsALimit(t *testing.T) {
	d, image := newDriver(t)
	needStorage(t, d)
	neighbour := withStorage(newTask(image, "fill", "/tmp/a", "20"), 64)
	for _, place := range []string{"/tmp/fill", "/scratch/fill"} {
		task := withStorage(newTask(image, "fill", place, "100"), 64)
		if out := runTask(t, d, task, "main"); !strings.Contains(out, "no space left on device") {
			t.Errorf("%s: %q", place, out)
		}
		used, err := d.Storage(t.Context(), task.ID)
		if err != nil || used.Reserved < 59<<20 || used.Reserved > 64<<20 || used.Used < used.Reserved*95/100 {
			t.Errorf("%s: %+v, %v", place, used, err)
		}
	}
	if out := runTask(t, d, neighbour, "main"); out != "wrote 20\n" {
		t.Errorf("the neighbour: %q", out)
	}
	if used, err := d.Storage(t.Context(), neighbour.ID); err != nil || used.Used < 20<<20 || used.Used > 30<<20 {
		t.Errorf("the neighbour: %+v, %v", used, err)
	}
	free := newTask(image, "print", "up")
	runTask(t, d, free, "main")
	if _, err := os.Stat(filepath.Join(d.taskFolder(free.ID), storageImage)); err == nil {
		t.Error("a task that asked for nothing has a file system of its own")
	}
}

// What containers share and what an image brings is there as without the limit; a restart finds what the run before wrote.
func TestEphemeralStorageHoldsLayersAndVolumes(t *testing.T) {
	d, image := newDriver(t)
	needStorage(t, d)
	task := withStorage(newTask(image, "write", "/scratch/x", "shared", "then", "count", "/data/runs"), 64)
	second := &agentapi.ContainerSpec{Name: "second", Image: image, Command: []string{"wait"}, CommandSet: true, Mounts: task.Spec.Containers[0].Mounts}
	task.Spec.Containers = append(task.Spec.Containers, second)
	first := runTask(t, d, task, "main")
	started, _, err := d.tasks[task.ID].state("main")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Restart(t.Context(), task.ID, "main", started.started()); err != nil {
		t.Fatal(err)
	}
	if out := endOf(t, d, task, "main"); out == first || !strings.HasPrefix(out, first) {
		t.Errorf("runs: %q, then %q", first, out)
	}
	var out strings.Builder
	if code, err := d.Exec(t.Context(), task.ID, "second", runtime.Command{Args: []string{"/prog", "cat", "/scratch/x", "then", "cat", "/data/from-image"}, Output: &out}); err != nil || code != 0 || out.String() != "shared\nimage\n" {
		t.Errorf("%d, %v: %q", code, err, out.String())
	}
}

// Another process takes the task over with its storage; with the task everything of it goes, also when the shim died first.
func TestEphemeralStorageGoesWithItsTask(t *testing.T) {
	dir := t.TempDir()
	d := openDriver(t, Config{Dir: dir})
	needStorage(t, d)
	image := pullProg(t, d)
	tasks := map[string]runtime.Task{"removed": withStorage(newTask(image, "wait"), 64), "shim dies": withStorage(newTask(image, "wait"), 64)}
	pids := map[string]int{}
	for name, task := range tasks {
		if _, err := d.Create(t.Context(), task); err != nil {
			t.Fatal(err)
		}
		started, err := d.Start(t.Context(), task.ID, "main")
		if err != nil {
			t.Fatal(err)
		}
		pids[name] = started.PID
	}
	if n := loops(t, dir); len(n) != 2 {
		t.Fatalf("loop devices %q", n)
	}
	if err := d.Close(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	d = openDriver(t, Config{Dir: dir})
	if found, err := d.Recover(t.Context()); err != nil || len(found) != 2 {
		t.Fatalf("recovered %d, %v", len(found), err)
	}
	for name, task := range tasks {
		if used, err := d.Storage(t.Context(), task.ID); err != nil || used.Reserved == 0 {
			t.Errorf("%s: %+v, %v", name, used, err)
		}
	}
	shim, err := os.FindProcess(parentOf(t, pids["shim dies"]))
	if err != nil {
		t.Fatal(err)
	}
	if err := shim.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Wait(t.Context(), tasks["shim dies"].ID, "main"); err != nil {
		t.Error(err)
	}
	for name, task := range tasks {
		if err := d.Remove(t.Context(), task.ID); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	eventually(t, "the loop devices are free", func() bool { return len(loops(t, dir)) == 0 })
}

// What cannot be had is said, and leaves nothing.
func TestEphemeralStorageThatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	d := openDriver(t, Config{Dir: dir})
	needStorage(t, d)
	task := withStorage(newTask(pullProg(t, d), "wait"), 1<<31)
	_, err := d.Create(t.Context(), task)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("no room for the task's ephemeral storage of %d MiB", 1<<31)) {
		t.Errorf("created: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "tasks")); err != nil || len(left) != 0 || len(loops(t, dir)) != 0 {
		t.Errorf("left %v, %v, %v", left, loops(t, dir), err)
	}
}

// smallDisk is a folder on a file system of its own, of so many bytes.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("small", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}
