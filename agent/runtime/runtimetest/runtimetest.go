// Package runtimetest is the contract of runtime.Driver as a test suite: lifecycle.go is what every driver owes, the fake
// one included; the other files look at real processes, files, addresses and logs. It builds its images itself and serves
// them from a registry in the test's process, so that it needs no network and no installed image.
package runtimetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/id"
	"github.com/seed-2f228079/neargate/internal/ociclient"
	"github.com/seed-2f228079/neargate/internal/ociclient/ocitest"
)

// Factory opens the driver on a folder. Opened again on the same folder it must find what it had there.
type Factory func(dir string) (runtime.Driver, error)

// Features say what a driver can show.
type Features struct {
	// Processes: containers are real processes with files, addresses and logs. Without it only the lifecycle is tested.
	Processes bool
	// SurvivesKill: tasks run on when the driver's process dies; needs Main in the package's TestMain.
	SurvivesKill bool
	// SendsLogs: log drivers are the driver's own. With those of an engine of Docker, a receiver that takes nothing keeps the container from ending.
	SendsLogs bool
	// Leftovers lists what the driver has in the kernel and on disk for its tasks; the suite wants none after the last Remove and
	// Close. nil: not checked.
	Leftovers func(t *testing.T, dir string) []string
	// Unfinished lists what interrupted work left in the folder of a driver that has recovered; nil: not checked.
	Unfinished func(t *testing.T, dir string) []string
}

// Run runs the suite. Every test opens a driver of its own.
func Run(t *testing.T, open Factory, f Features) {
	s := &suite{open: open, features: f}
	t.Run("Lifecycle", s.lifecycle)
	if f.Processes {
		t.Run("Process", s.process)
		t.Run("Exec", s.exec)
		t.Run("ExecSession", s.session)
		t.Run("Restart", s.restart)
		t.Run("Secrets", s.secrets)
		t.Run("Confine", s.confine)
		t.Run("Network", s.network)
		t.Run("Intercept", s.intercept)
		t.Run("Faults", s.faults)
		t.Run("Volume", s.volume)
		t.Run("Stats", s.stats)
		t.Run("LinkLocal", s.linkLocal)
		t.Run("InstanceMetadata", s.instanceMetadata)
		t.Run("Logs", s.logs)
		t.Run("Pull", s.pull)
	}
	if f.SurvivesKill {
		t.Run("Recovery", s.recovery)
		t.Run("Killed", s.killed)
	}
}

type suite struct {
	open     Factory
	features Features
}

// host is a driver under test with a registry that holds the images it runs.
type host struct {
	t testing.TB
	runtime.Driver
	Dir      string
	Registry *ocitest.Registry
	Image    string // prog with an entry point
}

// host opens a driver in a folder of its own. When the test ends everything is removed and nothing may be left.
func (s *suite) host(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, Dir: t.TempDir(), Registry: ocitest.New(t)}
	h.Image = h.Registry.Push(t, "prog:1", ocitest.Image(t, ProgConfig, ProgLayer(t)))
	d, err := s.open(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	h.Driver = d
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := h.Driver.Close(ctx, true); err != nil {
			t.Errorf("close: %v", err)
		}
		if s.features.Leftovers != nil {
			for _, l := range s.features.Leftovers(t, h.Dir) {
				t.Errorf("left behind: %s", l)
			}
		}
	})
	if _, err := d.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h
}

// ProgConfig runs the suite's program.
var ProgConfig = ociclient.Config{Entrypoint: []string{"/prog"}, Cmd: []string{"wait"}, Env: []string{"PATH=/bin:/", "FROM_IMAGE=yes"}, ExposedPorts: []string{"80/tcp"}}

var prog struct {
	sync.Once
	body []byte
	err  error
}

// Prog is the suite's program, a static linux binary, built once per test process.
func Prog(t testing.TB) []byte {
	t.Helper()
	prog.Do(func() {
		dir, err := os.MkdirTemp("", "runtimetest")
		if err != nil {
			prog.err = err
			return
		}
		defer os.RemoveAll(dir)
		out := filepath.Join(dir, "prog")
		c := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "github.com/seed-2f228079/neargate/agent/runtime/runtimetest/prog")
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
		if b, err := c.CombinedOutput(); err != nil {
			prog.err = fmt.Errorf("build prog: %w: %s", err, b)
			return
		}
		prog.body, prog.err = os.ReadFile(out)
	})
	if prog.err != nil {
		t.Fatal(prog.err)
	}
	return prog.body
}

// ProgLayer holds the program and the files that the tests look for.
func ProgLayer(t testing.TB) []ociclient.File {
	return []ociclient.File{
		ociclient.Executable("prog", Prog(t)),
		ociclient.Dir("tmp", 0o1777), ociclient.Dir("etc", 0o755), ociclient.Dir("data", 0o755),
		ociclient.Text("data/from-image", "image\n"),
		ociclient.Text("etc/passwd", "root:x:0:0::/root:/\nalice:x:1000:1001::/home/alice:/\n"),
		ociclient.Text("etc/group", "root:x:0:\nstaff:x:1001:\naudio:x:29:alice\n"),
	}
}

// TaskID makes a task id.
func TaskID() string { return id.Hex(rand.Reader, 32) }

// task pulls the image and creates a task of the given containers; an empty image means h.Image.
func (h *host) task(mode string, containers ...*agentapi.ContainerSpec) (runtime.Task, runtime.Sandbox) {
	h.t.Helper()
	task := h.newTask(mode, containers...)
	return task, h.create(task)
}

// newTask is a task that is not created yet.
func (h *host) newTask(mode string, containers ...*agentapi.ContainerSpec) runtime.Task {
	task := runtime.Task{ID: TaskID(), Spec: &agentapi.TaskSpec{Account: "000000000000", Region: "us-east-1", Cluster: "default",
		Family: "test", Revision: 1, NetworkMode: mode, Containers: containers}}
	for _, c := range containers {
		if c.Name == "" {
			c.Name = "main"
		}
		if c.Image == "" {
			c.Image = h.Image
		}
	}
	return task
}

func (h *host) create(task runtime.Task) runtime.Sandbox {
	h.t.Helper()
	ctx := context.Background()
	for _, c := range task.Spec.Containers {
		if _, err := h.Pull(ctx, runtime.PullRequest{Image: c.Image, User: h.Registry.Cred.User, Password: h.Registry.Cred.Password}); err != nil {
			h.t.Fatalf("pull %s: %v", c.Image, err)
		}
	}
	sb, err := h.Create(ctx, task)
	if err != nil {
		h.t.Fatalf("create: %v", err)
	}
	return sb
}

func (h *host) start(task runtime.Task, container string) runtime.Started {
	h.t.Helper()
	s, err := h.Start(context.Background(), task.ID, container)
	if err != nil {
		h.t.Fatalf("start %s: %v", container, err)
	}
	return s
}

func (h *host) wait(task runtime.Task, container string) runtime.Exit {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	e, err := h.Wait(ctx, task.ID, container)
	if err != nil {
		h.t.Fatalf("wait %s: %v", container, err)
	}
	return e
}

// run runs one container with the given command to its end.
func (h *host) run(c *agentapi.ContainerSpec) (runtime.Exit, string) {
	h.t.Helper()
	task, _ := h.task("none", c)
	h.start(task, c.Name)
	e := h.wait(task, c.Name)
	out := h.output(task, c.Name)
	if err := h.Remove(context.Background(), task.ID); err != nil {
		h.t.Fatalf("remove: %v", err)
	}
	return e, out
}

// output is everything written so far.
func (h *host) output(task runtime.Task, container string) string {
	h.t.Helper()
	lines := h.lines(task, container, runtime.LogOptions{})
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.Text)
		if !l.Partial {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func (h *host) lines(task runtime.Task, container string, opt runtime.LogOptions) []runtime.LogLine {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := h.Logs(ctx, task.ID, container, opt)
	if err != nil {
		h.t.Fatalf("logs: %v", err)
	}
	defer r.Close()
	var out []runtime.LogLine
	for {
		l, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			h.t.Fatalf("logs: %v", err)
		}
		out = append(out, l)
	}
}

// until waits for the container to print a line that has the text.
func (h *host) until(task runtime.Task, container, text string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := h.Logs(ctx, task.ID, container, runtime.LogOptions{Follow: true})
	if err != nil {
		h.t.Fatalf("logs: %v", err)
	}
	defer r.Close()
	var seen []string
	for {
		l, err := r.Next()
		if err != nil {
			h.t.Fatalf("waiting for %q: %v after %q", text, err, seen)
		}
		if strings.Contains(l.Text, text) {
			return
		}
		seen = append(seen, l.Text)
	}
}

func command(words ...string) *agentapi.ContainerSpec {
	return &agentapi.ContainerSpec{Name: "main", Command: words, CommandSet: true}
}
