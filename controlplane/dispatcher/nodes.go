package dispatcher

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// watchNodes gives up nodes that have been silent for longer than lease and grace. Leases live in memory: after a change of the
// leader every node has its time anew.
func (s *Server) watchNodes(ctx context.Context) error {
	began := s.beginTerm()
	for {
		select {
		case <-s.Clock.After(s.Heartbeat):
		case <-ctx.Done():
			return nil
		}
		s.mu.Lock()
		s.wake() // leases may have been lost
		s.mu.Unlock()
		var silent []string
		for n := range controlplane.Nodes.Scan(s.Store.View(), state.K()) {
			if s.turns(n, began) != "" {
				silent = append(silent, n.Id)
			}
		}
		for some := range slices.Chunk(silent, lostNodes) {
			s.giveUp(ctx, some, began)
		}
	}
}

// noteHealth keeps what a node's agent says of its host.
func (s *Server) noteHealth(ctx context.Context, h *NodeHealth) error {
	_, err := s.Store.Update(ctx, func(tx *state.Tx) error {
		n, ok := controlplane.Nodes.Get(tx, state.K(h.Node))
		if !ok || proto.Equal(n.Health, h.Health) {
			return nil
		}
		n = proto.CloneOf(n)
		n.Health, n.HealthSince = h.Health, timestamppb.New(s.Clock.Now())
		controlplane.Nodes.Put(tx, n)
		return nil
	})
	return err
}

// lostNodes bounds a transaction.
const lostNodes = 50

// turns is the status that what was heard of a node, or that nothing was, brings it to; empty: none but what it has.
func (s *Server) turns(n *controlplane.Node, began time.Time) string {
	heard, now := s.heard(n.Id), s.Clock.Now()
	silence := min(now.Sub(began), now.Sub(heard))
	switch {
	case n.AmazonAgent != nil && n.Status == capacity.NodeAway && now.Sub(heard) < s.Lease:
		return capacity.NodeReady // it was slow, and its session has lasted
	case n.AmazonAgent == nil && n.Status == capacity.NodeReady && silence >= s.Lease+s.Grace,
		n.AmazonAgent != nil && n.Status != capacity.NodeDown && silence >= s.Away:
		return capacity.NodeDown
	case n.AmazonAgent != nil && n.Status == capacity.NodeReady && silence >= s.Lease:
		return capacity.NodeAway
	}
	return ""
}

// heard is when something was last heard of a node; zero: nothing was, as far as this server remembers.
func (s *Server) heard(node string) (seen time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub := s.subscribers[node]; sub != nil {
		seen = sub.seen
	}
	if r := s.remotes[node]; r != nil && r.seen.After(seen) {
		seen = r.seen
	}
	return seen
}

// giveUp says that nodes are DOWN, or AWAY, as many at once as a zone that is lost has; the orchestrator ends the tasks of the former. A session that is open
// but silent ends: the agent that wakes up has to say hello.
func (s *Server) giveUp(ctx context.Context, nodes []string, began time.Time) {
	var down []string
	_, err := s.Store.Update(ctx, func(tx *state.Tx) error {
		down = nil
		for _, node := range nodes {
			n, ok := controlplane.Nodes.Get(tx, state.K(node))
			to := ""
			if ok {
				to = s.turns(n, began)
			}
			if to == "" {
				continue
			}
			n = proto.CloneOf(n)
			n.Status = to
			if to == capacity.NodeDown {
				n.DownSince = timestamppb.New(s.Clock.Now())
				down = append(down, node)
			}
			controlplane.Nodes.Put(tx, n)
		}
		return nil
	})
	if err != nil {
		if ctx.Err() == nil {
			s.Log.Error("cannot give up nodes; trying again", "nodes", nodes, "error", err)
		}
		return
	}
	for _, node := range down {
		s.Log.Warn("node lost", "node", node)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, node := range down {
		s.forget(node, "")
		if sub := s.subscribers[node]; sub != nil && s.Clock.Now().Sub(sub.seen) >= s.Lease+s.Grace {
			s.hangUp(sub, "the lease is lost")
			delete(s.subscribers, node)
		}
	}
}
