package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/seed-2f228079/neargate/agent/network"
	"github.com/seed-2f228079/neargate/agent/runtime"
)

var _ runtime.FaultInjector = (*Driver)(nil)

// CheckFaults says what this host lacks for faults: an engine on it is needed, and the right to change its network.
func (d *Driver) CheckFaults(ctx context.Context) []string {
	n, err := d.network(ctx)
	switch {
	case err != nil:
		return []string{err.Error()}
	case n == nil:
		return []string{"the engine is not on this host, or this process may not change the host's network"}
	}
	return network.CheckFaults(ctx)
}

// StartFault starts a fault in the task's network.
func (d *Driver) StartFault(ctx context.Context, task string, f runtime.Fault) error {
	return d.inNetwork(ctx, task, func(n *network.Network, s *network.Namespace) error { return n.StartFault(s, task, f) })
}

// StopFault ends one.
func (d *Driver) StopFault(ctx context.Context, task string, f runtime.Fault) error {
	return d.inNetwork(ctx, task, func(n *network.Network, s *network.Namespace) error { return n.StopFault(s, task, f) })
}

// HasFault says whether one runs.
func (d *Driver) HasFault(ctx context.Context, task string, f runtime.Fault) (runs bool, err error) {
	err = d.inNetwork(ctx, task, func(n *network.Network, s *network.Namespace) error {
		runs, err = n.HasFault(s, task, f)
		return err
	})
	return runs, err
}

// inNetwork calls do for the network namespace of a task, which is its sandbox's.
func (d *Driver) inNetwork(ctx context.Context, id string, do func(*network.Network, *network.Namespace) error) error {
	n, err := d.network(ctx)
	switch {
	case err != nil:
		return err
	case n == nil:
		return errors.New("the engine is not on this host")
	}
	t, err := d.task(ctx, id)
	if err != nil {
		return err
	}
	s, err := d.namespace(ctx, t)
	if err != nil {
		return err
	}
	defer s.Close()
	return do(n, s)
}

func (d *Driver) namespace(ctx context.Context, t runtime.Task) (*network.Namespace, error) {
	if t.Spec.NetworkMode == "host" {
		return network.HostNamespace()
	}
	in, err := d.cli.ContainerInspect(ctx, d.sandboxName(t.ID))
	if err != nil {
		return nil, err
	}
	return network.OpenNamespace(in.State.Pid, func() error {
		cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", in.State.Pid))
		if err == nil && !strings.Contains(string(cgroup), in.ID) {
			err = fmt.Errorf("process %d is not the sandbox of task %s", in.State.Pid, t.ID)
		}
		return err
	})
}

// endFaults ends those of a task in the host's network; in its own they end with it.
func (d *Driver) endFaults(ctx context.Context, task string) error {
	n, err := d.network(ctx)
	if err != nil || n == nil {
		return err
	}
	return n.EndFaults(task)
}
