//go:build linux && cgo

package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// warmDriver keeps sandboxes ready until the test ends.
func warmDriver(t *testing.T, cfg Config) (*Driver, string) {
	t.Helper()
	cfg.Dir, cfg.Shim = t.TempDir(), staticShim(t)
	d := openDriver(t, cfg)
	keepWarm(t, d)
	return d, pullProg(t, d)
}

var released struct {
	sync.Once
	content string
	err     error
}

// staticShim is cmd/neargate-shim as a release has it, built once in the test's process: what waits in a container needs a program that finds all in itself.
func staticShim(t testing.TB) string {
	t.Helper()
	released.Do(func() {
		tags, err := os.ReadFile("../../../scripts/tags")
		if err != nil {
			released.err = err
			return
		}
		dir, err := os.MkdirTemp("", "shim")
		if err != nil {
			released.err = err
			return
		}
		defer os.RemoveAll(dir)
		built := filepath.Join(dir, "shim")
		build := exec.Command("go", "build", "-tags", strings.TrimSpace(string(tags)), "-ldflags", `-s -w -extldflags "-static"`, "-o", built, "github.com/seed-2f228079/neargate/cmd/neargate-shim")
		if out, err := build.CombinedOutput(); err != nil {
			released.err = fmt.Errorf("build the shim: %w: %s", err, out)
			return
		}
		content, err := exec.Command("gzip", "-1c", built).Output()
		released.content, released.err = string(content), err
	})
	if released.err != nil {
		t.Fatal(released.err)
	}
	return released.content
}

// keepWarm runs KeepWarm; what it returns ends it.
func keepWarm(t *testing.T, d *Driver) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.KeepWarm(ctx) }()
	ended := false
	end = func() {
		if cancel(); ended {
			return
		}
		ended = true
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	return end
}

func awaitWarm(t *testing.T, d *Driver, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d sandboxes wait", n), func() bool { return len(d.warm.waiting()) == n })
}

func launch(t *testing.T, d *Driver, task runtime.Task) (runtime.Sandbox, runtime.Started) {
	t.Helper()
	box, err := d.Create(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	started, err := d.Start(t.Context(), task.ID, "main")
	if err != nil {
		t.Fatal(err)
	}
	return box, started
}

// finish waits for the task's end, removes it and gives what it wrote.
func finish(t *testing.T, d *Driver, task runtime.Task) (runtime.Exit, string) {
	t.Helper()
	e, err := d.Wait(t.Context(), task.ID, "main")
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Logs(t.Context(), task.ID, "main", runtime.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out strings.Builder
	for {
		l, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString(l.Text + "\n")
	}
	if err := d.Remove(t.Context(), task.ID); err != nil {
		t.Fatal(err)
	}
	return e, out.String()
}

// boxOf is what a task's sandbox is called.
func boxOf(t *testing.T, d *Driver, id string) string {
	t.Helper()
	in, err := d.task(id)
	if err != nil {
		t.Fatal(err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.box
}

// A task takes over what was made for one like it, and what it finds there is its own and not the other's: arguments, environment, host
// ports, address, log.
func TestWarmTaskHasItsOwnIdentity(t *testing.T) {
	d, image := warmDriver(t, Config{Warm: 1})
	before := newTask(image, "print", "first")
	before.Spec.Containers[0].Environment = map[string]string{"SECRET": "of the first"}
	launch(t, d, before)
	finish(t, d, before)
	awaitWarm(t, d, 1)

	task := newTask(image, "args", "then", "env", "then", "hostname", "then", "cat", "/etc/hosts", "then", "serve", ":80", "warm")
	c := task.Spec.Containers[0]
	c.Environment = map[string]string{"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/" + task.ID}
	c.Ports = []*agentapi.PortMapping{{ContainerPort: 80, Protocol: "tcp"}}
	box, err := d.Create(t.Context(), task)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Confide(t.Context(), task.ID, map[string]runtime.Secrets{"main": {Environment: map[string]string{"PASSWORD": "hunter2"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Start(t.Context(), task.ID, "main"); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(d.taskFolder(boxOf(t, d, task.ID)), "shim.log")); len(b) > 0 {
		t.Errorf("the shim says: %s", b)
	}
	if name := boxOf(t, d, task.ID); !strings.HasPrefix(name, warmPrefix) {
		t.Fatalf("it started cold, in %s", name)
	}
	port := box.Ports["main"][0].HostPort
	if port == 0 {
		t.Fatal("no host port")
	}
	if answer := httpGet(t, fmt.Sprintf("http://127.0.0.1:%d", port)); !strings.HasPrefix(answer, "warm ") {
		t.Errorf("the host port answers %q", answer)
	}
	if _, err := bindPort("tcp", uint16(port)); err == nil {
		t.Error("nobody holds the host port")
	}
	awaitWarm(t, d, 1) // another is made in its place
	if err := d.Stop(t.Context(), task.ID, "main", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	_, out := finish(t, d, task)
	host := "ip-" + strings.ReplaceAll(box.Address, ".", "-")
	for _, line := range []string{
		`["/prog" "args" "then"`, "ECS_CONTAINER_METADATA_URI_V4=http://169.254.170.2/v4/" + task.ID, "PASSWORD=hunter2", "HOSTNAME=" + host, "HOME=/root", "FROM_IMAGE=yes",
		"\n" + host + "\n", box.Address + "\t" + host,
	} {
		if !strings.Contains(out, line) {
			t.Errorf("no %q in %q", line, out)
		}
	}
	for _, line := range []string{"of the first", heldVariable} {
		if strings.Contains(out, line) {
			t.Errorf("%q in %q", line, out)
		}
	}
	if left, err := filepath.Glob(filepath.Join(d.cfg.Dir, "logs", warmPrefix+"*")); err != nil || len(left) != 0 {
		t.Errorf("logs of what waited: %q, %v", left, err)
	}
}

func httpGet(t *testing.T, url string) (answer string) {
	t.Helper()
	eventually(t, url+" answers", func() bool {
		resp, err := http.Get(url)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		answer = string(b)
		return err == nil
	})
	return answer
}

// What a program can see of its confinement is the same, whether its container was made ahead or not.
func TestWarmIsAsConfinedAsCold(t *testing.T) {
	d, image := warmDriver(t, Config{Warm: 1})
	for name, change := range map[string]func(*agentapi.ContainerSpec){
		"as it comes": func(*agentapi.ContainerSpec) {},
		"much of it": func(c *agentapi.ContainerSpec) {
			c.User, c.NoNewPrivileges, c.ReadonlyRoot, c.WorkingDirectory = "alice", true, true, "/data"
			c.DropCapabilities, c.MemoryMib, c.CpuUnits, c.Hostname = []string{"CHOWN"}, 64, 256, "given"
			c.Ulimits = []*agentapi.Ulimit{{Name: "nofile", Soft: 600, Hard: 600}}
			c.Tmpfs = []*agentapi.Tmpfs{{ContainerPath: "/data/inner", SizeMib: 1}}
			c.Sysctls = map[string]string{"net.ipv4.ip_unprivileged_port_start": "7"}
		},
		"of another user, with more rights": func(c *agentapi.ContainerSpec) { c.User, c.AddCapabilities = "1000:29", []string{"NET_ADMIN"} },
	} {
		t.Run(name, func(t *testing.T) {
			var seen [2]string
			for i := range seen {
				task := newTask(image, "cat", "/proc/self/status", "then", "cat", "/proc/self/limits", "then", "cat", "/proc/self/mountinfo", "then", "cat", "/proc/self/cgroup",
					"then", "ls", "/proc/self/fd", "then", "id", "then", "pwd", "then", "env", "then", "hostname", "then", "try-mount", "then", "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start")
				change(task.Spec.Containers[0])
				box, _ := launch(t, d, task)
				in := boxOf(t, d, task.ID)
				if strings.HasPrefix(in, warmPrefix) != (i == 1) {
					t.Fatalf("start %d was in %s", i, in)
				}
				e, out := finish(t, d, task)
				if e.Code != 0 {
					t.Fatalf("%+v %q", e, out)
				}
				out = strings.NewReplacer(in, "BOX", box.Address, "ADDRESS", strings.ReplaceAll(box.Address, ".", "-"), "ADDRESS").Replace(out)
				var lines []string
				for line := range strings.Lines(out) {
					if f := strings.Fields(line); len(f) > 6 && strings.Contains(line, " - ") { // of mountinfo: without the numbers of mounts and devices
						line = strings.Join(f[3:], " ")
					}
					varies := func(prefix string) bool { return strings.HasPrefix(line, prefix) }
					if !slices.ContainsFunc([]string{"Vm", "Rss", "voluntary_", "nonvoluntary_", "Threads:", "State:", "SigQ:", "Mems", "x86_Thread", "HugetlbPages:"}, varies) {
						lines = append(lines, line)
					}
				}
				seen[i] = strings.Join(lines, "\n")
				awaitWarm(t, d, 1)
			}
			if diff := cmp.Diff(seen[0], seen[1]); diff != "" {
				t.Error(diff)
			}
			if !strings.Contains(seen[1], "Seccomp:\t2") {
				t.Error("no seccomp")
			}
		})
		eventually(t, "the pool is empty again", func() bool {
			d.warm.mu.Lock()
			clear(d.warm.kept)
			d.warm.mu.Unlock()
			d.warm.starting()()
			return len(d.warm.waiting()) == 0
		})
	}
}
