package controlplane

import (
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

func TestWhatAmazonsAgentMustHave(t *testing.T) {
	const always = "com.amazonaws.ecs.capability.docker-remote-api.1.18"
	one := func(c types.ContainerDefinition) types.TaskDefinition {
		c.Name = aws.String("c")
		return types.TaskDefinition{ContainerDefinitions: []types.ContainerDefinition{c}}
	}
	for name, c := range map[string]struct {
		def  types.TaskDefinition
		want []string
	}{
		"nothing":    {one(types.ContainerDefinition{}), nil},
		"awsvpc":     {types.TaskDefinition{NetworkMode: types.NetworkModeAwsvpc}, []string{"neargate.not-with-amazon-agent.task-eni"}},
		"sizes":      {types.TaskDefinition{Memory: aws.String("512")}, []string{"ecs.capability.task-cpu-mem-limit"}},
		"role, host": {types.TaskDefinition{TaskRoleArn: aws.String("r"), NetworkMode: types.NetworkModeHost}, []string{"com.amazonaws.ecs.capability.task-iam-role", "com.amazonaws.ecs.capability.task-iam-role-network-host"}},
		"privileged": {one(types.ContainerDefinition{Privileged: aws.Bool(true)}), []string{"com.amazonaws.ecs.capability.privileged-container"}},
		"secrets":    {one(types.ContainerDefinition{Secrets: []types.Secret{{}}}), []string{"neargate.not-with-amazon-agent.secrets"}},
		"awslogs": {one(types.ContainerDefinition{LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriverAwslogs}}),
			[]string{"com.amazonaws.ecs.capability.logging-driver.awslogs", "neargate.not-with-amazon-agent.logging-driver.awslogs"}},
		"json-file": {one(types.ContainerDefinition{LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriverJsonFile}}), []string{"com.amazonaws.ecs.capability.logging-driver.json-file"}},
		"gpu":       {one(types.ContainerDefinition{ResourceRequirements: []types.ResourceRequirement{{Type: types.ResourceTypeGpu, Value: aws.String("1")}}}), []string{"neargate.not-with-amazon-agent.gpu"}},
		"range":     {one(types.ContainerDefinition{PortMappings: []types.PortMapping{{ContainerPortRange: aws.String("1-2")}}}), []string{"ecs.capability.network.container-port-range"}},
	} {
		d, err := DemandOf(c.def, types.TaskOverride{})
		if want := append([]string{always}, c.want...); err != nil || !sameSet(d.AgentAttributes, want) {
			t.Errorf("%s: %v, %v", name, d.GetAgentAttributes(), err)
		}
		has := map[string]string{always: ""}
		if lacks := d.AmazonAgentLacks(has); (lacks == "") != (c.want == nil) {
			t.Errorf("%s: lacks %q", name, lacks)
		}
	}
	if (&Demand{}).AmazonAgentLacks(nil) == "" {
		t.Error("a demand that says nothing is taken for one that asks nothing")
	}
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}
