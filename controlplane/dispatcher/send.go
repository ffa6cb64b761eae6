package dispatcher

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// signal has what waits for a subscriber sent, by a goroutine that is there while something does: thousands of hosts are told nothing for most of
// the time. s.mu is held.
func (s *Server) signal(sub *subscriber) {
	if sub.open && sub.joined && !sub.sending {
		sub.sending = true
		stream := sub.stream
		sub.busy.Go(func() { s.send(sub, stream) })
	}
}

// send sends until nothing waits, or the session has ended. It is the only one that writes to the stream.
func (s *Server) send(sub *subscriber, stream agentapi.Dispatcher_SessionServer) {
	for {
		d := s.take(sub)
		if d == nil {
			return
		}
		if u := d.GetUpdate(); u != nil && u.Full && !s.fill(sub, u) {
			s.mu.Lock()
			s.hangUp(sub, "replaced by a newer session, or the state was replaced by an older one")
			s.mu.Unlock()
			continue
		}
		if d.GetRenew() != nil {
			if d = s.renewal(sub); d == nil {
				continue
			}
		}
		err := stream.Send(d)
		if c := d.GetClose(); c != nil {
			err = status.Error(codes.Aborted, c.Reason)
		}
		if err != nil {
			sub.finish(err)
			return // and none comes after it: sub.sending stays
		}
	}
}

// take takes the next message to be sent; nil: the sender is done. A full set and a word about the certificate are filled in outside the lock.
func (s *Server) take(sub *subscriber) *agentapi.Down {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !sub.open {
		return nil
	}
	if sub.reason != "" {
		return &agentapi.Down{Body: &agentapi.Down_Close{Close: &agentapi.Close{Reason: sub.reason}}}
	}
	if w := sub.welcome; w != nil {
		sub.welcome = nil
		return &agentapi.Down{Body: &agentapi.Down_Welcome{Welcome: w}}
	}
	if u := s.next(sub); u != nil {
		return &agentapi.Down{Body: &agentapi.Down_Update{Update: u}}
	}
	if len(sub.requests) > 0 {
		d := sub.requests[0]
		if sub.requests = sub.requests[1:]; len(sub.requests) == 0 {
			sub.requests = nil
		}
		return d
	}
	if sub.renew {
		sub.renew = false
		return &agentapi.Down{Body: &agentapi.Down_Renew{Renew: &agentapi.Renew{}}}
	}
	sub.sending = false
	return nil
}
