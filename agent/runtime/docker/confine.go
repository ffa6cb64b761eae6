package docker

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// confine translates what a container asks of the kernel.
func (d *Driver) confine(t runtime.Task, c *agentapi.ContainerSpec, cfg *container.Config, host *container.HostConfig) error {
	host.CapAdd, host.CapDrop = c.AddCapabilities, c.DropCapabilities
	if slices.Contains(c.AddCapabilities, "ALL") && !c.Privileged {
		// All there are here: the engine would fail over one that it has not itself, and engines before 23 over those that they do not know.
		have, err := runtime.OwnCapabilities()
		if err != nil {
			return err
		}
		have = slices.DeleteFunc(have, func(n string) bool { return n == "BPF" || n == "PERFMON" || n == "CHECKPOINT_RESTORE" })
		host.CapAdd, host.CapDrop = runtime.Capabilities(c, have), []string{"ALL"}
	}
	if c.NoNewPrivileges {
		host.SecurityOpt = append(host.SecurityOpt, "no-new-privileges")
	}
	limits, err := runtime.Limits(c)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		// The engine takes -1 for no limit, which is what the greatest number is as a signed one.
		host.Ulimits = append(host.Ulimits, &container.Ulimit{Name: name, Soft: int64(limits[name][0]), Hard: int64(limits[name][1])})
	}
	for _, m := range c.Tmpfs {
		options := append([]string{fmt.Sprintf("size=%dm", m.SizeMib)}, slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "defaults" })...)
		if host.Tmpfs == nil {
			host.Tmpfs = map[string]string{}
		}
		host.Tmpfs[m.ContainerPath] = strings.Join(options, ",")
	}
	for _, m := range c.Devices {
		host.Devices = append(host.Devices, container.DeviceMapping{
			PathOnHost: m.HostPath, PathInContainer: cmp.Or(m.ContainerPath, m.HostPath), CgroupPermissions: m.Access,
		})
	}
	host.ShmSize = int64(c.SharedMemoryMib) << 20
	if host.Memory > 0 && c.MaxSwapMib != nil {
		host.MemorySwap = host.Memory + int64(*c.MaxSwapMib)<<20
		if c.Swappiness != nil {
			host.MemorySwappiness = new(int64(*c.Swappiness))
		}
	}
	cfg.OpenStdin, cfg.Tty = c.Interactive, c.PseudoTerminal
	if c.DisableNetworking {
		cfg.NetworkDisabled, host.NetworkMode = true, "none"
	}
	switch t.Spec.PidMode {
	case "host":
		host.PidMode = "host"
	case "task":
		host.PidMode = container.PidMode("container:" + d.sandboxName(t.ID))
	default:
		host.Init = new(c.InitProcess)
	}
	host.IpcMode = container.IPCModePrivate
	switch t.Spec.IpcMode {
	case "host":
		host.IpcMode = container.IPCModeHost
	case "task":
		host.IpcMode = container.IpcMode("container:" + d.sandboxName(t.ID))
	}
	for name, value := range c.Sysctls {
		if !sandboxOwns(t.Spec, c, name) {
			if host.Sysctls == nil {
				host.Sysctls = map[string]string{}
			}
			host.Sysctls[name] = value
		}
	}
	return d.nameServers(t, c, host)
}

// confineSandbox gives the sandbox what its containers have from it: the common namespaces and what is set in them.
func confineSandbox(t runtime.Task, host *container.HostConfig) {
	host.Init = new(t.Spec.PidMode == "task") // it reaps
	if t.Spec.IpcMode == "task" {
		host.IpcMode = container.IPCModeShareable
		size := uint32(64)
		for _, c := range t.Spec.Containers {
			size = max(size, c.SharedMemoryMib)
		}
		host.ShmSize = int64(size) << 20
	}
	for _, c := range t.Spec.Containers {
		for name, value := range c.Sysctls {
			if sandboxOwns(t.Spec, c, name) {
				if host.Sysctls == nil {
					host.Sysctls = map[string]string{}
				}
				host.Sysctls[name] = value
			}
		}
	}
}

// sandboxOwns says whether a kernel parameter is of a namespace that the container has from the sandbox.
func sandboxOwns(t *agentapi.TaskSpec, c *agentapi.ContainerSpec, sysctl string) bool {
	if runtime.SysctlNamespace(sysctl) == "network" {
		return !c.DisableNetworking
	}
	return t.IpcMode == "task"
}

// nameServers gives a container a resolv.conf of its own: whoever joins another's network is refused name servers by the engine.
func (d *Driver) nameServers(t runtime.Task, c *agentapi.ContainerSpec, host *container.HostConfig) error {
	if len(c.DnsServers)+len(c.DnsSearch) == 0 {
		return nil
	}
	servers, search := t.DNSServers, t.DNSSearch
	if len(c.DnsServers) > 0 {
		servers = c.DnsServers
	}
	if len(c.DnsSearch) > 0 {
		search = c.DnsSearch
	}
	var text strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&text, "nameserver %s\n", s)
	}
	if len(search) > 0 {
		fmt.Fprintf(&text, "search %s\n", strings.Join(search, " "))
	}
	path := filepath.Join(d.filesDir(t.ID), c.Name+".resolv.conf")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
		return err
	}
	host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeBind, Source: path, Target: "/etc/resolv.conf", ReadOnly: c.ReadonlyRoot})
	return nil
}

// filesDir holds what is mounted into a task's containers.
func (d *Driver) filesDir(taskID string) string { return filepath.Join(d.cfg.Dir, "files", taskID) }
