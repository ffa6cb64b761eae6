package addressing

import (
	"encoding/binary"
	"net/netip"
)

// VPC6 is the block of the cluster's network in IPv6: a unique local one (RFC 4193), whose number was drawn once. All of the plan of IPv6 follows
// from that of IPv4, so that nobody has to be told or to remember it: of a block's place in the VPC, ten bits after the VPC's own are its subnet and,
// in units of the smallest block that a host may have, its place in there.
//
//	10.64.0.0/10   fd8e:2f17:5b60::/44             the VPC
//	10.80.0.0/12   fd8e:2f17:5b61::/48             the subnet of a zone
//	10.80.4.0/22   fd8e:2f17:5b61:40::/64          the block of a host
//	10.80.4.9      fd8e:2f17:5b61:40::a50:409      a task
var VPC6 = netip.MustParsePrefix("fd8e:2f17:5b60::/44")

const (
	subnet6Bits = 48
	host6Bits   = 64
	unitBits    = 28 // of the smallest block, see Within
)

// Subnet6 is the block of IPv6 addresses of the i-th zone.
func Subnet6(i int) netip.Prefix { return Subnet6Of(Subnet(i).Addr()) }

// Subnet6Of is the subnet, in IPv6, that an address of the VPC is in, of either family.
func Subnet6Of(a netip.Addr) netip.Prefix {
	if a.Is4() {
		a = Block6(netip.PrefixFrom(a, unitBits)).Addr()
	}
	p, _ := a.Prefix(subnet6Bits)
	return p
}

// Block6 is the block of IPv6 addresses of the host that has a block of the VPC.
func Block6(p netip.Prefix) netip.Prefix {
	base, first := VPC.Addr().As4(), p.Masked().Addr().As4()
	place := (binary.BigEndian.Uint32(first[:]) - binary.BigEndian.Uint32(base[:])) >> (32 - unitBits)
	a := VPC6.Addr().As16()
	a[5] |= byte(place >> 16)
	binary.BigEndian.PutUint16(a[6:], uint16(place))
	return netip.PrefixFrom(netip.AddrFrom16(a), host6Bits)
}

// Address6 is the IPv6 address of who has an address of a host's block.
func Address6(block netip.Prefix, a netip.Addr) netip.Addr {
	six, four := Block6(block).Addr().As16(), a.As4()
	copy(six[12:], four[:])
	return netip.AddrFrom16(six)
}

// Host6 is the host's own IPv6 address of its block.
func Host6(p netip.Prefix) netip.Addr { return Address6(p, Host(p)) }
