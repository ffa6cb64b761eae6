package controlplane

import (
	"cmp"

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
