package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/id"
	"github.com/seed-2f228079/neargate/internal/version"
)

// maxInbox bounds what traffic reports may wait; the stream is not read meanwhile.
const maxInbox = 64

// inbox is what a subscriber has reported of traffic and of its host, beside the receiver, so that a slow commit does not hold up heartbeats. Its
// goroutine is there while something waits, and it itself once there was something: thousands of hosts have nothing to say.
type inbox struct {
	waiting chan *agentapi.Up
	left    int                // waiting or being taken in; guarded by Server.mu, as is the next
	cancel  context.CancelFunc // of the goroutine; nil: none has begun
}

// Session is the stream of one subscriber: Hello, Welcome, then updates down and acknowledgements and reports up.
//
// A stack that was large once stays so unless almost all of it is free, and below a handler lie many frames of gRPC. So the handler only waits, and what
// goes deeper is done by goroutines that end: one for the beginning, one for what comes, one to send while there is something to.
func (s *Server) Session(stream agentapi.Dispatcher_SessionServer) error {
	sub := &subscriber{ended: make(chan error, 1), gone: make(chan struct{})}
	go func() {
		if err := s.begin(stream, sub); err != nil {
			sub.finish(err)
			return
		}
		// It ends with the stream, which gRPC cancels when Session returns.
		go func() { sub.finish(s.receive(stream, sub)) }()
	}()
	return s.unsubscribe(sub, <-sub.ended)
}

// begin takes the hello, joins the node, and has the welcome sent and all that follows.
func (s *Server) begin(stream agentapi.Dispatcher_SessionServer, sub *subscriber) error {
	up, err := stream.Recv()
	if err != nil {
		return err
	}
	ctx, hello := stream.Context(), up.GetHello()
	if hello == nil || hello.NodeId == "" {
		return status.Error(codes.InvalidArgument, "a session starts with Hello and a node id")
	}
	if s.Authorize != nil {
		if err := s.Authorize(ctx, hello.NodeId); err != nil {
			return status.Error(codes.PermissionDenied, err.Error())
		}
	}
	if n := version.Of(hello.Speaks); n < s.OldestAgent {
		return status.Errorf(codes.FailedPrecondition, "this agent's build speaks version %d, and this server takes %d at least: start a newer build of the agent", n, s.OldestAgent)
	}
	incarnation, err := s.incarnation(ctx)
	if err != nil {
		return status.Error(codes.Unavailable, "the state is not ready: "+err.Error())
	}
	if err := s.catchUp(ctx, hello, incarnation); err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	if err := s.subscribe(stream, sub, hello, incarnation); err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	if err := s.join(ctx, hello); err != nil {
		return status.Errorf(codes.FailedPrecondition, "node %s can not join: %v", hello.NodeId, err)
	}
	s.Log.Info("agent connected", "node", sub.node, "name", hello.NodeName, "session", sub.session)
	s.reports.add(sub.node, hello.Tasks)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !sub.open || sub.reason != "" {
		return nil // it has ended meanwhile
	}
	sub.welcome = &agentapi.Welcome{
		SessionId: sub.session, Incarnation: incarnation, LeaseMillis: uint32(s.Lease.Milliseconds()),
		HeartbeatMillis: uint32(s.Heartbeat.Milliseconds()), Account: s.Rule.Account, Region: s.Rule.Region,
	}
	sub.joined, sub.renew = true, sub.papers != nil
	s.note(sub)
	s.wake()
	s.signal(sub)
	return nil
}

// catchUp waits until this server has what the subscriber has seen, elsewhere: it is never told what is older.
func (s *Server) catchUp(ctx context.Context, h *agentapi.Hello, incarnation string) error {
	if h.Incarnation != incarnation {
		return nil
	}
	var seen uint64
	for _, r := range h.Revisions {
		seen = max(seen, r)
	}
	limit := s.Clock.After(s.Lease)
	for uint64(s.Store.Revision()) < seen {
		select {
		case <-s.Clock.After(50 * time.Millisecond):
		case <-limit:
			if r := s.Store.Revision(); uint64(r) < seen {
				return fmt.Errorf("this server is at revision %d, the subscriber has seen %d", r, seen)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// subscribe makes the node's new subscriber and ends the older session, if there is one.
func (s *Server) subscribe(stream agentapi.Dispatcher_SessionServer, sub *subscriber, h *agentapi.Hello, incarnation string) error {
	sub.node, sub.papers, sub.session, sub.incarnation, sub.sets = h.NodeId, h.Papers, id.Hex(s.Rand, 16), incarnation, make(map[agentapi.Kind]*set, len(h.Kinds))
	served := map[agentapi.Kind]bool{}
	for _, source := range s.Sources {
		served[source.Kind()] = true
	}
	for _, kind := range h.Kinds {
		if !served[kind] {
			return fmt.Errorf("no source serves %s", kind)
		}
		sub.sets[kind] = &set{full: true}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.watching {
		return fmt.Errorf("the server is starting")
	}
	sub.seen = s.Clock.Now()
	if old := s.subscribers[sub.node]; old != nil {
		s.hangUp(old, "replaced by a newer session")
	}
	sub.open, sub.stream = true, stream
	s.subscribers[sub.node] = sub
	s.wake()
	return nil
}

// unsubscribe ends the session for err, and returns what the stream ends with. The subscriber stays until its node is back or given up.
func (s *Server) unsubscribe(sub *subscriber, err error) error {
	s.mu.Lock()
	begun, in := sub.open, sub.inbox
	sub.open, sub.stream, sub.requests, sub.inbox = false, nil, nil, nil
	s.mu.Unlock()
	if !begun {
		return err
	}
	if in != nil && in.cancel != nil {
		in.cancel()
	}
	sub.busy.Wait() // none begins any more
	close(sub.gone)
	s.Log.Info("agent disconnected", "node", sub.node, "session", sub.session, "error", err)
	if errors.Is(err, io.EOF) {
		return nil // the subscriber has ended the session
	}
	return err
}

// hangUp ends a session that is open; its agent is told the reason. s.mu is held.
func (s *Server) hangUp(sub *subscriber, reason string) {
	if !sub.open || sub.reason != "" {
		return
	}
	sub.reason = reason
	if !sub.joined {
		sub.finish(status.Error(codes.Aborted, reason)) // nothing is sent to it yet
		return
	}
	s.signal(sub)
}

func (s *Server) closeSessions(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watching = false
	for _, sub := range s.subscribers {
		s.hangUp(sub, reason)
	}
}

func (s *Server) receive(stream agentapi.Dispatcher_SessionServer, sub *subscriber) error {
	up := new(agentapi.Up) // of every message: most are heartbeats
	for {
		if err := stream.RecvMsg(up); err != nil {
			return err
		}
		s.mu.Lock()
		sub.seen = s.Clock.Now()
		if ack := up.GetAck(); ack != nil {
			if t := sub.sets[ack.Kind]; t != nil {
				t.acknowledge(state.Revision(ack.Revision))
				if t.full || len(t.waiting) > 0 {
					s.signal(sub) // it may have waited for this
				}
				s.note(sub)
				s.wake()
			}
		}
		s.mu.Unlock()
		switch body := up.Body.(type) {
		case *agentapi.Up_Status:
			s.reports.add(sub.node, body.Status.Tasks)
		case *agentapi.Up_Health, *agentapi.Up_Drained, *agentapi.Up_Host:
			if s.Traffic == nil && up.GetHost() == nil {
				return status.Error(codes.Unimplemented, "this server takes no reports of traffic")
			}
			if err := s.takeTraffic(stream.Context(), sub, up); err != nil {
				return err
			}
			up = new(agentapi.Up)
		case *agentapi.Up_Hello:
			return status.Error(codes.InvalidArgument, "a second Hello")
		}
	}
}

// takeTraffic has a report of proxies and health checkers, or of the host itself, taken in after those before it.
func (s *Server) takeTraffic(ctx context.Context, sub *subscriber, up *agentapi.Up) error {
	s.mu.Lock()
	if sub.inbox == nil && sub.open {
		sub.inbox = &inbox{waiting: make(chan *agentapi.Up, maxInbox)}
	}
	in := sub.inbox
	s.mu.Unlock()
	if in == nil {
		return nil // the session has ended
	}
	select {
	case in.waiting <- up:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.left++; in.left > 1 || !sub.open || sub.reason != "" {
		return nil
	}
	ctx, in.cancel = context.WithCancel(ctx)
	sub.busy.Go(func() { s.workTraffic(ctx, sub, in) })
	return nil
}

// workTraffic takes in what waits. A report that cannot be taken in ends the session: the agent repeats what it knows in the next one.
func (s *Server) workTraffic(ctx context.Context, sub *subscriber, in *inbox) {
	for {
		err := s.takeReport(ctx, sub.node, <-in.waiting)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.Log.Error("cannot take in a report", "node", sub.node, "error", err)
		}
		s.mu.Lock()
		if err != nil {
			s.hangUp(sub, "a report could not be taken in: "+err.Error())
		}
		in.left--
		done := in.left == 0 || sub.reason != ""
		if done {
			in.cancel()
		}
		s.mu.Unlock()
		if done {
			return
		}
	}
}

// takeReport takes in one report. Of drains the leader and this server are told: the one that it may become has to know.
func (s *Server) takeReport(ctx context.Context, node string, up *agentapi.Up) error {
	if h := up.GetHost(); h != nil {
		health := &NodeHealth{Node: node, Health: h}
		return s.lead(ctx, func() error { return s.noteHealth(ctx, health) }, &Relay{Body: &Relay_Health{health}})
	}
	report := &TrafficReport{Node: node, Health: up.GetHealth().GetTransitions(), Drained: up.GetDrained().GetDrained()}
	msg := &Relay{Body: &Relay_Traffic{report}}
	if len(report.Health) > 0 {
		return s.lead(ctx, func() error { return s.Traffic.Health(ctx, node, report.Health) }, msg)
	}
	return s.lead(ctx, func() error {
		if err := s.Traffic.Drained(ctx, node, report.Drained); err != nil {
			return err
		}
		if l := s.Store.Leadership(); l.Term == 0 && l.Leader != "" {
			return state.ErrNotLeader
		}
		return nil
	}, msg)
}
