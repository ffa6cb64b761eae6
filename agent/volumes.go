package agent

import (
	"context"
	"errors"
	"time"

	"github.com/seed-2f228079/neargate/agent/volume/plugin"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// mountVolumes has the host's owner mount what the task's volumes name. What of it has been done is undone by releaseVolumes.
func (w *worker) mountVolumes(ctx context.Context, spec *agentapi.TaskSpec) *failure {
	p := w.a.cfg.Volumes
	for _, v := range spec.Volumes {
		if p == nil && plugin.Wants(v) {
			return &failure{codeFailedToStart, "ResourceInitializationError: volume " + v.Name + " needs a file system that nobody mounts on this host"}
		}
	}
	if p == nil {
		return nil
	}
	if err := p.Mount(ctx, w.id, spec); err != nil && ctx.Err() == nil {
		return &failure{codeFailedToStart, "ResourceInitializationError: " + err.Error()}
	}
	return nil
}

// placeVolumes makes folders of the host of them. spec is changed.
func (c *Config) placeVolumes(taskID string, spec *agentapi.TaskSpec) {
	if c.Volumes != nil {
		c.Volumes.Place(taskID, spec)
	}
}

func (c *Config) releaseVolumes(ctx context.Context, taskID string) error {
	if c.Volumes == nil {
		return nil
	}
	return c.Volumes.Release(ctx, taskID)
}

// sweepTime bounds how long the start of an agent is held up by what an earlier one left.
const sweepTime = 2 * time.Minute

// sweepVolumes releases what is mounted for tasks that have ended, or are known no more. A failure keeps nobody from running: the next start
// tries again.
func (a *Agent) sweepVolumes(ctx context.Context, kept map[string]kept) {
	if a.cfg.Volumes == nil {
		return
	}
	limited, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	err := a.cfg.Volumes.Sweep(limited, func(task string) bool {
		k, ok := kept[task]
		return ok && k.status.GetState() != agentapi.TaskState_STOPPED
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		a.log.Error("release volumes of tasks that are no more", "error", err)
	}
}
