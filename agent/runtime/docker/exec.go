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
	"github.com/docker/docker/api/types"
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
	options := container.ExecOptions{Cmd: c.Args, Env: c.Environment, AttachStdin: c.Input != nil, AttachStdout: true, AttachStderr: true}
	if c.Root {
		options.User = "0:0"
	}
	if c.Terminal != nil {
		options.Tty, options.ConsoleSize = true, consoleSize(c.Terminal.Size)
	}
	created, err := d.cli.ContainerExecCreate(ctx, id, options)
	if err != nil {
		return 0, notRunning(err)
	}
	stream, err := d.cli.ContainerExecAttach(ctx, created.ID, container.ExecAttachOptions{Tty: options.Tty, ConsoleSize: options.ConsoleSize})
	if err != nil {
		return 0, notRunning(err)
	}
	defer stream.Close()
	copied, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(copied)
		copyOutput(c, &draining{stream, over})
	}()
	if c.Input != nil {
		go func() { // ends with the input, or with the stream
			io.Copy(stream.Conn, c.Input)
			if c.Terminal == nil {
				stream.CloseWrite()
			}
		}()
	}
	if c.Terminal != nil {
		go d.resize(ctx, created.ID, c.Terminal, over)
	}
	code, err := d.waitExec(ctx, created.ID, id, copied)
	close(over)
	stream.Conn.SetReadDeadline(time.Now().Add(lastLook))
	<-copied // nobody writes to the outputs after the return
	return code, err
}

// draining reads a stream whose command may have ended: what is there by then is read, however slowly it is taken. A child that was
// left behind may hold the stream open.
type draining struct {
	from types.HijackedResponse
	over <-chan struct{}
}

func (d *draining) Read(b []byte) (int, error) {
	select {
	case <-d.over:
		d.from.Conn.SetReadDeadline(time.Now().Add(lastLook))
	default:
	}
	return d.from.Reader.Read(b)
}

func consoleSize(s runtime.Size) *[2]uint {
	if s.Rows == 0 || s.Columns == 0 {
		return nil
	}
	return &[2]uint{uint(s.Rows), uint(s.Columns)}
}

// copyOutput hands on what the command writes: as it is from a terminal, and in frames that tell the streams apart from pipes.
func copyOutput(c runtime.Command, from io.Reader) {
	out, errs := c.Output, c.Errors
	if out == nil {
		out = io.Discard
	}
	if errs == nil {
		errs = out
	}
	if c.Terminal != nil {
		io.Copy(out, from)
		return
	}
	stdcopy.StdCopy(out, errs, from)
}

// firstSizes is how often the first size is told: engines before 23 do not take it with the command, and a word that comes before the
// command has its terminal is lost without an error.
const firstSizes = 6

// resize follows the terminal's size until the command is over.
func (d *Driver) resize(ctx context.Context, exec string, t *runtime.Terminal, over <-chan struct{}) {
	next, soon, wait := t.Size, time.After(0), firstLook
	for told := 0; ; {
		select {
		case size, ok := <-t.Resize:
			if !ok {
				return
			}
			next, soon = size, time.After(0)
		case <-soon:
			if next.Columns != 0 && next.Rows != 0 && d.cli.ContainerExecResize(ctx, exec, container.ResizeOptions{Height: uint(next.Rows), Width: uint(next.Columns)}) == nil {
				told++
			}
			soon = nil
			if told < firstSizes {
				soon, wait = time.After(wait), min(2*wait, lastLook)
			}
		case <-over:
			return
		}
	}
}

// waitExec returns when the command has ended, which the end of its stream tells at once.
func (d *Driver) waitExec(ctx context.Context, exec, containerName string, copied <-chan struct{}) (int, error) {
	ended := copied
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		select {
		case <-ctx.Done():
			return 0, errors.Join(ctx.Err(), d.killExec(exec, containerName))
		case <-ended:
			ended = nil
		case <-time.After(wait):
		}
		in, err := d.cli.ContainerExecInspect(ctx, exec)
		switch {
		case ctx.Err() != nil || err == nil && in.Running:
			continue
		case err != nil:
			return 0, notRunning(err)
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
	for err == nil && in.Running && in.Pid == 0 { // it has just begun: the engine will know
		select {
		case <-time.After(firstLook):
		case <-ctx.Done():
		}
		in, err = d.cli.ContainerExecInspect(ctx, exec)
	}
	if err != nil || !in.Running {
		if ctx.Err() != nil {
			return fmt.Errorf("a command in container %s may go on: %w", containerName, err)
		}
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
