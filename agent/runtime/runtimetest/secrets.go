package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// secrets looks, from inside of containers and on the driver's disk, at what they were confided.
func (s *suite) secrets(t *testing.T) {
	ctx := context.Background()
	h := s.host(t)
	const dir = "/run/secrets"
	main := command("env", "then", "cat", dir+"/PASSWORD", "then", "id", "then", "cat", "/proc/self/mountinfo", "then", "exit", "3")
	main.User, main.SecretFiles = "alice", dir
	main.Environment = map[string]string{"TOKEN": "plain", "OPEN": "plain"}
	other := command("env", "then", "ls", "/", "then", "ls", dir)
	other.Name = "other"
	task, _ := h.task("none", main, other)
	big := strings.Repeat("x", 65000) + "\n" // as long as a secret may be, and more than a message between processes takes at once
	secrets := map[string]runtime.Secrets{"main": {
		Environment: map[string]string{"TOKEN": "canary-of-environment", "BIG": big},
		Files:       map[string][]byte{"PASSWORD": []byte("canary-of-file\n"), "BINARY": {0, 0xff, 'c'}, "BIG": []byte(big)},
	}}
	if err := h.Confide(ctx, TaskID(), secrets); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("confide to a task that is not there: %v", err)
	}
	if err := h.Confide(ctx, task.ID, secrets); err != nil {
		t.Fatal(err)
	}
	first := h.start(task, "main")
	if e := h.wait(task, "main"); e.Code != 3 {
		t.Errorf("exit %+v: %s", e, h.output(task, "main"))
	}
	saw := func(want string) int { return strings.Count(h.output(task, "main"), want) }
	for _, want := range []string{"TOKEN=canary-of-environment\n", "OPEN=plain\n", "BIG=" + big, "canary-of-file\n", "1000 1001 [29"} {
		if saw(want) != 1 {
			t.Errorf("no %.40q in what the container saw", want)
		}
	}
	if saw("TOKEN=plain") > 0 {
		t.Error("the spec's value is there as well")
	}
	if m := mountOf(h.output(task, "main"), dir); !strings.Contains(m, " - tmpfs ") || !strings.Contains(m, " ro,") {
		t.Errorf("the files are on %q", m)
	}
	h.start(task, "other")
	h.wait(task, "other")
	if out := h.output(task, "other"); strings.Contains(out, "canary") || strings.Contains(out, "PASSWORD") {
		t.Errorf("another container sees %q", out)
	}

	// A restart keeps what there was, also by a new process, which was told nothing.
	if err := h.Close(ctx, false); err != nil {
		t.Fatal(err)
	}
	s.reopen(t, h)
	h.again(task, first)
	h.wait(task, "main")
	for _, want := range []string{"TOKEN=canary-of-environment\n", "canary-of-file\n"} {
		if n := saw(want); n != 2 {
			t.Errorf("%q was seen %d times after a restart, want 2", want, n)
		}
	}
	h.filesAreClear()

	t.Run("Permissions", func(t *testing.T) {
		const refusal = "prog: open " + dir + "/KEY: read-only file system\n" // to root permission would not be denied
		for user, owner := range map[string]string{"1000": "1000 1001", "alice": "1000 1001", "": "0 0", "7:8": "7 8"} {
			c := command("stat", dir, "then", "stat", dir+"/KEY", "then", "cat", dir+"/KEY", "then", "write", dir+"/KEY", "changed")
			c.User, c.SecretFiles = user, dir
			task, _ := h.task("none", c)
			if err := h.Confide(ctx, task.ID, map[string]runtime.Secrets{"main": {Files: map[string][]byte{"KEY": []byte("canary\n")}}}); err != nil {
				t.Fatal(err)
			}
			h.start(task, "main")
			e, out := h.wait(task, "main"), h.output(task, "main")
			if want := "dr-x------ " + owner + "\n-r-------- " + owner + "\ncanary\n"; e.Code != 1 || !strings.Contains(strings.Replace(out, refusal, "", 1), want) || !strings.Contains(out, refusal) {
				t.Errorf("user %q: exit %d, %q, want %q", user, e.Code, out, want)
			}
		}
	})
	t.Run("NoFiles", func(t *testing.T) {
		c := command("ls", dir)
		c.SecretFiles = dir
		if e, out := h.run(c); e.Code != 0 || strings.TrimSpace(out) != "" {
			t.Errorf("a container without secrets finds %q (%+v)", out, e)
		}
	})
}

// filesAreClear looks through the driver's folder, but for what containers wrote themselves.
func (h *host) filesAreClear() {
	h.t.Helper()
	err := filepath.WalkDir(h.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.Contains(path, "/logs/") {
			return nil // what goes away meanwhile
		}
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte("canary")) {
			h.t.Errorf("%s has a secret in it", path)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
}
