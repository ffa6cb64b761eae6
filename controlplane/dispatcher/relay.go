package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Where there are several servers an agent has its session with any of them. That one serves sets from its own copy of the state and
// relays to the leader what agents say: what is written at once, signs of life and acknowledgements in beats (beat.go).

// remote is a node whose session is with another server, as its beats tell. Guarded by Server.mu; of use on the leader only.
type remote struct {
	server string
	seen   time.Time
	sets   map[agentapi.Kind]*BeatSet
}

// lead does what is the leader's to do: here, or by a message to whoever leads.
func (s *Server) lead(ctx context.Context, here func() error, msg *Relay) error {
	err := here()
	if errors.Is(err, state.ErrNotLeader) && s.Leader != nil {
		_, err = s.Leader(ctx, msg)
	}
	return err
}

// Relayed takes in what another server relays; only a leader does.
func (s *Server) Relayed(ctx context.Context, from string, msg *Relay) (*RelayAnswer, error) {
	if s.Store.Leadership().Term == 0 {
		return nil, state.ErrNotLeader
	}
	switch body := msg.Body.(type) {
	case *Relay_Join:
		return &RelayAnswer{}, s.joinElsewhere(ctx, from, body.Join)
	case *Relay_Reports:
		return &RelayAnswer{}, s.reports.write(ctx, body.Reports)
	case *Relay_Traffic:
		if s.Traffic == nil {
			return nil, errors.New("this server takes no reports of traffic")
		}
		t := body.Traffic
		if err := s.Traffic.Drained(ctx, t.Node, t.Drained); err != nil {
			return nil, err
		}
		return &RelayAnswer{}, s.Traffic.Health(ctx, t.Node, t.Health)
	case *Relay_Health:
		return &RelayAnswer{}, s.noteHealth(ctx, body.Health)
	case *Relay_TaskHealth:
		return &RelayAnswer{}, s.writeHealth(ctx, body.TaskHealth)
	case *Relay_Beat:
		return s.takeBeat(from, body.Beat), nil
	case *Relay_Where:
		return &RelayAnswer{Server: s.where(body.Where.Node)}, nil
	}
	return nil, errors.New("a message of a kind unknown to this version")
}

// join writes a node's records, on the leader. Its session here replaces one elsewhere.
func (s *Server) join(ctx context.Context, h *agentapi.Hello) error {
	return s.lead(ctx, func() error {
		_, err := s.Store.Update(ctx, func(tx *state.Tx) error { return s.Rule.Join(tx, h, s.Clock.Now()) })
		if err == nil {
			s.mu.Lock()
			s.forget(h.NodeId, "")
			s.mu.Unlock()
		}
		return err
	}, &Relay{Body: &Relay_Join{h}})
}

// joinElsewhere takes in a node that has said hello to another server. It counts as a subscriber from now on, before anything is sent
// to it, so that nobody takes its silence for an acknowledgement.
func (s *Server) joinElsewhere(ctx context.Context, server string, h *agentapi.Hello) error {
	if h.GetNodeId() == "" {
		return errors.New("the node has no id")
	}
	r := &remote{server: server, seen: s.Clock.Now(), sets: map[agentapi.Kind]*BeatSet{}}
	for _, kind := range h.Kinds {
		r.sets[kind] = &BeatSet{Kind: kind}
	}
	s.mu.Lock()
	s.forget(h.NodeId, server)
	s.remotes[h.NodeId] = r
	s.drop(h.NodeId, "replaced by a newer session")
	s.mu.Unlock()
	_, err := s.Store.Update(ctx, func(tx *state.Tx) error { return s.Rule.Join(tx, h, s.Clock.Now()) })
	return err
}

// forget ends the part of another server in a node, unless it is the one that keeps it. s.mu is held.
func (s *Server) forget(node, keeper string) {
	if r := s.remotes[node]; r != nil && r.server != keeper {
		s.lost[r.server] = append(s.lost[r.server], node)
		delete(s.remotes, node)
	}
	if keeper == "" {
		return
	}
	s.lost[keeper] = slices.DeleteFunc(s.lost[keeper], func(n string) bool { return n == node })
}

// drop forgets a node that had a session here. s.mu is held.
func (s *Server) drop(node, reason string) {
	sub := s.subscribers[node]
	if sub == nil {
		return
	}
	s.hangUp(sub, reason)
	delete(s.subscribers, node)
	s.wake()
}

// where is the server that has the node's session, as the leader knows.
func (s *Server) where(node string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub := s.subscribers[node]; sub != nil && sub.open {
		return s.Self
	}
	if r := s.remotes[node]; r != nil {
		return r.server
	}
	return ""
}

// Connected says whether the node has its session with this server.
func (s *Server) Connected(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.subscribers[node]
	return sub != nil && sub.open
}

// Where is the server, other than this one, that has the node's session; empty: none is known.
func (s *Server) Where(ctx context.Context, node string) (string, error) {
	if s.Leader == nil {
		return "", nil
	}
	server := s.where(node)
	if s.Store.Leadership().Term == 0 {
		a, err := s.Leader(ctx, &Relay{Body: &Relay_Where{&Whereabouts{Node: node}}})
		if err != nil {
			return "", fmt.Errorf("ask the leader for node %s: %w", node, err)
		}
		server = a.Server
	}
	if server == s.Self {
		return "", nil
	}
	return server, nil
}

// beginTerm forgets what another leader's followers told this server earlier.
func (s *Server) beginTerm() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.remotes)
	clear(s.beats)
	clear(s.lost)
	s.began, s.term = s.Clock.Now(), s.Store.Leadership().Term
	s.wake()
	return s.began
}

// takeBeat takes in a server's beat.
func (s *Server) takeBeat(from string, b *Beat) *RelayAnswer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.beats[from] == nil && !b.All {
		return &RelayAnswer{SendAll: true}
	}
	s.beats[from] = b.Published
	a := &RelayAnswer{Lost: s.lost[from]}
	delete(s.lost, from)
	over := make(map[string]bool, len(a.Lost)) // what the beat says of them is of sessions that have been replaced, however late it comes
	for _, node := range a.Lost {
		over[node] = true
	}
	for _, n := range b.Nodes {
		if !over[n.Node] && !s.takeNode(from, n) {
			s.Log.Debug("a node's session with another server is to end", "server", from, "node", n.Node)
			a.Lost = append(a.Lost, n.Node)
		}
	}
	s.wake()
	return a
}

// takeNode says whether the node's session is that which the server tells of. s.mu is held.
func (s *Server) takeNode(server string, n *BeatNode) bool {
	silent := time.Duration(n.SilentMillis) * time.Millisecond
	seen := s.Clock.Now().Add(-silent)
	r := s.remotes[n.Node]
	if r == nil {
		// Its hello was said to an earlier leader, or it has been given up.
		record, ok := controlplane.Nodes.Get(s.Store.View(), state.K(n.Node))
		if here := s.subscribers[n.Node]; here != nil && (here.open || here.seen.After(seen)) || !ok || record.Status != capacity.NodeReady {
			return false
		}
	} else if r.server != server && r.seen.After(seen) {
		return false
	}
	r = &remote{server: server, seen: seen, sets: map[agentapi.Kind]*BeatSet{}}
	for _, set := range n.Sets {
		r.sets[set.Kind] = set
	}
	s.remotes[n.Node] = r
	return true
}

// remotesKnow says whether every leased subscriber of another server has applied revision r. s.mu is held.
func (s *Server) remotesKnow(kind agentapi.Kind, r state.Revision) bool {
	if term := s.Store.Leadership().Term; s.Servers != nil && term != 0 && term != s.term {
		return false // what is remembered is of an earlier time
	}
	if s.Servers != nil && s.Clock.Now().Sub(s.began) < s.Lease {
		for _, server := range s.Servers() {
			if s.beats[server] == nil {
				return false // it may have subscribers that this leader has not heard of
			}
		}
	}
	for _, n := range s.remotes {
		set := n.sets[kind]
		if set == nil || s.Clock.Now().Sub(n.seen) >= s.Lease || set.Acked >= uint64(r) {
			continue
		}
		through := set.Through
		if set.Current {
			through = s.beats[n.server][int32(kind)]
		}
		if through < uint64(r) {
			return false
		}
	}
	return true
}
