package peers

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// serverKeys are the servers' host keys, each said once, when the server runs for the first time: before the key of an authority may have been stolen,
// with which one can call oneself any server. What was said is not replaced; a server that has lost its keys comes back as another.
var serverKeys = state.NewTable("peers.serverkey", func(k *ServerKey) state.Key { return state.K(k.Server) })

// registerEvery is how often a server that could not say which key is its own tries again: nobody leads, or the leader's build knows of none.
const registerEvery = 2 * time.Second

// register has the cluster know this server's host key.
func (r *Rotation) register(ctx context.Context) {
	key, err := r.Authority.HostKey()
	if err != nil {
		r.Log.Error("this server cannot be handed a new certificate authority", "error", err)
		return
	}
	for ctx.Err() == nil {
		v := r.Store.View()
		if k, ok := serverKeys.Get(v, state.K(r.Peers.ID)); ok {
			if !bytes.Equal(k.Key, key) {
				r.Log.Error("the cluster knows another host key of this server: it cannot be handed a new certificate authority; remove it, empty its data directory and have it join anew")
			}
			_, _ = r.Store.Watch(ctx, v.Revision(), serverKeys).Next(ctx) // a restored state may not have it
			continue
		}
		err := r.Peers.noteKey(ctx, r.Peers.ID, key)
		if r.Store.Leadership().Term == 0 {
			_, err = r.Peers.ask(ctx, "/server-key", key)
		}
		if err != nil && ctx.Err() == nil {
			r.Log.Debug("the cluster cannot be told this server's host key yet", "error", err)
		}
		select {
		case <-r.Clock.After(registerEvery):
		case <-ctx.Done():
		}
	}
}

// noteKey keeps a member's host key, on the leader, unless one is kept.
func (p *Peers) noteKey(ctx context.Context, from string, key []byte) error {
	if p.Store.Leadership().Term == 0 {
		return state.ErrNotLeader
	}
	if !p.isMember(from) {
		return fmt.Errorf("server %s is no member of the cluster", from)
	}
	_, err := p.Store.Update(ctx, func(tx *state.Tx) error {
		if _, ok := serverKeys.Get(tx, state.K(from)); !ok {
			serverKeys.Put(tx, &ServerKey{Server: from, Key: key})
		}
		return nil
	})
	return err
}

func (p *Peers) isMember(id string) bool {
	return slices.ContainsFunc(p.Engine.Known(), func(m state.Member) bool { return m.ID == id })
}

// handAuthority gives another server an authority that it lacks, for the holder of the key that it has said is its own.
func (p *Peers) handAuthority(_ context.Context, from string, id []byte) ([]byte, error) {
	if p.Authority == nil {
		return nil, nil
	}
	k, ok := serverKeys.Get(p.Store.View(), state.K(from))
	if !ok || !p.isMember(from) {
		return nil, fmt.Errorf("server %s is no member of the cluster, or has not said which host key is its own", from)
	}
	return p.Authority.Hand(string(id), k.Key)
}
