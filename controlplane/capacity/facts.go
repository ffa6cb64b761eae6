package capacity

import (
	"strconv"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/controlplane"
)

// Facts are what an instance has under a name of the cluster query language, apart from what changes with its tasks.
func Facts(ci *controlplane.ContainerInstance, n *controlplane.Node, name string) []string {
	if a, ok := strings.CutPrefix(name, "attribute:"); ok {
		return attribute(ci, n, a)
	}
	switch name {
	case "agentconnected":
		return []string{strconv.FormatBool(n.GetStatus() == NodeReady)}
	case "agentversion":
		return []string{n.GetVersion()}
	case "containerinstanceid":
		return []string{ci.Id}
	case "ec2instanceid":
		return attribute(ci, n, "ecs.instance-id")
	case "status":
		return []string{ci.Status}
	case "registeredat":
		return []string{ci.Registered.AsTime().Format(time.RFC3339)}
	case "registeredcpu":
		return []string{strconv.FormatUint(uint64(n.GetResources().GetCpuUnits()), 10)}
	case "registeredmemory":
		return []string{strconv.FormatUint(uint64(n.GetResources().GetMemoryMib()), 10)}
	}
	return nil
}

// attribute is the instance's own, or its node's; none: it has not got it.
func attribute(ci *controlplane.ContainerInstance, n *controlplane.Node, name string) []string {
	if v, ok := ci.Attributes[name]; ok {
		return []string{v}
	}
	if v, ok := n.GetAttributes()[name]; ok {
		return []string{v}
	}
	return nil
}
