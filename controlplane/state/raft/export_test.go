package raft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// ApplyRaw has an entry committed as it is and returns what the machine made of it.
func (e *Engine) ApplyRaw(entry []byte) error {
	f := e.raft.Apply(seal(entry), 0)
	if err := f.Error(); err != nil {
		return err
	}
	err, _ := f.Response().(error)
	return err
}

// SetCommitTimeout is Options.commitTimeout.
func SetCommitTimeout(o *Options, d time.Duration) { o.commitTimeout = d }

// FollowAnew begins to follow who leads, until Close, as at the start, though nothing is observed any more.
func (e *Engine) FollowAnew() {
	e.mu.Lock()
	e.leadership = state.Leadership{Changed: e.changed}
	e.mu.Unlock()
	e.workers.Go(func() { e.followLeadership(nil, nil) })
}

// LastIndex is the end of this server's log.
func (e *Engine) LastIndex() uint64 { return e.raft.LastIndex() }

// Term is this server's.
func (e *Engine) Term() uint64 { return e.raft.CurrentTerm() }

// TakeSnapshot is what is done when one is due.
func (e *Engine) TakeSnapshot() error { return e.takeSnapshot() }

// HoldApplying lets the machine apply one more entry, and nothing then until release.
func (e *Engine) HoldApplying() (release func()) {
	e.fsm.progress.mu.Lock()
	return sync.OnceFunc(e.fsm.progress.mu.Unlock)
}

// KeepSnapshot returns what sends this leader's latest snapshot of now to another server, later.
func (e *Engine) KeepSnapshot() (index uint64, send func(id, address string) error, err error) {
	all, err := e.snapshots.List()
	if err != nil || len(all) == 0 {
		return 0, nil, errors.Join(errors.New("no snapshot"), err)
	}
	meta, r, err := e.snapshots.Open(all[0].ID)
	if err != nil {
		return 0, nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	return meta.Index, func(id, address string) error {
		var answer raft.InstallSnapshotResponse
		err := e.links.InstallSnapshot(raft.ServerID(id), raft.ServerAddress(address), &raft.InstallSnapshotRequest{
			RPCHeader: e.header(), SnapshotVersion: meta.Version, Term: e.raft.CurrentTerm(), LastLogIndex: meta.Index, LastLogTerm: meta.Term,
			Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex, Size: meta.Size,
		}, &answer, bytes.NewReader(data))
		if err == nil && !answer.Success {
			err = errors.New("refused")
		}
		return err
	}, err
}

// SendEntries has another server store all of this leader's log, and tells it that there is a commit up to an entry of it.
func (e *Engine) SendEntries(id, address string, commit uint64) error {
	first, err := e.disk.FirstIndex()
	last := e.raft.LastIndex()
	var entries []*raft.Log
	for i := first; i <= last && err == nil; i++ {
		entries = append(entries, &raft.Log{})
		err = e.disk.GetLog(i, entries[i-first])
	}
	if err != nil || first != 1 {
		return errors.Join(fmt.Errorf("the log begins at %d", first), err)
	}
	var answer raft.AppendEntriesResponse
	err = e.links.NetworkTransport.AppendEntries(raft.ServerID(id), target(raft.ServerID(id), raft.ServerAddress(address)), &raft.AppendEntriesRequest{
		RPCHeader: e.header(), Term: e.raft.CurrentTerm(), Entries: entries, LeaderCommitIndex: min(commit, last),
	}, &answer)
	if err == nil && !answer.Success {
		err = errors.New("refused")
	}
	return err
}

// AskPreVote says whether another server would vote for this one.
func (e *Engine) AskPreVote(id, address string) (bool, error) {
	var last raft.Log
	if err := e.disk.GetLog(e.raft.LastIndex(), &last); err != nil {
		return false, err
	}
	var answer raft.RequestPreVoteResponse
	err := e.links.RequestPreVote(raft.ServerID(id), raft.ServerAddress(address), &raft.RequestPreVoteRequest{
		RPCHeader: e.header(), Term: e.raft.CurrentTerm() + 1, LastLogIndex: last.Index, LastLogTerm: last.Term,
	}, &answer)
	return answer.Granted, err
}

func (e *Engine) header() raft.RPCHeader {
	id := raft.ServerID(e.opts.NodeID)
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: e.links.EncodePeer(id, e.links.LocalAddr())}
}

// OpenDisk returns the log in dir as raft sees it, which heals itself until the context ends, and what closes it then. fail is told of what it cannot heal.
func OpenDisk(ctx context.Context, dir string, inject func(DiskOp) error, fail func(error)) (raft.LogStore, func() error, error) {
	d, err := openDisk(&disk{
		dir: dir, size: 64 << 10, space: func() error { return nil }, inject: inject, fail: fail, logger: hclog.NewNullLogger(), closing: ctx,
	})
	if err != nil {
		return nil, nil, err
	}
	healed := make(chan struct{})
	go func() { d.heal(); close(healed) }()
	return d, func() error { <-healed; return d.Close() }, nil
}

// SealTail gives the last segment of the closed log in dir its index, as if the process had ended before the log took note of that. It returns the
// segment's file, and where the index begins in it.
func SealTail(dir string) (name string, index uint64, err error) {
	var db metadb.BoltMetaDB
	persisted, err := db.Load(dir)
	if err = errors.Join(err, db.Close()); err != nil {
		return "", 0, err
	}
	tail := persisted.Segments[len(persisted.Segments)-1]
	w, err := segment.NewFiler(dir, fs.New()).RecoverTail(tail)
	if err != nil {
		return "", 0, err
	}
	index, err = w.ForceSeal()
	return filepath.Join(dir, segment.FileName(tail)), index, errors.Join(err, w.Close())
}
