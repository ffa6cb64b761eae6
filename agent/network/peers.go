package network

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/addressing"
)

// Modes in which a host's tasks are reached.
const (
	ModeRoute = "route"
	ModeVXLAN = "vxlan"
)

// The sets about other hosts, and about this one's tasks that they reach.
const (
	peerSet     = "peers"
	underlaySet = "underlay"
	ownSet      = "own"
	hostSet     = "hosts" // in the table of security groups
)

// neighbour is another host whose tasks this one's have to reach.
type neighbour struct {
	node    string
	address netip.Addr // of the host
	block   netip.Prefix
	link    int // through which the host is reached
	overlay bool
	here    bool // it is in this network namespace: the kernel knows the way
	ipv6    bool // its tasks may have IPv6 addresses
}

// connectPeers makes routes, VXLAN entries and sets what the set of peers says, and removes what else an earlier one, or an earlier
// process, has left. n.mu is held.
func (n *Network) connectPeers() error {
	list, err := n.neighbours()
	if err != nil {
		return err
	}
	c, err := openTables()
	if err != nil {
		return err
	}
	if err := n.fillPeerSets(c, list); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables sets of peers: %w", err)
	}
	overlay, err := n.ensureOverlay(list)
	if err != nil {
		return err
	}
	return errors.Join(n.reconcileRoutes(ipv4, list, overlay), n.connectPeers6(list, overlay))
}

// disconnectPeers removes all of it. n.mu is held.
func (n *Network) disconnectPeers() error {
	_, err := n.ensureOverlay(nil)
	return errors.Join(err, n.reconcileRoutes(ipv4, nil, nil), n.disconnectPeers6())
}

// neighbours are the peers that can be reached, each with the way to it, in the order of their blocks.
func (n *Network) neighbours() ([]neighbour, error) {
	foreign, err := n.taken()
	if err != nil {
		return nil, err
	}
	var list []neighbour
	for id, p := range n.peers {
		block, err := netip.ParsePrefix(p.GetCidr())
		address, aerr := netip.ParseAddr(p.GetAddress())
		if err != nil || aerr != nil || !addressing.Within(block) {
			n.cfg.Logger.Warn("a peer without a proper address or block is not reached", "node", id, "address", p.GetAddress(), "block", p.GetCidr())
			continue
		}
		if block == n.subnet {
			continue // this host
		}
		h := neighbour{node: id, address: address, block: block, ipv6: p.Ipv6}
		switch err := n.way(&h, p); {
		case err != nil:
			n.cfg.Logger.Warn("the tasks of a host are not reached", "node", id, "host", address, "error", err)
			continue
		case !h.here && addressing.Leads(foreign, block):
			n.cfg.Logger.Warn("the tasks of a host are not reached: this host leads their addresses elsewhere", "node", id, "block", block)
			continue
		}
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b neighbour) int {
		return cmp.Or(a.block.Addr().Compare(b.block.Addr()), cmp.Compare(a.node, b.node))
	})
	return slices.CompactFunc(list, func(a, b neighbour) bool { return a.block == b.block }), nil
}

// way decides how a host is reached: by a plain route when it is on the same link, else through VXLAN, unless one of the two wants it
// otherwise.
func (n *Network) way(h *neighbour, p *agentapi.Peer) error {
	routes, err := netlink.RouteGet(h.address.AsSlice())
	if err != nil || len(routes) == 0 {
		return fmt.Errorf("there is no route to %s: %w", h.address, err)
	}
	r := routes[0]
	h.link, h.here = r.LinkIndex, r.Type == unix.RTN_LOCAL
	onLink := r.Gw == nil && r.Via == nil
	switch {
	case h.here:
	case n.cfg.Mode == ModeVXLAN || p.Mode == ModeVXLAN:
		h.overlay = true
	case n.cfg.Mode == ModeRoute || p.Mode == ModeRoute:
		if !onLink {
			return errors.New("plain routes were asked for, but it is not on a link of this host")
		}
	default:
		h.overlay = !onLink
	}
	if h.overlay && (p.VxlanPort != uint32(n.cfg.VXLANPort) || p.VxlanId != n.cfg.VXLANID) {
		return fmt.Errorf("it speaks VXLAN %d at port %d, this host %d at port %d", p.VxlanId, p.VxlanPort, n.cfg.VXLANID, n.cfg.VXLANPort)
	}
	return nil
}

func (n *Network) addressSet(name string) *nftables.Set {
	return &nftables.Set{Table: n.table(), Name: name, KeyType: nftables.TypeIPAddr, Interval: name == peerSet}
}

// addPeerSets is part of the table's transaction.
func (n *Network) addPeerSets(c *nftables.Conn) error {
	for _, name := range []string{peerSet, underlaySet, ownSet} {
		var elements []nftables.SetElement
		if name == ownSet {
			elements = n.ownElements()
		}
		if err := c.AddSet(n.addressSet(name), elements); err != nil {
			return fmt.Errorf("nftables set %s: %w", name, err)
		}
	}
	list, err := n.neighbours()
	if err != nil {
		return err
	}
	return n.addNeighbours(c, list)
}

func (n *Network) ownElements() (list []nftables.SetElement) {
	for a, i := range n.interfaces {
		if i.Own {
			list = append(list, nftables.SetElement{Key: a.AsSlice()})
		}
	}
	return list
}

func (n *Network) fillPeerSets(c *nftables.Conn, list []neighbour) error {
	for _, name := range []string{peerSet, underlaySet} {
		c.FlushSet(n.addressSet(name))
	}
	return n.addNeighbours(c, list)
}

func (n *Network) addNeighbours(c *nftables.Conn, list []neighbour) error {
	var blocks []netip.Prefix
	var underlay []netip.Addr
	for _, h := range list {
		blocks = append(blocks, h.block)
		underlay = append(underlay, h.address)
	}
	slices.SortFunc(underlay, netip.Addr.Compare)
	for name, elements := range map[string][]nftables.SetElement{
		peerSet: intervals(blocks), underlaySet: addresses(slices.Compact(underlay)),
	} {
		if err := addElements(c, n.addressSet(name), elements); err != nil {
			return err
		}
	}
	return nil
}

// addElements in portions that a netlink attribute has room for, each of whole intervals.
func addElements(c *nftables.Conn, set *nftables.Set, elements []nftables.SetElement) error {
	for part := range slices.Chunk(elements, 500) {
		if err := c.SetAddElements(set, part); err != nil {
			return fmt.Errorf("nftables set %s: %w", set.Name, err)
		}
	}
	return nil
}

func addresses(list []netip.Addr) (elements []nftables.SetElement) {
	for _, a := range list {
		elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
	}
	return elements
}

// intervals has sorted blocks that do not overlap as the kernel wants them: a beginning and an end each, one that follows the other at once
// being the same interval.
func intervals(blocks []netip.Prefix) (elements []nftables.SetElement) {
	for _, b := range blocks {
		start, end := b.Addr().AsSlice(), beyond(b).AsSlice()
		if last := len(elements) - 1; last > 0 && bytes.Equal(elements[last].Key, start) {
			elements[last].Key = end
			continue
		}
		elements = append(elements, nftables.SetElement{Key: start}, nftables.SetElement{Key: end, IntervalEnd: true})
	}
	return elements
}

// beyond is the first address after a block.
func beyond(p netip.Prefix) netip.Addr {
	last := p.Masked().Addr().AsSlice()
	for i, m := range net.CIDRMask(p.Bits(), len(last)*8) {
		last[i] |= ^m
	}
	a, _ := netip.AddrFromSlice(last)
	return a.Next()
}

// member matches packets whose address is in a set of the packet's table.
func member(f field, set string) []expr.Any {
	return []expr.Any{f.load(), &expr.Lookup{SourceRegister: 1, SetName: set}}
}

func notMember(f field, set string) []expr.Any {
	m := member(f, set)
	m[1].(*expr.Lookup).Invert = true
	return m
}

// ofOverlay matches this cluster's VXLAN packets, and no others of the same port.
func (n *Network) ofOverlay() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 1},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: binary.BigEndian.AppendUint16(nil, n.cfg.VXLANPort)},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 12, Len: 3, DestRegister: 1},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: binary.BigEndian.AppendUint32(nil, n.cfg.VXLANID)[1:]},
	}
}
