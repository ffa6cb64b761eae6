package state

import (
	"errors"
	"fmt"
)

var (
	// ErrNotLeader: another server leads; nothing was committed.
	ErrNotLeader = errors.New("state: this server does not lead")
	// ErrCompacted: the watch fell behind the history kept; list again and watch from there.
	ErrCompacted = errors.New("state: history compacted")
	// ErrClosed: the engine was closed.
	ErrClosed = errors.New("state: closed")
)

// Limits of one transaction. They fit every engine.
const (
	MaxOps   = 100     // records put or deleted
	MaxBytes = 1 << 20 // encoded, with guards
)

// LimitError refuses a transaction that is too large. Nothing was committed.
type LimitError struct {
	What string // "operations" or "bytes"
	Got  int
	Max  int
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("state: transaction of %d %s exceeds the limit of %d", e.Got, e.What, e.Max)
}

// RefusedError reports a transaction that was dropped because applying it failed. It is a bug in this program; every
// server dropped it alike.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "state: transaction refused on apply: " + e.Reason }
