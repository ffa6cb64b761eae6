package raft

import (
	"errors"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// fsm is the machine as raft sees it. Raft calls Apply, Snapshot and Restore from one goroutine.
type fsm struct {
	machine *state.Machine
	logger  *slog.Logger

	halted error        // an entry in an unknown format: apply nothing after it
	failed chan<- error // receives halted

	snapshotBytes int64
	pending       atomic.Int64  // bytes applied since the last snapshot
	snapshotDue   chan struct{} // of one
}

// Apply returns []state.Outcome, or an error if the entry could not be read.
func (f *fsm) Apply(l *raft.Log) any {
	if f.halted != nil {
		return f.halted
	}
	if f.pending.Add(int64(len(l.Data))) >= f.snapshotBytes {
		select {
		case f.snapshotDue <- struct{}{}:
		default:
		}
	}
	outcomes, err := f.machine.Apply(l.Data)
	switch {
	case errors.Is(err, state.ErrUnknownFormat):
		f.logger.Error("log written by a newer version; nothing more is applied", "index", l.Index, "error", err)
		f.halted = err
		f.failed <- err
		return err
	case err != nil:
		// Every server finds the same bytes malformed and passes over them.
		f.logger.Error("malformed log entry passed over", "index", l.Index, "error", err)
		return err
	}
	return outcomes
}

// Snapshot captures; Persist writes while entries are applied.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.halted != nil {
		return nil, f.halted
	}
	f.pending.Store(0)
	return snapshot{f.machine.Snapshot()}, nil
}

func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	return f.machine.Restore(r)
}

type snapshot struct{ s *state.Snapshot }

// Persist is durable when Close of sink, which syncs file and folder, has returned.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := s.s.WriteTo(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (snapshot) Release() {}

// snapshotBySize takes a snapshot, which also lets the log be cut, whenever enough has been applied.
func (e *Engine) snapshotBySize() {
	for {
		select {
		case <-e.fsm.snapshotDue:
			if err := e.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && !errors.Is(err, raft.ErrRaftShutdown) {
				e.logger.Error("snapshot failed; the log keeps growing", "error", err)
			}
		case <-e.stop:
			return
		}
	}
}
