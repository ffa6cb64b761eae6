package upgrade

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// lookEvery is how often a leader whose build is ahead of the cluster asks whether the others have caught up.
const lookEvery = 2 * time.Second

// Keeper raises the cluster version, on the leader, once all members speak a higher one.
type Keeper struct {
	Store  *state.Store
	Speaks uint32 // of this server's build
	// Members are the servers of the cluster, with a vote or without; nil: this one is alone.
	Members func(ctx context.Context) ([]state.Member, error)
	// Ask is the version that another server speaks, by its own word, now.
	Ask   func(ctx context.Context, id string) (uint32, error)
	Self  string
	Clock clock.Clock
	Log   *slog.Logger
}

// Run keeps the version until ctx ends. A leader that speaks no more than the cluster does has nothing to ask: it waits for a later one, or
// for a restored snapshot, which may take the version back.
func (k *Keeper) Run(ctx context.Context) error {
	return k.Store.RunLeader(ctx, func(ctx context.Context) error {
		said := ""
		for ctx.Err() == nil {
			v := k.Store.View()
			if At(v, k.Speaks) {
				_, _ = k.Store.Watch(ctx, v.Revision(), versions).Next(ctx) // whatever it is, it is looked at anew
				continue
			}
			err := k.raise(ctx)
			if err != nil && ctx.Err() == nil && err.Error() != said {
				said = err.Error()
				k.Log.Info("the cluster version stays", "version", Of(v), "this_build", k.Speaks, "because", said)
			}
			select {
			case <-k.Clock.After(lookEvery):
			case <-ctx.Done():
			}
		}
		return nil
	})
}

// raise moves the cluster to what all members speak. A member that does not answer holds it back, whatever it spoke before.
func (k *Keeper) raise(ctx context.Context) error {
	n := k.Speaks
	if k.Members != nil {
		members, err := k.Members(ctx)
		if err != nil {
			return err
		}
		for _, m := range members {
			if m.ID == k.Self {
				continue
			}
			theirs, err := k.Ask(ctx, m.ID)
			if err != nil {
				return fmt.Errorf("server %s does not say what it speaks: %w", m.ID, err)
			}
			if n = min(n, theirs); At(k.Store.View(), n) {
				return fmt.Errorf("server %s speaks %d", m.ID, theirs)
			}
		}
	}
	_, err := k.Store.Update(ctx, func(tx *state.Tx) error {
		if !At(tx, n) {
			versions.Put(tx, &Version{Version: n, Raised: timestamppb.New(k.Clock.Now())})
		}
		return nil
	})
	if err == nil {
		k.Log.Info("the cluster version is raised", "version", n)
	}
	return err
}
