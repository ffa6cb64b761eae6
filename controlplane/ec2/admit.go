package ec2

import (
	"net/netip"
	"slices"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/addressing"
)

// Tables are those that Admits looks at.
func (Network) Tables() []state.TableInfo { return []state.TableInfo{SecurityGroups} }

// Admits says whether tasks in groups let TCP to a port in that comes from members of others or from an address in one of the subnets: a rule for a
// block counts when all of a subnet is in it.
func (n Network) Admits(r state.Reader, account, region string, groups, others, subnets []string, port uint32) bool {
	scope := controlplane.Scope{Account: account, Region: region}
	for _, id := range groups {
		if id == controlplane.DefaultSecurityGroup {
			id = n.DefaultSecurityGroup(account, region)
		}
		for _, rule := range findGroup(r, scope, id).GetRules() {
			if rule.Egress || !rule.opens(port) {
				continue
			}
			if rule.Group != "" && slices.Contains(others, rule.Group) {
				return true
			}
			block, err := netip.ParsePrefix(rule.CidrIpv4)
			if err != nil {
				continue
			}
			for _, s := range subnets {
				zone, ok := n.Subnet(account, region, s)
				if p := addressing.SubnetOf(zone); ok && block.Bits() <= p.Bits() && block.Contains(p.Addr()) {
					return true
				}
			}
		}
	}
	return false
}

// opens says whether the rule is about TCP to the port.
func (r *SecurityGroupRule) opens(port uint32) bool {
	return r.Protocol == "-1" || r.Protocol == "tcp" && r.FromPort <= int32(port) && int32(port) <= r.ToPort
}
