package ecs

import (
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
)

// checkHealthChecks holds health checks to the ranges of "HealthCheck" in the ECS API reference and fills in its defaults.
func checkHealthChecks(def *types.TaskDefinition) error {
	for i := range def.ContainerDefinitions {
		c := &def.ContainerDefinitions[i]
		if c.HealthCheck == nil {
			continue
		}
		h, name := new(*c.HealthCheck), aws.ToString(c.Name)
		kind := ""
		if len(h.Command) > 0 {
			kind = h.Command[0]
		}
		switch {
		case kind != "CMD" && kind != "CMD-SHELL" && kind != "NONE":
			return client("Invalid 'healthCheck.command' setting for container '%s'. The first element must be CMD, CMD-SHELL or NONE.", name)
		case kind == "CMD" && (len(h.Command) < 2 || h.Command[1] == ""):
			return client("Invalid 'healthCheck.command' setting for container '%s'. CMD must be followed by a program.", name)
		case kind == "CMD-SHELL" && (len(h.Command) != 2 || h.Command[1] == ""):
			return client("Invalid 'healthCheck.command' setting for container '%s'. CMD-SHELL must be followed by one command.", name)
		case kind == "NONE" && len(h.Command) > 1:
			return client("Invalid 'healthCheck.command' setting for container '%s'. NONE must be the only element.", name)
		}
		for _, member := range []struct {
			name         string
			value        **int32
			least, most  int32
			defaultValue int32 // 0: stays unset
		}{
			{"interval", &h.Interval, 5, 300, controlplane.DefaultHealthInterval},
			{"timeout", &h.Timeout, 2, 60, controlplane.DefaultHealthTimeout},
			{"retries", &h.Retries, 1, 10, controlplane.DefaultHealthRetries},
			{"startPeriod", &h.StartPeriod, 0, 300, 0},
		} {
			switch v := *member.value; {
			case v == nil && member.defaultValue != 0:
				*member.value = new(member.defaultValue)
			case v != nil && (*v < member.least || *v > member.most):
				return client("Invalid 'healthCheck.%s' setting for container '%s'. The value must be between %d and %d.", member.name, name, member.least, member.most)
			}
		}
		c.HealthCheck = h
	}
	return nil
}

// checkDependencies wants every condition to be one that can come true, and no cycle.
func checkDependencies(def *types.TaskDefinition) error {
	byName := map[string]types.ContainerDefinition{}
	for _, c := range def.ContainerDefinitions {
		byName[aws.ToString(c.Name)] = c
	}
	for _, c := range def.ContainerDefinitions {
		seen := map[string]bool{}
		for _, d := range c.DependsOn {
			name := aws.ToString(d.ContainerName)
			on, exists := byName[name]
			switch {
			case exists && seen[name]:
				return client("Container '%s' depends on '%s' more than once.", aws.ToString(c.Name), name)
			case !exists: // said below
			case d.Condition == types.ContainerConditionStart:
			case d.Condition == types.ContainerConditionHealthy:
				if !controlplane.HasHealthCheck(on) {
					return client("Container '%s' depends on '%s' with condition HEALTHY, but '%s' has no health check.", aws.ToString(c.Name), name, name)
				}
			case d.Condition == types.ContainerConditionComplete, d.Condition == types.ContainerConditionSuccess:
				if *on.Essential {
					return client("A dependency container with SUCCESS or COMPLETE condition cannot be an essential container")
				}
			default:
				return client("Container '%s' depends on '%s' with an unknown condition '%s'.", aws.ToString(c.Name), name, d.Condition)
			}
			seen[name] = true
		}
		if len(c.Links) > 0 && def.NetworkMode != types.NetworkModeBridge {
			return client("Links are not supported when networkMode=%s.", def.NetworkMode)
		}
		if aws.ToInt32(c.StartTimeout) < 0 {
			return client("Invalid 'startTimeout' setting for container '%s'.", aws.ToString(c.Name))
		}
		if aws.ToInt32(c.StopTimeout) < 0 {
			return client("Invalid 'stopTimeout' setting for container '%s'.", aws.ToString(c.Name))
		}
	}
	if _, err := controlplane.StartOrder(def.ContainerDefinitions); err != nil {
		return client("%s.", capital(err))
	}
	return nil
}

// checkRestartPolicies holds them to "ContainerRestartPolicy" in the ECS API reference.
func checkRestartPolicies(def *types.TaskDefinition) error {
	for _, c := range def.ContainerDefinitions {
		p, name := c.RestartPolicy, aws.ToString(c.Name)
		switch {
		case p == nil:
		case len(p.IgnoredExitCodes) > 50:
			return client("Invalid 'restartPolicy.ignoredExitCodes' setting for container '%s'. There can be at most 50 exit codes.", name)
		case slices.ContainsFunc(p.IgnoredExitCodes, func(code int32) bool { return code < 0 || code > 255 }):
			return client("Invalid 'restartPolicy.ignoredExitCodes' setting for container '%s'. An exit code is between 0 and 255.", name)
		case p.RestartAttemptPeriod != nil && (*p.RestartAttemptPeriod < 60 || *p.RestartAttemptPeriod > 1800):
			return client("Invalid 'restartPolicy.restartAttemptPeriod' setting for container '%s'. The value must be between 60 and 1800.", name)
		}
	}
	return nil
}
