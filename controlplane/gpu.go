package controlplane

import (
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// gpus is how many GPUs a container asks for; an override replaces what the definition asks for.
func gpus(c types.ContainerDefinition, over types.ContainerOverride) (count uint32) {
	asked := c.ResourceRequirements
	if over.ResourceRequirements != nil {
		asked = over.ResourceRequirements
	}
	for _, r := range asked {
		if n, ok := ParseGPUs(r); ok {
			count += n
		}
	}
	return count
}

// ParseGPUs reads how many GPUs are asked for; false when it is not a number of GPUs.
func ParseGPUs(r types.ResourceRequirement) (count uint32, ok bool) {
	n, err := strconv.ParseUint(aws.ToString(r.Value), 10, 16)
	return uint32(n), err == nil && r.Type == types.ResourceTypeGpu && n > 0
}

// ContainerGPUs shares a task's GPUs out among its containers, in the order of the definition.
func ContainerGPUs(ids []string, def types.TaskDefinition, over types.TaskOverride) map[string][]string {
	if len(ids) == 0 {
		return nil
	}
	by := map[string][]string{}
	for _, c := range def.ContainerDefinitions {
		name := aws.ToString(c.Name)
		n := min(int(gpus(c, ContainerOverride(over, name))), len(ids))
		if n > 0 {
			by[name], ids = ids[:n:n], ids[n:]
		}
	}
	return by
}

// SetGPUs tells the containers of a placed task which of its node's GPUs are theirs.
func SetGPUs(s *TaskStatus, t *Task, d *TaskDefinition, spec *agentapi.TaskSpec) {
	if len(s.Gpus) == 0 {
		return
	}
	by := ContainerGPUs(s.Gpus, d.Shape(), DecodeShape[types.TaskOverride](t.OverridesJson))
	for _, c := range spec.Containers {
		c.Gpus = by[c.Name]
	}
}
