package ecs

import (
	"strconv"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
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
	room, _ := instanceRoom(r, ci)
	if room == nil {
		room = &instance{ContainerInstance: ci, node: &controlplane.Node{}}
	}
	return func(name string) []string {
		switch name {
		case "task:group":
			var groups []string
			for st := range controlplane.LiveTasksByNode.Scan(r, state.K(ci.Node)) {
				if t, ok := controlplane.Tasks.Get(r, controlplane.TaskStatuses.Key(st)); ok && t.Cluster == ci.Cluster && t.Scope() == ci.Scope() {
					groups = append(groups, t.Group)
				}
			}
			return groups
		case "attribute:" + diskAttribute:
			if disk := room.node.Health.GetDisk(); disk != "" && ci.Attributes[diskAttribute] == "" {
				return []string{disk}
			}
		case "runningtaskscount":
			return []string{strconv.Itoa(int(room.running))}
		case "pendingtaskscount":
			return []string{strconv.Itoa(int(room.pending))}
		case "remainingcpu":
			return []string{strconv.FormatInt(room.cpu, 10)}
		case "remainingmemory":
			return []string{strconv.FormatInt(room.memory, 10)}
		}
		return capacity.Facts(ci, room.node, name)
	}
}
