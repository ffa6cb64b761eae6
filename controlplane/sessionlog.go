package controlplane

import (
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// SessionLog is the log group that takes what sessions of ECS Exec show.
type SessionLog struct{ Group, Region string }

// SessionLogOf is that of the sessions in a container; nil: they are kept nowhere. The cluster says: OVERRIDE names a group, NONE none, and
// DEFAULT, which holds where nothing is said, takes the one that the container's own awslogs configuration names.
func SessionLogOf(c *Cluster, def types.TaskDefinition, container string) *SessionLog {
	exec := DecodeShape[types.ClusterConfiguration](c.ConfigurationJson).ExecuteCommandConfiguration
	if exec == nil {
		exec = &types.ExecuteCommandConfiguration{}
	}
	switch exec.Logging {
	case types.ExecuteCommandLoggingNone:
		return nil
	case types.ExecuteCommandLoggingOverride:
		if exec.LogConfiguration == nil || aws.ToString(exec.LogConfiguration.CloudWatchLogGroupName) == "" {
			return nil
		}
		return &SessionLog{Group: *exec.LogConfiguration.CloudWatchLogGroupName, Region: c.Region}
	}
	i := slices.IndexFunc(def.ContainerDefinitions, func(d types.ContainerDefinition) bool { return aws.ToString(d.Name) == container })
	if i < 0 {
		return nil
	}
	to, ok := AWSLogsOf(def.ContainerDefinitions[i], "")
	if !ok || to.Group == "" {
		return nil
	}
	return &SessionLog{Group: to.Group, Region: to.Region}
}
