package e2e

import (
	"encoding/json"
	"path"
	"strings"
	"testing"

	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// TestMetadata has a container ask who it is, and holds its answers against what the API says.
func TestMetadata(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"native", "docker"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			needsAWS(t)
			if driver == "docker" {
				dockerEngine(t)
			}
			p := startOn(t, driver)
			image := p.pushShell()
			const ask = `busybox wget -qO- $ECS_CONTAINER_METADATA_URI_V4 && echo && busybox wget -qO- $ECS_CONTAINER_METADATA_URI_V4/task && echo &&
				busybox wget -qO- $ECS_CONTAINER_METADATA_URI_V4/task/stats && echo && echo "$AWS_EXECUTION_ENV $AWS_REGION"`
			arn := p.runTask(p.register("curious", ecstypes.ContainerDefinition{Image: &image, Command: []string{ask}}))
			p.aws(nil, "ecs", "wait", "tasks-stopped", "--tasks", arn)
			out, _, err := p.neargate("logs", path.Base(arn))
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if len(lines) != 4 {
				t.Fatalf("the container wrote\n%s", out)
			}
			var container struct{ DockerId, Name, Image, KnownStatus, ContainerARN string }
			var task struct {
				TaskARN, Cluster, Family, Revision, LaunchType, AvailabilityZone string
				Containers                                                       []struct{ ContainerARN string }
			}
			var stats map[string]struct {
				Memory struct{ Usage, Limit uint64 } `json:"memory_stats"`
			}
			for i, into := range []any{&container, &task, &stats} {
				if err := json.Unmarshal([]byte(lines[i]), into); err != nil {
					t.Errorf("%v\n%s", err, lines[i])
				}
			}
			var said struct {
				Tasks []struct {
					AvailabilityZone string
					Containers       []struct{ ContainerArn, RuntimeId string }
				}
			}
			p.aws(&said, "ecs", "describe-tasks", "--tasks", arn)
			want := said.Tasks[0]
			if container.Name != "main" || container.Image != image || container.DockerId != want.Containers[0].RuntimeId || container.ContainerARN != want.Containers[0].ContainerArn {
				t.Errorf("the container is %+v, describe-tasks says %+v", container, want)
			}
			if task.TaskARN != arn || task.Family != "curious" || task.Revision != "1" || task.Cluster != "default" || task.LaunchType != "EC2" ||
				task.AvailabilityZone != want.AvailabilityZone || len(task.Containers) != 1 || task.Containers[0].ContainerARN != container.ContainerARN {
				t.Errorf("the task is %+v, describe-tasks says %+v", task, want)
			}
			if m := stats[container.DockerId].Memory; m.Usage == 0 || m.Limit != 64<<20 {
				t.Errorf("the container uses %+v: %s", m, lines[2])
			}
			if lines[3] != "AWS_ECS_EC2 us-east-1" {
				t.Errorf("environment: %s", lines[3])
			}
		})
	}
}
