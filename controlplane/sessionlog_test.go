package controlplane

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

func TestWhereSessionsAreKept(t *testing.T) {
	def := types.TaskDefinition{ContainerDefinitions: []types.ContainerDefinition{
		{Name: aws.String("web"), LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriverAwslogs,
			Options: map[string]string{"awslogs-group": "own", "awslogs-region": "eu-west-1", "awslogs-stream-prefix": "p"}}},
		{Name: aws.String("plain")},
	}}
	override := &types.ExecuteCommandConfiguration{Logging: types.ExecuteCommandLoggingOverride,
		LogConfiguration: &types.ExecuteCommandLogConfiguration{CloudWatchLogGroupName: aws.String("audit")}}
	own, audit := SessionLog{Group: "own", Region: "eu-west-1"}, SessionLog{Group: "audit", Region: "us-east-1"}
	for name, c := range map[string]struct {
		exec      *types.ExecuteCommandConfiguration
		container string
		want      SessionLog // empty: nowhere
	}{
		"nothing said":                  {nil, "web", own},
		"nothing said, no awslogs":      {nil, "plain", SessionLog{}},
		"DEFAULT":                       {&types.ExecuteCommandConfiguration{Logging: types.ExecuteCommandLoggingDefault}, "web", own},
		"NONE":                          {&types.ExecuteCommandConfiguration{Logging: types.ExecuteCommandLoggingNone}, "web", SessionLog{}},
		"OVERRIDE":                      {override, "web", audit},
		"OVERRIDE, no awslogs":          {override, "plain", audit},
		"OVERRIDE without a log group":  {&types.ExecuteCommandConfiguration{Logging: types.ExecuteCommandLoggingOverride}, "web", SessionLog{}},
		"a container that is not there": {nil, "nope", SessionLog{}},
	} {
		cluster := &Cluster{Account: "000000000000", Region: "us-east-1", Name: "c"}
		if c.exec != nil {
			cluster.ConfigurationJson = EncodeShape(&types.ClusterConfiguration{ExecuteCommandConfiguration: c.exec})
		}
		var got SessionLog
		if to := SessionLogOf(cluster, def, c.container); to != nil {
			got = *to
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
