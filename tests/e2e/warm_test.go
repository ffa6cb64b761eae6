package e2e

import (
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// TestWarmStart has tasks take over sandboxes that were made ahead, and asks each who it is.
func TestWarmStart(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	p := startWith(t, "native", []string{"--warm", "1"})
	image := p.pushShell()
	const ask = `busybox wget -qO- $ECS_CONTAINER_METADATA_URI_V4/task && echo && echo "$OF_THIS_REVISION"`
	family := func(of string) string {
		return p.register("quick", ecstypes.ContainerDefinition{Image: &image, Command: []string{ask},
			Environment: []ecstypes.KeyValuePair{{Name: aws.String("OF_THIS_REVISION"), Value: &of}}})
	}
	waits := ""
	for round, of := range []string{"first", "second"} {
		arn := p.runTask(family(of)) // of one shape with the revision before
		p.aws(nil, "ecs", "wait", "tasks-stopped", "--tasks", arn)
		out, _, err := p.neargate("logs", path.Base(arn))
		if err != nil {
			t.Fatal(err)
		}
		text, variable, _ := strings.Cut(strings.TrimSpace(out), "\n")
		var task struct{ TaskARN, Revision string }
		if err := json.Unmarshal([]byte(text), &task); err != nil || task.TaskARN != arn || task.Revision != string(rune('1'+round)) || variable != of {
			t.Errorf("task %s says that it is %+v (%v)\n%s", arn, task, err, out)
		}
		// A sandbox waits for the next one.
		deadline := time.Now().Add(time.Minute)
		for {
			boxes, err := filepath.Glob(filepath.Join(p.data, "agent", "native", "tasks", "warm-*", "sandbox.json"))
			if err != nil {
				t.Fatal(err)
			}
			if len(boxes) == 1 && boxes[0] != waits { // the one before was taken over
				if b, err := os.ReadFile(boxes[0]); err == nil && strings.Contains(string(b), `"Complete":true`) {
					waits = boxes[0]
					break
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("after a minute there wait %q\n%s", boxes, p.out)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	if out := p.out.String(); strings.Contains(out, "made ahead") {
		t.Errorf("the platform says\n%s", out)
	}
}
