package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// TestStatusesAreAppended: of a task's statuses the last that was written as a whole counts, wherever the process ended, and the file stays small.
func TestStatusesAreAppended(t *testing.T) {
	s := taskStore{t.TempDir()}
	as := assignment(taskA, 1, run, "x")
	path := filepath.Join(s.tasks(), taskA)
	note := func(state agentapi.TaskState, reason string) {
		t.Helper()
		if err := s.note(as, &agentapi.TaskStatus{TaskId: taskA, State: state, StoppedReason: reason}); err != nil {
			t.Fatal(err)
		}
	}
	loaded := func(want agentapi.TaskState) {
		t.Helper()
		all, err := s.load()
		if k := all[taskA]; err != nil || k.assignment.GetSpec().GetNetworkMode() != "bridge" || k.status.GetState() != want {
			t.Errorf("%v, %v, want %s", all, err, want)
		}
	}
	note(agentapi.TaskState_PENDING, "") // the file is not there yet
	loaded(agentapi.TaskState_PENDING)
	note(agentapi.TaskState_ACTIVATING, "")
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	note(agentapi.TaskState_RUNNING, "")
	loaded(agentapi.TaskState_RUNNING)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for end := before.Size(); end < int64(len(whole)); end++ {
		if err := os.WriteFile(path, whole[:end], 0o600); err != nil {
			t.Fatal(err)
		}
		loaded(agentapi.TaskState_ACTIVATING)
		note(agentapi.TaskState_STOPPING, "")
		loaded(agentapi.TaskState_STOPPING)
	}
	for range 50 {
		note(agentapi.TaskState_STOPPED, strings.Repeat("x", 10_000))
		loaded(agentapi.TaskState_STOPPED)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > maxKept+11_000 {
		t.Errorf("the file has %d bytes, %v", info.Size(), err)
	}
}

// TestPositionIsWrittenInPlace: whatever its length was before.
func TestPositionIsWrittenInPlace(t *testing.T) {
	s := taskStore{t.TempDir()}
	for _, incarnation := range []string{"a", strings.Repeat("b", 40), "c", strings.Repeat("d", 2*positionSize), "e", ""} {
		want := position{incarnation, map[int32]uint64{1: 1 << 60}}
		if err := s.savePosition(want); err != nil {
			t.Fatal(err)
		}
		if got, err := s.loadPosition(); err != nil || got.Incarnation != incarnation || got.Revisions[1] != 1<<60 {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
	if b, err := os.ReadFile(s.positionPath()); err != nil || len(b) != positionSize || !bytes.HasPrefix(b, []byte("{")) {
		t.Errorf("%q, %v", b, err)
	}
}
