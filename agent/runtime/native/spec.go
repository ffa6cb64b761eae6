//go:build linux && cgo

package native

import (
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/cgroups"
	lcseccomp "github.com/opencontainers/runc/libcontainer/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/seed-2f228079/neargate/agent/logs"
	"github.com/seed-2f228079/neargate/agent/volume"
)

// bundle is bundle.json: all the shim needs to start one container.
type bundle struct {
	Layers       []string // folders, lowest first
	Writable     string   // folder of the writable layer, from the container's own; empty: that one
	Args, Env    []string
	User         string // as the task definition or the image has it; resolved in the image's own files
	Cwd          string
	Hostname     string
	ReadonlyRoot bool
	Privileged   bool
	Mounts       []bundleMount
	Cgroup       string
	Memory       int64 // bytes; 0: none
	Swap         int64 // bytes beside the memory
	Swappiness   *uint64
	Reservation  int64
	Shares       uint64
	Quota        int64 // of cpuPeriod; 0: none
	Output       logs.Config
	RuntimeID    string
	Filters      string // folder of compiled seccomp filters
	SecretFiles  string // folder at which the container finds them; empty: none

	Capabilities    []string // with their prefix; those that this process must have
	NoNewPrivileges bool
	Limits          map[string][2]uint64 // soft and hard, by ulimit
	Tmpfs           []bundleTmpfs
	SharedMemory    int64 // bytes of /dev/shm
	Devices         []bundleDevice
	Sysctls         map[string]string
	PID, IPC        string // host, task; empty: the container's own
	NoNetwork       bool
	Init            bool
	Interactive     bool
	Terminal        bool

	files map[string][]byte // of SecretFiles: never in bundle.json
}

type bundleTmpfs struct {
	Target  string
	Size    int64 // bytes
	Options []string
}

// bundleDevice is a device of the host as it was found when the container was to start.
type bundleDevice struct {
	Path, Type   string
	Major, Minor int64
	Mode         uint32
	UID, GID     uint32
	Access       string
}

// bundleMount binds Source over Target. An empty Fill volume first gets what the image has there.
type bundleMount struct {
	Source, Target string
	ReadOnly, Fill bool
	Tmpfs          *volume.Tmpfs // the volume is one: what is mounted on Source first, once in the task
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

func (b *bundle) spec(rootfs string, uid, gid uint32, groups []uint32) *specs.Spec {
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
			User:            specs.User{UID: uid, GID: gid, AdditionalGids: groups},
			Capabilities:    &specs.LinuxCapabilities{Bounding: b.Capabilities, Effective: b.Capabilities, Permitted: b.Capabilities},
			NoNewPrivileges: b.NoNewPrivileges,
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			b.sharedMemory(),
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: sys},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: b.Cgroup,
			Namespaces:  b.namespaces(),
			Resources:   b.resources(),
			Sysctl:      b.ownSysctls(),
		},
	}
	b.addDevices(s)
	if cgroups.IsCgroup2UnifiedMode() {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	s.Mounts = append(s.Mounts, b.userMounts()...)
	if b.Privileged {
		return s
	}
	s.Linux.MaskedPaths = []string{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
	s.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	if lcseccomp.Enabled {
		s.Linux.Seccomp = seccomp.DefaultProfile(s)
	}
	return s
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
		if s := swapLimit(b.Memory + b.Swap); s != 0 {
			r.Memory.Swap = &s
		}
		if !cgroups.IsCgroup2UnifiedMode() {
			r.Memory.Swappiness = b.Swappiness
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
