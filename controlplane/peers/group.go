package peers

import (
	"context"
	"io"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Group is what an engine knows of the servers that share its state, and does with the whole of it. state/raft and state/etcd have one
// each; what the methods promise stands there.
type Group interface {
	// Barrier returns once this server has everything that any server acknowledged before the call.
	Barrier(ctx context.Context) error
	// Members are the servers, on any of them.
	Members(ctx context.Context) ([]state.Member, error)
	// Known are the members as this server last heard, without asking anybody.
	Known() []state.Member
	// AddServer makes a server a member, or changes its address; RemoveServer takes one away. The leader's to do: state.ErrNotLeader.
	AddServer(ctx context.Context, id, address string) error
	RemoveServer(ctx context.Context, id string) error
	// Save writes all of the state, and Restore replaces it by what Save of any engine has written.
	Save(ctx context.Context, w io.Writer, stale bool) (state.Revision, error)
	Restore(ctx context.Context, r io.Reader) (state.Revision, error)
}
