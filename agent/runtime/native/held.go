//go:build linux && cgo

package native

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/exeseal"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/logs"
)

// heldProcess is a container that was made ahead. In its program's place waits held.c, which becomes the program once it is told
// arguments and environment. So nothing of a task is in it before the task has it: what makes up a task's identity comes with take.
//
// Why not libcontainer's own way, whose init waits on a FIFO before it executes the program? That has been told the environment by then:
// with the task's id in it, and secrets.
type heldProcess struct {
	in      *built
	b       *bundle // as it was made
	process *libcontainer.Process
	streams *streams
	socket  *os.File
}

var errNotHeld = errors.New("the container was not made ahead")

// errRan says that the program may have run: it is not run a second time.
var errRan = errors.New("the program was started, and ended again")

const heldVariable = "_NEARGATE_HELD"

// mayBeHeld says whether such a container can be made ahead. Those left out have something that belongs to one task (files that are
// secret), a process beside the program's, or a terminal; or others see them before their program runs.
func (b *bundle) mayBeHeld() bool {
	return b.SecretFiles == "" && !b.Init && b.PID == "" && !b.Interactive && !b.Terminal && !b.Privileged && len(b.Devices) == 0
}

// shape is the bundle without what take tells.
func (b *bundle) shape() bundle {
	s := *b
	s.Args, s.Env, s.Output, s.RuntimeID = nil, nil, logs.Config{}, ""
	return s
}

// clone is one whose environment may be added to.
func (b *bundle) clone() *bundle {
	c := *b
	c.Env = slices.Clone(b.Env)
	return &c
}

// prepare makes the container whose bundle.json lies in its folder, up to its program.
func (s *shim) prepare(name string) (res shimResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.containers[name] != nil || s.held[name] != nil {
		res.Error = "the container is there"
		return res
	}
	dir := s.folder(name)
	var b bundle
	if ok, err := readRecord(filepath.Join(dir, "bundle.json"), &b); err != nil || !ok {
		res.Error = fmt.Sprintf("bundle of container %s: %v", name, err)
		return res
	}
	h, err := s.hold(dir, name, &b)
	if err != nil {
		res.Error = err.Error()
		return res
	}
	s.held[name] = h
	go settle()
	return res
}

func (s *shim) hold(dir, name string, b *bundle) (_ *heldProcess, err error) {
	if !b.mayBeHeld() {
		return nil, errors.New("such a container cannot be made ahead")
	}
	h := &heldProcess{b: b, process: new(libcontainer.Process)}
	if h.in, err = s.build(dir, name, b, 0); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			h.in.undo()
		}
	}()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "arguments")
	defer theirs.Close()
	if h.socket, err = pollable(pair[0]); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			h.socket.Close()
		}
	}()
	// Sealed as libcontainer's own copies are, though nothing of the image runs before this program has given up its file.
	program, err := exeseal.CloneSelfExe(dir)
	if err != nil {
		return nil, fmt.Errorf("program that waits: %w", err)
	}
	defer program.Close()
	p := h.process
	*p = h.in.like
	p.Init, p.ExtraFiles = true, append(slices.Clone(p.ExtraFiles), program, theirs)
	p.Args = []string{fmt.Sprintf("/proc/self/fd/%d", 3+len(p.ExtraFiles)-2)}
	p.Env = []string{fmt.Sprintf("%s=%d", heldVariable, len(p.ExtraFiles))}
	if h.streams, err = openStreams(p, b); err != nil {
		return nil, err
	}
	if err = h.in.runProcess(p); err == nil {
		if err = h.streams.given(); err == nil {
			theirs.Close() // with the program's copy alone its end is noticed
			err = h.awaitHeld()
		}
		if err != nil {
			p.Signal(unix.SIGKILL)
			p.Wait()
		}
	}
	if err != nil {
		h.streams.close()
		return nil, err
	}
	return h, nil
}

// awaitHeld returns once the program that waits is there. One that is linked to libraries of the host cannot be: the image has others, or none.
func (h *heldProcess) awaitHeld() error {
	if err := h.socket.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.ReadFull(h.socket, make([]byte, 1)); err != nil {
		return fmt.Errorf("the program that waits does not run (it must be linked statically): %w", err)
	}
	return nil
}

// pollable makes a file whose reads have deadlines.
func pollable(fd int) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "held"), nil
}

// patience is how long a program that waits is given to take what it is told.
const patience = 10 * time.Second

// take lets the container's program run. When it does not, for whatever reason, nothing is left of the container, and it can be
// made in the usual way, but for errRan.
func (h *heldProcess) take(s *shim, b *bundle) (_ *container, err error) {
	if !hasVariable(b.Env, "HOME") {
		for _, e := range h.in.like.Env {
			if strings.HasPrefix(e, "HOME=") {
				h.in.given, b.Env = b.Env, append(b.Env, e)
			}
		}
	} else {
		h.in.given = b.Env
	}
	h.in.like.Env = b.Env
	was, is := h.b.shape(), b.shape()
	if !reflect.DeepEqual(was, is) || !b.mayBeHeld() {
		h.discard()
		return nil, errors.New("the container that was made ahead is not of this shape")
	}
	out, err := logs.Start(b.Output, s.dial)
	if err == nil {
		if err = h.tell(b.Args, b.Env); err != nil {
			out.Close()
		}
	}
	if err != nil {
		h.discard()
		return nil, err
	}
	h.socket.Close()
	h.streams.flow(out)
	c, err := h.in.watch(h.process, b, 0, h.streams)
	if err != nil {
		h.in.undo()
		return nil, errors.Join(errRan, err)
	}
	return c, nil
}

// tell hands arguments and environment over and returns once the program has taken the place.
func (h *heldProcess) tell(args, env []string) error {
	for _, e := range env { // what libcontainer refuses, or replaces by what it finds in the image
		if i := strings.IndexByte(e, '='); i <= 0 || e == "HOME=" {
			return fmt.Errorf("variable %q is libcontainer's business", e[:max(i, 0)])
		}
	}
	var text strings.Builder
	for _, s := range append(append([]string{}, args...), env...) {
		if strings.IndexByte(s, 0) >= 0 {
			return errors.New("an argument or variable contains a zero byte")
		}
		text.WriteString(s)
		text.WriteByte(0)
	}
	head := make([]byte, 0, 12)
	for _, n := range []int{len(args), len(env), text.Len()} {
		head = binary.NativeEndian.AppendUint32(head, uint32(n))
	}
	if err := h.socket.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := h.socket.Write(append(head, text.String()...)); err != nil {
		return fmt.Errorf("tell the program that waits: %w", err)
	}
	answer, err := io.ReadAll(h.socket)
	switch {
	case err != nil && string(answer) == "r":
		return errors.Join(errRan, err)
	case err == nil && string(answer) != "r":
		return errors.New("it did not become the program")
	}
	return err
}

// discard ends what waits and takes its container away.
func (h *heldProcess) discard() {
	h.socket.Close()
	h.process.Signal(unix.SIGKILL)
	h.process.Wait()
	h.streams.close()
	h.in.undo()
}
