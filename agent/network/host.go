package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// hostFolder holds what instances on one host have to agree on. It is gone after a reboot, like what it describes.
const hostFolder = "/run/neargate"

func isNoDevice(err error) bool { return errors.Is(err, unix.ENODEV) }

// lockHost takes the host-wide lock; it ends with the process at the latest.
func lockHost(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(hostFolder, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(hostFolder, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for lock %s: %w", f.Name(), ctx.Err()), f.Close())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// hostMTU is that of the interface with the default route; tasks must not send more.
func hostMTU() int {
	const ethernet = 1500
	routes, err := whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return ethernet
	}
	for _, r := range routes {
		if r.Dst != nil && r.Dst.IP != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if l, err := netlink.LinkByIndex(r.LinkIndex); err == nil && l.Attrs().MTU > 0 {
			return l.Attrs().MTU
		}
	}
	return ethernet
}

func writeSysctl(name, value string) error {
	path := "/proc/sys/" + name
	if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set %s: %w", strings.ReplaceAll(name, "/", "."), err)
	}
	return nil
}

// forwarding is kept in hostFolder while instances need routing and it was off before the first.
type forwarding struct {
	Bridges []string
	// Learning are the links that were told to go on taking routes from their routers, which a kernel that routes IPv6 itself no longer does.
	Learning []string `json:",omitempty"`
}

// forwardingFile is of the network namespace that the caller is in: the setting is.
func forwardingFile(family *family) string {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return filepath.Join(hostFolder, family.forwardFile+".json")
	}
	return filepath.Join(hostFolder, fmt.Sprintf("%s-%d.json", family.forwardFile, st.Ino))
}

func readForwarding(family *family) (forwarding, bool) {
	var f forwarding
	b, err := os.ReadFile(forwardingFile(family))
	return f, err == nil && json.Unmarshal(b, &f) == nil
}

// enableForwarding turns routing on for the bridge's instance. Called with the host's lock held.
func enableForwarding(family *family, bridge string) error {
	b, err := os.ReadFile("/proc/sys/" + family.forward)
	if err != nil {
		return err
	}
	f, ours := readForwarding(family)
	if !ours && strings.TrimSpace(string(b)) == "1" {
		return nil // somebody else wants it on: it stays on after us
	}
	if !slices.Contains(f.Bridges, bridge) {
		f.Bridges = append(f.Bridges, bridge)
	}
	var learning []string
	if family == ipv6 {
		if learning, err = learningLinks(); err != nil {
			return err
		}
		f.Learning = append(f.Learning, learning...)
	}
	if b, err = json.Marshal(f); err != nil {
		return err
	}
	if err := os.WriteFile(forwardingFile(family), b, 0o600); err != nil {
		return err
	}
	for _, link := range learning {
		if err := writeSysctl("net/ipv6/conf/"+link+"/accept_ra", "2"); err != nil {
			return err
		}
	}
	return writeSysctl(family.forward, "1")
}

// restoreForwarding turns routing off again once no instance is left that needs it, unless another program has come to
// rely on it: one that has a bridge of its own. Called with the host's lock held.
func restoreForwarding(family *family, bridge string) error {
	f, ours := readForwarding(family)
	if !ours {
		return nil
	}
	f.Bridges = slices.DeleteFunc(f.Bridges, func(b string) bool {
		_, err := netlink.LinkByName(b)
		return b == bridge || err != nil // instances that died without clean-up count no more
	})
	if len(f.Bridges) > 0 {
		b, err := json.Marshal(f)
		if err != nil {
			return err
		}
		return os.WriteFile(forwardingFile(family), b, 0o600)
	}
	links, err := whole(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	if !slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Type() == "bridge" }) {
		if err := writeSysctl(family.forward, "0"); err != nil {
			return err
		}
		for _, link := range f.Learning { // one that is gone has nothing to be put back
			if err := writeSysctl("net/ipv6/conf/"+link+"/accept_ra", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if err := os.Remove(forwardingFile(family)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
