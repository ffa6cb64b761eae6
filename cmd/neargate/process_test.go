package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime/native"
)

// asProgram is set in the environment of processes that are neargate itself and not its tests.
const asProgram = "NEARGATE_TEST_AS_PROGRAM"

// asRemover names the data directory of an agent, of whose host a process removes everything, in the namespace that it is in.
const asRemover = "NEARGATE_TEST_AS_REMOVER"

func TestMain(m *testing.M) {
	native.Hook() // agents start shims and containers from this binary
	if dir := os.Getenv(asRemover); dir != "" {
		if err := removeHost(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(asProgram) != "" {
		main()
		os.Exit(0)
	}
	code := m.Run()
	removeExample()
	os.Exit(code)
}

// process is a neargate of its own.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	name string
	done chan struct{} // closed once it has ended
	said chan struct{} // closed once all that it said is in lines

	mu      sync.Mutex
	lines   []string
	changed chan struct{} // closed with every line
}

// start runs neargate. It is killed with the test at the latest.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	return startCommand(t, exec.Command, args...)
}

// startCommand runs neargate as the command that is made of its path.
func startCommand(t *testing.T, command func(string, ...string) *exec.Cmd, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: command(self, args...), name: args[0], done: make(chan struct{}), said: make(chan struct{}), changed: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asProgram+"=1", "NEARGATE_ROOT_ACCESS_KEY_ID=", "NEARGATE_ROOT_SECRET_ACCESS_KEY=", "NEARGATE_JOIN_TOKEN=")
	// A pipe of our own: shims keep no end of it, so that Wait does not wait for them.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr, p.cmd.Stdout = w, w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go p.read(r)
	go func() {
		_ = p.cmd.Wait() // ProcessState tells
		close(p.done)
	}()
	t.Cleanup(func() {
		p.end(syscall.SIGKILL)
		r.Close()
		if t.Failed() {
			t.Logf("%s said:\n%s", p.name, p.output())
		}
	})
	return p
}

func (p *process) read(r *os.File) {
	defer close(p.said)
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		p.mu.Lock()
		p.lines = append(p.lines, s.Text())
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// says waits for a line and returns what the groups of the pattern matched.
func (p *process) says(pattern string) []string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	limit := time.After(time.Minute)
	for over := false; ; {
		p.mu.Lock()
		lines, changed := p.lines, p.changed
		p.mu.Unlock()
		for _, l := range lines {
			if m := re.FindStringSubmatch(l); m != nil {
				return m[1:]
			}
		}
		if over {
			p.t.Fatalf("%s never said %q; it said:\n%s", p.name, pattern, p.output())
		}
		select {
		case <-changed:
		case <-p.said:
			over = true
		case <-limit:
			over = true
		}
	}
}

// end sends a signal and waits for the end; the exit code is -1 when the signal was what ended it.
func (p *process) end(s syscall.Signal) int {
	p.t.Helper()
	select {
	case <-p.done:
	default:
		_ = p.cmd.Process.Signal(s) // it may have ended just now
		p.wait()
	}
	return p.cmd.ProcessState.ExitCode()
}

// wait waits for the end, and for what was said until then.
func (p *process) wait() {
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		_ = p.cmd.Process.Kill()
		p.t.Errorf("%s does not end; it said:\n%s", p.name, p.output())
		<-p.done
	}
	select {
	case <-p.said:
	case <-time.After(time.Minute):
		p.t.Errorf("%s has ended, and somebody else keeps its output open; it said:\n%s", p.name, p.output())
	}
}

// eventually waits until check has no error any more.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	limit := time.Now().Add(time.Minute)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// processesWith finds the processes, by id, that have a word in their command line.
func processesWith(t *testing.T, word string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, e := range entries {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%s/cmdline", e.Name()))
		if err == nil && strings.Contains(string(line), "\x00"+word+"\x00") && e.Name()[0] >= '0' && e.Name()[0] <= '9' {
			pids = append(pids, e.Name())
		}
	}
	return pids
}
