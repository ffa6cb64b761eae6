package dispatcher

import (
	"time"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// renewalEach is the time that hosts are given to renew their certificates, for each that has a session with this server: so many do not come at once.
const renewalEach = 10 * time.Millisecond

// renewal is what a host is to be told about its certificate now, if anything, and a channel that is closed when that may have changed. A host is told
// once what it should have; it tries until it has it, and begins a new session then. It is used by the session's sender alone.
func (s *Server) renewal(sub *subscriber) (*agentapi.Renew, <-chan struct{}) {
	if s.Papers == nil || sub.papers == nil {
		return nil, nil
	}
	wanted, others := s.Papers()
	if proto.Equal(wanted, sub.told) {
		return nil, others
	}
	sub.told = wanted
	if proto.Equal(wanted, sub.papers) {
		return nil, others
	}
	s.mu.Lock()
	within := time.Duration(len(s.subscribers)) * renewalEach
	s.mu.Unlock()
	return &agentapi.Renew{Wanted: wanted, WithinMillis: uint32(within.Milliseconds())}, others
}
