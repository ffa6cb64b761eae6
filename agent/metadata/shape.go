package metadata

import (
	"context"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/addressing"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/id"
)

// taskMetadata and what it holds have the members of ECS's answers.
type taskMetadata struct {
	Cluster            string
	TaskARN            string
	Family             string
	Revision           string
	DesiredStatus      string
	KnownStatus        string
	Limits             *taskLimits `json:",omitempty"`
	PullStartedAt      *time.Time  `json:",omitempty"`
	PullStoppedAt      *time.Time  `json:",omitempty"`
	ExecutionStoppedAt *time.Time  `json:",omitempty"`
	AvailabilityZone   string      `json:",omitempty"`
	LaunchType         string      `json:",omitempty"`
	ServiceName        string      `json:",omitempty"`
	Containers         []*containerMetadata
	EphemeralStorage   *storageMetrics `json:"EphemeralStorageMetrics,omitempty"`
}

// storageMetrics are MiB.
type storageMetrics struct{ Utilized, Reserved uint64 }

// taskLimits are virtual processors and MiB.
type taskLimits struct {
	CPU    float64 `json:",omitempty"`
	Memory uint32  `json:",omitempty"`
}

type containerMetadata struct {
	DockerId      string // the runtime's id, whatever the runtime is
	Name          string
	DockerName    string
	Image         string
	ImageID       string `json:",omitempty"`
	Ports         []port `json:",omitempty"`
	Labels        map[string]string
	DesiredStatus string
	KnownStatus   string
	ExitCode      *int32 `json:",omitempty"`
	Limits        containerLimits
	CreatedAt     *time.Time `json:",omitempty"`
	StartedAt     *time.Time `json:",omitempty"`
	FinishedAt    *time.Time `json:",omitempty"`
	Type          string
	ContainerARN  string
	Networks      []network
	Health        *health `json:",omitempty"`
	RestartCount  *uint32 `json:",omitempty"` // where a restart policy is enabled
}

// health is of a container that has a health check.
type health struct {
	Status string     `json:"status"`
	Since  *time.Time `json:"statusSince,omitempty"`
}

// containerLimits are CPU units and MiB.
type containerLimits struct{ CPU, Memory uint32 }

type port struct {
	ContainerPort uint32
	Protocol      string
	HostPort      uint32 `json:",omitempty"`
	HostIp        string `json:",omitempty"`
}

type network struct {
	NetworkMode         string
	IPv4Addresses       []string `json:",omitempty"`
	IPv6Addresses       []string `json:",omitempty"`
	IPv6SubnetCIDRBlock string   `json:",omitempty"`
}

type containerStats struct {
	Name string `json:"name"`
	ID   string `json:"id"`
	runtime.Stats
}

func (s *Server) describeTask(ctx context.Context, t Task) *taskMetadata {
	as, spec := t.Assignment, t.Assignment.Spec
	m := &taskMetadata{
		Cluster: describeCluster(spec), TaskARN: as.TaskArn, Family: spec.Family, Revision: strconv.Itoa(int(spec.Revision)),
		DesiredStatus: desired(as), KnownStatus: taskStatus(t.Status.GetState()), AvailabilityZone: s.cfg.Zone, LaunchType: spec.LaunchType, ServiceName: spec.Service,
		PullStartedAt: at(t.Status.GetPullStarted()), PullStoppedAt: at(t.Status.GetPullStopped()), ExecutionStoppedAt: at(t.Status.GetExecutionStopped()),
	}
	if spec.CpuUnits > 0 || spec.MemoryMib > 0 {
		m.Limits = &taskLimits{CPU: float64(spec.CpuUnits) / 1024, Memory: spec.MemoryMib}
	}
	for _, c := range spec.Containers {
		m.Containers = append(m.Containers, describeContainer(t, c))
	}
	if spec.EphemeralStorageMib > 0 && s.cfg.Storage != nil {
		if used, err := s.cfg.Storage(ctx, as.TaskId); err == nil {
			m.EphemeralStorage = &storageMetrics{Utilized: used.Used >> 20, Reserved: used.Reserved >> 20}
		} else {
			s.cfg.Logger.Warn("measure the ephemeral storage of a task", "task", as.TaskId, "error", err)
		}
	}
	return m
}

func describeContainer(t Task, c *agentapi.ContainerSpec) *containerMetadata {
	as, spec, st := t.Assignment, t.Assignment.Spec, t.status(c.Name)
	m := &containerMetadata{
		DockerId: EndpointID(as.TaskId, c.Name), Name: c.Name, DockerName: "ecs-" + spec.Family + "-" + strconv.Itoa(int(spec.Revision)) + "-" + c.Name + "-" + as.TaskId,
		Image: c.Image, ImageID: st.GetImageDigest(), DesiredStatus: desired(as), KnownStatus: containerStatus(st.GetState()), Type: "NORMAL",
		Limits:       containerLimits{c.CpuUnits, c.MemoryMib},
		CreatedAt:    at(t.Status.GetPullStopped()), // it is made as soon as all images are there
		StartedAt:    at(st.GetStarted()),
		FinishedAt:   at(st.GetFinished()),
		ContainerARN: arn.New("ecs", spec.Region, spec.Account, "container/"+spec.Cluster+"/"+as.TaskId+"/"+id.UUIDOf(as.TaskId+"/"+c.Name)).String(),
		Labels: map[string]string{
			"com.amazonaws.ecs.cluster": describeCluster(spec), "com.amazonaws.ecs.container-name": c.Name, "com.amazonaws.ecs.task-arn": as.TaskArn,
			"com.amazonaws.ecs.task-definition-family": spec.Family, "com.amazonaws.ecs.task-definition-version": strconv.Itoa(int(spec.Revision)),
		},
	}
	if st.GetRuntimeId() != "" {
		m.DockerId = st.RuntimeId
	}
	if st != nil && st.ExitCode != nil {
		m.ExitCode = st.ExitCode
	}
	for k, v := range c.Labels {
		m.Labels[k] = v
	}
	for _, p := range st.GetPorts() {
		for n := range max(p.Count, 1) { // each port of a range
			one := port{ContainerPort: p.ContainerPort + n, Protocol: p.Protocol}
			if spec.NetworkMode != "awsvpc" {
				one.HostPort, one.HostIp = p.HostPort+n, p.BindIp
			}
			m.Ports = append(m.Ports, one)
		}
	}
	n := network{NetworkMode: spec.NetworkMode}
	if n.NetworkMode == "" {
		n.NetworkMode = "bridge"
	}
	if a, err := netip.ParseAddr(t.Status.GetAddress()); err == nil {
		n.IPv4Addresses = []string{a.String()}
	}
	if a, err := netip.ParseAddr(t.Status.GetIpv6Address()); err == nil {
		n.IPv6Addresses, n.IPv6SubnetCIDRBlock = []string{a.String()}, addressing.Subnet6Of(a).String()
	}
	m.Networks = []network{n}
	if c.HealthCheck != nil {
		m.Health = &health{Status: strings.TrimPrefix(max(st.GetHealth(), agentapi.Health_HEALTH_UNKNOWN).String(), "HEALTH_"), Since: at(st.GetHealthSince())}
	}
	if c.Restart != nil {
		m.RestartCount = new(st.GetRestarts())
	}
	return m
}

// describeCluster is the cluster as the agents of ECS say it: its name, or on Fargate its ARN.
func describeCluster(spec *agentapi.TaskSpec) string {
	if spec.LaunchType == "FARGATE" {
		return arn.New("ecs", spec.Region, spec.Account, "cluster/"+spec.Cluster).String()
	}
	return spec.Cluster
}

func desired(as *agentapi.Assignment) string {
	if as.Desired == agentapi.DesiredState_DESIRED_STOPPED {
		return "STOPPED"
	}
	return "RUNNING"
}

// taskStatus is the ECS agent's word for a state.
func taskStatus(s agentapi.TaskState) string {
	switch {
	case s < agentapi.TaskState_ACTIVATING:
		return "NONE"
	case s == agentapi.TaskState_ACTIVATING:
		return "CREATED"
	case s < agentapi.TaskState_STOPPED:
		return "RUNNING"
	}
	return "STOPPED"
}

func containerStatus(s agentapi.ContainerState) string {
	switch s {
	case agentapi.ContainerState_CONTAINER_PULLED:
		return "PULLED"
	case agentapi.ContainerState_CONTAINER_RUNNING:
		return "RUNNING"
	case agentapi.ContainerState_CONTAINER_STOPPED:
		return "STOPPED"
	}
	return "NONE"
}

func at(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	v := t.AsTime()
	return &v
}
