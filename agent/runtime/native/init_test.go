//go:build linux && cgo

package native

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// An init has nothing that is worth having: no file of the host, no capability, no user but its program's.
func TestInitHasNothing(t *testing.T) {
	d, image := newDriver(t)
	task := newTask(image, "wait")
	task.Spec.Containers[0].InitProcess, task.Spec.Containers[0].User = true, "alice"
	if _, err := d.Create(t.Context(), task); err != nil {
		t.Fatal(err)
	}
	started, err := d.Start(t.Context(), task.ID, "main")
	if err != nil {
		t.Fatal(err)
	}
	shim := parentOf(t, started.PID)
	var found string
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		var pid int
		if b, err := os.ReadFile(p); err == nil && strings.TrimRight(string(b), "\x00") == initName {
			fmt.Sscanf(p, "/proc/%d/", &pid)
			if parentOf(t, pid) == shim {
				found = filepath.Dir(p)
			}
		}
	}
	if found == "" {
		t.Fatal("there is no init")
	}
	status, err := os.ReadFile(found + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`Uid:\s1000\s1000\s1000\s1000`, `Gid:\s1001\s1001\s1001\s1001`, `Groups:\s*\n`, `CapEff:\s0+\n`, `CapPrm:\s0+\n`, `NoNewPrivs:\s1`, `Threads:\s1\n`} {
		if !regexp.MustCompile(line).Match(status) {
			t.Errorf("no %s in\n%s", line, status)
		}
	}
	if entries, err := os.ReadDir(found + "/root/"); err != nil || len(entries) != 0 {
		t.Errorf("its root has %v, %v", entries, err)
	}
	files, err := filepath.Glob(found + "/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if to, _ := os.Readlink(f); !strings.HasPrefix(to, "pipe:") && to != "anon_inode:[signalfd]" {
			t.Errorf("%s is open: %s", f, to)
		}
	}
	if mounts, err := os.ReadFile(found + "/mountinfo"); err != nil || strings.Count(string(mounts), "\n") != 1 {
		t.Errorf("it sees the mounts %s, %v", mounts, err)
	}
}
