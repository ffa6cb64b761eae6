package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/internal/ociclient"
)

// TestImageAtHand: a host that has an image asks the platform's registry nothing when a task starts, and yet each start has what the tag is then, and only where
// the execution role may have it then.
func TestImageAtHand(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"cold": nil, "warm": {"--warm", "2"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startWith(t, "native", args)
			busybox, err := os.ReadFile("/bin/busybox")
			if err != nil {
				t.Skip("there is no static busybox on this machine (Debian: apt-get install busybox-static)")
			}
			program := ociclient.Executable("bin/sh", busybox)
			says := func(word string) ociclient.Config {
				return ociclient.Config{Entrypoint: []string{"/bin/sh", "-c"}, Cmd: []string{"echo " + word}}
			}
			image := p.push("app", "stable", says("one"), program)
			role := p.role("execution", "ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
			must(p.client().ECS.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: aws.String("app"), ExecutionRoleArn: &role,
				ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: aws.String("main"), Image: &image, Memory: aws.Int32(64)}}}))(t)
			wantRun := func(word string) {
				t.Helper()
				arn := p.runTask("app")
				if task := p.ends(arn); task.StopCode != ecstypes.TaskStopCodeEssentialContainerExited || aws.ToInt32(task.Containers[0].ExitCode) != 0 {
					t.Fatalf("%s: %s", task.StopCode, aws.ToString(task.StoppedReason))
				}
				if got := p.lines(arn); len(got) != 1 || got[0] != word {
					t.Errorf("the task says %q, want %q", got, word)
				}
			}
			wantRun("one")
			wantRun("one")
			p.pushTo(image, says("two"), program)
			wantRun("two")
			p.pushTo(image, says("one"), program) // which the host has had before
			wantRun("one")
			p.mayDo("execution", "ecr:GetAuthorizationToken")
			refused := p.ends(p.runTask("app"))
			if reason := aws.ToString(refused.StoppedReason); refused.StopCode != ecstypes.TaskStopCodeTaskFailedToStart ||
				!strings.HasPrefix(reason, "CannotPullContainerError: ") || !strings.Contains(reason, "is not authorized to perform: ecr:BatchGetImage") {
				t.Errorf("without the right to it: %s %s", refused.StopCode, reason)
			}
			p.mayDo("execution", "ecr:GetAuthorizationToken", "ecr:BatchGetImage")
			wantRun("one")
		})
	}
}
