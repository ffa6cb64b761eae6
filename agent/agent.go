// Package agent runs the tasks that the control plane assigns to one host, and feeds the host's data planes (proxy, health
// checker, DNS server) with their sets.
//
// It holds one session with any server of the control plane (session.go) and one worker a task (task.go), each a goroutine
// that drives runtime.Driver through the task's life. What it must not forget is on disk before it acts: the assignment
// before anything of the task is made, the end before it is reported. Losing the session changes nothing for tasks.
//
// Invariants: a task is worked on by one goroutine; a reported state never goes backwards; a task is never stopped because
// an assignment is absent from a set of another incarnation or of an older revision.
//
// Lock order: Agent.mu, worker.reporting, worker.mu; outbox.mu, shipments.mu and commands.mu are leaves. No lock is held across a call of the driver or of the
// stream.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/volume/plugin"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// Config is all an agent is told. Driver, Client, Dir and NodeID are required.
type Config struct {
	Dir        string // DIR/agent of the data directory; tasks and the session's position are kept below it
	Driver     runtime.Driver
	Client     agentapi.DispatcherClient
	NodeID     string
	NodeName   string
	Cluster    string // joined as a container instance; empty: the server's rule
	Version    string
	Address    string // IP at which host ports answer
	Resources  *agentapi.NodeResources
	Attributes map[string]string
	Sinks      []Sink
	Policy     Policy
	Upkeep     Upkeep
	GPUs       []GPU
	// Volumes mounts file systems that volumes name and the runtime knows nothing of; nil: nothing does.
	Volumes *plugin.Plugin
	// DNSServers and DNSSearch go to every task's resolv.conf; empty: the host's.
	DNSServers, DNSSearch []string
	// Environment is added to every container, below its own.
	Environment map[string]string
	// Network is what the host says of the addresses of its tasks; nil: they have none of the cluster's network.
	Network func() (*agentapi.HostNetwork, error)
	// Papers are the authorities of this host's certificate, and a channel that is closed when they are others; nil: it has none. Renew has it renewed.
	Papers func() (*agentapi.Papers, <-chan struct{})
	Renew  func(*agentapi.Renew)
	// Metadata is where tasks ask about themselves.
	Metadata MetadataURIs
	// LogRetention is how long the logs of a task stay on this host after its end; 0: 30 days.
	LogRetention time.Duration
	Clock        clock.Clock
	Logger       *slog.Logger
}

// Sink is a data plane that lives on sets.
type Sink interface {
	Kinds() []agentapi.Kind
	// Apply makes u effective. It returns once nothing new follows the older set: the return is acknowledged to the server.
	// Calls for one kind come one at a time and in order.
	Apply(ctx context.Context, u *agentapi.Update) error
}

// Agent is one host's part of the platform.
type Agent struct {
	cfg    Config
	log    *slog.Logger
	out    *outbox
	store  taskStore
	owners owners

	connected atomic.Bool // a session stands
	greeted   bool        // this process has been welcomed before; the sessions' own

	mu      sync.Mutex
	workers map[string]*worker // by task id
	pos     position
	health  *agentapi.HostHealth
	wg      sync.WaitGroup

	shipments shipments
	roles     roles
	commands  commands
}

// New checks cfg.
func New(cfg Config) (*Agent, error) {
	switch {
	case cfg.Driver == nil:
		return nil, errors.New("agent: no runtime driver")
	case cfg.Client == nil:
		return nil, errors.New("agent: no control plane to connect to")
	case cfg.NodeID == "":
		return nil, errors.New("agent: no node id")
	case cfg.Dir == "":
		return nil, errors.New("agent: no data folder")
	}
	if cfg.LogRetention == 0 {
		cfg.LogRetention = 30 * 24 * time.Hour
	}
	cfg.Upkeep = cfg.Upkeep.withDefaults(cfg.Dir)
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	a := &Agent{
		cfg: cfg, log: cfg.Logger.With("node", cfg.NodeID), out: newOutbox(),
		store: taskStore{cfg.Dir}, workers: map[string]*worker{}, health: &agentapi.HostHealth{}, shipments: newShipments(), commands: newCommands(),
	}
	return a, nil
}

// Run recovers the tasks of an earlier process and works until ctx ends. Tasks go on running afterwards.
func (a *Agent) Run(ctx context.Context) error {
	if lacks := a.cfg.Driver.Check(ctx); len(lacks) > 0 {
		return &CheckError{Driver: a.cfg.Driver.Name(), Lacks: lacks}
	}
	if err := a.recover(ctx); err != nil {
		return fmt.Errorf("recover tasks: %w", err)
	}
	a.wg.Go(func() { a.expireLogs(ctx) })
	a.wg.Go(func() { a.tendHost(ctx) })
	a.wg.Go(func() { a.shipLoop(ctx) })
	if w, ok := a.cfg.Driver.(runtime.Warming); ok {
		a.wg.Go(func() {
			if err := w.KeepWarm(ctx); err != nil {
				a.log.Error("keep sandboxes ready", "error", err)
			}
		})
	}
	err := a.connectLoop(ctx)
	a.wg.Wait()
	return err
}

// CheckError says what a host lacks to run tasks.
type CheckError struct {
	Driver string
	Lacks  []string
}

func (e *CheckError) Error() string {
	s := "this host cannot run tasks with the " + e.Driver + " driver:"
	for _, l := range e.Lacks {
		s += "\n  - " + l
	}
	return s
}

// recover starts a worker for every task that an earlier process left, and removes what has no assignment any more.
func (a *Agent) recover(ctx context.Context) error {
	pos, err := a.store.loadPosition()
	if err != nil {
		return err
	}
	a.pos = pos
	kept, err := a.store.load()
	if err != nil {
		return err
	}
	found, err := a.cfg.Driver.Recover(ctx)
	if err != nil {
		return err
	}
	adopted := map[string]*runtime.Recovered{}
	for i := range found {
		f := &found[i]
		if _, ok := kept[f.Task.ID]; ok {
			adopted[f.Task.ID] = f
			continue
		}
		// The assignment's file goes last, so a task without one was being removed.
		a.log.Info("remove a task that is assigned no more", "task", f.Task.ID)
		if err := a.cfg.Driver.Remove(ctx, f.Task.ID); err != nil {
			a.log.Error("remove task", "task", f.Task.ID, "error", err)
		}
	}
	key, err := a.store.roleKey()
	if err != nil {
		return fmt.Errorf("key of tasks' ids: %w", err)
	}
	a.roles.setKey(key)
	a.sweepVolumes(ctx, kept)
	for id, k := range kept {
		a.startWorker(ctx, newWorker(a, k.assignment, k.status), adopted[id])
	}
	return nil
}

func (a *Agent) startWorker(ctx context.Context, w *worker, found *runtime.Recovered) {
	a.mu.Lock()
	a.workers[w.id] = w
	a.mu.Unlock()
	a.wg.Add(1)
	go func() {
		defer a.wg.Done()
		w.run(ctx, found)
	}()
}

// applyAssignments makes u effective; the session calls it.
func (a *Agent) applyAssignments(ctx context.Context, u *agentapi.Update, sameIncarnation bool) error {
	seen := map[string]bool{}
	for _, r := range u.Resources {
		as := r.GetAssignment()
		if as == nil || as.TaskId == "" {
			return fmt.Errorf("resource %q of the assignments carries none", r.Name)
		}
		seen[as.TaskId] = true
		if err := a.assign(ctx, as); err != nil {
			return err
		}
	}
	gone := u.Removed
	if u.Full && sameIncarnation {
		for _, w := range a.list() {
			if !seen[w.id] {
				gone = append(gone, w.id)
			}
		}
	}
	for _, id := range gone {
		if w := a.worker(id); w != nil {
			w.forget()
		}
	}
	return nil
}

func (a *Agent) assign(ctx context.Context, as *agentapi.Assignment) error {
	if w := a.worker(as.TaskId); w != nil {
		return w.update(as)
	}
	st := &agentapi.TaskStatus{TaskId: as.TaskId, Epoch: as.Epoch, State: agentapi.TaskState_PENDING, Connected: timestamppb.New(a.cfg.Clock.Now())}
	for _, c := range as.Spec.GetContainers() {
		cs := containerStatus(st, c.Name) // reported in the order of the task definition
		if c.HealthCheck != nil {
			cs.Health = agentapi.Health_HEALTH_UNKNOWN
		}
	}
	sumHealth(as.Spec, st)
	answers := a.takeAnswers(as)
	if err := a.store.save(as, st); err != nil {
		return fmt.Errorf("keep assignment %s: %w", as.TaskId, err)
	}
	w := newWorker(a, as, st)
	w.answers = answers
	a.startWorker(ctx, w, nil)
	return nil
}

func (a *Agent) worker(id string) *worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.workers[id]
}

func (a *Agent) list() []*worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	ws := make([]*worker, 0, len(a.workers))
	for _, w := range a.workers {
		ws = append(ws, w)
	}
	return ws
}

// remove ends a worker's membership once its task is gone and forgotten.
func (a *Agent) remove(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.workers, id)
}

// statuses is what every task of this host is at now.
func (a *Agent) statuses() []*agentapi.TaskStatus {
	var out []*agentapi.TaskStatus
	for _, w := range a.list() {
		out = append(out, w.snapshot())
	}
	return out
}

// ReportHealth queues a health transition. The newest one of an endpoint is what counts; it is repeated in every new session.
func (a *Agent) ReportHealth(t *agentapi.HealthTransition) { a.out.health(t) }

// ReportDrained queues the word that no request is in flight to a draining endpoint.
func (a *Agent) ReportDrained(d *agentapi.Drained) { a.out.drain(d) }

// Connected says whether a session with the control plane stands.
func (a *Agent) Connected() bool { return a.connected.Load() }

// Logs reads what a container of a task wrote, also after the task has stopped.
func (a *Agent) Logs(ctx context.Context, taskID, container string, opt runtime.LogOptions) (runtime.LogReader, error) {
	return a.cfg.Driver.Logs(ctx, taskID, container, opt)
}

// StopAll ends every task of this host within grace each, for a platform that is not to leave anything behind. It is
// called after Run has returned; assignments stay on disk unless their task had ended before.
func (a *Agent) StopAll(ctx context.Context, grace time.Duration) {
	var wg sync.WaitGroup
	for _, w := range a.list() {
		wg.Add(1)
		go func() {
			defer wg.Done()
			w.halt(ctx, grace)
		}()
	}
	wg.Wait()
}
