//go:build linux && cgo

package native

// This makes init.c part of the program, which takes over in such a process before Go does.

import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	initName     = "neargate-init"
	initVariable = "_NEARGATE_INIT"
)

// initProcess is process 1 of a process namespace that outlives, or is shared by, programs: the init that a container asked for, or
// that of a task whose containers see one another.
//
// Why not let it be the program's parent, as docker-init is? libcontainer makes the program; it joins the namespace, and whatever
// it leaves behind falls to process 1. The program's signals come from the shim, to itself.
type initProcess struct {
	cmd     *exec.Cmd
	control io.WriteCloser
}

// startInit starts one as the given user; its empty root is made below dir.
func startInit(dir string, uid, gid int) (*initProcess, error) {
	place := filepath.Join(dir, "empty")
	if err := os.MkdirAll(place, 0o700); err != nil {
		return nil, err
	}
	c := exec.Command(ownProgram)
	c.Args = []string{initName}
	c.Env = []string{fmt.Sprintf("%s=%d:%d:%s", initVariable, uid, gid, place)}
	c.Dir = "/"
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Setsid: true}
	control, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	ready, err := c.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, control.Close())
	}
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("start an init: %w", err)
	}
	if _, err := io.ReadFull(ready, make([]byte, 1)); err != nil {
		return nil, errors.Join(fmt.Errorf("an init did not get ready: %w", err), control.Close(), c.Wait())
	}
	return &initProcess{c, control}, nil
}

// namespace is the path by which others join it.
func (p *initProcess) namespace() string { return fmt.Sprintf("/proc/%d/ns/pid", p.cmd.Process.Pid) }

// forward names the program that the init's signals go to.
func (p *initProcess) forward(pid int) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		v, ok := strings.CutPrefix(line, "NSpid:")
		if f := strings.Fields(v); ok && len(f) > 0 {
			inner, err := strconv.ParseInt(f[len(f)-1], 10, 32)
			if err != nil {
				return err
			}
			_, err = p.control.Write(binary.NativeEndian.AppendUint32(nil, uint32(inner)))
			return err
		}
	}
	return fmt.Errorf("process %d has no id in its namespace", pid)
}

// end ends the namespace with all that is in it.
func (p *initProcess) end() {
	if p == nil {
		return
	}
	p.control.Close()
	p.cmd.Process.Kill()
	p.cmd.Wait()
}
