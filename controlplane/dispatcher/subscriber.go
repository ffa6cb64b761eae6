package dispatcher

import (
	"context"
	"sync"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// maxInFlight is how many updates of one kind a subscriber may have that it has not acknowledged; more changes wait, merged.
const maxInFlight = 8

// subscriber is a node as one session made it known. It outlives the session until the node comes back or is given up: what
// the node has not acknowledged it may still be acting against.
type subscriber struct {
	node        string
	session     string
	incarnation string    // that it was told
	joined      bool      // the leader knows of this session, and it is sent to
	moved       bool      // it is in Server.moved
	seen        time.Time // last sign of life
	sets        map[agentapi.Kind]*set
	papers      *agentapi.Papers // that its host has; nil: it did not say
	told        *agentapi.Papers // that it should have; the session's sender's

	open    bool                              // the session has not ended
	stream  agentapi.Dispatcher_SessionServer // while it is open
	ended   chan error                        // capacity 1: why it is to end
	reason  string                            // that its agent is to be told, as the last
	gone    chan struct{}                     // closed when it has ended
	sending bool                              // there is a sender
	busy    sync.WaitGroup                    // the sender, and who takes in reports; none is added once it is not open
	inbox   *inbox                            // nil: nothing was reported of traffic
	// What is to be sent beside the sets.
	welcome  *agentapi.Welcome
	requests []*agentapi.Down // what the node is to be asked for
	renew    bool             // servers may want other papers than it has been told
}

// finish has the session end, if it is not ending already.
func (s *subscriber) finish(err error) {
	select {
	case s.ended <- err:
	default:
	}
}

// set is one kind as one subscriber has it. Guarded by Server.mu.
type set struct {
	full     bool               // everything has to be sent
	filling  bool               // everything is being read and sent
	waiting  map[string]pending // by name; nil: nothing ever did
	sent     state.Revision     // of the last update
	inFlight []state.Revision   // sent and not acknowledged, ascending
	acked    state.Revision
}

// pending is one resource's latest change that has not been sent.
type pending struct {
	revision state.Revision
	resource *agentapi.Resource // nil: removed
}

// knows says whether the subscriber has applied everything that concerns it up to revision r.
func (t *set) knows(r state.Revision) bool {
	if t.acked >= r {
		return true
	}
	if t.full || t.filling || len(t.inFlight) > 0 {
		return false
	}
	for _, p := range t.waiting {
		if p.revision <= r {
			return false
		}
	}
	return true
}

func (t *set) acknowledge(r state.Revision) {
	if r > t.sent {
		return // never sent
	}
	t.acked = max(t.acked, r)
	for len(t.inFlight) > 0 && t.inFlight[0] <= r {
		t.inFlight = t.inFlight[1:]
	}
}

// next takes the update that is to be sent now; nil: none. A full set is read outside the lock. s.mu is held.
func (s *Server) next(sub *subscriber) *agentapi.Update {
	for kind, t := range sub.sets {
		if len(t.inFlight) >= maxInFlight {
			continue
		}
		if t.full {
			t.full, t.filling = false, true
			s.note(sub)
			return &agentapi.Update{Kind: kind, Full: true}
		}
		if len(t.waiting) == 0 {
			continue
		}
		s.note(sub)
		if u := t.delta(kind); u != nil {
			t.inFlight = append(t.inFlight, t.sent)
			return u
		}
	}
	return nil
}

// delta takes what waits. Changes that the last full set contained already are dropped: they would undo later ones.
func (t *set) delta(kind agentapi.Kind) *agentapi.Update {
	u := &agentapi.Update{Kind: kind}
	last := t.sent
	for name, p := range t.waiting {
		if p.revision <= t.sent {
			continue
		}
		last = max(last, p.revision)
		if p.resource == nil {
			u.Removed = append(u.Removed, name)
		} else {
			u.Resources = append(u.Resources, p.resource)
		}
	}
	clear(t.waiting)
	if last == t.sent {
		return nil
	}
	t.sent = last
	u.Revision = uint64(last)
	return u
}

// fill reads a full set. Changes committed meanwhile wait behind it, or are in it and will be dropped. False: the session is over; what is
// read of another incarnation must not be taken for the one that the subscriber knows.
func (s *Server) fill(sub *subscriber, u *agentapi.Update) bool {
	for _, source := range s.Sources {
		if source.Kind() != u.Kind {
			continue
		}
		v := s.Store.View()
		if now, _ := incarnationOf(v); now != sub.incarnation {
			return false
		}
		u.Resources = source.Full(v, sub.node)
		u.Revision = uint64(v.Revision())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := sub.sets[u.Kind]
	t.filling = false
	s.note(sub)
	t.sent = state.Revision(u.Revision)
	t.inFlight = append(t.inFlight, t.sent)
	return s.subscribers[sub.node] == sub
}

// leased says whether the subscriber's lease holds. s.mu is held.
func (s *Server) leased(sub *subscriber) bool { return s.Clock.Now().Sub(sub.seen) < s.Lease }

// Acknowledged says whether every leased subscriber of the kind has applied revision r.
func (s *Server) Acknowledged(kind agentapi.Kind, r state.Revision) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acknowledged(kind, r)
}

func (s *Server) acknowledged(kind agentapi.Kind, r state.Revision) bool {
	if s.published[kind] < r {
		return false
	}
	for _, sub := range s.subscribers {
		if t := sub.sets[kind]; t != nil && s.leased(sub) && !t.knows(r) {
			return false
		}
	}
	return s.remotesKnow(kind, r)
}

// maxWait bounds WaitAcked: who is slower is not waited for.
const maxWait = 10 * time.Second

// WaitAcked waits until Acknowledged, at most 10 s, and says whether it is so.
func (s *Server) WaitAcked(ctx context.Context, kind agentapi.Kind, r state.Revision) bool {
	limit := s.Clock.After(maxWait)
	for {
		s.mu.Lock()
		ok, changed := s.acknowledged(kind, r), s.change()
		s.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-s.Clock.After(s.Heartbeat): // a lease may have been lost
		case <-limit:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// Subscriber is a node's standing, for people and metrics.
type Subscriber struct {
	Node  string
	Stale bool // its lease is lost: it acts on what it knew
	Acked map[agentapi.Kind]state.Revision
}

// Subscribers lists the nodes that have, or lately had, a session.
func (s *Server) Subscribers() []Subscriber {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Subscriber
	for _, sub := range s.subscribers {
		one := Subscriber{Node: sub.node, Stale: !s.leased(sub), Acked: map[agentapi.Kind]state.Revision{}}
		for kind, t := range sub.sets {
			one.Acked[kind] = t.acked
		}
		list = append(list, one)
	}
	for node, r := range s.remotes {
		one := Subscriber{Node: node, Stale: s.Clock.Now().Sub(r.seen) >= s.Lease, Acked: map[agentapi.Kind]state.Revision{}}
		for kind, set := range r.sets {
			one.Acked[kind] = state.Revision(set.Acked)
		}
		list = append(list, one)
	}
	return list
}
