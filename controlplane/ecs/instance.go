package ecs

import (
	"slices"
	"strings"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// instance is a container instance with what its node has left.
type instance struct {
	*controlplane.ContainerInstance
	node             *controlplane.Node
	cpu, memory      int64           // left
	ports            map[string]bool // "80/tcp": taken
	gpus             []string        // left
	running, pending int32
}

// instanceRoom is false when the instance's node is not there or down.
func instanceRoom(r state.Reader, ci *controlplane.ContainerInstance) (*instance, bool) {
	n, ok := controlplane.Nodes.Get(r, state.K(ci.Node))
	if !ok {
		return nil, false
	}
	i := &instance{
		ContainerInstance: ci, node: n, ports: map[string]bool{},
		cpu: int64(n.Resources.GetCpuUnits()), memory: int64(n.Resources.GetMemoryMib()), gpus: slices.Clone(n.Resources.GetGpus()),
	}
	for st := range controlplane.LiveTasksByNode.Scan(r, state.K(n.Id)) {
		t, ok := controlplane.Tasks.Get(r, controlplane.TaskStatuses.Key(st))
		if !ok {
			continue
		}
		i.take(t.Demand, st.Gpus)
		if ci.Has(t) {
			i.count(st)
		}
	}
	return i, n.Status == "READY"
}

func (i *instance) take(d *controlplane.Demand, gpus []string) {
	i.cpu -= int64(d.GetCpuUnits())
	i.memory -= int64(d.GetMemoryMib())
	i.gpus = slices.DeleteFunc(i.gpus, func(id string) bool { return slices.Contains(gpus, id) })
	for _, p := range d.GetHostPorts() {
		i.ports[portName(p)] = true
	}
}

// lacks is ECS's reason why the demand of a task, which ECS Exec may be meant for, does not fit, or empty.
func (i *instance) lacks(d *controlplane.Demand, exec bool) string {
	switch {
	case int64(d.MemoryMib) > i.memory:
		return "RESOURCE:MEMORY"
	case int64(d.CpuUnits) > i.cpu:
		return "RESOURCE:CPU"
	case int(d.Gpus) > len(i.gpus):
		return "RESOURCE:GPU"
	case slices.ContainsFunc(d.HostPorts, func(p *controlplane.HostPort) bool { return i.ports[portName(p)] }):
		return "RESOURCE:PORTS"
	}
	if i.node.AmazonAgent != nil && (exec || d.AmazonAgentLacks(i.node.Attributes) != "") {
		return "ATTRIBUTE"
	}
	for _, want := range d.Attributes {
		name, value, valued := strings.Cut(want, "=")
		have, ok := i.attribute(name)
		if !ok || valued && have != value {
			return "ATTRIBUTE"
		}
	}
	return ""
}

func (i *instance) attribute(name string) (string, bool) {
	if v, ok := i.Attributes[name]; ok {
		return v, true
	}
	v, ok := i.node.Attributes[name]
	return v, ok
}
