package agent

import (
	"bytes"
	"errors"
	"io/fs"
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

// TestUnwrittenTask: what the machine's crash left of a task's file before its assignment was on the disk does not keep the agent from starting; what is damaged does.
func TestUnwrittenTask(t *testing.T) {
	s := taskStore{t.TempDir()}
	as := assignment(taskA, 1, run, "x")
	if err := s.save(as, &agentapi.TaskStatus{TaskId: taskA}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.tasks(), taskA)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []int{0, 1, 2, 20} {
		if err := os.WriteFile(path, whole[:end], 0o600); err != nil {
			t.Fatal(err)
		}
		if all, err := s.load(); err != nil || len(all) > 0 {
			t.Errorf("of %d bytes: %v, %v", end, all, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the file is left: %v", err)
		}
	}
	for _, damaged := range []string{"\x00\x00\x00\x00", "not a task", string(whole[5:])} {
		if err := os.WriteFile(path, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if all, err := s.load(); err == nil {
			t.Errorf("%q is taken for %v", damaged, all)
		}
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
