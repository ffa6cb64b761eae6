package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/internal/addressing"
)

// routeProtocol marks our routes (rtnetlink(7): the numbers above 4 are programs' own).
const routeProtocol = 78

// vxlanOverhead is what outer Ethernet, IPv4, UDP and VXLAN headers take of a packet.
const vxlanOverhead = 50

// reconcileRoutes makes this instance's routes those to the list. They are ours by protocol and by source: the instance's own address, by which
// other hosts know this one.
func (n *Network) reconcileRoutes(f *family, list []neighbour, overlay netlink.Link) error {
	want := map[netip.Prefix]*netlink.Route{}
	for _, h := range list {
		if h.here || f == ipv6 && !h.ipv6 {
			continue
		}
		block := f.block(h.block)
		r := &netlink.Route{
			Dst: ipNet(block, block.Addr()), Gw: f.nextHop(h).AsSlice(), LinkIndex: h.link, Flags: int(netlink.FLAG_ONLINK),
			Protocol: routeProtocol, Src: f.host(n.subnet).AsSlice(),
		}
		if h.overlay {
			r.LinkIndex = overlay.Attrs().Index
		}
		want[block] = r
	}
	have, err := whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(f.netlink, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return fmt.Errorf("list routes to peers: %w", err)
	}
	var errs []error
	for _, r := range have {
		p, ok := prefixOf(r.Dst)
		if !ok || addrOf(r.Src) != f.host(n.subnet) {
			continue // another instance's
		}
		if w := want[p]; w != nil && w.LinkIndex == r.LinkIndex && w.Gw.Equal(r.Gw) {
			delete(want, p)
			continue
		}
		if want[p] != nil {
			continue // replaced below
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("delete route to %s: %w", p, err))
		}
	}
	for p, r := range want {
		if err := netlink.RouteReplace(r); err != nil {
			errs = append(errs, fmt.Errorf("route to %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// ensureOverlay makes the VXLAN device and its entries those for the list; where none of it needs one, the device goes. The device learns
// nothing: who is where is what the set of peers says.
func (n *Network) ensureOverlay(list []neighbour) (netlink.Link, error) {
	mtu := 0
	for _, h := range list {
		if !h.overlay {
			continue
		}
		l, err := netlink.LinkByIndex(h.link)
		if err != nil {
			return nil, fmt.Errorf("link to host %s: %w", h.address, err)
		}
		if m := l.Attrs().MTU - vxlanOverhead; mtu == 0 || m < mtu {
			mtu = m
		}
	}
	link, err := netlink.LinkByName(n.overlay)
	if err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, fmt.Errorf("look for %s: %w", n.overlay, err)
	}
	if v, ok := link.(*netlink.Vxlan); err == nil && (mtu == 0 || !ok || v.Port != int(n.cfg.VXLANPort) || v.VxlanId != int(n.cfg.VXLANID) || v.HardwareAddr.String() != vtep(n.gateway()).String() || !v.SrcAddr.Equal(n.underlay())) {
		if err := netlink.LinkDel(link); err != nil {
			return nil, fmt.Errorf("delete %s: %w", n.overlay, err)
		}
		link = nil
	} else if err != nil {
		link = nil
	}
	if mtu == 0 {
		return nil, nil
	}
	if link == nil {
		v := &netlink.Vxlan{
			LinkAttrs: netlink.LinkAttrs{Name: n.overlay, MTU: mtu, HardwareAddr: vtep(n.gateway())},
			VxlanId:   int(n.cfg.VXLANID), Port: int(n.cfg.VXLANPort), UDPCSum: true,
			SrcAddr: n.underlay(), // by which the others know this host
		}
		if err := netlink.LinkAdd(v); err != nil {
			return nil, fmt.Errorf("add VXLAN %d at port %d: %w", n.cfg.VXLANID, n.cfg.VXLANPort, err)
		}
		if link, err = netlink.LinkByName(n.overlay); err != nil {
			return nil, fmt.Errorf("add %s: %w", n.overlay, err)
		}
	}
	if link.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return nil, fmt.Errorf("MTU of %s: %w", n.overlay, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("%s up: %w", n.overlay, err)
	}
	return link, n.reconcileEntries(list, link.Attrs().Index)
}

// underlay is this host's address in the set of peers; nil: whichever the way there has.
func (n *Network) underlay() net.IP {
	for _, p := range n.peers {
		if a, err := netip.ParseAddr(p.GetAddress()); err == nil && p.GetCidr() == n.subnet.String() && !a.IsLoopback() {
			return a.AsSlice()
		}
	}
	return nil
}

// reconcileEntries says to the device which hardware address a host has in the overlay, and at which host's address that is.
func (n *Network) reconcileEntries(list []neighbour, index int) error {
	want := map[string]netlink.Neigh{}
	for _, h := range list {
		if !h.overlay {
			continue
		}
		first := addressing.Host(h.block)
		for _, e := range []netlink.Neigh{
			{LinkIndex: index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, IP: ipv4.nextHop(h).AsSlice(), HardwareAddr: vtep(first)},
			{LinkIndex: index, Family: unix.AF_INET6, State: netlink.NUD_PERMANENT, IP: ipv6.nextHop(h).AsSlice(), HardwareAddr: vtep(first)},
			{LinkIndex: index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF, IP: h.address.AsSlice(), HardwareAddr: vtep(first)},
		} {
			if e.Family != unix.AF_INET6 || h.ipv6 && n.up6 {
				want[entry(e)] = e
			}
		}
	}
	var errs []error
	families := []int{unix.AF_INET, unix.AF_BRIDGE}
	if lacksIPv6() == "" {
		families = append(families, unix.AF_INET6)
	}
	for _, family := range families {
		have, err := whole(func() ([]netlink.Neigh, error) { return netlink.NeighList(index, family) })
		if err != nil {
			return fmt.Errorf("entries of %s: %w", n.overlay, err)
		}
		for _, e := range have {
			e.Family = family
			if _, wanted := want[entry(e)]; wanted {
				delete(want, entry(e))
				continue
			}
			if e.State&netlink.NUD_PERMANENT == 0 {
				continue
			}
			if err := netlink.NeighDel(&e); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("delete entry %s of %s: %w", entry(e), n.overlay, err))
			}
		}
	}
	for _, e := range want {
		if err := netlink.NeighSet(&e); err != nil && e.Family == unix.AF_INET6 {
			n.cfg.Logger.Warn("tasks of another host are not reached over IPv6", "error", err) // nor is there a route: see connectPeers6
		} else if err != nil {
			errs = append(errs, fmt.Errorf("entry %s of %s: %w", entry(e), n.overlay, err))
		}
	}
	return errors.Join(errs...)
}

func entry(e netlink.Neigh) string {
	return fmt.Sprintf("%d %s at %s", e.Family, e.IP, e.HardwareAddr)
}

// vtep is the hardware address that a host has in the overlay: it follows from the host's first address, so that nobody has to be told.
func vtep(host netip.Addr) net.HardwareAddr {
	return append(net.HardwareAddr{0x02, 0x4e}, host.AsSlice()...)
}
