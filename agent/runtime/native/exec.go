//go:build linux && cgo

package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// Exec has the shim run a command in the container. The shim is given the command's standard streams as open files, so nothing
// that is written passes through it; and it kills the command when this connection ends, as it does when ctx is done or this
// process dies.
func (d *Driver) Exec(ctx context.Context, id, name string, c runtime.Command) (int, error) {
	t, err := d.task(id)
	if err != nil {
		return 0, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	stdout, output := null, func() error { return nil }
	if c.Output != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		copied := make(chan error, 1)
		go func() { _, err := io.Copy(c.Output, r); copied <- err }()
		stdout, output = w, func() error {
			// What the command wrote is in the pipe; a child that it left behind may hold the pipe open for ever.
			w.Close()
			r.SetReadDeadline(time.Now().Add(execDrain))
			err := <-copied
			r.Close()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
			return err
		}
	}
	res, err := t.call(ctx, shimRequest{Op: "exec", Container: name, Args: c.Args}, null, stdout, stdout)
	lost := output()
	switch {
	case errors.Is(err, errNoShim) || res.NotFound:
		return 0, fmt.Errorf("container %s of task %s: %w", name, id, runtime.ErrNotFound)
	case err != nil || lost != nil:
		return 0, errors.Join(err, lost)
	}
	if res.Exit.NotStarted && c.Output != nil {
		fmt.Fprintln(c.Output, res.Exit.Reason)
	}
	return res.Exit.Code, nil
}

const execDrain = 100 * time.Millisecond

// send writes a request and the files that go with it in one message, which a stream socket keeps together at its beginning.
func send(c *net.UnixConn, req shimRequest, files []*os.File) error {
	b, err := json.Marshal(req)
	if err != nil {
		return err
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	n, _, err := c.WriteMsgUnix(b, rights, nil)
	if err == nil && n < len(b) {
		_, err = c.Write(b[n:])
	}
	return err
}
