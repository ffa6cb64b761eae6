package runtimetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/internal/ociclient/ocitest"
)

// process looks at what a container's process is given and how its end is told.
func (s *suite) process(t *testing.T) {
	ctx := context.Background()
	h := s.host(t)
	bare := h.Registry.Push(t, "bare:1", ocitest.Image(t, ociclient.Config{Env: []string{"PATH=/"}}, ProgLayer(t)))

	t.Run("ExitCode", func(t *testing.T) {
		if e, out := h.run(command("print", "hello", "then", "exit", "7")); e.Code != 7 || e.Signal != "" || out != "hello\n" {
			t.Errorf("exit = %+v, output %q", e, out)
		}
		if e, _ := h.run(command("print")); e.Code != 0 {
			t.Errorf("exit = %+v", e)
		}
	})

	for _, c := range []struct {
		name                string
		image               string
		entryPoint, command []string
		set                 bool
		want                string
	}{
		{"image's", "", nil, []string{"args"}, true, `["/prog" "args"]`},
		{"entry point drops the image's command", "", []string{"/prog", "args"}, nil, false, `["/prog" "args"]`},
		{"both", "", []string{"/prog", "args", "then"}, []string{"print", "x"}, true, `["/prog" "args" "then" "print" "x"]`},
		{"command alone", bare, nil, []string{"/prog", "args"}, true, `["/prog" "args"]`},
	} {
		t.Run("Command/"+c.name, func(t *testing.T) {
			_, out := h.run(&agentapi.ContainerSpec{Name: "main", Image: c.image, EntryPoint: c.entryPoint, Command: c.command, CommandSet: c.set})
			if first, _, _ := strings.Cut(out, "\n"); first != c.want {
				t.Errorf("args = %s, want %s", first, c.want)
			}
		})
	}

	t.Run("CannotStart", func(t *testing.T) {
		for _, c := range []*agentapi.ContainerSpec{
			{Name: "main", EntryPoint: []string{"nope"}},
			{Name: "main", Image: bare},
			{Name: "main", User: "nobody-here", Command: []string{"print"}},
		} {
			task, _ := h.task("none", c)
			_, err := h.Start(ctx, task.ID, "main")
			var failed *runtime.StartError
			if !errors.As(err, &failed) || !strings.HasPrefix(failed.Reason, "CannotStartContainerError: ") {
				t.Errorf("start of %v = %v", c, err)
				continue
			}
			if e := h.wait(task, "main"); e.Reason != failed.Reason || e.Code == 0 {
				t.Errorf("exit = %+v, want reason %q", e, failed.Reason)
			}
			h.Remove(ctx, task.ID)
		}
	})

	t.Run("Environment", func(t *testing.T) {
		c := command("env")
		c.Environment = map[string]string{"OWN": "a=b", "BOTH": "container"}
		c.Hostname = "web1"
		task := runtime.Task{ID: TaskID(), Environment: map[string]string{"BOTH": "task", "TASK": "t"},
			Spec: &agentapi.TaskSpec{NetworkMode: "none", Containers: []*agentapi.ContainerSpec{c}}}
		c.Image = h.Image
		h.create(task)
		h.start(task, "main")
		h.wait(task, "main")
		env := strings.Split(h.output(task, "main"), "\n")
		for _, want := range []string{"FROM_IMAGE=yes", "OWN=a=b", "BOTH=container", "TASK=t", "PATH=/bin:/", "HOSTNAME=web1"} {
			if !slices.Contains(env, want) {
				t.Errorf("no %s in %q", want, env)
			}
		}
		h.Remove(ctx, task.ID)
	})

	t.Run("WorkingDirectory", func(t *testing.T) {
		c := command("pwd")
		c.WorkingDirectory = "/made/for/it"
		if _, out := h.run(c); out != "/made/for/it\n" {
			t.Errorf("pwd = %q", out)
		}
	})

	for user, want := range map[string]string{"": "0 0 [0]", "alice": "1000 1001 [29 1001]", "1234": "1234 0 [0]",
		"1234:29": "1234 29 [29]", "alice:audio": "1000 29 [29]"} {
		t.Run("User/"+user, func(t *testing.T) {
			c := command("id")
			c.User = user
			_, out := h.run(c)
			// Whether the primary group is repeated among the supplementary ones differs between runtimes.
			if got := strings.Fields(out); len(got) < 2 || strings.Join(got[:2], " ") != strings.Join(strings.Fields(want)[:2], " ") {
				t.Errorf("id = %q, want %q", out, want)
			}
			if user == "alice" && !strings.Contains(out, "29") {
				t.Errorf("id = %q lacks the supplementary group", out)
			}
		})
	}

	t.Run("HostFiles", func(t *testing.T) {
		c := command("cat", "/etc/hosts", "then", "cat", "/etc/resolv.conf", "then", "hostname")
		c.Image, c.Hostname, c.ExtraHosts = h.Image, "web1", []string{"db:10.1.2.3"}
		task := runtime.Task{ID: TaskID(), DNSServers: []string{"10.9.8.7"}, DNSSearch: []string{"local"},
			ExtraHosts: []string{"all:10.1.2.4"}, Spec: &agentapi.TaskSpec{NetworkMode: "bridge", Containers: []*agentapi.ContainerSpec{c}}}
		sb := h.create(task)
		h.start(task, "main")
		h.wait(task, "main")
		out := strings.ReplaceAll(h.output(task, "main"), "\t", " ")
		for _, want := range []string{"127.0.0.1 localhost", "10.1.2.3 db", "10.1.2.4 all", sb.Address + " web1", "nameserver 10.9.8.7", "search local", "\nweb1\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in %q", want, out)
			}
		}
		h.Remove(ctx, task.ID)
	})

	t.Run("StopSignals", func(t *testing.T) {
		task, _ := h.task("none", command("wait"))
		h.start(task, "main")
		h.until(task, "main", "waiting")
		if err := h.Stop(ctx, task.ID, "main", time.Minute); err != nil {
			t.Fatal(err)
		}
		if e, out := h.wait(task, "main"), h.output(task, "main"); e.Code != 0 || !strings.Contains(out, "got terminated") {
			t.Errorf("exit = %+v, output %q", e, out)
		}
		h.Remove(ctx, task.ID)

		c := command("wait")
		c.StopSignal = "SIGQUIT"
		task, _ = h.task("none", c)
		h.start(task, "main")
		h.until(task, "main", "waiting")
		if err := h.Stop(ctx, task.ID, "main", time.Minute); err != nil {
			t.Fatal(err)
		}
		if out := h.output(task, "main"); !strings.Contains(out, "got quit") {
			t.Errorf("output %q", out)
		}
		h.Remove(ctx, task.ID)
	})

	t.Run("StopKills", func(t *testing.T) {
		task, _ := h.task("none", command("ignore"))
		h.start(task, "main")
		h.until(task, "main", "ignoring")
		begin := time.Now()
		if err := h.Stop(ctx, task.ID, "main", 300*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d < 300*time.Millisecond {
			t.Errorf("killed after %v", d)
		}
		if e := h.wait(task, "main"); e.Code != 137 || e.OOM {
			t.Errorf("exit = %+v", e)
		}
		h.Remove(ctx, task.ID)
	})

	t.Run("OutOfMemory", func(t *testing.T) {
		c := command("alloc", "200")
		c.MemoryMib = 32
		e, _ := h.run(c)
		if e.Code != 137 || !e.OOM || e.Reason != "OutOfMemoryError: Container killed due to memory usage" {
			t.Errorf("exit = %+v", e)
		}
		c = command("alloc", "20")
		c.MemoryMib = 64
		if e, _ := h.run(c); e.Code != 0 || e.OOM {
			t.Errorf("within the limit: %+v", e)
		}
	})

	t.Run("ReadOnlyRoot", func(t *testing.T) {
		c := command("write", "/tmp/x", "y")
		c.ReadonlyRoot = true
		if e, out := h.run(c); e.Code == 0 || !strings.Contains(out, "read-only file system") {
			t.Errorf("exit = %+v, output %q", e, out)
		}
	})

	t.Run("Confined", func(t *testing.T) {
		if _, out := h.run(command("try-mount")); !strings.Contains(out, "operation not permitted") && !strings.Contains(out, "permission denied") {
			t.Errorf("mount within a container: %q", out)
		}
	})
}
