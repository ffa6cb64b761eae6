package ecsagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/datachannel"
	"github.com/seed-2f228079/neargate/internal/version"
)

const (
	maxMessage    = 1 << 20 // of what agents send
	tasksAMessage = 10
	writeTimeout  = 30 * time.Second
	pingTimeout   = 5 * time.Second  // so that the lease of a connection that is not there is not lost before it has ended
	heartbeat     = 30 * time.Second // how often ACS says that it is there; the agent gives up after a minute or two
)

// session is one connection by which an agent polls.
type session struct {
	*Gateway
	request
	*stream
	conn *datachannel.Conn
	node string
	base string // URL of this server, as the agent calls it

	mu       sync.Mutex
	tasks    map[string]*agentapi.Assignment // by id: what the agent is to run or to stop
	expires  map[string]time.Time            // by id: when the first of a task's credentials end
	waiting  map[string]*update              // by message: what waits for its acknowledgement
	timeline int64
}

// update is one of the dispatcher's, as messages.
type update struct {
	revision uint64
	left     int // messages that are not acknowledged
	since    time.Time
}

// poll serves a connection.
func (g *Gateway) poll(ctx context.Context, conn *datachannel.Conn, r request, node, base string) error {
	conn.Limit(maxMessage)
	group, ctx := errgroup.WithContext(ctx)
	s := &session{Gateway: g, request: r, conn: conn, node: node, base: base, tasks: map[string]*agentapi.Assignment{},
		expires: map[string]time.Time{}, waiting: map[string]*update{}}
	s.stream = &stream{ctx: ctx, ups: make(chan *agentapi.Up, 64), down: s.take}
	// The first word is Hello's: nobody else speaks before the dispatcher has welcomed it, or has reason to.
	s.ups <- &agentapi.Up{Body: &agentapi.Up_Hello{Hello: &agentapi.Hello{
		NodeId: node, NodeName: node, Kinds: []agentapi.Kind{agentapi.Kind_ASSIGNMENTS}, Runtime: capacity.RuntimeAmazon, Speaks: version.Speaks,
		Version: r.agentVersion, Attributes: map[string]string{capacity.HelloAgentHash: r.agentHash, capacity.HelloDockerVersion: r.dockerVersion},
	}}}
	group.Go(func() error {
		err := s.Dispatcher.Session(s)
		if err == nil || status.Code(err) == codes.Aborted { // another session has taken its place, or the server shuts down
			return ended("the dispatcher has ended the session: " + status.Convert(err).Message())
		}
		return err
	})
	group.Go(s.receive)
	group.Go(s.watch)
	return group.Wait()
}

// take takes what the dispatcher says.
func (s *session) take(d *agentapi.Down) error {
	switch body := d.Body.(type) {
	case *agentapi.Down_Update:
		return s.update(body.Update)
	}
	return nil // the agent answers no requests for logs and commands: who asks is told that after a while
}

// update sends what an update changes: tasks in payloads, and what is left in a manifest, where something has gone.
func (s *session) update(u *agentapi.Update) error {
	var changed []*agentapi.Assignment
	s.mu.Lock()
	if u.Full {
		clear(s.tasks)
		clear(s.expires)
	}
	for _, id := range u.Removed {
		delete(s.tasks, id)
		delete(s.expires, id)
	}
	for _, r := range u.Resources {
		s.tasks[r.Name] = r.GetAssignment()
		changed = append(changed, r.GetAssignment())
	}
	s.mu.Unlock()
	var tasks []*task
	for _, a := range changed {
		t, err := s.payload(a)
		var no refusal
		switch {
		case errors.As(err, &no):
			if err := s.say(&agentapi.Up{Body: &agentapi.Up_Status{Status: &agentapi.StatusReport{Tasks: []*agentapi.TaskStatus{no.report(a)}}}}); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			tasks = append(tasks, t)
		}
	}
	var messages [][]byte
	w := &update{revision: u.Revision, since: s.Clock.Now()}
	add := func(kind, id string, message any) error {
		b, err := encode(kind, message)
		if err != nil {
			return err
		}
		messages = append(messages, b)
		w.left++
		s.mu.Lock()
		s.waiting[id] = w
		s.mu.Unlock()
		return nil
	}
	arn, cluster, now := s.scope.ContainerInstanceARN(s.cluster, s.instance), s.scope.ClusterARN(s.cluster), s.Clock.Now().UnixMilli()
	for some := range slices.Chunk(tasks, tasksAMessage) {
		m := &payloadMessage{ClusterArn: cluster, ContainerInstanceArn: arn, Tasks: some, GeneratedAt: now, MessageID: s.messageID()}
		if err := add("PayloadMessage", m.MessageID, m); err != nil {
			return err
		}
	}
	if u.Full || len(u.Removed) > 0 {
		m := s.manifest(cluster, arn, now)
		if err := add("TaskManifestMessage", m.MessageID, m); err != nil {
			return err
		}
	}
	if len(messages) == 0 {
		return s.acknowledge(u.Revision)
	}
	for _, b := range messages {
		if err := s.write(b); err != nil {
			return err
		}
	}
	return nil
}

// manifest is all that the agent is to know of. Its number is the time, so that it grows whichever server it comes from; should clocks differ, the
// agent passes over a manifest, and takes a later one.
func (s *session) manifest(cluster, arn string, now int64) *taskManifest {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timeline = max(s.timeline+1, now)
	m := &taskManifest{ClusterArn: cluster, ContainerInstanceArn: arn, Tasks: []taskIdentifier{}, GeneratedAt: now, MessageID: s.messageID(), Timeline: s.timeline}
	for _, a := range s.tasks {
		m.Tasks = append(m.Tasks, taskIdentifier{TaskArn: a.TaskArn, TaskClusterArn: cluster, DesiredStatus: desired(a)})
	}
	slices.SortFunc(m.Tasks, func(a, b taskIdentifier) int { return strings.Compare(a.TaskArn, b.TaskArn) })
	return m
}

func desired(a *agentapi.Assignment) string {
	if a.Desired == agentapi.DesiredState_DESIRED_STOPPED {
		return "STOPPED"
	}
	return "RUNNING"
}

func (s *session) acknowledge(revision uint64) error {
	return s.say(&agentapi.Up{Body: &agentapi.Up_Ack{Ack: &agentapi.Ack{Kind: agentapi.Kind_ASSIGNMENTS, Revision: revision}}})
}

func (s *session) write(b []byte) error {
	ctx, cancel := context.WithTimeout(s.ctx, writeTimeout)
	defer cancel()
	return s.conn.WriteText(ctx, b)
}

func (s *session) send(kind string, message any) error {
	b, err := encode(kind, message)
	if err != nil {
		return err
	}
	return s.write(b)
}

// receive takes what the agent says until the connection ends.
func (s *session) receive() error {
	for {
		b, err := s.conn.ReadText(s.ctx)
		if err != nil {
			return ended("the connection has ended: " + err.Error())
		}
		var f frame
		var m upMessage
		if err := json.Unmarshal(b, &f); err != nil {
			return fmt.Errorf("a message that is not JSON: %w", err)
		}
		if err := json.Unmarshal(f.Message, &m); err != nil {
			return fmt.Errorf("a %.64s that cannot be read: %w", f.Type, err)
		}
		switch f.Type {
		case "AckRequest":
			err = s.acknowledged(m.MessageID)
		case "NackRequest":
			s.Log.Warn("an ECS agent refuses a message", "node", s.node, "reason", m.Reason)
			err = s.acknowledged(m.MessageID)
		case "TaskStopVerificationMessage":
			err = s.verifyStops(m)
		case "ErrorMessage":
			s.Log.Warn("an ECS agent reports an error", "node", s.node, "message", m.Message)
		}
		if err != nil {
			return err
		}
	}
}

// acknowledged tells the dispatcher of an update whose last message the agent has taken.
func (s *session) acknowledged(message string) error {
	s.mu.Lock()
	w := s.waiting[message]
	delete(s.waiting, message)
	if w != nil {
		w.left--
	}
	s.mu.Unlock()
	if w == nil || w.left > 0 {
		return nil
	}
	return s.acknowledge(w.revision)
}

// verifyStops answers which of the tasks that were in no manifest the agent is to stop: those that are over, or another's. One without a record is
// left alone: the state may have been restored from before it was made.
func (s *session) verifyStops(m upMessage) error {
	v, err := s.Store.Linearizable(s.ctx)
	if err != nil {
		return err
	}
	a := stopVerificationAck{GeneratedAt: s.Clock.Now().UnixMilli(), MessageID: m.MessageID, StopTasks: []taskIdentifier{}}
	for _, c := range m.StopCandidates {
		for t := range controlplane.TasksByID.Scan(v, state.K(taskID(c.TaskArn))) {
			st, ok := controlplane.TaskStatuses.Get(v, controlplane.Tasks.Key(t))
			if ok && t.ARN() == c.TaskArn && (!st.Live() || st.Node != s.node || st.Desired == agentapi.TaskState_STOPPED) {
				a.StopTasks = append(a.StopTasks, taskIdentifier{TaskArn: c.TaskArn, TaskClusterArn: c.TaskClusterArn, DesiredStatus: "STOPPED"})
			}
		}
	}
	return s.send("TaskStopVerificationAck", a)
}

// watch tries the connection, and tells the dispatcher that the agent is there while it answers. It ends the session when the instance is
// deregistered, an acknowledgement is overdue, or it is time for another connection.
func (s *session) watch() error {
	var salt [1]byte
	if _, err := s.Rand.Read(salt[:]); err != nil {
		return err
	}
	rotate := s.Clock.Now().Add(s.Rotation + s.Rotation*time.Duration(salt[0])/2560)
	var said time.Time
	for {
		select {
		case <-s.Clock.After(s.Ping):
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
		now := s.Clock.Now()
		if ci, ok := controlplane.ContainerInstances.Get(s.Store.View(), s.scope.Key(s.cluster, s.instance)); !ok || ci.Status == inactive {
			return ended("the container instance is deregistered")
		}
		if now.After(rotate) {
			return ended("it is time for another connection")
		}
		if s.overdue(now) {
			return fmt.Errorf("the agent has not acknowledged a message within %s", s.Patience)
		}
		if err := s.ping(); err != nil {
			return err
		}
		if err := s.say(&agentapi.Up{Body: &agentapi.Up_Heartbeat{Heartbeat: &agentapi.Heartbeat{}}}); err != nil {
			return err
		}
		if now.Sub(said) >= heartbeat {
			said = now
			if err := s.send("HeartbeatMessage", heartbeatMessage{Healthy: true, MessageID: s.messageID()}); err != nil {
				return err
			}
		}
		if err := s.refresh(now); err != nil {
			return err
		}
	}
}

func (s *session) ping() error {
	ctx, cancel := context.WithTimeout(s.ctx, pingTimeout)
	defer cancel()
	if err := s.conn.Ping(ctx); err != nil {
		return fmt.Errorf("the agent does not answer: %w", err)
	}
	return nil
}

func (s *session) overdue(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.waiting {
		if now.Sub(w.since) > s.Patience {
			return true
		}
	}
	return false
}

// taskID is the last part of a task's ARN.
func taskID(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }
