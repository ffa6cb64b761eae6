package docker

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// Stats asks the engine. A container shares its sandbox's network, and the engine counts that for the sandbox alone.
func (d *Driver) Stats(ctx context.Context, taskID, container string) (runtime.Stats, error) {
	s, err := d.stats(ctx, d.name(taskID, container))
	if err != nil {
		return s, fmt.Errorf("statistics of container %s of task %s: %w", container, taskID, err)
	}
	box, err := d.stats(ctx, d.sandboxName(taskID))
	if err != nil {
		return s, fmt.Errorf("statistics of task %s: %w", taskID, err)
	}
	s.Networks = box.Networks
	return s, nil
}

func (d *Driver) stats(ctx context.Context, name string) (s runtime.Stats, err error) {
	res, err := d.cli.ContainerStatsOneShot(ctx, name)
	if errdefs.IsNotFound(err) {
		return s, runtime.ErrNotFound
	}
	if err != nil {
		return s, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
		return s, err
	}
	if s.PIDs.Current == 0 { // the engine answers zeros of a container that does not run
		return s, runtime.ErrNotFound
	}
	return s, nil
}
