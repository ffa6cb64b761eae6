package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// filer stops at a last segment that takes nothing more. A segment that is full gets its index together with its last entries; that it is
// sealed, and that another one follows, raft-wal notes in its metadata afterwards, in the background. When the process ends in between, or when the
// index did not reach the disk whole, it opens that segment for writing all the same, and then refuses every entry for ever.
type filer struct{ types.SegmentFiler }

// RecoverTail implements types.SegmentFiler. The error may be a *sealedTail.
func (f filer) RecoverTail(info types.SegmentInfo) (types.SegmentWriter, error) {
	w, err := f.SegmentFiler.RecoverTail(info)
	if err != nil {
		return nil, err
	}
	sealed, index, err := w.Sealed()
	if err == nil && !sealed {
		return w, nil
	}
	return nil, errors.Join(&sealedTail{info, index, w.LastIndex()}, err, w.Close())
}

type sealedTail struct {
	types.SegmentInfo
	index uint64 // where it begins
	last  uint64 // entry
}

func (s *sealedTail) Error() string { return fmt.Sprintf("segment %d is sealed", s.BaseIndex) }

// goOn makes the log one that can be written: a new segment follows on s, or what there is of its index is cut off.
func (d *disk) goOn(s *sealedTail) error {
	name := filepath.Join(d.dir, segment.FileName(s.SegmentInfo))
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	end, index := committed(data)
	if index != s.index {
		d.logger.Warn("an index that was not written whole is cut off", "file", name, "at", end)
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Truncate(int64(end)), f.Truncate(int64(len(data))), f.Sync(), f.Close())
	}
	state, err := d.meta.Load(d.dir)
	if err != nil {
		return err
	}
	tail := &state.Segments[len(state.Segments)-1]
	tail.MaxIndex, tail.IndexStart, tail.SealTime = s.last, s.index, time.Now()
	next := types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: s.last + 1, MinIndex: s.last + 1, Codec: s.Codec, SizeLimit: uint32(d.size), CreateTime: time.Now(),
	}
	state.NextSegmentID++
	state.Segments = append(state.Segments, next) // its file is made when it is opened
	return d.meta.CommitState(state)
}

// Of a segment's file: a header, and frames, which are padded to 8 bytes. A commit, which has no payload, has the CRC-32C of all since the one before
// in the place of a length.
const (
	segmentHeader = 32
	frameHeader   = 8
)

// committed returns where the last commit of a segment ends that is valid, 0 if there is none, and where the index begins that it is of, 0 if it is
// not of any. Only the last commit can be of a write that was cut short.
func committed(data []byte) (end int, index uint64) {
	type commit struct {
		begin, end int
		index      uint64
	}
	var commits []commit
	begin, seen := 0, uint64(0)
scan:
	for at := segmentHeader; at+frameHeader <= len(data); {
		length := int(binary.LittleEndian.Uint32(data[at+4:]))
		switch data[at] {
		case segment.FrameEntry:
		case segment.FrameIndex:
			seen = uint64(at + frameHeader)
		case segment.FrameCommit:
			length = 0
			commits = append(commits, commit{begin, at + frameHeader, seen})
			begin, seen = at+frameHeader, 0
		default:
			break scan
		}
		at += frameHeader + (length+7)&^7
	}
	for n := len(commits); n > 0; n-- {
		c := commits[n-1]
		last := n == len(commits)
		if !last || binary.LittleEndian.Uint32(data[c.end-4:]) == crc32.Checksum(data[c.begin:c.end-frameHeader], castagnoli) {
			return c.end, c.index
		}
	}
	return 0, 0
}
