//go:build linux && cgo

package native

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
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
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
	"golang.org/x/sys/unix"

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
				if b, err := os.ReadFile(filepath.Join(d.taskFolder(in), "shim.log")); err != nil || len(b) > 0 {
					t.Errorf("the shim says: %s, %v", b, err)
				}
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
					if !slices.ContainsFunc([]string{"Vm", "Rss", "SigPnd:", "ShdPnd:", "voluntary_", "nonvoluntary_", "Threads:", "State:", "SigQ:", "Mems", "x86_Thread", "HugetlbPages:"}, varies) {
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
		emptyPool(t, d)
	}
}

// emptyPool has nothing wait, and nothing made before the next task.
func emptyPool(t *testing.T, d *Driver) {
	t.Helper()
	eventually(t, "the pool is empty", func() bool {
		d.warm.mu.Lock()
		clear(d.warm.kept)
		d.warm.mu.Unlock()
		d.warm.starting()()
		return len(d.warm.waiting()) == 0
	})
}

// ready has a sandbox wait for tasks of this image, and gives it.
func ready(t *testing.T, d *Driver, image string) *task {
	t.Helper()
	before := newTask(image, "exit", "0")
	before.Spec.Containers[0].Environment = map[string]string{"OF": "the-first"}
	launch(t, d, before)
	finish(t, d, before)
	awaitWarm(t, d, 1)
	return d.warm.waiting()[0].sandbox
}

// heldPID is the process that waits in a sandbox's container.
func heldPID(t *testing.T, d *Driver, box *task) int {
	t.Helper()
	m, err := manager.New(&cgroups.Cgroup{Path: d.taskCgroup(box.box) + "/main", Resources: &cgroups.Resources{SkipDevices: true}})
	if err != nil {
		t.Fatal(err)
	}
	pids, err := m.GetPids()
	if err != nil || len(pids) != 1 {
		t.Fatalf("in the container are %v, %v", pids, err)
	}
	return pids[0]
}

// The program that waited is the task's, under the same process id, and what waits has nothing of those before.
func TestWarmProcessBecomesTheProgram(t *testing.T) {
	d, image := warmDriver(t, Config{Warm: 1})
	box := ready(t, d, image)
	held := heldPID(t, d, box)
	for _, file := range []string{"environ", "cmdline"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", held, file))
		if err != nil || strings.Contains(string(b), "the-first") {
			t.Errorf("%s of what waits: %q, %v", file, b, err)
		}
	}
	err := filepath.WalkDir(box.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), "the-first") {
			t.Errorf("%s has what was the first task's", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	task := newTask(image, "wait")
	_, started := launch(t, d, task)
	if started.PID != held {
		t.Errorf("what waited is process %d, the program %d", held, started.PID)
	}
	untilPrinted(t, d, task.ID, "waiting")
	if err := d.Stop(t.Context(), task.ID, "main", patience); err != nil {
		t.Fatal(err)
	}
	if e, out := finish(t, d, task); e.Code != 0 || out != "waiting\ngot terminated\n" {
		t.Errorf("%+v, %q", e, out)
	}
}

// Whatever is wrong with what was made ahead, the task starts, or fails with the words of any other.
func TestWarmFallsBackToCold(t *testing.T) {
	d, image := warmDriver(t, Config{Warm: 1})
	kill := func(pid int) {
		t.Helper()
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for name, harm := range map[string]func(*task){
		"what waited is dead": func(box *task) { kill(heldPID(t, d, box)) },
		"its shim is dead": func(box *task) {
			kill(box.shim)
			eventually(t, "it is gone", func() bool {
				_, err := box.call(t.Context(), shimRequest{Op: "status"}, nil)
				return errors.Is(err, errNoShim)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			harm(ready(t, d, image))
			task := newTask(image, "print", "up")
			launch(t, d, task)
			if e, out := finish(t, d, task); e.Code != 0 || out != "up\n" {
				t.Errorf("%+v, %q", e, out)
			}
			emptyPool(t, d)
		})
	}
	t.Run("no such program", func(t *testing.T) {
		var reasons [2]string
		for i := range reasons {
			if i == 1 {
				ready(t, d, image)
			}
			task := newTask(image)
			task.Spec.Containers[0].EntryPoint = []string{"nowhere"}
			if _, err := d.Create(t.Context(), task); err != nil {
				t.Fatal(err)
			}
			_, err := d.Start(t.Context(), task.ID, "main")
			var failed *runtime.StartError
			if !errors.As(err, &failed) {
				t.Fatalf("started: %v", err)
			}
			reasons[i] = failed.Reason
			if e, err := d.Wait(t.Context(), task.ID, "main"); err != nil || e.Code != 127 {
				t.Errorf("%+v, %v", e, err)
			}
			if err := d.Remove(t.Context(), task.ID); err != nil {
				t.Fatal(err)
			}
		}
		if reasons[0] != reasons[1] {
			t.Errorf("%q, and after waiting %q", reasons[0], reasons[1])
		}
	})
}

// A task that took a sandbox over is found again by the next process, which knows it by its own name.
func TestWarmTaskIsAdopted(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Warm: 1, Shim: staticShim(t)}
	d := openDriver(t, cfg)
	image := pullProg(t, d)
	before := newTask(image, "exit", "0")
	launch(t, d, before)
	in, err := d.task(before.ID)
	if err != nil {
		t.Fatal(err)
	}
	finish(t, d, before)
	for range 2 { // one to take, and one to wait when the process goes
		if err := d.makeWarm(t.Context(), in.shape); err != nil {
			t.Fatal(err)
		}
	}
	task := newTask(image, "serve", ":80", "alive")
	task.Spec.Containers[0].Ports = []*agentapi.PortMapping{{ContainerPort: 80, Protocol: "tcp"}}
	box, started := launch(t, d, task)
	awaitWarm(t, d, 1)
	if err := d.Close(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	next := openDriver(t, cfg)
	for range 2 {
		got, err := next.Recover(t.Context())
		if err != nil || len(got) != 1 || got[0].Task.ID != task.ID || got[0].Containers["main"].Started.PID != started.PID || got[0].Sandbox.Address != box.Address {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(cfg.Dir, "tasks", "*")); err != nil || len(left) != 1 {
		t.Errorf("folders: %q, %v", left, err)
	}
	if answer := httpGet(t, fmt.Sprintf("http://127.0.0.1:%d", box.Ports["main"][0].HostPort)); !strings.HasPrefix(answer, "alive ") {
		t.Errorf("it answers %q", answer)
	}
	if _, err := next.Stats(t.Context(), task.ID, "main"); err != nil {
		t.Error(err)
	}
	if err := next.Stop(t.Context(), task.ID, "main", patience); err != nil {
		t.Fatal(err)
	}
	finish(t, next, task)
}

// Nothing is left of what waits once KeepWarm has ended, nor, at the next start, of what waited for a process that was killed.
func TestWarmLeavesNothing(t *testing.T) {
	d, image := warmDriver(t, Config{Warm: 2})
	first, before := newTask(image, "exit", "0"), newTask(image, "exit", "0")
	launch(t, d, first)
	finish(t, d, first)
	emptyPool(t, d)
	holding := hold(t, d, 0)
	launch(t, d, before)
	finish(t, d, before)
	awaitWarm(t, d, 2)
	if more := hold(t, d, 0); more.Processes == holding.Processes {
		t.Errorf("nothing waits: %+v", more)
	}
	emptyPool(t, d)
	settles(t, holding, func() holdings { return hold(t, d, 0) })
	for _, task := range []runtime.Task{first, before} {
		if err := d.RemoveLogs(t.Context(), task.ID); err != nil {
			t.Error(err)
		}
	}

	cfg, registry := d.cfg, image
	if err := d.Close(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	shimFile := filepath.Join(t.TempDir(), "shim")
	if err := os.WriteFile(shimFile, []byte(cfg.Shim), 0o600); err != nil {
		t.Fatal(err)
	}
	child := exec.Command("/proc/self/exe")
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s", warmChild, cfg.Dir, registry, shimFile))
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	child.Process.Kill()
	child.Wait()
	if err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	next := openDriver(t, Config{Dir: cfg.Dir, Shim: cfg.Shim})
	if got, err := next.Recover(t.Context()); err != nil || len(got) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if err := next.Close(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	for _, l := range leftovers(t, cfg.Dir) {
		t.Errorf("left behind: %s", l)
	}
}

const warmChild = "NEARGATE_WARMTEST"

// runWarmChild is a process that has a task in a sandbox that was made ahead, and others waiting, until it is killed.
func runWarmChild(told string) error {
	f := strings.Fields(told)
	shim, err := os.ReadFile(f[2])
	if err != nil {
		return err
	}
	d, err := New(Config{Dir: f[0], Warm: 2, Shim: string(shim)})
	if err != nil {
		return err
	}
	ctx := context.Background()
	go d.KeepWarm(ctx)
	if _, err := d.Pull(ctx, runtime.PullRequest{Image: f[1]}); err != nil {
		return err
	}
	for i := range 2 {
		task := newTask(f[1], "wait")
		if _, err := d.Create(ctx, task); err != nil {
			return err
		}
		if _, err := d.Start(ctx, task.ID, "main"); err != nil {
			return err
		}
		if i == 0 {
			if err := d.Remove(ctx, task.ID); err != nil {
				return err
			}
		}
		for len(d.warm.waiting()) < 2 {
			time.Sleep(5 * time.Millisecond)
		}
	}
	fmt.Println("ready")
	select {}
}

// An image for which something waits is in use; once nothing does, it may go.
func TestWarmHoldsItsImage(t *testing.T) {
	d, image := warmDriver(t, Config{Warm: 1})
	ready(t, d, image)
	if gone, err := d.CleanImages(t.Context(), runtime.Cleanup{}); err != nil || len(gone) != 0 {
		t.Errorf("removed %q, %v", gone, err)
	}
	emptyPool(t, d)
	eventually(t, "the image is removed", func() bool {
		gone, err := d.CleanImages(t.Context(), runtime.Cleanup{})
		if err != nil {
			t.Fatal(err)
		}
		return slices.Equal(gone, []string{image})
	})
}

func TestShapes(t *testing.T) {
	rec := taskRecord{Images: map[string]imageRecord{"main": {Digest: "sha256:a", Reference: "r:1"}}}
	key := func(change func(*agentapi.TaskSpec, *agentapi.ContainerSpec)) string {
		task := newTask("r:1", "a")
		change(task.Spec, task.Spec.Containers[0])
		s := shapeOf(rec, task)
		if s == nil {
			return "none"
		}
		return s.key
	}
	type spec = *agentapi.TaskSpec
	type container = *agentapi.ContainerSpec
	plain := key(func(spec, container) {})
	for name, change := range map[string]func(spec, container){
		"family":      func(s spec, _ container) { s.Family, s.Revision, s.Service, s.Account = "f", 2, "s", "000000000001" },
		"role":        func(s spec, _ container) { s.TaskRole, s.HasSecrets = "arn", true },
		"command":     func(_ spec, c container) { c.Command, c.EntryPoint = []string{"b"}, []string{"c"} },
		"environment": func(_ spec, c container) { c.Environment = map[string]string{"a": "b"} },
		"port":        func(_ spec, c container) { c.Ports = []*agentapi.PortMapping{{ContainerPort: 80, HostPort: 8080}} },
		"log":         func(_ spec, c container) { c.Log = &agentapi.LogConfiguration{Driver: "awslogs"} },
		"health":      func(_ spec, c container) { c.HealthCheck = &agentapi.ContainerCheck{Command: []string{"CMD", "x"}} },
	} {
		if key(change) != plain {
			t.Errorf("another %s makes another shape", name)
		}
	}
	for name, change := range map[string]func(spec, container){
		"memory":          func(_ spec, c container) { c.MemoryMib = 5 },
		"task's limit":    func(s spec, _ container) { s.CpuUnits = 256 },
		"user":            func(_ spec, c container) { c.User = "alice" },
		"network":         func(s spec, _ container) { s.NetworkMode = "awsvpc" },
		"security groups": func(s spec, _ container) { s.SecurityGroups = []string{"sg"} },
		"capabilities":    func(_ spec, c container) { c.DropCapabilities = []string{"ALL"} },
		"read-only root":  func(_ spec, c container) { c.ReadonlyRoot = true },
		"volume": func(s spec, c container) {
			s.Volumes, c.Mounts = []*agentapi.VolumeSpec{{Name: "v"}}, []*agentapi.MountPoint{{Volume: "v", ContainerPath: "/v"}}
		},
	} {
		if k := key(change); k == plain || k == "none" {
			t.Errorf("another %s: %s", name, k)
		}
	}
	for name, change := range map[string]func(spec, container){
		"host network":   func(s spec, _ container) { s.NetworkMode = "host" },
		"process ids":    func(s spec, _ container) { s.PidMode = "task" },
		"host folder":    func(s spec, _ container) { s.Volumes = []*agentapi.VolumeSpec{{Name: "v", HostPath: "/x"}} },
		"shared volume":  func(s spec, _ container) { s.Volumes = []*agentapi.VolumeSpec{{Name: "v", Scope: "shared"}} },
		"secret files":   func(_ spec, c container) { c.SecretFiles = "/run/secrets" },
		"terminal":       func(_ spec, c container) { c.PseudoTerminal = true },
		"init":           func(_ spec, c container) { c.InitProcess = true },
		"privileged":     func(_ spec, c container) { c.Privileged = true },
		"own disk space": func(s spec, _ container) { s.EphemeralStorageMib = 64 },
	} {
		if k := key(change); k != "none" {
			t.Errorf("%s is made ahead", name)
		}
	}
	rec.Images["main"] = imageRecord{Digest: "sha256:b", Reference: "r:1"}
	if key(func(spec, container) {}) == plain {
		t.Error("another image makes no other shape")
	}
}

// The shapes used last have sandboxes, one of each before a second of any, as far as the memory goes; those long unused have none.
func TestWarmPoolKeepsWithinItsBounds(t *testing.T) {
	p := newPool(Config{Warm: 2, WarmMemory: 50 << 20})
	now := time.Now()
	for i, key := range []string{"a", "b", "c", "old", "broken"} {
		p.kept[key] = &keptShape{shape: &shape{key: key}, used: now.Add(-time.Duration(i) * time.Second), cost: 12 << 20}
	}
	p.kept["old"].used = now.Add(-warmIdle - time.Second)
	p.kept["broken"].failed = now
	if got, want := p.wanted(now), map[string]int{"a": 2, "b": 1, "c": 1}; !maps.Equal(got, want) {
		t.Errorf("wanted %v, not %v", got, want)
	}
	if p.kept["old"] != nil {
		t.Error("what is long unused is remembered")
	}
	// A task that runs keeps its shape in use.
	p.of["task"] = "c"
	if got, want := p.wanted(now.Add(warmIdle+time.Second)), map[string]int{"c": 2}; !maps.Equal(got, want) {
		t.Errorf("later wanted %v, not %v", got, want)
	}
}

func untilPrinted(t *testing.T, d *Driver, id, line string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	defer cancel()
	r, err := d.Logs(ctx, id, "main", runtime.LogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		l, err := r.Next()
		if err != nil {
			t.Fatal(errors.Join(errors.New("waiting for "+line), err))
		}
		if l.Text == line {
			return
		}
	}
}
