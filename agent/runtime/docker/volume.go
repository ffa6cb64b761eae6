package docker

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/volume"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// volume is the engine's name of a volume: the task's own, or one kept by name.
func (d *Driver) volume(taskID string, v *agentapi.VolumeSpec) string {
	if v.Scope == "shared" {
		return d.name("shared", v.Name)
	}
	return d.name(taskID, v.Name)
}

func (d *Driver) createVolumes(ctx context.Context, t runtime.Task) error {
	for _, v := range t.Spec.Volumes {
		if v.HostPath != "" {
			continue
		}
		labels := d.labels(t.ID, v.Name)
		if v.Scope == "shared" {
			delete(labels, labelTask)
		}
		if _, err := d.cli.VolumeCreate(ctx, volume.CreateOptions{Name: d.volume(t.ID, v), Labels: labels, DriverOpts: v.DriverOptions}); err != nil {
			return err
		}
	}
	return nil
}

// removeVolumes removes the task's own volumes; those kept by name stay.
func (d *Driver) removeVolumes(ctx context.Context, taskID string) error {
	list, err := d.cli.VolumeList(ctx, volume.ListOptions{Filters: filters.NewArgs(
		filters.Arg("label", labelInstance+"="+d.cfg.ID), filters.Arg("label", labelTask+"="+taskID))})
	if err != nil {
		return err
	}
	for _, v := range list.Volumes {
		if err := d.cli.VolumeRemove(ctx, v.Name, true); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}
