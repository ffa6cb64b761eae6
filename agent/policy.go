package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// Policy is what the owner of a host lets tasks do to it. The zero value allows nothing: whoever may call the API must not
// thereby own the machine.
type Policy struct {
	// HostPaths are the folders below which tasks may mount folders of the host.
	HostPaths []string
	// Privileged allows privileged containers and the host's network namespace.
	Privileged bool
}

// check says why the host refuses a task; nil: it does not. Paths are judged where symbolic links lead, so that a task
// cannot make itself a way out of an allowed folder by planting a link there.
func (p Policy) check(spec *agentapi.TaskSpec) error {
	if !p.Privileged {
		if spec.NetworkMode == "host" {
			return fmt.Errorf("network mode host is not allowed on this host; its owner can allow it with --allow-privileged")
		}
		for _, c := range spec.Containers {
			if c.Privileged {
				return fmt.Errorf("container %s is privileged, which is not allowed on this host; its owner can allow it with --allow-privileged", c.Name)
			}
		}
	}
	for _, v := range spec.Volumes {
		if v.HostPath != "" && !p.allows(v.HostPath) {
			return fmt.Errorf("volume %s mounts %s of the host, which is not below an allowed folder (%s); its owner can allow one with --allow-host-path",
				v.Name, v.HostPath, strings.Join(p.HostPaths, ", "))
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
