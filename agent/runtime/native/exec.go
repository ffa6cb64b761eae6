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
	open := openPipes
	if c.Terminal != nil {
		open = openTerminal
	}
	s, err := open(c)
	if err != nil {
		return 0, err
	}
	req := shimRequest{Op: "exec", Container: name, Args: c.Args, Env: c.Environment, Root: c.Root}
	if c.Terminal != nil {
		req.Terminal, req.Columns, req.Rows = true, c.Terminal.Columns, c.Terminal.Rows
	}
	res, err := t.call(ctx, req, s.given, s.theirs...)
	lost := s.end()
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

// discarding is where nobody wants what a command writes.
func discarding(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
