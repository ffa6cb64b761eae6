package controlplane

import (
	"fmt"
	"hash/crc32"
	"maps"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// AWSLogs is where the log driver awslogs puts a container's output.
type AWSLogs struct {
	Region, Group, Stream string
	CreateGroup           bool
}

// AWSLogsOf is the container's in one of its tasks; ok is false when it has another driver.
func AWSLogsOf(c types.ContainerDefinition, taskID string) (l AWSLogs, ok bool) {
	lc := c.LogConfiguration
	if lc == nil || lc.LogDriver != types.LogDriverAwslogs {
		return l, false
	}
	l = AWSLogs{Region: lc.Options["awslogs-region"], Group: lc.Options["awslogs-group"], CreateGroup: lc.Options["awslogs-create-group"] == "true"}
	name := aws.ToString(c.Name)
	if prefix := lc.Options["awslogs-stream-prefix"]; prefix != "" {
		l.Stream = prefix + "/" + name + "/" + taskID
	} else {
		// Without a prefix the stream is named by the container's runtime id, and this is how the native driver makes them.
		l.Stream = fmt.Sprintf("%s-%010d", taskID, crc32.ChecksumIEEE([]byte(name)))
	}
	return l, true
}

// renderLog is the log configuration as an agent gets it.
func renderLog(lc *types.LogConfiguration) *agentapi.LogConfiguration {
	if lc == nil {
		return nil
	}
	return &agentapi.LogConfiguration{Driver: string(lc.LogDriver), Options: lc.Options}
}

// SetLogMode gives the containers' log drivers the mode that the account has chosen (defaultLogDriverMode) where their options name none. What
// holds without a choice is the agent's to know: non-blocking.
func SetLogMode(r state.Reader, t *Task, spec *agentapi.TaskSpec) {
	chosen, ok := chosenSetting(r, t.Scope(), types.SettingNameDefaultLogDriverMode)
	if !ok {
		return
	}
	for _, c := range spec.Containers {
		if c.Log == nil || c.Log.Driver == logDriverNone || c.Log.Driver == string(types.LogDriverAwsfirelens) || c.Log.Options["mode"] != "" || c.Log.Options["max-buffer-size"] != "" {
			continue
		}
		options := maps.Clone(c.Log.Options) // they are the definition's
		if options == nil {
			options = map[string]string{}
		}
		options["mode"] = chosen
		c.Log.Options = options
	}
}

const logDriverNone = "none"
