package controlplane

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// RenderTaskSpec is all an agent needs to run the task: its definition with the task's overrides applied. digests pins images
// by container name ("sha256:…"); a container without one runs what its tag means when it is pulled.
// executionRole is the ARN of the role as which the platform acts for the task; agents are not told it. Empty: there is none.
func RenderTaskSpec(t *Task, d *TaskDefinition, digests map[string]string) (spec *agentapi.TaskSpec, executionRole string, err error) {
	return (*Plans)(nil).Render(t, d, digests)
}

// Render is RenderTaskSpec.
func (p *Plans) Render(t *Task, d *TaskDefinition, digests map[string]string) (spec *agentapi.TaskSpec, executionRole string, err error) {
	plan := p.of(d)
	def := plan.def
	over := DecodeShape[types.TaskOverride](t.OverridesJson)
	cpu, memory, err := TaskSize(first(over.Cpu, def.Cpu), first(over.Memory, def.Memory))
	if err != nil {
		return nil, "", fmt.Errorf("render task %s: %w", t.Id, err)
	}
	spec = &agentapi.TaskSpec{
		Account: t.Account, Region: t.Region, Cluster: t.Cluster,
		Family: d.Family, Revision: d.Revision, Service: t.Service, LaunchType: t.LaunchType,
		CpuUnits: cpu, MemoryMib: memory, NetworkMode: string(def.NetworkMode),
		PidMode: string(def.PidMode), IpcMode: string(def.IpcMode), EphemeralStorageMib: EphemeralGiB(def, over) << 10,
		FaultInjection: aws.ToBool(def.EnableFaultInjection),
	}
	spec.TaskRole, executionRole = TaskRoles(t.Account, def, over)
	if spec.NetworkMode == "" {
		spec.NetworkMode = string(types.NetworkModeBridge)
	}
	for _, v := range def.Volumes {
		spec.Volumes = append(spec.Volumes, renderVolume(v))
	}
	if spec.Interception, err = ParseProxy(def.ProxyConfiguration); err != nil {
		return nil, "", fmt.Errorf("render task %s: %w", t.Id, err)
	}
	if plan.err != nil {
		return nil, "", fmt.Errorf("render task %s: %w", t.Id, plan.err)
	}
	for _, c := range plan.order {
		override := ContainerOverride(over, aws.ToString(c.Name))
		spec.HasSecrets = spec.HasSecrets || needsSecrets(c, override)
		r := renderContainer(c, override, def)
		if digest := digests[r.Name]; digest != "" {
			r.Image = pinImage(r.Image, digest)
		}
		spec.Containers = append(spec.Containers, r)
	}
	renderFireLens(spec, t, d, def.ContainerDefinitions)
	return spec, executionRole, nil
}

func renderContainer(c types.ContainerDefinition, over types.ContainerOverride, def types.TaskDefinition) *agentapi.ContainerSpec {
	r := &agentapi.ContainerSpec{
		Name: aws.ToString(c.Name), Image: aws.ToString(c.Image), Essential: Essential(c),
		EntryPoint: c.EntryPoint, Command: c.Command,
		WorkingDirectory: aws.ToString(c.WorkingDirectory), User: aws.ToString(c.User),
		Environment:          map[string]string{},
		CpuUnits:             uint32(c.Cpu),
		MemoryMib:            uint32(aws.ToInt32(c.Memory)),
		MemoryReservationMib: uint32(aws.ToInt32(c.MemoryReservation)),
		StartTimeoutSeconds:  uint32(aws.ToInt32(c.StartTimeout)),
		StopTimeoutSeconds:   uint32(aws.ToInt32(c.StopTimeout)),
		ReadonlyRoot:         aws.ToBool(c.ReadonlyRootFilesystem),
		Privileged:           aws.ToBool(c.Privileged),
		Labels:               c.DockerLabels,
		Hostname:             aws.ToString(c.Hostname),
		Mounts:               renderMounts(c, def.ContainerDefinitions),
		Log:                  renderLog(c.LogConfiguration),
		HealthCheck:          renderHealthCheck(c.HealthCheck),
		DependsOn:            renderDependencies(c),
		Restart:              renderRestartPolicy(c.RestartPolicy),
		Interactive:          aws.ToBool(c.Interactive),
		PseudoTerminal:       aws.ToBool(c.PseudoTerminal),
		DnsServers:           c.DnsServers,
		DnsSearch:            c.DnsSearchDomains,
		NoNewPrivileges:      noNewPrivileges(c.DockerSecurityOptions),
		DisableNetworking:    aws.ToBool(c.DisableNetworking),
		SecretFiles:          SecretFiles(c),
	}
	renderLinuxParameters(r, c.LinuxParameters)
	for _, u := range c.Ulimits {
		r.Ulimits = append(r.Ulimits, &agentapi.Ulimit{Name: string(u.Name), Soft: int64(u.SoftLimit), Hard: int64(u.HardLimit)})
	}
	for _, s := range c.SystemControls {
		if r.Sysctls == nil {
			r.Sysctls = map[string]string{}
		}
		r.Sysctls[aws.ToString(s.Namespace)] = aws.ToString(s.Value)
	}
	if over.Command != nil {
		r.Command = over.Command
	}
	r.CommandSet = over.Command != nil && len(over.Command) == 0
	if over.Cpu != nil {
		r.CpuUnits = uint32(*over.Cpu)
	}
	if over.Memory != nil {
		r.MemoryMib = uint32(*over.Memory)
	}
	if over.MemoryReservation != nil {
		r.MemoryReservationMib = uint32(*over.MemoryReservation)
	}
	for _, e := range append(c.Environment[:len(c.Environment):len(c.Environment)], over.Environment...) {
		r.Environment[aws.ToString(e.Name)] = aws.ToString(e.Value)
	}
	for _, h := range c.ExtraHosts {
		r.ExtraHosts = append(r.ExtraHosts, aws.ToString(h.Hostname)+":"+aws.ToString(h.IpAddress))
	}
	for _, l := range c.Links {
		// All containers of a task share one network namespace: the linked one answers on loopback.
		name, alias, ok := strings.Cut(l, ":")
		if !ok {
			alias = name
		}
		r.ExtraHosts = append(r.ExtraHosts, alias+":127.0.0.1")
	}
	for _, m := range c.PortMappings {
		r.Ports = append(r.Ports, renderPort(def.NetworkMode, m))
	}
	return r
}

// renderPort gives a task on the host's network the host port it must have: the container's own. With awsvpc the port answers at the
// task's own address and needs none.
func renderPort(mode types.NetworkMode, m types.PortMapping) *agentapi.PortMapping {
	if first, last, ok := ParsePortRange(aws.ToString(m.ContainerPortRange)); ok {
		return &agentapi.PortMapping{ContainerPort: first, Count: last - first + 1, Protocol: protocolOf(m), Name: aws.ToString(m.Name)}
	}
	p := &agentapi.PortMapping{
		ContainerPort: uint32(aws.ToInt32(m.ContainerPort)), HostPort: uint32(aws.ToInt32(m.HostPort)),
		Protocol: protocolOf(m), Name: aws.ToString(m.Name),
	}
	switch mode {
	case types.NetworkModeHost:
		p.HostPort = p.ContainerPort
	case types.NetworkModeAwsvpc, types.NetworkModeNone:
		p.HostPort = 0
	}
	return p
}

// ParsePortRange reads "FIRST-LAST" of ports.
func ParsePortRange(s string) (first, last uint32, ok bool) {
	a, b, ok := strings.Cut(s, "-")
	if !ok {
		return 0, 0, false
	}
	f, err1 := strconv.ParseUint(a, 10, 16)
	l, err2 := strconv.ParseUint(b, 10, 16)
	return uint32(f), uint32(l), err1 == nil && err2 == nil && 0 < f && f < l
}

func renderVolume(v types.Volume) *agentapi.VolumeSpec {
	r := &agentapi.VolumeSpec{Name: aws.ToString(v.Name), Scope: string(types.ScopeTask), Efs: renderEFS(v.EfsVolumeConfiguration)}
	if v.Host != nil {
		r.HostPath = aws.ToString(v.Host.SourcePath)
	}
	if d := v.DockerVolumeConfiguration; d != nil && d.Scope != "" {
		r.Scope = string(d.Scope)
	}
	if d := v.DockerVolumeConfiguration; d != nil {
		r.DriverOptions = d.DriverOpts
	}
	return r
}

// renderMounts lists the container's own mounts, then those of the containers it takes volumes from.
func renderMounts(c types.ContainerDefinition, all []types.ContainerDefinition) []*agentapi.MountPoint {
	var mounts []*agentapi.MountPoint
	add := func(from []types.MountPoint, readOnly bool) {
		for _, m := range from {
			mounts = append(mounts, &agentapi.MountPoint{
				Volume: aws.ToString(m.SourceVolume), ContainerPath: aws.ToString(m.ContainerPath),
				ReadOnly: readOnly || aws.ToBool(m.ReadOnly),
			})
		}
	}
	add(c.MountPoints, false)
	for _, v := range c.VolumesFrom {
		for _, source := range all {
			if aws.ToString(source.Name) == aws.ToString(v.SourceContainer) {
				add(source.MountPoints, aws.ToBool(v.ReadOnly))
			}
		}
	}
	return mounts
}

// pinImage replaces the tag by the digest; "registry:5000/name" has a port, not a tag.
func pinImage(image, digest string) string {
	name, _, _ := strings.Cut(image, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name + "@" + digest
}

// Essential says whether the task ends with the container: yes, unless the definition says otherwise.
func Essential(c types.ContainerDefinition) bool { return c.Essential == nil || *c.Essential }

// StartOrder puts every container behind those that it depends on, links to or takes volumes from, and otherwise keeps the
// order of the definition. It fails on a cycle and on a name that is not there.
func StartOrder(containers []types.ContainerDefinition) ([]types.ContainerDefinition, error) {
	byName := make(map[string]types.ContainerDefinition, len(containers))
	for _, c := range containers {
		byName[aws.ToString(c.Name)] = c
	}
	const visiting, done = 1, 2
	mark := map[string]int{}
	order := make([]types.ContainerDefinition, 0, len(containers))
	var visit func(c types.ContainerDefinition) error
	visit = func(c types.ContainerDefinition) error {
		name := aws.ToString(c.Name)
		switch mark[name] {
		case done:
			return nil
		case visiting:
			return fmt.Errorf("container dependencies of '%s' form a cycle", name)
		}
		mark[name] = visiting
		for _, needed := range needs(c) {
			n, ok := byName[needed]
			if !ok {
				return fmt.Errorf("container '%s' depends on '%s', which does not exist", name, needed)
			}
			if err := visit(n); err != nil {
				return err
			}
		}
		mark[name] = done
		order = append(order, c)
		return nil
	}
	for _, c := range containers {
		if err := visit(c); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func needs(c types.ContainerDefinition) []string {
	var names []string
	for _, d := range c.DependsOn {
		names = append(names, aws.ToString(d.ContainerName))
	}
	for _, l := range c.Links {
		name, _, _ := strings.Cut(l, ":")
		names = append(names, name)
	}
	for _, v := range c.VolumesFrom {
		names = append(names, aws.ToString(v.SourceContainer))
	}
	return names
}
