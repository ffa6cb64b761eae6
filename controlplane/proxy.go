package controlplane

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// CapabilityAppMesh is the attribute of nodes that lead a task's traffic through a proxy of its own.
const CapabilityAppMesh = "ecs.capability.aws-appmesh"

// alwaysIgnored are where a task asks about itself and its host: never through the proxy, on ECS neither.
var alwaysIgnored = []string{"169.254.170.2/32", "169.254.169.254/32"}

// Properties of a proxyConfiguration of type APPMESH.
const (
	proxyUser         = "IgnoredUID"
	proxyGroup        = "IgnoredGID"
	proxyAppPorts     = "AppPorts"
	proxyIngress      = "ProxyIngressPort"
	proxyEgress       = "ProxyEgressPort"
	proxyIgnoredPorts = "EgressIgnoredPorts"
	proxyIgnoredIPs   = "EgressIgnoredIPs"
)

// ParseProxy reads a proxyConfiguration; its error says which property is wrong, for whoever registers it.
func ParseProxy(p *types.ProxyConfiguration) (*agentapi.Interception, error) {
	if p == nil {
		return nil, nil
	}
	given := map[string]string{}
	for _, kv := range p.Properties {
		name := aws.ToString(kv.Name)
		switch name {
		case proxyUser, proxyGroup, proxyAppPorts, proxyIngress, proxyEgress, proxyIgnoredPorts, proxyIgnoredIPs:
		default:
			return nil, fmt.Errorf("'%s' is not a property of type APPMESH", name)
		}
		if _, twice := given[name]; twice {
			return nil, fmt.Errorf("'%s' is given more than once", name)
		}
		given[name] = strings.TrimSpace(aws.ToString(kv.Value))
	}
	i := &agentapi.Interception{IgnoredBlocks: alwaysIgnored}
	var err error
	for _, of := range []struct {
		name string
		to   **uint32
	}{{proxyUser, &i.IgnoredUser}, {proxyGroup, &i.IgnoredGroup}} {
		if given[of.name] == "" {
			continue
		}
		n, err := strconv.ParseUint(given[of.name], 10, 32)
		if err != nil || n == 1<<32-1 {
			return nil, fmt.Errorf("'%s' must be a number, not '%s'", of.name, given[of.name])
		}
		*of.to = new(uint32(n))
	}
	if i.AppPorts, err = proxyPorts(given, proxyAppPorts); err != nil {
		return nil, err
	}
	if i.IgnoredPorts, err = proxyPorts(given, proxyIgnoredPorts); err != nil {
		return nil, err
	}
	for name, to := range map[string]*uint32{proxyIngress: &i.IngressPort, proxyEgress: &i.EgressPort} {
		switch ports, err := proxyPorts(given, name); {
		case err != nil:
			return nil, err
		case len(ports) > 1:
			return nil, fmt.Errorf("'%s' must be one port", name)
		case len(ports) == 1:
			*to = ports[0]
		}
	}
	for one := range strings.SplitSeq(given[proxyIgnoredIPs], ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		block, err := netip.ParsePrefix(one)
		if a, aerr := netip.ParseAddr(one); aerr == nil {
			block, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("'%s' must be a list of addresses and blocks, in which '%s' is none", proxyIgnoredIPs, one)
		}
		i.IgnoredBlocks = append(i.IgnoredBlocks[:len(i.IgnoredBlocks):len(i.IgnoredBlocks)], block.Masked().String())
	}
	switch {
	case i.IgnoredUser == nil && i.IgnoredGroup == nil:
		return nil, fmt.Errorf("'%s' or '%s' must be specified", proxyUser, proxyGroup)
	case i.EgressPort == 0:
		return nil, fmt.Errorf("'%s' must be specified", proxyEgress)
	case (i.IngressPort == 0) != (len(i.AppPorts) == 0):
		return nil, fmt.Errorf("'%s' and '%s' must be specified together", proxyIngress, proxyAppPorts)
	}
	return i, nil
}

func proxyPorts(given map[string]string, name string) (ports []uint32, err error) {
	for one := range strings.SplitSeq(given[name], ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		n, err := strconv.ParseUint(one, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("'%s' must be ports, and '%s' is none", name, one)
		}
		ports = append(ports, uint32(n))
	}
	return ports, nil
}
