package ecsagent

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// The parts of the engine's API that the agent passes on as they are: Config and HostConfig of ContainerCreate. Only what is set is sent, for what
// stands there replaces what the agent has made itself.

type containerConfig struct {
	User            string            `json:"User,omitempty"`
	WorkingDir      string            `json:"WorkingDir,omitempty"`
	Hostname        string            `json:"Hostname,omitempty"`
	Labels          map[string]string `json:"Labels,omitempty"`
	Tty             bool              `json:"Tty,omitempty"`
	OpenStdin       bool              `json:"OpenStdin,omitempty"`
	NetworkDisabled bool              `json:"NetworkDisabled,omitempty"`
	StopSignal      string            `json:"StopSignal,omitempty"`
	Healthcheck     *healthcheck      `json:"Healthcheck,omitempty"`
}

type healthcheck struct {
	Test        []string `json:"Test"`
	Interval    int64    `json:"Interval"`
	Timeout     int64    `json:"Timeout"`
	Retries     uint32   `json:"Retries"`
	StartPeriod int64    `json:"StartPeriod"`
}

type hostConfig struct {
	NetworkMode       string            `json:"NetworkMode,omitempty"`
	MemoryReservation int64             `json:"MemoryReservation,omitempty"`
	MemorySwap        int64             `json:"MemorySwap,omitempty"`
	MemorySwappiness  *uint32           `json:"MemorySwappiness,omitempty"`
	Privileged        bool              `json:"Privileged,omitempty"`
	ReadonlyRootfs    bool              `json:"ReadonlyRootfs,omitempty"`
	CapAdd            []string          `json:"CapAdd,omitempty"`
	CapDrop           []string          `json:"CapDrop,omitempty"`
	Init              *bool             `json:"Init,omitempty"`
	ShmSize           int64             `json:"ShmSize,omitempty"`
	Tmpfs             map[string]string `json:"Tmpfs,omitempty"`
	Devices           []engineDevice    `json:"Devices,omitempty"`
	Ulimits           []engineUlimit    `json:"Ulimits,omitempty"`
	Sysctls           map[string]string `json:"Sysctls,omitempty"`
	SecurityOpt       []string          `json:"SecurityOpt,omitempty"`
	ExtraHosts        []string          `json:"ExtraHosts,omitempty"`
	DNS               []string          `json:"Dns,omitempty"`
	DNSSearch         []string          `json:"DnsSearch,omitempty"`
	LogConfig         *engineLog        `json:"LogConfig,omitempty"`
}

type engineDevice struct {
	PathOnHost        string
	PathInContainer   string
	CgroupPermissions string
}

type engineUlimit struct {
	Name string
	Hard int64
	Soft int64
}

type engineLog struct {
	Type   string
	Config map[string]string `json:",omitempty"`
}

func engineConfig(c *agentapi.ContainerSpec) containerConfig {
	out := containerConfig{User: c.User, WorkingDir: c.WorkingDirectory, Hostname: c.Hostname, Labels: c.Labels, Tty: c.PseudoTerminal, OpenStdin: c.Interactive,
		NetworkDisabled: c.DisableNetworking, StopSignal: c.StopSignal}
	if h := c.HealthCheck; h != nil {
		out.Healthcheck = &healthcheck{h.Command, seconds(h.IntervalSeconds), seconds(h.TimeoutSeconds), h.Retries, seconds(h.StartPeriodSeconds)}
	}
	return out
}

func engineHostConfig(c *agentapi.ContainerSpec, def types.ContainerDefinition, spec *agentapi.TaskSpec) hostConfig {
	const mib = 1 << 20
	out := hostConfig{
		NetworkMode: spec.NetworkMode, MemoryReservation: int64(c.MemoryReservationMib) * mib, MemorySwappiness: c.Swappiness, Privileged: c.Privileged,
		ReadonlyRootfs: c.ReadonlyRoot, CapAdd: c.AddCapabilities, CapDrop: c.DropCapabilities, ShmSize: int64(c.SharedMemoryMib) * mib, Sysctls: c.Sysctls,
		DNS: c.DnsServers, DNSSearch: c.DnsSearch,
	}
	if c.MaxSwapMib != nil && c.MemoryMib > 0 {
		out.MemorySwap = (int64(c.MemoryMib) + int64(*c.MaxSwapMib)) * mib
	}
	if c.InitProcess {
		out.Init = aws.Bool(true)
	}
	if c.NoNewPrivileges {
		out.SecurityOpt = []string{"no-new-privileges"}
	}
	for _, h := range def.ExtraHosts {
		out.ExtraHosts = append(out.ExtraHosts, aws.ToString(h.Hostname)+":"+aws.ToString(h.IpAddress))
	}
	for _, t := range c.Tmpfs {
		if out.Tmpfs == nil {
			out.Tmpfs = map[string]string{}
		}
		out.Tmpfs[t.ContainerPath] = tmpfsOptions(t)
	}
	for _, d := range c.Devices {
		out.Devices = append(out.Devices, engineDevice{d.HostPath, cmp.Or(d.ContainerPath, d.HostPath), d.Access})
	}
	for _, u := range c.Ulimits {
		out.Ulimits = append(out.Ulimits, engineUlimit{u.Name, u.Hard, u.Soft})
	}
	if l := c.Log; l != nil {
		out.LogConfig = &engineLog{l.Driver, l.Options}
	}
	return out
}

// tmpfsOptions are those of a mount: the size is one of them.
func tmpfsOptions(t *agentapi.Tmpfs) string {
	return strings.Join(append([]string{"size=" + strconv.Itoa(int(t.SizeMib)) + "m"}, t.Options...), ",")
}
