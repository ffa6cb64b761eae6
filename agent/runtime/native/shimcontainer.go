//go:build linux && cgo

package native

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/sys/user"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/specconv"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/logs"
	"github.com/seed-2f228079/neargate/agent/volume"
)

// container is one container of a shim's task.
type container struct {
	dir     string
	started *startedRecord
	process *libcontainer.Process
	run     *libcontainer.Container
	like    libcontainer.Process // what commands that are run beside the program have in common with it
	given   []string             // its environment without what follows from the user
	done    chan struct{}        // closed once exit is set and recorded
	exit    exitRecord
	gone    chan struct{} // closed once nothing of this run is left
}

// built is a container without a process: its root file system is mounted, and libcontainer knows what it is to be.
type built struct {
	dir, rootfs  string
	run          *libcontainer.Container
	like         libcontainer.Process
	given        []string
	own          *initProcess
	closeSecrets func()
	filter       *os.File // compiled, for inits
	filterPath   string   // where it is kept
	filterFresh  bool     // it is not yet
}

// build mounts the root file system and settles what the container may do. A run after the first finds the file system as the one
// before left it. Whoever calls undoes what was built, or watches a process in it.
func (s *shim) build(dir, name string, b *bundle, run int) (_ *built, err error) {
	c := &built{dir: dir, rootfs: filepath.Join(dir, "rootfs"), closeSecrets: func() {}}
	if err := mountRoot(dir, c.rootfs, b, run > 0); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.undo()
		}
	}()
	for _, m := range b.Mounts {
		if err := s.mountVolume(m); err != nil {
			return nil, err
		}
		if !m.Fill {
			continue
		}
		place, err := securejoin.SecureJoin(c.rootfs, m.Target)
		if err == nil {
			err = volume.Fill(m.Source, place)
		}
		if err != nil {
			return nil, err
		}
	}
	u, groups, err := lookUpUser(c.rootfs, b.User)
	if err != nil {
		return nil, err
	}
	c.given = b.Env
	if !hasVariable(b.Env, "HOME") {
		b.Env = append(b.Env, "HOME="+u.Home)
	}
	limits, err := b.rlimits()
	if err != nil {
		return nil, err
	}
	closeSecrets, err := b.mountSecrets(dir, u.Uid, u.Gid)
	if err != nil {
		return nil, err
	}
	c.closeSecrets = closeSecrets
	spec := b.spec(c.rootfs, uint32(u.Uid), uint32(u.Gid), groups)
	if err := b.setSysctls(); err != nil {
		return nil, err
	}
	pids, own, err := s.processNamespace(dir, b, u)
	if err != nil {
		return nil, err
	}
	c.own = own
	if pids != nil {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: pids.namespace()})
	}
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: name, Spec: spec, NoNewKeyring: true})
	if err != nil {
		return nil, fmt.Errorf("container configuration: %w", err)
	}
	if c.filter, c.filterPath, c.filterFresh, err = openFilter(b.Filters, spec.Linux.Seccomp); err != nil {
		return nil, fmt.Errorf("seccomp filter: %w", err)
	}
	c.like = libcontainer.Process{Env: b.Env, Cwd: b.Cwd, UID: u.Uid, GID: u.Gid, AdditionalGroups: u.Sgids, Rlimits: limits, ExtraFiles: []*os.File{c.filter}}
	if c.run, err = libcontainer.Create(filepath.Join(dir, "state"), "c", config); err != nil {
		return nil, fmt.Errorf("create container: %w", err)
	}
	return c, nil
}

// undo takes away what was built. Nothing may run in it any more.
func (c *built) undo() {
	if c.run != nil {
		if err := c.run.Destroy(); err != nil {
			fmt.Fprintln(os.Stderr, "shim: destroy container:", err)
		}
	}
	c.own.end()
	c.closeSecrets()
	if c.filter != nil {
		c.filter.Close()
	}
	unix.Unmount(c.rootfs, unix.MNT_DETACH)
}

// startContainer builds the container, runs its program and watches it.
func (s *shim) startContainer(dir, name string, b *bundle, run int) (_ *container, err error) {
	in, err := s.build(dir, name, b, run)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			in.undo()
		}
	}()
	out, err := logs.Start(b.Output, s.dial)
	if err != nil {
		return nil, err
	}
	p := new(in.like)
	p.Init, p.Args = true, b.Args
	streams, err := openStreams(p, b)
	if err != nil {
		out.Close()
		return nil, err
	}
	if err = in.runProcess(p); err == nil {
		if err = streams.given(); err != nil {
			p.Signal(unix.SIGKILL)
			p.Wait()
		}
	}
	if err != nil {
		streams.close()
		out.Close()
		return nil, err
	}
	streams.flow(out)
	return in.watch(p, b, run, streams)
}

// runProcess runs the container's first process, and keeps the filter that it has made.
func (in *built) runProcess(p *libcontainer.Process) error {
	if err := in.run.Run(p); err != nil {
		return err
	}
	if in.filterFresh {
		if err := keepFilter(in.filter, in.filterPath); err != nil {
			fmt.Fprintln(os.Stderr, "shim: keep the seccomp filter:", err)
		}
	}
	return nil
}

// watch records that the container's program runs, and later how it ended.
func (in *built) watch(p *libcontainer.Process, b *bundle, run int, streams *streams) (*container, error) {
	pid, err := p.Pid()
	if err != nil {
		return nil, err
	}
	out := streams.out
	c := &container{dir: in.dir, process: p, run: in.run, like: in.like, given: in.given, done: make(chan struct{}), gone: make(chan struct{}),
		started: &startedRecord{RuntimeID: b.RuntimeID, PID: pid, At: time.Now().UTC(), Run: run}}
	if err := writeRecord(filepath.Join(in.dir, "started.json"), c.started); err != nil {
		p.Signal(unix.SIGKILL)
		p.Wait()
		streams.drain()
		out.Close()
		return nil, err
	}
	if in.own != nil {
		if err := in.own.forward(pid); err != nil {
			fmt.Fprintln(os.Stderr, "shim: forward signals:", err)
		}
	}
	memory := memoryEvents(in.run)
	go func() {
		state, err := p.Wait()
		if b.PID != "" { // what else is in the container does not end with its program
			killCgroup(b.Cgroup)
		}
		in.own.end()
		in.own = nil
		c.exit = exitOf(state, err)
		c.exit.Run = run
		out.Ended()
		streams.drain()
		out.Close()
		if n := oomKills(memory); n > 0 {
			c.exit.OOM, c.exit.Reason = true, "OutOfMemoryError: Container killed due to memory usage"
		}
		// The record comes before the cgroup goes: after a crash in between, the driver cleans up by name.
		if err := writeRecord(filepath.Join(in.dir, "exit.json"), c.exit); err != nil {
			fmt.Fprintln(os.Stderr, "shim: record exit:", err)
		}
		close(c.done)
		in.undo()
		close(c.gone)
	}()
	settleSoon()
	return c, nil
}

// mountVolume mounts a volume that is a tmpfs, for the task's containers together. s.mu is held.
func (s *shim) mountVolume(m bundleMount) error {
	if m.Tmpfs == nil || s.tmpfs[m.Source] {
		return nil
	}
	if err := unix.Mount("tmpfs", m.Source, "tmpfs", m.Tmpfs.Flags, m.Tmpfs.Data); err != nil {
		return fmt.Errorf("failed to mount local volume: mount tmpfs:%s, data: %s: %w", m.Source, m.Tmpfs.Data, err)
	}
	s.tmpfs[m.Source] = true
	return nil
}

// processNamespace is the namespace with an init that the container joins; nil: it gets one of its own, or the host's. own is set when
// that init is there for this container alone.
func (s *shim) processNamespace(dir string, b *bundle, u *user.ExecUser) (joined, own *initProcess, err error) {
	switch {
	case b.PID == "task":
		if s.processes == nil {
			s.processes, err = startInit(s.dir, nobody, nobody)
		}
		return s.processes, nil, err
	case b.PID == "" && b.Init:
		own, err = startInit(dir, u.Uid, u.Gid)
		return own, own, err
	}
	return nil, nil, nil
}

const nobody = 65534

const settleAfter = time.Second

var settling atomic.Bool

// settleSoon makes the shim small a moment after a start, when the program needs the processors no more than it does; of a series, after the first.
func settleSoon() {
	if settling.CompareAndSwap(false, true) {
		time.AfterFunc(settleAfter, func() {
			settling.Store(false)
			settle()
		})
	}
}

// settle makes the shim small, for it waits nearly always: what starting took is not needed again. Until here it collected
// nothing (startShim's GOGC): that would only have kept the first start waiting.
func settle() {
	debug.SetGCPercent(20)
	debug.FreeOSMemory()
}

// mountRoot mounts the layers below a writable one, fresh unless the former is to be kept. Names relative to the folder keep the
// options short: mount takes one page.
func mountRoot(dir, rootfs string, b *bundle, keep bool) error {
	upper, work := filepath.Join(b.Writable, "upper"), filepath.Join(b.Writable, "work")
	for _, d := range []string{work, "l", upper} { // of a start that crashed; a volatile overlay's work can not be used again
		if keep && d == upper {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, d)); err != nil {
			return err
		}
	}
	for _, d := range []string{upper, work, "rootfs", "l"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	lower := make([]string, 0, len(b.Layers)+1)
	for i, l := range b.Layers {
		short := "l/" + strconv.Itoa(i)
		if err := os.Symlink(l, filepath.Join(dir, short)); err != nil {
			return err
		}
		lower = append([]string{short}, lower...)
	}
	if len(lower) == 0 { // FROM scratch with nothing in it
		if err := os.MkdirAll(filepath.Join(dir, "l", "empty"), 0o755); err != nil {
			return err
		}
		lower = []string{"l/empty"}
	}
	if err := os.Chdir(dir); err != nil {
		return err
	}
	defer os.Chdir("/")
	// volatile: a writable layer does not outlive a crash of the host, so it need not be synced.
	o := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + upper + ",workdir=" + work + ",index=off"
	err := unix.Mount("overlay", rootfs, "overlay", 0, o+",volatile")
	if errors.Is(err, unix.EINVAL) { // before Linux 5.10
		err = unix.Mount("overlay", rootfs, "overlay", 0, o)
	}
	if err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	return nil
}

// lookUpUser resolves "name", "uid", "name:group" … in the image's own passwd and group files.
func lookUpUser(rootfs, spec string) (*user.ExecUser, []uint32, error) {
	passwd, err := securejoin.SecureJoin(rootfs, "/etc/passwd")
	if err != nil {
		return nil, nil, err
	}
	group, err := securejoin.SecureJoin(rootfs, "/etc/group")
	if err != nil {
		return nil, nil, err
	}
	for _, file := range []string{passwd, group} {
		if st, err := os.Stat(file); err == nil && !st.Mode().IsRegular() { // a pipe would be waited for
			return nil, nil, fmt.Errorf("unable to find user %s: the image's /etc/%s is no regular file", spec, filepath.Base(file))
		}
	}
	u, err := user.GetExecUserPath(spec, &user.ExecUser{Home: "/"}, passwd, group)
	if err != nil {
		return nil, nil, fmt.Errorf("unable to find user %s: %w", spec, err)
	}
	groups := make([]uint32, len(u.Sgids))
	for i, g := range u.Sgids {
		groups[i] = uint32(g)
	}
	return u, groups, nil
}

func hasVariable(env []string, name string) bool {
	for _, e := range env {
		if strings.HasPrefix(e, name+"=") {
			return true
		}
	}
	return false
}

func exitOf(state *os.ProcessState, err error) exitRecord {
	r := exitRecord{At: time.Now().UTC()}
	if state == nil {
		r.Code, r.Reason = 255, fmt.Sprintf("wait for the process: %v", err)
		return r
	}
	ws, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case ok && ws.Signaled():
		r.Code, r.Signal = 128+int(ws.Signal()), unix.SignalName(ws.Signal())
	case ok:
		r.Code = ws.ExitStatus()
	}
	return r
}

// startFailure is how a container ends that never ran, with Docker's exit codes and ECS's wording.
func startFailure(err error) exitRecord {
	text := err.Error()
	r := exitRecord{Code: 128, NotStarted: true, At: time.Now().UTC()}
	switch {
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"):
		r.Code = 127
	case strings.Contains(text, "permission denied"):
		r.Code = 126
	}
	r.Reason = "CannotStartContainerError: " + text
	return r
}

// memoryEvents is the file in which the kernel counts what it killed in the container's cgroup.
func memoryEvents(lc *libcontainer.Container) string {
	state, err := lc.State()
	if err != nil {
		return ""
	}
	if dir := state.CgroupPaths["memory"]; dir != "" { // v1; a hybrid host has the unified hierarchy besides, without the controller
		return filepath.Join(dir, "memory.oom_control")
	}
	return filepath.Join(state.CgroupPaths[""], "memory.events")
}

// oomKills reads how many processes the kernel killed for memory.
func oomKills(events string) uint64 {
	b, err := os.ReadFile(events)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			v, _ := strconv.ParseUint(strings.TrimSpace(n), 10, 64)
			return v
		}
	}
	return 0
}
