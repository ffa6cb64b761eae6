package proxy

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// socket is a TCP connection whose small reads and writes are cheap. The descriptor never blocks, so that its system calls need
// not be announced to Go's scheduler: announced ones cost more by themselves, and each that outlasts 20 µs, as a write over
// loopback does on a busy machine, has the monitor thread give the processor to another thread, and keeps that monitor awake. One
// goroutine at a time reads, and one writes.
type socket struct {
	*net.TCPConn
	raw    syscall.RawConn
	in     transfer
	out    transfer
	onRead func(fd uintptr) bool
	onSend func(fd uintptr) bool
}

// transfer is one read or write under way.
type transfer struct {
	p   []byte
	n   int
	err syscall.Errno
}

func newSocket(c *net.TCPConn) (*socket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{TCPConn: c, raw: raw}
	s.onRead = func(fd uintptr) bool { return s.in.try(syscall.SYS_READ, fd) }
	s.onSend = func(fd uintptr) bool { return s.out.try(syscall.SYS_WRITE, fd) }
	return s, nil
}

// try makes the system call; false: the descriptor is not ready.
func (t *transfer) try(call, fd uintptr) bool {
	for {
		n, _, err := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.p))), uintptr(len(t.p)))
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		case 0:
			t.n, t.err = int(n), 0
		default:
			t.n, t.err = 0, err
		}
		return true
	}
}

func (s *socket) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.in.p = p
	err := s.raw.Read(s.onRead)
	s.in.p = nil
	switch {
	case err != nil:
		return 0, err
	case s.in.err != 0:
		return 0, os.NewSyscallError("read", s.in.err)
	case s.in.n == 0:
		return 0, io.EOF
	}
	return s.in.n, nil
}

func (s *socket) Write(p []byte) (int, error) {
	for done := 0; ; done += s.out.n {
		s.out.p = p[done:]
		if len(s.out.p) == 0 {
			s.out.p = nil
			return done, nil
		}
		if err := s.raw.Write(s.onSend); err != nil {
			return done, err
		}
		if s.out.err != 0 {
			return done, os.NewSyscallError("write", s.out.err)
		}
	}
}
