package runtimetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// confine looks from inside of containers at what their specs ask of the kernel.
func (s *suite) confine(t *testing.T) {
	ctx := context.Background()
	h := s.host(t)
	one := func(t *testing.T, change func(*agentapi.ContainerSpec), words ...string) string {
		t.Helper()
		c := command(words...)
		change(c)
		_, out := h.run(c)
		return out
	}
	want := func(t *testing.T, out string, lines ...string) {
		t.Helper()
		for _, l := range lines {
			if !strings.Contains(out, l) {
				t.Errorf("no %q in %q", l, out)
			}
		}
	}

	const chown, netBind, sysChroot = 1 << 0, 1 << 10, 1 << 18
	for name, c := range map[string]struct {
		add, drop []string
		has, not  uint64
	}{
		"default":          {nil, nil, chown | netBind | sysChroot, 0},
		"dropped":          {nil, []string{"CHOWN"}, netBind | sysChroot, chown},
		"all dropped":      {nil, []string{"ALL"}, 0, chown | netBind | sysChroot},
		"all but one":      {[]string{"SYS_CHROOT"}, []string{"ALL"}, sysChroot, chown | netBind},
		"beyond Docker's":  {[]string{"NET_ADMIN"}, nil, 1<<12 | chown, 1 << 21},
		"all, and dropped": {[]string{"ALL"}, []string{"CHOWN"}, 1<<12 | 1<<21, chown},
	} {
		t.Run("Capabilities/"+name, func(t *testing.T) {
			out := one(t, func(s *agentapi.ContainerSpec) { s.AddCapabilities, s.DropCapabilities = c.add, c.drop }, "cat", "/proc/self/status")
			for _, set := range []string{"CapEff", "CapBnd"} {
				if got, err := strconv.ParseUint(statusField(out, set), 16, 64); err != nil || got&c.has != c.has || got&c.not != 0 {
					t.Errorf("%s is %x (%v)", set, got, err)
				}
			}
		})
	}

	t.Run("NoNewPrivileges", func(t *testing.T) {
		for asked, is := range map[bool]string{false: "0", true: "1"} {
			out := one(t, func(c *agentapi.ContainerSpec) { c.NoNewPrivileges = asked }, "cat", "/proc/self/status")
			if got := statusField(out, "NoNewPrivs"); got != is {
				t.Errorf("asked %v, got %s", asked, got)
			}
		}
	})

	t.Run("Ulimits", func(t *testing.T) {
		out := one(t, func(c *agentapi.ContainerSpec) {
			c.Ulimits = []*agentapi.Ulimit{
				{Name: "nofile", Soft: 600, Hard: 600}, {Name: "core", Soft: 0, Hard: 4096},
				{Name: "nproc", Soft: 100, Hard: 1 << 40}, // more than the host may give: clamped, not refused
			}
		}, "cat", "/proc/self/limits")
		// Go's own programs raise their soft limit of open files; so the test sets both to one.
		fields := map[string][]string{}
		for line := range strings.Lines(out) {
			if len(line) > 26 {
				fields[strings.TrimSpace(line[:26])] = strings.Fields(line[26:])
			}
		}
		for name, is := range map[string][2]string{"Max open files": {"600", "600"}, "Max core file size": {"0", "4096"}} {
			if f := fields[name]; len(f) < 2 || f[0] != is[0] || f[1] != is[1] {
				t.Errorf("%s: %q", name, f)
			}
		}
		if f := fields["Max processes"]; len(f) < 1 || f[0] != "100" {
			t.Errorf("processes: %q", f)
		}
	})

	t.Run("Tmpfs", func(t *testing.T) {
		out := one(t, func(c *agentapi.ContainerSpec) {
			c.ReadonlyRoot = true
			c.Tmpfs = []*agentapi.Tmpfs{
				{ContainerPath: "/data", SizeMib: 3, Options: []string{"defaults", "mode=711"}}, {ContainerPath: "/data/inner", SizeMib: 1, Options: []string{"ro", "exec"}},
			}
		}, "cat", "/proc/self/mountinfo", "then", "write", "/data/x", "y", "then", "cat", "/data/x")
		if !strings.HasSuffix(out, "\ny\n") {
			t.Errorf("writing gave %q", out)
		}
		outer, inner := mountOf(out, "/data"), mountOf(out, "/data/inner")
		want(t, outer, " rw,nosuid,nodev,noexec", " tmpfs ", "size=3072k", "mode=711")
		want(t, inner, " ro,nosuid,nodev,", "size=1024k")
		if strings.Contains(inner, "noexec") {
			t.Errorf("exec was asked for: %q", inner)
		}
	})

	t.Run("SharedMemory", func(t *testing.T) {
		for asked, size := range map[uint32]string{0: "size=65536k", 5: "size=5120k"} {
			out := one(t, func(c *agentapi.ContainerSpec) { c.SharedMemoryMib = asked }, "cat", "/proc/self/mountinfo")
			want(t, mountOf(out, "/dev/shm"), " tmpfs ", size)
		}
	})

	// A device that no container has by itself; whether its driver is there does not matter.
	t.Run("Devices", func(t *testing.T) {
		node := filepath.Join(t.TempDir(), "fuse")
		if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 229))); err != nil {
			t.Skip(err)
		}
		for access, refused := range map[string]bool{"rwm": false, "r": true} {
			out := one(t, func(c *agentapi.ContainerSpec) {
				c.Devices = []*agentapi.Device{{HostPath: node, ContainerPath: "/dev/own/fuse", Access: access}}
			}, "open", "/dev/own/fuse")
			if !strings.HasPrefix(out, "open: ") || strings.Contains(out, "no such file") || strings.Contains(out, "not permitted") != refused {
				t.Errorf("with %s: %q", access, out)
			}
		}
		task, _ := h.task("none", &agentapi.ContainerSpec{Name: "main", Devices: []*agentapi.Device{{HostPath: h.Dir + "/none", Access: "r"}}})
		if _, err := h.Start(ctx, task.ID, "main"); err == nil {
			t.Error("a device that does not exist was found")
		}
		h.Remove(ctx, task.ID)
	})

	t.Run("Swap", func(t *testing.T) {
		var file string
		for _, f := range []string{"/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "/sys/fs/cgroup/memory.swap.max"} {
			if _, err := os.Stat(f); err == nil {
				file = f
			}
		}
		if file == "" {
			t.Skip("the kernel does not account for swap")
		}
		for _, c := range []struct {
			swap *uint32
			mib  uint64
		}{{nil, 0}, {new(uint32(0)), 0}, {new(uint32(16)), 16}} {
			out := one(t, func(s *agentapi.ContainerSpec) { s.MemoryMib, s.MaxSwapMib = 32, c.swap }, "cat", file)
			limit := c.mib
			if strings.Contains(file, "memsw") {
				limit += 32
			}
			if out != fmt.Sprintln(limit<<20) {
				t.Errorf("with %v: %q", c.swap, out)
			}
		}
		if !strings.Contains(file, "memsw") {
			return
		}
		out := one(t, func(s *agentapi.ContainerSpec) {
			s.MemoryMib, s.MaxSwapMib, s.Swappiness = 32, new(uint32(16)), new(uint32(7))
		},
			"cat", "/sys/fs/cgroup/memory/memory.swappiness")
		if out != "7\n" {
			t.Errorf("swappiness %q", out)
		}
	})

	t.Run("Sysctls", func(t *testing.T) {
		before, err := os.ReadFile("/proc/sys/kernel/msgmni")
		if err != nil {
			t.Fatal(err)
		}
		c := command("cat", "/proc/sys/net/ipv4/ip_default_ttl", "then", "cat", "/proc/sys/kernel/msgmni", "then", "cat", "/proc/sys/fs/mqueue/queues_max")
		c.Sysctls = map[string]string{"net.ipv4.ip_default_ttl": "77", "kernel.msgmni": "123", "fs.mqueue.queues_max": "200"}
		task, _ := h.task("bridge", c)
		h.start(task, "main")
		h.wait(task, "main")
		if out := h.output(task, "main"); out != "77\n123\n200\n" {
			t.Errorf("got %q", out)
		}
		if after, _ := os.ReadFile("/proc/sys/kernel/msgmni"); string(after) != string(before) {
			t.Errorf("the host's was changed to %s", after)
		}
		h.Remove(ctx, task.ID)
	})

	t.Run("Streams", func(t *testing.T) {
		for name, c := range map[string]struct {
			interactive, terminal bool
			words                 []string
			want                  string
		}{
			"closed":      {false, false, []string{"stdin"}, "input ended"},
			"interactive": {true, false, []string{"stdin"}, "input open"},
			"terminal":    {false, true, []string{"tty"}, "/dev/stdin true\n/dev/stdout true\n/dev/stderr true"},
			"both":        {true, true, []string{"stdin", "then", "tty"}, "input open\n/dev/stdin true\n/dev/stdout true\n/dev/stderr true"},
			"none":        {false, false, []string{"tty"}, "/dev/stdin false\n/dev/stdout false\n/dev/stderr false"},
		} {
			t.Run(name, func(t *testing.T) {
				out := one(t, func(s *agentapi.ContainerSpec) { s.Interactive, s.PseudoTerminal = c.interactive, c.terminal }, c.words...)
				if got := strings.ReplaceAll(strings.TrimSpace(out), "\r", ""); got != c.want {
					t.Errorf("got %q", got)
				}
			})
		}
	})

	t.Run("NameServers", func(t *testing.T) {
		own, other := command("cat", "/etc/resolv.conf"), command("cat", "/etc/resolv.conf")
		own.DnsServers, own.DnsSearch, other.Name = []string{"10.1.1.1", "10.1.1.2"}, []string{"a.local", "b.local"}, "other"
		own.Image, other.Image = h.Image, h.Image
		task := runtime.Task{ID: TaskID(), DNSServers: []string{"10.9.9.9"}, Spec: &agentapi.TaskSpec{NetworkMode: "bridge", Containers: []*agentapi.ContainerSpec{own, other}}}
		h.create(task)
		for name, lines := range map[string][]string{"main": {"nameserver 10.1.1.1\nnameserver 10.1.1.2\n", "search a.local b.local\n"}, "other": {"nameserver 10.9.9.9\n"}} {
			h.start(task, name)
			h.wait(task, name)
			want(t, h.output(task, name), lines...)
			if name == "main" && strings.Contains(h.output(task, name), "10.9.9.9") {
				t.Errorf("the task's name server is there as well")
			}
		}
		h.Remove(ctx, task.ID)
	})

	t.Run("NoNetworking", func(t *testing.T) {
		cut, other := command("cat", "/proc/net/dev"), command("cat", "/proc/net/dev")
		cut.DisableNetworking, other.Name = true, "other"
		task, _ := h.task("bridge", cut, other)
		for _, name := range []string{"main", "other"} {
			h.start(task, name)
			h.wait(task, name)
			if out := h.output(task, name); strings.Contains(out, "eth0") != (name == "other") {
				t.Errorf("%s has %q", name, out)
			}
		}
		h.Remove(ctx, task.ID)
	})

	t.Run("Init", func(t *testing.T) {
		for _, with := range []bool{false, true} {
			c := command("wait")
			c.InitProcess, c.User = with, "alice"
			task, _ := h.task("none", c)
			h.start(task, "main")
			h.until(task, "main", "waiting")
			h.exec(task, "/prog", "orphan", "then", "sleep", "1ms")
			reaped := func() bool {
				return !strings.Contains(h.processes(task), "(ended") && !strings.Contains(h.processes(task), "sleep")
			}
			end := time.Now().Add(time.Minute)
			for !with && strings.Contains(h.processes(task), "sleep") && time.Now().Before(end) {
			}
			all := reaped()
			for with && !all && time.Now().Before(end) {
				all = reaped()
			}
			if all != with {
				t.Errorf("with an init: %v; there is %q", with, h.processes(task))
			}
			if first := strings.HasPrefix(h.processes(task), "1 /prog"); first == with {
				t.Errorf("with an init: %v; there is %q", with, h.processes(task))
			}
			h.exec(task, "/prog", "kill", "1")
			if e := h.wait(task, "main"); e.Code != 0 || !strings.Contains(h.output(task, "main"), "got terminated") {
				t.Errorf("with an init: %v; ended with %+v after a signal to process 1", with, e)
			}
			h.Remove(ctx, task.ID)
		}
		c := command("wait")
		c.InitProcess = true
		task, _ := h.task("none", c)
		first := h.start(task, "main")
		h.until(task, "main", "waiting")
		if err := h.Stop(ctx, task.ID, "main", time.Minute); err != nil {
			t.Fatal(err)
		}
		if e := h.wait(task, "main"); e.Code != 0 || !strings.Contains(h.output(task, "main"), "got terminated") {
			t.Errorf("stopped: %+v, %q", e, h.output(task, "main"))
		}
		h.again(task, first)
		if err := h.Stop(ctx, task.ID, "main", 0); err != nil {
			t.Fatal(err)
		}
		h.Remove(ctx, task.ID)
	})

	for mode, common := range map[string]bool{"": false, "task": true, "host": true} {
		t.Run("PIDMode/"+mode, func(t *testing.T) {
			task, _ := h.pair(func(s *agentapi.TaskSpec) { s.PidMode = mode })
			if out := h.processes(task); strings.Contains(out, "/prog ignore") != common || strings.Contains(out, ".test ") != (mode == "host") {
				t.Errorf("main sees %q", out)
			}
			// The end of one container's program is the end of all that is in it, and of nothing else.
			h.exec(task, "/prog", "orphan")
			if err := h.Stop(ctx, task.ID, "main", 0); err != nil {
				t.Fatal(err)
			}
			h.wait(task, "main")
			if e, err := h.Exec(ctx, task.ID, "other", runtime.Command{Args: []string{"/prog", "print"}}); err != nil || e != 0 {
				t.Errorf("the other container: %d, %v", e, err)
			}
			if err := h.Stop(ctx, task.ID, "other", 0); err != nil {
				t.Fatal(err)
			}
			if e := h.wait(task, "other"); e.Code != 137 {
				t.Errorf("exit = %+v", e)
			}
			h.Remove(ctx, task.ID)
		})
	}

	for mode, common := range map[string]bool{"": false, "none": false, "task": true, "host": true} {
		t.Run("IPCMode/"+mode, func(t *testing.T) {
			task, _ := h.pair(func(s *agentapi.TaskSpec) { s.IpcMode = mode })
			name := "/dev/shm/runtimetest-" + task.ID
			t.Cleanup(func() { os.Remove(name) })
			if code, out := h.exec(task, "/prog", "write", name, "shared"); code != 0 {
				t.Fatal(out)
			}
			if code, _ := h.execIn(task, "other", "/prog", "cat", name); (code == 0) != common {
				t.Errorf("seen from the other container: code %d", code)
			}
			if _, err := os.Stat(name); (err == nil) != (mode == "host") {
				t.Errorf("seen from the host: %v", err)
			}
			_, mine := h.exec(task, "/prog", "readlink", "/proc/self/ns/ipc")
			_, its := h.execIn(task, "other", "/prog", "readlink", "/proc/self/ns/ipc")
			if (mine == its) != common {
				t.Errorf("namespaces %s and %s", mine, its)
			}
			h.Remove(ctx, task.ID)
		})
	}

	t.Run("SysctlsOfTask", func(t *testing.T) {
		task, _ := h.pair(func(s *agentapi.TaskSpec) {
			s.IpcMode = "task"
			s.Containers[0].Sysctls = map[string]string{"kernel.msgmni": "321"}
			s.Containers[0].SharedMemoryMib = 70
		})
		if _, out := h.execIn(task, "other", "/prog", "cat", "/proc/sys/kernel/msgmni", "then", "cat", "/proc/self/mountinfo"); !strings.HasPrefix(out, "321\n") {
			t.Errorf("got %q", out)
		} else {
			want(t, mountOf(out, "/dev/shm"), "size=71680k")
		}
		h.Remove(ctx, task.ID)
	})
}

// pair is a task of two running containers, main that waits for a signal and other that ignores them.
func (h *host) pair(change func(*agentapi.TaskSpec)) (runtime.Task, runtime.Sandbox) {
	h.t.Helper()
	main, other := command("wait"), command("ignore")
	main.Image, other.Image, other.Name = h.Image, h.Image, "other"
	task := runtime.Task{ID: TaskID(), Spec: &agentapi.TaskSpec{NetworkMode: "none", Containers: []*agentapi.ContainerSpec{main, other}}}
	change(task.Spec)
	sb := h.create(task)
	h.start(task, "main")
	h.start(task, "other")
	h.until(task, "main", "waiting")
	h.until(task, "other", "ignoring")
	return task, sb
}

// mountOf is the line of /proc/self/mountinfo of the last mount at path.
func mountOf(mountinfo, path string) (found string) {
	for line := range strings.Lines(mountinfo) {
		if f := strings.Fields(line); len(f) > 5 && f[4] == path {
			found = line
		}
	}
	return found
}
