package raft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// An entry of the log is a state entry and its CRC-32C. The log's own checksums end with the segment that is being written: what
// rots on the disk later would be found malformed, and be passed over, on one server alone.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errChecksum = errors.New("wrong checksum")

func seal(entry []byte) []byte {
	return binary.LittleEndian.AppendUint32(entry, crc32.Checksum(entry, castagnoli))
}

func unseal(data []byte) ([]byte, error) {
	n := len(data) - crc32.Size
	if n < 0 || binary.LittleEndian.Uint32(data[n:]) != crc32.Checksum(data[:n], castagnoli) {
		return nil, errChecksum
	}
	return data[:n:n], nil
}

// fsm is the machine as raft sees it. Raft calls Apply, Snapshot and Restore from one goroutine.
type fsm struct {
	machine *state.Machine
	logger  *slog.Logger

	halted error               // an entry or snapshot in an unknown format, or an entry that is damaged: apply nothing after it
	fail   func(error)         // is told of halted
	told   func(*raft.Log)     // of what was applied
	file   func(uint64) string // of the log that holds an index

	progress progress

	snapshotBytes int64         // at least so many are applied between two snapshots
	written       atomic.Int64  // bytes of the last snapshot
	pending       atomic.Int64  // bytes applied since the last snapshot
	entries       atomic.Int64  // so many entries
	snapshotDue   chan struct{} // of one
}

// Apply returns []state.Outcome, or an error if the entry could not be read.
func (f *fsm) Apply(l *raft.Log) any {
	if f.halted != nil {
		return f.halted
	}
	f.entries.Add(1)
	// A snapshot as large as what has come since makes the work for snapshots, and the replay at a start, grow with the state and no faster.
	if f.pending.Add(int64(len(l.Data))) >= max(f.snapshotBytes, f.written.Load()) {
		select {
		case f.snapshotDue <- struct{}{}:
		default:
		}
	}
	entry, err := unseal(l.Data)
	if err != nil {
		err = &state.DamagedError{Path: f.file(l.Index), Advice: adviceDamaged, Err: fmt.Errorf("log entry %d: %w", l.Index, err)}
		return f.halt(l.Index, err)
	}
	outcomes, err := f.machine.Apply(entry)
	f.progress.reach(l.Index)
	f.told(l)
	switch {
	case errors.Is(err, state.ErrUnknownFormat):
		return f.halt(l.Index, err)
	case err != nil:
		// Every server finds the same bytes malformed and passes over them.
		f.logger.Error("malformed log entry passed over", "index", l.Index, "error", err)
		return err
	}
	return outcomes
}

// progress is how far a machine has come.
type progress struct {
	mu      sync.Mutex
	index   uint64        // all commands up to here have been applied
	reached chan struct{} // nil if nobody waits
}

func (p *progress) at() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.index
}

func (p *progress) reach(index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.index = max(p.index, index)
	if p.reached != nil {
		close(p.reached)
		p.reached = nil
	}
}

// await returns once index has been reached.
func (p *progress) await(ctx context.Context, index uint64) error {
	for {
		p.mu.Lock()
		if p.index >= index {
			p.mu.Unlock()
			return nil
		}
		if p.reached == nil {
			p.reached = make(chan struct{})
		}
		reached := p.reached
		p.mu.Unlock()
		select {
		case <-reached:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// halt ends applying: going on would make this server's copy another one.
func (f *fsm) halt(index uint64, err error) error {
	f.logger.Error("nothing more is applied", "index", index, "error", err)
	f.halted = err
	f.fail(err)
	return err
}

// Snapshot captures; Persist writes while entries are applied.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.halted != nil {
		return nil, f.halted
	}
	f.pending.Store(0)
	f.entries.Store(0)
	return snapshot{f.machine.Snapshot(), &f.written}, nil
}

func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	if f.halted != nil {
		return f.halted // an older snapshot, which raft tries at the start, is no way around it
	}
	f.pending.Store(0)
	f.entries.Store(0)
	counted := &countingReader{Reader: r}
	err := f.machine.Restore(counted)
	f.written.Store(counted.n)
	if errors.Is(err, state.ErrUnknownFormat) {
		f.halted = err
		f.fail(err)
	}
	return err
}

// countingReader counts what is read.
type countingReader struct {
	io.Reader
	n int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += int64(n)
	return n, err
}

type snapshot struct {
	s       *state.Snapshot
	written *atomic.Int64
}

// Persist is durable when Close of sink, which syncs file and folder, has returned.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	n, err := s.s.WriteTo(sink)
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	s.written.Store(n)
	return sink.Close()
}

func (snapshot) Release() {}

// Bounds of how many entries stay in the log after a snapshot: for servers that lag behind a little, and so that the snapshot before
// is of use if the new one should be damaged.
const (
	minTrailing = 32
	maxTrailing = 8192
)

// snapshotBySize takes a snapshot, which also lets the log be cut, whenever enough has been applied.
func (e *Engine) snapshotBySize() {
	for {
		select {
		case <-e.fsm.snapshotDue:
			if err := e.takeSnapshot(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) && !errors.Is(err, raft.ErrRaftShutdown) {
				e.logger.Error("snapshot failed; the log keeps growing", "error", err)
			}
		case <-e.stop:
			return
		}
	}
}

// takeSnapshot leaves twice as many entries in the log as came since the last snapshot, so the log is bounded in bytes, however large its entries are.
func (e *Engine) takeSnapshot() error {
	config := e.raft.ReloadableConfig()
	config.TrailingLogs = uint64(min(max(2*e.fsm.entries.Load(), minTrailing), maxTrailing))
	if err := e.raft.ReloadConfig(config); err != nil {
		e.logger.Error("keep entries in the log", "error", err)
	}
	return e.raft.Snapshot().Error()
}
