package controlplane

import (
	"cmp"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// The Advance methods are the only way a task status changes. Each returns a changed copy and true, or the receiver and
// false when the change would not be a step forward: a late or repeated message is not an error, it is nothing.
// They keep the invariants of docs/design/task-model.md that concern one task.

// Live says that the task has not observed STOPPED: it still takes, or will take, part of a node.
func (s *TaskStatus) Live() bool { return s.Observed != agentapi.TaskState_STOPPED }

// Unplaced says that the scheduler has to find a node for the task.
func (s *TaskStatus) Unplaced() bool {
	return s.Node == "" && s.Live() && s.Desired <= agentapi.TaskState_RUNNING
}

// AdvanceDesired asks for the task to leave: to is DEACTIVATING or STOPPED. The stop code and reason of the first who
// asked stay. A task that has no node ends at once: no agent knows of it.
func (s *TaskStatus) AdvanceDesired(to agentapi.TaskState, stopCode, reason string, now time.Time) (*TaskStatus, bool) {
	if !s.Live() || to <= s.Desired {
		return s, false
	}
	n := s.next()
	n.Desired = to
	n.because(stopCode, reason, now)
	if n.Node == "" {
		n.stop(now)
	}
	return n, true
}

// AdvancePlaced gives the task its node, and those of its GPUs that it has to itself, once and for ever.
func (s *TaskStatus) AdvancePlaced(node string, gpus ...string) (*TaskStatus, bool) {
	if node == "" || !s.Unplaced() {
		return s, false
	}
	n := s.next()
	n.Node, n.Gpus = node, gpus
	n.Epoch = 1
	n.PlacementFailure = ""
	n.Observed = max(n.Observed, agentapi.TaskState_PENDING)
	return n, true
}

// AdvancePlacementFailure remembers why the task is still without a node.
func (s *TaskStatus) AdvancePlacementFailure(why string) (*TaskStatus, bool) {
	if !s.Unplaced() || s.PlacementFailure == why {
		return s, false
	}
	n := s.next()
	n.PlacementFailure = why
	return n, true
}

// AdvanceReport takes in what the agent reports. Where observed stands may differ from what the agent says: RUNNING
// containers make an ACTIVATING task until its routers know it; so the caller passes observed. The status has r from then on. Reports of an older epoch, from before
// the task was placed and behind its end are dropped. When the agent reports STOPPED the task is final, whatever was desired.
func (s *TaskStatus) AdvanceReport(r *agentapi.TaskStatus, observed agentapi.TaskState, now time.Time) (*TaskStatus, bool) {
	if !s.Live() || s.Node == "" || r.Epoch != s.Epoch || r.State < s.Report.GetState() {
		return s, false
	}
	if observed <= s.Observed && proto.Equal(r, s.Report) {
		return s, false
	}
	n := s.next()
	n.Report = r
	n.Health = healthNames[r.Health]
	n.Observed = max(n.Observed, observed)
	if n.Observed == agentapi.TaskState_STOPPED {
		n.because(r.StopCode, r.StoppedReason, now)
		n.stop(now)
	}
	return n, true
}

// AdvanceObserved moves observed on without a report: ACTIVATING to RUNNING once registered with the routers.
func (s *TaskStatus) AdvanceObserved(to agentapi.TaskState) (*TaskStatus, bool) {
	if !s.Live() || s.Node == "" || to <= s.Observed || to >= agentapi.TaskState_STOPPED {
		return s, false
	}
	n := s.next()
	n.Observed = to
	return n, true
}

// AdvanceProtection spares the task from scaling in and deployments until a time; zero ends that.
func (s *TaskStatus) AdvanceProtection(until time.Time) (*TaskStatus, bool) {
	if !s.Live() || until.IsZero() && s.ProtectedUntil == nil {
		return s, false
	}
	n := s.next()
	n.ProtectedUntil = nil
	if !until.IsZero() {
		n.ProtectedUntil = timestamppb.New(until)
	}
	return n, true
}

// Protected says whether scaling in and deployments spare the task.
func (s *TaskStatus) Protected(now time.Time) bool {
	return s.ProtectedUntil != nil && now.Before(s.ProtectedUntil.AsTime())
}

// AdvanceLost ends the task without its agent: its node is lost.
func (s *TaskStatus) AdvanceLost(stopCode, reason string, now time.Time) (*TaskStatus, bool) {
	if !s.Live() {
		return s, false
	}
	n := s.next()
	n.because(stopCode, reason, now)
	n.stop(now)
	return n, true
}

// healthNames are ECS's words. A task without a health check that counts has none: it is shown as UNKNOWN, and not waited for.
var healthNames = map[agentapi.Health]string{
	agentapi.Health_HEALTH_UNKNOWN: "UNKNOWN", agentapi.Health_HEALTH_HEALTHY: "HEALTHY", agentapi.Health_HEALTH_UNHEALTHY: "UNHEALTHY",
}

// HealthName is the health of a container in ECS's words.
func HealthName(h agentapi.Health) string { return cmp.Or(healthNames[h], "UNKNOWN") }

// next is a copy to be changed. What hangs on the record is replaced, never changed, and so is the same: copying the report of each step, which the next
// one replaces, was a good part of what a step costs.
func (s *TaskStatus) next() *TaskStatus {
	n := &TaskStatus{
		Account: s.Account, Region: s.Region, Cluster: s.Cluster, Id: s.Id, Service: s.Service, Deployment: s.Deployment,
		Desired: s.Desired, Observed: s.Observed, Node: s.Node, Epoch: s.Epoch, Report: s.Report, Health: s.Health, PlacementFailure: s.PlacementFailure,
		StopCode: s.StopCode, StoppedReason: s.StoppedReason, Stopping: s.Stopping, Stopped: s.Stopped, ProtectedUntil: s.ProtectedUntil,
		SecurityGroups: s.SecurityGroups, Gpus: s.Gpus, Version: s.Version + 1,
	}
	if unknown := s.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		n.ProtoReflect().SetUnknown(unknown)
	}
	return n
}

// because keeps the first cause: a task that is being replaced and then killed for it still says why it was replaced.
func (s *TaskStatus) because(code, reason string, now time.Time) {
	if s.StopCode == "" {
		s.StopCode, s.StoppedReason = code, reason
	}
	if s.Stopping == nil {
		s.Stopping = timestamppb.New(now)
	}
}

func (s *TaskStatus) stop(now time.Time) {
	s.Desired = agentapi.TaskState_STOPPED
	s.Observed = agentapi.TaskState_STOPPED
	s.Stopped = timestamppb.New(now)
	s.PlacementFailure = ""
}
