package ecs

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
)

// checkGPUs holds what containers require to whole GPUs, each of which is one container's.
func checkGPUs(def *types.TaskDefinition) error {
	for _, c := range def.ContainerDefinitions {
		if err := checkRequirements("containerDefinitions", aws.ToString(c.Name), c.ResourceRequirements); err != nil {
			return err
		}
	}
	return nil
}

func checkRequirements(member, container string, required []types.ResourceRequirement) error {
	for _, r := range required {
		switch value := aws.ToString(r.Value); {
		case r.Type != types.ResourceTypeGpu:
			return client("'%s[%s].resourceRequirements' is not supported by this platform with the type %s: only GPU is.", member, container, r.Type)
		case r.SharingStrategy != nil: // the one that there is may be empty, and so not look set
			return client("'%s[%s].resourceRequirements.sharingStrategy' is not supported by this platform: each GPU is one container's.", member, container)
		case value == "ALL":
			return client("'%s[%s].resourceRequirements' is not supported by this platform with the value ALL: say how many GPUs.", member, container)
		}
		if _, ok := controlplane.ParseGPUs(r); !ok {
			return client("Invalid 'resourceRequirements' setting for container '%s'. The value of type GPU must be a positive number, not '%s'.", container, aws.ToString(r.Value))
		}
	}
	if len(required) > 1 {
		return client("Invalid 'resourceRequirements' setting for container '%s'. The type GPU is given more than once.", container)
	}
	return nil
}

// checkGPUOverrides holds a task's overrides to the same.
func checkGPUOverrides(over *types.TaskOverride) error {
	for _, o := range over.ContainerOverrides {
		if err := checkRequirements("overrides.containerOverrides", aws.ToString(o.Name), o.ResourceRequirements); err != nil {
			return err
		}
	}
	return nil
}
