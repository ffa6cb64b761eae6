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
			if n.Status == capacity.NodeReady && s.silent(n.Id, began) {
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

func (s *Server) silent(node string, began time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := began
	if sub := s.subscribers[node]; sub != nil && sub.seen.After(seen) {
		seen = sub.seen
	}
	if r := s.remotes[node]; r != nil && r.seen.After(seen) {
		seen = r.seen
	}
	return s.Clock.Now().Sub(seen) >= s.Lease+s.Grace
}

// giveUp says that nodes are DOWN, as many at once as a zone that is lost has; the orchestrator ends their tasks. A session that is open
// but silent ends: the agent that wakes up has to say hello.
func (s *Server) giveUp(ctx context.Context, nodes []string, began time.Time) {
	var down []string
	_, err := s.Store.Update(ctx, func(tx *state.Tx) error {
		down = nil
		for _, node := range nodes {
			n, ok := controlplane.Nodes.Get(tx, state.K(node))
			if !ok || n.Status != capacity.NodeReady || !s.silent(node, began) {
				continue
			}
			n = proto.CloneOf(n)
			n.Status = capacity.NodeDown
			controlplane.Nodes.Put(tx, n)
			down = append(down, node)
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
			if sub.close != nil {
				sub.close("the lease is lost")
			}
			delete(s.subscribers, node)
		}
	}
}
