package state

import "context"

// Engine orders transactions, keeps them, and feeds every server's Machine with the same entries in the same order.
type Engine interface {
	// Start begins to feed m. It is called once, before any other method. An engine that is alone returns from Start only when it
	// leads and has applied everything kept.
	Start(m *Machine) error

	// Commit has tx ordered and made durable, and returns its outcome once this server's machine has applied it. It is for the
	// leader. An error that is ErrUncertain leaves open whether tx will be applied; after any other one it will not.
	Commit(ctx context.Context, tx *Transaction) (Outcome, error)

	// Barrier returns when this server's machine, whoever leads, holds everything that any server acknowledged before the call.
	// It waits for a leader until ctx ends, and then returns an error that is ErrNoLeader.
	Barrier(ctx context.Context) error

	// Leadership tells who leads, as far as this server knows.
	Leadership() Leadership

	// Close stops feeding. Calls under way fail.
	Close() error
}

// Leadership is what a server knows about who leads.
type Leadership struct {
	// Term is the term in which this server leads and whose predecessors' entries it has all applied; 0 otherwise.
	Term uint64
	// Leader is the id of the server that leads; empty when none is known.
	Leader string
	// Changed is closed when this answer is out of date.
	Changed <-chan struct{}
}

// Transaction is what is replicated: conditions, and the changes to make if all of them hold.
type Transaction struct {
	Guards []Guard
	Ops    []Op

	size int // set by Size
}

// GuardKind says what a Guard asks.
type GuardKind uint8

const (
	// GuardRevision: the record Key was last put by transaction Revision and is there.
	GuardRevision GuardKind = 1
	// GuardAbsent: there is no record Key.
	GuardAbsent GuardKind = 2
	// GuardRange: no key from Key (inclusive) to End (exclusive; empty: no end) was put or deleted after Revision.
	GuardRange GuardKind = 3
)

// Guard is a condition on what a transaction has read.
type Guard struct {
	Kind     GuardKind
	Space    string // a table's name, or for GuardRange also an index's space
	Key      Key
	End      Key      // GuardRange
	Revision Revision // GuardRevision, GuardRange
}

// Op puts or deletes one record.
type Op struct {
	Table  string
	Key    Key
	Delete bool
	Value  []byte // the encoded record; empty for a delete
	// Touched are the index entries that the record leaves, enters or stays in. They travel so that range guards on indexes can be
	// evaluated without knowing how to index.
	Touched []IndexEntry
}

// IndexEntry is a position in an index: Key followed by Own. In an entry the two are one, so Own is empty in what was decoded.
type IndexEntry struct {
	Space string
	Key   Key
	Own   Key
}

// Outcome is what became of a transaction.
type Outcome struct {
	// Revision is the transaction's own; 0 if it was not applied.
	Revision Revision
	// Conflict: a guard did not hold, nothing was changed.
	Conflict bool
	// Refused says why a transaction that could not be applied was dropped, on every server alike.
	Refused string
}
