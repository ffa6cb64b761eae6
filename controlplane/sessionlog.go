package controlplane

import (
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// SessionLog is the log group, or the bucket, or both, that take what sessions of ECS Exec show.
type SessionLog struct {
	Group, Region string // empty: no group
	// The bucket that gets an object a session below a prefix; empty: none.
	Bucket    string `json:",omitempty"`
	Prefix    string `json:",omitempty"`
	Encrypted bool   `json:",omitempty"` // by the store
}

// SessionLogOf is that of the sessions in a container; nil: they are kept nowhere. The cluster says: OVERRIDE names a group or a bucket, NONE none, and
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
		l := exec.LogConfiguration
		if l == nil || aws.ToString(l.CloudWatchLogGroupName) == "" && aws.ToString(l.S3BucketName) == "" {
			return nil
		}
		return &SessionLog{Group: aws.ToString(l.CloudWatchLogGroupName), Region: c.Region,
			Bucket: aws.ToString(l.S3BucketName), Prefix: aws.ToString(l.S3KeyPrefix), Encrypted: l.S3EncryptionEnabled}
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
