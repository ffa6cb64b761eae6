package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	mdnetlink "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The table, in nft's words:
//
//	map tcp, map udp { type inet_service : ipv4_addr . inet_service }          one element a forwarded host port
//	raw     prerouting:  iif bridge, to 127.0.0.0/8 or the metadata address, or not from the subnet: drop
//	pre     prerouting, out output: to a local address: dnat to tcp|udp dport map
//	post    postrouting: from 127.0.0.0/8 to the bridge, from the subnet to elsewhere but to peers, hairpin: masquerade
//	forward: into the bridge: only from it, answers, forwarded ports and from peers to tasks' own addresses
//	mark    prerouting, after pre: from the bridge to a forwarded port: mark
//	redirects output: ICMP redirects to the bridge: drop
//	in      input: VXLAN packets of this cluster but from its hosts: drop
//	set peers, underlay, own                                                   blocks of other hosts, these themselves, addresses here that they reach
func (n *Network) replaceTable() error {
	c, err := openTables()
	if err != nil {
		return err
	}
	t := n.table()
	c.AddTable(t) // so that deleting cannot fail
	c.DelTable(t)
	c.AddTable(t)
	for _, proto := range []string{"tcp", "udp"} {
		var elements []nftables.SetElement
		for _, fs := range n.forward {
			for _, f := range fs {
				if f.Protocol == proto {
					elements = append(elements, f.element())
				}
			}
		}
		if err := c.AddSet(n.ports(proto), elements); err != nil {
			return fmt.Errorf("nftables map %s: %w", proto, err)
		}
	}
	if err := n.addPeerSets(c); err != nil {
		return err
	}

	chain := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) func(...[]expr.Any) {
		ch := c.AddChain(&nftables.Chain{Name: name, Table: t, Type: typ, Hooknum: hook, Priority: prio})
		return func(parts ...[]expr.Any) {
			var all []expr.Any
			for _, p := range parts {
				all = append(all, p...)
			}
			c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: all})
		}
	}
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	drop, accept := verdict(expr.VerdictDrop), verdict(expr.VerdictAccept)
	masquerade := []expr.Any{&expr.Masq{}}

	raw := chain("raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	raw(iface(expr.MetaKeyIIFNAME, expr.CmpOpEq, n.bridge), address(daddr, expr.CmpOpEq, loopback), drop)
	raw(iface(expr.MetaKeyIIFNAME, expr.CmpOpEq, n.bridge), address(saddr, expr.CmpOpNeq, n.subnet), drop)

	if !n.cfg.AllowMetadata { // here, since the host may have the address itself
		raw(iface(expr.MetaKeyIIFNAME, expr.CmpOpEq, n.bridge), address(daddr, expr.CmpOpEq, instanceMetadata), drop)
	}

	for name, hook := range map[string]*nftables.ChainHook{"pre": nftables.ChainHookPrerouting, "out": nftables.ChainHookOutput} {
		rule := chain(name, nftables.ChainTypeNAT, hook, nftables.ChainPriorityNATDest)
		for proto, number := range map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP} {
			rule([]expr.Any{
				&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
				&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{number}},
				&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 1},
				&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: proto},
				// Register 9 is the second 32-bit word of what the map put into register 1: the port.
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegAddrMax: 1, RegProtoMin: 9, RegProtoMax: 9, Specified: true},
			})
		}
	}

	mark := chain("mark", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRef(*nftables.ChainPriorityNATDest+1))
	mark(iface(expr.MetaKeyIIFNAME, expr.CmpOpEq, n.bridge), conntrack(expr.CtKeySTATUS, statusDNAT), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(^uint32(forwardedMark)), Xor: binaryutil.NativeEndian.PutUint32(forwardedMark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: 1},
	})

	post := chain("post", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	post(address(saddr, expr.CmpOpEq, loopback), iface(expr.MetaKeyOIFNAME, expr.CmpOpEq, n.bridge), masquerade)
	post(address(saddr, expr.CmpOpEq, n.subnet), member(daddr, peerSet), accept)
	post(address(saddr, expr.CmpOpEq, n.subnet), iface(expr.MetaKeyOIFNAME, expr.CmpOpNeq, n.bridge), masquerade)
	post(address(saddr, expr.CmpOpEq, n.subnet), iface(expr.MetaKeyOIFNAME, expr.CmpOpEq, n.bridge), conntrack(expr.CtKeySTATUS, statusDNAT), masquerade)

	forward := chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	into := iface(expr.MetaKeyOIFNAME, expr.CmpOpEq, n.bridge)
	forward(into, iface(expr.MetaKeyIIFNAME, expr.CmpOpEq, n.bridge), accept)
	forward(into, conntrack(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept)
	forward(into, conntrack(expr.CtKeySTATUS, statusDNAT), accept)
	forward(into, member(saddr, peerSet), member(daddr, ownSet), accept)
	forward(into, drop)

	in := chain("in", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	in(n.ofOverlay(), notMember(saddr, underlaySet), drop)

	// The host would tell tasks that send one another something to do so directly, which they cannot.
	redirects := chain("redirects", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter)
	redirects(into, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{unix.IPPROTO_ICMP}},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1, DestRegister: 1},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{icmpRedirect}},
	}, drop)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables table %s: %w", t.Name, err)
	}
	return nil
}

const icmpRedirect = 5

// forwardedMark is the bit of packets to a forwarded port. Where br_netfilter is loaded (Docker does that), those from one task to another
// cross the bridge, and nothing else tells them from what the one sends the other past the host.
const forwardedMark = 1 << 22

// statusDNAT is IPS_DST_NAT: the connection's destination was translated.
const statusDNAT = 1 << 5

func (n *Network) deleteTables() error {
	c, err := openTables()
	if err != nil {
		return err
	}
	for _, t := range []*nftables.Table{n.table(), n.filterTable(ipv4), n.portTable(), n.table6(), n.filterTable(ipv6)} {
		if t.Family == nftables.TableFamilyIPv6 && lacksIPv6() != "" {
			continue
		}
		c.AddTable(t) // so that deleting cannot fail
		c.DelTable(t)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("delete nftables tables: %w", err)
	}
	return nil
}

// transactionBuffer bounds one transaction's messages, and the kernel's answers to each of them.
const transactionBuffer = 32 << 20

// openTables has room for what thousands of peers, addresses and rules take in one transaction.
func openTables() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.WithSockOptions(func(c *mdnetlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(transactionBuffer), c.SetReadBuffer(transactionBuffer))
	}))
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return c, nil
}

func (n *Network) table() *nftables.Table {
	return &nftables.Table{Name: "neargate-" + n.short, Family: nftables.TableFamilyIPv4}
}

func (n *Network) ports(proto string) *nftables.Set {
	data := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	return &nftables.Set{Table: n.table(), Name: proto, IsMap: true, KeyType: nftables.TypeInetService, DataType: data}
}

func (f Forward) element() nftables.SetElement {
	key := binary.BigEndian.AppendUint16(nil, f.HostPort)
	val := binary.BigEndian.AppendUint16(f.Address.AsSlice(), f.ContainerPort)
	return nftables.SetElement{Key: key, Val: append(val, 0, 0)}
}

// Forward leads host ports to the task; repeated it changes nothing.
func (n *Network) Forward(task string, forwards []Forward) error {
	if len(forwards) == 0 {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	for _, f := range forwards {
		if err := c.SetAddElements(n.ports(f.Protocol), []nftables.SetElement{f.element()}); err != nil {
			return fmt.Errorf("forward port %d: %w", f.HostPort, err)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("forward ports of task %s: %w", task, err)
	}
	n.forward[task] = forwards
	return nil
}

// Unforward ends what Forward or Adopt began.
func (n *Network) Unforward(task string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	forwards := n.forward[task]
	delete(n.forward, task)
	if !n.up {
		return nil // the table will be made without them
	}
	udp := false
	for _, f := range forwards {
		udp = udp || f.Protocol == "udp"
		c, err := nftables.New()
		if err != nil {
			return fmt.Errorf("nftables: %w", err)
		}
		if err := c.SetDeleteElements(n.ports(f.Protocol), []nftables.SetElement{{Key: f.element().Key}}); err != nil {
			return fmt.Errorf("end forwarding of port %d: %w", f.HostPort, err)
		}
		if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("end forwarding of port %d: %w", f.HostPort, err)
		}
	}
	if udp {
		// Without connections of their own, clients would go on talking to the old address.
		gone := &netlink.ConntrackFilter{}
		if err := gone.AddIP(netlink.ConntrackReplySrcIP, forwards[0].Address.AsSlice()); err != nil {
			return err
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, gone); err != nil {
			return fmt.Errorf("forget connections of task %s: %w", task, err)
		}
	}
	return nil
}

// field is an address in the header of a packet.
type field struct{ offset, size uint32 }

var (
	saddr, daddr   = field{12, 4}, field{16, 4}
	saddr6, daddr6 = field{8, 16}, field{24, 16}
)

func (f field) load() *expr.Payload {
	return &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.size, DestRegister: 1}
}

func iface(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: b}}
}

func address(f field, op expr.CmpOp, p netip.Prefix) []expr.Any {
	return []expr.Any{
		f.load(),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: f.size, Mask: net.CIDRMask(p.Bits(), int(f.size)*8), Xor: make([]byte, f.size)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

func conntrack(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }

// HasTable says whether the instance's nftables table exists.
func (n *Network) HasTable() (bool, error) { return hasTable(n.table().Name) }

func hasTable(name string) (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyIPv4)
	for _, t := range tables {
		if t.Name == name {
			return true, nil
		}
	}
	return false, err
}
