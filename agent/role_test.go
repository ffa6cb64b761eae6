package agent

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/agent/metadata"
	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/clock"
)

// roleServer gives out credentials that last six hours, a new secret each time, or an error.
type roleServer struct {
	mu    sync.Mutex
	now   clock.Clock
	given int
	fails error
	asked *agentapi.RoleCredentialsRequest
}

func (r *roleServer) failing(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fails = err
}

func (s *server) RoleCredentials(_ context.Context, req *agentapi.RoleCredentialsRequest) (*agentapi.RoleCredentialsAnswer, error) {
	r := s.roles
	if r == nil {
		return nil, status.Error(codes.Unimplemented, "no roles")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = req
	if r.fails != nil {
		return nil, r.fails
	}
	r.given++
	return &agentapi.RoleCredentialsAnswer{RoleArn: "role", AccessKeyId: "ASIA", SecretAccessKey: "the secret " + strings.Repeat("I", r.given), SessionToken: "t", Expires: timestamppb.New(r.now.Now().Add(6 * time.Hour))}, nil
}

func withRole(a *agentapi.Assignment) *agentapi.Assignment {
	a.Spec.TaskRole = "arn:aws:iam::000000000000:role/app"
	return a
}

func hostWithRoles(t *testing.T, dir string, d *fake.Driver, now clock.Clock, r *roleServer) *host {
	h := connectHost(t, Config{Dir: dir, Driver: d, Clock: now, Metadata: MetadataURIs{Bridged: LinkLocalURI, Host: "http://127.0.0.1:5"}}, "i1")
	h.roles = r
	return h
}

// A host whose clock lags far behind the servers' asks anew before they take its credentials for expired, and not each time.
func TestCredentialsWhereTheClockLags(t *testing.T) {
	dir, now := t.TempDir(), clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	r := &roleServer{now: clock.NewFake(now.Now().Add(10 * time.Hour))}
	h := hostWithRoles(t, dir, fake.New(fake.Config{Dir: filepath.Join(dir, "fake")}), now, r)
	h.hello()
	h.send(5, true, nil, withRole(assignment(taskA, 1, run, "web")))
	h.untilState(taskA, agentapi.TaskState_RUNNING)
	for _, want := range []string{"the secret I", "the secret I", "the secret II", "the secret II"} {
		if c, err := h.agent.Credentials(t.Context(), taskA); err != nil || c.SecretAccessKey != want {
			t.Errorf("%v, %v; want %s", c, err, want)
		}
		now.Advance(2*time.Hour + 30*time.Minute)
	}
}

// Credentials are asked for once, again when an hour is left, and those of before go on while no server answers. A later process serves them by the same id.
func TestCredentials(t *testing.T) {
	dir, now := t.TempDir(), clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	r := &roleServer{now: now}
	h := hostWithRoles(t, dir, fake.New(fake.Config{Dir: filepath.Join(dir, "fake")}), now, r)
	h.hello()
	h.send(5, true, nil, withRole(assignment(taskA, 1, run, "web")))
	st := h.untilState(taskA, agentapi.TaskState_RUNNING)
	from := netip.MustParseAddr(st.Address)
	id := h.agent.roles.id(taskA)
	secret := func(want string) {
		t.Helper()
		task, err := h.agent.Named(id, from)
		if err != nil || task.Assignment.TaskId != taskA {
			t.Fatalf("%v, %v", task, err)
		}
		c, err := h.agent.Credentials(t.Context(), taskA)
		if err != nil || c.SecretAccessKey != want {
			t.Errorf("%v, %v; want %s", c, err, want)
		}
	}
	secret("the secret I")
	if r.asked.NodeId != "n1" || r.asked.TaskId != taskA {
		t.Errorf("asked for %v", r.asked)
	}
	now.Advance(4 * time.Hour)
	secret("the secret I")
	now.Advance(time.Hour)
	secret("the secret II")
	r.failing(status.Error(codes.Unavailable, "no server"))
	now.Advance(5*time.Hour + 30*time.Minute)
	secret("the secret II")
	now.Advance(time.Hour)
	if c, err := h.agent.Credentials(t.Context(), taskA); status.Code(err) != codes.Unavailable {
		t.Errorf("expired credentials, and no server: %v, %v", c, err)
	}
	r.failing(nil)
	secret("the secret III")
	for what, c := range map[string]struct {
		id   string
		from netip.Addr
	}{
		"another address": {id, from.Next()}, "loopback, and the task is not there": {id, netip.MustParseAddr("127.0.0.1")},
		"another id": {h.agent.roles.id("x"), from}, "the task's id": {taskA, from}, "none": {"", from},
	} {
		if task, err := h.agent.Named(c.id, c.from); !errors.Is(err, metadata.ErrUnknown) {
			t.Errorf("%s: %v, %v", what, task, err)
		}
	}

	h.stop()
	h = hostWithRoles(t, dir, fake.New(fake.Config{Dir: filepath.Join(dir, "fake")}), now, r)
	h.hello()
	if again := h.agent.roles.id(taskA); again != id {
		t.Errorf("the id is %s, it was %s", again, id)
	}
	waitFor(t, "the task to be taken over", func() bool { _, err := h.agent.Named(id, from); return err == nil })
	secret("the secret IIII")
	h.stop()
	_ = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), "the secret") {
			t.Errorf("%s has a secret", path)
		}
		return err
	})
}

// Before an agent knows what an earlier process ran, it does not say that there is nothing.
func TestCredentialsAtTheStart(t *testing.T) {
	a, err := New(Config{Dir: t.TempDir(), Driver: fake.New(fake.Config{}), Client: agentapi.NewDispatcherClient(nil), NodeID: "n"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Named("x", netip.MustParseAddr("10.0.0.1")); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
}

// Nothing is made of a task that cannot have its role, or its image.
func TestRefusedRoles(t *testing.T) {
	now := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	for what, c := range map[string]struct {
		task  *agentapi.Assignment
		fails error
		want  string
	}{
		"role":  {withRole(assignment(taskA, 1, run, "web")), status.Error(codes.PermissionDenied, "ECS was unable to assume the role"), "ECS was unable to assume the role"},
		"image": {assignment(taskA, 1, run, "web"), nil, "CannotPullECRContainerError: AccessDeniedException: no"},
	} {
		if what == "image" {
			c.task.Spec.Containers[0].RegistryRefusal = c.want
		}
		h := hostWithRoles(t, t.TempDir(), fake.New(fake.Config{}), now, &roleServer{now: now, fails: c.fails})
		h.hello()
		h.send(5, true, nil, c.task)
		if st := h.untilState(taskA, agentapi.TaskState_STOPPED); st.StopCode != codeFailedToStart || st.StoppedReason != c.want || st.Started != nil {
			t.Errorf("%s: %v", what, st)
		}
		h.stop()
	}
}

// While no server answers, a task waits for its role.
func TestRoleComesLate(t *testing.T) {
	now := clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	r := &roleServer{now: now, fails: status.Error(codes.Unavailable, "no leader")}
	h := hostWithRoles(t, t.TempDir(), fake.New(fake.Config{}), now, r)
	h.hello()
	h.send(5, true, nil, withRole(assignment(taskA, 1, run, "web")))
	waitFor(t, "the role to be asked for", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.asked != nil })
	r.failing(nil)
	h.pass(now, time.Second, "the task to run", func(st *agentapi.TaskStatus) bool { return st.State == agentapi.TaskState_RUNNING })
}

func TestEnvironment(t *testing.T) {
	uris := MetadataURIs{Bridged: LinkLocalURI, Host: "http://127.0.0.1:5"}
	for _, c := range []struct {
		mode, role string
		uris       MetadataURIs
		own        map[string]string
		want       map[string]string // "-": not there
	}{
		{"bridge", "r", uris, nil, map[string]string{"AWS_ENDPOINT_URL": LinkLocalURI, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/ID",
			"ECS_AGENT_URI": LinkLocalURI + "/api/ID", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "-"}},
		{"awsvpc", "", uris, nil, map[string]string{"AWS_ENDPOINT_URL": LinkLocalURI, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "-", "ECS_AGENT_URI": LinkLocalURI + "/api/ID"}},
		{"host", "r", uris, nil, map[string]string{"AWS_ENDPOINT_URL": "http://127.0.0.1:5", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:5/v2/credentials/ID",
			"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "-"}},
		{"bridge", "r", MetadataURIs{Bridged: "http://172.17.0.1:5"}, nil, map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://172.17.0.1:5/v2/credentials/ID"}},
		{"none", "r", uris, nil, map[string]string{"AWS_ENDPOINT_URL": "-", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "-", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "-", "ECS_AGENT_URI": "-"}},
		{"bridge", "r", uris, map[string]string{"AWS_ENDPOINT_URL": "http://mine", "ECS_AGENT_URI": "x"}, map[string]string{"AWS_ENDPOINT_URL": "http://mine", "ECS_AGENT_URI": LinkLocalURI + "/api/ID"}},
	} {
		spec := c.uris.withEnvironment(taskA, "ID", &agentapi.TaskSpec{NetworkMode: c.mode, TaskRole: c.role, Containers: []*agentapi.ContainerSpec{{Name: "a", Environment: c.own}}})
		for name, want := range c.want {
			if got, ok := spec.Containers[0].Environment[name]; ok != (want != "-") || ok && got != want {
				t.Errorf("%s %q: %s is %q, want %q", c.mode, c.role, name, got, want)
			}
		}
	}
}
