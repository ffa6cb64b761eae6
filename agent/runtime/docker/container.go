package docker

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"

	"github.com/seed-2f228079/neargate/agent/logs"
	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// Start creates the container and starts it, or answers what an earlier call did.
func (d *Driver) Start(ctx context.Context, taskID, name string) (runtime.Started, error) {
	t, err := d.task(ctx, taskID)
	if err != nil {
		return runtime.Started{}, err
	}
	var spec *agentapi.ContainerSpec
	for _, c := range t.Spec.Containers {
		if c.Name == name {
			spec = c
		}
	}
	if spec == nil {
		return runtime.Started{}, runtime.ErrNotFound
	}
	if f := d.failure(taskID, name); f != nil {
		return runtime.Started{}, f
	}
	id := d.name(taskID, name)
	in, err := d.cli.ContainerInspect(ctx, id)
	if errdefs.IsNotFound(err) {
		cfg, host, bad := d.config(ctx, t, spec)
		if bad != nil {
			return runtime.Started{}, d.fail(taskID, name, bad)
		}
		if _, err := d.cli.ContainerCreate(ctx, cfg, host, nil, nil, id); err != nil {
			if ctx.Err() != nil {
				return runtime.Started{}, ctx.Err()
			}
			return runtime.Started{}, d.fail(taskID, name, err)
		}
		in, err = d.cli.ContainerInspect(ctx, id)
	}
	if err != nil {
		return runtime.Started{}, err
	}
	if in.State.Status == container.StateCreated {
		if in.State.Error != "" {
			return runtime.Started{}, startError(in)
		}
		if err := d.writeSecrets(ctx, t, spec); err != nil {
			if ctx.Err() != nil {
				return runtime.Started{}, ctx.Err()
			}
			return runtime.Started{}, d.fail(taskID, name, err)
		}
		if err := d.cli.ContainerStart(ctx, id, container.StartOptions{}); err != nil {
			if ctx.Err() != nil {
				return runtime.Started{}, ctx.Err()
			}
			return runtime.Started{}, d.fail(taskID, name, err)
		}
		if in, err = d.cli.ContainerInspect(ctx, id); err != nil {
			return runtime.Started{}, err
		}
	}
	d.mu.Lock()
	delete(d.secrets, taskID+"/"+name) // the engine has them
	d.mu.Unlock()
	return started(in), nil
}

// config translates a container's spec. What belongs to the network stands on the sandbox.
func (d *Driver) config(ctx context.Context, t runtime.Task, c *agentapi.ContainerSpec) (*container.Config, *container.HostConfig, error) {
	cfg := &container.Config{
		Image: c.Image, User: c.User, WorkingDir: c.WorkingDirectory, Entrypoint: c.EntryPoint, Cmd: c.Command,
		StopSignal: c.StopSignal, Labels: d.labels(t.ID, c.Name),
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}}, // the image's is not ECS's business, and the agent runs the task's
	}
	maps.Copy(cfg.Labels, c.Labels)
	if c.CommandSet && cfg.Cmd == nil {
		cfg.Cmd = []string{}
	}
	env := maps.Clone(t.Environment)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, c.Environment)
	secrets := d.confided(t.ID, c.Name)
	maps.Copy(env, secrets.Environment)
	for k, v := range env {
		cfg.Env = append(cfg.Env, k+"="+v)
	}
	host := &container.HostConfig{
		NetworkMode: container.NetworkMode("container:" + d.sandboxName(t.ID)), ReadonlyRootfs: c.ReadonlyRoot, Privileged: c.Privileged,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		Resources:     container.Resources{CPUShares: int64(max(2, c.CpuUnits)), MemoryReservation: int64(c.MemoryReservationMib) << 20},
	}
	if limit := memoryLimit(t.Spec, c); limit > 0 {
		host.Memory, host.MemorySwap = limit, limit // no swap
	}
	if t.Spec.CpuUnits > 0 {
		host.NanoCPUs = int64(t.Spec.CpuUnits) * 1e9 / 1024
	}
	if l := secrets.Log(c); l != nil {
		host.LogConfig = container.LogConfig{Type: l.Driver, Config: logs.EngineOptions(l.Driver, l.Options)}
		if l.Driver == logs.DriverAWSLogs { // kept by the engine, and shipped by the agent
			host.LogConfig.Type = logs.DriverJSONFile
			maps.DeleteFunc(host.LogConfig.Config, func(option, _ string) bool { return strings.HasPrefix(option, "awslogs-") })
		}
	}
	if c.SecretFiles != "" {
		m, err := d.secretVolume(ctx, t.ID, c)
		if err != nil {
			return nil, nil, err
		}
		host.Mounts = append(host.Mounts, m)
	}
	for _, m := range c.Mounts {
		host.Mounts = append(host.Mounts, d.mount(t, m))
	}
	return cfg, host, d.confine(t, c, cfg, host)
}

// memoryLimit is the container's own hard limit, else the task's.
func memoryLimit(t *agentapi.TaskSpec, c *agentapi.ContainerSpec) int64 {
	if c.MemoryMib > 0 {
		return int64(c.MemoryMib) << 20
	}
	return int64(t.MemoryMib) << 20
}

func (d *Driver) mount(t runtime.Task, m *agentapi.MountPoint) mount.Mount {
	out := mount.Mount{Target: m.ContainerPath, ReadOnly: m.ReadOnly, Type: mount.TypeVolume}
	for _, v := range t.Spec.Volumes {
		if v.Name != m.Volume {
			continue
		}
		if v.HostPath != "" {
			out.Type, out.Source = mount.TypeBind, v.HostPath
		} else {
			out.Source = d.volume(t.ID, v)
		}
	}
	return out
}

func (d *Driver) failure(taskID, name string) *runtime.StartError {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed[taskID+"/"+name]
}

func (d *Driver) fail(taskID, name string, err error) *runtime.StartError {
	f := &runtime.StartError{Reason: "CannotStartContainerError: " + err.Error(), Err: err}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed[taskID+"/"+name] = f
	return f
}

func startError(in container.InspectResponse) *runtime.StartError {
	return &runtime.StartError{Reason: "CannotStartContainerError: Error response from daemon: " + in.State.Error}
}

func started(in container.InspectResponse) runtime.Started {
	return runtime.Started{RuntimeID: in.ID, PID: in.State.Pid, At: timeOf(in.State.StartedAt)}
}

func exit(in container.InspectResponse) runtime.Exit {
	e := runtime.Exit{Code: in.State.ExitCode, OOM: in.State.OOMKilled, At: timeOf(in.State.FinishedAt)}
	// The engine takes the time of a start after it and is told that of an end: a short run may have ended before it began.
	if at := timeOf(in.State.StartedAt); e.At.Before(at) {
		e.At = at
	}
	switch {
	case in.State.OOMKilled:
		e.Reason = "OutOfMemoryError: Container killed due to memory usage"
	case in.State.Status == container.StateCreated && in.State.Error != "":
		e.Reason = startError(in).Reason
	}
	return e
}

func timeOf(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}
	}
	return t
}

// Stop lets the engine send the signal, wait and kill.
func (d *Driver) Stop(ctx context.Context, taskID, name string, timeout time.Duration) error {
	id := d.name(taskID, name)
	in, err := d.cli.ContainerInspect(ctx, id)
	if errdefs.IsNotFound(err) || err == nil && !in.State.Running {
		return nil
	}
	if err != nil {
		return err
	}
	signal := in.Config.StopSignal
	if signal == "" {
		signal = "SIGTERM"
	}
	// The engine's own stop counts whole seconds.
	if err := d.cli.ContainerKill(ctx, id, signal); err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
		return err
	}
	grace, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if d.ended(grace, id) == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := d.cli.ContainerKill(ctx, id, "SIGKILL"); err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
		return err
	}
	return d.ended(ctx, id)
}

// ended returns once the container does not run.
func (d *Driver) ended(ctx context.Context, id string) error {
	answer, failed := d.cli.ContainerWait(ctx, id, container.WaitConditionNotRunning)
	select {
	case r := <-answer:
		if r.Error != nil {
			return fmt.Errorf("wait for %s: %s", id, r.Error.Message)
		}
		return nil
	case err := <-failed:
		if errdefs.IsNotFound(err) {
			return nil
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Wait blocks until the container has ended.
func (d *Driver) Wait(ctx context.Context, taskID, name string) (runtime.Exit, error) {
	if f := d.failure(taskID, name); f != nil {
		return runtime.Exit{Code: 128, Reason: f.Reason, At: time.Now()}, nil
	}
	id := d.name(taskID, name)
	in, err := d.cli.ContainerInspect(ctx, id)
	if errdefs.IsNotFound(err) {
		return runtime.Exit{}, runtime.ErrNotFound
	}
	if err != nil {
		return runtime.Exit{}, err
	}
	if in.State.Status == container.StateCreated && in.State.Error == "" {
		return runtime.Exit{}, runtime.ErrNotFound
	}
	if err := d.ended(ctx, id); err != nil {
		return runtime.Exit{}, err
	}
	if in, err = d.cli.ContainerInspect(ctx, id); err != nil {
		if errdefs.IsNotFound(err) {
			return runtime.Exit{}, runtime.ErrNotFound
		}
		return runtime.Exit{}, err
	}
	return exit(in), nil
}
