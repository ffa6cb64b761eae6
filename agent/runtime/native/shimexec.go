//go:build linux && cgo

package native

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// maxFiles is how many files come with one request at most: the kernel's bound.
const maxFiles = 253

// receive reads a request and the files that came with it.
func receive(c *net.UnixConn) (req shimRequest, files []*os.File, err error) {
	b, rights := make([]byte, 32<<10), make([]byte, unix.CmsgSpace(maxFiles*4))
	n, rn, _, _, err := c.ReadMsgUnix(b, rights)
	if err != nil {
		return req, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil {
		return req, nil, err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return req, files, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "stream"))
		}
	}
	return req, files, json.NewDecoder(io.MultiReader(bytes.NewReader(b[:n]), c)).Decode(&req)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// exec runs a command in the container's namespaces, cgroup and confinement, for as long as the connection stands. The files are
// its standard streams or, of one with a terminal, the socket that the terminal's master is sent to.
func (s *shim) exec(c *net.UnixConn, req shimRequest, files []*os.File) (res shimResponse) {
	streams := 3
	if req.Terminal {
		streams = 1
	}
	if len(files) != streams || len(req.Args) == 0 {
		res.Error = "exec needs a command and its three standard streams, or a terminal's socket"
		return res
	}
	in := s.container(req.Container)
	if in == nil || in.ended() {
		res.NotFound = true
		return res
	}
	p := in.like
	p.Args = req.Args
	if req.Root {
		p.UID, p.GID, p.AdditionalGroups, p.Env = 0, 0, nil, in.given // libcontainer adds root's HOME
	}
	p.Env = append(slices.Clone(p.Env), req.Env...)
	if req.Terminal {
		p.ConsoleSocket, p.ConsoleWidth, p.ConsoleHeight = files[0], req.Columns, req.Rows
	} else {
		p.Stdin, p.Stdout, p.Stderr = files[0], files[1], files[2]
	}
	err := in.run.Run(&p)
	closeAll(files) // the command has its own, and with them alone their end is its end
	if err != nil {
		if in.ended() {
			res.NotFound = true
			return res
		}
		exit := startFailure(err)
		exit.Code = max(exit.Code, 126)
		res.Exit = &exit
		return res
	}
	pid, err := p.Pid()
	if err != nil {
		res.Error = err.Error()
		return res
	}
	over := make(chan struct{})
	go func() {
		c.Read(make([]byte, 1)) // nothing comes any more: this is the other side's end
		select {
		case <-over:
		default:
			// The command leads a session and group of its own.
			if err := unix.Kill(-pid, unix.SIGKILL); errors.Is(err, unix.ESRCH) {
				p.Signal(unix.SIGKILL)
			}
		}
	}()
	state, err := p.Wait()
	close(over)
	exit := exitOf(state, err)
	res.Exit = &exit
	return res
}

// ended says whether the container's program has.
func (c *container) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}
