package dispatcher

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// renewalEach is the time that hosts are given to renew their certificates, for each that has a session with this server: so many do not come at once.
const renewalEach = 10 * time.Millisecond

// followPapers has every session look at what hosts should have when that is another.
func (s *Server) followPapers(ctx context.Context) error {
	if s.Papers == nil {
		return nil
	}
	for {
		_, others := s.Papers()
		s.mu.Lock()
		for _, sub := range s.subscribers {
			if sub.renew = sub.papers != nil; sub.renew {
				s.signal(sub)
			}
		}
		s.mu.Unlock()
		select {
		case <-others:
		case <-ctx.Done():
			return nil
		}
	}
}

// renewal is what a host is to be told about its certificate now; nil: nothing. A host is told once what it should have; it tries until it has it, and
// begins a new session then. It is used by the session's sender alone.
func (s *Server) renewal(sub *subscriber) *agentapi.Down {
	if s.Papers == nil {
		return nil
	}
	wanted, _ := s.Papers()
	if proto.Equal(wanted, sub.told) {
		return nil
	}
	sub.told = wanted
	if proto.Equal(wanted, sub.papers) {
		return nil
	}
	s.mu.Lock()
	within := time.Duration(len(s.subscribers)) * renewalEach
	s.mu.Unlock()
	return &agentapi.Down{Body: &agentapi.Down_Renew{Renew: &agentapi.Renew{Wanted: wanted, WithinMillis: uint32(within.Milliseconds())}}}
}
