// Package state is an ordered, revisioned record store: typed tables with indexes, optimistic transactions, snapshots and
// watches over an engine that replicates changes. It knows no AWS service. docs/design/state.md has the reasons.
//
// What it does not do: it stores no bulk data (see storage), makes no choice of its own about records, and has no clock.
//
// Invariants:
//
//  1. A Machine's rows, revision and history are a function of the entries applied, in their order, and of nothing else: no
//     schema, clock, randomness or option takes part. A machine restored from a snapshot answers every later entry as the
//     machine that wrote it does.
//  2. A transaction is applied whole or not at all. It is applied only if everything its function read (keys, absences,
//     ranges) is still so. Hence committed transactions are equivalent to running them one by one in revision order.
//  3. Revision grows by one per committed transaction; a refused one leaves no trace.
//  4. Records handed out are shared and never change. Views are immutable and never block.
//  5. Decoded records and index trees are derived data of this server: a schema that decodes or indexes differently can
//     never change the outcome of a transaction.
//  6. Update acknowledges only what the engine has made durable and this server's machine has applied.
//
// Lock order: Machine.mu, then feed.mu. Neither is held across I/O.
package state
