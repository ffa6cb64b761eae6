package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/agent/runtime"
	"github.com/seed-2f228079/neargate/agent/runtime/fake"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// execCall is an agent's call as the server sees it, until leave is closed.
type execCall struct {
	agentapi.Dispatcher_ExecSessionServer
	request string
	leave   chan struct{}
}

func (s *server) ExecSession(stream agentapi.Dispatcher_ExecSessionServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	c := &execCall{stream, first.RequestId, make(chan struct{})}
	s.execs <- c
	select {
	case <-c.leave:
	case <-stream.Context().Done():
	}
	return nil
}

// execHost runs a task whose commands do what exec does.
func execHost(t *testing.T, exec func(context.Context, runtime.Command) (int, error)) *host {
	t.Helper()
	s, dir := newScript(), t.TempDir()
	s.set("web", fake.Behaviour{Exec: exec})
	h := newHostAt(t, dir, fake.New(s.config(dir)), s.clock)
	h.hello()
	h.send(1, true, nil, assignment(taskA, 1, agentapi.DesiredState_DESIRED_RUNNING, "web"))
	h.untilState(taskA, agentapi.TaskState_RUNNING)
	return h
}

func (h *host) exec(session string, terminal *agentapi.TerminalSize) *execCall {
	h.t.Helper()
	h.downs <- &agentapi.Down{Body: &agentapi.Down_Exec{Exec: &agentapi.ExecRequest{
		Id: "r-" + session, SessionId: session, TaskId: taskA, Container: "a", Command: []string{"sh"}, Terminal: terminal,
		Expires: timestamppb.New(h.agent.cfg.Clock.Now().Add(time.Minute)),
	}}}
	c := <-h.execs
	if c.request != "r-"+session {
		h.t.Fatalf("the call is for %s", c.request)
	}
	return c
}

// end reads until the exit.
func (c *execCall) end(t *testing.T) (output, errs string, exit *agentapi.ExecExit) {
	t.Helper()
	for {
		out, err := c.Recv()
		if err != nil {
			t.Fatal(err)
		}
		output, errs = output+string(out.Output), errs+string(out.Errors)
		if out.Exit != nil {
			close(c.leave)
			return output, errs, out.Exit
		}
	}
}

func TestExec(t *testing.T) {
	h := execHost(t, func(_ context.Context, c runtime.Command) (int, error) {
		text, err := io.ReadAll(c.Input)
		fmt.Fprintf(c.Output, "%s, root %v, %q", text, c.Root, c.Args)
		fmt.Fprint(c.Errors, strings.Repeat("e", 3*execPiece))
		return 3, err
	})
	c := h.exec("one", nil)
	for _, in := range []*agentapi.ExecInput{{Data: []byte("some ")}, {Data: []byte("input")}, {End: true}} {
		if err := c.Send(in); err != nil {
			t.Fatal(err)
		}
	}
	out, errs, exit := c.end(t)
	if out != `some input, root true, ["sh"]` || len(errs) != 3*execPiece || exit.Code != 3 || exit.Error != "" {
		t.Errorf("output %q, %d bytes of errors, exit %v", out, len(errs), exit)
	}
	if _, _, exit := h.exec("one", nil).end(t); !strings.Contains(exit.Error, "opened before") {
		t.Errorf("the session again: %v", exit)
	}
}

func TestExecOnATerminal(t *testing.T) {
	h := execHost(t, func(_ context.Context, c runtime.Command) (int, error) {
		fmt.Fprint(c.Output, c.Terminal.Size, <-c.Terminal.Resize, c.Environment)
		return 0, nil
	})
	c := h.exec("one", &agentapi.TerminalSize{Columns: 80, Rows: 24})
	if err := c.Send(&agentapi.ExecInput{Resize: &agentapi.TerminalSize{Columns: 100, Rows: 70000}}); err != nil {
		t.Fatal(err)
	}
	if out, _, _ := c.end(t); out != "{80 24} {100 65535} [TERM=xterm-256color]" {
		t.Errorf("output %q", out)
	}
}

func TestExecIsKilledWhenTheCallEnds(t *testing.T) {
	begun, killed := make(chan struct{}), make(chan error, 1)
	h := execHost(t, func(ctx context.Context, c runtime.Command) (int, error) {
		close(begun) // and reads nothing of its input
		<-ctx.Done()
		killed <- ctx.Err()
		return 0, ctx.Err()
	})
	c := h.exec("one", nil)
	for range execInput {
		if err := c.Send(&agentapi.ExecInput{Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	<-begun
	close(c.leave)
	if err := <-killed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	waitFor(t, "no command counts any more", func() bool {
		h.agent.commands.mu.Lock()
		defer h.agent.commands.mu.Unlock()
		return h.agent.commands.total == 0 && len(h.agent.commands.running) == 0
	})
}

func TestExecLimits(t *testing.T) {
	h := execHost(t, func(ctx context.Context, c runtime.Command) (int, error) {
		fmt.Fprint(c.Output, "up")
		<-ctx.Done()
		return 0, ctx.Err()
	})
	var running []*execCall
	for i := range maxTaskCommands {
		c := h.exec(fmt.Sprint("s", i), nil)
		if out, err := c.Recv(); err != nil || string(out.Output) != "up" {
			t.Fatalf("session %d: %v, %v", i, out, err)
		}
		running = append(running, c)
	}
	if _, _, exit := h.exec("more", nil).end(t); !strings.Contains(exit.Error, "has 20 sessions already") {
		t.Errorf("one more: %v", exit)
	}
	for _, c := range running {
		close(c.leave)
	}
}

func TestExecOfWhatDoesNotRun(t *testing.T) {
	h := execHost(t, nil)
	h.downs <- &agentapi.Down{Body: &agentapi.Down_Exec{Exec: &agentapi.ExecRequest{
		Id: "r", SessionId: "s", TaskId: taskA, Container: "nope", Command: []string{"sh"}, Expires: timestamppb.New(h.agent.cfg.Clock.Now().Add(time.Minute))}}}
	if _, _, exit := (<-h.execs).end(t); exit.Error != "the container does not run" {
		t.Errorf("exit %v", exit)
	}
	h.downs <- &agentapi.Down{Body: &agentapi.Down_Exec{Exec: &agentapi.ExecRequest{
		Id: "r", SessionId: "late", TaskId: taskA, Container: "a", Command: []string{"sh"}, Expires: timestamppb.New(h.agent.cfg.Clock.Now().Add(-time.Hour))}}}
	if _, _, exit := (<-h.execs).end(t); !strings.Contains(exit.Error, "not be opened any more") {
		t.Errorf("exit %v", exit)
	}
}
