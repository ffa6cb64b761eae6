package ecs

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// checkNamespaces holds pidMode, ipcMode and disableNetworking to what there is, and to one another.
func checkNamespaces(def *types.TaskDefinition) error {
	for _, c := range def.ContainerDefinitions {
		switch {
		case !aws.ToBool(c.DisableNetworking):
		case def.NetworkMode == types.NetworkModeAwsvpc:
			return client("'disableNetworking' of container '%s' is not supported when networkMode=awsvpc.", aws.ToString(c.Name))
		case len(c.PortMappings) > 0:
			return client("Container '%s' has port mappings, but its networking is disabled.", aws.ToString(c.Name))
		}
	}
	return nil
}

// ipcControls are the IPC namespace's of "SystemControl" in the ECS API reference, besides fs.mqueue.*.
var ipcControls = strings.Fields("kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni kernel.shm_rmid_forced")

// controlName keeps a parameter's name from being more than a file below /proc/sys.
var controlName = regexp.MustCompile(`^[a-z0-9_]+(\.[A-Za-z0-9_-]+)+$`)

// checkSystemControls lets only parameters of a namespace pass that the container, or its task, has for itself.
func checkSystemControls(def *types.TaskDefinition) error {
	for i := range def.ContainerDefinitions {
		c := &def.ContainerDefinitions[i]
		name, seen := aws.ToString(c.Name), map[string]bool{}
		for _, s := range c.SystemControls {
			n := aws.ToString(s.Namespace)
			network, ipc := strings.HasPrefix(n, "net."), slices.Contains(ipcControls, n) || strings.HasPrefix(n, "fs.mqueue.")
			switch {
			case !controlName.MatchString(n) || !network && !ipc:
				return client("Invalid 'systemControls' setting for container '%s'. '%s' is not a namespaced kernel parameter that can be set.", name, n)
			case aws.ToString(s.Value) == "" || strings.ContainsAny(*s.Value, "\n\x00"):
				return client("Invalid 'systemControls' setting for container '%s'. '%s' has no value.", name, n)
			case seen[n]:
				return client("Invalid 'systemControls' setting for container '%s'. '%s' is set more than once.", name, n)
			case network && def.NetworkMode == types.NetworkModeHost && !aws.ToBool(c.DisableNetworking):
				return client("Network namespace system controls are not supported when networkMode=host.")
			case ipc && def.IpcMode == types.IpcModeHost:
				return client("IPC namespace system controls are not supported when ipcMode=host.")
			}
			seen[n] = true
		}
		c.SystemControls = append([]types.SystemControl{}, c.SystemControls...)
	}
	return nil
}

// checkUlimits wants each limit once, and none that is below what is to be had at once.
func checkUlimits(def *types.TaskDefinition) error {
	for _, c := range def.ContainerDefinitions {
		name, seen := aws.ToString(c.Name), map[types.UlimitName]bool{}
		for _, u := range c.Ulimits {
			switch {
			case seen[u.Name]:
				return client("Invalid 'ulimits' setting for container '%s'. '%s' is set more than once.", name, u.Name)
			case u.SoftLimit < -1 || u.HardLimit < -1:
				return client("Invalid 'ulimits' setting for container '%s'. A limit of '%s' is negative.", name, u.Name)
			case u.HardLimit != -1 && (u.SoftLimit == -1 || u.SoftLimit > u.HardLimit):
				return client("Invalid 'ulimits' setting for container '%s'. The soft limit of '%s' must not be greater than the hard limit.", name, u.Name)
			}
			seen[u.Name] = true
		}
	}
	return nil
}

// checkSecurityOptions: of Docker's only no-new-privileges means something on every host.
func checkSecurityOptions(def *types.TaskDefinition) error {
	for _, c := range def.ContainerDefinitions {
		for _, o := range c.DockerSecurityOptions {
			kind, _, _ := strings.Cut(strings.Replace(o, "=", ":", 1), ":")
			switch kind {
			case "no-new-privileges":
				if o != "no-new-privileges" && o != "no-new-privileges:true" && o != "no-new-privileges:false" {
					return client("Invalid 'dockerSecurityOptions' setting for container '%s'. '%s' is not a security option.", aws.ToString(c.Name), o)
				}
			case "apparmor", "label", "credentialspec":
				return client("'containerDefinitions[%s].dockerSecurityOptions' is not supported by this platform with the value %s: only no-new-privileges is.",
					aws.ToString(c.Name), o)
			default:
				return client("Invalid 'dockerSecurityOptions' setting for container '%s'. '%s' is not a security option.", aws.ToString(c.Name), o)
			}
		}
	}
	return nil
}

func checkNameServers(def *types.TaskDefinition) error {
	for _, c := range def.ContainerDefinitions {
		name := aws.ToString(c.Name)
		if def.NetworkMode == types.NetworkModeAwsvpc && len(c.DnsServers)+len(c.DnsSearchDomains) > 0 {
			return client("DNS servers and search domains are not supported on container '%s' when networkMode=awsvpc.", name)
		}
		for _, s := range c.DnsServers {
			if _, err := netip.ParseAddr(s); err != nil {
				return client("Invalid 'dnsServers' setting for container '%s'. '%s' is not an IP address.", name, s)
			}
		}
		for _, s := range c.DnsSearchDomains {
			if !searchDomain.MatchString(s) {
				return client("Invalid 'dnsSearchDomains' setting for container '%s'. '%s' is not a domain.", name, s)
			}
		}
	}
	return nil
}

// searchDomain keeps what is written to resolv.conf to one word.
var searchDomain = regexp.MustCompile(`^[A-Za-z0-9._-]{1,253}$`)

// fargateContainer says what of a container's settings Fargate does not have.
func fargateContainer(c types.ContainerDefinition) error {
	if len(c.DockerSecurityOptions) > 0 {
		return client("Fargate does not support 'dockerSecurityOptions'.")
	}
	for _, u := range c.Ulimits {
		if u.Name != types.UlimitNameNofile {
			return client("Fargate only supports the ulimit 'nofile', not '%s'.", u.Name)
		}
	}
	return fargateLinuxParameters(c.LinuxParameters)
}
