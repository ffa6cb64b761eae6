package addressing

import (
	"net/netip"
	"testing"
)

func TestIPv6FollowsFromIPv4(t *testing.T) {
	block := netip.MustParsePrefix("10.80.4.0/22")
	for _, c := range []struct{ name, got, want string }{
		{"the first subnet", Subnet6(0).String(), "fd8e:2f17:5b60::/48"},
		{"the second subnet", Subnet6(1).String(), "fd8e:2f17:5b61::/48"},
		{"that of other zones", Subnet6(Zones).String(), "fd8e:2f17:5b63::/48"},
		{"a host's block", Block6(block).String(), "fd8e:2f17:5b61:40::/64"},
		{"the last one's", Block6(netip.MustParsePrefix("10.127.255.240/28")).String(), "fd8e:2f17:5b63:ffff::/64"},
		{"the host", Host6(block).String(), "fd8e:2f17:5b61:40::a50:401"},
		{"a task", Address6(block, netip.MustParseAddr("10.80.4.9")).String(), "fd8e:2f17:5b61:40::a50:409"},
		{"its subnet", Subnet6Of(Address6(block, netip.MustParseAddr("10.80.4.9"))).String(), "fd8e:2f17:5b61::/48"},
	} {
		if c.got != c.want {
			t.Errorf("%s is %s, want %s", c.name, c.got, c.want)
		}
	}
}

// TestBlocksOfIPv6AreApart: hosts whose blocks do not overlap have different ones, in the subnet of their own, whatever size they are.
func TestBlocksOfIPv6AreApart(t *testing.T) {
	seen := map[netip.Prefix]netip.Prefix{}
	for bits := 20; bits <= 28; bits += 4 {
		half := Nth(VPC, VPC.Bits()+4, bits/4) // of each size in a part of its own
		for i := range Parts(half, bits) {
			p := Nth(half, bits, i)
			six := Block6(p)
			if other, taken := seen[six]; taken || !Within(p) {
				t.Fatalf("%s has the block %s, as %s has", p, six, other)
			}
			if seen[six] = p; !Subnet6Of(p.Addr()).Contains(six.Addr()) || !VPC6.Contains(six.Addr()) {
				t.Fatalf("%s of %s is not in the subnet %s", six, p, Subnet6Of(p.Addr()))
			}
		}
	}
}
