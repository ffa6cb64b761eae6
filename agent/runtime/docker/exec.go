package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// Restart starts the container again, unless that has been done.
func (d *Driver) Restart(ctx context.Context, taskID, name string, last runtime.Started) (runtime.Started, error) {
	id := d.name(taskID, name)
	in, err := d.cli.ContainerInspect(ctx, id)
	if errdefs.IsNotFound(err) {
		return runtime.Started{}, runtime.ErrNotFound
	}
	if err != nil {
		return runtime.Started{}, err
	}
	if in.State.Running || timeOf(in.State.StartedAt).After(last.At) {
		return started(in), nil
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
	return started(in), nil
}

// Exec has the engine run a command. The engine offers no way to end one, so it is killed by its process id, where the engine is
// on this host.
func (d *Driver) Exec(ctx context.Context, taskID, name string, c runtime.Command) (int, error) {
	id := d.name(taskID, name)
	created, err := d.cli.ContainerExecCreate(ctx, id, container.ExecOptions{Cmd: c.Args, AttachStdout: true, AttachStderr: true})
	if err != nil {
		return 0, notRunning(err)
	}
	stream, err := d.cli.ContainerExecAttach(ctx, created.ID, container.ExecAttachOptions{})
	if err != nil {
		return 0, notRunning(err)
	}
	out := c.Output
	if out == nil {
		out = io.Discard
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		stdcopy.StdCopy(out, out, stream.Reader) // until the stream is closed
	}()
	defer func() {
		stream.Close()
		<-copied // nobody writes to out after the return
	}()
	// The stream's end is the command's, unless a child that it left behind holds the stream open.
	ended := copied
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		select {
		case <-ctx.Done():
			return 0, errors.Join(ctx.Err(), d.killExec(created.ID, id))
		case <-ended:
			ended = nil
		case <-time.After(wait):
		}
		in, err := d.cli.ContainerExecInspect(ctx, created.ID)
		switch {
		case ctx.Err() != nil || err == nil && in.Running:
			continue
		case err != nil:
			return 0, notRunning(err)
		case ended != nil:
			select {
			case <-ended:
			case <-time.After(lastLook):
			}
		}
		return in.ExitCode, nil
	}
}

// The engine is asked whether a command has ended: soon at first, then in this pace.
const (
	firstLook = 10 * time.Millisecond
	lastLook  = 200 * time.Millisecond
)

func notRunning(err error) error {
	if errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
		return errors.Join(runtime.ErrNotFound, err)
	}
	return err
}

// killExec ends a command and its process group.
func (d *Driver) killExec(exec, containerName string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	in, err := d.cli.ContainerExecInspect(ctx, exec)
	if err != nil || !in.Running || in.Pid == 0 {
		return nil // it has ended, with its container perhaps
	}
	// The number counts only if it is that of a process in this container: the engine may be on another host.
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", in.Pid))
	if err != nil || !strings.Contains(string(b), in.ContainerID) {
		return fmt.Errorf("a command in container %s goes on: its process is not of this host", containerName)
	}
	if err := unix.Kill(-in.Pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}
