package agent

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// ECS's stop codes that an agent gives; the others are the control plane's.
const (
	codeFailedToStart   = "TaskFailedToStart"
	codeEssentialExited = "EssentialContainerExited"
	codeTermination     = "TerminationNotice"
)

// worker takes one task through its life. run is its only goroutine; the rest is called from outside.
type worker struct {
	a  *Agent
	id string
	// wanted holds a token whenever assignment or forgotten has changed.
	wanted chan struct{}
	// moved holds a token whenever status has changed, for bringUp.
	moved chan struct{}
	// answers came with its assignment; none: it is an earlier process's.
	answers answers
	// role has the credentials that its containers get.
	role roleCredentials
	ages clock.Ages[string] // of its running containers, by name
	// watching are the goroutines that follow started containers; they end with live's context.
	watching sync.WaitGroup

	// reporting keeps whole reports in order, on disk and in the outbox; it is the one lock held across a (small) write.
	reporting sync.Mutex

	mu         sync.Mutex
	assignment *agentapi.Assignment // immutable; replaced as a whole
	status     *agentapi.TaskStatus // immutable; replaced as a whole
	forgotten  bool                 // the control plane assigns the task no more
}

func newWorker(a *Agent, as *agentapi.Assignment, st *agentapi.TaskStatus) *worker {
	return &worker{a: a, id: as.TaskId, assignment: as, status: st, wanted: make(chan struct{}, 1), moved: make(chan struct{}, 1)}
}

// update takes a newer word of the control plane. Words of an older epoch are dropped; within an epoch, stopped is final.
func (w *worker) update(as *agentapi.Assignment) error {
	w.a.takeAnswers(as) // for a task that is to be started they came before
	w.reporting.Lock()
	defer w.reporting.Unlock()
	w.mu.Lock()
	old := w.assignment
	stale := as.Epoch < old.Epoch || as.Epoch == old.Epoch && old.Desired == agentapi.DesiredState_DESIRED_STOPPED
	st := w.status
	if !stale {
		w.assignment = as
		w.forgotten = false
	}
	w.mu.Unlock()
	if stale {
		return nil
	}
	if err := w.a.store.save(as, st); err != nil {
		return fmt.Errorf("keep assignment %s: %w", w.id, err)
	}
	wake(w.wanted)
	return nil
}

// forget says that the task is assigned no more: what is left of it goes.
func (w *worker) forget() {
	w.mu.Lock()
	w.forgotten = true
	w.mu.Unlock()
	wake(w.wanted)
}

func wake(token chan struct{}) {
	select {
	case token <- struct{}{}:
	default:
	}
}

func (w *worker) snapshot() *agentapi.TaskStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

func (w *worker) current() (as *agentapi.Assignment, forgotten bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.assignment, w.forgotten
}

// endWanted says whether the task is to end, and the reason given.
func (w *worker) endWanted() (reason string, yes bool) {
	as, forgotten := w.current()
	return as.StopReason, forgotten || as.Desired == agentapi.DesiredState_DESIRED_STOPPED
}

// report changes the status, keeps it and sends it. A state is never taken back.
func (w *worker) report(change func(*agentapi.TaskStatus)) {
	w.reporting.Lock()
	defer w.reporting.Unlock()
	as, st := w.change(change)
	if err := w.a.store.note(as, st); err != nil {
		w.a.log.Error("keep the status of a task", "task", w.id, "error", err)
	}
	w.a.out.task(st, !passing(as, st))
	wake(w.moved)
}

// change changes the status in memory alone.
func (w *worker) change(change func(*agentapi.TaskStatus)) (*agentapi.Assignment, *agentapi.TaskStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := proto.CloneOf(w.status)
	change(st)
	st.State = max(st.State, w.status.State)
	sumHealth(w.assignment.Spec, st)
	w.status = st
	return w.assignment, st
}

// passing says whether a status is only told if nothing follows it at once: a step on the way to RUNNING. The address of a task with security groups is
// told at once, for the hosts of others let its first packets in by it.
func passing(as *agentapi.Assignment, st *agentapi.TaskStatus) bool {
	return st.State < agentapi.TaskState_RUNNING && (st.Address == "" || len(as.Spec.GetSecurityGroups()) == 0)
}

func (w *worker) now() *timestamppb.Timestamp { return timestamppb.New(w.a.cfg.Clock.Now()) }

// run works until the task is gone and forgotten, or ctx ends: then the task is left as it is.
func (w *worker) run(ctx context.Context, found *runtime.Recovered) {
	if w.snapshot().State != agentapi.TaskState_STOPPED {
		if w.live(ctx, found); ctx.Err() != nil {
			return
		}
	}
	for {
		if _, forgotten := w.current(); forgotten {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wanted:
		}
	}
	if err := w.a.store.remove(w.id, w.a.cfg.Clock.Now()); err != nil {
		w.a.log.Error("forget task", "task", w.id, "error", err)
	}
	w.a.remove(w.id)
}

// live is the task's life from the first pull to STOPPED.
func (w *worker) live(ctx context.Context, found *runtime.Recovered) {
	if w.snapshot().State >= agentapi.TaskState_STOPPING {
		w.takeDown(ctx, nil) // an earlier process had begun to
		return
	}
	up, cancel := context.WithCancel(ctx)
	defer cancel()
	exits := make(chan exit, len(w.assignment.Spec.GetContainers()))
	brought := make(chan *failure, 1)
	var bringing sync.WaitGroup
	bringing.Go(func() { brought <- w.bringUp(up, found, exits) })

	var fail *failure
	for _, ended := w.endWanted(); fail == nil && !ended && ctx.Err() == nil; _, ended = w.endWanted() {
		select {
		case <-ctx.Done():
		case <-w.wanted:
		case fail = <-brought:
		case e := <-exits:
			fail = w.exited(ctx, e)
		}
	}
	cancel()
	bringing.Wait()
	w.watching.Wait()
	if ctx.Err() == nil {
		w.takeDown(ctx, fail)
	}
}

// failure is why a task ends by itself.
type failure struct{ code, reason string }

type exit struct {
	container string
	exit      runtime.Exit
}

// containerStatus is the entry of a container in st, made when there is none.
func containerStatus(st *agentapi.TaskStatus, name string) *agentapi.ContainerStatus {
	for _, c := range st.Containers {
		if c.Name == name {
			return c
		}
	}
	c := &agentapi.ContainerStatus{Name: name, State: agentapi.ContainerState_CONTAINER_PENDING}
	st.Containers = append(st.Containers, c)
	return c
}
