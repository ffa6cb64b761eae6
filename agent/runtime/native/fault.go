//go:build linux && cgo

package native

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/seed-2f228079/neargate/agent/network"
	"github.com/seed-2f228079/neargate/agent/runtime"
)

var _ runtime.FaultInjector = (*Driver)(nil)

// CheckFaults says what this host lacks for faults.
func (d *Driver) CheckFaults(ctx context.Context) []string { return network.CheckFaults(ctx) }

// StartFault starts a fault in the task's network.
func (d *Driver) StartFault(_ context.Context, task string, f runtime.Fault) error {
	return d.inNetwork(task, func(s *network.Namespace) error { return d.net.StartFault(s, task, f) })
}

// StopFault ends one.
func (d *Driver) StopFault(_ context.Context, task string, f runtime.Fault) error {
	return d.inNetwork(task, func(s *network.Namespace) error { return d.net.StopFault(s, task, f) })
}

// HasFault says whether one runs.
func (d *Driver) HasFault(_ context.Context, task string, f runtime.Fault) (runs bool, err error) {
	err = d.inNetwork(task, func(s *network.Namespace) error {
		runs, err = d.net.HasFault(s, task, f)
		return err
	})
	return runs, err
}

// inNetwork calls do for the network namespace of a task, by way of a container of it that runs. The task is not removed meanwhile.
func (d *Driver) inNetwork(id string, do func(*network.Namespace) error) error {
	t, err := d.task(id)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed || t.sandbox == nil {
		return fmt.Errorf("task %s: %w", id, runtime.ErrNotFound)
	}
	s, err := d.namespace(t)
	if err != nil {
		return err
	}
	defer s.Close()
	return do(s)
}

func (d *Driver) namespace(t *task) (*network.Namespace, error) {
	if t.task.Spec.NetworkMode == "host" {
		return network.HostNamespace()
	}
	for _, c := range t.task.Spec.Containers {
		started, exit, err := t.state(c.Name)
		if err != nil {
			return nil, err
		}
		if started == nil || exit != nil || c.DisableNetworking {
			continue
		}
		s, err := network.OpenNamespace(started.PID, func() error {
			cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", started.PID))
			if err == nil && !strings.Contains(string(cgroup), d.taskCgroup(t.box)+"/") {
				err = fmt.Errorf("process %d is of no container of task %s", started.PID, t.id)
			}
			return err
		})
		if err == nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("no container of task %s runs: %w", t.id, runtime.ErrNotFound)
}
