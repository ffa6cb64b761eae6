package controlplane

import (
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

var states = []agentapi.TaskState{
	agentapi.TaskState_PROVISIONING, agentapi.TaskState_PENDING, agentapi.TaskState_ACTIVATING, agentapi.TaskState_RUNNING,
	agentapi.TaskState_DEACTIVATING, agentapi.TaskState_STOPPING, agentapi.TaskState_DEPROVISIONING, agentapi.TaskState_STOPPED,
}

// TestInvariants throws random messages, late, repeated and contradictory ones, at a task and holds every step against
// the invariants of docs/design/task-model.md.
func TestInvariants(t *testing.T) {
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		now := time.Unix(1_700_000_000, 0)
		s := &TaskStatus{Id: "t", Desired: agentapi.TaskState_RUNNING, Observed: agentapi.TaskState_PROVISIONING, Version: 1}
		for step := range 40 {
			now = now.Add(time.Second)
			before := proto.CloneOf(s)
			next, moved := randomStep(rnd, s, now)
			if !proto.Equal(s, before) {
				t.Fatalf("seed %d step %d: the record itself was changed", seed, step)
			}
			if moved == proto.Equal(next, s) {
				t.Fatalf("seed %d step %d: moved is %v, but %v became %v", seed, step, moved, s, next)
			}
			if why := broken(s, next, moved); why != "" {
				t.Fatalf("seed %d step %d: %s: %v became %v", seed, step, why, s, next)
			}
			s = next
		}
	}
}

func randomStep(rnd *rand.Rand, s *TaskStatus, now time.Time) (*TaskStatus, bool) {
	any := func() agentapi.TaskState { return states[rnd.IntN(len(states))] }
	switch rnd.IntN(6) {
	case 0:
		return s.AdvanceDesired([]agentapi.TaskState{agentapi.TaskState_DEACTIVATING, agentapi.TaskState_STOPPED}[rnd.IntN(2)], "UserInitiated", "", now)
	case 1:
		return s.AdvancePlaced([]string{"a", "b", ""}[rnd.IntN(3)])
	case 2:
		return s.AdvancePlacementFailure([]string{"no memory", ""}[rnd.IntN(2)])
	case 3:
		return s.AdvanceObserved(any())
	case 4:
		if rnd.IntN(8) > 0 {
			return s, false
		}
		return s.AdvanceLost("TaskFailedToStart", "Host lost", now)
	default:
		r := &agentapi.TaskStatus{TaskId: "t", Epoch: rnd.Uint64N(3), State: any(), Address: []string{"", "10.0.0.2"}[rnd.IntN(2)],
			Health: agentapi.Health(rnd.IntN(4))}
		observed := r.State
		if observed == agentapi.TaskState_RUNNING && rnd.IntN(2) == 0 {
			observed = agentapi.TaskState_ACTIVATING
		}
		return s.AdvanceReport(r, observed, now)
	}
}

// broken names the invariant that the step breaks.
func broken(old, s *TaskStatus, moved bool) string {
	switch {
	case s.Desired < old.Desired:
		return "desired moved backwards"
	case s.Observed < old.Observed:
		return "observed moved backwards"
	case old.Node != "" && s.Node != old.Node:
		return "the node changed"
	case old.Observed == agentapi.TaskState_STOPPED && moved:
		return "a stopped task changed"
	case moved && s.Version != old.Version+1:
		return "the version does not count the change"
	case s.Node == "" && s.Observed != agentapi.TaskState_PROVISIONING && s.Observed != agentapi.TaskState_STOPPED && old.Observed == agentapi.TaskState_PROVISIONING:
		return "a task without a node was observed"
	case (s.Node != "") != (s.Epoch > 0):
		return "node and epoch do not come together"
	case s.Report.GetState() < old.Report.GetState():
		return "the report moved backwards"
	case (s.Observed == agentapi.TaskState_STOPPED) != (s.Stopped != nil):
		return "stopped and its time do not come together"
	case s.Observed == agentapi.TaskState_STOPPED && s.Desired != agentapi.TaskState_STOPPED:
		return "a stopped task is wanted"
	case s.Desired > agentapi.TaskState_RUNNING && s.Stopping == nil:
		return "a task leaves without a time"
	case s.Unplaced() && s.Desired > agentapi.TaskState_RUNNING:
		return "a task that is not wanted awaits a node"
	case old.StopCode != "" && s.StopCode != old.StopCode:
		return "the first stop code was lost"
	}
	return ""
}

func TestReportOfOlderEpochIsDropped(t *testing.T) {
	s := &TaskStatus{Desired: agentapi.TaskState_RUNNING, Observed: agentapi.TaskState_PENDING, Node: "n", Epoch: 2}
	if _, moved := s.AdvanceReport(&agentapi.TaskStatus{Epoch: 1, State: agentapi.TaskState_STOPPED}, agentapi.TaskState_STOPPED, time.Now()); moved {
		t.Error("a report of an older epoch was taken in")
	}
}

func TestFirstReasonStays(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := &TaskStatus{Desired: agentapi.TaskState_RUNNING, Observed: agentapi.TaskState_RUNNING, Node: "n", Epoch: 1}
	s, _ = s.AdvanceDesired(agentapi.TaskState_DEACTIVATING, "UserInitiated", "because", now)
	s, _ = s.AdvanceDesired(agentapi.TaskState_STOPPED, "ServiceSchedulerInitiated", "scaling", now.Add(time.Second))
	s, moved := s.AdvanceReport(&agentapi.TaskStatus{Epoch: 1, State: agentapi.TaskState_STOPPED, StopCode: "EssentialContainerExited", StoppedReason: "Essential container in task exited"},
		agentapi.TaskState_STOPPED, now.Add(2*time.Second))
	if !moved || s.StopCode != "UserInitiated" || s.StoppedReason != "because" || !s.Stopping.AsTime().Equal(now) {
		t.Errorf("got code %q, reason %q, stopping %v", s.StopCode, s.StoppedReason, s.Stopping.AsTime())
	}
}

// TestNextIsAWholeCopy: of every field that there is, also of those that are added to the record one day and those of a later build.
func TestNextIsAWholeCopy(t *testing.T) {
	s := &TaskStatus{}
	m := s.ProtoReflect()
	for fields, i := m.Descriptor().Fields(), 0; i < fields.Len(); i++ {
		f := fields.Get(i)
		switch {
		case f.IsList():
			m.Mutable(f).List().Append(protoreflect.ValueOfString("some"))
		case f.Kind() == protoreflect.MessageKind:
			m.Mutable(f)
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString("some"))
		case f.Kind() == protoreflect.EnumKind:
			m.Set(f, protoreflect.ValueOfEnum(2))
		default:
			m.Set(f, protoreflect.ValueOfUint64(2))
		}
	}
	m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 15000, protowire.VarintType), 1))
	want := proto.CloneOf(s)
	want.Version++
	if got := s.next(); !proto.Equal(got, want) {
		t.Errorf("got %v, not %v", got, want)
	}
}
