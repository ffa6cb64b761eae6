package controlplane

import (
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// What a task asks of a host that is run by Amazon's ECS agent. Those with AWS's names the agent has said of itself when it registered;
// notCarried begins the names of what the way to it cannot carry, which no host has.
const (
	agentCapability  = "ecs.capability."
	dockerCapability = "com.amazonaws.ecs.capability."
	notCarried       = "neargate.not-with-amazon-agent."
)

// AmazonAgentExec is asked by tasks with ECS Exec: its agent inside containers is not started there.
const AmazonAgentExec = notCarried + "execute-command"

// amazonAgentAttributes are what a task of the definition asks of such a host; never empty.
func amazonAgentAttributes(def types.TaskDefinition, over types.TaskOverride) []string {
	all := map[string]bool{dockerCapability + "docker-remote-api.1.18": true}
	when := func(is bool, name string) {
		if is {
			all[name] = true
		}
	}
	task, _ := TaskRoles("", def, over)
	when(task != "", dockerCapability+"task-iam-role")
	when(task != "" && def.NetworkMode == types.NetworkModeHost, dockerCapability+"task-iam-role-network-host")
	when(first(over.Cpu, def.Cpu) != nil || first(over.Memory, def.Memory) != nil, agentCapability+"task-cpu-mem-limit")
	when(def.PidMode != "" || def.IpcMode != "", agentCapability+"pid-ipc-namespace-sharing")
	when(def.NetworkMode == types.NetworkModeAwsvpc, notCarried+"task-eni")
	when(def.ProxyConfiguration != nil, notCarried+"proxy-configuration")
	when(EphemeralGiB(def, over) > 0, notCarried+"ephemeral-storage")
	for _, v := range def.Volumes {
		when(v.EfsVolumeConfiguration != nil, notCarried+"efs")
		when(v.DockerVolumeConfiguration != nil, agentCapability+"docker-plugin.local")
	}
	for _, c := range def.ContainerDefinitions {
		o := ContainerOverride(over, aws.ToString(c.Name))
		when(needsSecrets(c, o), notCarried+"secrets")
		when(gpus(c, o) > 0, notCarried+"gpu")
		when(c.FirelensConfiguration != nil, notCarried+"firelens")
		when(aws.ToBool(c.Privileged), dockerCapability+"privileged-container")
		when(len(c.DependsOn) > 0, agentCapability+"container-ordering")
		when(HasHealthCheck(c), agentCapability+"container-health-check")
		when(renderRestartPolicy(c.RestartPolicy) != nil, agentCapability+"container-restart-policy")
		for _, m := range c.PortMappings {
			when(m.ContainerPortRange != nil, agentCapability+"network.container-port-range")
		}
		if l := c.LogConfiguration; l != nil {
			// The engine's own driver would need the platform's address and credentials for it.
			when(l.LogDriver == types.LogDriverAwslogs || l.LogDriver == types.LogDriverAwsfirelens, notCarried+"logging-driver."+string(l.LogDriver))
			when(true, dockerCapability+"logging-driver."+string(l.LogDriver))
		}
	}
	list := make([]string, 0, len(all))
	for name := range all {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// AmazonAgentLacks is the first thing that a host run by Amazon's agent, which has these attributes, lacks for the demand; empty: nothing. A
// demand that an earlier build computed says nothing of such hosts, so none will do.
func (d *Demand) AmazonAgentLacks(has map[string]string) string {
	if len(d.GetAgentAttributes()) == 0 {
		return notCarried + "definition-of-an-earlier-version"
	}
	for _, want := range d.AgentAttributes {
		if _, ok := has[want]; !ok {
			return want
		}
	}
	return ""
}

// SettleHealth makes a report say how the task is, of what its containers say: Amazon's agent tells only the latter. Who has a check and has not
// said anything is UNKNOWN.
func SettleHealth(r *agentapi.TaskStatus, def types.TaskDefinition) {
	r.Health = agentapi.Health_HEALTH_UNSPECIFIED
	for _, c := range def.ContainerDefinitions {
		if !Essential(c) || !HasHealthCheck(c) {
			continue
		}
		health := agentapi.Health_HEALTH_UNKNOWN
		for _, s := range r.Containers {
			if s.Name == aws.ToString(c.Name) {
				health = max(health, s.Health)
			}
		}
		switch {
		case health == agentapi.Health_HEALTH_UNHEALTHY:
			r.Health = health
			return
		case r.Health == agentapi.Health_HEALTH_UNSPECIFIED || health != agentapi.Health_HEALTH_HEALTHY:
			r.Health = health
		}
	}
}
