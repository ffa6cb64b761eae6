//go:build linux && cgo

package native

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/volume"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// A task's log router has /var/run in common with the shim, which sends it what the other containers write through the socket that it makes
// there. The folder is a tmpfs in the shim's mount namespace: what the router leaves in it takes none of the host's disk, and goes with the
// task. Only the router has it mounted, and it may run as any user.

const (
	routerFolder = "firelens"    // in the task's folder
	routerSocket = "fluent.sock" // in that
	routerConfig = "router.conf" // in the folder of the router's container
	routerRun    = "/var/run"    // in the router
)

// RoutesLogs marks the driver as one that can run log routers.
func (d *Driver) RoutesLogs() {}

var _ runtime.LogRouting = (*Driver)(nil)

func (t *task) routerFolder() string { return filepath.Join(t.dir, routerFolder) }

// toRouter completes the options of the driver fluentd.
func (t *task) toRouter(options map[string]string) map[string]string {
	all := map[string]string{"fluentd-address": "unix://" + filepath.Join(t.routerFolder(), routerSocket)}
	maps.Copy(all, options)
	return all
}

// routerMounts are those of the router's container.
func (t *task) routerMounts(c *agentapi.ContainerSpec) []bundleMount {
	return []bundleMount{
		{Source: filepath.Join(t.container(c.Name), routerConfig), Target: filepath.Clean(c.FireLens.ConfigPath), ReadOnly: true},
		{Source: t.routerFolder(), Target: routerRun, Tmpfs: &volume.Tmpfs{Flags: unix.MS_NOSUID | unix.MS_NODEV, Data: "mode=0777,size=64m"}},
	}
}

// dialRouter connects to the socket itself, never to where a link leads: the router can put one there, and the shim sees the host's files.
// By way of a descriptor the path may also be longer than that of a socket.
func dialRouter(ctx context.Context, path string) (net.Conn, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("the log router's socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode().Type() != os.ModeSocket {
		return nil, errors.New("what the log router has in the place of its socket is none")
	}
	return new(net.Dialer).DialContext(ctx, "unix", descriptor(f))
}
