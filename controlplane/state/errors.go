package state

import (
	"errors"
	"fmt"
)

var (
	// ErrNotLeader: another server leads; nothing was committed.
	ErrNotLeader = errors.New("state: this server does not lead")
	// ErrNoLeader: nobody led for as long as the context allowed to wait; nothing was committed.
	ErrNoLeader = errors.New("state: no server leads")
	// ErrUncertain: the transaction was on its way when something failed. It may have been committed, or be committed yet.
	ErrUncertain = errors.New("state: it is not known whether the transaction was committed")
	// ErrCompacted: the watch fell behind the history kept; list again and watch from there.
	ErrCompacted = errors.New("state: history compacted")
	// ErrClosed: the engine was closed.
	ErrClosed = errors.New("state: closed")
)

// Retryable says whether err means that nothing was committed for a reason that passes or is this server's alone, so that the same
// request may be tried again, here or on another server.
func Retryable(err error) bool {
	var disk *DiskError
	var readOnly *ReadOnlyError
	return !errors.Is(err, ErrUncertain) && (errors.Is(err, ErrNotLeader) || errors.Is(err, ErrNoLeader) || errors.As(err, &disk) || errors.As(err, &readOnly))
}

// ReadOnlyError: what keeps the state takes no writes until an operator has acted. Nothing was committed. Reads go on, and so do
// writes once the reason has gone.
type ReadOnlyError struct{ Reason string }

func (e *ReadOnlyError) Error() string { return "state: read-only: " + e.Reason }

// DiskError: this server cannot write to its disk, or has too little room left to. Nothing was committed, unless the error is
// also ErrUncertain. Reads go on, and so do writes once the disk is well again.
type DiskError struct {
	Dir string
	Err error
}

func (e *DiskError) Error() string { return fmt.Sprintf("state: cannot write to %s: %v", e.Dir, e.Err) }

func (e *DiskError) Unwrap() error { return e.Err }

// DamagedError: what was read from a file is not what was written to it.
type DamagedError struct {
	Path   string // "" if it came from a stream
	Advice string // what an operator can do; "" if the caller knows better
	Err    error
}

func (e *DamagedError) Error() string {
	s := "state: damaged"
	if e.Path != "" {
		s += " file " + e.Path
	}
	s += ": " + e.Err.Error()
	if e.Advice != "" {
		s += "; " + e.Advice
	}
	return s
}

func (e *DamagedError) Unwrap() error { return e.Err }

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
