package capacity

import (
	"fmt"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/addressing"
)

// place gives a node its part of the cluster's network. What it has it keeps: its tasks live there. A new block, of that length, overlaps no
// other node's, whatever their lengths, and nothing that any host leads elsewhere. When there is none left, a node that is DOWN and has no tasks gives its own up.
func place(tx *state.Tx, n *controlplane.Node, asked *agentapi.HostNetwork, old *controlplane.Node, bits int) error {
	if asked == nil {
		return nil
	}
	n.Network = proto.CloneOf(asked)
	var others, avoid []netip.Prefix
	var idle []*controlplane.Node
	for o := range controlplane.Nodes.Scan(tx, state.K()) {
		if o.Id == n.Id || o.Network == nil {
			continue
		}
		others = append(others, prefixes(o.Network.Cidr)...)
		for _, p := range prefixes(o.Network.Taken...) {
			if p.Bits() > addressing.VPC.Bits() { // one of all that there is concerns that host alone
				avoid = append(avoid, p)
			}
		}
		if o.Status == NodeDown {
			idle = append(idle, o)
		}
	}
	taken := prefixes(asked.Taken...)
	for _, p := range prefixes(asked.Cidr, old.GetNetwork().GetCidr()) {
		if addressing.Within(p) && !overlaps(others, p) && !addressing.Leads(taken, p) {
			n.Network.Cidr = p.String()
			return nil
		}
	}
	zone := addressing.SubnetOf(n.Attributes["ecs.availability-zone"])
	avoid = slices.Concat(others, avoid, taken)
	if p, ok := free(avoid, bits, zone, addressing.VPC); ok {
		n.Network.Cidr = p.String()
		return nil
	}
	for _, o := range idle {
		busy := false
		for range controlplane.LiveTasksByNode.Scan(tx, state.K(o.Id)) {
			busy = true
			break
		}
		p := prefixes(o.Network.Cidr)
		if busy || len(p) == 0 || overlaps(taken, p[0]) {
			continue
		}
		o = proto.CloneOf(o)
		n.Network.Cidr, o.Network.Cidr = o.Network.Cidr, ""
		controlplane.Nodes.Put(tx, o)
		return nil
	}
	return fmt.Errorf("no block of %s is left for the tasks of this host", addressing.VPC)
}

// free is the first part of length bits of the first block that has one which overlaps none of avoid.
func free(avoid []netip.Prefix, bits int, blocks ...netip.Prefix) (netip.Prefix, bool) {
	for _, b := range blocks {
		taken := make([]bool, addressing.Parts(b, bits))
		for _, a := range avoid {
			first, n := addressing.PartsWithin(b, bits, a)
			for i := range n {
				taken[first+i] = true
			}
		}
		if i := slices.Index(taken, false); i >= 0 {
			return addressing.Nth(b, bits, i), true
		}
	}
	return netip.Prefix{}, false
}

func overlaps(list []netip.Prefix, p netip.Prefix) bool { return slices.ContainsFunc(list, p.Overlaps) }

// prefixes are those of texts that are blocks of IPv4 addresses; what a host says is not trusted.
func prefixes(texts ...string) (list []netip.Prefix) {
	for _, t := range texts {
		if p, err := netip.ParsePrefix(t); err == nil && p.Addr().Is4() {
			list = append(list, p.Masked())
		}
	}
	return list
}
