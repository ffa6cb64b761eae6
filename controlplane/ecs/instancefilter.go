package ecs

import (
	"strconv"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/scheduler"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// instanceFilter is a filter of ListContainerInstances; an empty expression lets all through.
func instanceFilter(r state.Reader, expression string) (func(*controlplane.ContainerInstance) bool, error) {
	if expression == "" {
		return func(*controlplane.ContainerInstance) bool { return true }, nil
	}
	e, err := scheduler.ParseExpression(expression)
	if err != nil {
		return nil, invalid("Invalid filter '%s': %s.", expression, err)
	}
	return func(ci *controlplane.ContainerInstance) bool { return e.Match(instanceSubject(r, ci)) }, nil
}

// instanceSubject answers what an instance has under the names of the cluster query language. The scheduler's ledger answers the same
// for placement; here records do.
func instanceSubject(r state.Reader, ci *controlplane.ContainerInstance) scheduler.Subject {
	room, ready := instanceRoom(r, ci)
	if room == nil {
		room = &instance{ContainerInstance: ci, node: &controlplane.Node{}}
	}
	attributes := instanceAttributes(r, ci)
	return func(name string) []string {
		if a, ok := strings.CutPrefix(name, "attribute:"); ok {
			if v, ok := attributes[a]; ok {
				return []string{v}
			}
			return nil
		}
		switch name {
		case "task:group":
			var groups []string
			for st := range controlplane.LiveTasksByNode.Scan(r, state.K(ci.Node)) {
				if t, ok := controlplane.Tasks.Get(r, controlplane.TaskStatuses.Key(st)); ok && t.Cluster == ci.Cluster && t.Scope() == ci.Scope() {
					groups = append(groups, t.Group)
				}
			}
			return groups
		case "agentconnected":
			return []string{strconv.FormatBool(ready)}
		case "agentversion":
			return []string{room.node.Version}
		case "containerinstanceid":
			return []string{ci.Id}
		case "ec2instanceid":
			if id := attributes["ecs.instance-id"]; id != "" {
				return []string{id}
			}
			return nil
		case "status":
			return []string{ci.Status}
		case "registeredat":
			return []string{ci.Registered.AsTime().Format(time.RFC3339)}
		case "runningtaskscount":
			return []string{strconv.Itoa(int(room.running))}
		case "pendingtaskscount":
			return []string{strconv.Itoa(int(room.pending))}
		case "registeredcpu":
			return []string{strconv.FormatUint(uint64(room.node.Resources.GetCpuUnits()), 10)}
		case "registeredmemory":
			return []string{strconv.FormatUint(uint64(room.node.Resources.GetMemoryMib()), 10)}
		case "remainingcpu":
			return []string{strconv.FormatInt(room.cpu, 10)}
		case "remainingmemory":
			return []string{strconv.FormatInt(room.memory, 10)}
		}
		return nil
	}
}
