package orchestrator

import (
	"cmp"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// Stop codes of ECS.
const (
	stopFailedToStart = "TaskFailedToStart"
	stopEssential     = "EssentialContainerExited"
	stopScheduler     = controlplane.StopScheduler
)

// Lifecycle is the steps of one task's life (docs/design/task-model.md), each within somebody's transaction.
type Lifecycle struct {
	routers routers
	clock   clock.Clock
	rand    io.Reader
}

// NewLifecycle makes one, with the routers that tasks are registered with, in order.
func NewLifecycle(clk clock.Clock, rand io.Reader, rs ...Router) *Lifecycle {
	return &Lifecycle{routers: rs, clock: clk, rand: rand}
}

// Stop asks a task to leave, in the way of everybody who wants one gone: a task with endpoints leaves the traffic first. It returns
// the task's new status; a task that is leaving already is left alone.
func (l *Lifecycle) Stop(tx *state.Tx, key state.Key, stopCode, reason string, planned bool) (*controlplane.TaskStatus, error) {
	t, ok := controlplane.Tasks.Get(tx, key)
	s, is := controlplane.TaskStatuses.Get(tx, key)
	if !ok || !is {
		return nil, fmt.Errorf("stop task: no task %s", key)
	}
	if !s.Live() || s.Desired > agentapi.TaskState_RUNNING {
		return s, nil
	}
	to := agentapi.TaskState_STOPPED
	if !l.routers.Clear(tx, t) {
		to = agentapi.TaskState_DEACTIVATING
		if err := l.routers.Withdraw(tx, t, planned); err != nil {
			return nil, fmt.Errorf("withdraw task %s: %w", t.Id, err)
		}
	}
	s, _ = s.AdvanceDesired(to, stopCode, reason, l.clock.Now())
	s, _ = s.AdvanceObserved(agentapi.TaskState_DEACTIVATING)
	controlplane.TaskStatuses.Put(tx, s)
	return s, nil
}

// Report takes in what the agent on node says of one task. What concerns no task of that node, or comes late, is nothing.
func (l *Lifecycle) Report(tx *state.Tx, node string, r *agentapi.TaskStatus) error {
	for t := range controlplane.TasksByID.Scan(tx, state.K(r.TaskId)) {
		key := controlplane.Tasks.Key(t)
		s, ok := controlplane.TaskStatuses.Get(tx, key)
		if !ok || s.Node != node {
			continue
		}
		next, changed := s.AdvanceReport(r, observed(s, r), l.clock.Now())
		if !changed {
			continue
		}
		resolveImages(tx, t, s.Report, r)
		if !next.Live() && next.StopCode == "" {
			next.StopCode = stopEssential // an agent that gives no reason: the task ended by itself
		}
		switch {
		case r.State > agentapi.TaskState_RUNNING:
			// It ends or has ended, perhaps by itself: nobody is there to drain.
			if err := l.routers.Remove(tx, t); err != nil {
				return fmt.Errorf("remove endpoints of task %s: %w", t.Id, err)
			}
		case r.State == agentapi.TaskState_RUNNING && next.Observed < agentapi.TaskState_RUNNING && next.Desired == agentapi.TaskState_RUNNING:
			var err error
			if next, err = l.register(tx, t, next); err != nil {
				return err
			}
		}
		controlplane.TaskStatuses.Put(tx, next)
	}
	return nil
}

// observed is where a report alone brings a task. While its agent still starts containers, of which some may wait for others for
// long, it is PENDING, as in ECS; once they run it is ACTIVATING until its routers know it.
func observed(s *controlplane.TaskStatus, r *agentapi.TaskStatus) agentapi.TaskState {
	switch r.State {
	case agentapi.TaskState_ACTIVATING:
		return agentapi.TaskState_PENDING
	case agentapi.TaskState_RUNNING:
		return agentapi.TaskState_ACTIVATING
	}
	return r.State
}

// register makes a task RUNNING: its endpoints are there in the same transaction. A router that refuses the task (its target
// group is gone) ends it, as ECS does.
func (l *Lifecycle) register(tx *state.Tx, t *controlplane.Task, s *controlplane.TaskStatus) (*controlplane.TaskStatus, error) {
	now := l.clock.Now()
	if err := l.routers.Register(tx, t, s); err != nil {
		refusal, ok := awserr.As(err)
		if !ok {
			return nil, fmt.Errorf("register task %s: %w", t.Id, err)
		}
		s, _ = s.AdvanceDesired(agentapi.TaskState_STOPPED, stopFailedToStart, "Task failed to register with its targets: "+refusal.Message, now)
		return s, l.routers.Remove(tx, t)
	}
	s, _ = s.AdvanceObserved(agentapi.TaskState_RUNNING)
	if service, ok := controlplane.Services.Get(tx, t.Scope().Key(t.Cluster, t.Service)); ok {
		for _, group := range targetGroups(service) {
			controlplane.AppendServiceEvent(tx, service, fmt.Sprintf("(service %s) registered 1 targets in (target-group %s)", service.Name, group), now, l.rand)
		}
	}
	return s, nil
}

// Lost ends a task whose node is lost: nobody is there to end it. It says what ECS says of an instance that is gone.
func (l *Lifecycle) Lost(tx *state.Tx, key state.Key) error {
	reason := "Host lost"
	if t, ok := controlplane.Tasks.Get(tx, key); ok && t.LaunchType != string(types.LaunchTypeFargate) {
		s, _ := controlplane.TaskStatuses.Get(tx, key)
		reason = fmt.Sprintf("Host EC2 (instance %s) terminated.", s.GetNode())
	}
	return l.end(tx, key, controlplane.StopTermination, reason)
}

// deregistered ends a task of a container instance that was deregistered by force.
func (l *Lifecycle) deregistered(tx *state.Tx, key state.Key) error {
	s, ok := controlplane.TaskStatuses.Get(tx, key)
	if !ok {
		return nil
	}
	code := stopEssential
	switch {
	case s.Service != "":
		code = stopScheduler
	case s.Observed < agentapi.TaskState_RUNNING:
		code = stopFailedToStart
	}
	return l.end(tx, key, code, "Container instance deregistration forced by user")
}

// end ends a task without asking its agent, which finds it assigned no more.
func (l *Lifecycle) end(tx *state.Tx, key state.Key, code, reason string) error {
	t, ok := controlplane.Tasks.Get(tx, key)
	s, is := controlplane.TaskStatuses.Get(tx, key)
	if !ok || !is {
		return nil
	}
	next, changed := s.AdvanceLost(code, cmp.Or(s.StoppedReason, reason), l.clock.Now())
	if !changed {
		return nil
	}
	controlplane.TaskStatuses.Put(tx, next)
	if err := l.routers.Remove(tx, t); err != nil {
		return fmt.Errorf("remove endpoints of task %s: %w", t.Id, err)
	}
	return nil
}

// targetGroups are the ARNs of the service's target groups.
func targetGroups(s *controlplane.Service) []string {
	var arns []string
	for _, lb := range controlplane.DecodeShape[[]types.LoadBalancer](s.LoadBalancersJson) {
		if lb.TargetGroupArn != nil {
			arns = append(arns, aws.ToString(lb.TargetGroupArn))
		}
	}
	return arns
}
