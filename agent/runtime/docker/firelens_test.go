package docker

import (
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// TestNoFireLens: a task with a log router is refused before anything is made of it, whatever brought it here.
func TestNoFireLens(t *testing.T) {
	for _, c := range []*agentapi.ContainerSpec{
		{Name: "c", FireLens: &agentapi.FireLens{ConfigPath: "/x"}},
		{Name: "c", Log: &agentapi.LogConfiguration{Driver: "awsfirelens"}},
	} {
		_, err := (&Driver{}).Create(t.Context(), runtime.Task{ID: "t", Spec: &agentapi.TaskSpec{Containers: []*agentapi.ContainerSpec{c}}})
		if err == nil || !strings.Contains(err.Error(), "the docker runtime has no FireLens, which container c uses") {
			t.Errorf("%v: %v", c, err)
		}
	}
}
