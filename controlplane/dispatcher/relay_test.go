package dispatcher

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/raft"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/testcluster"
)

// several are three servers' dispatchers, which reach one another as long as their servers run.
type several struct {
	*testcluster.Cluster
	t      *testing.T
	planes map[string]*plane
}

func newSeveral(t *testing.T, lease time.Duration) *several {
	return newSeveralBy(t, lease, func(string) clock.Clock { return clock.Real{} })
}

// newSeveralBy is newSeveral with a clock for each server.
func newSeveralBy(t *testing.T, lease time.Duration, of func(server string) clock.Clock) *several {
	s := &several{t: t, planes: map[string]*plane{}}
	s.Cluster = testcluster.New(t, testcluster.Config{Servers: 3, Schema: planeSchema, Configure: func(o *raft.Options) {
		testcluster.Patient(o)
		o.Clock = of(o.NodeID)
	}})
	made := make(chan struct{}) // closed when planes has all of them
	defer close(made)
	for _, server := range s.Servers() {
		s.planes[server.ID] = newPlaneOn(t, Config{
			Store: server.Store(), Clock: of(server.ID), Traffic: &traffic{}, Heartbeat: 40 * time.Millisecond, Lease: lease, Grace: time.Second, Self: server.ID,
			Leader: func(ctx context.Context, msg *Relay) (*RelayAnswer, error) {
				<-made
				leader := s.planes[server.Store().Leadership().Leader]
				if leader == nil || leader.Self == server.ID {
					return nil, errors.New("nobody else leads")
				}
				return leader.Relayed(ctx, server.ID, msg)
			},
			Servers: func() (ids []string) {
				for _, other := range s.Servers() {
					if other != server && other.Engine() != nil {
						ids = append(ids, other.ID)
					}
				}
				return ids
			},
		})
	}
	return s
}

// traffic keeps what it is told.
type traffic struct {
	mu      sync.Mutex
	health  int
	drained map[string][]*agentapi.Drained
}

func (f *traffic) Health(context.Context, string, []*agentapi.HealthTransition) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.health++
	return nil
}

func (f *traffic) Drained(_ context.Context, node string, list []*agentapi.Drained) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.drained == nil {
		f.drained = map[string][]*agentapi.Drained{}
	}
	f.drained[node] = append(f.drained[node], list...)
	return nil
}

func (f *traffic) Repeat(node string) []*agentapi.Drained {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.drained[node]
}

func (p *plane) knowsDrain(node string) bool { return len(p.Traffic.Repeat(node)) > 0 }

// placed places a task on a node and returns the change's revision.
func (p *plane) placed(node string) state.Revision {
	p.t.Helper()
	task := p.task(node)
	_, r, ok := controlplane.TaskStatuses.GetRevision(p.Store.View(), controlplane.Tasks.Key(task))
	if !ok {
		p.t.Fatal("the task is not there")
	}
	return r
}

func (p *plane) hasPublished(r state.Revision) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.published[agentapi.Kind_ASSIGNMENTS] >= r
}

// split is the plane of the leader, and those of the others.
func (s *several) split() (leader *plane, followers []*plane) {
	s.t.Helper()
	l := s.Leader()
	for _, f := range s.Followers(l) {
		followers = append(followers, s.planes[f.ID])
	}
	return s.planes[l.ID], followers
}

// TestHostHealth: what a host says of itself, in its hello or later, with whichever server it is, stands in its record.
func TestHostHealth(t *testing.T) {
	s := newSeveral(t, 10*time.Second)
	leader, followers := s.split()
	for name, with := range map[string]*plane{"a": leader, "b": followers[0]} {
		h := hello(name)
		h.Health = &agentapi.HostHealth{Disk: "1 MiB"}
		a := with.connect(h)
		if a.receive().GetWelcome() == nil {
			t.Fatal("no welcome")
		}
		node := func() *controlplane.Node {
			n, _ := controlplane.Nodes.Get(leader.Store.View(), state.K(name))
			return n
		}
		leader.until("it has joined as short of disk", func() bool { return node().GetHealth().GetDisk() == "1 MiB" })
		since := node().HealthSince.AsTime()
		a.send(&agentapi.Up{Body: &agentapi.Up_Host{Host: &agentapi.HostHealth{Runtime: "broken"}}})
		leader.until("it has got better and worse", func() bool { h := node().GetHealth(); return h.GetDisk() == "" && h.GetRuntime() == "broken" })
		if now := node().HealthSince.AsTime(); !now.After(since) {
			t.Errorf("%s: since %v, then since %v", name, since, now)
		}
	}
}

// TestSessionWithAFollower: whoever has its session with a server that follows is a member, gets its tasks, reports, and counts.
func TestSessionWithAFollower(t *testing.T) {
	s := newSeveral(t, 10*time.Second)
	leader, followers := s.split()
	first := leader.placed("a")
	followers[0].until("it has published the assignment", func() bool { return followers[0].hasPublished(first) })
	a := followers[0].connect(hello("a"))
	if w := a.receive().GetWelcome(); w == nil {
		t.Fatal("no welcome")
	}
	full := a.update()
	if n, ok := controlplane.Nodes.Get(leader.Store.View(), state.K("a")); !ok || n.Status != "READY" {
		t.Fatalf("node %v", n)
	}
	if !full.Full {
		t.Fatalf("first update %v", full)
	}
	// Nothing was acknowledged, and the leader must not take that for an acknowledgement, at no moment.
	if leader.Acknowledged(agentapi.Kind_ASSIGNMENTS, first) {
		t.Error("the leader thinks that the node has applied what it was only sent")
	}
	a.ack(full)
	leader.until("the acknowledgement counts", func() bool {
		return leader.Acknowledged(agentapi.Kind_ASSIGNMENTS, first)
	})
	task := leader.task("a")
	u := a.update()
	if leader.Acknowledged(agentapi.Kind_ASSIGNMENTS, state.Revision(u.Revision)) {
		t.Error("the leader thinks that the node has applied its task")
	}
	a.ack(u)
	leader.until("the acknowledgement counts", func() bool {
		return leader.Acknowledged(agentapi.Kind_ASSIGNMENTS, state.Revision(u.Revision))
	})
	a.report(&agentapi.TaskStatus{TaskId: task.Id, Epoch: 1, State: agentapi.TaskState_RUNNING})
	leader.until("the task runs", func() bool { return leader.status(task).Observed == agentapi.TaskState_RUNNING })
	a.send(&agentapi.Up{Body: &agentapi.Up_Health{Health: &agentapi.HealthReport{Transitions: []*agentapi.HealthTransition{{EndpointId: "e"}}}}})
	a.send(&agentapi.Up{Body: &agentapi.Up_Drained{Drained: &agentapi.DrainReport{Drained: []*agentapi.Drained{{EndpointId: "e"}}}}})
	leader.until("the leader knows of the drain", func() bool { return leader.knowsDrain("a") })
	if leader.Traffic.(*traffic).health != 1 {
		t.Errorf("the leader was told of %d reports of health", leader.Traffic.(*traffic).health)
	}
	// Others find it.
	for _, p := range []*plane{leader, followers[1]} {
		if at, err := p.Where(t.Context(), "a"); err != nil || at != followers[0].Self {
			t.Errorf("server %s looks for it at %q, %v", p.Self, at, err)
		}
	}
	// What does not concern it does not need its word.
	other := leader.placed("b")
	leader.until("an assignment of another node is known everywhere", func() bool { return leader.Acknowledged(agentapi.Kind_ASSIGNMENTS, other) })
}

// TestNewLeaderLearns: what only the old leader's memory held, the new one is told.
func TestNewLeaderLearns(t *testing.T) {
	s := newSeveral(t, 10*time.Second)
	leader, followers := s.split()
	first := leader.placed("a")
	followers[0].until("it has published the assignment", func() bool { return followers[0].hasPublished(first) })
	a := followers[0].connect(hello("a"))
	a.receive()
	full := a.update()
	a.send(&agentapi.Up{Body: &agentapi.Up_Drained{Drained: &agentapi.DrainReport{Drained: []*agentapi.Drained{{EndpointId: "e"}}}}})
	leader.until("the leader knows of the drain", func() bool { return leader.knowsDrain("a") })
	s.Leader().Kill()
	next, _ := s.split()
	if next.Acknowledged(agentapi.Kind_ASSIGNMENTS, first) {
		t.Error("the new leader thinks that the node has applied what it was only sent")
	}
	a.ack(full)
	next.until("the acknowledgement counts", func() bool {
		return next.Acknowledged(agentapi.Kind_ASSIGNMENTS, first)
	})
	next.until("the new leader knows of the drain", func() bool { return next.knowsDrain("a") })
	task := next.task("a")
	u := a.update()
	a.report(&agentapi.TaskStatus{TaskId: task.Id, Epoch: 1, State: agentapi.TaskState_RUNNING})
	next.until("the task runs", func() bool { return next.status(task).Observed == agentapi.TaskState_RUNNING })
	if !u.Full && len(u.Resources) != 1 {
		t.Errorf("update %v", u)
	}
}

// TestSilentNodeOfAFollower: a node that is heard of stays, however much else there is to tell of, one that is not is given up, and its session ends.
func TestSilentNodeOfAFollower(t *testing.T) {
	s := newSeveral(t, 8*time.Second) // so that a machine that stands still for seconds makes none silent
	leader, followers := s.split()
	silent, loud := followers[0].connect(hello("silent")), followers[1].connect(hello("loud"))
	stop := make(chan struct{})
	var beating sync.WaitGroup
	beating.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				_ = loud.stream.Send(&agentapi.Up{Body: &agentapi.Up_Heartbeat{Heartbeat: &agentapi.Heartbeat{}}})
			}
		}
	})
	other := leader.task("elsewhere")
	beating.Go(func() {
		for epoch := uint64(2); ; epoch++ {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			_, _ = leader.Store.Update(t.Context(), func(tx *state.Tx) error {
				s, _ := controlplane.TaskStatuses.Get(tx, controlplane.Tasks.Key(other))
				s = proto.CloneOf(s)
				s.Epoch = epoch
				controlplane.TaskStatuses.Put(tx, s)
				return nil
			})
		}
	})
	defer beating.Wait()
	defer close(stop)
	at := func(node string) string {
		n, _ := controlplane.Nodes.Get(leader.Store.View(), state.K(node))
		return n.GetStatus()
	}
	leader.until("the silent one is given up", func() bool { return at("silent") == "DOWN" })
	if at("loud") != "READY" {
		t.Errorf("the one that is heard of is %s", at("loud"))
	}
	// Its session has ended: when it wakes up it has to say hello again.
	for {
		_, err := silent.stream.Recv()
		if status.Code(err) == codes.Aborted {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	again := followers[0].connect(hello("silent"))
	again.receive()
	if at("silent") != "READY" {
		t.Errorf("after another hello it is %s", at("silent"))
	}
}

// TestSessionsOfOneNodeWithTwoServers: the newer one replaces the older, wherever they are.
func TestSessionsOfOneNodeWithTwoServers(t *testing.T) {
	s := newSeveral(t, 10*time.Second)
	leader, followers := s.split()
	for _, way := range [][2]*plane{{followers[0], followers[1]}, {followers[0], leader}, {leader, followers[0]}} {
		old := way[0].connect(hello("a"))
		old.receive()
		young := way[1].connect(hello("a"))
		young.receive()
		old.p.until("the older session has been replaced", func() bool {
			// The agent's heartbeats go by the newer one.
			_ = young.stream.Send(&agentapi.Up{Body: &agentapi.Up_Heartbeat{Heartbeat: &agentapi.Heartbeat{}}})
			way[0].mu.Lock()
			defer way[0].mu.Unlock()
			sub := way[0].subscribers["a"]
			return sub == nil || !sub.open
		})
		if at, err := leader.Where(t.Context(), "a"); err != nil || way[1] != leader && at != way[1].Self || way[1] == leader && at != "" {
			t.Errorf("the leader looks for it at %q, %v", at, err)
		}
		young.cancel()
		young.p.until("the newer session has ended", func() bool {
			young.p.mu.Lock()
			defer young.p.mu.Unlock()
			sub := young.p.subscribers["a"]
			return sub == nil || !sub.open
		})
	}
}

// TestBeatOfAReplacedSession: a beat that was on its way when the node said hello to another server takes the node away from nobody, and its server is told.
func TestBeatOfAReplacedSession(t *testing.T) {
	p := newPlane(t)
	for _, server := range []string{"s1", "s2"} {
		if err := p.joinElsewhere(t.Context(), server, hello("a")); err != nil {
			t.Fatal(err)
		}
	}
	p.clock.Advance(time.Second)
	beat := func(server string, silent uint64) []string {
		t.Helper()
		lost := p.takeBeat(server, &Beat{All: true, Nodes: []*BeatNode{{Node: "a", SilentMillis: silent}}}).Lost
		if at := p.where("a"); at != "s2" {
			t.Errorf("after a beat of %s the node is with %q", server, at)
		}
		return lost
	}
	if lost := beat("s1", 0); !slices.Equal(lost, []string{"a"}) {
		t.Errorf("the server of the older session is to end %q", lost)
	}
	if lost := beat("s2", 1000); len(lost) != 0 {
		t.Errorf("the server of the newer session is to end %q", lost)
	}
}
