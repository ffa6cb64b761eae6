package raft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

const (
	healPause  = 200 * time.Millisecond
	spacePause = 100 * time.Millisecond // between two looks at the room left
)

const adviceDamaged = "if other servers of the group are well, remove this server from it, delete its data directory and let it join again; " +
	"otherwise restore a snapshot into a new cluster"

// keyTerm is raft's name for its term in the stable store. Its vote is all else that it keeps there.
const keyTerm = "CurrentTerm"

// DiskOp is something done to the disk.
type DiskOp string

// What Options.Disk is asked about.
const (
	DiskAppend   DiskOp = "append"   // entries are about to be written to the log
	DiskSync     DiskOp = "sync"     // they have been written, and are about to be reported as durable
	DiskTruncate DiskOp = "truncate" // a part of the log is about to be removed
	DiskStable   DiskOp = "stable"   // term or vote are about to be written
	DiskHeal     DiskOp = "heal"     // after a failure, the log is about to be opened again
)

// disk is the log and the stable store as raft sees them. What a failing disk must not do, because raft or its log cannot
// recover from it, ends here:
//
//   - After a write has failed, the log's memory and its file may disagree for good. Nothing more is written until the log
//     has been opened anew and what the failed write may have left behind, which raft does not know of, has been cut off.
//   - Meanwhile this server votes for nobody, itself included: a leader must be able to write.
//   - The end of the log, which a leader has otherwise, is taken away and replaced in two steps. When the second one fails raft goes on
//     believing in the old end, and would take nothing for its places any more; so that end is put back. Raft does not take up the members again
//     that it names; with such an end the server has to start again.
//   - A term that cannot be written would make raft panic. It waits for the disk instead; a server that cannot keep a term must not
//     act in it.
type disk struct {
	dir    string
	space  func() error // nil if there is room
	inject func(DiskOp) error
	logger hclog.Logger
	fail   func(error) // is told of what cannot be healed
	size   int64       // of a segment
	meta   metadb.BoltMetaDB

	closing context.Context

	writing sync.Mutex // held while the log is written; before mu
	last    uint64     // last entry raft knows to be in the log

	mu       sync.RWMutex // held exclusively only to replace log
	log      *wal.WAL
	failed   error       // of the last write; nil: all is well
	replaced []*raft.Log // the end up to last, until what is to take its place has been stored

	stable   sync.Mutex
	term     uint64 // as written
	pretends bool   // closing: a term was not written
	ill      chan struct{}
}

// openDisk opens what is in d.dir. Set are dir, space, inject (or nil), logger, fail, size and closing.
func openDisk(d *disk) (_ *disk, err error) {
	d.ill = make(chan struct{}, 1)
	if d.inject == nil {
		d.inject = func(DiskOp) error { return nil }
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, err
	}
	// bbolt panics on some kinds of damage, and faults where its file, which it maps, is cut short.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		if err != nil {
			err = errors.Join(d.describe(err), d.meta.Close())
		}
	}()
	if d.log, err = d.open(); err != nil {
		return nil, err
	}
	if d.last, err = d.log.LastIndex(); err == nil {
		d.term, err = d.log.GetUint64([]byte(keyTerm))
	}
	if err != nil {
		return nil, errors.Join(err, d.log.Close())
	}
	if d.term != 0 {
		// What is there is written again: damage to what only writing looks at, the list of free pages, panics too, and is to do so here. A disk
		// that cannot be written is for later.
		_ = d.log.SetUint64([]byte(keyTerm), d.term)
	}
	return d, nil
}

func (d *disk) open() (*wal.WAL, error) {
	open := func() (*wal.WAL, error) {
		return wal.Open(d.dir, wal.WithMetaStore(meta{&d.meta}), wal.WithSegmentFiler(filer{segment.NewFiler(d.dir, fs.New())}),
			wal.WithSegmentSize(int(d.size)), wal.WithLogger(d.logger))
	}
	w, err := open()
	var tail *sealedTail
	if errors.As(err, &tail) {
		if err = d.goOn(tail); err == nil {
			w, err = open()
		}
	}
	return w, err
}

// meta outlives the log that uses it.
type meta struct{ *metadb.BoltMetaDB }

func (meta) Close() error { return nil }

// describe tells damage from what passes.
func (d *disk) describe(err error) error {
	var number syscall.Errno
	var path *os.PathError
	switch {
	case errors.Is(err, os.ErrNotExist) && errors.As(err, &path):
		return &state.DamagedError{Path: path.Path, Advice: adviceDamaged, Err: errors.New("the file is missing")}
	case errors.Is(err, os.ErrExist):
		return &state.DamagedError{Path: filepath.Join(d.dir, metadb.FileName), Advice: adviceDamaged, Err: fmt.Errorf("it does not know of a file that is there: %w", err)}
	case errors.As(err, &number):
		return &state.DiskError{Dir: d.dir, Err: err}
	case errors.Is(err, wal.ErrCorrupt):
		return &state.DamagedError{Path: filepath.Join(d.dir, "*.wal"), Advice: adviceDamaged, Err: err}
	}
	return &state.DamagedError{Path: filepath.Join(d.dir, metadb.FileName), Advice: adviceDamaged, Err: err}
}

// file is the segment that holds an entry, as far as names tell.
func (d *disk) file(index uint64) string {
	names, _ := filepath.Glob(filepath.Join(escapeGlob.Replace(d.dir), "*.wal")) // the pattern is well-formed
	found := filepath.Join(d.dir, "*.wal")
	for _, name := range names { // in order
		var base, id uint64
		if n, _ := fmt.Sscanf(filepath.Base(name), "%d-%x.wal", &base, &id); n == 2 && base <= index {
			found = name
		}
	}
	return found
}

// problem is why nothing can be written, nil if it can.
func (d *disk) problem() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.failed
}

func (d *disk) broke(err error) error {
	if errors.Is(err, wal.ErrSealed) { // the log makes segments behind our back, and keeps to itself why it could not
		err = errors.New("no new segment of the log could be made")
		if free, freeErr := freeBytes(d.dir); freeErr == nil && free < d.size {
			err = fmt.Errorf("%w: %w", err, syscall.ENOSPC)
		}
	}
	failure := &state.DiskError{Dir: d.dir, Err: err}
	d.mu.Lock()
	first := d.failed == nil
	d.failed = failure
	d.mu.Unlock()
	if first {
		d.logger.Error("the log cannot be written; this server neither leads nor votes until it can", "dir", d.dir, "error", err)
	}
	select {
	case d.ill <- struct{}{}:
	default:
	}
	return failure
}

// write does something to the log and notes where it ends.
func (d *disk) write(op DiskOp, do func(*wal.WAL) error) error {
	if err := d.problem(); err != nil {
		return err
	}
	err := d.inject(op)
	if err == nil {
		err = do(d.log)
	}
	if err == nil && op == DiskAppend {
		err = d.inject(DiskSync)
	}
	if err == nil {
		var last uint64
		if last, err = d.log.LastIndex(); err == nil {
			d.last = last
			return nil
		}
	}
	return d.broke(err)
}

// StoreLogs implements raft.LogStore. Entries that were damaged where they come from are not taken.
func (d *disk) StoreLogs(logs []*raft.Log) error {
	for _, l := range logs {
		if l.Type == raft.LogCommand {
			if _, err := unseal(l.Data); err != nil {
				return fmt.Errorf("log entry %d, as it came: %w", l.Index, err)
			}
		}
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	switch from := logs[0].Index; {
	case from <= d.last:
		return d.replace(logs)
	case d.last != 0 && from > d.last+1:
		// A snapshot has replaced all of the log, which could not be removed then.
		if err := d.write(DiskTruncate, func(w *wal.WAL) error { return w.DeleteRange(0, d.last) }); err != nil {
			return err
		}
	}
	return d.append(logs)
}

func (d *disk) append(logs []*raft.Log) error {
	return d.write(DiskAppend, func(w *wal.WAL) error { return w.StoreLogs(logs) })
}

// replace stores entries in the place of the end of the log.
func (d *disk) replace(logs []*raft.Log) error {
	if err := d.problem(); err != nil {
		return err
	}
	from, end := logs[0].Index, d.last
	var replaced []*raft.Log
	for i := from; i <= end; i++ { // not many: a leader has maxInFlight entries under way
		l := &raft.Log{}
		if err := d.log.GetLog(i, l); err != nil {
			return err
		}
		replaced = append(replaced, l)
	}
	d.keep(replaced)
	err := d.write(DiskTruncate, func(w *wal.WAL) error { return w.DeleteRange(from, end) })
	if err == nil {
		err = d.append(logs)
	}
	if err != nil {
		d.last = end
		return err
	}
	d.keep(nil)
	return nil
}

func (d *disk) keep(end []*raft.Log) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.replaced = end
}

// StoreLog implements raft.LogStore.
func (d *disk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

// DeleteRange implements raft.LogStore. The end of the log is not removed before StoreLogs, which raft calls next, replaces it.
func (d *disk) DeleteRange(from, to uint64) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	first, err := d.FirstIndex()
	if err != nil {
		return err
	}
	if from > first && to >= d.last {
		return d.problem()
	}
	return d.write(DiskTruncate, func(w *wal.WAL) error { return w.DeleteRange(from, to) })
}

// FirstIndex implements raft.LogStore.
func (d *disk) FirstIndex() (uint64, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.log.FirstIndex()
}

// LastIndex implements raft.LogStore.
func (d *disk) LastIndex() (uint64, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.log.LastIndex()
}

// GetLog implements raft.LogStore. What is to be replaced is shown still, for raft, were it told of the new entries, would count on them. That it
// is not on the disk meanwhile does no harm: it is of an earlier term than the leader's, who counts it only together with an entry of its own term.
func (d *disk) GetLog(index uint64, l *raft.Log) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if n := len(d.replaced); n > 0 && index >= d.replaced[0].Index && index <= d.replaced[n-1].Index {
		*l = *d.replaced[index-d.replaced[0].Index]
		return nil
	}
	return d.log.GetLog(index, l)
}

// IsMonotonic implements raft.MonotonicLogStore.
func (d *disk) IsMonotonic() bool { return true }

// Get implements raft.StableStore.
func (d *disk) Get(key []byte) ([]byte, error) { return d.meta.GetStable(key) }

// GetUint64 implements raft.StableStore.
func (d *disk) GetUint64(key []byte) (uint64, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.log.GetUint64(key)
}

// Set implements raft.StableStore. Raft keeps its vote by it and by SetUint64.
func (d *disk) Set(key, value []byte) error {
	d.stable.Lock()
	defer d.stable.Unlock()
	return d.set(key, value)
}

func (d *disk) set(key, value []byte) error {
	if d.pretends {
		return state.ErrClosed
	}
	if err := d.problem(); err != nil && string(key) != keyTerm {
		return err
	}
	err := d.inject(DiskStable)
	if err == nil {
		err = d.meta.SetStable(key, value)
	}
	if err != nil {
		return d.broke(err)
	}
	return nil
}

// SetUint64 implements raft.StableStore.
func (d *disk) SetUint64(key []byte, n uint64) error {
	value := binary.LittleEndian.AppendUint64(nil, n) // as the log's own method
	d.stable.Lock()
	defer d.stable.Unlock()
	if string(key) != keyTerm {
		return d.set(key, value)
	}
	if n == d.term { // at every start
		return nil
	}
	for d.set(key, value) != nil {
		select {
		case <-time.After(healPause):
			continue
		case <-d.closing.Done():
			// Raft panics if told so. It is ending; all that could follow from the term, votes and entries, is refused.
			d.pretends = true
			return nil
		}
	}
	d.term = n
	return nil
}

// heal makes the log usable again whenever it has failed, as soon as the disk is well, until closing.
func (d *disk) heal() {
	for {
		select {
		case <-d.ill:
		case <-d.closing.Done():
			return
		}
		for d.problem() != nil {
			select {
			case <-time.After(healPause):
			case <-d.closing.Done():
				return
			}
			if err := d.reopen(); err != nil {
				d.logger.Debug("the log cannot be opened yet", "error", err)
			} else {
				d.logger.Warn("the log can be written again", "dir", d.dir)
			}
		}
	}
}

func (d *disk) reopen() error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.probe(); err != nil {
		return err
	}
	// The old one is not written to any more once it has done with what it does in the background, which a write waits for, if only of nothing.
	if err := d.log.DeleteRange(math.MaxUint64, math.MaxUint64); err != nil {
		return err
	}
	next, err := d.open()
	if err != nil {
		return err
	}
	end, err := next.LastIndex()
	known := d.last - uint64(len(d.replaced)) // to be in the file
	if err == nil && end > known {
		err = next.DeleteRange(known+1, end)
		end = known
	}
	if err == nil && end == known && len(d.replaced) > 0 {
		if err = next.StoreLogs(d.replaced); err == nil {
			end = d.last
			err = d.putBack()
		}
	}
	if err == nil && end < d.last {
		err = fmt.Errorf("the log ends at %d and not at %d", end, d.last)
		d.fail(&state.DamagedError{Path: d.dir, Advice: "start the server again, it catches up with the others", Err: err})
	}
	if err != nil {
		return errors.Join(err, next.Close())
	}
	d.mu.Lock()
	old := d.log
	d.log, d.failed, d.replaced = next, nil, nil
	d.mu.Unlock()
	return old.Close()
}

// putBack says why raft cannot go on with the end that was put back, if it cannot: when raft had that end taken away it also forgot the change of members
// in it, which it reads from the log when it starts only.
func (d *disk) putBack() error {
	if !slices.ContainsFunc(d.replaced, func(l *raft.Log) bool { return l.Type == raft.LogConfiguration }) {
		return nil
	}
	err := fmt.Errorf("raft: the end of the log in %s holds a change of members, and what the leader has instead could not be written; "+
		"start the server again, it catches up with the others", d.dir)
	d.fail(err)
	return err
}

// probe writes a file and syncs it.
func (d *disk) probe() error {
	if err := errors.Join(d.inject(DiskHeal), d.space()); err != nil {
		return err
	}
	name := filepath.Join(d.dir, "probe.tmp")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 64<<10))
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(name))
}

// Close closes the files. Raft must have ended.
func (d *disk) Close() error {
	d.writing.Lock()
	defer d.writing.Unlock()
	return errors.Join(d.log.Close(), d.meta.Close())
}

// room says whether a folder's file system has a minimum of bytes left. It looks now and then.
type room struct {
	dir     string
	minimum int64
	logger  *slog.Logger

	mu     sync.Mutex
	looked time.Time
	err    error
}

func (r *room) check() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.looked) < spacePause {
		return r.err
	}
	was := r.err
	r.err = nil
	if free, err := freeBytes(r.dir); err != nil {
		r.err = &state.DiskError{Dir: r.dir, Err: err}
	} else if free < r.minimum {
		r.err = &state.DiskError{Dir: r.dir, Err: fmt.Errorf("%d MiB are free, %d MiB are kept free: %w", free>>20, r.minimum>>20, syscall.ENOSPC)}
	}
	switch {
	case r.err != nil && was == nil:
		r.logger.Error("nothing is written until there is room; reading goes on", "error", r.err)
	case r.err == nil && was != nil:
		r.logger.Warn("there is room again: writing goes on", "directory", r.dir)
	}
	r.looked = time.Now()
	return r.err
}

func freeBytes(dir string) (int64, error) {
	var fs syscall.Statfs_t
	err := syscall.Statfs(dir, &fs)
	return int64(fs.Bavail) * int64(fs.Bsize), err
}
