//go:build linux && cgo

package native

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// Restart lets the task's shim run the container again.
func (d *Driver) Restart(ctx context.Context, id, name string, last runtime.Started) (runtime.Started, error) {
	t, err := d.task(id)
	if err != nil {
		return runtime.Started{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s, e, err := t.state(name)
	switch {
	case err != nil:
		return runtime.Started{}, err
	case s == nil || t.removed:
		return runtime.Started{}, fmt.Errorf("container %s of task %s: %w", name, id, runtime.ErrNotFound)
	case e != nil && e.Run > s.Run:
		return runtime.Started{}, &runtime.StartError{Reason: e.Reason}
	case s.At.After(last.At):
		return s.started(), nil
	}
	res, err := t.call(ctx, shimRequest{Op: "restart", Container: name}, nil)
	switch {
	case errors.Is(err, errNoShim):
		return runtime.Started{}, errors.Join(&runtime.StartError{Reason: startFailure(err).Reason, Err: err}, d.bury(t))
	case err != nil:
		return runtime.Started{}, err
	case res.Exit != nil:
		return runtime.Started{}, &runtime.StartError{Reason: res.Exit.Reason}
	case res.NotFound:
		return runtime.Started{}, fmt.Errorf("container %s of task %s: %w", name, id, runtime.ErrNotFound)
	}
	return res.Started.started(), nil
}
