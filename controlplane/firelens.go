package controlplane

import (
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/firelens"
)

// LogRouter is the index of the container to which those with log driver awsfirelens send their output; -1: there is none.
func LogRouter(containers []types.ContainerDefinition) int {
	return slices.IndexFunc(containers, func(c types.ContainerDefinition) bool { return c.FirelensConfiguration != nil })
}

// Routed says whether the container's output goes to the log router.
func Routed(c types.ContainerDefinition) bool {
	return c.LogConfiguration != nil && c.LogConfiguration.LogDriver == types.LogDriverAwsfirelens
}

// FireLensCapability is the attribute of nodes that can run a log router of this type.
func FireLensCapability(kind types.FirelensConfigurationType) string {
	return "ecs.capability.firelens." + string(kind)
}

// behindRouter has the log router start before those whose output it routes, and so end after them. As on ECS, not if it needs another
// container itself: what it lacks then is sent once it is there.
func behindRouter(containers []types.ContainerDefinition) []types.ContainerDefinition {
	router := LogRouter(containers)
	if router < 0 || len(needs(containers[router])) > 0 {
		return containers
	}
	name := containers[router].Name
	containers = slices.Clone(containers)
	for i, c := range containers {
		if i != router && Routed(c) && !slices.Contains(needs(c), aws.ToString(name)) {
			containers[i].DependsOn = append(slices.Clip(c.DependsOn), types.ContainerDependency{ContainerName: name, Condition: types.ContainerConditionStart})
		}
	}
	return containers
}

// renderFireLens gives the log router its configuration, and those whose output it routes the way to it.
func renderFireLens(spec *agentapi.TaskSpec, t *Task, d *TaskDefinition, containers []types.ContainerDefinition) {
	at := LogRouter(containers)
	if at < 0 {
		return
	}
	c := containers[at]
	config := FireLensRouter(containers, spec.NetworkMode)
	if c.FirelensConfiguration.Options[firelens.OptionMetadata] != "false" {
		config.Metadata = map[string]string{"ecs_cluster": t.Cluster, "ecs_task_arn": t.ARN(), "ecs_task_definition": d.FamilyRevision()}
	}
	for _, r := range spec.Containers {
		if r.Name == aws.ToString(c.Name) {
			r.FireLens = &agentapi.FireLens{ConfigPath: firelens.ConfigPath(config.Type), Config: config.Config()}
		}
		if r.GetLog().GetDriver() != string(types.LogDriverAwsfirelens) {
			continue
		}
		options := map[string]string{"tag": firelens.Tag(r.Name, t.Id), "fluentd-async": "true", "fluentd-sub-second-precision": "true"}
		if limit := r.Log.Options[firelens.OptionBufferLimit]; limit != "" {
			options["fluentd-buffer-limit"] = limit
		}
		r.Log.Options = options
		switch spec.NetworkMode { // its containers have one network namespace, with bridge too
		case string(types.NetworkModeBridge), string(types.NetworkModeAwsvpc):
			r.Environment["FLUENT_HOST"], r.Environment["FLUENT_PORT"] = firelens.Host, firelens.Port
		}
	}
}

// FireLensRouter is what the log router, which there is, is told of its task's containers.
func FireLensRouter(containers []types.ContainerDefinition, networkMode string) firelens.Router {
	f := containers[LogRouter(containers)].FirelensConfiguration
	r := firelens.Router{Type: string(f.Type), NetworkMode: networkMode, Include: f.Options[firelens.OptionFileValue]}
	for i, c := range containers {
		if !Routed(c) {
			continue
		}
		s := firelens.Source{Container: aws.ToString(c.Name), Options: map[string]string{}}
		for k, v := range c.LogConfiguration.Options {
			s.Options[k] = v
		}
		for _, secret := range c.LogConfiguration.SecretOptions {
			name := aws.ToString(secret.Name)
			s.Options[name] = firelens.Placeholder(r.Type, firelens.SecretVariable(name, i))
		}
		r.Sources = append(r.Sources, s)
	}
	return r
}
