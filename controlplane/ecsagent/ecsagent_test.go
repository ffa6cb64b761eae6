package ecsagent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/datachannel"
)

var here = controlplane.Scope{Account: "123456789012", Region: "us-east-1"}

// world is a gateway with one registered instance, and a dispatcher that the test plays.
type world struct {
	t     *testing.T
	g     *Gateway
	store *state.Store
	logs  *bytes.Buffer

	ups   chan *agentapi.Up
	downs chan *agentapi.Down
	ended chan struct{} // closed when the function that serves a channel has returned

	mu     sync.Mutex
	health []*agentapi.TaskStatus
	asked  int // for credentials
}

func newWorld(t *testing.T, c Config) *world {
	w := &world{t: t, store: statetest.New(t, controlplane.Schema...), logs: &bytes.Buffer{}, ups: make(chan *agentapi.Up, 1000), downs: make(chan *agentapi.Down), ended: make(chan struct{})}
	c.Store, c.Dispatcher, c.Roles, c.Key, c.Rand, c.Clock, c.Log = w.store, w, w, make([]byte, 32), rand.Reader, clock.Real{}, slog.New(slog.NewTextHandler(w.logs, nil))
	if c.Ping == 0 {
		c.Ping = 20 * time.Millisecond
	}
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	w.g = g
	w.change(func(tx *state.Tx) {
		controlplane.Nodes.Put(tx, &controlplane.Node{Id: "n", AmazonAgent: &controlplane.AmazonAgent{}, Attributes: map[string]string{"com.amazonaws.ecs.capability.docker-remote-api.1.18": ""}})
		controlplane.ContainerInstances.Put(tx, &controlplane.ContainerInstance{Account: here.Account, Region: here.Region, Cluster: "c", Id: "i", Node: "n", Status: "ACTIVE"})
		controlplane.TaskDefinitions.Put(tx, &controlplane.TaskDefinition{Account: here.Account, Region: here.Region, Family: "web", Revision: 1, DefinitionJson: []byte(`{"taskRoleArn":"r","containerDefinitions":[{"name":"web","links":["db"]}]}`)})
	})
	return w
}

func (w *world) change(fn func(tx *state.Tx)) {
	w.t.Helper()
	if _, err := w.store.Update(context.Background(), func(tx *state.Tx) error { fn(tx); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

// task puts a task's records and returns its assignment.
func (w *world) task(id string, change func(st *controlplane.TaskStatus, demand *controlplane.Demand)) *agentapi.Assignment {
	w.t.Helper()
	t := &controlplane.Task{Account: here.Account, Region: here.Region, Cluster: "c", Id: id, TaskDefinition: "web:1", Demand: &controlplane.Demand{AgentAttributes: []string{"com.amazonaws.ecs.capability.docker-remote-api.1.18"}}}
	st := &controlplane.TaskStatus{Account: here.Account, Region: here.Region, Cluster: "c", Id: id, Node: "n", Epoch: 1, Desired: agentapi.TaskState_RUNNING, Observed: agentapi.TaskState_PENDING}
	if change != nil {
		change(st, t.Demand)
	}
	w.change(func(tx *state.Tx) {
		controlplane.Tasks.Put(tx, t)
		controlplane.TaskStatuses.Put(tx, st)
	})
	return &agentapi.Assignment{TaskId: id, TaskArn: t.ARN(), Epoch: 1, Desired: agentapi.DesiredState_DESIRED_RUNNING, Spec: &agentapi.TaskSpec{
		Family: "web", Revision: 1, NetworkMode: "bridge", Containers: []*agentapi.ContainerSpec{{Name: "web", Image: "web:1"}},
	}}
}

// Session implements Dispatcher: the test reads what comes up, and says what goes down.
func (w *world) Session(s agentapi.Dispatcher_SessionServer) error {
	if ActsFor(s.Context()) != "n" {
		w.t.Error("the session acts for nobody")
	}
	go func() {
		for {
			up, err := s.Recv()
			if err != nil {
				return
			}
			w.ups <- up
		}
	}()
	for {
		select {
		case d := <-w.downs:
			if err := s.Send(d); err != nil {
				return err
			}
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}

func (w *world) ReportHealth(_ context.Context, node string, tasks []*agentapi.TaskStatus) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.health = append(w.health, tasks...)
	return nil
}

// TaskCredentials makes the first ones so that they end soon.
func (w *world) TaskCredentials(_, role, _ string) (api.Credential, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	life := 6 * time.Hour
	if w.asked == 1 {
		life = renewBefore / 2
	}
	return api.Credential{SecretAccessKey: "secret", SessionToken: "token", Expires: time.Now().Add(life), Identity: api.Identity{AccessKeyID: fmt.Sprintf("key%d", w.asked)}}, nil
}

func (w *world) update(full bool, removed []string, assigned ...*agentapi.Assignment) {
	u := &agentapi.Update{Kind: agentapi.Kind_ASSIGNMENTS, Revision: 7, Full: full, Removed: removed}
	for _, a := range assigned {
		u.Resources = append(u.Resources, &agentapi.Resource{Name: a.TaskId, Body: &agentapi.Resource_Assignment{Assignment: a}})
	}
	w.downs <- &agentapi.Down{Body: &agentapi.Down_Update{Update: u}}
}

// said waits for a word to the dispatcher that fits.
func said[T any](w *world, find func(*agentapi.Up) (T, bool)) T {
	w.t.Helper()
	limit := time.After(time.Minute)
	for {
		select {
		case up := <-w.ups:
			if v, ok := find(up); ok {
				return v
			}
		case <-limit:
			w.t.Fatalf("the dispatcher is not told\n%s", w.logs)
		}
	}
}

func (w *world) acknowledged() {
	w.t.Helper()
	if r := said(w, func(up *agentapi.Up) (uint64, bool) { return up.GetAck().GetRevision(), up.GetAck() != nil }); r != 7 {
		w.t.Errorf("revision %d", r)
	}
}

// agent is the other end of a channel. It reads all the time, or it would answer no pings.
type agent struct {
	w    *world
	conn *datachannel.Conn
	in   chan []byte // closed when the connection has ended
}

func (w *world) dial(telemetry bool) *agent {
	w.t.Helper()
	q := url.Values{"containerInstanceArn": {here.ContainerInstanceARN("c", "i")}, "containerInstance": {here.ContainerInstanceARN("c", "i")}}
	serve, err := w.g.Open(&api.Call{Identity: api.Identity{Account: here.Account}, Region: here.Region, Host: "localhost"}, telemetry, q)
	if err != nil {
		w.t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		conn, err := datachannel.Accept(rw, r)
		if err == nil {
			serve(w.t.Context(), conn)
			close(w.ended)
		}
	}))
	conn, err := datachannel.Dial(w.t.Context(), "ws"+strings.TrimPrefix(server.URL, "http"), server.Client())
	if err != nil {
		w.t.Fatal(err)
	}
	conn.Limit(maxMessage)
	a := &agent{w, conn, make(chan []byte, 1000)}
	go func() {
		defer close(a.in)
		for {
			b, err := conn.ReadText(context.Background())
			if err != nil {
				return
			}
			a.in <- b
		}
	}()
	w.t.Cleanup(func() { conn.Drop(); <-w.ended; server.Close() })
	return a
}

// hears reads until a message of the kind comes.
func (a *agent) hears(kind string, m any) {
	a.w.t.Helper()
	limit := time.After(time.Minute)
	for {
		var b []byte
		select {
		case b = <-a.in:
		case <-limit:
		}
		if b == nil {
			a.w.t.Fatalf("there is no %s\n%s", kind, a.w.logs)
		}
		var f frame
		if err := json.Unmarshal(b, &f); err != nil {
			a.w.t.Fatal(err)
		}
		if f.Type == kind {
			if err := json.Unmarshal(f.Message, m); err != nil {
				a.w.t.Fatal(err)
			}
			return
		}
	}
}

func (a *agent) says(kind string, m any) {
	a.w.t.Helper()
	b, err := encode(kind, m)
	if err == nil {
		err = a.conn.WriteText(a.w.t.Context(), b)
	}
	if err != nil {
		a.w.t.Fatal(err)
	}
}

func (a *agent) acks(message string) { a.says("AckRequest", map[string]string{"messageId": message}) }

// An update is acknowledged once every message of it is.
func TestUpdateIsAcknowledgedAsAWhole(t *testing.T) {
	w := newWorld(t, Config{})
	a := w.dial(false)
	var all []*agentapi.Assignment
	for i := range tasksAMessage + 1 {
		all = append(all, w.task(fmt.Sprintf("task%d", i), nil))
	}
	w.update(true, nil, all...)
	var first, second payloadMessage
	var manifest taskManifest
	a.hears("PayloadMessage", &first)
	a.hears("PayloadMessage", &second)
	a.hears("TaskManifestMessage", &manifest)
	if len(first.Tasks) != tasksAMessage || len(second.Tasks) != 1 || len(manifest.Tasks) != tasksAMessage+1 {
		t.Errorf("%d and %d tasks, %d in the manifest", len(first.Tasks), len(second.Tasks), len(manifest.Tasks))
	}
	if c := first.Tasks[0].Containers[0]; len(c.Links) != 1 || c.Links[0] != "db" {
		t.Errorf("links %v", c.Links)
	}
	for _, m := range []string{first.MessageID, manifest.MessageID} {
		a.acks(m)
	}
	for range 3 { // it is not, while one is left
		said(w, func(up *agentapi.Up) (bool, bool) {
			if up.GetAck() != nil {
				t.Error("acknowledged too early")
			}
			return true, up.GetHeartbeat() != nil
		})
	}
	a.acks(second.MessageID)
	w.acknowledged()
}

// Credentials that end soon are replaced, under the id that containers know.
func TestCredentialsAreRenewed(t *testing.T) {
	w := newWorld(t, Config{})
	a := w.dial(false)
	w.update(true, nil, w.task("task", nil))
	var p payloadMessage
	a.hears("PayloadMessage", &p)
	var m credentialsMessage
	a.hears("IAMRoleCredentialsMessage", &m)
	was, is := p.Tasks[0].RoleCredentials, m.RoleCredentials
	if was.CredentialsID != is.CredentialsID || was.AccessKeyID == is.AccessKeyID || m.RoleType != "TaskApplication" || m.TaskArn != p.Tasks[0].Arn || len(is.CredentialsID) != 36 {
		t.Errorf("first %+v, then %+v", was, m)
	}
	if strings.Contains(w.logs.String(), "secret") {
		t.Error("credentials are in the log")
	}
}

// What the agent lacks ends a task that was placed all the same, and only one that has not begun.
func TestTaskThatCannotBeCarriedEnds(t *testing.T) {
	w := newWorld(t, Config{})
	a := w.dial(false)
	lacking := func(st *controlplane.TaskStatus, d *controlplane.Demand) {
		d.AgentAttributes = []string{"ecs.capability.none"}
	}
	begun := w.task("begun", func(st *controlplane.TaskStatus, d *controlplane.Demand) {
		lacking(st, d)
		st.Report = &agentapi.TaskStatus{TaskId: "begun"}
	})
	w.update(false, nil, w.task("new", lacking), begun)
	st := said(w, func(up *agentapi.Up) (*agentapi.TaskStatus, bool) {
		if s := up.GetStatus(); s != nil {
			return s.Tasks[0], true
		}
		return nil, false
	})
	want := &agentapi.TaskStatus{TaskId: "new", Epoch: 1, State: agentapi.TaskState_STOPPED, StopCode: "TaskFailedToStart", StoppedReason: "The container instance lacks the attribute ecs.capability.none."}
	if !proto.Equal(st, want) {
		t.Errorf("reported %v", st)
	}
	var p payloadMessage
	a.hears("PayloadMessage", &p)
	if len(p.Tasks) != 1 || p.Tasks[0].Arn != begun.TaskArn {
		t.Errorf("sent %+v", p.Tasks)
	}
}

// Of tasks that were in no manifest those are stopped that are over or another node's; one without a record is left alone.
func TestAbsenceIsNotAStop(t *testing.T) {
	w := newWorld(t, Config{})
	a := w.dial(false)
	over := w.task("over", func(st *controlplane.TaskStatus, _ *controlplane.Demand) {
		st.Observed, st.Desired = agentapi.TaskState_STOPPED, agentapi.TaskState_STOPPED
	})
	elsewhere := w.task("elsewhere", func(st *controlplane.TaskStatus, _ *controlplane.Demand) { st.Node = "other" })
	running := w.task("running", nil)
	var candidates []taskIdentifier
	for _, arn := range []string{over.TaskArn, elsewhere.TaskArn, running.TaskArn, here.TaskARN("c", "unknown")} {
		candidates = append(candidates, taskIdentifier{TaskArn: arn})
	}
	a.says("TaskStopVerificationMessage", map[string]any{"messageId": "m", "stopCandidates": candidates})
	var ack stopVerificationAck
	a.hears("TaskStopVerificationAck", &ack)
	if ack.MessageID != "m" || len(ack.StopTasks) != 2 || ack.StopTasks[0].TaskArn != over.TaskArn || ack.StopTasks[1].TaskArn != elsewhere.TaskArn {
		t.Errorf("stop %+v", ack.StopTasks)
	}
}

// An agent that takes nothing loses its connection, as one does whose time is over, or whose instance is deregistered.
func TestConnectionEnds(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		act    func(w *world)
	}{
		"without acknowledgement": {Config{Patience: 50 * time.Millisecond}, func(w *world) { w.update(true, nil) }},
		"rotation":                {Config{Rotation: 50 * time.Millisecond}, func(*world) {}},
		"deregistered": {Config{}, func(w *world) {
			w.change(func(tx *state.Tx) {
				ci, _ := controlplane.ContainerInstances.Get(tx, here.Key("c", "i"))
				ci = proto.CloneOf(ci)
				ci.Status = "INACTIVE"
				controlplane.ContainerInstances.Put(tx, ci)
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.config)
			a := w.dial(false)
			c.act(w)
			for range a.in {
				// until it has ended
			}
			<-w.ended
			if poll, _ := w.g.Sessions(); poll != 0 {
				t.Errorf("%d sessions are left", poll)
			}
		})
	}
}

func TestTelemetry(t *testing.T) {
	w := newWorld(t, Config{})
	a := w.dial(true)
	var m map[string]any
	a.says("StartTelemetrySessionRequest", map[string]any{})
	a.hears("HeartbeatMessage", &m)
	a.says("PublishMetricsRequest", map[string]any{"taskMetrics": []any{}})
	a.hears("AckPublishMetric", &m)
	a.says("PublishInstanceStatusRequest", map[string]any{})
	a.hears("AckPublishInstanceStatus", &m)
	a.says("PublishHealthRequest", map[string]any{"tasks": []any{map[string]any{"taskArn": here.TaskARN("c", "t"), "containers": []any{
		map[string]any{"containerName": "web", "healthStatus": "UNHEALTHY", "statusSince": 12.5},
	}}}})
	a.hears("AckPublishHealth", &m)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.health) != 1 || w.health[0].TaskId != "t" || w.health[0].Containers[0].Health != agentapi.Health_HEALTH_UNHEALTHY || w.health[0].Containers[0].HealthSince.AsTime().UnixMilli() != 12500 {
		t.Errorf("health %v", w.health)
	}
}

func TestWhoMayOpen(t *testing.T) {
	w := newWorld(t, Config{})
	w.change(func(tx *state.Tx) {
		controlplane.Nodes.Put(tx, &controlplane.Node{Id: "own"})
		for id, node := range map[string]string{"gone": "n", "own": "own"} {
			ci := &controlplane.ContainerInstance{Account: here.Account, Region: here.Region, Cluster: "c", Id: id, Node: node, Status: "ACTIVE"}
			if id == "gone" {
				ci.Status = "INACTIVE"
			}
			controlplane.ContainerInstances.Put(tx, ci)
		}
	})
	call := &api.Call{Identity: api.Identity{Account: here.Account}, Region: here.Region}
	for ref, code := range map[string]string{
		"": "InvalidInstanceException", "i": "InvalidInstanceException", here.ContainerInstanceARN("c", "none"): "InvalidInstanceException",
		here.ContainerInstanceARN("c", "gone"): "InactiveInstanceException", here.ContainerInstanceARN("c", "own"): "InvalidInstanceException",
		controlplane.Scope{Account: "210987654321", Region: here.Region}.ContainerInstanceARN("c", "i"): "InvalidInstanceException",
	} {
		_, err := w.g.Open(call, false, url.Values{"containerInstanceArn": {ref}})
		if e, ok := awserr.As(err); !ok || e.Code != code {
			t.Errorf("%q: %v", ref, err)
		}
	}
	needs, err := w.g.Needs(call, true, url.Values{"containerInstance": {here.ContainerInstanceARN("c", "i")}})
	if cluster, _ := needs.Key("ecs:cluster"); err != nil || needs.Action != "ecs:StartTelemetrySession" || cluster[0] != here.ClusterARN("c") {
		t.Errorf("needs %+v, %v", needs, err)
	}
}
