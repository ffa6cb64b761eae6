package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/seed-2f228079/neargate/controlplane/state"
)

// announceEvery is how often a server that has moved tells so, until the cluster knows.
const announceEvery = time.Second

// announce tells the cluster where this server is, if it knows it elsewhere: the server was started with another address. Whoever leads
// cannot find it, and so does not tell it that he leads; therefore all others are asked in turn.
func (p *Peers) announce(ctx context.Context) error {
	for ctx.Err() == nil && !p.settled() {
		if err := p.tell(ctx); err != nil && ctx.Err() == nil {
			p.Log.Warn("the cluster knows this server at another address, and cannot be told yet", "address", p.Address, "error", err)
		}
		select {
		case <-p.Clock.After(announceEvery):
		case <-ctx.Done():
		}
	}
	<-ctx.Done()
	return nil
}

// settled says whether the members' addresses, as this server has them, have its own right. A server that is no member yet will be one
// by the address it gives then.
func (p *Peers) settled() bool {
	for _, m := range p.Engine.Known() {
		if m.ID == p.ID {
			return m.Address == p.Address
		}
	}
	return p.Address == ""
}

func (p *Peers) tell(ctx context.Context) error {
	known := p.Engine.Known()
	member := false
	for _, m := range known {
		member = member || m.ID == p.ID
	}
	if !member {
		return nil
	}
	err := p.Engine.AddServer(ctx, p.ID, p.Address)
	if !errors.Is(err, state.ErrNotLeader) {
		return err
	}
	body, err := json.Marshal(p.Address)
	if err != nil {
		return err
	}
	all := errors.New("no other server leads")
	for _, m := range known {
		if m.ID == p.ID {
			continue
		}
		_, err := p.askServer(ctx, m.ID, "/address", body)
		if err == nil {
			return nil
		}
		if !errors.Is(err, state.ErrNotLeader) {
			all = errors.Join(all, fmt.Errorf("server %s: %w", m.ID, err))
		}
	}
	return all
}

// readdress takes in another server's own address, on the leader.
func (p *Peers) readdress(ctx context.Context, from string, body []byte) ([]byte, error) {
	var address string
	if err := json.Unmarshal(body, &address); err != nil {
		return nil, err
	}
	known := false
	for _, m := range p.Engine.Known() {
		known = known || m.ID == from
	}
	if !known {
		return nil, fmt.Errorf("server %s is no member of the cluster", from) // it was removed
	}
	return nil, p.Engine.AddServer(ctx, from, address)
}
