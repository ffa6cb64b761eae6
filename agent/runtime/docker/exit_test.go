package docker

import (
	"testing"

	"github.com/docker/docker/api/types/container"
)

// No run ends before it has begun, whatever the engine has noted.
func TestExitIsNotBeforeTheStart(t *testing.T) {
	for finished, want := range map[string]string{
		"2026-11-26T15:01:02.707Z": "2026-11-26T15:01:02.708Z",
		"2026-11-26T15:01:02.709Z": "2026-11-26T15:01:02.709Z",
	} {
		in := container.InspectResponse{ContainerJSONBase: &container.ContainerJSONBase{State: &container.State{
			ExitCode: 4, Status: container.StateExited, StartedAt: "2026-11-26T15:01:02.708Z", FinishedAt: finished,
		}}}
		if e := exit(in); !e.At.Equal(timeOf(want)) || e.Code != 4 {
			t.Errorf("finished %s: %+v, want %s", finished, e, want)
		}
	}
}
