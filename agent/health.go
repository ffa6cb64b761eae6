package agent

import (
	"context"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// checkHealth runs a container's health check until ctx ends, and reports when its health changes. It follows Docker's rules, which
// are ECS's: the first check comes an interval after the start; one success makes a container healthy; retries failures in
// sequence make it unhealthy, where those within the start period and before the first success do not count.
//
// The health that was reported last stands when another process goes on: a container is not doubted because its agent was replaced.
func (w *worker) checkHealth(ctx context.Context, c *agentapi.ContainerSpec, started runtime.Started) {
	check := c.HealthCheck
	if check == nil {
		return
	}
	health := agentapi.Health_HEALTH_UNKNOWN
	for _, cs := range w.snapshot().Containers {
		if cs.Name == c.Name && cs.Health != agentapi.Health_HEALTH_UNSPECIFIED {
			health = cs.Health
		}
	}
	starting := started.At.Add(seconds(check.StartPeriodSeconds))
	for failures := uint32(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-w.a.cfg.Clock.After(seconds(check.IntervalSeconds)):
		}
		begun, now := w.a.cfg.Clock.Now(), health
		healthy := w.probe(ctx, c)
		switch {
		case ctx.Err() != nil:
			return
		case healthy:
			failures, now = 0, agentapi.Health_HEALTH_HEALTHY
		case health == agentapi.Health_HEALTH_UNKNOWN && begun.Before(starting):
		default:
			if failures++; failures >= check.Retries {
				now = agentapi.Health_HEALTH_UNHEALTHY
			}
		}
		if now != health {
			health = now
			w.report(func(st *agentapi.TaskStatus) {
				cs := containerStatus(st, c.Name)
				cs.Health, cs.HealthSince = health, w.now()
			})
		}
	}
}

// probe runs the check once.
func (w *worker) probe(ctx context.Context, c *agentapi.ContainerSpec) (healthy bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answer := make(chan bool, 1)
	go func() {
		code, err := w.a.cfg.Driver.Exec(ctx, w.id, c.Name, runtime.Command{Args: checkCommand(c.HealthCheck.Command)})
		answer <- err == nil && code == 0
	}()
	select {
	case healthy = <-answer:
		return healthy
	case <-w.a.cfg.Clock.After(seconds(c.HealthCheck.TimeoutSeconds)):
		cancel()
		<-answer // once the command is dead
		return false
	}
}

// checkCommand is what ["CMD", program, …] or ["CMD-SHELL", line] runs.
func checkCommand(words []string) []string {
	if len(words) > 1 && words[0] == "CMD-SHELL" {
		return []string{"/bin/sh", "-c", words[1]}
	}
	return words[min(1, len(words)):]
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }

// sumHealth makes the task's health of that of its essential containers. Those without a check have no part in it.
func sumHealth(spec *agentapi.TaskSpec, st *agentapi.TaskStatus) {
	st.Health = agentapi.Health_HEALTH_UNSPECIFIED
	for _, c := range spec.GetContainers() {
		if !c.Essential || c.HealthCheck == nil {
			continue
		}
		h := containerStatus(st, c.Name).Health
		switch {
		case h == agentapi.Health_HEALTH_UNHEALTHY:
			st.Health = h
			return
		case st.Health == agentapi.Health_HEALTH_UNSPECIFIED || h != agentapi.Health_HEALTH_HEALTHY:
			st.Health = h
		}
	}
}
