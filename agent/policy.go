package agent

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/volume"
	"github.com/seed-2f228079/neargate/agent/volume/plugin"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// Policy is what the owner of a host lets tasks do to it. The zero value allows nothing: whoever may call the API must not
// thereby own the machine.
type Policy struct {
	// HostPaths are the folders below which tasks may mount folders of the host.
	HostPaths []string
	// Privileged allows privileged containers, the host's namespaces and devices, and capabilities beyond Docker's default set.
	Privileged bool
	// InstanceMetadata lets tasks reach the host's own metadata and credentials at 169.254.169.254. The driver keeps them from it.
	InstanceMetadata bool
}

// check says why the host refuses a task; nil: it does not. Paths are judged where symbolic links lead, so that a task
// cannot make itself a way out of an allowed folder by planting a link there.
func (p Policy) check(spec *agentapi.TaskSpec) error {
	if what := privilege(spec); what != "" && !p.Privileged {
		return fmt.Errorf("%s, which is not allowed on this host; its owner can allow it with --allow-privileged", what)
	}
	if err := checkSysctls(spec); err != nil {
		return err
	}
	if spec.Interception != nil && spec.NetworkMode != "awsvpc" {
		return fmt.Errorf("the task has a proxy for its traffic, but with network mode %s no network that is its own", spec.NetworkMode)
	}
	for _, v := range spec.Volumes {
		if plugin.Wants(v) {
			continue // by the owner's own program
		}
		local, err := volume.LocalOf(v)
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		if path := cmp.Or(v.HostPath, local.Bind); path != "" && !p.allows(path) {
			return fmt.Errorf("volume %s mounts %s of the host, which is not below an allowed folder (%s); its owner can allow one with --allow-host-path",
				v.Name, path, strings.Join(p.HostPaths, ", "))
		}
	}
	return nil
}

// privilege says what of a task would let it act on the host; empty: nothing.
func privilege(spec *agentapi.TaskSpec) string {
	for _, mode := range []struct{ name, value string }{{"network", spec.NetworkMode}, {"pid", spec.PidMode}, {"ipc", spec.IpcMode}} {
		if mode.value == "host" {
			return "the task has " + mode.name + " mode host"
		}
	}
	for _, c := range spec.Containers {
		switch {
		case c.Privileged:
			return "container " + c.Name + " is privileged"
		case len(c.Devices) > 0:
			return "container " + c.Name + " uses device " + c.Devices[0].HostPath + " of the host"
		}
		for _, n := range c.AddCapabilities {
			if !slices.Contains(runtime.DefaultCapabilities, n) {
				return "container " + c.Name + " adds capability " + n
			}
		}
	}
	return ""
}

// checkSysctls lets nobody set what is not of a namespace that the task has for itself; that no owner can allow.
func checkSysctls(spec *agentapi.TaskSpec) error {
	for _, c := range spec.Containers {
		for name := range c.Sysctls {
			switch namespace := runtime.SysctlNamespace(name); {
			case namespace == "":
				return fmt.Errorf("container %s sets %s, which is not a kernel parameter of a namespace", c.Name, name)
			case namespace == "network" && spec.NetworkMode == "host" && !c.DisableNetworking, namespace == "ipc" && spec.IpcMode == "host":
				return fmt.Errorf("container %s sets %s of the host's %s namespace", c.Name, name, namespace)
			}
		}
	}
	return nil
}

func (p Policy) allows(path string) bool {
	real, ok := resolve(path)
	if !ok {
		return false
	}
	for _, allowed := range p.HostPaths {
		base, ok := resolve(allowed)
		if !ok {
			continue
		}
		if rel, err := filepath.Rel(base, real); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return true
		}
	}
	return false
}

// resolve follows links as far as the path exists; what does not exist yet is made by the driver, below that.
func resolve(path string) (string, bool) {
	if !filepath.IsAbs(path) {
		return "", false
	}
	path = filepath.Clean(path)
	for rest := ""; ; {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			return filepath.Join(real, rest), true
		}
		if _, lerr := os.Lstat(path); !os.IsNotExist(err) || lerr == nil {
			return "", false // a link to nowhere, or no permission to look
		}
		rest = filepath.Join(filepath.Base(path), rest)
		path = filepath.Dir(path)
	}
}
