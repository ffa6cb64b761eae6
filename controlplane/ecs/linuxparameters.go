package ecs

import (
	"path"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// capabilityNames are those of "KernelCapabilities" in the ECS API reference.
var capabilityNames = strings.Fields("ALL AUDIT_CONTROL AUDIT_WRITE BLOCK_SUSPEND CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK " +
	"IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW SETFCAP SETGID " +
	"SETPCAP SETUID SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG " +
	"SYSLOG WAKE_ALARM")

// tmpfsOptions are those of "Tmpfs" there. Of them bind, rbind and remount mount no tmpfs.
var (
	tmpfsOptions = strings.Fields("defaults ro rw suid nosuid dev nodev exec noexec sync async dirsync mand nomand atime noatime diratime " +
		"nodiratime unbindable runbindable private rprivate shared rshared slave rslave relatime norelatime strictatime nostrictatime " +
		"mode uid gid nr_inodes nr_blocks mpol")
	tmpfsValues  = strings.Fields("mode uid gid nr_inodes nr_blocks mpol")
	tmpfsNothing = strings.Fields("bind rbind remount")
)

// checkLinuxParameters holds them to "LinuxParameters" in the ECS API reference.
func checkLinuxParameters(def *types.TaskDefinition) error {
	for _, c := range def.ContainerDefinitions {
		p := c.LinuxParameters
		if p == nil {
			continue
		}
		name := aws.ToString(c.Name)
		bad := func(member, why string) error {
			return client("Invalid 'linuxParameters.%s' setting for container '%s'. %s", member, name, why)
		}
		if k := p.Capabilities; k != nil {
			for _, capability := range slices.Concat(k.Add, k.Drop) {
				if !slices.Contains(capabilityNames, capability) {
					return bad("capabilities", "'"+capability+"' is not a capability.")
				}
			}
		}
		for _, d := range p.Devices {
			switch {
			case !strings.HasPrefix(aws.ToString(d.HostPath), "/"):
				return bad("devices", "'hostPath' must be an absolute path.")
			case d.ContainerPath != nil && !strings.HasPrefix(*d.ContainerPath, "/"):
				return bad("devices", "'containerPath' must be an absolute path.")
			}
		}
		mounted := map[string]bool{}
		for _, t := range p.Tmpfs {
			at := path.Clean(aws.ToString(t.ContainerPath))
			switch {
			case !strings.HasPrefix(at, "/"):
				return bad("tmpfs", "'containerPath' must be an absolute path.")
			case mounted[at]:
				return bad("tmpfs", "'"+at+"' is mounted more than once.")
			case t.Size < 1:
				return bad("tmpfs", "'size' must be at least 1 MiB.")
			}
			mounted[at] = true
			for _, option := range t.MountOptions {
				key, _, valued := strings.Cut(option, "=")
				switch {
				case slices.Contains(tmpfsNothing, key):
					return client("'containerDefinitions[%s].linuxParameters.tmpfs.mountOptions' is not supported by this platform with the value %s: "+
						"it mounts no tmpfs.", name, option)
				case !slices.Contains(tmpfsOptions, key) || valued != slices.Contains(tmpfsValues, key) || strings.ContainsAny(option, ", "):
					return bad("tmpfs", "'"+option+"' is not a mount option.")
				}
			}
		}
		switch {
		case p.SharedMemorySize != nil && *p.SharedMemorySize < 1:
			return bad("sharedMemorySize", "The value must be at least 1 MiB.")
		case p.MaxSwap != nil && *p.MaxSwap < 0:
			return bad("maxSwap", "The value must not be negative.")
		case p.MaxSwap != nil && c.Memory == nil && def.Memory == nil:
			return bad("maxSwap", "A hard memory limit must be set as well.")
		case p.Swappiness != nil && (*p.Swappiness < 0 || *p.Swappiness > 100):
			return bad("swappiness", "The value must be between 0 and 100.")
		}
	}
	return nil
}

// fargateLinuxParameters says what of them Fargate does not have.
func fargateLinuxParameters(p *types.LinuxParameters) error {
	if p == nil {
		return nil
	}
	if p.Capabilities != nil {
		for _, capability := range p.Capabilities.Add {
			if capability != "SYS_PTRACE" {
				return client("Fargate only supports adding the SYS_PTRACE kernel capability, not %s.", capability)
			}
		}
	}
	for _, m := range []struct {
		name string
		set  bool
	}{
		{"devices", len(p.Devices) > 0}, {"sharedMemorySize", p.SharedMemorySize != nil}, {"maxSwap", p.MaxSwap != nil}, {"swappiness", p.Swappiness != nil},
	} {
		if m.set {
			return client("Fargate does not support 'linuxParameters.%s'.", m.name)
		}
	}
	return nil
}
