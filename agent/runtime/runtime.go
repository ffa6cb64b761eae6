// Package runtime is how an agent runs tasks: the Driver interface that native, docker, ocicli and fake implement. The
// suite in runtimetest is the contract; this comment is its summary.
//
// A driver works on whole tasks: a task is a sandbox (one network namespace, addresses, volumes) and its containers. It
// knows no control plane and decides nothing: what to start, when to restart and when to stop is the worker's business.
// Calls for different tasks run in parallel; calls for one task come one at a time, except Wait, Exec, Stats and Logs, and Start and
// Restart of different containers.
// Every call is idempotent: repeated after a crash it completes what was begun. A driver keeps what it needs on disk
// below its folder, so that a new process, Recover called first, continues with the tasks of the old one: they run on
// while no agent is there.
package runtime

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// ErrNotFound says that the driver has no such task or container.
var ErrNotFound = errors.New("no such task or container")

// Driver runs tasks on this host.
type Driver interface {
	// Name is native, docker, ocicli or fake.
	Name() string
	// Check says precisely what this host lacks, one line each ("cgroup controller memory is not mounted; …what to do").
	// Empty: the driver can run tasks.
	Check(ctx context.Context) []string
	// Gateway is the address by which bridged tasks reach this host, for name servers and load balancers to listen on; the
	// bridge is brought up if need be. Invalid: there is none.
	Gateway(ctx context.Context) (netip.Addr, error)
	// LinkLocal listens where programs on ECS look for their host's services, 169.254.170.2 port 80; the bridged tasks of this driver
	// reach it, and those of no other instance. Nil: this driver cannot have that address to itself; then the gateway has to do.
	LinkLocal(ctx context.Context) (net.Listener, error)
	// Pull makes an image ready and says what it is. Errors are *PullError.
	Pull(ctx context.Context, req PullRequest) (Image, error)
	// Create makes the task's sandbox: namespace, address, volumes. Images must have been pulled. What a crash left half-made
	// is made anew; a sandbox that is whole is answered as it is.
	Create(ctx context.Context, task Task) (Sandbox, error)
	// Confide says what containers of a created task are given beside their specs. It comes before the Start of a container for which there
	// is something, in a new process again. The driver writes it to no disk: a container keeps its files on a tmpfs, its environment in
	// memory, over restarts as well. (An engine that the driver stands on may have records of its own: docker's keeps environments.)
	Confide(ctx context.Context, taskID string, secrets map[string]Secrets) error
	// Start starts one container of a created task and returns once its process runs. When it cannot run, the error is a
	// *StartError and Wait afterwards answers an Exit with the same reason. A container is started once in its life: a
	// repeated call answers what the first one did, also after the container has ended.
	Start(ctx context.Context, taskID, container string) (Started, error)
	// Restart starts a container again that has ended; its file system is as it left it. last is the start that ended: when
	// the container has been started since, that later start is answered. Errors are those of Start, and Wait answers for
	// the newest start.
	Restart(ctx context.Context, taskID, container string, last Started) (Started, error)
	// Exec runs one more command in a running container and returns its exit code: 126 or 127, with the reason written, when
	// it cannot be started. Once ctx is done, the command and its children of the same process group are killed and the
	// error is ctx's. ErrNotFound: the container does not run. Safe to call from several goroutines and beside other calls.
	Exec(ctx context.Context, taskID, container string, c Command) (code int, err error)
	// Stop sends the stop signal, waits for the timeout, then kills. It returns once the container has ended. A container
	// that was never started, or has ended, is not an error.
	Stop(ctx context.Context, taskID, container string, timeout time.Duration) error
	// Wait blocks until the container has ended and tells how. Safe to call from several goroutines, also afterwards.
	// ErrNotFound: the container was never started, or its task was removed.
	Wait(ctx context.Context, taskID, container string) (Exit, error)
	// Remove removes everything of the task but its logs: processes (killed), mounts, namespace, address, cgroup, writable
	// layers. A task that is not there is not an error.
	Remove(ctx context.Context, taskID string) error
	// Recover lists the tasks found on disk, running or ended, re-adopting their processes.
	Recover(ctx context.Context) ([]Recovered, error)
	// Logs reads what a container wrote. The reader of a follow ends when the container has ended and everything was
	// read, or ctx is done. Logs stay readable after Remove until RemoveLogs.
	Logs(ctx context.Context, taskID, container string, opt LogOptions) (LogReader, error)
	// Stats is what a running container uses now. ErrNotFound: it does not run.
	Stats(ctx context.Context, taskID, container string) (Stats, error)
	// RemoveLogs deletes the logs of a removed task.
	RemoveLogs(ctx context.Context, taskID string) error
	// Close releases what the driver holds in this process. Tasks go on running. With everything, it removes all tasks and
	// every kernel object that the driver made (bridge, nftables table, cgroup parents, mounts).
	Close(ctx context.Context, everything bool) error
}

// PullRequest names an image and how to get it.
type PullRequest struct {
	Image          string                  // as in the task definition
	User, Password string                  // empty: anonymous
	Progress       func(done, total int64) // bytes; may be nil
}

// PullError is a failed pull with ECS's classification.
type PullError struct {
	// Reason reads like ECS's: `CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref …`.
	Reason string
	// Retryable says that trying again may help (network, 5xx); false for not found and denied.
	Retryable bool
	Err       error
}

func (e *PullError) Error() string { return e.Reason }
func (e *PullError) Unwrap() error { return e.Err }

// StartError says why a container's process could not be started.
type StartError struct {
	// Reason reads like ECS's: `CannotStartContainerError: exec: "nope": executable file not found in $PATH`.
	Reason string
	Err    error
}

func (e *StartError) Error() string { return e.Reason }
func (e *StartError) Unwrap() error { return e.Err }

// Image is a pulled image.
type Image struct {
	Digest       string   // of the manifest that was asked for, "sha256:…"
	StopSignal   string   // "SIGTERM" when the image names none
	ExposedPorts []string // "3000/tcp"
}

// Task is what Create needs; Spec's containers carry everything Start needs.
type Task struct {
	ID   string // 32 hex digits
	Spec *agentapi.TaskSpec
	// DNS servers and search domains written to the containers' resolv.conf; empty: the host's.
	DNSServers, DNSSearch []string
	ExtraHosts            []string // "name:address" for /etc/hosts of every container
	// Environment is added to every container, below the container's own.
	Environment map[string]string
}

// Secrets are what one container is given beside its spec.
type Secrets struct {
	Environment map[string]string // above the spec's
	// Files are in the folder that the spec names (secret_files), which is read-only; each has mode 0400 and is the container's user's, as the
	// folder is.
	Files      map[string][]byte
	LogOptions map[string]string // beside those of the spec
}

// Log is the container's log configuration with the options that are secret; nil: it has none.
func (s Secrets) Log(c *agentapi.ContainerSpec) *agentapi.LogConfiguration {
	l := c.GetLog()
	if l == nil || len(s.LogOptions) == 0 {
		return l
	}
	all := map[string]string{}
	maps.Copy(all, l.Options)
	maps.Copy(all, s.LogOptions)
	return &agentapi.LogConfiguration{Driver: l.Driver, Options: all}
}

// Sandbox is a created task's place in the network.
type Sandbox struct {
	Address string // the task's own IP; empty with network mode host or none
	IPv6    string // the one of IPv6 beside it; empty: there is none
	Gateway string // the bridge's IP: where the agent's link-local services answer
	MAC     string // of the task's own network interface; empty: not known, or there is none
	// Ports per container, with host ports chosen where the spec said 0. They answer once the container listens.
	Ports map[string][]*agentapi.PortBinding
}

// Started is a running container.
type Started struct {
	RuntimeID string // as the runtime names it
	PID       int    // in the host's namespace; 0 where there is none
	At        time.Time
}

// Command runs in a container beside its own program: as the same user, in the same directory, with the same environment and
// within the same limits.
type Command struct {
	Args []string
	// Input is what it reads; nil: nothing. It may still be in a Read when Exec returns, until whoever owns it ends it. With a
	// terminal its end is not the command's: that is a character (Ctrl-D).
	Input  io.Reader
	Output io.Writer // takes what it writes, stdout and, without Errors, stderr as they come; nil: nobody
	Errors io.Writer // takes its stderr; of no use with a terminal
	// Terminal gives it one, which is its session's; nil: it gets pipes.
	Terminal *Terminal
	// Root runs it as root of the container, whoever its program runs as.
	Root        bool
	Environment []string // "NAME=value", above the program's
}

// Terminal is a command's controlling terminal.
type Terminal struct {
	Size
	Resize <-chan Size // until it is closed, or the command has ended; nil: its size stays
}

// Size of a terminal in characters; zero is unknown.
type Size struct{ Columns, Rows uint16 }

// Exit is how a container ended.
type Exit struct {
	Code   int    // 128+signal when killed by a signal
	Signal string // "SIGKILL"; empty for a normal exit
	OOM    bool   // the kernel killed a process of this container for memory (from the cgroup's counter)
	Reason string // ECS's wording for what is not the program's doing: "OutOfMemoryError: Container killed due to memory usage", "CannotStartContainerError: …"
	At     time.Time
}

// Recovered is a task a former process left.
type Recovered struct {
	Task       Task
	Sandbox    Sandbox
	Containers map[string]RecoveredContainer // those that were started
}

// RecoveredContainer is running unless Exit is set.
type RecoveredContainer struct {
	Started Started
	Exit    *Exit
}

// LogOptions selects lines.
type LogOptions struct {
	Follow bool
	Tail   int       // last n lines; 0: all
	Since  time.Time // zero: from the start
}

// LogReader yields lines in order until io.EOF.
type LogReader interface {
	Next() (LogLine, error)
	io.Closer
}

// LogLine is one line a container wrote.
type LogLine struct {
	At      time.Time // later than the line's before, so far as the driver makes it
	Stderr  bool
	Text    string // without the newline; a line over 16 KiB arrives in parts
	Partial bool   // more of the same line follows
}
