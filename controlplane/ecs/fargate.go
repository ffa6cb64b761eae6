package ecs

import (
	"regexp"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
)

// fargateSizes are the sizes that Fargate has: CPU units, then the least and the most memory and its step, in MiB. 512 is the one
// size below a step. https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html
var fargateSizes = map[uint32]struct{ least, most, step uint32 }{
	256:   {512, 2048, 0}, // 512, 1024, 2048
	512:   {1024, 4096, 1024},
	1024:  {2048, 8192, 1024},
	2048:  {4096, 16384, 1024},
	4096:  {8192, 30720, 1024},
	8192:  {16384, 61440, 4096},
	16384: {32768, 122880, 8192},
}

func fargateHas(cpu, memory uint32) bool {
	s, ok := fargateSizes[cpu]
	switch {
	case !ok || memory < s.least || memory > s.most:
		return false
	case s.step == 0:
		return memory&(memory-1) == 0
	}
	return (memory-s.least)%s.step == 0
}

// ecrImage are images whose registry has a name of ECR's form, whatever domain follows. One that is named by an address is any registry's.
var ecrImage = regexp.MustCompile(`^[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.`)

const fargateGPUs = "Tasks using the Fargate launch type do not support GPU resource requirements."

// checkFargate says what keeps a definition from running on Fargate.
func checkFargate(def types.TaskDefinition) error {
	switch {
	case def.NetworkMode != types.NetworkModeAwsvpc:
		return client("Fargate only supports network mode ‘awsvpc’.")
	case def.Cpu == nil:
		return client("Fargate requires that 'cpu' be defined at the task level.")
	case def.Memory == nil:
		return client("Fargate requires that 'memory' be defined at the task level.")
	case len(def.PlacementConstraints) > 0:
		return client("Fargate does not support task placement constraints.")
	case def.IpcMode != "":
		return client("Tasks using the Fargate launch type do not support ipcMode.")
	case def.PidMode == types.PidModeHost:
		return client("Tasks using the Fargate launch type do not support pidMode host.")
	}
	cpu, memory, err := controlplane.TaskSize(def.Cpu, def.Memory)
	if err != nil {
		return client("%s", capital(err))
	}
	if !fargateHas(cpu, memory) {
		return client("No Fargate configuration exists for given values: %d CPU, %d memory. See the Amazon ECS documentation for the valid values.", cpu, memory)
	}
	for _, c := range def.ContainerDefinitions {
		if aws.ToBool(c.Privileged) {
			return client("Fargate does not support privileged containers.")
		}
		if len(c.ResourceRequirements) > 0 {
			return client("%s", fargateGPUs)
		}
		if err := checkFargateLog(c); err != nil {
			return err
		}
		// There is no instance whose rights could be used instead.
		switch l := c.LogConfiguration; {
		case aws.ToString(def.ExecutionRoleArn) != "":
		case ecrImage.MatchString(aws.ToString(c.Image)):
			return client("Fargate requires task definition to have execution role ARN to support ECR images.")
		case l != nil && l.LogDriver == types.LogDriverAwslogs:
			return client("Fargate requires task definition to have execution role ARN to support log driver awslogs.")
		}
		if err := fargateContainer(c); err != nil {
			return err
		}
		for _, timeout := range []*int32{c.StartTimeout, c.StopTimeout} {
			if timeout != nil && (*timeout < 2 || *timeout > 120) {
				return client("Fargate requires the start and stop timeouts of container '%s' to be between 2 and 120 seconds.", aws.ToString(c.Name))
			}
		}
	}
	for _, v := range def.Volumes {
		if v.Host != nil && aws.ToString(v.Host.SourcePath) != "" {
			return client("Fargate does not support volumes with 'host.sourcePath'.")
		}
		if v.DockerVolumeConfiguration != nil {
			return client("Fargate does not support Docker volumes.")
		}
	}
	return nil
}
