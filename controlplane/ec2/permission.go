package ec2

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// protocolNumbers are the protocols that have names.
var protocolNumbers = map[string]int32{"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}

// rulesOf are the rules that permissions stand for, one for each place, without ids.
func rulesOf(r state.Reader, scope controlplane.Scope, egress bool, permissions []types.IpPermission) ([]*SecurityGroupRule, error) {
	var list []*SecurityGroupRule
	for _, p := range permissions {
		kind, err := traffic(p)
		if err != nil {
			return nil, err
		}
		kind.Egress = egress
		before := len(list)
		add := func(description *string, place func(*SecurityGroupRule)) error {
			if d := str(description); len(d) > 255 || d != "" && !groupText.MatchString(d) {
				return awserr.New("InvalidParameterValue", "Invalid rule description. Valid descriptions are strings less than 256 characters from the following set: %s", groupTextSays)
			}
			rule := &SecurityGroupRule{Egress: egress, Protocol: kind.Protocol, FromPort: kind.FromPort, ToPort: kind.ToPort, Description: str(description)}
			place(rule)
			list = append(list, rule)
			return nil
		}
		for _, v := range p.IpRanges {
			cidr, err := block(str(v.CidrIp), true)
			if err != nil {
				return nil, err
			}
			if err := add(v.Description, func(r *SecurityGroupRule) { r.CidrIpv4 = cidr }); err != nil {
				return nil, err
			}
		}
		for _, v := range p.Ipv6Ranges {
			cidr, err := block(str(v.CidrIpv6), false)
			if err != nil {
				return nil, err
			}
			if err := add(v.Description, func(r *SecurityGroupRule) { r.CidrIpv6 = cidr }); err != nil {
				return nil, err
			}
		}
		for _, v := range p.UserIdGroupPairs {
			if v.UserId != nil && *v.UserId != scope.Account || v.VpcPeeringConnectionId != nil {
				return nil, awserr.New(groupKind.notFound, "The security group '%s' does not exist", str(v.GroupId))
			}
			g, err := groupOf(r, scope, v.GroupId, v.GroupName)
			if err != nil {
				return nil, err
			}
			if err := add(v.Description, func(r *SecurityGroupRule) { r.Group = g.Id }); err != nil {
				return nil, err
			}
		}
		if len(p.PrefixListIds) > 0 {
			return nil, awserr.New("InvalidPrefixListID.NotFound", "The prefix list ID '%s' does not exist", str(p.PrefixListIds[0].PrefixListId))
		}
		if len(list) == before {
			return nil, awserr.New("MissingParameter", "The request must contain one of: IpRanges, Ipv6Ranges, UserIdGroupPairs, PrefixListIds")
		}
	}
	return list, nil
}

// traffic is the protocol and the ports of a permission, as a rule has them.
func traffic(p types.IpPermission) (*SecurityGroupRule, error) {
	protocol := strings.ToLower(str(p.IpProtocol))
	if protocol == "" {
		return nil, awserr.New("MissingParameter", "The request must contain the parameter ipProtocol")
	}
	number, named := protocolNumbers[protocol]
	if !named {
		n, err := strconv.Atoi(protocol)
		if err != nil || n < -1 || n > 255 {
			return nil, awserr.New("InvalidParameterValue", "Invalid value '%s' for IP protocol. Unknown protocol.", protocol)
		}
		number = int32(n)
		protocol = strconv.Itoa(n)
		for name, v := range protocolNumbers {
			if v == number {
				protocol = name
			}
		}
	}
	r := &SecurityGroupRule{Protocol: protocol, FromPort: -1, ToPort: -1}
	switch number {
	case 6, 17:
		if p.FromPort == nil || p.ToPort == nil {
			return nil, awserr.New("InvalidParameterValue", "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.")
		}
		r.FromPort, r.ToPort = *p.FromPort, *p.ToPort
		if r.FromPort == -1 && r.ToPort == -1 {
			r.FromPort, r.ToPort = 0, 65535
		}
		if r.FromPort < 0 || r.ToPort > 65535 || r.FromPort > r.ToPort {
			return nil, awserr.New("InvalidParameterValue", "Invalid TCP/UDP port range (%d:%d)", r.FromPort, r.ToPort)
		}
	case 1, 58:
		if p.FromPort != nil {
			r.FromPort = *p.FromPort
		}
		if p.ToPort != nil {
			r.ToPort = *p.ToPort
		}
		if r.FromPort < -1 || r.FromPort > 255 || r.ToPort < -1 || r.ToPort > 255 || r.FromPort == -1 && r.ToPort != -1 {
			return nil, awserr.New("InvalidParameterValue", "ICMP code (%d) and type (%d) are not a valid combination", r.ToPort, r.FromPort)
		}
	}
	return r, nil // with other protocols EC2 lets all ports through, whatever is given
}

// block is a block of addresses in its canonical form: EC2 drops the bits of hosts.
func block(text string, ipv4 bool) (string, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4() != ipv4 {
		return "", awserr.New("InvalidParameterValue", "CIDR block %s is malformed", text)
	}
	return p.Masked().String(), nil
}

// same says whether two rules let the same through; their descriptions may differ.
func (r *SecurityGroupRule) same(o *SecurityGroupRule) bool {
	return r.Egress == o.Egress && r.Protocol == o.Protocol && r.FromPort == o.FromPort && r.ToPort == o.ToPort &&
		r.CidrIpv4 == o.CidrIpv4 && r.CidrIpv6 == o.CidrIpv6 && r.Group == o.Group
}

// place is the other side.
func (r *SecurityGroupRule) place() string { return r.CidrIpv4 + r.CidrIpv6 + r.Group }

// references are the groups that rules name, each once.
func (g *SecurityGroup) references() (ids []string) {
	seen := map[string]bool{}
	for _, r := range g.Rules {
		if r.Group != "" && !seen[r.Group] {
			seen[r.Group] = true
			ids = append(ids, r.Group)
		}
	}
	return ids
}
