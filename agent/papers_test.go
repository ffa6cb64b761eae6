package agent

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// certificate is a host's, as far as the agent knows of it.
type certificate struct {
	mu      sync.Mutex
	papers  *agentapi.Papers
	changed chan struct{}
}

func (c *certificate) get() (*agentapi.Papers, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.papers, c.changed
}

// renew gives it what the server wants.
func (c *certificate) renew(r *agentapi.Renew) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.papers = r.Wanted
	close(c.changed)
	c.changed = make(chan struct{})
}

// A host that is asked to renew its certificate begins a new session, whose hello says what it has; a command that runs, and a task, go on.
func TestNewCertificateIsANewSession(t *testing.T) {
	s, dir := newScript(), t.TempDir()
	s.set("web", fake.Behaviour{Exec: func(_ context.Context, c runtime.Command) (int, error) {
		text, err := io.ReadAll(c.Input)
		fmt.Fprintf(c.Output, "%s", text)
		return 0, err
	}})
	first, next := &agentapi.Papers{Issuer: "a", Authorities: []string{"a"}}, &agentapi.Papers{Issuer: "b", Authorities: []string{"a", "b"}}
	own := &certificate{papers: first, changed: make(chan struct{})}
	h := connectHost(t, Config{Dir: dir, Driver: fake.New(s.config(dir)), Clock: s.clock, Papers: own.get, Renew: own.renew}, "i1")
	if m := h.hello(); !proto.Equal(m.Papers, first) {
		t.Errorf("it says %v", m.Papers)
	}
	h.send(1, true, nil, assignment(taskA, 1, agentapi.DesiredState_DESIRED_RUNNING, "web"))
	h.untilState(taskA, agentapi.TaskState_RUNNING)
	command := h.exec("one", nil)
	h.downs <- &agentapi.Down{Body: &agentapi.Down_Renew{Renew: &agentapi.Renew{Wanted: next}}}
	m := h.hello()
	if !proto.Equal(m.Papers, next) || m.Started {
		t.Errorf("it says %v", m)
	}
	if len(m.Tasks) != 1 || m.Tasks[0].State != agentapi.TaskState_RUNNING {
		t.Errorf("its tasks are %v", m.Tasks)
	}
	for _, in := range []*agentapi.ExecInput{{Data: []byte("still here")}, {End: true}} {
		if err := command.Send(in); err != nil {
			t.Fatal(err)
		}
	}
	if out, _, exit := command.end(t); out != "still here" || exit.Error != "" {
		t.Errorf("output %q, exit %v", out, exit)
	}
}
