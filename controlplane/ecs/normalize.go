package ecs

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/firelens"
)

// normalize checks a task definition as ECS does at registration and fills in what ECS fills in. It does not change in.
// The order of the checks is the order in which ECS complains.
func normalize(in *ecs.RegisterTaskDefinitionInput) (types.TaskDefinition, error) {
	def := types.TaskDefinition{
		ContainerDefinitions: slices.Clone(in.ContainerDefinitions), Cpu: in.Cpu, Memory: in.Memory,
		EnableFaultInjection: in.EnableFaultInjection, EphemeralStorage: in.EphemeralStorage, ExecutionRoleArn: in.ExecutionRoleArn,
		IpcMode: in.IpcMode, NetworkMode: in.NetworkMode, PidMode: in.PidMode, PlacementConstraints: append([]types.TaskDefinitionPlacementConstraint{}, in.PlacementConstraints...), ProxyConfiguration: in.ProxyConfiguration,
		RequiresCompatibilities: in.RequiresCompatibilities, RuntimePlatform: in.RuntimePlatform, TaskRoleArn: in.TaskRoleArn,
		Volumes: append([]types.Volume{}, in.Volumes...),
	}
	family := aws.ToString(in.Family)
	switch {
	case family == "":
		return def, client("Family can not be blank.")
	case !validName.MatchString(family):
		return def, client("Family contains invalid characters.")
	case len(def.ContainerDefinitions) == 0:
		return def, client("Container list cannot be empty.")
	}
	if err := refuse(in); err != nil {
		return def, err
	}
	if err := checkRoles(in.ExecutionRoleArn, in.TaskRoleArn); err != nil {
		return def, err
	}
	fargate := slices.Contains(def.RequiresCompatibilities, types.CompatibilityFargate)
	if def.NetworkMode == "" {
		def.NetworkMode = types.NetworkModeBridge
		if fargate {
			return def, client("Fargate only supports network mode ‘awsvpc’.")
		}
	}
	for _, check := range []func(*types.TaskDefinition) error{
		checkContainers, checkSize, checkEphemeralStorage, checkVolumes, checkPorts, checkHealthChecks, checkDependencies, checkRestartPolicies,
		checkLinuxParameters, checkUlimits, checkNamespaces, checkSystemControls, checkSecurityOptions, checkNameServers, checkSecrets, checkFireLens, checkGPUs, checkProxy,
	} {
		if err := check(&def); err != nil {
			return def, err
		}
	}
	if fargate {
		if err := checkFargate(def); err != nil {
			return def, err
		}
	}
	def.Compatibilities = compatibilities(def)
	def.RequiresAttributes = requiredAttributes(def)
	return def, nil
}

func checkContainers(def *types.TaskDefinition) error {
	names, essential := map[string]bool{}, false
	for i := range def.ContainerDefinitions {
		c := &def.ContainerDefinitions[i]
		name := aws.ToString(c.Name)
		switch {
		case name == "":
			return client("Container.name should not be null or empty.")
		case !validName.MatchString(name):
			return client("Container.name contains invalid characters.")
		case names[name]:
			return client("Container.name must be unique within a task definition. '%s' is used more than once.", name)
		case aws.ToString(c.Image) == "":
			return client("Container.image should not be null or empty.")
		case c.Cpu < 0:
			return client("Invalid 'cpu' setting for container '%s'.", name)
		case c.Memory == nil && c.MemoryReservation == nil && def.Memory == nil:
			return client("Invalid setting for container '%s'. At least one of 'memory' or 'memoryReservation' must be specified.", name)
		case c.Memory != nil && *c.Memory < 6:
			return client("Invalid 'memory' setting for container '%s'. Memory must be at least 6 MiB.", name)
		case c.MemoryReservation != nil && *c.MemoryReservation < 6:
			return client("Invalid 'memoryReservation' setting for container '%s'. Memory must be at least 6 MiB.", name)
		case c.Memory != nil && c.MemoryReservation != nil && *c.MemoryReservation > *c.Memory:
			return client("Invalid setting for container '%s'. 'memory' must be greater than or equal to 'memoryReservation'.", name)
		}
		if err := checkLog(name, c.LogConfiguration); err != nil {
			return err
		}
		names[name] = true
		c.Essential = new(controlplane.Essential(*c))
		essential = essential || *c.Essential
		c.Environment = append([]types.KeyValuePair{}, c.Environment...)
		c.MountPoints = append([]types.MountPoint{}, c.MountPoints...)
		c.VolumesFrom = append([]types.VolumeFrom{}, c.VolumesFrom...)
	}
	if !essential {
		return client("Task definition doesn't have any essential container.")
	}
	return nil
}

// checkEphemeralStorage holds to Fargate's bounds, whatever the launch type is.
func checkEphemeralStorage(def *types.TaskDefinition) error {
	return ephemeralStorage(def.EphemeralStorage)
}

func ephemeralStorage(s *types.EphemeralStorage) error {
	if s != nil && (s.SizeInGiB < 21 || s.SizeInGiB > 200) {
		return client("Invalid 'ephemeralStorage.sizeInGiB' setting. The size must be between 21 and 200 GiB.")
	}
	return nil
}

// checkSize normalizes the task's size to units and MiB and holds its containers against it.
func checkSize(def *types.TaskDefinition) error {
	cpu, memory, err := controlplane.TaskSize(def.Cpu, def.Memory)
	if err != nil {
		return client("%s. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.", capital(err))
	}
	// "Supported values are between 128 CPU units (0.125 vCPUs) and 196608 CPU units (192 vCPUs)."
	if def.Cpu != nil {
		if cpu < 128 || cpu > 196608 {
			return client("Invalid 'cpu' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.")
		}
		def.Cpu = aws.String(strconv.FormatUint(uint64(cpu), 10))
	}
	if def.Memory != nil {
		if memory < 6 {
			return client("Invalid 'memory' setting for task. For more information, see the Troubleshooting section of the Amazon ECS Developer Guide.")
		}
		def.Memory = aws.String(strconv.FormatUint(uint64(memory), 10))
	}
	var sumCPU, sumMemory int64
	for _, c := range def.ContainerDefinitions {
		sumCPU += int64(c.Cpu)
		reserved := c.MemoryReservation
		if reserved == nil {
			reserved = c.Memory
		}
		sumMemory += int64(aws.ToInt32(reserved))
		if def.Memory != nil && int64(aws.ToInt32(c.Memory)) > int64(memory) {
			return client("Invalid setting for container '%s'. The container's 'memory' can not be greater than the task's.", aws.ToString(c.Name))
		}
	}
	if def.Cpu != nil && sumCPU > int64(cpu) {
		return client("The sum of all container 'cpu' values cannot be greater than the value of the task 'cpu'.")
	}
	if def.Memory != nil && sumMemory > int64(memory) {
		return client("The sum of all container memory reservations cannot be greater than the value of the task 'memory'.")
	}
	return nil
}

func checkVolumes(def *types.TaskDefinition) error {
	names := map[string]bool{}
	for i, v := range def.Volumes {
		name := aws.ToString(v.Name)
		d := v.DockerVolumeConfiguration
		switch {
		case !validName.MatchString(name):
			return client("Volume name '%s' is invalid: use letters, numbers, hyphens and underscores.", name)
		case names[name]:
			return client("Volume name '%s' is used more than once.", name)
		case d != nil && v.Host != nil:
			return client("Volume '%s' can not have both 'host' and 'dockerVolumeConfiguration'.", name)
		case d != nil && aws.ToString(d.Driver) != "" && *d.Driver != "local":
			return client("'volumes[%s].dockerVolumeConfiguration.driver' is not supported by this platform: only local exists.", name)
		case d != nil && d.Scope == "":
			d = new(*d)
			d.Scope = types.ScopeTask
			def.Volumes[i].DockerVolumeConfiguration = d
		}
		if d != nil {
			if err := checkDriverOptions(name, d); err != nil {
				return err
			}
		}
		if err := checkEFS(v); err != nil {
			return err
		}
		if err := checkNFS(v); err != nil {
			return err
		}
		names[name] = true
	}
	for _, c := range def.ContainerDefinitions {
		for _, m := range c.MountPoints {
			switch {
			case !names[aws.ToString(m.SourceVolume)]:
				return client("Unknown volume '%s'.", aws.ToString(m.SourceVolume))
			case !strings.HasPrefix(aws.ToString(m.ContainerPath), "/"):
				return client("Invalid 'containerPath' of volume '%s' for container '%s': an absolute path is due.", aws.ToString(m.SourceVolume), aws.ToString(c.Name))
			}
		}
	}
	return nil
}

// checkDriverOptions lets through what the hosts' local driver can mount.
func checkDriverOptions(name string, d *types.DockerVolumeConfiguration) error {
	for _, option := range slices.Sorted(maps.Keys(d.DriverOpts)) {
		if !slices.Contains([]string{"device", "o", "type"}, option) {
			return client("Invalid 'dockerVolumeConfiguration.driverOpts' setting for volume '%s'. '%s' is not an option of the local driver.", name, option)
		}
	}
	kind, bound := d.DriverOpts["type"], false
	for o := range strings.SplitSeq(d.DriverOpts["o"], ",") {
		bound = bound || o == "bind" || o == "rbind"
	}
	switch {
	case len(d.DriverOpts) == 0:
	case kind == "tmpfs" && d.Scope == types.ScopeShared:
		return client("'volumes[%s].dockerVolumeConfiguration.driverOpts' is not supported by this platform with type tmpfs and scope shared: a tmpfs is of one task.", name)
	case kind == "tmpfs", kind == "nfs", kind == "nfs4":
	case kind != "" && kind != "none" && kind != "bind" || !bound:
		return client("'volumes[%s].dockerVolumeConfiguration.driverOpts' is not supported by this platform with type '%s': tmpfs, nfs, nfs4, and none with the option bind, are.", name, kind)
	case !strings.HasPrefix(d.DriverOpts["device"], "/"):
		return client("Invalid 'dockerVolumeConfiguration.driverOpts' setting for volume '%s'. The device must be an absolute path.", name)
	}
	return nil
}

// checkPorts fills in protocols and host ports and refuses what can not be bound. The containers of a task share one network
// namespace here, whatever the network mode, so two of them can not listen on one port.
func checkPorts(def *types.TaskDefinition) error {
	containerPorts, hostPorts, names := map[string]string{}, map[string]bool{}, map[string]bool{}
	ranged := map[string]bool{} // container ports that are part of a range
	for i := range def.ContainerDefinitions {
		c := &def.ContainerDefinitions[i]
		name := aws.ToString(c.Name)
		if def.NetworkMode == types.NetworkModeNone && len(c.PortMappings) > 0 {
			return client("When networkMode=none, port mappings are not supported.")
		}
		mappings := make([]types.PortMapping, 0, len(c.PortMappings))
		ranges := 0
		for _, m := range c.PortMappings {
			if m.ContainerPortRange != nil {
				if ranges++; ranges > 100 {
					return client("Container '%s' has more than 100 port ranges.", name)
				}
				if err := checkPortRange(def, c, &m, containerPorts, ranged); err != nil {
					return err
				}
				mappings = append(mappings, m)
				continue
			}
			port, host := aws.ToInt32(m.ContainerPort), aws.ToInt32(m.HostPort)
			if port < 1 || port > 65535 {
				return client("Invalid 'containerPort' setting for container '%s'.", name)
			}
			if host < 0 || host > 65535 {
				return client("Invalid 'hostPort' setting for container '%s'.", name)
			}
			if m.Protocol == "" {
				m.Protocol = types.TransportProtocolTcp
			}
			if def.NetworkMode == types.NetworkModeAwsvpc || def.NetworkMode == types.NetworkModeHost {
				if host != 0 && host != port {
					return client("When networkMode=%s, the host ports and container ports in port mappings must match.", def.NetworkMode)
				}
				host = port
			}
			m.HostPort = new(host)
			if n := aws.ToString(m.Name); n != "" {
				if names[n] {
					return client("Port mapping name '%s' is used more than once.", n)
				}
				names[n] = true
			}
			containerPort, hostPort := fmt.Sprintf("%d/%s", port, m.Protocol), fmt.Sprintf("%d/%s", host, m.Protocol)
			if other, taken := containerPorts[containerPort]; taken && other != name {
				return client("Containers '%s' and '%s' both use container port %s: the containers of a task share one network namespace on this platform.", other, name, containerPort)
			}
			if ranged[containerPort] {
				return client("Invalid 'containerPort' setting for container '%s'. Port %s is mapped more than once.", name, containerPort)
			}
			if host != 0 && hostPorts[hostPort] {
				return client("The host port %s is mapped more than once.", hostPort)
			}
			containerPorts[containerPort], hostPorts[hostPort] = name, true
			mappings = append(mappings, m)
		}
		c.PortMappings = mappings
	}
	return nil
}

// compatibilities are the launch types that the definition can be run with.
func compatibilities(def types.TaskDefinition) []types.Compatibility {
	var list []types.Compatibility
	if def.NetworkMode != types.NetworkModeAwsvpc {
		list = append(list, types.CompatibilityExternal)
	}
	list = append(list, types.CompatibilityEc2)
	if checkFargate(def) == nil {
		list = append(list, types.CompatibilityFargate)
	}
	return list
}

// requiredAttributes are those that ECS shows for what the definition uses. All but those of ephemeral storage, of log routers, of volumes that hosts mount, of proxies, of faults and of the log drivers journald and splunk are shown only: a node here can all of it.
func requiredAttributes(def types.TaskDefinition) []types.Attribute {
	names := map[string]bool{}
	if def.ExecutionRoleArn != nil {
		names["ecs.capability.execution-role-ecr-pull"] = true
	}
	if def.TaskRoleArn != nil {
		names["com.amazonaws.ecs.capability.task-iam-role"] = true
	}
	if def.NetworkMode == types.NetworkModeAwsvpc {
		names["ecs.capability.task-eni"] = true
	}
	if def.EphemeralStorage != nil {
		names[controlplane.CapabilityEphemeralStorage] = true
	}
	if def.ProxyConfiguration != nil {
		names[controlplane.CapabilityAppMesh] = true
	}
	if aws.ToBool(def.EnableFaultInjection) {
		names[controlplane.CapabilityFaultInjection] = true
	}
	for _, a := range controlplane.VolumeAttributes(def.Volumes) {
		names[a] = true
	}
	if def.PidMode != "" || def.IpcMode != "" {
		names["ecs.capability.pid-ipc-namespace-sharing"] = true
	}
	for _, c := range def.ContainerDefinitions {
		names["com.amazonaws.ecs.capability.docker-remote-api.1.18"] = true
		if c.LogConfiguration != nil {
			names[controlplane.LogDriverCapability(c.LogConfiguration.LogDriver)] = true
			if def.ExecutionRoleArn != nil && c.LogConfiguration.LogDriver == types.LogDriverAwslogs {
				names["ecs.capability.execution-role-awslogs"] = true
			}
		}
		for _, s := range c.Secrets {
			if ref, err := controlplane.ParseSecretRef(aws.ToString(s.ValueFrom)); err == nil && ref.Secret != "" {
				names["ecs.capability.secrets.asm.environment-variables"] = true
			} else {
				names["ecs.capability.secrets.ssm.environment-variables"] = true
			}
		}
		if c.RepositoryCredentials != nil {
			names["ecs.capability.private-registry-authentication.secretsmanager"] = true
		}
		if len(c.EnvironmentFiles) > 0 {
			names["ecs.capability.env-files.s3"] = true
		}
		if c.LogConfiguration != nil && len(c.LogConfiguration.SecretOptions) > 0 {
			names["ecs.capability.logging-driver.secrets"] = true
		}
		if f := c.FirelensConfiguration; f != nil {
			names[controlplane.FireLensCapability(f.Type)] = true
			if f.Options[firelens.OptionFileType] != "" {
				names["ecs.capability.firelens.options.config.file"] = true
			}
		}
		if c.MemoryReservation != nil {
			names["com.amazonaws.ecs.capability.docker-remote-api.1.21"] = true
		}
		if aws.ToBool(c.Privileged) {
			names["com.amazonaws.ecs.capability.privileged-container"] = true
		}
		if len(c.DependsOn) > 0 {
			names["ecs.capability.container-ordering"] = true
		}
		if c.HealthCheck != nil {
			names["ecs.capability.container-health-check"] = true
		}
		if strings.Contains(aws.ToString(c.Image), ".dkr.ecr.") {
			names["com.amazonaws.ecs.capability.ecr-auth"] = true
		}
	}
	list := make([]types.Attribute, 0, len(names))
	for n := range names {
		list = append(list, types.Attribute{Name: aws.String(n)})
	}
	slices.SortFunc(list, func(a, b types.Attribute) int { return strings.Compare(*a.Name, *b.Name) })
	return list
}
