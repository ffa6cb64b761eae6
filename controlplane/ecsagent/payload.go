package ecsagent

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

// task is a task as the protocol has it. What becomes of it on the host is in part the agent's business and in part, in config and hostConfig,
// the engine's.
type task struct {
	Arn                      string           `json:"arn"`
	TaskClusterArn           string           `json:"taskClusterArn"`
	DesiredStatus            string           `json:"desiredStatus"`
	Family                   string           `json:"family"`
	Version                  string           `json:"version"`
	TaskDefinitionAccountID  string           `json:"taskDefinitionAccountId"`
	Overrides                string           `json:"overrides"`
	Containers               []*container     `json:"containers"`
	Volumes                  []*volume        `json:"volumes,omitempty"`
	CPU                      float64          `json:"cpu,omitempty"` // vCPUs
	Memory                   uint32           `json:"memory,omitempty"`
	PidMode                  string           `json:"pidMode,omitempty"`
	IpcMode                  string           `json:"ipcMode,omitempty"`
	NetworkMode              string           `json:"networkMode"`
	LaunchType               string           `json:"launchType"`
	ServiceName              string           `json:"serviceName,omitempty"`
	RoleCredentials          *roleCredentials `json:"roleCredentials,omitempty"`
	ExecutionRoleCredentials *roleCredentials `json:"executionRoleCredentials,omitempty"`
}

type container struct {
	Name                   string                  `json:"name"`
	ContainerArn           string                  `json:"containerArn"`
	Image                  string                  `json:"image"`
	CPU                    uint32                  `json:"cpu"`
	Memory                 uint32                  `json:"memory,omitempty"`
	Essential              bool                    `json:"essential"`
	EntryPoint             []string                `json:"entryPoint,omitempty"`
	Command                []string                `json:"command,omitempty"`
	Environment            map[string]string       `json:"environment"`
	Links                  []string                `json:"links,omitempty"`
	PortMappings           []portMapping           `json:"portMappings,omitempty"`
	MountPoints            []mountPoint            `json:"mountPoints,omitempty"`
	DependsOn              []dependency            `json:"dependsOn,omitempty"`
	StartTimeout           uint32                  `json:"startTimeout,omitempty"`
	StopTimeout            uint32                  `json:"stopTimeout,omitempty"`
	HealthCheckType        string                  `json:"healthCheckType,omitempty"`
	RestartPolicy          *restartPolicy          `json:"restartPolicy,omitempty"`
	RegistryAuthentication *registryAuthentication `json:"registryAuthentication,omitempty"`
	DockerConfig           dockerConfig            `json:"dockerConfig"`
}

type portMapping struct {
	ContainerPort      uint32 `json:"containerPort,omitempty"`
	HostPort           uint32 `json:"hostPort"`
	ContainerPortRange string `json:"containerPortRange,omitempty"`
	Protocol           string `json:"protocol"`
}

type mountPoint struct {
	SourceVolume  string `json:"sourceVolume"`
	ContainerPath string `json:"containerPath"`
	ReadOnly      bool   `json:"readOnly"`
}

type dependency struct {
	ContainerName string `json:"containerName"`
	Condition     string `json:"condition"`
}

type restartPolicy struct {
	Enabled              bool    `json:"enabled"`
	IgnoredExitCodes     []int32 `json:"ignoredExitCodes,omitempty"`
	RestartAttemptPeriod uint32  `json:"restartAttemptPeriod,omitempty"`
}

type registryAuthentication struct {
	Type        string      `json:"type"`
	ECRAuthData ecrAuthData `json:"ecrAuthData"`
}

type ecrAuthData struct {
	EndpointOverride string `json:"endpointOverride"`
	Region           string `json:"region"`
	RegistryID       string `json:"registryId"`
	UseExecutionRole bool   `json:"useExecutionRole"`
}

type volume struct {
	Name                      string        `json:"name"`
	Type                      string        `json:"type"` // host, docker
	Host                      *hostVolume   `json:"host,omitempty"`
	DockerVolumeConfiguration *dockerVolume `json:"dockerVolumeConfiguration,omitempty"`
}

type hostVolume struct {
	SourcePath string `json:"sourcePath"` // empty: a folder of the agent's
}

type dockerVolume struct {
	Scope         string            `json:"scope"`
	Autoprovision bool              `json:"autoprovision"`
	Driver        string            `json:"driver"`
	DriverOpts    map[string]string `json:"driverOpts,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
}

// dockerConfig are two objects of the engine's API, as text.
type dockerConfig struct {
	Config     string `json:"config"`
	HostConfig string `json:"hostConfig"`
}

// refusal is why a task cannot be run, in the words that its owner is shown.
type refusal string

func (r refusal) Error() string { return string(r) }

// report ends the task.
func (r refusal) report(a *agentapi.Assignment) *agentapi.TaskStatus {
	return &agentapi.TaskStatus{TaskId: a.TaskId, Epoch: a.Epoch, State: agentapi.TaskState_STOPPED, StopCode: "TaskFailedToStart", StoppedReason: string(r)}
}

// records are a task's. They go together and never change.
func (s *session) records(r state.Reader, a *agentapi.Assignment) (*controlplane.Task, *controlplane.TaskDefinition, bool) {
	for t := range controlplane.TasksByID.Scan(r, state.K(a.TaskId)) {
		if d, ok := controlplane.TaskDefinitions.Get(r, t.Scope().FamilyRevisionKey(t.TaskDefinition)); ok && t.ARN() == a.TaskArn {
			return t, d, true
		}
	}
	return nil, nil, false
}

// payload makes an assignment a task of the protocol. A refusal says that it cannot be.
func (s *session) payload(a *agentapi.Assignment) (*task, error) {
	v := s.Store.View()
	t, d, ok := s.records(v, a)
	if !ok {
		return nil, refusal("The task's definition is gone.")
	}
	def, spec := d.Shape(), a.Spec
	out := &task{
		Arn: a.TaskArn, TaskClusterArn: t.Scope().ClusterARN(t.Cluster), DesiredStatus: desired(a), Family: spec.Family, Version: strconv.Itoa(int(spec.Revision)),
		TaskDefinitionAccountID: t.Account, Overrides: "{}", CPU: float64(spec.CpuUnits) / 1024, Memory: spec.MemoryMib, PidMode: spec.PidMode, IpcMode: spec.IpcMode,
		NetworkMode: spec.NetworkMode, LaunchType: t.LaunchType, ServiceName: t.Service,
	}
	if a.Desired != agentapi.DesiredState_DESIRED_STOPPED {
		if err := s.admit(v, t, a); err != nil {
			return nil, err
		}
		task, execution := t.Roles(d)
		var err error
		if task != "" {
			if out.RoleCredentials, err = s.credentials(a, t.Account, task, taskRole); err != nil {
				return nil, refusal(words(err))
			}
		}
		if execution != "" {
			if out.ExecutionRoleCredentials, err = s.credentials(a, t.Account, execution, executionRole); err != nil {
				return nil, refusal(words(err))
			}
		}
	}
	for _, vol := range def.Volumes {
		out.Volumes = append(out.Volumes, payloadVolume(vol))
	}
	byName := map[string]types.ContainerDefinition{}
	for _, c := range def.ContainerDefinitions {
		byName[aws.ToString(c.Name)] = c
	}
	for _, c := range spec.Containers {
		if c.RegistryRefusal != "" && a.Desired != agentapi.DesiredState_DESIRED_STOPPED {
			return nil, refusal(c.RegistryRefusal)
		}
		one, err := payloadContainer(c, byName[c.Name], spec)
		if err != nil {
			return nil, fmt.Errorf("payload of task %s: %w", a.TaskId, err)
		}
		one.ContainerArn = t.Scope().ContainerARN(t.Cluster, t.Id, id.UUIDOf(t.Id+"/"+c.Name))
		if c.RegistryUser != "" { // the image is kept here
			one.RegistryAuthentication = &registryAuthentication{"ecr", ecrAuthData{s.base, t.Region, t.Account, out.ExecutionRoleCredentials != nil}}
		}
		out.Containers = append(out.Containers, one)
	}
	return out, nil
}

// admit refuses a task that has not begun and needs what the agent lacks, or what cannot be carried to it. The scheduler places none; but a server
// of an earlier build may have.
func (s *session) admit(r state.Reader, t *controlplane.Task, a *agentapi.Assignment) error {
	n, ok := controlplane.Nodes.Get(r, state.K(s.node))
	st, is := controlplane.TaskStatuses.Get(r, controlplane.Tasks.Key(t))
	if !ok || !is || st.Report != nil {
		return nil
	}
	lacks := t.Demand.AmazonAgentLacks(n.Attributes)
	if lacks == "" && t.EnableExecuteCommand {
		lacks = controlplane.AmazonAgentExec
	}
	if lacks != "" {
		return refusal("The container instance lacks the attribute " + lacks + ".")
	}
	return nil
}

func words(err error) string {
	if e, ok := awserr.As(err); ok {
		return e.Message
	}
	return err.Error()
}

func payloadVolume(v types.Volume) *volume {
	out := &volume{Name: aws.ToString(v.Name), Type: "host"}
	if d := v.DockerVolumeConfiguration; d != nil {
		out.Type = "docker"
		out.DockerVolumeConfiguration = &dockerVolume{Scope: string(d.Scope), Autoprovision: aws.ToBool(d.Autoprovision), Driver: aws.ToString(d.Driver), DriverOpts: d.DriverOpts, Labels: d.Labels}
		if out.DockerVolumeConfiguration.Driver == "" {
			out.DockerVolumeConfiguration.Driver = "local"
		}
		if d.Scope == "" {
			out.DockerVolumeConfiguration.Scope = string(types.ScopeTask)
		}
		return out
	}
	out.Host = &hostVolume{}
	if v.Host != nil {
		out.Host.SourcePath = aws.ToString(v.Host.SourcePath)
	}
	return out
}

// payloadContainer takes from the specification what overrides may have changed, and from the definition what the platform's own agents are told in
// another way: links, which are no names for loopback there, and the order that they and volumes imply.
func payloadContainer(c *agentapi.ContainerSpec, def types.ContainerDefinition, spec *agentapi.TaskSpec) (*container, error) {
	out := &container{
		Name: c.Name, Image: c.Image, CPU: c.CpuUnits, Memory: c.MemoryMib, Essential: c.Essential, EntryPoint: c.EntryPoint, Command: c.Command,
		Environment: c.Environment, Links: def.Links, StartTimeout: c.StartTimeoutSeconds, StopTimeout: c.StopTimeoutSeconds,
	}
	for _, p := range c.Ports {
		m := portMapping{ContainerPort: p.ContainerPort, HostPort: p.HostPort, Protocol: p.Protocol}
		if p.Count > 1 {
			m = portMapping{ContainerPortRange: fmt.Sprintf("%d-%d", p.ContainerPort, p.ContainerPort+p.Count-1), Protocol: p.Protocol}
		}
		out.PortMappings = append(out.PortMappings, m)
	}
	for _, m := range c.Mounts {
		out.MountPoints = append(out.MountPoints, mountPoint{m.Volume, m.ContainerPath, m.ReadOnly})
	}
	for _, d := range def.DependsOn {
		out.DependsOn = append(out.DependsOn, dependency{aws.ToString(d.ContainerName), string(d.Condition)})
	}
	if r := c.Restart; r != nil {
		out.RestartPolicy = &restartPolicy{true, r.IgnoredExitCodes, r.AttemptPeriodSeconds}
	}
	config, host := engineConfig(c), engineHostConfig(c, def, spec)
	if config.Healthcheck != nil {
		out.HealthCheckType = "docker"
	}
	text, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	hostText, err := json.Marshal(host)
	out.DockerConfig = dockerConfig{string(text), string(hostText)}
	return out, err
}

// seconds in the engine's nanoseconds.
func seconds(n uint32) int64 { return int64(n) * int64(time.Second) }
