package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/addressing"
)

func (n *Network) subnetFile() string { return filepath.Join(n.cfg.Folder, "subnet") }

// chooseSubnet settles on the configured subnet, else the one of before, else one that no route of this host touches. With
// the bridge there, the one of before is what its tasks use.
func (n *Network) chooseSubnet(bridgeExists bool) error {
	if n.cfg.Subnet.IsValid() {
		p := n.cfg.Subnet.Masked()
		for a, task := range n.used {
			if !p.Contains(a) {
				return fmt.Errorf("task %s has the address %s, which is not of the network %s that this host has been given since: stop its tasks", task, a, p)
			}
		}
		n.subnet = p
		return n.keepSubnet()
	}
	taken, err := n.taken()
	if err != nil {
		return err
	}
	p, err := n.keptSubnet()
	if err != nil {
		return err
	}
	if p.IsValid() && (bridgeExists || len(n.used) > 0 || !overlaps(taken, p)) {
		n.subnet = p
		return nil
	}
	start, err := strconv.ParseUint(n.short, 16, 32)
	if err != nil {
		return err
	}
	zone := addressing.SubnetOf(n.cfg.Zone)
	steps := addressing.Parts(zone, addressing.HostBits)
	for i := range steps { // beginning at a place of the instance's own
		p := addressing.Nth(zone, addressing.HostBits, (int(start)+i)%steps)
		if !overlaps(taken, p) {
			n.subnet = p
			return n.keepSubnet()
		}
	}
	return fmt.Errorf("no free subnet for tasks in %s: the host's own routes lead all of it elsewhere", zone)
}

func (n *Network) keepSubnet() error {
	if err := os.MkdirAll(n.cfg.Folder, 0o700); err != nil {
		return err
	}
	return os.WriteFile(n.subnetFile(), []byte(n.subnet.String()+"\n"), 0o600)
}

// keptSubnet is the one of before; invalid: there was none.
func (n *Network) keptSubnet() (netip.Prefix, error) {
	b, err := os.ReadFile(n.subnetFile())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return netip.Prefix{}, err
	}
	p, _ := netip.ParsePrefix(strings.TrimSpace(string(b))) // a broken file counts as none
	return p, nil
}

// Offer is what the control plane has to know to give this host its part of the cluster's network. The network need not be up.
func (n *Network) Offer() (*agentapi.HostNetwork, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, err := n.keptSubnet()
	if err != nil {
		return nil, err
	}
	taken, err := n.taken()
	if err != nil {
		return nil, err
	}
	o := &agentapi.HostNetwork{Mode: n.cfg.Mode, VxlanPort: uint32(n.cfg.VXLANPort), VxlanId: n.cfg.VXLANID, Ipv6: lacksIPv6() == ""}
	if p.IsValid() {
		o.Cidr = p.String()
	}
	for _, t := range taken {
		if text := t.String(); t.Overlaps(addressing.VPC) && !slices.Contains(o.Taken, text) {
			o.Taken = append(o.Taken, text)
		}
	}
	return o, nil
}

// taken is what this host leads elsewhere: its routes and addresses but for those that this instance has made.
func (n *Network) taken() ([]netip.Prefix, error) {
	own := map[int]bool{}
	for _, name := range []string{n.bridge, n.overlay} {
		if l, err := netlink.LinkByName(name); err == nil {
			own[l.Attrs().Index] = true
		}
	}
	var out []netip.Prefix
	routes, err := whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, netlink.RT_FILTER_TABLE) // table 0: all of them
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); ok && !own[r.LinkIndex] && r.Protocol != routeProtocol {
			out = append(out, p)
		}
	}
	addrs, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok && !own[a.LinkIndex] {
			out = append(out, p)
		}
	}
	return out, nil
}

// prefixOf is the block of a route or an address; none for the default route.
func prefixOf(ipn *net.IPNet) (netip.Prefix, bool) {
	if ipn == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(ipn.IP)
	ones, _ := ipn.Mask.Size()
	if a = a.Unmap(); !ok || ones == 0 {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, ones).Masked(), true
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

// Interface is a task's place in the network.
type Interface struct {
	Task    string
	Address netip.Addr
	// Address6 is what IPv6 gave for it; invalid: the task has no IPv6 address.
	Address6 netip.Addr
	// Own: the address is the task's own (network mode awsvpc), and other hosts reach it.
	Own bool
	// Groups are the security groups that such a task is in; none: nothing is filtered.
	Groups []string
}

// MAC follows from the IP address: neighbours' caches stay right when an address is used again.
func (i Interface) MAC() net.HardwareAddr {
	return append(net.HardwareAddr{0x02, 0x42}, i.Address.AsSlice()...)
}

// Adopt notes the address and ports of a task of a former process; call it before Up.
func (n *Network) Adopt(i Interface, forwards []Forward) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i.Address.IsValid() {
		n.used[i.Address] = i.Task
		n.interfaces[i.Address] = i
		if n.last.Less(i.Address) {
			n.last = i.Address
		}
	}
	if len(forwards) > 0 {
		n.forward[i.Task] = forwards
	}
}

// Release gives the task's address back.
func (n *Network) Release(task string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for a, t := range n.used {
		if t == task {
			delete(n.used, a)
			delete(n.interfaces, a)
		}
	}
}

func ipNet(p netip.Prefix, a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(p.Bits(), a.BitLen())}
}
