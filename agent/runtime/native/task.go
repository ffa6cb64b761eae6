//go:build linux && cgo

package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/agent/runtime"
)

func lockThreadForever() { goruntime.LockOSThread() }

// task is what this process knows of a task; everything that must outlive it is in the folder.
type task struct {
	id string
	// box is what the sandbox is called: its folder, cgroup, link and what else there is in the kernel. It is the task's id, unless the
	// task has taken over a sandbox that was made ahead (warm.go).
	box string
	dir string

	mu      sync.Mutex // held across Create, Start, Stop's bookkeeping and Remove
	record  taskRecord
	task    runtime.Task
	sandbox *sandboxRecord
	secrets map[string]runtime.Secrets // by container; until it has been started, and nowhere else
	shape   *shape                     // of the sandboxes that are made ahead for tasks like it; nil: none are
	shim    int                        // its process id, where this process has started it
	removed bool
}

// task finds a task, or ErrNotFound.
func (d *Driver) task(id string) (*task, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tasks[id]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("task %s: %w", id, runtime.ErrNotFound)
}

func (d *Driver) taskFolder(box string) string { return filepath.Join(d.cfg.Dir, "tasks", box) }

// newTask is a task whose sandbox is called box.
func (d *Driver) newTask(id, box string) *task {
	return &task{id: id, box: box, dir: d.taskFolder(box)}
}

func (t *task) container(name string) string { return filepath.Join(t.dir, "containers", name) }

// socketFolder gives the task's folder a short name: a socket's path has at most 107 bytes.
func (t *task) socketFolder() (path string, closeFolder func(), err error) {
	fd, err := unix.Open(t.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, fmt.Errorf("open %s: %w", t.dir, err)
	}
	return "/proc/self/fd/" + strconv.Itoa(fd), func() { unix.Close(fd) }, nil
}

const socketName = "shim.sock"

// startShim starts the task's shim in namespaces of its own, those that its containers have in common. The socket listens before the shim runs, so that whoever finds the
// socket refused knows that there is, and will be, no shim.
func (d *Driver) startShim(t *task, reserved []*os.File, storage *os.File) (pid int, err error) {
	folder, closeFolder, err := t.socketFolder()
	if err != nil {
		return 0, err
	}
	defer closeFolder()
	os.Remove(filepath.Join(t.dir, socketName))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: folder + "/" + socketName, Net: "unix"})
	if err != nil {
		return 0, fmt.Errorf("shim's socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	socket, err := l.File()
	if err != nil {
		return 0, err
	}
	defer socket.Close()
	messages, err := os.OpenFile(filepath.Join(t.dir, "shim.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer messages.Close()

	// Log drivers send from the agent's own network. The shim could not look for it: the agent may be gone by then.
	host, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return 0, fmt.Errorf("network of the host: %w", err)
	}
	defer host.Close()

	c := exec.Command(d.executable())
	c.ExtraFiles = append([]*os.File{socket, host}, reserved...)
	if storage != nil {
		c.ExtraFiles = append(c.ExtraFiles, storage)
	}
	c.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOMAXPROCS=2", "GOGC=off"} // nothing of the agent's
	c.Dir = "/"
	c.Stderr = messages
	flags, shared := unix.CLONE_NEWNS, 0
	if t.task.Spec.NetworkMode != "host" {
		flags |= unix.CLONE_NEWNET
	}
	if t.task.Spec.IpcMode == "task" {
		flags |= unix.CLONE_NEWIPC
		shared = int(taskSharedMemory(t.task.Spec))
	}
	c.Args = []string{shimName, t.dir, d.cgroupParent() + "/shims", strconv.Itoa(len(c.ExtraFiles)), strconv.Itoa(shared)}
	if storage != nil {
		c.Args = append(c.Args, "storage")
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: uintptr(flags)}
	if err := c.Start(); err != nil {
		return 0, fmt.Errorf("start shim: %w", err)
	}
	go c.Wait() // reaps it
	t.shim = c.Process.Pid
	return c.Process.Pid, nil
}

var errNoShim = errors.New("the task's shim is gone")

// call asks the task's shim. errNoShim: it is not there, or died over the question. sent, unless it is nil, is called once the shim
// has been given the files.
func (t *task) call(ctx context.Context, req shimRequest, sent func(), files ...*os.File) (shimResponse, error) {
	var res shimResponse
	c, err := t.dial(ctx)
	if err != nil {
		return res, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	req.Version = shimVersion
	err = send(c, req, files)
	if sent != nil {
		sent()
	}
	if err == nil {
		err = json.NewDecoder(c).Decode(&res)
	}
	if err != nil {
		if ctx.Err() != nil {
			return res, ctx.Err()
		}
		return res, errors.Join(errNoShim, err)
	}
	if res.Error != "" {
		return res, fmt.Errorf("shim of task %s: %s", t.id, res.Error)
	}
	return res, nil
}

func (t *task) dial(ctx context.Context) (*net.UnixConn, error) {
	folder, closeFolder, err := t.socketFolder()
	if err != nil {
		return nil, errors.Join(errNoShim, err)
	}
	defer closeFolder()
	c, err := new(net.Dialer).DialContext(ctx, "unix", folder+"/"+socketName)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, errors.Join(errNoShim, err)
	}
	return c.(*net.UnixConn), nil
}

// endShim lets the shim kill its containers and itself. Its death closes the connection.
func (t *task) endShim(ctx context.Context) error {
	c, err := t.dial(ctx)
	if errors.Is(err, errNoShim) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	if err := json.NewEncoder(c).Encode(shimRequest{Version: shimVersion, Op: "shutdown"}); err != nil {
		return nil // died meanwhile
	}
	c.SetReadDeadline(time.Now().Add(15 * time.Second))
	b := make([]byte, 512)
	for {
		if _, err := c.Read(b); err != nil {
			if os.IsTimeout(err) {
				return fmt.Errorf("shim of task %s does not end", t.id)
			}
			return nil
		}
	}
}
