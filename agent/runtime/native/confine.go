//go:build linux && cgo

package native

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runc/libcontainer/configs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// confine settles what a container may do, from its spec and from what this host has.
func (b *bundle) confine(task *agentapi.TaskSpec, c *agentapi.ContainerSpec) error {
	have, err := runtime.OwnCapabilities()
	if err != nil {
		return err
	}
	for _, n := range runtime.Capabilities(c, have) {
		switch {
		case slices.Contains(have, n):
			b.Capabilities = append(b.Capabilities, "CAP_"+n)
		case slices.Contains(c.AddCapabilities, n):
			return fmt.Errorf("capability %s is not to be had on this host", n)
		}
	}
	if b.Limits, err = runtime.Limits(c); err != nil {
		return err
	}
	for _, t := range c.Tmpfs {
		b.Tmpfs = append(b.Tmpfs, bundleTmpfs{Target: filepath.Clean(t.ContainerPath), Size: int64(t.SizeMib) << 20, Options: t.Options})
	}
	for _, d := range c.Devices {
		found, err := hostDevice(d)
		if err != nil {
			return fmt.Errorf("device %s: %w", d.HostPath, err)
		}
		b.Devices = append(b.Devices, found)
	}
	if c.Swappiness != nil {
		b.Swappiness = new(uint64(*c.Swappiness))
	}
	b.Swap = int64(c.GetMaxSwapMib()) << 20
	b.SharedMemory = int64(cmp.Or(c.SharedMemoryMib, 64)) << 20
	b.NoNewPrivileges, b.Sysctls, b.Init = c.NoNewPrivileges, c.Sysctls, c.InitProcess
	b.Interactive, b.Terminal, b.NoNetwork = c.Interactive, c.PseudoTerminal, c.DisableNetworking
	if task.IpcMode != "none" {
		b.IPC = task.IpcMode
	}
	if b.PID = task.PidMode; b.PID == "host" {
		b.Init = false // the host's reaps
	}
	return nil
}

// hostDevice looks a device up.
func hostDevice(d *agentapi.Device) (bundleDevice, error) {
	var st unix.Stat_t
	if err := unix.Stat(d.HostPath, &st); err != nil {
		return bundleDevice{}, err
	}
	out := bundleDevice{Path: cmp.Or(d.ContainerPath, d.HostPath), Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		Mode: st.Mode & 0o777, UID: st.Uid, GID: st.Gid, Access: d.Access}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		out.Type = "c"
	case unix.S_IFBLK:
		out.Type = "b"
	default:
		return bundleDevice{}, errors.New("not a device")
	}
	return out, nil
}

func (b *bundle) addDevices(s *specs.Spec) {
	for _, d := range b.Devices {
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: d.Path, Type: d.Type, Major: d.Major, Minor: d.Minor,
			FileMode: new(os.FileMode(d.Mode)), UID: &d.UID, GID: &d.GID})
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices,
			specs.LinuxDeviceCgroup{Allow: true, Type: d.Type, Major: &d.Major, Minor: &d.Minor, Access: d.Access})
	}
}

// maxOpenFiles is Fargate's default limit; a lower hard limit of our own wins.
const maxOpenFiles = 65535

var limitNumbers = map[string]int{
	"core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS,
	"memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE, "nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE,
	"nproc": unix.RLIMIT_NPROC, "rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO, "rttime": unix.RLIMIT_RTTIME,
	"sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// rlimits are set on the program and on every command that is run beside it.
func (b *bundle) rlimits() ([]configs.Rlimit, error) {
	files := unix.Rlimit{}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	limit := min(files.Max, maxOpenFiles)
	limits := map[string][2]uint64{"nofile": {limit, limit}}
	maps.Copy(limits, b.Limits)
	var out []configs.Rlimit
	for name, l := range limits {
		out = append(out, configs.Rlimit{Type: limitNumbers[name], Soft: l[0], Hard: l[1]})
	}
	return out, nil
}

// namespaces: the network's is the shim's, one for all containers of the task, unless this one is to have none of it.
func (b *bundle) namespaces() []specs.LinuxNamespace {
	list := []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.UTSNamespace}}
	if b.IPC == "" { // with task it is the shim's, with host the host's, which is then the shim's too
		list = append(list, specs.LinuxNamespace{Type: specs.IPCNamespace})
	}
	if b.PID == "" && !b.Init {
		list = append(list, specs.LinuxNamespace{Type: specs.PIDNamespace})
	}
	if b.NoNetwork {
		list = append(list, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	}
	return list
}

// sharedMemory is what is mounted at /dev/shm: a file system of the container's own, or with a shared IPC namespace the shim's, which
// is the task's or the host's as the namespace is.
func (b *bundle) sharedMemory() specs.Mount {
	if b.IPC != "" {
		return specs.Mount{Destination: sharedMemoryPath, Type: "bind", Source: sharedMemoryPath, Options: []string{"rbind", "rprivate"}}
	}
	return specs.Mount{Destination: sharedMemoryPath, Type: "tmpfs", Source: "shm",
		Options: []string{"nosuid", "noexec", "nodev", "mode=1777", fmt.Sprintf("size=%d", b.SharedMemory)}}
}

const sharedMemoryPath = "/dev/shm"

// taskSharedMemory is the size in MiB of the /dev/shm that the containers of a task have in common: what the one asks that wants most.
func taskSharedMemory(spec *agentapi.TaskSpec) uint32 {
	size := uint32(64)
	for _, c := range spec.Containers {
		size = max(size, c.SharedMemoryMib)
	}
	return size
}

// mountSharedMemory makes it, in the shim's own mount namespace.
func mountSharedMemory(mib string) error {
	return unix.Mount("shm", sharedMemoryPath, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777,size="+mib+"m")
}

// userMounts are volumes, files and tmpfs, outer ones first.
func (b *bundle) userMounts() (list []specs.Mount) {
	for _, m := range b.Mounts {
		o := []string{"rbind", "rprivate"}
		if m.ReadOnly {
			o = append(o, "ro")
		}
		list = append(list, specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: o})
	}
	for _, t := range b.Tmpfs {
		o := []string{"noexec", "nosuid", "nodev", fmt.Sprintf("size=%d", t.Size)} // Docker's defaults; what follows wins
		for _, option := range t.Options {
			if option != "defaults" {
				o = append(o, option)
			}
		}
		list = append(list, specs.Mount{Destination: t.Target, Type: "tmpfs", Source: "tmpfs", Options: append(o, "tmpcopyup")})
	}
	slices.SortStableFunc(list, func(a, c specs.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(c.Destination, "/")
	})
	return list
}

// ownSysctls are the kernel parameters of namespaces that the container has for itself: libcontainer sets them.
func (b *bundle) ownSysctls() map[string]string {
	own := map[string]string{}
	for name, value := range b.Sysctls {
		if b.owns(name) {
			own[name] = value
		}
	}
	return own
}

func (b *bundle) owns(sysctl string) bool {
	if runtime.SysctlNamespace(sysctl) == "network" {
		return b.NoNetwork
	}
	return b.IPC == ""
}

// setSysctls sets those of the namespaces that the container shares with its task, which are the shim's: below /proc/sys a process
// sees its own. A parameter that is not there is not one of a namespace.
func (b *bundle) setSysctls() error {
	for _, name := range slices.Sorted(maps.Keys(b.Sysctls)) {
		if b.owns(name) {
			continue
		}
		if runtime.SysctlNamespace(name) == "" {
			return fmt.Errorf("kernel parameter %s is not one of a namespace", name)
		}
		path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
		if err := os.WriteFile(path, []byte(b.Sysctls[name]), 0); err != nil {
			return fmt.Errorf("set kernel parameter %s: %w", name, err)
		}
	}
	return nil
}
