// Package addressing is the plan of the addresses that tasks have: the block that every default VPC shows, its parts by availability
// zone, which are the subnets, and how much of them a host gets. Control plane and hosts both follow it.
package addressing

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// VPC is the block of the cluster's network.
var VPC = netip.MustParsePrefix("10.64.0.0/10")

const (
	subnetBits = 12
	// HostBits is the length of a host's block: 1,021 addresses for tasks, as many as its bridge has ports; 1,024 hosts in a zone.
	HostBits = 22
)

// zoneLetters end the names of the availability zones.
const zoneLetters = "abc"

// Zones is the number of availability zones of a region.
const Zones = len(zoneLetters)

// Letter ends the name of the i-th zone of a region.
func Letter(i int) string { return zoneLetters[i : i+1] }

// Subnet is the block of the i-th zone. The one after the last zone is for hosts whose zone is none of them.
func Subnet(i int) netip.Prefix { return Nth(VPC, subnetBits, i) }

// SubnetOf is the block of a zone, by its name.
func SubnetOf(zone string) netip.Prefix {
	for i := range Zones {
		if zone != "" && zone[len(zone)-1:] == Letter(i) {
			return Subnet(i)
		}
	}
	return Subnet(Zones)
}

// Nth is the i-th part of length bits of a block.
func Nth(p netip.Prefix, bits, i int) netip.Prefix {
	a := p.Masked().Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+uint32(i)<<(32-bits))
	return netip.PrefixFrom(netip.AddrFrom4(a), bits)
}

// Parts is how many parts of length bits a block has.
func Parts(p netip.Prefix, bits int) int { return 1 << (bits - p.Bits()) }

// PartsWithin are the parts of length bits of block that p touches: n from the first on.
func PartsWithin(block netip.Prefix, bits int, p netip.Prefix) (first, n int) {
	switch {
	case !block.Overlaps(p):
		return 0, 0
	case p.Bits() <= block.Bits():
		return 0, Parts(block, bits)
	}
	a, b := block.Addr().As4(), p.Addr().As4()
	first = int(binary.BigEndian.Uint32(b[:])-binary.BigEndian.Uint32(a[:])) >> (32 - bits)
	return first, 1 << max(0, bits-p.Bits())
}

// Leads says whether one of the routes is to a part of p: a packet to there goes its way and not p's. A route to more than p does no harm.
func Leads(routes []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(routes, func(r netip.Prefix) bool { return r.Bits() >= p.Bits() && r.Overlaps(p) })
}

// Within says whether a host may have p: a part of the VPC that is no larger than hosts of the first versions had.
func Within(p netip.Prefix) bool {
	return p.IsValid() && p.Addr().Is4() && VPC.Contains(p.Addr()) && p.Bits() >= 20 && p.Bits() <= 28 && p == p.Masked()
}

// Host is the first address of a host's block, which is the host's own.
func Host(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }
