package controlplane

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// Shape decodes the definition as it was registered.
func (d *TaskDefinition) Shape() types.TaskDefinition {
	return DecodeShape[types.TaskDefinition](string(d.DefinitionJson))
}

// DemandOf is what one task of def takes of a node, overrides applied: the task's own sizes where it has them, otherwise the sum over
// its containers, which for memory counts the reservation where there is one.
// See "Amazon ECS task placement" and "task size" in the ECS guide.
func DemandOf(def types.TaskDefinition, over types.TaskOverride) (*Demand, error) {
	d := &Demand{Attributes: platformAttributes(def.RuntimePlatform), AgentAttributes: amazonAgentAttributes(def, over)}
	if EphemeralGiB(def, over) > 0 {
		d.Attributes = append(d.Attributes, CapabilityEphemeralStorage)
	}
	if i := LogRouter(def.ContainerDefinitions); i >= 0 {
		d.Attributes = append(d.Attributes, FireLensCapability(def.ContainerDefinitions[i].FirelensConfiguration.Type))
	}
	d.Attributes = append(d.Attributes, VolumeAttributes(def.Volumes)...)
	if def.ProxyConfiguration != nil {
		d.Attributes = append(d.Attributes, CapabilityAppMesh)
	}
	if aws.ToBool(def.EnableFaultInjection) {
		d.Attributes = append(d.Attributes, CapabilityFaultInjection)
	}
	d.Attributes = append(d.Attributes, logDriverAttributes(def.ContainerDefinitions)...)
	for _, c := range def.ContainerDefinitions {
		o := ContainerOverride(over, aws.ToString(c.Name))
		cpu, memory, reservation := c.Cpu, c.Memory, c.MemoryReservation
		if o.Cpu != nil {
			cpu = *o.Cpu
		}
		if o.Memory != nil {
			memory = o.Memory
		}
		if o.MemoryReservation != nil {
			reservation = o.MemoryReservation
		}
		if reservation == nil {
			reservation = memory
		}
		d.CpuUnits += uint32(cpu)
		d.MemoryMib += uint32(aws.ToInt32(reservation))
		d.Gpus += gpus(c, o)
		d.HostPorts = append(d.HostPorts, staticHostPorts(def.NetworkMode, c.PortMappings)...)
	}
	cpu, memory, err := TaskSize(first(over.Cpu, def.Cpu), first(over.Memory, def.Memory))
	if err != nil {
		return nil, err
	}
	if cpu > 0 {
		d.CpuUnits = cpu
	}
	if memory > 0 {
		d.MemoryMib = memory
	}
	return d, nil
}

// CapabilityEphemeralStorage is the attribute of nodes that can hold a task to the ephemeral storage that it asks for.
const CapabilityEphemeralStorage = "ecs.capability.extensible-ephemeral-storage"

// CapabilityFaultInjection is the attribute of nodes whose tasks can make their networks faulty. Those that cannot delay packets have it too.
const CapabilityFaultInjection = "ecs.capability.fault-injection"

// LogDriverCapability is the attribute of nodes that have a log driver.
func LogDriverCapability(driver types.LogDriver) string {
	return "com.amazonaws.ecs.capability.logging-driver." + string(driver)
}

// logDriverAttributes are those of drivers that not every node has: of a journal, or newer than the first nodes.
func logDriverAttributes(containers []types.ContainerDefinition) (attributes []string) {
	for _, driver := range []types.LogDriver{types.LogDriverJournald, types.LogDriverSplunk} {
		if slices.ContainsFunc(containers, func(c types.ContainerDefinition) bool {
			return c.LogConfiguration != nil && c.LogConfiguration.LogDriver == driver
		}) {
			attributes = append(attributes, LogDriverCapability(driver))
		}
	}
	return attributes
}

// EphemeralGiB is the ephemeral storage that a task asks for; 0: it does not.
func EphemeralGiB(def types.TaskDefinition, over types.TaskOverride) uint32 {
	asked := def.EphemeralStorage
	if over.EphemeralStorage != nil {
		asked = over.EphemeralStorage
	}
	if asked == nil {
		return 0
	}
	return uint32(asked.SizeInGiB)
}

// staticHostPorts is empty for awsvpc, where a task has an address of its own, and without a network.
func staticHostPorts(mode types.NetworkMode, mappings []types.PortMapping) []*HostPort {
	var ports []*HostPort
	for _, m := range mappings {
		port := aws.ToInt32(m.HostPort)
		if mode == types.NetworkModeHost {
			port = aws.ToInt32(m.ContainerPort)
		}
		if port == 0 || mode == types.NetworkModeAwsvpc || mode == types.NetworkModeNone {
			continue
		}
		ports = append(ports, &HostPort{Port: uint32(port), Protocol: protocolOf(m)})
	}
	return ports
}

func protocolOf(m types.PortMapping) string {
	if m.Protocol == "" {
		return string(types.TransportProtocolTcp)
	}
	return string(m.Protocol)
}

// platformAttributes are the node attributes that a runtime platform stands for.
func platformAttributes(p *types.RuntimePlatform) []string {
	var attributes []string
	if p == nil {
		return nil
	}
	switch p.CpuArchitecture {
	case types.CPUArchitectureX8664:
		attributes = append(attributes, "ecs.cpu-architecture=x86_64")
	case types.CPUArchitectureArm64:
		attributes = append(attributes, "ecs.cpu-architecture=arm64")
	}
	switch {
	case p.OperatingSystemFamily == types.OSFamilyLinux:
		attributes = append(attributes, "ecs.os-type=linux")
	case p.OperatingSystemFamily != "":
		attributes = append(attributes, "ecs.os-type=windows")
	}
	return attributes
}

// TaskSize reads the sizes of a task or of its override: cpu in units ("256") or vCPUs ("1 vCPU", ".5 vcpu"), memory in
// MiB ("512") or GB ("1 GB"). What is empty is 0.
func TaskSize(cpu, memory *string) (cpuUnits, memoryMiB uint32, err error) {
	if cpuUnits, err = quantity(aws.ToString(cpu), "vcpu"); err != nil {
		return 0, 0, fmt.Errorf("invalid 'cpu' setting for task: %w", err)
	}
	if memoryMiB, err = quantity(aws.ToString(memory), "gb"); err != nil {
		return 0, 0, fmt.Errorf("invalid 'memory' setting for task: %w", err)
	}
	return cpuUnits, memoryMiB, nil
}

// quantity reads a whole number, or a decimal one of the unit that stands for 1024.
func quantity(s, unit string) (uint32, error) {
	if s == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 31); err == nil {
		return uint32(n), nil
	}
	number, ok := strings.CutSuffix(strings.ToLower(strings.TrimSpace(s)), unit)
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if !ok || err != nil || !(f >= 0 && f <= 1<<20) {
		return 0, fmt.Errorf("%q is not a number, alone or of %s", s, unit)
	}
	return uint32(math.Round(f * 1024)), nil
}

func first(a, b *string) *string {
	if a != nil {
		return a
	}
	return b
}

// ContainerOverride is the override of the named container; the zero one when there is none.
func ContainerOverride(over types.TaskOverride, name string) types.ContainerOverride {
	for _, o := range over.ContainerOverrides {
		if aws.ToString(o.Name) == name {
			return o
		}
	}
	return types.ContainerOverride{}
}
