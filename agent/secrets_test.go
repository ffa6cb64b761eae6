package agent

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// secretive is a task of which something is to be asked for.
func secretive(images ...string) *agentapi.Assignment {
	as := assignment(taskA, 1, run, images...)
	as.Spec.HasSecrets = true
	return as
}

// puller notes how images are pulled.
type puller struct {
	*fake.Driver
	mu    sync.Mutex
	pulls map[string]runtime.PullRequest
}

func (p *puller) Pull(ctx context.Context, req runtime.PullRequest) (runtime.Image, error) {
	p.mu.Lock()
	p.pulls[req.Image] = req
	p.mu.Unlock()
	return p.Driver.Pull(ctx, req)
}

// TestSecretsAreAskedForOnce: they reach the pull and the driver, after a server that does not answer yet, and no disk; an agent that takes
// over what runs asks for nothing.
func TestSecretsAreAskedForOnce(t *testing.T) {
	dir := t.TempDir()
	driver := &puller{Driver: fake.New(fake.Config{Dir: filepath.Join(dir, "fake")}), pulls: map[string]runtime.PullRequest{}}
	h := newHost(t, dir, driver, "i1")
	h.hello()
	var asked atomic.Int32
	h.secrets = func(req *agentapi.TaskSecretsRequest) (*agentapi.TaskSecretsAnswer, error) {
		if req.NodeId != "n1" || req.TaskId != taskA {
			t.Errorf("asked for %v", req)
		}
		if asked.Add(1) == 1 {
			return nil, status.Error(codes.Unavailable, "no leader")
		}
		return &agentapi.TaskSecretsAnswer{Containers: []*agentapi.ContainerSecrets{{Name: "b", Environment: map[string]string{"S": "canary"},
			Files: map[string][]byte{"F": []byte("canary")}, RegistryUser: "u", RegistryPassword: "canary", LogOptions: map[string]string{"token": "canary"}}}}, nil
	}
	h.send(1, true, nil, secretive("web", "private"))
	h.untilState(taskA, agentapi.TaskState_RUNNING)
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times, want twice", n)
	}
	got := driver.Confided(taskA)
	if len(got) != 1 || got["b"].Environment["S"] != "canary" || string(got["b"].Files["F"]) != "canary" || got["b"].LogOptions["token"] != "canary" {
		t.Errorf("the driver was told %v", got)
	}
	if p := driver.pulls["private"]; p.User != "u" || p.Password != "canary" {
		t.Errorf("pulled as %q", p.User)
	}
	if p := driver.pulls["web"]; p.User != "" {
		t.Errorf("the other image was pulled as %q", p.User)
	}
	h.stop()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if b, _ := os.ReadFile(path); bytes.Contains(b, []byte("canary")) {
				t.Errorf("%s has a secret in it", path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	h = newHost(t, dir, fake.New(fake.Config{Dir: filepath.Join(dir, "fake")}), "i1")
	h.secrets = func(*agentapi.TaskSecretsRequest) (*agentapi.TaskSecretsAnswer, error) {
		asked.Add(1)
		return nil, status.Error(codes.Internal, "asked again")
	}
	h.hello()
	h.untilState(taskA, agentapi.TaskState_RUNNING)
	h.send(2, true, nil, assignment(taskA, 1, halt, "web", "private"))
	h.untilState(taskA, agentapi.TaskState_STOPPED)
	if n := asked.Load(); n != 2 {
		t.Errorf("the agent that took over asked again: %d times", n)
	}
}

// TestTaskWithoutItsSecretsDoesNotStart: the reason is the server's.
func TestTaskWithoutItsSecretsDoesNotStart(t *testing.T) {
	for name, c := range map[string]struct {
		answer *agentapi.TaskSecretsAnswer
		err    error
		reason string
	}{
		"refused":      {&agentapi.TaskSecretsAnswer{Failure: "ResourceInitializationError: unable to"}, nil, "ResourceInitializationError: unable to"},
		"not its task": {nil, status.Error(codes.PermissionDenied, "not of this node"), "ResourceInitializationError: unable to pull secrets or registry auth: not of this node"},
	} {
		driver := fake.New(fake.Config{})
		h := newHost(t, t.TempDir(), driver, "i1")
		h.hello()
		h.secrets = func(*agentapi.TaskSecretsRequest) (*agentapi.TaskSecretsAnswer, error) { return c.answer, c.err }
		h.send(1, true, nil, secretive("web"))
		if st := h.untilState(taskA, agentapi.TaskState_STOPPED); st.StoppedReason != c.reason || st.StopCode != codeFailedToStart || st.PullStarted != nil {
			t.Errorf("%s: %s: %s", name, st.StopCode, st.StoppedReason)
		}
	}
}

// TestStoppedWhileSecretsAreAskedFor: a task that is stopped meanwhile ends at once.
func TestStoppedWhileSecretsAreAskedFor(t *testing.T) {
	h := newHost(t, t.TempDir(), fake.New(fake.Config{}), "i1")
	h.hello()
	asked := make(chan struct{}, 100)
	h.secrets = func(*agentapi.TaskSecretsRequest) (*agentapi.TaskSecretsAnswer, error) {
		asked <- struct{}{}
		return nil, status.Error(codes.Unavailable, "no leader")
	}
	h.send(1, true, nil, secretive("web"))
	<-asked
	h.send(2, true, nil, assignment(taskA, 1, halt, "web"))
	h.untilState(taskA, agentapi.TaskState_STOPPED)
}
