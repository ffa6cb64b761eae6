package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/coder/websocket"
)

// amazonAgent speaks the protocol of Amazon's ECS agent, and only pretends to run containers. It knows the servers by one name, behind which there is now
// the one and now the other.
type amazonAgent struct {
	arn string // of its container instance

	mu    sync.Mutex
	at    *oneServer
	tasks map[string]string // by ARN: the status that each is wanted in
	runs  map[string]int    // how often each was begun
}

func (a *amazonAgent) server() *oneServer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.at
}

func (a *amazonAgent) move(to *oneServer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = to
}

// begun are the tasks that it has, wanted as they are.
func (a *amazonAgent) begun() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.tasks)
}

// startAmazonAgent registers an instance of the cluster "apart" and keeps polling.
func (s *servers) startAmazonAgent(at *oneServer) *amazonAgent {
	s.t.Helper()
	a := &amazonAgent{at: at, tasks: map[string]string{}, runs: map[string]int{}}
	out, err := at.ECS.RegisterContainerInstance(s.t.Context(), &ecs.RegisterContainerInstanceInput{
		Cluster: new("apart"),
		TotalResources: []ecstypes.Resource{
			{Name: new("CPU"), Type: new("INTEGER"), IntegerValue: 1024}, {Name: new("MEMORY"), Type: new("INTEGER"), IntegerValue: 1024},
		},
		Attributes: []ecstypes.Attribute{{Name: new("com.amazonaws.ecs.capability.docker-remote-api.1.18")}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	a.arn = *out.ContainerInstance.ContainerInstanceArn
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := a.poll(ctx); err != nil {
				select { // the server is not there just now
				case <-time.After(50 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		}
	}()
	s.t.Cleanup(func() { cancel(); <-done })
	return a
}

// poll has one connection.
func (a *amazonAgent) poll(ctx context.Context) error {
	at := a.server()
	out, err := at.ECS.DiscoverPollEndpoint(ctx, &ecs.DiscoverPollEndpointInput{Cluster: new("apart"), ContainerInstance: &a.arn})
	if err != nil {
		return err
	}
	u := *out.Endpoint + "ws?" + url.Values{"clusterArn": {"apart"}, "containerInstanceArn": {a.arn}, "sendCredentials": {"true"}}.Encode()
	r, err := http.NewRequest(http.MethodGet, u, nil)
	if err != nil {
		return err
	}
	const nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if err := v4.NewSigner().SignHTTP(ctx, aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, r, nothing, "ecs", "us-east-1", time.Now()); err != nil {
		return err
	}
	conn, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(u, "http"), &websocket.DialOptions{HTTPHeader: r.Header})
	if err != nil {
		return err
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	for {
		if err := a.answer(ctx, at, conn); err != nil {
			return err
		}
	}
}

// answer answers one message. What it is told of a task it tells before it acknowledges, as long as the server takes it.
func (a *amazonAgent) answer(ctx context.Context, at *oneServer, conn *websocket.Conn) error {
	_, b, err := conn.Read(ctx)
	if err != nil {
		return err
	}
	var m struct {
		Type    string
		Message struct {
			ClusterArn, ContainerInstanceArn, MessageID string
			Tasks                                       []struct {
				Arn, DesiredStatus string
				Containers         []struct{ Name string }
			}
		}
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	kind, answer := "AckRequest", map[string]any{"cluster": m.Message.ClusterArn, "containerInstance": m.Message.ContainerInstanceArn, "messageId": m.Message.MessageID}
	switch m.Type {
	case "PayloadMessage":
		for _, t := range m.Message.Tasks {
			a.mu.Lock()
			before := a.tasks[t.Arn]
			if a.tasks[t.Arn] = t.DesiredStatus; before == "" && t.DesiredStatus == "RUNNING" {
				a.runs[t.Arn]++
			}
			a.mu.Unlock()
			if before == t.DesiredStatus {
				continue // sent again
			}
			in := &ecs.SubmitTaskStateChangeInput{Cluster: new("apart"), Task: &t.Arn, Status: &t.DesiredStatus}
			for _, c := range t.Containers {
				in.Containers = append(in.Containers, ecstypes.ContainerStateChange{ContainerName: &c.Name, Status: &t.DesiredStatus})
			}
			for _, err := at.ECS.SubmitTaskStateChange(ctx, in); err != nil; _, err = at.ECS.SubmitTaskStateChange(ctx, in) {
				if at = a.server(); ctx.Err() != nil {
					return ctx.Err()
				}
			}
		}
	case "TaskManifestMessage":
	case "HeartbeatMessage":
		kind, answer = "HeartbeatAckRequest", map[string]any{"messageId": m.Message.MessageID}
	default:
		return nil
	}
	b, err = json.Marshal(map[string]any{"type": kind, "message": answer})
	if err != nil {
		return err
	}
	return conn.Write(ctx, websocket.MessageText, b)
}

// isConnected waits until a server shows that the agent is.
func (a *amazonAgent) isConnected(t *testing.T, at *oneServer) {
	t.Helper()
	eventually(t, func() error {
		out, err := at.ECS.DescribeContainerInstances(t.Context(), &ecs.DescribeContainerInstancesInput{Cluster: new("apart"), ContainerInstances: []string{a.arn}})
		if err != nil {
			return err
		}
		if len(out.ContainerInstances) != 1 || !out.ContainerInstances[0].AgentConnected {
			return fmt.Errorf("server %s shows it as %+v", at.peers, out)
		}
		return nil
	})
}

// TestAmazonAgentWithAFollower: the connection and the calls of an agent of Amazon's are with a server that follows. The leader is killed, then that
// server: what runs goes on, and nothing is run twice.
func TestAmazonAgentWithAFollower(t *testing.T) {
	s := startServers(t, 3)
	if _, err := s.all[0].ECS.CreateCluster(t.Context(), &ecs.CreateClusterInput{ClusterName: new("apart")}); err != nil {
		t.Fatal(err)
	}
	leader, others := s.leader()
	with, beside := others[0], others[1]
	beside.service(t, "web", 2)
	if _, err := beside.ECS.CreateService(t.Context(), &ecs.CreateServiceInput{
		Cluster: new("apart"), ServiceName: new("each"), TaskDefinition: new("web"), SchedulingStrategy: ecstypes.SchedulingStrategyDaemon, LaunchType: ecstypes.LaunchTypeEc2,
	}); err != nil {
		t.Fatal(err)
	}
	a := s.startAmazonAgent(with)
	for _, one := range s.all {
		a.isConnected(t, one)
	}
	tasks := (&site{t: t, Client: beside.Client}).running(3) // the daemon's too
	same := func(when string, ask *oneServer) {
		t.Helper()
		if now := (&site{t: t, Client: ask.Client}).running(len(tasks)); !slices.Equal(now, tasks) {
			t.Errorf("%s: the tasks were %v and are %v", when, tasks, now)
		}
	}

	s.kill(leader)
	dead := leader
	s.leader()
	a.isConnected(t, beside)
	same("after the leader was killed", beside)
	run, err := beside.ECS.RunTask(t.Context(), &ecs.RunTaskInput{Cluster: new("apart"), TaskDefinition: new("web"), LaunchType: ecstypes.LaunchTypeEc2})
	if err != nil || len(run.Tasks) != 1 {
		t.Fatalf("a task is not run: %+v, %v", run, err)
	}
	extra := *run.Tasks[0].TaskArn
	becomes := func(want string) {
		t.Helper()
		eventually(t, func() error {
			out, err := beside.ECS.DescribeTasks(t.Context(), &ecs.DescribeTasksInput{Cluster: new("apart"), Tasks: []string{extra}})
			if err != nil {
				return err
			}
			if len(out.Tasks) != 1 || *out.Tasks[0].LastStatus != want {
				return fmt.Errorf("it is %+v", out.Tasks)
			}
			return nil
		})
	}
	becomes("RUNNING")
	s.start(dead, token)
	s.ready(dead)

	// The agent's server is lost, which may lead by now; meanwhile a task is to stop.
	s.kill(with)
	a.move(dead)
	s.leader()
	if _, err := beside.ECS.StopTask(t.Context(), &ecs.StopTaskInput{Cluster: new("apart"), Task: &extra}); err != nil {
		t.Fatal(err)
	}
	becomes("STOPPED")
	a.isConnected(t, beside)
	same("after its server was killed", beside)
	s.start(with, token)
	s.ready(with)
	a.isConnected(t, with)
	same("after it came back", with)

	begun := a.begun()
	if len(begun) != len(tasks)+1 || begun[extra] != "STOPPED" {
		t.Errorf("it was told of %v", begun)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for arn, n := range a.runs {
		if n != 1 {
			t.Errorf("task %s was begun %d times", arn, n)
		}
	}
}
