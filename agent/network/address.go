package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// subnetBits leaves 4,093 addresses to tasks; a bridge has 1,024 ports.
const subnetBits = 20

func (n *Network) subnetFile() string { return filepath.Join(n.cfg.Folder, "subnet") }

// chooseSubnet settles on the configured subnet, else the one of before, else one that no route of this host touches. With
// the bridge there, the one of before is what its tasks use.
func (n *Network) chooseSubnet(bridgeExists bool) error {
	if n.cfg.Subnet.IsValid() {
		n.subnet = n.cfg.Subnet.Masked()
		return nil
	}
	taken, err := takenPrefixes()
	if err != nil {
		return err
	}
	b, err := os.ReadFile(n.subnetFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if p, err := netip.ParsePrefix(strings.TrimSpace(string(b))); err == nil && (bridgeExists || len(n.used) > 0 || !overlaps(taken, p)) {
		n.subnet = p
		return nil
	}
	start, err := strconv.ParseUint(n.short, 16, 32)
	if err != nil {
		return err
	}
	// 10.64.0.0/10 in steps of /20, beginning at a place of the instance's own.
	const steps = 1 << (subnetBits - 10)
	for i := range uint64(steps) {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], 10<<24|64<<16+uint32((start+i)%steps)<<(32-subnetBits))
		p := netip.PrefixFrom(netip.AddrFrom4(a), subnetBits)
		if overlaps(taken, p) {
			continue
		}
		n.subnet = p
		if err := os.MkdirAll(n.cfg.Folder, 0o700); err != nil {
			return err
		}
		return os.WriteFile(n.subnetFile(), []byte(p.String()+"\n"), 0o600)
	}
	return errors.New("no free subnet for tasks in 10.64.0.0/10: configure one")
}

func takenPrefixes() ([]netip.Prefix, error) {
	var out []netip.Prefix
	add := func(ipn *net.IPNet) {
		if ipn == nil {
			return
		}
		a, ok := netip.AddrFromSlice(ipn.IP)
		ones, _ := ipn.Mask.Size()
		if a = a.Unmap(); ok && a.Is4() && ones > 0 {
			out = append(out, netip.PrefixFrom(a, ones).Masked())
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_TABLE) // table 0: all of them
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		add(r.Dst)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		add(a.IPNet)
	}
	return out, nil
}

func overlaps(taken []netip.Prefix, p netip.Prefix) bool {
	for _, t := range taken {
		if t.Overlaps(p) {
			return true
		}
	}
	return false
}

// Allocate reserves an address for the task; valid after Up. Addresses go round, so that one given back rests for long:
// a client with an old answer of the DNS does not meet another task.
func (n *Network) Allocate(task string) (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := n.last
	if !n.subnet.Contains(a) {
		a = n.gateway()
	}
	for range 1 << (32 - n.subnet.Bits()) {
		a = a.Next()
		if !n.subnet.Contains(a) || !n.subnet.Contains(a.Next()) { // the last one is the broadcast address
			a = n.gateway().Next()
		}
		if _, taken := n.used[a]; !taken {
			n.used[a], n.last = task, a
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no free address in %s", n.subnet)
}

// Adopt notes the address and ports of a task of a former process; call it before Up.
func (n *Network) Adopt(task string, a netip.Addr, forwards []Forward) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a.IsValid() {
		n.used[a] = task
		if n.last.Less(a) {
			n.last = a
		}
	}
	if len(forwards) > 0 {
		n.forward[task] = forwards
	}
}

// Release gives the task's address back.
func (n *Network) Release(task string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for a, t := range n.used {
		if t == task {
			delete(n.used, a)
		}
	}
}

func ipNet(p netip.Prefix, a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}
