//go:build linux && cgo

package native

import (
	"os"
	"sync"
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/utils"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/logs"
)

// streams are a program's standard streams: pipes, or a terminal whose output counts as stdout. Its input is empty, or stays open
// without anything to read for as long as the program runs.
type streams struct {
	theirs  []*os.File // ends that the program has; closed here once it has them
	ours    []*os.File // what is read from: stdout, stderr
	input   *os.File   // our end of the input; nil: there is none
	console *os.File   // the socket on which the terminal's master comes
	out     *logs.Output
	copying sync.WaitGroup
	copied  chan struct{}
}

func openStreams(p *libcontainer.Process, b *bundle) (s *streams, err error) {
	s = &streams{copied: make(chan struct{})}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if b.Terminal {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		s.console, p.ConsoleSocket = os.NewFile(uintptr(pair[0]), "console"), os.NewFile(uintptr(pair[1]), "console")
		s.theirs = append(s.theirs, p.ConsoleSocket)
		return s, nil
	}
	if b.Interactive {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		s.theirs, s.input = append(s.theirs, r), w
		p.Stdin = r
	}
	for _, stderr := range []bool{false, true} {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		s.theirs, s.ours = append(s.theirs, w), append(s.ours, r)
		if stderr {
			p.Stderr = w
		} else {
			p.Stdout = w
		}
	}
	return s, nil
}

func (s *streams) copy(r *os.File, stderr bool) {
	s.copying.Go(func() {
		s.out.Copy(r, stderr)
		r.Close()
	})
}

// given is called once the program has its ends.
func (s *streams) given() error {
	if s.console != nil {
		master, err := utils.RecvFile(s.console)
		if err != nil {
			return err
		}
		s.ours = append(s.ours, master)
	}
	closeAll(s.theirs)
	s.theirs = nil
	return nil
}

// flow takes what the program writes to where it goes.
func (s *streams) flow(out *logs.Output) {
	s.out = out
	for i, r := range s.ours {
		s.copy(r, i == 1)
	}
	s.ours = nil
	go func() { s.copying.Wait(); close(s.copied) }()
}

// drain waits until all is where it goes; neither a log driver that takes nothing nor a stray holder of the pipe may hide the program's end.
func (s *streams) drain() {
	select {
	case <-s.copied:
	case <-time.After(5 * time.Second):
		s.out.GiveUp()
		select {
		case <-s.copied:
		case <-time.After(time.Second):
		}
	}
	s.close()
}

func (s *streams) close() {
	for _, f := range append(append(s.theirs, s.ours...), s.input, s.console) {
		if f != nil {
			f.Close()
		}
	}
	s.theirs, s.ours, s.input, s.console = nil, nil, nil, nil
}
