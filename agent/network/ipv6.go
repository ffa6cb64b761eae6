package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/internal/addressing"
)

// family is one of the two kinds of addresses, and what the kernel's parts call it.
type family struct {
	word         string // nft's
	icmp         string // nft's
	otherICMP    int32  // the protocol that is ICMP in the other family
	table        nftables.TableFamily
	key          nftables.SetDatatype
	saddr, daddr field
	netlink      int
	forward      string // the setting by which the kernel routes
	forwardFile  string
}

var (
	ipv4 = &family{word: "ip", icmp: "icmp", otherICMP: unix.IPPROTO_ICMPV6, table: nftables.TableFamilyIPv4, key: nftables.TypeIPAddr,
		saddr: saddr, daddr: daddr, netlink: netlink.FAMILY_V4, forward: "net/ipv4/ip_forward", forwardFile: "ip_forward"}
	ipv6 = &family{word: "ip6", icmp: "icmpv6", otherICMP: unix.IPPROTO_ICMP, table: nftables.TableFamilyIPv6, key: nftables.TypeIP6Addr,
		saddr: saddr6, daddr: daddr6, netlink: netlink.FAMILY_V6, forward: "net/ipv6/conf/all/forwarding", forwardFile: "ip6_forward"}
)

func (f *family) is(a netip.Addr) bool { return a.Is6() == (f == ipv6) && !a.Is4In6() }

// address is the one that an interface has of the family; invalid: none.
func (f *family) address(i Interface) netip.Addr {
	if f == ipv6 {
		return i.Address6
	}
	return i.Address
}

// block is what a host has of the family, by its block of the VPC; host is its own address there.
func (f *family) block(p netip.Prefix) netip.Prefix {
	if f == ipv6 {
		return addressing.Block6(p)
	}
	return p
}

func (f *family) host(p netip.Prefix) netip.Addr {
	if f == ipv6 {
		return addressing.Host6(p)
	}
	return addressing.Host(p)
}

// nextHop is by which address on the link, or in the overlay, a host takes packets for its tasks. IPv6 knows no next hop of IPv4, and hosts need no
// IPv6 addresses for what their tasks have: each has a link-local one for that, see hop6.
func (f *family) nextHop(h neighbour) netip.Addr {
	switch {
	case f == ipv4 && h.overlay:
		return addressing.Host(h.block)
	case f == ipv4 || h.address.Is6() && !h.overlay:
		return h.address
	}
	return hop6(h.address, h.block)
}

// hop6 is the link-local address of a host for the traffic of its tasks. It follows from what the other hosts know of it: its address, which nobody else
// has on the link, and its block, which no other instance on the host has.
func hop6(host netip.Addr, block netip.Prefix) netip.Addr {
	a := [16]byte{0: 0xfe, 1: 0x80}
	if host.Is4() {
		four := host.As4()
		copy(a[8:], four[:])
	}
	first := addressing.Host(block).As4()
	copy(a[12:], first[:])
	return netip.AddrFrom16(a)
}

// lacksIPv6 says why tasks on this host can not have IPv6 addresses; empty: they can.
func lacksIPv6() string {
	for _, conf := range []string{"all", "default"} {
		b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + conf + "/disable_ipv6")
		if err != nil {
			return "the kernel has no IPv6"
		}
		if strings.TrimSpace(string(b)) != "0" {
			return "IPv6 is off: net.ipv6.conf." + conf + ".disable_ipv6"
		}
	}
	return ""
}

// LacksIPv6 says why tasks on this host can not have IPv6 addresses; empty: they can.
func (n *Network) LacksIPv6() string { return lacksIPv6() }

// IPv6 is the address that a task has besides the one that Allocate gave it; invalid: this host has no IPv6, or not all that it takes. Valid after Up.
func (n *Network) IPv6(ctx context.Context, a netip.Addr) netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	if lacksIPv6() != "" || !addressing.Within(n.subnet) {
		return netip.Addr{}
	}
	if err := n.ensure6(ctx); err != nil {
		n.cfg.Logger.Warn("a task gets no IPv6 address", "address", a, "error", err)
		return netip.Addr{}
	}
	return addressing.Address6(n.subnet, a)
}

// ensure6 brings IPv6 up with the first task that has an address of it: a host whose tasks have none is left as it was. n.mu is held.
func (n *Network) ensure6(ctx context.Context) error {
	if n.up6 {
		return n.passFirewall(ipv6)
	}
	unlock, err := lockHost(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return n.bringUp6()
}

// resume6 goes on with the tasks of a former process. n.mu and the host's lock are held.
func (n *Network) resume6() {
	for _, i := range n.interfaces {
		if !i.Address6.IsValid() {
			continue
		}
		if why := lacksIPv6(); why != "" {
			n.cfg.Logger.Warn("tasks have IPv6 addresses, and this host has none any more", "reason", why)
		} else if err := n.bringUp6(); err != nil {
			n.cfg.Logger.Error("tasks have IPv6 addresses, and this host cannot lead to them any more", "error", err)
		}
		return
	}
}

// bringUp6 is the part of Up that is about IPv6. n.mu and the host's lock are held.
func (n *Network) bringUp6() error {
	link, err := netlink.LinkByName(n.bridge)
	if err != nil {
		return fmt.Errorf("look for bridge %s: %w", n.bridge, err)
	}
	for name, value := range map[string]string{"disable_ipv6": "0", "accept_ra": "0", "accept_redirects": "0"} {
		if err := writeSysctl("net/ipv6/conf/"+n.bridge+"/"+name, value); err != nil {
			return err
		}
	}
	host := ipv6.host(n.subnet)
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(ipv6.block(n.subnet), host), Flags: unix.IFA_F_NODAD}); err != nil {
		return fmt.Errorf("IPv6 address of bridge %s: %w", n.bridge, err)
	}
	if err := enableForwarding(ipv6, n.bridge); err != nil {
		return err
	}
	if err := n.passFirewall(ipv6); err != nil {
		return err
	}
	if err := n.replaceTable6(); err != nil {
		return err
	}
	for _, i := range n.interfaces {
		if i.Address6.IsValid() {
			if err := n.introduce6(i); err != nil {
				return err
			}
		}
	}
	n.up6 = true
	if err := n.filter(); err != nil {
		return err
	}
	return n.connectPeers() // those of the overlay get entries of IPv6 too
}

// learningLinks are those that take routes from their routers as long as this kernel does not route.
func learningLinks() ([]string, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var names []string
	for _, l := range links {
		b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + l.Attrs().Name + "/accept_ra")
		own := strings.HasPrefix(l.Attrs().Name, "ng-") || strings.HasPrefix(l.Attrs().Name, "nx-")
		if err == nil && strings.TrimSpace(string(b)) == "1" && !own && l.Attrs().MasterIndex == 0 && l.Attrs().Flags&net.FlagLoopback == 0 {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}

func (n *Network) table6() *nftables.Table {
	return &nftables.Table{Name: "neargate-" + n.short, Family: nftables.TableFamilyIPv6}
}

// replaceTable6 makes the table of IPv6, in nft's words:
//
//	raw       prerouting: iif bridge, not from the block: drop
//	post      postrouting: from the block to elsewhere but to peers: masquerade
//	forward   into the bridge: only from it, answers, and from peers to tasks
//	redirects output: ICMPv6 redirects to the bridge: drop
//	set peers, own      blocks of other hosts, addresses here that they reach
//
// Host ports are of IPv4 alone, as network mode bridge is.
func (n *Network) replaceTable6() error {
	c, err := openTables()
	if err != nil {
		return err
	}
	t := n.table6()
	c.AddTable(t) // so that deleting cannot fail
	c.DelTable(t)
	c.AddTable(t)
	var own []nftables.SetElement
	for _, i := range n.interfaces {
		if i.Own && i.Address6.IsValid() {
			own = append(own, nftables.SetElement{Key: i.Address6.AsSlice()})
		}
	}
	if err := errors.Join(c.AddSet(n.addressSet6(ownSet), own), c.AddSet(n.addressSet6(peerSet), nil)); err != nil {
		return fmt.Errorf("nftables sets of IPv6: %w", err)
	}
	list, err := n.neighbours()
	if err == nil {
		err = n.addNeighbours6(c, list)
	}
	if err != nil {
		return err
	}
	chain := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) func(...[]expr.Any) {
		ch := c.AddChain(&nftables.Chain{Name: name, Table: t, Type: typ, Hooknum: hook, Priority: prio})
		return func(parts ...[]expr.Any) {
			c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: slices.Concat(parts...)})
		}
	}
	drop, accept := verdict(expr.VerdictDrop), verdict(expr.VerdictAccept)
	block := ipv6.block(n.subnet)
	from, into := iface(expr.MetaKeyIIFNAME, expr.CmpOpEq, n.bridge), iface(expr.MetaKeyOIFNAME, expr.CmpOpEq, n.bridge)

	raw := chain("raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	raw(from, address(saddr6, expr.CmpOpNeq, block), drop)

	post := chain("post", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	post(address(saddr6, expr.CmpOpEq, block), member(daddr6, peerSet), accept)
	post(address(saddr6, expr.CmpOpEq, block), iface(expr.MetaKeyOIFNAME, expr.CmpOpNeq, n.bridge), []expr.Any{&expr.Masq{}})

	forward := chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	forward(into, from, accept)
	forward(into, conntrack(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept)
	forward(into, member(saddr6, peerSet), member(daddr6, ownSet), accept)
	forward(into, drop)

	// The host would tell tasks that send one another something to do so directly, which they cannot.
	redirects := chain("redirects", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter)
	redirects(into, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{unix.IPPROTO_ICMPV6}},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1, DestRegister: 1},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{icmp6Redirect}},
	}, drop)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables table %s of IPv6: %w", t.Name, err)
	}
	return nil
}

const icmp6Redirect = 137

func (n *Network) addressSet6(name string) *nftables.Set {
	return &nftables.Set{Table: n.table6(), Name: name, KeyType: nftables.TypeIP6Addr, Interval: name == peerSet}
}

func (n *Network) addNeighbours6(c *nftables.Conn, list []neighbour) error {
	var blocks []netip.Prefix
	for _, h := range list {
		if h.ipv6 {
			blocks = append(blocks, ipv6.block(h.block))
		}
	}
	slices.SortFunc(blocks, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return addElements(c, n.addressSet6(peerSet), intervals(blocks))
}

// connectPeers6 is connectPeers for IPv6, which is nothing before this host has a task with an address of it. n.mu is held.
func (n *Network) connectPeers6(list []neighbour, overlay netlink.Link) error {
	if !n.up6 {
		return nil
	}
	c, err := openTables()
	if err != nil {
		return err
	}
	c.FlushSet(n.addressSet6(peerSet))
	if err := n.addNeighbours6(c, list); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables set of peers of IPv6: %w", err)
	}
	if err := errors.Join(n.ensureHop6(list), n.reconcileRoutes(ipv6, list, overlay)); err != nil {
		// A link of this host may have no IPv6 at all, or too small an MTU for it. What is reached over IPv4 is not to suffer from it.
		n.cfg.Logger.Warn("tasks of other hosts are not reached over IPv6", "error", err)
	}
	return nil
}

func (n *Network) disconnectPeers6() error {
	if lacksIPv6() != "" || !n.subnet.IsValid() {
		return nil
	}
	return errors.Join(n.reconcileRoutes(ipv6, nil, nil), n.ensureHop6(nil), n.leaveFirewall(ipv6))
}

// ensureHop6 gives the link on which neighbours reach this host the address by which they do; where there are none, it goes.
func (n *Network) ensureHop6(list []neighbour) error {
	var own netip.Addr
	link := 0
	if slices.ContainsFunc(list, func(h neighbour) bool { return h.ipv6 && !h.here && !h.overlay && h.address.Is4() }) {
		own = addrOf(n.underlay())
		have, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
		if err != nil {
			return fmt.Errorf("list addresses: %w", err)
		}
		i := slices.IndexFunc(have, func(a netlink.Addr) bool { return addrOf(a.IP) == own })
		if i < 0 {
			return fmt.Errorf("no link of this host has its address %s", own)
		}
		link = have[i].LinkIndex
	}
	have, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V6) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	first := n.gateway().As4()
	var errs []error
	for _, a := range have {
		ip := addrOf(a.IP)
		if b := ip.As16(); !ip.IsLinkLocalUnicast() || [4]byte(b[12:]) != first || a.LinkIndex == link && ip == hop6(own, n.subnet) {
			continue
		}
		l, err := netlink.LinkByIndex(a.LinkIndex)
		if err == nil {
			err = netlink.AddrDel(l, &a)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("delete address %s: %w", ip, err))
		}
	}
	if link == 0 {
		return errors.Join(errs...)
	}
	hop := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(hop6(own, n.subnet), 64), hop6(own, n.subnet)), Scope: unix.RT_SCOPE_LINK, Flags: unix.IFA_F_NODAD}
	l, err := netlink.LinkByIndex(link)
	if err == nil {
		err = netlink.AddrReplace(l, hop)
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("address %s: %w", hop.IPNet, err))
	}
	return errors.Join(errs...)
}

// attach6 gives a task's end of its link the IPv6 address. Who has which hardware address is said to both sides and asked of nobody: no address is
// looked for by others first, and none can be claimed.
func (n *Network) attach6(h *netlink.Handle, eth0 int, i Interface) error {
	n.mu.Lock()
	gateway := ipv6.host(n.subnet)
	n.mu.Unlock()
	bridge, err := netlink.LinkByName(n.bridge)
	if err != nil {
		return fmt.Errorf("look for bridge %s: %w", n.bridge, err)
	}
	link, err := h.LinkByIndex(eth0)
	if err == nil {
		err = h.AddrReplace(link, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(i.Address6, 128), i.Address6), Flags: unix.IFA_F_NODAD})
	}
	if err != nil {
		return fmt.Errorf("address %s of task %s: %w", i.Address6, i.Task, err)
	}
	err = h.NeighSet(&netlink.Neigh{LinkIndex: eth0, Family: unix.AF_INET6, State: netlink.NUD_PERMANENT, IP: gateway.AsSlice(), HardwareAddr: bridge.Attrs().HardwareAddr})
	if err == nil {
		err = h.RouteReplace(&netlink.Route{LinkIndex: eth0, Dst: ipNet(netip.PrefixFrom(gateway, 128), gateway)})
	}
	if err == nil {
		err = h.RouteReplace(&netlink.Route{LinkIndex: eth0, Gw: gateway.AsSlice()})
	}
	if err != nil {
		return fmt.Errorf("IPv6 routes of task %s: %w", i.Task, err)
	}
	return nil
}

// admit6 makes the table and the host know a task's address. n.mu is held.
func (n *Network) admit6(i Interface) error {
	c, err := openTables()
	if err == nil {
		err = c.SetAddElements(n.addressSet6(ownSet), []nftables.SetElement{{Key: i.Address6.AsSlice()}})
	}
	if err == nil {
		err = c.Flush()
	}
	if err != nil {
		return fmt.Errorf("nftables set of IPv6 with task %s: %w", i.Task, err)
	}
	return n.introduce6(i)
}

func (n *Network) introduce6(i Interface) error {
	if err := netlink.NeighSet(n.neighbour6(i)); err != nil {
		return fmt.Errorf("neighbour %s of task %s: %w", i.Address6, i.Task, err)
	}
	return nil
}

func (n *Network) forget6(i Interface) error {
	if err := netlink.NeighDel(n.neighbour6(i)); err != nil && !errors.Is(err, unix.ENOENT) && !isNoDevice(err) {
		return fmt.Errorf("neighbour %s of task %s: %w", i.Address6, i.Task, err)
	}
	return nil
}

func (n *Network) neighbour6(i Interface) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: n.index, Family: unix.AF_INET6, State: netlink.NUD_PERMANENT, IP: i.Address6.AsSlice(), HardwareAddr: i.MAC()}
}

// ports6 is the set of what may come through a bridge port in IPv6: the address of its task alone. What the kernel of a task asks and says of itself, for
// neighbours, routers and groups, is not heard.
func (n *Network) ports6() *nftables.Set {
	return &nftables.Set{Table: n.portTable(), Name: "ports6", KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIP6Addr), Concatenation: true}
}

func (n *Network) portKeys6(i Interface) []nftables.SetElement {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, n.veth(i.Task))
	return []nftables.SetElement{{Key: append(name, i.Address6.AsSlice()...)}}
}
