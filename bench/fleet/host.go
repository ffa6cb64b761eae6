package fleet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/trust"
)

// host is one of the fleet.
type host struct {
	fleet    *Fleet
	id       string
	zone     string
	number   int
	conn     *trust.Servers
	end      context.CancelFunc
	welcomed chan struct{} // closed at the first welcome
	first    sync.Once

	mu    sync.Mutex
	lost  bool
	tasks map[string]*agentapi.TaskStatus
	// incarnation and revision are where it is, for the next hello.
	incarnation string
	revision    uint64
}

// patience is how long what is not urgent waits for something that takes it along, as with an agent.
const patience = 200 * time.Millisecond

// line is one session's way up. Whoever has something to say sends it: a goroutine for that would be one more a host, asleep for most of its life.
type line struct {
	stream agentapi.Dispatcher_SessionClient
	end    context.CancelFunc
	beat   time.Duration

	mu    sync.Mutex             // held while sending
	timer *time.Timer            // of the next heartbeat, or of what waits
	tasks []*agentapi.TaskStatus // that wait
	ack   uint64                 // that waits; 0: none
}

// later has an acknowledgement and statuses wait for what is urgent.
func (l *line) later(ack uint64, tasks []*agentapi.TaskStatus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ack == 0 {
		l.timer.Reset(patience)
	}
	l.ack, l.tasks = ack, append(l.tasks, tasks...)
}

// say sends statuses, and what has waited; nothing at all is a heartbeat. A session that takes nothing any more ends.
func (l *line) say(tasks ...*agentapi.TaskStatus) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stream.Context().Err() != nil {
		return
	}
	for _, old := range l.tasks {
		if !slices.ContainsFunc(tasks, func(t *agentapi.TaskStatus) bool { return t.TaskId == old.TaskId }) {
			tasks = append(tasks, old)
		}
	}
	var ups []*agentapi.Up
	if l.ack != 0 {
		ups = append(ups, &agentapi.Up{Body: &agentapi.Up_Ack{Ack: &agentapi.Ack{Kind: agentapi.Kind_ASSIGNMENTS, Revision: l.ack}}})
	}
	if len(tasks) > 0 {
		ups = append(ups, &agentapi.Up{Body: &agentapi.Up_Status{Status: &agentapi.StatusReport{Tasks: tasks}}})
	}
	if len(ups) == 0 {
		ups = append(ups, &agentapi.Up{Body: &agentapi.Up_Heartbeat{Heartbeat: &agentapi.Heartbeat{}}})
	}
	l.ack, l.tasks = 0, nil
	for _, up := range ups {
		if l.stream.Send(up) != nil {
			l.end()
			return
		}
	}
	l.timer.Reset(l.beat)
}

func newHost(f *Fleet, number int, id string, conn *trust.Servers) *host {
	return &host{
		fleet: f, id: id, number: number, zone: f.cfg.Zones[number%len(f.cfg.Zones)], conn: conn, welcomed: make(chan struct{}),
		tasks: map[string]*agentapi.TaskStatus{},
	}
}

// lose is the host's power going off.
func (h *host) lose() {
	h.mu.Lock()
	if !h.lost {
		h.lost = true
		for _, t := range h.tasks {
			if t.State == agentapi.TaskState_RUNNING {
				h.fleet.running.Add(-1)
			}
		}
		clear(h.tasks)
	}
	h.mu.Unlock()
	h.end()
}

// run holds one session after the other until ctx ends.
func (h *host) run(ctx context.Context) {
	client := agentapi.NewDispatcherClient(h.conn)
	for wait := 50 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, 5*time.Second) {
		if err := h.session(ctx, client); err != nil && ctx.Err() == nil {
			h.fleet.cfg.Log.Warn("session ended", "host", h.id, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (h *host) hello() *agentapi.Hello {
	h.mu.Lock()
	defer h.mu.Unlock()
	hello := &agentapi.Hello{
		NodeId: h.id, NodeName: fmt.Sprintf("host-%05d", h.number), Incarnation: h.incarnation, Kinds: []agentapi.Kind{agentapi.Kind_ASSIGNMENTS},
		Resources:  &agentapi.NodeResources{CpuUnits: h.fleet.cfg.CPU, MemoryMib: h.fleet.cfg.Memory, FirstDynamicPort: 32768, LastDynamicPort: 60999},
		Attributes: map[string]string{"ecs.availability-zone": h.zone, "ecs.os-type": "linux", "ecs.cpu-architecture": "x86_64"},
		Cluster:    h.fleet.cfg.Cluster, Version: "fleet", Runtime: "fake", Address: fmt.Sprintf("10.%d.%d.%d", h.number>>16&255, h.number>>8&255, h.number&255),
		Tasks: slices.Collect(maps.Values(h.tasks)),
	}
	if h.revision != 0 {
		hello.Revisions = map[int32]uint64{int32(agentapi.Kind_ASSIGNMENTS): h.revision}
	}
	return hello
}

// session is one stream from Hello to its end.
func (h *host) session(ctx context.Context, client agentapi.DispatcherClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Session(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&agentapi.Up{Body: &agentapi.Up_Hello{Hello: h.hello()}}); err != nil {
		return err
	}
	down, err := stream.Recv()
	if err != nil {
		return err
	}
	welcome := down.GetWelcome()
	if welcome == nil {
		return fmt.Errorf("%T in place of a welcome", down.Body)
	}
	h.fleet.sessions.Add(1)
	h.fleet.connected.Add(1)
	defer h.fleet.connected.Add(-1)
	h.first.Do(func() { close(h.welcomed) })
	h.mu.Lock()
	h.incarnation = welcome.Incarnation
	h.mu.Unlock()
	up := &line{stream: stream, end: cancel, beat: time.Duration(welcome.HeartbeatMillis) * time.Millisecond}
	up.mu.Lock()
	up.timer = time.AfterFunc(up.beat, func() { up.say() })
	up.mu.Unlock()
	defer up.timer.Stop()
	for {
		down, err := stream.Recv()
		if err != nil {
			return err
		}
		if u := down.GetUpdate(); u != nil {
			h.apply(up, u)
		}
		if c := down.GetClose(); c != nil {
			return fmt.Errorf("closed: %s", c.Reason)
		}
	}
}

// apply makes an update effective and acknowledges it.
func (h *host) apply(up *line, u *agentapi.Update) {
	var stopped, activating []*agentapi.TaskStatus
	var begun []string
	h.mu.Lock()
	for _, r := range u.Resources {
		a := r.GetAssignment()
		t := h.tasks[a.TaskId]
		switch {
		case a.Desired == agentapi.DesiredState_DESIRED_STOPPED:
			if t != nil && t.State == agentapi.TaskState_RUNNING {
				h.fleet.running.Add(-1)
			}
			t = &agentapi.TaskStatus{TaskId: a.TaskId, Epoch: a.Epoch, State: agentapi.TaskState_STOPPED, StoppedReason: a.StopReason, StopCode: "UserInitiated", Stopped: timestamppb.Now()}
			for _, c := range a.Spec.GetContainers() {
				t.Containers = append(t.Containers, &agentapi.ContainerStatus{Name: c.Name, State: agentapi.ContainerState_CONTAINER_STOPPED, ExitCode: new(int32(143))})
			}
			h.tasks[a.TaskId] = t
			stopped = append(stopped, t)
		case t == nil:
			t = &agentapi.TaskStatus{TaskId: a.TaskId, Epoch: a.Epoch, State: agentapi.TaskState_ACTIVATING, PullStarted: timestamppb.Now(), PullStopped: timestamppb.Now()}
			for _, c := range a.Spec.GetContainers() {
				t.Containers = append(t.Containers, &agentapi.ContainerStatus{Name: c.Name, State: agentapi.ContainerState_CONTAINER_PULLED})
			}
			h.tasks[a.TaskId] = t
			activating, begun = append(activating, t), append(begun, a.TaskId)
		}
	}
	for _, id := range u.Removed {
		h.drop(id)
	}
	if u.Full {
		named := map[string]bool{}
		for _, r := range u.Resources {
			named[r.Name] = true
		}
		for id := range h.tasks {
			if !named[id] {
				h.drop(id)
			}
		}
	}
	h.revision = u.Revision
	h.mu.Unlock()
	up.later(u.Revision, activating)
	if len(stopped) > 0 {
		up.say(stopped...)
	}
	if len(begun) > 0 {
		time.AfterFunc(h.fleet.cfg.Start, func() { h.begin(up, begun) })
	}
}

// drop forgets a task; h.mu is held.
func (h *host) drop(id string) {
	if t := h.tasks[id]; t != nil && t.State == agentapi.TaskState_RUNNING {
		h.fleet.running.Add(-1)
	}
	delete(h.tasks, id)
}

// begin is the tasks' containers running.
func (h *host) begin(up *line, ids []string) {
	var report []*agentapi.TaskStatus
	h.mu.Lock()
	for _, id := range ids {
		t := h.tasks[id]
		if t == nil || t.State != agentapi.TaskState_ACTIVATING {
			continue // stopped meanwhile
		}
		now := timestamppb.Now()
		next := &agentapi.TaskStatus{
			TaskId: id, Epoch: t.Epoch, State: agentapi.TaskState_RUNNING, PullStarted: t.PullStarted, PullStopped: t.PullStopped, Started: now, Connected: now,
			HostAddress: fmt.Sprintf("10.%d.%d.%d", h.number>>16&255, h.number>>8&255, h.number&255), Address: "172.17.0.2",
		}
		for _, c := range t.Containers {
			next.Containers = append(next.Containers, &agentapi.ContainerStatus{
				Name: c.Name, State: agentapi.ContainerState_CONTAINER_RUNNING, RuntimeId: id + "-" + c.Name, Started: now,
				ImageDigest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
			})
		}
		h.tasks[id] = next
		h.fleet.running.Add(1)
		h.fleet.started.Add(1)
		report = append(report, next)
	}
	h.mu.Unlock()
	if len(report) > 0 {
		up.say(report...)
	}
}
