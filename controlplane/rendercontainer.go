package controlplane

import (
	"cmp"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// HasHealthCheck says whether a container's health is checked: its definition has a check that is not there to say NONE.
func HasHealthCheck(c types.ContainerDefinition) bool {
	return c.HealthCheck != nil && len(c.HealthCheck.Command) > 0 && c.HealthCheck.Command[0] != "NONE"
}

// Defaults of ECS, where a definition names none.
const (
	DefaultHealthInterval = 30
	DefaultHealthTimeout  = 5
	DefaultHealthRetries  = 3
	DefaultRestartPeriod  = 300
)

func renderHealthCheck(c *types.HealthCheck) *agentapi.ContainerCheck {
	if !HasHealthCheck(types.ContainerDefinition{HealthCheck: c}) {
		return nil
	}
	return &agentapi.ContainerCheck{
		Command:            c.Command,
		IntervalSeconds:    uint32(cmp.Or(aws.ToInt32(c.Interval), DefaultHealthInterval)),
		TimeoutSeconds:     uint32(cmp.Or(aws.ToInt32(c.Timeout), DefaultHealthTimeout)),
		Retries:            uint32(cmp.Or(aws.ToInt32(c.Retries), DefaultHealthRetries)),
		StartPeriodSeconds: uint32(aws.ToInt32(c.StartPeriod)),
	}
}

// renderDependencies are those that the definition names, and those that links and volumes imply: a start.
func renderDependencies(c types.ContainerDefinition) (list []*agentapi.Dependency) {
	named := map[string]bool{}
	for _, d := range c.DependsOn {
		named[aws.ToString(d.ContainerName)] = true
		list = append(list, &agentapi.Dependency{Container: aws.ToString(d.ContainerName), Condition: string(d.Condition)})
	}
	for _, name := range needs(c) {
		if !named[name] {
			named[name] = true
			list = append(list, &agentapi.Dependency{Container: name, Condition: string(types.ContainerConditionStart)})
		}
	}
	return list
}

func renderRestartPolicy(p *types.ContainerRestartPolicy) *agentapi.RestartPolicy {
	if p == nil || !aws.ToBool(p.Enabled) {
		return nil
	}
	return &agentapi.RestartPolicy{
		IgnoredExitCodes:     p.IgnoredExitCodes,
		AttemptPeriodSeconds: uint32(cmp.Or(aws.ToInt32(p.RestartAttemptPeriod), DefaultRestartPeriod)),
	}
}

func renderLinuxParameters(r *agentapi.ContainerSpec, p *types.LinuxParameters) {
	if p == nil {
		return
	}
	if p.Capabilities != nil {
		r.AddCapabilities, r.DropCapabilities = p.Capabilities.Add, p.Capabilities.Drop
	}
	r.InitProcess = aws.ToBool(p.InitProcessEnabled)
	r.SharedMemoryMib = uint32(aws.ToInt32(p.SharedMemorySize))
	for _, t := range p.Tmpfs {
		r.Tmpfs = append(r.Tmpfs, &agentapi.Tmpfs{ContainerPath: aws.ToString(t.ContainerPath), SizeMib: uint32(t.Size), Options: t.MountOptions})
	}
	for _, d := range p.Devices {
		r.Devices = append(r.Devices, &agentapi.Device{HostPath: aws.ToString(d.HostPath), ContainerPath: aws.ToString(d.ContainerPath), Access: deviceAccess(d.Permissions)})
	}
	if p.MaxSwap != nil {
		r.MaxSwapMib = new(uint32(*p.MaxSwap))
		if p.Swappiness != nil { // "If a value is not specified for maxSwap then this parameter is ignored."
			r.Swappiness = new(uint32(*p.Swappiness))
		}
	}
}

// deviceAccess is in the order in which the kernel writes it; without permissions it is all.
func deviceAccess(permissions []types.DeviceCgroupPermission) (access string) {
	for _, p := range []struct {
		name   types.DeviceCgroupPermission
		letter string
	}{
		{types.DeviceCgroupPermissionRead, "r"}, {types.DeviceCgroupPermissionWrite, "w"}, {types.DeviceCgroupPermissionMknod, "m"},
	} {
		if len(permissions) == 0 || slices.Contains(permissions, p.name) {
			access += p.letter
		}
	}
	return access
}

func noNewPrivileges(options []string) bool {
	on := false
	for _, o := range options {
		switch o {
		case "no-new-privileges", "no-new-privileges:true":
			on = true
		case "no-new-privileges:false":
			on = false
		}
	}
	return on
}
