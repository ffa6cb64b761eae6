package agent

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// claimPatience is how long a host that has a block already waits for the control plane to confirm it.
const claimPatience = 5 * time.Second

// Claim asks for the block of addresses that this host's tasks have, before there are any: in a session of its own, which says hello and
// subscribes to the peers, of whom this host is one. A host that has a block keeps it while no server answers; one that has none
// waits until ctx ends.
func Claim(ctx context.Context, cfg Config) (netip.Prefix, error) {
	offer, err := cfg.Network()
	if err != nil {
		return netip.Prefix{}, err
	}
	if kept, err := netip.ParsePrefix(offer.Cidr); err == nil {
		limit, cancel := context.WithTimeout(ctx, claimPatience)
		defer cancel()
		p, err := claim(limit, cfg)
		if err != nil && ctx.Err() == nil {
			cfg.Logger.Warn("no server has confirmed the network of this host's tasks; going on with the one of before", "network", kept, "error", err)
			return kept, nil
		}
		return p, err
	}
	for wait := firstReconnect; ; wait = min(2*wait, lastReconnect) {
		p, err := claim(ctx, cfg)
		if err == nil || ctx.Err() != nil {
			return p, err
		}
		cfg.Logger.Warn("no server has given this host a network for its tasks", "error", err, "retry_in", wait)
		select {
		case <-ctx.Done():
			return p, ctx.Err()
		case <-time.After(wait):
		}
	}
}

func claim(ctx context.Context, cfg Config) (netip.Prefix, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hello, err := cfg.hello()
	if err != nil {
		return netip.Prefix{}, err
	}
	hello.Kinds = []agentapi.Kind{agentapi.Kind_PEERS}
	stream, err := cfg.Client.Session(ctx)
	if err != nil {
		return netip.Prefix{}, err
	}
	if err := stream.Send(&agentapi.Up{Body: &agentapi.Up_Hello{Hello: hello}}); err != nil {
		return netip.Prefix{}, err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return netip.Prefix{}, err
		}
		for _, r := range m.GetUpdate().GetResources() {
			if p := r.GetPeer(); p.GetNodeId() == cfg.NodeID {
				block, err := netip.ParsePrefix(p.Cidr)
				if err != nil {
					return block, fmt.Errorf("the server gave this host the network %q: %w", p.Cidr, err)
				}
				return block, nil
			}
		}
	}
}
