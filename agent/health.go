package agent

import (
	"context"
	"errors"
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
		var said excerpt
		healthy, err := w.probe(ctx, c, &said)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil: // says nothing about the container
			w.a.log.Warn("cannot check the health of a container", "task", w.id, "container", c.Name, "error", err)
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
			w.a.log.Info("the health of a container changed", "task", w.id, "container", c.Name, "health", health, "check", string(said))
			w.report(func(st *agentapi.TaskStatus) {
				cs := containerStatus(st, c.Name)
				cs.Health, cs.HealthSince = health, w.now()
			})
		}
	}
}

// probe runs the check once. An error says that it could not be run, though the container may be in order: the driver's engine is away.
func (w *worker) probe(ctx context.Context, c *agentapi.ContainerSpec, said *excerpt) (healthy bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan struct{})
	var code int
	go func() {
		defer close(over)
		code, err = w.a.cfg.Driver.Exec(ctx, w.id, c.Name, runtime.Command{Args: checkCommand(c.HealthCheck.Command), Output: said})
	}()
	select {
	case <-over:
	case <-w.a.cfg.Clock.After(seconds(c.HealthCheck.TimeoutSeconds)):
		cancel()
		<-over // once the command is dead
		return false, nil
	}
	if errors.Is(err, runtime.ErrNotFound) {
		return false, nil
	}
	return err == nil && code == 0, err
}

// excerpt keeps the beginning of what is written to it.
type excerpt []byte

func (e *excerpt) Write(b []byte) (int, error) {
	*e = append(*e, b[:min(len(b), maxExcerpt-len(*e))]...)
	return len(b), nil
}

const maxExcerpt = 1024

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
