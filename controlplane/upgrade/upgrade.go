// Package upgrade keeps the cluster version: the version that every server of the cluster speaks (internal/version), by which what is new
// is held back until all understand it. docs/design/upgrade.md has the rules and the reasons.
//
// Invariants:
//
//  1. The cluster version is at most what each member spoke when it was asked last, at the moment of the raise.
//  2. It is never lowered, but by restoring a snapshot of a cluster that had not come so far, after which it is raised anew.
//  3. A server never applies, and so never leads with, a state whose version it does not speak (Admit).
package upgrade

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative controlplane/upgrade/upgrade.proto

import (
	"fmt"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/version"
)

var clusterKey = state.K("cluster")

// versions is the table of one record. The keeper writes it, and all that is gated reads it.
var versions = state.NewTable("upgrade.version", func(*Version) state.Key { return clusterKey })

// Schema is this package's tables.
var Schema = state.Schema{versions}

// Of is the cluster version; 1 until it was raised for the first time.
func Of(r state.Reader) uint32 {
	v, _ := versions.Get(r, clusterKey)
	return version.Of(v.GetVersion())
}

// At says whether every server of the cluster speaks version n. Whoever writes what came with n asks it in the transaction that writes.
func At(r state.Reader, n uint32) bool { return Of(r) >= n }

// NewerError: the state is of a version that this build does not speak.
type NewerError struct{ Cluster, Speaks uint32 }

func (e *NewerError) Error() string {
	return fmt.Sprintf("the cluster has moved to version %d, and this build speaks %d: every server has to be of a build that speaks %[1]d", e.Cluster, e.Speaks)
}

// Is makes engines stop at it.
func (e *NewerError) Is(target error) bool { return target == state.ErrUnknownFormat }

// Admit is state.Options.Admit.
func Admit(v *state.View) error {
	if n := Of(v); n > version.Speaks {
		return &NewerError{Cluster: n, Speaks: version.Speaks}
	}
	return nil
}
