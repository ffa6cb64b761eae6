package network

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// The tables of faults, in nft's words. Those of a black hole and, where there is netem, of the others are of family inet:
//
//	hole    input or output: to the metadata endpoint, with a spared peer: accept; PROTOCOL dport PORT: drop
//	out     postrouting, after NAT, by a device that leads out: to the metadata endpoint, to a spared peer: accept; to a source: goto hit
//	hit     of flows that are not concerned: return; meta priority set CLASS, which leads packets into netem
//
// Where there is no netem, packet loss is one of family netdev:
//
//	out-0…  egress of a device: as above
//	hit     of flows that are not concerned: return; numgen random mod 100 < LOSS: drop
//
// It drops packets at the device, as netem does, and not on their way through IP: programs would be told of that (EPERM), as they are of what
// leaves for a black hole, on ECS too.

// blackhole drops what goes to a port.
func blackhole(c *nftables.Conn, t *nftables.Table, f runtime.Fault) {
	hook, peer4, peer6 := nftables.ChainHookOutput, daddr, daddr6
	if f.Ingress {
		hook, peer4, peer6 = nftables.ChainHookInput, saddr, saddr6
	}
	c.AddTable(t)
	ch := c.AddChain(&nftables.Chain{Name: "hole", Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityFilter})
	rule := ruleOf(c, ch)
	spare(rule, f, peer4, peer6)
	rule(l4proto(expr.CmpOpEq, protocolNumber(f.Protocol)), toPort(uint32(f.Port)), verdict(expr.VerdictDrop))
}

// impairment has the packets of a fault end as what says.
func impairment(c *nftables.Conn, t *nftables.Table, links []netlink.Link, f runtime.Fault, what []expr.Any) {
	c.AddTable(t)
	hit := c.AddChain(&nftables.Chain{Name: "hit", Table: t})
	rule := ruleOf(c, hit)
	if f.Flows < 100 {
		leaveFlows(rule, f.Flows)
	}
	rule(what)
	for i, l := range links {
		ch := &nftables.Chain{Table: t, Type: nftables.ChainTypeFilter}
		var by []expr.Any
		if t.Family == nftables.TableFamilyNetdev {
			ch.Name, ch.Hooknum, ch.Priority, ch.Device = fmt.Sprintf("out-%d", i), nftables.ChainHookEgress, nftables.ChainPriorityFilter, l.Attrs().Name
		} else {
			ch.Name, ch.Hooknum, ch.Priority = fmt.Sprintf("out-%d", i), nftables.ChainHookPostrouting, nftables.ChainPriorityRef(*nftables.ChainPriorityNATSource+50)
			by = iface(expr.MetaKeyOIFNAME, expr.CmpOpEq, l.Attrs().Name)
		}
		c.AddChain(ch)
		out := ruleOf(c, ch)
		rule := func(parts ...[]expr.Any) { out(append([][]expr.Any{by}, parts...)...) }
		spare(rule, f, daddr, daddr6)
		for _, p := range f.Sources {
			rule(of(p, daddr, daddr6), []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: hit.Name}})
		}
	}
}

func ruleOf(c *nftables.Conn, ch *nftables.Chain) func(...[]expr.Any) {
	return func(parts ...[]expr.Any) {
		var all []expr.Any
		for _, p := range parts {
			all = append(all, p...)
		}
		c.AddRule(&nftables.Rule{Table: ch.Table, Chain: ch, Exprs: all})
	}
}

// spare lets the metadata endpoint and spared peers be.
func spare(rule func(...[]expr.Any), f runtime.Fault, peer4, peer6 field) {
	if f.Metadata.IsValid() {
		rule(of(netip.PrefixFrom(f.Metadata.Addr(), f.Metadata.Addr().BitLen()), daddr, daddr6), l4proto(expr.CmpOpEq, unix.IPPROTO_TCP),
			toPort(uint32(f.Metadata.Port())), verdict(expr.VerdictAccept))
	}
	for _, p := range f.Spared {
		rule(of(p, peer4, peer6), verdict(expr.VerdictAccept))
	}
}

// of matches packets with an address of a block.
func of(p netip.Prefix, v4, v6 field) []expr.Any {
	if p.Addr().Is4() {
		return append(protocol(unix.ETH_P_IP), address(v4, expr.CmpOpEq, p)...)
	}
	return append(protocol(unix.ETH_P_IPV6), address(v6, expr.CmpOpEq, p)...)
}

func protocol(etherType uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(etherType)},
	}
}

func l4proto(op expr.CmpOp, number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: []byte{number}}}
}

func protocolNumber(name string) byte {
	if name == "udp" {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// leaveFlows returns for all but so many of 100 flows: a packet's addresses, protocol and ports say by their hash which it is of, the same ones for as
// long as the fault runs.
func leaveFlows(rule func(...[]expr.Any), concerned int) {
	// Registers are words of four bytes, from number 8 on.
	const first, result = 8, 8 + 12
	for _, ip := range []struct {
		etherType       uint16
		offset, size    uint32
		protocol, ports uint32 // the registers behind the addresses
	}{{unix.ETH_P_IP, 12, 8, first + 2, first + 3}, {unix.ETH_P_IPV6, 8, 32, first + 8, first + 9}} {
		addresses := append(protocol(ip.etherType),
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: ip.offset, Len: ip.size, DestRegister: first},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: ip.protocol})
		rest := func(length uint32) []expr.Any {
			return append([]expr.Any{
				&expr.Hash{SourceRegister: first, DestRegister: result, Length: length, Modulus: 100, Type: expr.HashTypeJenkins},
			}, compare(result, expr.CmpOpGte, concerned)...)
		}
		for _, number := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			rule(l4proto(expr.CmpOpEq, number), addresses,
				[]expr.Any{&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 4, DestRegister: ip.ports}},
				rest(ip.size+8), verdict(expr.VerdictReturn))
		}
		rule(l4proto(expr.CmpOpNeq, unix.IPPROTO_TCP), l4proto(expr.CmpOpNeq, unix.IPPROTO_UDP), addresses, rest(ip.size+4), verdict(expr.VerdictReturn))
	}
}

// compare holds the number in a register, which is of the machine's byte order, against n.
func compare(register uint32, op expr.CmpOp, n int) []expr.Any {
	return []expr.Any{
		&expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: op, Register: register, Data: binaryutil.BigEndian.PutUint32(uint32(n))},
	}
}

// lose drops so many of 100 packets.
func lose(percent int) []expr.Any {
	all := append([]expr.Any{&expr.Numgen{Register: 1, Modulus: 100, Type: unix.NFT_NG_RANDOM}}, compare(1, expr.CmpOpLt, percent)...)
	return append(all, verdict(expr.VerdictDrop)...)
}
