package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/version"
)

// maxPending is how many updates of one kind may wait for a sink; a server coalesces, so more means that it does not.
const maxPending = 256

// reconnect waits between sessions: quick at first, then up to the second value.
const (
	firstReconnect = 50 * time.Millisecond
	lastReconnect  = 5 * time.Second
)

// position is how far this host has followed the control plane.
type position struct {
	Incarnation string           `json:"incarnation"`
	Revisions   map[int32]uint64 `json:"revisions"` // of assignments only: the other sets live in memory
}

// connectLoop holds one session after the other until ctx ends.
func (a *Agent) connectLoop(ctx context.Context) error {
	wait := firstReconnect
	for ctx.Err() == nil {
		began := a.cfg.Clock.Now()
		err := a.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if a.cfg.Clock.Now().Sub(began) > lastReconnect {
			wait = firstReconnect
		}
		a.log.Warn("session with the control plane ended; tasks go on", "error", err, "retry_in", wait)
		select {
		case <-ctx.Done():
		case <-a.cfg.Clock.After(wait):
		}
		wait = min(2*wait, lastReconnect)
	}
	return nil
}

// session is one stream from Hello to its end.
func (a *Agent) session(ctx context.Context) error {
	tasks := ctx // tasks outlive the session
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := a.cfg.Client.Session(ctx)
	if err != nil {
		return err
	}
	a.out.newSession()
	hello, err := a.hello()
	if err != nil {
		return err
	}
	if err := stream.Send(&agentapi.Up{Body: &agentapi.Up_Hello{Hello: hello}}); err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	welcome := first.GetWelcome()
	if welcome == nil {
		return fmt.Errorf("the server began with %T instead of a welcome", first.Body)
	}
	a.greeted = true
	a.connected.Store(true)
	defer a.connected.Store(false)
	s := &session{a: a, stream: stream, welcome: welcome, fail: cancel, boxes: map[agentapi.Kind]*mailbox{}}
	s.sameIncarnation = a.pos.Incarnation == "" || a.pos.Incarnation == welcome.Incarnation
	a.log.Info("session with the control plane", "session", welcome.SessionId, "incarnation", welcome.Incarnation)
	var wg sync.WaitGroup
	s.start(ctx, tasks, &wg)
	wg.Add(1)
	go func() {
		defer wg.Done()
		s.send(ctx)
	}()
	err = s.receive(ctx)
	cancel(err)
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

func (a *Agent) hello() (*agentapi.Hello, error) {
	h, err := a.cfg.hello()
	if err != nil {
		return nil, err
	}
	h.Incarnation, h.Revisions, h.Tasks = a.pos.Incarnation, maps.Clone(a.pos.Revisions), a.statuses()
	h.Health, h.Started = a.hostHealth(), !a.greeted
	h.Kinds = []agentapi.Kind{agentapi.Kind_ASSIGNMENTS}
	for _, s := range a.cfg.Sinks {
		h.Kinds = append(h.Kinds, s.Kinds()...)
	}
	return h, nil
}

// hello is what the host is.
func (c *Config) hello() (*agentapi.Hello, error) {
	h := &agentapi.Hello{
		NodeId: c.NodeID, NodeName: c.NodeName, Resources: c.Resources, Attributes: c.Attributes,
		Cluster: c.Cluster, Version: c.Version, Runtime: c.Driver.Name(), Address: c.Address, Speaks: version.Speaks,
	}
	if c.Network == nil {
		return h, nil
	}
	var err error
	if h.Network, err = c.Network(); err != nil {
		return nil, fmt.Errorf("the network of this host's tasks: %w", err)
	}
	return h, nil
}

type session struct {
	a               *Agent
	stream          agentapi.Dispatcher_SessionClient
	welcome         *agentapi.Welcome
	sameIncarnation bool
	fail            context.CancelCauseFunc
	boxes           map[agentapi.Kind]*mailbox
}

// mailbox is one kind's queue: a slow sink holds up its own kind and no other.
type mailbox struct {
	updates chan *agentapi.Update
	apply   func(context.Context, *agentapi.Update) error
}

// start runs a goroutine a kind. Only the session's own goroutines use what they close over.
func (s *session) start(ctx, tasks context.Context, wg *sync.WaitGroup) {
	s.boxes[agentapi.Kind_ASSIGNMENTS] = &mailbox{apply: func(_ context.Context, u *agentapi.Update) error {
		if err := s.a.applyAssignments(tasks, u, s.sameIncarnation); err != nil {
			return err
		}
		s.a.pos = position{Incarnation: s.welcome.Incarnation, Revisions: map[int32]uint64{int32(agentapi.Kind_ASSIGNMENTS): u.Revision}}
		return s.a.store.savePosition(s.a.pos)
	}}
	names := map[string]endpointKey{}
	for _, sink := range s.a.cfg.Sinks {
		for _, k := range sink.Kinds() {
			apply := sink.Apply
			if k == agentapi.Kind_CHECKS {
				apply = func(ctx context.Context, u *agentapi.Update) error {
					s.a.out.checked(u, names)
					return sink.Apply(ctx, u)
				}
			}
			s.boxes[k] = &mailbox{apply: apply}
		}
	}
	for k, b := range s.boxes {
		b.updates = make(chan *agentapi.Update, maxPending)
		wg.Add(1)
		go func() {
			defer wg.Done()
			s.work(ctx, k, b)
		}()
	}
}

func (s *session) work(ctx context.Context, k agentapi.Kind, b *mailbox) {
	for {
		select {
		case <-ctx.Done():
			return
		case u := <-b.updates:
			if err := b.apply(ctx, u); err != nil {
				if ctx.Err() == nil {
					s.fail(fmt.Errorf("apply %s at revision %d: %w", k, u.Revision, err))
				}
				return
			}
			s.a.out.ack(k, u.Revision)
		}
	}
}

func (s *session) receive(ctx context.Context) error {
	for {
		m, err := s.stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("the server closed the session")
			}
			return err
		}
		switch b := m.Body.(type) {
		case *agentapi.Down_Close:
			return errors.New("the server closed the session: " + b.Close.Reason)
		case *agentapi.Down_Logs:
			go s.a.sendLogs(ctx, b.Logs)
		case *agentapi.Down_Exec:
			s.a.wg.Go(func() { s.a.exec(ctx, b.Exec) })
		case *agentapi.Down_Update:
			box := s.boxes[b.Update.Kind]
			if box == nil {
				return fmt.Errorf("an update of %s, which was not asked for", b.Update.Kind)
			}
			select {
			case box.updates <- b.Update:
			default:
				return fmt.Errorf("%d updates of %s wait already", maxPending, b.Update.Kind)
			}
		}
		// Bodies unknown to this version are skipped: a newer server may send them.
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// send is the only goroutine that writes to the stream.
func (s *session) send(ctx context.Context) {
	beat := time.Duration(s.welcome.HeartbeatMillis) * time.Millisecond
	if beat <= 0 {
		beat = time.Second
	}
	var late <-chan time.Time // when what waits for others is sent all the same
	for {
		var ups []*agentapi.Up
		select {
		case <-ctx.Done():
			_ = s.stream.CloseSend() // the stream ends anyway
			return
		case <-s.a.cfg.Clock.After(beat):
			ups = []*agentapi.Up{{Body: &agentapi.Up_Heartbeat{Heartbeat: &agentapi.Heartbeat{}}}}
		case <-s.a.out.ready:
			ups = s.a.out.take(false)
		case <-s.a.out.later:
			if late == nil {
				late = s.a.cfg.Clock.After(tellWithin)
			}
		case <-late:
			late, ups = nil, s.a.out.take(true)
		}
		for _, u := range ups {
			if err := s.stream.Send(u); err != nil {
				s.fail(fmt.Errorf("send: %w", err))
				return
			}
		}
	}
}
