// Package ec2 is the part of EC2 that a container platform needs: the default network that every account has in every
// region. Scripts written for AWS look up its VPC, subnets and security group by id; here they find them.
//
// The network is not stored. Its ids are digests of account and region, so they are the same on every server, after
// every restart and in every cluster, exist before the first write and differ between accounts and regions. What cannot
// be changed needs no record; networks that users create will have records, and these functions will ask both. Its blocks are
// those from which hosts get the addresses of their tasks (internal/addressing), the same in every account and region.
//
// Security groups that users make are records, and so is a default group whose rules were changed.
package ec2

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative controlplane/ec2/ec2.proto

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/addressing"
)

// Network is the default network of each account and region. Its zero value is ready; it keeps no state and is safe for
// concurrent use.
type Network struct{}

// reservedAddresses are those of a subnet that AWS keeps: network, router, DNS, future use, broadcast.
const reservedAddresses = 5

// SecurityGroups are written by the operations; the source of the set FIREWALL follows them.
var SecurityGroups = state.NewTable("ec2.securitygroup", func(g *SecurityGroup) state.Key { return state.K(g.Account, g.Region, g.Id) })

// GroupsReferring: account, region, group that a rule names.
var GroupsReferring = state.NewIndex(SecurityGroups, "referring", func(g *SecurityGroup) (keys []state.Key) {
	for _, id := range g.references() {
		keys = append(keys, state.K(g.Account, g.Region, id))
	}
	return keys
})

// Schema is every table of the family.
var Schema = state.Schema{SecurityGroups}

// Zones are the names of the region's availability zones, in order.
func (Network) Zones(region string) []string {
	var names []string
	for i := range addressing.Zones {
		names = append(names, region+addressing.Letter(i))
	}
	return names
}

// DefaultVPC is the id of the account's default VPC in the region.
func (Network) DefaultVPC(account, region string) string { return stableID("vpc", account, region, "") }

// VPCExists says whether the account has the VPC in the region.
func (n Network) VPCExists(account, region, id string) bool {
	return id == n.DefaultVPC(account, region)
}

// DefaultSecurityGroup is the id of the default VPC's default security group.
func (Network) DefaultSecurityGroup(account, region string) string {
	return stableID("sg", account, region, "")
}

// SecurityGroup finds a security group and says which VPC it belongs to.
func (n Network) SecurityGroup(r state.Reader, account, region, id string) (vpc string, ok bool) {
	g := findGroup(r, controlplane.Scope{Account: account, Region: region}, id)
	return g.GetVpc(), g != nil
}

// DefaultSubnet is the id of the default subnet of a zone.
func (Network) DefaultSubnet(account, region, zone string) string {
	return stableID("subnet", account, region, zone)
}

// Subnet finds a subnet and says which availability zone it is in. Every subnet belongs to the default VPC.
func (n Network) Subnet(account, region, id string) (zone string, ok bool) {
	for _, z := range n.Zones(region) {
		if id == n.DefaultSubnet(account, region, z) {
			return z, true
		}
	}
	return "", false
}

// stableID is an id in AWS's long form, 17 hexadecimal digits, that follows from its owner.
func stableID(kind, account, region, zone string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "default %s/%s/%s/%s", kind, account, region, zone))
	return kind + "-" + hex.EncodeToString(sum[:])[:17]
}

// zoneID is the zone's id in AWS's scheme, which shortens the region's name: us-east-1a is use1-az1, ap-southeast-2b is
// apse2-az2. (On AWS the letter of a zone is shuffled for each account; here it is not.)
func zoneID(region, zone string) string {
	var b strings.Builder
	for i, part := range strings.Split(region, "-") {
		switch {
		case i == 0 || len(part) < 3:
			b.WriteString(part)
		default:
			b.WriteByte(part[0])
			for _, second := range []string{"east", "west"} { // northeast, southwest
				if len(part) > len(second) && strings.HasSuffix(part, second) {
					b.WriteByte(second[0])
				}
			}
		}
	}
	return fmt.Sprintf("%s-az%d", b.String(), slices.Index(Network{}.Zones(region), zone)+1)
}
