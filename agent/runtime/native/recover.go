//go:build linux && cgo

package native

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-2f228079/neargate/agent/logs"
	"github.com/seed-2f228079/neargate/agent/runtime"
)

// Recover finds the tasks in the folder. Those whose shim lives go on; of the others the remains are recorded as ended.
func (d *Driver) Recover(ctx context.Context) ([]runtime.Recovered, error) {
	if err := d.images.clean(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(d.cfg.Dir, "tasks"))
	if err != nil {
		return nil, err
	}
	var out []runtime.Recovered
	network := false
	for _, e := range entries {
		t, err := d.adopt(ctx, e.Name())
		if err != nil {
			return nil, fmt.Errorf("recover task %s: %w", e.Name(), err)
		}
		if t == nil {
			continue
		}
		t.mu.Lock()
		r, err := t.recovered()
		network = network || t.sandbox != nil && t.sandbox.Address != ""
		t.mu.Unlock()
		if err != nil {
			return nil, fmt.Errorf("recover task %s: %w", e.Name(), err)
		}
		out = append(out, r)
	}
	if network {
		if err := d.net.Up(ctx); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// adoptAddresses tells the network of the addresses and ports that the folder's tasks have. It comes before anything that brings the
// network up: that replaces the forwarding as a whole, and the ports of running tasks must not be missing from it for a moment.
func (d *Driver) adoptAddresses() error {
	entries, err := os.ReadDir(filepath.Join(d.cfg.Dir, "tasks"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		var sb sandboxRecord
		if ok, err := readRecord(filepath.Join(d.taskFolder(e.Name()), "sandbox.json"), &sb); err != nil {
			return err
		} else if !ok || sb.Address == "" {
			continue
		}
		if _, err := netip.ParseAddr(sb.Address); err != nil {
			return fmt.Errorf("address of task %s: %w", e.Name(), err)
		}
		d.net.Adopt(sb.networkInterface(e.Name()), sb.forwards())
	}
	return nil
}

// adopt makes a task of the folder known to this process; nil when it was a mere leftover.
func (d *Driver) adopt(ctx context.Context, box string) (*task, error) {
	d.mu.Lock()
	t := d.tasks[box]
	d.mu.Unlock()
	if t != nil {
		return t, nil // this process made or adopted it before
	}
	if t, known := d.warm.owner(box); known {
		return t, nil
	}
	t = d.newTask(box, box)
	ok, err := readRecord(filepath.Join(t.dir, "record.json"), &t.record)
	if err != nil {
		return nil, err
	}
	if !ok { // perhaps a sandbox that was made ahead, by a process that was killed
		return nil, d.clear(ctx, t)
	}
	t.id = t.record.ID
	if t.task, err = t.record.task(); err != nil {
		return nil, err
	}
	var sb sandboxRecord
	if ok, err := readRecord(filepath.Join(t.dir, "sandbox.json"), &sb); err != nil {
		return nil, err
	} else if ok {
		t.sandbox = &sb
	}
	// Waits for a start that is under way, so that its record is there.
	if _, err := t.call(ctx, shimRequest{Op: "status"}, nil); errors.Is(err, errNoShim) {
		err = d.bury(t)
		if err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	if d.cfg.Warm > 0 {
		t.shape = shapeOf(t.record, t.task)
		d.warm.note(t)
	}
	d.warm.own(t)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tasks[t.id] = t
	return t, nil
}

func (t *task) recovered() (runtime.Recovered, error) {
	r := runtime.Recovered{Task: t.task, Containers: map[string]runtime.RecoveredContainer{}}
	if t.sandbox != nil {
		r.Sandbox = t.sandbox.sandbox()
	}
	for _, c := range t.task.Spec.GetContainers() {
		s, e, err := t.state(c.Name)
		if err != nil {
			return r, err
		}
		if s == nil && e == nil {
			continue
		}
		var rc runtime.RecoveredContainer
		if s != nil {
			rc.Started = s.started()
		}
		if e != nil {
			rc.Exit = new(e.exit())
		}
		r.Containers[c.Name] = rc
	}
	return r, nil
}

// Remove removes everything of the task but its logs.
func (d *Driver) Remove(ctx context.Context, id string) error {
	t, err := d.task(id)
	if errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removed = true
	if err := d.clear(ctx, t); err != nil {
		t.removed = false
		return fmt.Errorf("remove task %s: %w", id, err)
	}
	d.forget(t)
	return nil
}

func (d *Driver) forget(t *task) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tasks[t.id] == t {
		delete(d.tasks, t.id)
	}
}

// clear removes what there may be of a task, whole or half-made, the folder last: while it is there, a crash is followed by another
// attempt. Called with the task's lock held.
func (d *Driver) clear(ctx context.Context, t *task) error {
	if _, err := os.Stat(t.dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := t.endShim(ctx); err != nil {
		return err
	}
	if err := killCgroup(d.taskCgroup(t.box)); err != nil {
		return err
	}
	if err := d.net.Unforward(t.box); err != nil {
		return err
	}
	if err := d.net.Detach(t.box); err != nil {
		return err
	}
	if err := removeCgroup(d.taskCgroup(t.box)); err != nil {
		return err
	}
	if spec := t.task.Spec; spec.GetFaultInjection() && spec.GetNetworkMode() == "host" {
		if err := d.net.EndFaults(t.id); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(t.dir); err != nil {
		return err
	}
	d.net.Release(t.box)
	d.warm.forget(t)
	t.sandbox = nil
	return nil
}

func (d *Driver) logPath(task, container string) string {
	return filepath.Join(d.cfg.Dir, "logs", task, container+".log")
}

// Logs reads what a container wrote.
func (d *Driver) Logs(ctx context.Context, id, name string, opt runtime.LogOptions) (runtime.LogReader, error) {
	notFound := fmt.Errorf("log of container %s of task %s: %w", name, id, runtime.ErrNotFound)
	if !validTaskID(id) || !validContainerName(name) {
		return nil, notFound
	}
	var ended chan struct{}
	var stop context.CancelFunc = func() {}
	if opt.Follow {
		ended = make(chan struct{})
		ctx, stop = context.WithCancel(ctx)
		go func() {
			defer close(ended)
			d.awaitEnd(ctx, id, name)
		}()
	}
	r, err := logs.Read(ctx, d.logPath(id, name), opt, ended)
	if err != nil {
		stop()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, notFound
		}
		return nil, err
	}
	return &logReader{r, stop}, nil
}

// Shipped implements agent.Shipping.
func (d *Driver) Shipped(id, name string, upTo time.Time) error {
	if !validTaskID(id) || !validContainerName(name) {
		return nil
	}
	return logs.Shipped(d.logPath(id, name), upTo)
}

type logReader struct {
	runtime.LogReader
	stop context.CancelFunc
}

func (r *logReader) Close() error {
	r.stop()
	return r.LogReader.Close()
}

// awaitEnd returns once the container will write no more: it has ended, or its task is gone. One not yet started is waited for.
func (d *Driver) awaitEnd(ctx context.Context, id, name string) {
	for {
		if _, err := d.Wait(ctx, id, name); !errors.Is(err, runtime.ErrNotFound) {
			return
		}
		if _, err := d.task(id); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// RemoveLogs deletes the logs of a task.
func (d *Driver) RemoveLogs(_ context.Context, id string) error {
	if !validTaskID(id) {
		return nil
	}
	return os.RemoveAll(filepath.Join(d.cfg.Dir, "logs", id))
}
