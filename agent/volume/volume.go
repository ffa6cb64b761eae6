// Package volume keeps the agent's own volumes: task-scoped ones live and go with their task's folder, shared ones are kept
// by name. Host folders are not its business: they are mounted as they are.
package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// name is what ECS allows for a volume's name: up to 255 letters, digits, underscores and hyphens; it becomes a file name.
// The length is looked at apart: the counted repetition would take 2 ms to compile, at each start of a shim too.
var name = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

const maxName = 255

// Path says where a volume of a task lives. The folder need not exist.
func Path(shared, task string, v *agentapi.VolumeSpec) (string, error) {
	if v.HostPath != "" {
		if !filepath.IsAbs(v.HostPath) {
			return "", fmt.Errorf("volume %s: host path %q is not absolute", v.Name, v.HostPath)
		}
		return filepath.Clean(v.HostPath), nil
	}
	if l, err := LocalOf(v); err != nil {
		return "", fmt.Errorf("volume %s: %w", v.Name, err)
	} else if l.Bind != "" {
		return l.Bind, nil
	}
	if len(v.Name) > maxName || !name.MatchString(v.Name) {
		return "", fmt.Errorf("volume name %q is invalid", v.Name)
	}
	if v.Scope == "shared" {
		return filepath.Join(shared, v.Name), nil
	}
	return filepath.Join(task, v.Name), nil
}

// Fill gives an empty volume the content and mode of the image's folder at the mount's place, as Docker does with a new
// volume. Two tasks that meet a new shared volume at once fill it once.
func Fill(volume, image string) error {
	st, err := os.Stat(image)
	if err != nil || !st.IsDir() {
		return nil // nothing at that place in the image
	}
	dir, err := os.Open(volume)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock volume %s: %w", volume, err)
	}
	if entries, err := os.ReadDir(volume); err != nil || len(entries) > 0 {
		return err
	}
	if err := fs.CopyDir(volume, image); err != nil {
		return fmt.Errorf("fill volume %s: %w", volume, err)
	}
	return nil
}
