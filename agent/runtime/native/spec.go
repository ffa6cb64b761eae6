//go:build linux && cgo

package native

import (
	"slices"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/moby/sys/capability"
	"github.com/opencontainers/cgroups"
	lcseccomp "github.com/opencontainers/runc/libcontainer/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bundle is bundle.json: all the shim needs to start one container.
type bundle struct {
	Layers       []string // folders, lowest first
	Args, Env    []string
	User         string // as the task definition or the image has it; resolved in the image's own files
	Cwd          string
	Hostname     string
	ReadonlyRoot bool
	Privileged   bool
	Mounts       []bundleMount
	Cgroup       string
	Memory       int64 // bytes; 0: none
	Reservation  int64
	Shares       uint64
	Quota        int64  // of cpuPeriod; 0: none
	Log          string // path; empty: what the container writes is not kept
	LogLimit     int64
	RuntimeID    string
}

// bundleMount binds Source over Target. An empty Fill volume first gets what the image has there.
type bundleMount struct {
	Source, Target string
	ReadOnly, Fill bool
}

// dockerCapabilities is Docker's default set.
var dockerCapabilities = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}

// capabilities are the wanted ones that this process has to give.
func capabilities(privileged bool) ([]string, error) {
	own, err := capability.NewPid2(0)
	if err == nil {
		err = own.Load()
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, c := range capability.ListKnown() {
		name := "CAP_" + upper(c.String())
		if own.Get(capability.PERMITTED, c) && own.Get(capability.BOUNDING, c) && (privileged || slices.Contains(dockerCapabilities, name)) {
			out = append(out, name)
		}
	}
	return out, nil
}

func upper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// maxOpenFiles is Fargate's default limit; a lower hard limit of our own wins.
const maxOpenFiles = 65535

func (b *bundle) spec(rootfs string, uid, gid uint32, groups []uint32) (*specs.Spec, error) {
	caps, err := capabilities(b.Privileged)
	if err != nil {
		return nil, err
	}
	files := unix.Rlimit{}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	limit := min(files.Max, maxOpenFiles)
	sys := []string{"nosuid", "noexec", "nodev", "ro"}
	if b.Privileged {
		sys = sys[:3]
	}
	s := &specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{Path: rootfs, Readonly: b.ReadonlyRoot},
		Hostname: b.Hostname,
		Process: &specs.Process{
			Args: b.Args, Env: b.Env, Cwd: b.Cwd,
			User:         specs.User{UID: uid, GID: gid, AdditionalGids: groups},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			Rlimits:      []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: limit, Hard: limit}},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: sys},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: b.Cgroup,
			// The network namespace is the shim's: one for all containers of the task.
			Namespaces: []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}},
			Resources:  b.resources(),
		},
	}
	if cgroups.IsCgroup2UnifiedMode() {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	for _, m := range b.Mounts {
		o := []string{"rbind", "rprivate"}
		if m.ReadOnly {
			o = append(o, "ro")
		}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: o})
	}
	if b.Privileged {
		return s, nil
	}
	s.Linux.MaskedPaths = []string{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
	s.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	if lcseccomp.Enabled {
		s.Linux.Seccomp = seccomp.DefaultProfile(s)
	}
	return s, nil
}

func (b *bundle) resources() *specs.LinuxResources {
	r := &specs.LinuxResources{
		CPU:     &specs.LinuxCPU{Shares: &b.Shares},
		Devices: []specs.LinuxDeviceCgroup{{Allow: b.Privileged, Access: "rwm"}},
	}
	if b.Quota > 0 {
		r.CPU.Quota, r.CPU.Period = &b.Quota, new(uint64(cpuPeriod))
	}
	if b.Memory > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &b.Memory}
		if s := swapLimit(b.Memory); s != 0 {
			r.Memory.Swap = &s
		}
	}
	if b.Reservation > 0 {
		if r.Memory == nil {
			r.Memory = &specs.LinuxMemory{}
		}
		r.Memory.Reservation = &b.Reservation
	}
	return r
}
