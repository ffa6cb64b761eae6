//go:build linux && cgo

package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

// shimVersion is the protocol's version. A newer agent adopts older shims: it must go on speaking their versions. Version 2 added
// restart and exec, version 3 secrets, storage, and commands with a terminal or as root, version 4 prepare and hold; no task that needs them has an older shim.
const shimVersion = 4

// Requests to a shim: one a connection, JSON both ways.
type shimRequest struct {
	Version   int
	Op        string // prepare, hold, start, restart, exec, signal, wait, status, storage, shutdown
	Container string
	Signal    int
	Args      []string         // exec; its standard streams come with the message, as open files
	Secrets   *runtime.Secrets `json:",omitempty"` // start
	Env       []string         // exec: above the program's own
	Root      bool             // exec
	Terminal  bool             // exec: the one file is the socket that the terminal's master is sent to
	Columns   uint16
	Rows      uint16
}

type shimResponse struct {
	Version    int
	Error      string
	NotFound   bool
	Started    *startedRecord
	Exit       *exitRecord
	Containers map[string]shimContainer // status
	Storage    *runtime.Storage
}

type shimContainer struct {
	Started *startedRecord
	Exit    *exitRecord
}

// shim is the parent of one task's containers. Its folder is the task's.
type shim struct {
	dir  string
	host *os.File // the network namespace of the host: log drivers send from there

	mu         sync.Mutex // also serialises starts
	containers map[string]*container
	secrets    map[string]*runtime.Secrets // by container: kept here alone, for as long as it may be started again
	tmpfs      map[string]bool             // volumes that are mounted
	processes  *initProcess                // of the namespace that all containers have in common, if they do
	held       map[string]*heldProcess     // containers that were made ahead
	ports      []*os.File                  // host ports that a task came with which took this sandbox over
	closing    bool
}

// runShim is the shim's main: args are the task's folder, the instance's shim cgroup, the number of inherited files, the size in MiB of
// the /dev/shm that the task's containers have in common (0: none), and "storage" where the last of the files is the task's own file
// system. The first is the listening socket, the second the network namespace of the host; the others keep host ports taken for as long as the
// shim lives.
func runShim(args []string) int {
	// Taken and dropped, not ignored: what a process ignores its children ignore too, and Ctrl-C is for them.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	fmt.Fprintln(os.Stderr, "shim:", serveShim(args))
	return 1
}

// serveShim returns when the shim cannot go on; at the end of its task it ends the process.
func serveShim(args []string) error {
	if len(args) < 4 {
		return errors.New("arguments: folder, cgroup, number of files, size of /dev/shm")
	}
	files, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	for fd := 3; fd < 3+files; fd++ {
		unix.CloseOnExec(fd) // containers must not inherit them
	}
	if files < 2 {
		return errors.New("the socket and the network of the host are missing")
	}
	host := os.NewFile(4, "network of the host")
	if err := joinCgroup(args[1]); err != nil {
		return fmt.Errorf("join cgroup: %w", err)
	}
	// What the shim mounts stays in its own mount namespace; what the host mounts and unmounts later still arrives.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts slaves of the host's: %w", err)
	}
	if args[3] != "0" {
		if err := mountSharedMemory(args[3]); err != nil {
			return fmt.Errorf("mount shared memory: %w", err)
		}
	}
	if len(args) > 4 {
		if err := placeStorage(3+files-1, args[0]); err != nil {
			return fmt.Errorf("mount ephemeral storage: %w", err)
		}
	}
	f := os.NewFile(3, "listener")
	l, err := net.FileListener(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("listener: %w", err)
	}
	s := &shim{dir: args[0], host: host, containers: map[string]*container{}, secrets: map[string]*runtime.Secrets{}, tmpfs: map[string]bool{},
		held: map[string]*heldProcess{}}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go s.serve(c.(*net.UnixConn))
	}
}

func (s *shim) serve(c *net.UnixConn) {
	defer c.Close()
	req, files, err := receive(c)
	defer func() { closeAll(files) }()
	if err != nil {
		return
	}
	var res shimResponse
	switch req.Op {
	case "prepare":
		res = s.prepare(req.Container)
	case "hold":
		s.mu.Lock()
		s.ports, files = append(s.ports, files...), nil
		s.mu.Unlock()
	case "start":
		res = s.start(req.Container, req.Secrets)
	case "restart":
		res = s.restart(req.Container)
	case "exec":
		res = s.exec(c, req, files)
	case "signal":
		res = s.signal(req.Container, unix.Signal(req.Signal))
	case "wait":
		res = s.wait(req.Container)
	case "status":
		res = s.status()
	case "storage":
		res = s.storage()
	case "shutdown":
		s.shutdown()
		res.Version = shimVersion
		json.NewEncoder(c).Encode(res)
		os.Exit(0)
	default:
		res.Error = fmt.Sprintf("operation %q is unknown to protocol version %d", req.Op, shimVersion)
	}
	res.Version = shimVersion
	json.NewEncoder(c).Encode(res)
}

func (s *shim) folder(name string) string { return filepath.Join(s.dir, "containers", name) }

// start starts the container whose bundle.json lies in its folder, once.
func (s *shim) start(name string, secrets *runtime.Secrets) (res shimResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		res.Error = "the task is being removed"
		return res
	}
	if c := s.containers[name]; c != nil {
		res.Started = c.started
		return res
	}
	s.secrets[name] = secrets
	return s.run(name, 0)
}

// restart runs a container again that has ended. One that runs is left alone: the request came twice.
func (s *shim) restart(name string) (res shimResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[name]
	switch {
	case s.closing:
		res.Error = "the task is being removed"
		return res
	case c == nil:
		res.NotFound = true
		return res
	}
	select {
	case <-c.done:
	default:
		res.Started = c.started
		return res
	}
	<-c.gone // what the former run had mounted and the like
	return s.run(name, c.started.Run+1)
}

// run starts a container for the run-th time after the first. s.mu is held.
func (s *shim) run(name string, run int) (res shimResponse) {
	dir := s.folder(name)
	var b bundle
	if ok, err := readRecord(filepath.Join(dir, "bundle.json"), &b); err != nil || !ok {
		res.Error = fmt.Sprintf("bundle of container %s: %v", name, err)
		return res
	}
	if secrets := s.secrets[name]; secrets != nil {
		b.addSecrets(secrets)
	}
	var c *container
	err := errNotHeld
	if h := s.held[name]; h != nil {
		debug.SetGCPercent(-1) // until it settles again
		settleSoon()
		delete(s.held, name)
		if c, err = h.take(s, b.clone()); err != nil && !errors.Is(err, errRan) {
			fmt.Fprintf(os.Stderr, "shim: container %s is made anew: %v\n", name, err)
		}
	}
	if err != nil && !errors.Is(err, errRan) {
		c, err = s.startContainer(dir, name, &b, run)
	}
	if err != nil {
		exit := startFailure(err)
		exit.Run = run
		if err := writeRecord(filepath.Join(dir, "exit.json"), exit); err != nil {
			res.Error = err.Error()
		}
		res.Exit = &exit
		return res
	}
	s.containers[name] = c
	res.Started = c.started
	return res
}

func (s *shim) container(name string) *container {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.containers[name]
}

func (s *shim) signal(name string, sig unix.Signal) (res shimResponse) {
	c := s.container(name)
	if c == nil {
		res.NotFound = true
		return res
	}
	select {
	case <-c.done:
		return res
	default:
	}
	if err := c.process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		res.Error = err.Error()
	}
	return res
}

func (s *shim) wait(name string) (res shimResponse) {
	c := s.container(name)
	if c == nil {
		res.NotFound = true
		return res
	}
	<-c.done
	res.Exit = &c.exit
	return res
}

func (s *shim) status() (res shimResponse) {
	s.mu.Lock() // waits for a start in progress
	defer s.mu.Unlock()
	res.Containers = map[string]shimContainer{}
	for name, c := range s.containers {
		sc := shimContainer{Started: c.started}
		select {
		case <-c.done:
			sc.Exit = &c.exit
		default:
		}
		res.Containers[name] = sc
	}
	return res
}

// shutdown kills what runs and waits for its end.
func (s *shim) shutdown() {
	s.mu.Lock()
	s.closing = true
	running := s.containers
	for _, h := range s.held {
		h.discard()
	}
	clear(s.held)
	s.mu.Unlock()
	for _, c := range running {
		c.process.Signal(unix.SIGKILL)
	}
	for _, c := range running {
		<-c.done
	}
}
