package metadata

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

const (
	taskID  = "0123456789abcdef0123456789abcdef"
	address = "10.64.0.7"
)

var began = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// example is a Fargate task of which one container runs and one has ended.
func example() Task {
	return Task{
		Assignment: &agentapi.Assignment{TaskId: taskID, TaskArn: "arn:aws:ecs:us-east-1:000000000000:task/c/" + taskID, Spec: &agentapi.TaskSpec{
			Account: "000000000000", Region: "us-east-1", Cluster: "c", Family: "web", Revision: 3, LaunchType: "FARGATE", NetworkMode: "awsvpc",
			Service: "shop", CpuUnits: 256, MemoryMib: 512, Containers: []*agentapi.ContainerSpec{
				{Name: "app", Image: "registry/app:1", CpuUnits: 128, MemoryMib: 256, Labels: map[string]string{"mine": "yes"}},
				{Name: "init", Image: "registry/init:1"},
			}}},
		Status: &agentapi.TaskStatus{State: agentapi.TaskState_RUNNING, Address: address, Ipv6Address: "fd8e:2f17:5b61:40::a50:409", PullStarted: timestamppb.New(began),
			PullStopped: timestamppb.New(began.Add(time.Second)), Containers: []*agentapi.ContainerStatus{
				{Name: "app", State: agentapi.ContainerState_CONTAINER_RUNNING, RuntimeId: "runtime-app", ImageDigest: "sha256:aa", Started: timestamppb.New(began.Add(2 * time.Second)),
					Ports: []*agentapi.PortBinding{{ContainerPort: 80, HostPort: 80, Protocol: "tcp"}}},
				{Name: "init", State: agentapi.ContainerState_CONTAINER_STOPPED, ExitCode: proto.Int32(0), Finished: timestamppb.New(began.Add(3 * time.Second))},
			}},
	}
}

// server knows the example, and says what its containers used: a nanosecond more of processor time with each question.
func server(t *testing.T, task Task) *Server {
	asked := uint64(0)
	return New(Config{
		Zone: "us-east-1a", Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Task: func(id string, from netip.Addr) (Task, bool) {
			return task, id == taskID && from == netip.MustParseAddr(address)
		},
		Stats: func(_ context.Context, _, container string) (s runtime.Stats, err error) {
			switch container {
			case "app":
				asked++
				s.CPU.Usage.Total, s.Read = asked, began.Add(time.Duration(asked)*time.Second)
				return s, nil
			case "init":
				return s, fmt.Errorf("it has ended: %w", runtime.ErrNotFound)
			}
			return s, fmt.Errorf("no container %s", container)
		},
	})
}

// get asks and decodes the answer.
func get(t *testing.T, s *Server, method, path, from string, want int) (v any) {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.RemoteAddr = from + ":40000"
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != want || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%s %s from %s: %d %s %s, want %d", method, path, from, w.Code, w.Header().Get("Content-Type"), w.Body, want)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%s: %v\n%s", path, err, w.Body)
	}
	return v
}

func TestTask(t *testing.T) {
	s := server(t, example())
	app := map[string]any{
		"DockerId": "runtime-app", "Name": "app", "DockerName": "ecs-web-3-app-" + taskID, "Image": "registry/app:1", "ImageID": "sha256:aa",
		"Ports": []any{map[string]any{"ContainerPort": 80.0, "Protocol": "tcp"}},
		"Labels": map[string]any{"mine": "yes", "com.amazonaws.ecs.cluster": "arn:aws:ecs:us-east-1:000000000000:cluster/c", "com.amazonaws.ecs.container-name": "app",
			"com.amazonaws.ecs.task-arn": "arn:aws:ecs:us-east-1:000000000000:task/c/" + taskID, "com.amazonaws.ecs.task-definition-family": "web",
			"com.amazonaws.ecs.task-definition-version": "3"},
		"DesiredStatus": "RUNNING", "KnownStatus": "RUNNING", "Limits": map[string]any{"CPU": 128.0, "Memory": 256.0}, "Type": "NORMAL",
		"CreatedAt": "2026-11-01T12:00:01Z", "StartedAt": "2026-11-01T12:00:02Z",
		"Networks": []any{map[string]any{"NetworkMode": "awsvpc", "IPv4Addresses": []any{address}, "IPv6Addresses": []any{"fd8e:2f17:5b61:40::a50:409"}, "IPv6SubnetCIDRBlock": "fd8e:2f17:5b61::/48"}},
	}
	own := get(t, s, "GET", "/v4/"+EndpointID(taskID, "app"), address, 200).(map[string]any)
	app["ContainerARN"] = own["ContainerARN"] // as long as a digest
	if d := cmp.Diff(any(app), any(own)); d != "" {
		t.Error(d)
	}
	task := get(t, s, "GET", "/v3/"+EndpointID(taskID, "init")+"/task", address, 200).(map[string]any)
	containers := task["Containers"].([]any)
	if d := cmp.Diff(any(app), containers[0]); d != "" {
		t.Error(d)
	}
	if c := containers[1].(map[string]any); c["KnownStatus"] != "STOPPED" || c["ExitCode"] != 0.0 || c["FinishedAt"] != "2026-11-01T12:00:03Z" || c["DockerId"] != EndpointID(taskID, "init") {
		t.Errorf("the container that has ended: %v", c)
	}
	delete(task, "Containers")
	if d := cmp.Diff(any(map[string]any{
		"Cluster": "arn:aws:ecs:us-east-1:000000000000:cluster/c", "TaskARN": "arn:aws:ecs:us-east-1:000000000000:task/c/" + taskID, "Family": "web", "Revision": "3",
		"DesiredStatus": "RUNNING", "KnownStatus": "RUNNING", "Limits": map[string]any{"CPU": 0.25, "Memory": 512.0}, "LaunchType": "FARGATE", "ServiceName": "shop",
		"AvailabilityZone": "us-east-1a", "PullStartedAt": "2026-11-01T12:00:00Z", "PullStoppedAt": "2026-11-01T12:00:01Z",
	}), any(task)); d != "" {
		t.Error(d)
	}
}

func TestTaskOnAnInstance(t *testing.T) {
	task := example()
	task.Assignment.Spec.LaunchType, task.Assignment.Spec.NetworkMode = "EC2", ""
	task.Status.Containers[0].Ports[0].HostPort = 32768
	m := get(t, server(t, task), "GET", "/v4/"+EndpointID(taskID, "app")+"/task", address, 200).(map[string]any)
	app := m["Containers"].([]any)[0].(map[string]any)
	if m["Cluster"] != "c" || app["Ports"].([]any)[0].(map[string]any)["HostPort"] != 32768.0 || app["Networks"].([]any)[0].(map[string]any)["NetworkMode"] != "bridge" {
		t.Errorf("%v", m)
	}
}

func TestEphemeralStorageMetrics(t *testing.T) {
	task := example()
	s := server(t, task)
	s.cfg.Storage = func(_ context.Context, id string) (runtime.Storage, error) {
		if id != taskID {
			return runtime.Storage{}, runtime.ErrNotFound
		}
		return runtime.Storage{Used: 261 << 20, Reserved: 20496 << 20}, nil
	}
	path := "/v4/" + EndpointID(taskID, "app") + "/task"
	if m := get(t, s, "GET", path, address, 200).(map[string]any); m["EphemeralStorageMetrics"] != nil {
		t.Errorf("a task that asked for nothing has %v", m["EphemeralStorageMetrics"])
	}
	task.Assignment.Spec.EphemeralStorageMib = 21 << 10
	want := any(map[string]any{"Utilized": 261.0, "Reserved": 20496.0})
	if m := get(t, s, "GET", path, address, 200).(map[string]any); !cmp.Equal(m["EphemeralStorageMetrics"], want) {
		t.Errorf("metrics %v", m["EphemeralStorageMetrics"])
	}
}

func TestStats(t *testing.T) {
	s := server(t, example())
	path := "/v4/" + EndpointID(taskID, "app")
	total := func(v any, what string) any {
		return v.(map[string]any)[what].(map[string]any)["cpu_usage"].(map[string]any)["total_usage"]
	}
	first := get(t, s, "GET", path+"/stats", address, 200)
	if m := first.(map[string]any); m["id"] != "runtime-app" || m["name"] != "app" || total(first, "cpu_stats") != 1.0 || total(first, "precpu_stats") != 0.0 {
		t.Errorf("%v", first)
	}
	all := get(t, s, "GET", path+"/task/stats", address, 200).(map[string]any)
	if second := all["runtime-app"]; total(second, "cpu_stats") != 2.0 || total(second, "precpu_stats") != 1.0 || second.(map[string]any)["preread"] != "2026-11-01T12:00:01Z" {
		t.Errorf("%v", all)
	}
	if ended, ok := all[EndpointID(taskID, "init")]; !ok || ended != nil || len(all) != 2 {
		t.Errorf("the container that has ended has %v among %d", ended, len(all))
	}
	get(t, s, "GET", "/v4/"+EndpointID(taskID, "init")+"/stats", address, 404)
}

// A container is quicker than the word of its start.
func TestAsksEarly(t *testing.T) {
	early := example()
	early.Status = &agentapi.TaskStatus{State: agentapi.TaskState_ACTIVATING, Address: address}
	asked := 0
	s := New(Config{Logger: slog.New(slog.DiscardHandler), Task: func(string, netip.Addr) (Task, bool) {
		if asked++; asked < 3 {
			return early, true
		}
		return example(), true
	}})
	if m := get(t, s, "GET", "/v4/"+EndpointID(taskID, "app"), address, 200).(map[string]any); m["DockerId"] != "runtime-app" || asked != 3 {
		t.Errorf("after %d looks: %v", asked, m)
	}
}

// Whoever asks learns about itself alone.
func TestRefused(t *testing.T) {
	s := server(t, example())
	path := "/v4/" + EndpointID(taskID, "app")
	for _, c := range []struct {
		method, path, from string
		status             int
	}{
		{"GET", path, "10.64.0.8", http.StatusNotFound},
		{"GET", path + "/task", "127.0.0.1", http.StatusNotFound},
		{"GET", "/v4/" + EndpointID(taskID, "other"), address, http.StatusNotFound},
		{"GET", "/v4/" + taskID, address, http.StatusNotFound},
		{"GET", "/v4/", address, http.StatusNotFound},
		{"GET", path + "/secrets", address, http.StatusNotFound},
		{"POST", path, address, http.StatusMethodNotAllowed},
	} {
		get(t, s, c.method, c.path, c.from, c.status)
	}
}

// Health and restarts are shown of containers that have a check and a policy.
func TestHealthAndRestarts(t *testing.T) {
	task := example()
	task.Assignment.Spec.Containers[0].HealthCheck = &agentapi.ContainerCheck{Command: []string{"CMD", "true"}}
	task.Assignment.Spec.Containers[0].Restart = &agentapi.RestartPolicy{}
	task.Status.Containers[0].Health, task.Status.Containers[0].HealthSince = agentapi.Health_HEALTH_UNHEALTHY, timestamppb.New(began)
	task.Status.Containers[0].Restarts = 2
	task.Assignment.Spec.Containers[1].HealthCheck = &agentapi.ContainerCheck{Command: []string{"CMD", "true"}}
	s := server(t, task)
	app := get(t, s, "GET", "/v4/"+EndpointID(taskID, "app"), address, 200).(map[string]any)
	if want := map[string]any{"status": "UNHEALTHY", "statusSince": "2026-11-01T12:00:00Z"}; !cmp.Equal(app["Health"], any(want)) || app["RestartCount"] != 2.0 {
		t.Errorf("health %v, restarts %v", app["Health"], app["RestartCount"])
	}
	other := get(t, s, "GET", "/v4/"+EndpointID(taskID, "init"), address, 200).(map[string]any)
	if want := map[string]any{"status": "UNKNOWN"}; !cmp.Equal(other["Health"], any(want)) || other["RestartCount"] != nil {
		t.Errorf("health %v, restarts %v", other["Health"], other["RestartCount"])
	}
}
