package ecs

import (
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
)

// maxBridgedRange is how many ports a range may have whose host ports are the node's: each is held by a socket.
const maxBridgedRange = 1000

// checkPortRange holds a range to the rules of "PortMapping" in the ECS API reference. taken are the container ports in use, by
// port and protocol, and ranged those of ranges; this range's are added to both.
func checkPortRange(def *types.TaskDefinition, c *types.ContainerDefinition, m *types.PortMapping, taken map[string]string, ranged map[string]bool) error {
	name, text := aws.ToString(c.Name), aws.ToString(m.ContainerPortRange)
	first, last, ok := controlplane.ParsePortRange(text)
	switch {
	case def.NetworkMode != types.NetworkModeBridge && def.NetworkMode != types.NetworkModeAwsvpc:
		return client("When networkMode=%s, 'containerPortRange' is not supported.", def.NetworkMode)
	case aws.ToInt32(m.ContainerPort) != 0 || aws.ToInt32(m.HostPort) != 0:
		return client("Invalid 'containerPortRange' setting for container '%s'. It can not be set together with 'containerPort' or 'hostPort'.", name)
	case !ok:
		return client("Invalid 'containerPortRange' setting for container '%s'. '%s' is not a range of ports between 1 and 65535, the first less than the last.", name, text)
	case def.NetworkMode == types.NetworkModeBridge && last-first >= maxBridgedRange:
		return client("'containerDefinitions[%s].portMappings.containerPortRange' is not supported by this platform with more than %d ports when networkMode=bridge.", name, maxBridgedRange)
	}
	if m.Protocol == "" {
		m.Protocol = types.TransportProtocolTcp
	}
	for port := first; port <= last; port++ {
		key := fmt.Sprintf("%d/%s", port, m.Protocol)
		if _, overlaps := taken[key]; overlaps {
			return client("Invalid 'containerPortRange' setting for container '%s'. Port %s is mapped more than once.", name, key)
		}
		taken[key], ranged[key] = name, true
	}
	return nil
}
