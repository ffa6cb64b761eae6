package proxy

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// socket is a TCP connection whose reads and writes are cheap. The descriptor never blocks, so that its system calls need
// not be announced to Go's scheduler: announced ones cost more by themselves, and each that outlasts 20 µs, as a write over
// loopback does on a busy machine, has the monitor thread give the processor to another thread, and keeps that monitor awake. One
// goroutine at a time reads, and one writes.
type socket struct {
	*net.TCPConn
	raw     syscall.RawConn
	in, out transfer
	pieces  [3]syscall.Iovec // being written
	onRead  func(fd uintptr) bool
	onWrite func(fd uintptr) bool

	// beforeWait is flushed when a read finds nothing and is going to wait; nil: nothing is. Its error is the read's.
	beforeWait interface{ Flush() error }
	flushed    error
}

// transfer is a system call and what came of it.
type transfer struct {
	call uintptr
	at   unsafe.Pointer // bytes, or Iovecs for SYS_WRITEV
	len  int            // of them
	n    int
	err  syscall.Errno
}

func newSocket(c *net.TCPConn) (*socket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{TCPConn: c, raw: raw, in: transfer{call: syscall.SYS_READ}}
	s.onRead = func(fd uintptr) bool {
		if s.in.try(fd) {
			return true
		}
		if s.beforeWait != nil {
			s.flushed = s.beforeWait.Flush()
		}
		return s.flushed != nil
	}
	s.onWrite = func(fd uintptr) bool { return s.out.try(fd) }
	return s, nil
}

// try makes the system call; false: the descriptor is not ready.
func (t *transfer) try(fd uintptr) bool {
	for {
		n, _, err := syscall.RawSyscall(t.call, fd, uintptr(t.at), uintptr(t.len))
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
	s.in.at, s.in.len = unsafe.Pointer(unsafe.SliceData(p)), len(p)
	err := s.raw.Read(s.onRead)
	s.in.at = nil
	switch {
	case err != nil:
		return 0, err
	case s.flushed != nil:
		return 0, writeError{s.flushed}
	case s.in.err != 0:
		return 0, os.NewSyscallError("read", s.in.err)
	case s.in.n == 0:
		return 0, io.EOF
	}
	return s.in.n, nil
}

func (s *socket) Write(p []byte) (done int, err error) {
	for done < len(p) && err == nil {
		n := 0
		n, err = s.writeOnce(syscall.SYS_WRITE, unsafe.Pointer(unsafe.SliceData(p[done:])), len(p)-done)
		done += n
	}
	return done, err
}

func (s *socket) writeOnce(call uintptr, at unsafe.Pointer, length int) (int, error) {
	s.out.call, s.out.at, s.out.len = call, at, length
	err := s.raw.Write(s.onWrite)
	s.out.at = nil
	if err == nil && s.out.err != 0 {
		err = os.NewSyscallError("write", s.out.err)
	}
	if err != nil {
		return 0, err
	}
	return s.out.n, nil
}

// writeAll writes the three, of which any may be empty, as one.
func (s *socket) writeAll(a, b, c []byte) (done int, err error) {
	rest := s.pieces[:0]
	for _, p := range [...][]byte{a, b, c} {
		if len(p) > 0 {
			v := syscall.Iovec{Base: unsafe.SliceData(p)}
			v.SetLen(len(p))
			rest = append(rest, v)
		}
	}
	defer clear(s.pieces[:])
	for len(rest) > 0 {
		n, err := s.writeOnce(syscall.SYS_WRITEV, unsafe.Pointer(unsafe.SliceData(rest)), len(rest))
		if err != nil {
			return done, err
		}
		for done += n; len(rest) > 0; rest = rest[1:] {
			first := int(rest[0].Len)
			if n < first {
				rest[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(rest[0].Base), n))
				rest[0].SetLen(first - n)
				break
			}
			n -= first
		}
	}
	return done, nil
}
