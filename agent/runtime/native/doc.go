// Package native runs tasks without any daemon: the program executes itself as shim (one a task, in a session, cgroup, mount
// and network namespace of its own) and as container init (libcontainer). docs/design/runtime.md has the reasons.
//
// What lives where. Every kernel object of a task hangs on its shim and containers: namespaces and overlay mounts have no name
// in the host's file system and vanish with the last process; the link is deleted with the namespace; a bound socket in the shim
// keeps a host port taken. By name there are only cgroups (below /neargate-<hash>), the bridge and one nftables table.
//
// Folder: images/ (records by reference and configurations by digest), layers/ (one folder a diffID, shared, never changed),
// tasks/<id>/ (records, sockets, writable layers, task volumes; tasks/warm-<random>/ where the sandbox was made ahead), logs/<task>/, volumes/
// (shared ones), bin/ (the shim's program, compiled filters).
//
// Invariants:
//   - A task's folder exists before, and until after, anything else of the task. A folder without record.json is a leftover,
//     unless this process made it ahead (warm.go).
//   - sandbox.json is written before what it describes is made, and again with Complete once all is there.
//   - Only the shim writes started.json and exit.json of a container; once it is dead, the driver completes them.
//   - Records are replaced by rename, never edited.
//
// Lock order: Driver.mu is never held while a task's mu is taken; a task's mu is held across the calls for that task; pool.mu is a leaf.
package native
