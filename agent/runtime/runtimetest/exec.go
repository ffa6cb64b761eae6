package runtimetest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// exec runs commands in a running container and looks at what they find there.
func (s *suite) exec(t *testing.T) {
	ctx := context.Background()
	h := s.host(t)
	spec := command("serve", ":8080", "inside")
	spec.User, spec.WorkingDirectory, spec.Hostname, spec.MemoryMib = "alice", "/data", "web1", 64
	spec.Environment = map[string]string{"OWN": "yes"}
	task, _ := h.task("bridge", spec)
	h.start(task, "main")
	h.until(task, "main", "serving")

	t.Run("ExitCode", func(t *testing.T) {
		for want, args := range map[int][]string{0: {"/prog", "print", "hello"}, 3: {"/prog", "print", "hello", "then", "exit", "3"}} {
			if code, out := h.exec(task, args...); code != want || out != "hello\n" {
				t.Errorf("%q: code %d, output %q", args, code, out)
			}
		}
	})
	t.Run("LikeTheProgram", func(t *testing.T) {
		_, out := h.exec(task, "/prog", "id", "then", "pwd", "then", "hostname", "then", "env", "then", "get", "http://127.0.0.1:8080/")
		for _, want := range []string{"1000 1001 ", "\n/data\nweb1\n", "\nOWN=yes\n", "\nFROM_IMAGE=yes\n", "\ninside to 127.0.0.1:"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in %q", want, out)
			}
		}
		_, status := h.exec(task, "/prog", "cat", "/proc/self/status")
		_, first := h.exec(task, "/prog", "cat", "/proc/1/status")
		for _, field := range []string{"Uid", "Gid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp"} {
			if got, want := statusField(status, field), statusField(first, field); got != want || want == "" {
				t.Errorf("%s is %q, the program has %q", field, got, want)
			}
		}
		_, mine := h.exec(task, "/prog", "cat", "/proc/self/cgroup")
		if _, its := h.exec(task, "/prog", "cat", "/proc/1/cgroup"); mine != its {
			t.Errorf("cgroup %q, the program's %q", mine, its)
		}
	})
	t.Run("CannotStart", func(t *testing.T) {
		if code, out := h.exec(task, "nope"); code != 127 && code != 126 || out == "" {
			t.Errorf("code %d, output %q", code, out)
		}
	})
	t.Run("MuchOutput", func(t *testing.T) {
		if code, out := h.exec(task, "/prog", "lines", "20000"); code != 0 || strings.Count(out, "\n") != 20000 {
			t.Errorf("code %d, %d lines", code, strings.Count(out, "\n"))
		}
	})
	t.Run("KilledWithItsChildren", func(t *testing.T) {
		if out := h.processes(task); strings.Contains(out, "ignore") {
			t.Fatalf("before: %q", out)
		}
		short, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
		defer cancel()
		if _, err := h.Exec(short, task.ID, "main", runtime.Command{Args: []string{"/prog", "child", "ignore"}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("exec = %v", err)
		}
		for end := time.Now().Add(time.Minute); strings.Contains(h.processes(task), "ignore"); {
			if time.Now().After(end) {
				t.Fatalf("still there: %q", h.processes(task))
			}
		}
	})
	t.Run("NotRunning", func(t *testing.T) {
		if err := h.Stop(ctx, task.ID, "main", time.Second); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"main", "other"} {
			if _, err := h.Exec(ctx, task.ID, name, runtime.Command{Args: []string{"/prog", "print"}}); !errors.Is(err, runtime.ErrNotFound) {
				t.Errorf("exec in %s: %v", name, err)
			}
		}
		if _, err := h.Exec(ctx, TaskID(), "main", runtime.Command{Args: []string{"/prog", "print"}}); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("exec in an unknown task: %v", err)
		}
	})
}

func (h *host) exec(task runtime.Task, args ...string) (int, string) {
	h.t.Helper()
	return h.execIn(task, "main", args...)
}

func (h *host) execIn(task runtime.Task, container string, args ...string) (int, string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out strings.Builder
	code, err := h.Exec(ctx, task.ID, container, runtime.Command{Args: args, Output: &out})
	if err != nil {
		h.t.Fatalf("exec %q: %v", args, err)
	}
	return code, out.String()
}

// processes are the command lines of all that the container sees.
func (h *host) processes(task runtime.Task) string {
	h.t.Helper()
	_, out := h.exec(task, "/prog", "processes")
	return out
}

// statusField is a line's value in /proc/PID/status.
func statusField(status, name string) string {
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// restart runs containers again.
func (s *suite) restart(t *testing.T) {
	ctx := context.Background()
	h := s.host(t)
	task, _ := h.task("none", command("count", "/tmp/runs", "then", "exit", "4"))
	first := h.start(task, "main")
	if e := h.wait(task, "main"); e.Code != 4 {
		t.Errorf("exit = %+v", e)
	}
	second := h.again(task, first)
	if !second.At.After(first.At) || second.RuntimeID != first.RuntimeID {
		t.Errorf("second start %+v, first %+v", second, first)
	}
	if e := h.wait(task, "main"); e.Code != 4 || e.At.Before(second.At) {
		t.Errorf("second exit = %+v", e)
	}
	if again := h.again(task, first); !again.At.Equal(second.At) {
		t.Errorf("repeated restart = %+v, want %+v", again, second)
	}
	if out := h.output(task, "main"); out != "1\n2\n" {
		t.Errorf("the file system was not kept: %q", out)
	}
	// Another process finds the newest run.
	if err := h.Close(ctx, false); err != nil {
		t.Fatal(err)
	}
	for _, r := range s.reopen(t, h) {
		if c := r.Containers["main"]; !c.Started.At.Equal(second.At) || c.Exit == nil || c.Exit.Code != 4 {
			t.Errorf("recovered %+v", c)
		}
	}
	third := h.again(task, second)
	h.wait(task, "main")
	if out := h.output(task, "main"); out != "1\n2\n3\n" || !third.At.After(second.At) {
		t.Errorf("after recovery: %q, %+v", out, third)
	}
	if _, err := h.Restart(ctx, task.ID, "other", first); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("restart of an unknown container: %v", err)
	}

	running, _ := h.task("none", &agentapi.ContainerSpec{})
	started := h.start(running, "main")
	if still := h.again(running, started); !still.At.Equal(started.At) {
		t.Errorf("restart of what runs = %+v, want %+v", still, started)
	}
}

func (h *host) again(task runtime.Task, last runtime.Started) runtime.Started {
	h.t.Helper()
	s, err := h.Restart(context.Background(), task.ID, "main", last)
	if err != nil {
		h.t.Fatalf("restart: %v", err)
	}
	return s
}
