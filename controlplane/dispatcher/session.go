package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
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
// goroutine is there while something waits: thousands of hosts have nothing to say.
type inbox struct {
	waiting chan *agentapi.Up
	left    atomic.Int32  // waiting or being taken in
	worker  chan struct{} // capacity 1: holds what the goroutine holds, or whoever has ended it for good
}

// Session is the stream of one subscriber: Hello, Welcome, then updates down and acknowledgements and reports up.
func (s *Server) Session(stream agentapi.Dispatcher_SessionServer) error {
	up, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := up.GetHello()
	if hello == nil || hello.NodeId == "" {
		return status.Error(codes.InvalidArgument, "a session starts with Hello and a node id")
	}
	if s.Authorize != nil {
		if err := s.Authorize(stream.Context(), hello.NodeId); err != nil {
			return status.Error(codes.PermissionDenied, err.Error())
		}
	}
	if n := version.Of(hello.Speaks); n < s.OldestAgent {
		return status.Errorf(codes.FailedPrecondition, "this agent's build speaks version %d, and this server takes %d at least: start a newer build of the agent", n, s.OldestAgent)
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	incarnation, err := s.incarnation(ctx)
	if err != nil {
		return status.Error(codes.Unavailable, "the state is not ready: "+err.Error())
	}
	if err := s.catchUp(ctx, hello, incarnation); err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	sub, err := s.subscribe(hello, incarnation, func(reason string) { cancel(closed(reason)) })
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	defer s.unsubscribe(sub)
	if err := s.join(ctx, hello); err != nil {
		return status.Errorf(codes.FailedPrecondition, "node %s can not join: %v", hello.NodeId, err)
	}
	s.mu.Lock()
	sub.joined = true
	s.note(sub)
	s.wake()
	s.mu.Unlock()
	s.Log.Info("agent connected", "node", sub.node, "name", hello.NodeName, "session", sub.session)
	s.reports.add(sub.node, hello.Tasks)
	err = s.serve(ctx, cancel, stream, sub, incarnation)
	s.Log.Info("agent disconnected", "node", sub.node, "session", sub.session, "error", err)
	return err
}

// closed is a session's end that the subscriber is told the reason of.
type closed string

func (c closed) Error() string { return string(c) }

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
			return fmt.Errorf("this server is at revision %d, the subscriber has seen %d", s.Store.Revision(), seen)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// subscribe makes the node's new subscriber and ends the older session, if there is one.
func (s *Server) subscribe(h *agentapi.Hello, incarnation string, close func(string)) (*subscriber, error) {
	sub := &subscriber{
		node: h.NodeId, papers: h.Papers, session: id.Hex(s.Rand, 16), incarnation: incarnation, sets: map[agentapi.Kind]*set{}, ready: make(chan struct{}, 1), gone: make(chan struct{}), close: close,
	}
	served := map[agentapi.Kind]bool{}
	for _, source := range s.Sources {
		served[source.Kind()] = true
	}
	for _, kind := range h.Kinds {
		if !served[kind] {
			return nil, fmt.Errorf("no source serves %s", kind)
		}
		sub.sets[kind] = &set{full: true, waiting: map[string]pending{}}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.watching {
		return nil, fmt.Errorf("the server is starting")
	}
	sub.seen = s.Clock.Now()
	if old := s.subscribers[sub.node]; old != nil && old.close != nil {
		old.close("replaced by a newer session")
	}
	s.subscribers[sub.node] = sub
	sub.signal()
	s.wake()
	return sub, nil
}

// unsubscribe ends the session; the subscriber stays until its node is back or given up.
func (s *Server) unsubscribe(sub *subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub.close = nil
	sub.requests = nil
	close(sub.gone)
}

func (s *Server) closeSessions(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watching = false
	for _, sub := range s.subscribers {
		if sub.close != nil {
			sub.close(reason)
		}
	}
}

// serve runs the two directions until one of them ends. The receiver ends with the stream, which gRPC cancels when Session
// returns.
func (s *Server) serve(ctx context.Context, cancel context.CancelCauseFunc, stream agentapi.Dispatcher_SessionServer, sub *subscriber, incarnation string) error {
	err := stream.Send(&agentapi.Down{Body: &agentapi.Down_Welcome{Welcome: &agentapi.Welcome{
		SessionId: sub.session, Incarnation: incarnation, LeaseMillis: uint32(s.Lease.Milliseconds()),
		HeartbeatMillis: uint32(s.Heartbeat.Milliseconds()), Account: s.Rule.Account, Region: s.Rule.Region,
	}}})
	if err != nil {
		return err
	}
	in := &inbox{worker: make(chan struct{}, 1)}
	go func() {
		cancel(s.receive(ctx, stream, sub, in))
	}()
	err = s.send(ctx, stream, sub)
	cancel(err)
	in.worker <- struct{}{} // it has ended, and none begins any more
	if reason, ok := context.Cause(ctx).(closed); ok {
		_ = stream.Send(&agentapi.Down{Body: &agentapi.Down_Close{Close: &agentapi.Close{Reason: string(reason)}}})
		return status.Error(codes.Aborted, string(reason))
	}
	if errors.Is(err, io.EOF) {
		return nil // the subscriber has ended the session
	}
	return err
}

func (s *Server) send(ctx context.Context, stream agentapi.Dispatcher_SessionServer, sub *subscriber) error {
	for {
		for u := s.next(sub); u != nil; u = s.next(sub) {
			if u.Full && !s.fill(sub, u) {
				return closed("replaced by a newer session, or the state was replaced by an older one")
			}
			if err := stream.Send(&agentapi.Down{Body: &agentapi.Down_Update{Update: u}}); err != nil {
				return err
			}
		}
		for _, r := range s.takeRequests(sub) {
			if err := stream.Send(r); err != nil {
				return err
			}
		}
		renew, others := s.renewal(sub)
		if renew != nil {
			if err := stream.Send(&agentapi.Down{Body: &agentapi.Down_Renew{Renew: renew}}); err != nil {
				return err
			}
		}
		select {
		case <-sub.ready:
		case <-others:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Server) receive(ctx context.Context, stream agentapi.Dispatcher_SessionServer, sub *subscriber, in *inbox) error {
	for {
		up, err := stream.Recv()
		if err != nil {
			return err
		}
		s.mu.Lock()
		sub.seen = s.Clock.Now()
		if ack := up.GetAck(); ack != nil {
			if t := sub.sets[ack.Kind]; t != nil {
				t.acknowledge(state.Revision(ack.Revision))
				if t.full || len(t.waiting) > 0 {
					sub.signal() // it may have waited for this
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
			if err := s.takeTraffic(ctx, sub, in, up); err != nil {
				return err
			}
		case *agentapi.Up_Hello:
			return status.Error(codes.InvalidArgument, "a second Hello")
		}
	}
}

// takeTraffic has a report of proxies and health checkers, or of the host itself, taken in after those before it.
func (s *Server) takeTraffic(ctx context.Context, sub *subscriber, in *inbox, up *agentapi.Up) error {
	if in.waiting == nil {
		in.waiting = make(chan *agentapi.Up, maxInbox)
	}
	select {
	case in.waiting <- up:
	case <-ctx.Done():
		return ctx.Err()
	}
	if in.left.Add(1) > 1 {
		return nil
	}
	select {
	case in.worker <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	go func() {
		defer func() { <-in.worker }()
		s.workTraffic(ctx, sub, in)
	}()
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
			s.mu.Lock()
			if sub.close != nil {
				sub.close("a report could not be taken in: " + err.Error())
			}
			s.mu.Unlock()
			return
		}
		if in.left.Add(-1) == 0 {
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
