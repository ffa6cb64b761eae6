package raft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// snapshots is raft's store of snapshots. At the start it offers only those that the log goes on from: raft takes the next best
// one when the newest is damaged, and would find a gap behind it.
type snapshots struct {
	*raft.FileSnapshotStore
	dir string

	mu      sync.Mutex
	offered map[string]bool // nil: all
	damaged error           // the last one that could not be read
}

func openSnapshots(dir string, logger hclog.Logger) (*snapshots, error) {
	if err := removeUnfinished(dir); err != nil {
		return nil, err
	}
	store, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotKeep, logger)
	if err != nil {
		return nil, err
	}
	return &snapshots{FileSnapshotStore: store, dir: filepath.Join(dir, "snapshots")}, nil
}

// removeUnfinished removes snapshots that a crash cut short. Raft passes over them but leaves them for ever.
func removeUnfinished(dir string) error {
	found, err := filepath.Glob(filepath.Join(escapeGlob.Replace(dir), "snapshots", "*.tmp"))
	for _, name := range found {
		err = errors.Join(err, os.RemoveAll(name))
	}
	if err != nil {
		return fmt.Errorf("remove unfinished snapshots: %w", err)
	}
	return nil
}

var escapeGlob = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

// prepare decides what to offer at the start.
func (s *snapshots) prepare(log raft.LogStore) error {
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := log.LastIndex()
	if err != nil {
		return err
	}
	metas, err := s.FileSnapshotStore.List() // without those whose description cannot be read
	if err != nil {
		return err
	}
	// The newest is known by the names of the folders: "term-index-time".
	newest, unread := uint64(0), ""
	folders, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, f := range folders {
		var term, index, made uint64
		if n, _ := fmt.Sscanf(f.Name(), "%d-%d-%d", &term, &index, &made); n == 3 && index > newest {
			newest, unread = index, f.Name()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offered = map[string]bool{}
	for _, m := range metas {
		if m.Index == newest || last >= newest && m.Index+1 >= first {
			s.offered[m.ID] = true
		}
	}
	if len(s.offered) > 0 || first <= 1 && last >= newest {
		return nil // without a snapshot the log is whole
	}
	path := filepath.Join(s.dir, unread)
	if unread == "" {
		path = s.dir
	}
	return &state.DamagedError{Path: path, Advice: adviceDamaged,
		Err: fmt.Errorf("no snapshot can be read that the log, which has entries %d to %d, goes on from", first, last)}
}

func (s *snapshots) offerAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offered = nil
}

// damage is what was wrong with the last snapshot that could not be read, nil if all could.
func (s *snapshots) damage() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.damaged
}

// List implements raft.SnapshotStore.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.FileSnapshotStore.List()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.offered == nil {
		return all, err
	}
	var list []*raft.SnapshotMeta
	for _, m := range all {
		if s.offered[m.ID] {
			list = append(list, m)
		}
	}
	return list, err
}

// Open implements raft.SnapshotStore. It checks the file's checksum.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.FileSnapshotStore.Open(id)
	if err != nil {
		err = &state.DamagedError{Path: filepath.Join(s.dir, id, "state.bin"), Advice: adviceDamaged, Err: err}
		s.mu.Lock()
		s.damaged = err
		s.mu.Unlock()
	}
	return meta, r, err
}

// Save writes all of the state to w, as it is after everything that was acknowledged before the call. If stale is set it is what
// this server has, which needs no leader. The revision is that of the last transaction in it.
func (e *Engine) Save(ctx context.Context, w io.Writer, stale bool) (state.Revision, error) {
	if !stale {
		if err := e.Barrier(ctx); err != nil {
			return 0, err
		}
	}
	s := e.fsm.machine.Snapshot()
	if _, err := s.WriteTo(w); err != nil {
		return 0, fmt.Errorf("save snapshot: %w", err)
	}
	return s.Revision(), nil
}

// Restore replaces all of the state, on all servers, by what Save has written, here or in another cluster. Only the leader does so.
// The members stay. The revision is higher than any before, and so every watcher has to list again. A file that is cut short or
// damaged changes nothing (state.DamagedError). Writes wait meanwhile.
func (e *Engine) Restore(ctx context.Context, r io.Reader) (state.Revision, error) {
	if err := e.leads(); err != nil {
		return 0, err
	}
	received, err := e.receive(r)
	if err != nil {
		return 0, fmt.Errorf("receive snapshot: %w", err)
	}
	defer discard(received)
	release, err := e.idle(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	// Now the machine stands still.
	if err := e.await(ctx, "restore snapshot", func() raft.Future { return e.raft.Barrier(0) }); err != nil {
		return 0, err
	}
	snapshot, err := e.fsm.machine.Renumbered(received)
	if err != nil {
		return 0, err
	}
	renumbered, err := e.temporary()
	if err != nil {
		return 0, fmt.Errorf("restore snapshot: %w", err)
	}
	defer discard(renumbered)
	size, err := snapshot.WriteTo(renumbered)
	if err == nil {
		_, err = renumbered.Seek(0, io.SeekStart)
	}
	if err != nil {
		return 0, fmt.Errorf("restore snapshot: %w", &state.DiskError{Dir: e.opts.Dir, Err: err})
	}
	restored := make(chan error, 1) // not given up when ctx ends: raft reads from the file
	go func() {
		restored <- e.raft.Restore(&raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Size: size}, renumbered, e.enqueueTimeout(ctx))
	}()
	select {
	case err = <-restored:
	case <-e.down:
		err = raft.ErrRaftShutdown
	}
	if err != nil {
		return 0, fmt.Errorf("restore snapshot: %w", translate(err))
	}
	return snapshot.Revision(), nil
}

// receive keeps what comes from r in a file, at whose beginning it returns.
func (e *Engine) receive(r io.Reader) (_ *os.File, err error) {
	f, err := e.temporary()
	if err != nil {
		return nil, err
	}
	if _, err = io.Copy(f, r); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		discard(f)
		return nil, err
	}
	return f, nil
}

// temporary is a file that is gone when it is closed, or this process ends.
func (e *Engine) temporary() (*os.File, error) {
	f, err := os.CreateTemp(e.opts.Dir, "restore-*.tmp")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

func discard(f *os.File) { f.Close() } // it has no name any more

// idle returns when nothing is proposed any more; proposals wait until release is called.
func (e *Engine) idle(ctx context.Context) (release func(), err error) {
	held := 0
	release = func() {
		for range held {
			<-e.slots
		}
	}
	for range maxInFlight {
		select {
		case e.slots <- struct{}{}:
			held++
		case <-ctx.Done():
			release()
			return nil, ctx.Err()
		case <-e.stop:
			release()
			return nil, state.ErrClosed
		}
	}
	return release, nil
}
