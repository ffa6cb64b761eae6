package dispatcher

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// merge is how long what subscribers acknowledge is collected before the leader is told.
const merge = 20 * time.Millisecond

// told is what the leader knows of a node.
type told struct {
	seen time.Time
	sets map[agentapi.Kind]*BeatSet
}

// beat tells the leader how this server's nodes are, while another server leads: at once what they acknowledge, and every half
// heartbeat who has been heard of.
func (s *Server) beat(ctx context.Context) error {
	if s.Leader == nil {
		<-ctx.Done()
		return nil
	}
	known, leader := map[string]told{}, ""
	var changed <-chan struct{} // since the last beat was made
	var due time.Time           // of a beat about who has been heard of: however much else there is to tell
	for ctx.Err() == nil {
		l := s.Store.Leadership()
		if l.Term != 0 || l.Leader == "" || l.Changed == nil {
			leader = ""
			s.tellNobody()
			select {
			case <-l.Changed:
			case <-s.Clock.After(s.Heartbeat / 2):
			case <-ctx.Done():
			}
			continue
		}
		if l.Leader != leader {
			leader = l.Leader
			clear(known)
		}
		// The first beat, and whenever it is time, is also about who has been heard of.
		left := due.Sub(s.Clock.Now())
		again := len(known) == 0 || left <= 0
		if !again {
			select {
			case <-changed:
			case <-l.Changed:
				continue
			case <-s.Clock.After(left):
				again = true
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-s.Clock.After(merge):
		case <-ctx.Done():
			return nil
		}
		if again {
			due = s.Clock.Now().Add(s.Heartbeat / 2)
		}
		var err error
		if changed, err = s.tell(ctx, known, again); err != nil {
			clear(known)
			if ctx.Err() == nil {
				s.Log.Debug("cannot tell the leader of this server's nodes; trying again", "leader", leader, "error", err)
			}
			select {
			case <-s.Clock.After(s.Heartbeat / 10):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// tell sends one beat; changed is closed when there is more to tell. The first to a leader brings what proxies have said about drains as
// well: that is in memory too.
func (s *Server) tell(ctx context.Context, known map[string]told, seen bool) (changed <-chan struct{}, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.Lease)
	defer cancel()
	first := len(known) == 0
	b, changed := s.compose(known, seen)
	a, err := s.Leader(ctx, &Relay{Body: &Relay_Beat{b}})
	if err != nil {
		return changed, err
	}
	if a.SendAll {
		return changed, errors.New("it knows nothing of them")
	}
	for _, node := range a.Lost {
		delete(known, node)
		s.mu.Lock()
		if sub := s.subscribers[node]; sub != nil && sub.joined { // otherwise it is newer than what the leader speaks of
			s.drop(node, "the lease is lost, or there is a newer session")
		}
		s.mu.Unlock()
	}
	known[""] = told{} // this leader has been told
	if !first || s.Traffic == nil {
		return changed, nil
	}
	for _, n := range b.Nodes {
		if list := s.Traffic.Repeat(n.Node); len(list) > 0 {
			if _, err := s.Leader(ctx, &Relay{Body: &Relay_Traffic{&TrafficReport{Node: n.Node, Drained: list}}}); err != nil {
				return changed, err
			}
		}
	}
	return changed, nil
}

// compose makes a beat of what differs from known, and notes it there; changed is closed when something has changed after it.
func (s *Server) compose(known map[string]told, seen bool) (b *Beat, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.telling, changed = true, s.change()
	b = &Beat{All: len(known) == 0, Published: map[int32]uint64{}}
	for kind, r := range s.published {
		b.Published[int32(kind)] = uint64(r)
	}
	add := func(sub *subscriber) {
		if !sub.joined {
			return // the leader has not heard of it: it would take the node for one that it has given up
		}
		was, is := known[sub.node], told{sub.seen, s.standing(sub)}
		if same(was.sets, is.sets) && (!seen || was.seen.Equal(is.seen)) {
			return
		}
		known[sub.node] = is
		n := &BeatNode{Node: sub.node, SilentMillis: uint64(s.Clock.Now().Sub(sub.seen).Milliseconds())}
		for _, set := range is.sets {
			n.Sets = append(n.Sets, set)
		}
		b.Nodes = append(b.Nodes, n)
	}
	some := s.takeMoved()
	if seen || b.All {
		for _, sub := range s.subscribers {
			add(sub)
		}
		return b, changed
	}
	for _, sub := range some {
		if s.subscribers[sub.node] == sub {
			add(sub)
		}
	}
	return b, changed
}

// note remembers that a subscriber's standing may have changed, for the next beat: it need not look at all of them. s.mu is held.
func (s *Server) note(sub *subscriber) {
	if s.telling && !sub.moved {
		sub.moved = true
		s.moved = append(s.moved, sub)
	}
}

// takeMoved takes those that note remembers. s.mu is held.
func (s *Server) takeMoved() []*subscriber {
	some := s.moved
	for _, sub := range some {
		sub.moved = false
	}
	s.moved = nil
	return some
}

// tellNobody ends note's remembering: this server leads, or nobody does.
func (s *Server) tellNobody() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.telling = false
	s.takeMoved()
}

// standing is how far a subscriber is with each kind. s.mu is held.
func (s *Server) standing(sub *subscriber) map[agentapi.Kind]*BeatSet {
	sets := map[agentapi.Kind]*BeatSet{}
	for kind, t := range sub.sets {
		set := &BeatSet{Kind: kind, Acked: uint64(t.acked)}
		if set.Current = t.knows(s.published[kind]); !set.Current {
			set.Through = uint64(t.through(s.published[kind]))
		}
		sets[kind] = set
	}
	return sets
}

// through is the last revision that the subscriber is sure to know, of those up to published.
func (t *set) through(published state.Revision) state.Revision {
	if t.full || t.filling || len(t.inFlight) > 0 {
		return t.acked
	}
	r := published
	for _, p := range t.waiting {
		r = min(r, p.revision-1)
	}
	return max(r, t.acked)
}

func same(a, b map[agentapi.Kind]*BeatSet) bool {
	if len(a) != len(b) {
		return false
	}
	for kind, set := range a {
		if b[kind] == nil || !proto.Equal(set, b[kind]) {
			return false
		}
	}
	return true
}
