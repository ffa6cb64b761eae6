package agent

import (
	"fmt"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// blocked says whether a container has to wait for one that it depends on: left is 0 when it has not, negative when nobody knows
// for how long, and otherwise the time after which it gives up. why is set when waiting is vain.
//
// As in ECS the start timeout is the dependency's, runs from its start, and does not matter once it has ended.
func (w *worker) blocked(spec *agentapi.TaskSpec, c *agentapi.ContainerSpec) (left time.Duration, why string) {
	st := w.snapshot()
	for _, d := range c.DependsOn {
		on := &agentapi.ContainerStatus{}
		for _, cs := range st.Containers {
			if cs.Name == d.Container {
				on = cs
			}
		}
		ended := on.State == agentapi.ContainerState_CONTAINER_STOPPED
		met, vain := false, ""
		switch d.Condition {
		case "COMPLETE":
			met = ended
		case "SUCCESS":
			met = ended && on.GetExitCode() == 0
			vain = "did not exit successfully"
		case "HEALTHY":
			met = !ended && on.Health == agentapi.Health_HEALTH_HEALTHY
			vain = "ended before it was healthy"
		default: // START
			met = on.State >= agentapi.ContainerState_CONTAINER_RUNNING
		}
		if met {
			continue
		}
		if ended {
			return 0, fmt.Sprintf("CannotStartContainerError: container %s depends on container %s, which %s", c.Name, d.Container, vain)
		}
		this := time.Duration(-1)
		if timeout := startTimeout(spec, d.Container); timeout > 0 && d.Condition != "START" && on.Started != nil {
			if this = timeout - w.ages.Of(d.Container, on.Started.AsTime(), w.a.cfg.Clock.Now()); this <= 0 {
				return 0, fmt.Sprintf("CannotStartContainerError: container %s depends on container %s, which did not reach %s within its start timeout of %d seconds",
					c.Name, d.Container, d.Condition, timeout/time.Second)
			}
		}
		if left <= 0 || this > 0 && this < left {
			left = this
		}
	}
	return left, ""
}

func startTimeout(spec *agentapi.TaskSpec, container string) time.Duration {
	for _, c := range spec.Containers {
		if c.Name == container {
			return seconds(c.StartTimeoutSeconds)
		}
	}
	return 0
}

// dependents are the containers that depend on the named one: they are stopped before it.
func dependents(spec *agentapi.TaskSpec, name string) (list []string) {
	for _, c := range spec.Containers {
		for _, d := range c.DependsOn {
			if d.Container == name {
				list = append(list, c.Name)
				break
			}
		}
	}
	return list
}
