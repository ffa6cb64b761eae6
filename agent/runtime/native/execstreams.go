//go:build linux && cgo

package native

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/runc/libcontainer/utils"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// execStreams are the ends of a command's streams: theirs go to the shim with the request, ours are copied from and to.
type execStreams struct {
	theirs  []*os.File
	outputs []*os.File // that are read from, with deadlines
	inputs  []*os.File // that are written to
	copying sync.WaitGroup
	over    chan struct{}

	mu   sync.Mutex
	lost error // of the first writer that takes no more
}

// execDrain is how long what a command wrote is waited for after its end: a child that it left behind may hold its streams open.
const execDrain = 100 * time.Millisecond

func openPipes(c runtime.Command) (s *execStreams, err error) {
	s = &execStreams{over: make(chan struct{})}
	defer func() {
		if err != nil {
			s.given()
			s.end()
		}
	}()
	if c.Input == nil {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return s, err
		}
		s.theirs = append(s.theirs, null)
	} else {
		r, w, err := os.Pipe()
		if err != nil {
			return s, err
		}
		s.theirs, s.inputs = append(s.theirs, r), append(s.inputs, w)
		go func() { // ends with the input, or when nobody reads it any more
			io.Copy(w, c.Input)
			w.Close()
		}()
	}
	for i, to := range []io.Writer{c.Output, c.Errors} {
		if i == 1 && to == nil {
			s.theirs = append(s.theirs, s.theirs[1]) // as they come
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			return s, err
		}
		s.theirs, s.outputs = append(s.theirs, w), append(s.outputs, r)
		s.copy(discarding(to), r)
	}
	return s, nil
}

// openTerminal makes the socket that the terminal's master comes on, once the command has it.
func openTerminal(c runtime.Command) (*execStreams, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours := os.NewFile(uintptr(pair[0]), "console")
	s := &execStreams{theirs: []*os.File{os.NewFile(uintptr(pair[1]), "console")}, over: make(chan struct{})}
	s.copying.Go(func() {
		defer ours.Close()
		sent, err := utils.RecvFile(ours)
		if err != nil {
			return // the command was not started, which its exit tells
		}
		master, err := polled(sent)
		if err != nil {
			s.fail(err)
			return
		}
		defer master.Close()
		if c.Input != nil {
			go io.Copy(master, c.Input) // ends with the input, or with master
		}
		stop := make(chan struct{})
		defer close(stop)
		go resize(master, c.Terminal.Resize, stop)
		go func() {
			<-s.over
			master.SetReadDeadline(time.Now().Add(execDrain))
		}()
		s.pass(discarding(c.Output), master)
	})
	return s, nil
}

// polled gives a file that was sent the deadlines of one that was opened here.
func polled(f *os.File) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

func resize(master *os.File, sizes <-chan runtime.Size, stop <-chan struct{}) {
	raw, err := master.SyscallConn()
	if err != nil {
		return
	}
	for {
		select {
		case size, ok := <-sizes:
			if !ok {
				return
			}
			raw.Control(func(fd uintptr) {
				unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Col: size.Columns, Row: size.Rows})
			})
		case <-stop:
			return
		}
	}
}

func (s *execStreams) copy(to io.Writer, from *os.File) {
	s.copying.Go(func() {
		defer from.Close()
		s.pass(to, from)
	})
}

// pass copies until there is no more. A terminal without a slave reads as an input/output error.
func (s *execStreams) pass(to io.Writer, from *os.File) {
	_, err := io.Copy(to, &draining{from, s.over})
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, unix.EIO) {
		s.fail(err)
	}
}

// draining reads a stream whose command may have ended: what is there by then is read, however slowly it is taken.
type draining struct {
	from *os.File
	over <-chan struct{}
}

func (d *draining) Read(b []byte) (int, error) {
	select {
	case <-d.over:
		d.from.SetReadDeadline(time.Now().Add(execDrain))
	default:
	}
	return d.from.Read(b)
}

func (s *execStreams) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.lost = err
	}
}

// given closes what the shim has by now: the end of the command's own ends is then the streams' end.
func (s *execStreams) given() {
	closeAll(s.theirs)
	s.theirs = nil
}

// end is called once the command has ended; it returns when all that it wrote has been taken.
func (s *execStreams) end() error {
	s.given()
	close(s.over)
	for _, r := range s.outputs {
		r.SetReadDeadline(time.Now().Add(execDrain))
	}
	s.copying.Wait()
	for _, w := range s.inputs {
		w.Close()
	}
	return s.lost
}
