package dispatcher

import (
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

type opened struct {
	*Execution
	err error
}

func (p *plane) exec(ctx context.Context, node string) <-chan opened {
	done := make(chan opened, 1)
	go func() {
		e, err := p.OpenExec(ctx, node, &agentapi.ExecRequest{SessionId: "s", TaskId: "t", Container: "web", Command: []string{"sh"}})
		done <- opened{e, err}
	}()
	return done
}

func (p *plane) answerExec(node, request string) agentapi.Dispatcher_ExecSessionClient {
	p.t.Helper()
	stream, err := agentapi.NewDispatcherClient(p.dial).ExecSession(metadata.AppendToOutgoingContext(p.t.Context(), "node", node))
	if err == nil {
		err = stream.Send(&agentapi.ExecOutput{RequestId: request})
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return stream
}

// begun is a command that has been asked for and begun.
func (p *plane) begun(ctx context.Context, a *agentSession) (*Execution, agentapi.Dispatcher_ExecSessionClient) {
	p.t.Helper()
	asked := p.exec(ctx, "n")
	req := a.receive().GetExec()
	if req.GetSessionId() != "s" || req.TaskId != "t" || len(req.Id) != 32 {
		p.t.Fatalf("asked for %v", req)
	}
	stream := p.answerExec("n", req.Id)
	e := <-asked
	if e.err != nil {
		p.t.Fatal(e.err)
	}
	return e.Execution, stream
}

func TestExec(t *testing.T) {
	p := newPlane(t)
	e, agent := p.begun(t.Context(), p.joined("n"))
	defer e.Close()
	if err := e.Send(&agentapi.ExecInput{Data: []byte("in")}); err != nil {
		t.Fatal(err)
	}
	if in, err := agent.Recv(); err != nil || string(in.Data) != "in" {
		t.Fatalf("the agent got %v, %v", in, err)
	}
	for _, out := range []*agentapi.ExecOutput{{Taken: 1}, {Output: []byte("out")}, {Exit: &agentapi.ExecExit{Code: 3}}} {
		if err := agent.Send(out); err != nil {
			t.Fatal(err)
		}
	}
	if err := agent.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if out, err := e.Recv(); err != nil || string(out.Output) != "out" {
		t.Errorf("got %v, %v", out, err)
	}
	if out, err := e.Recv(); err != nil || out.Exit.GetCode() != 3 {
		t.Errorf("got %v, %v", out, err)
	}
	if _, err := e.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the exit: %v", err)
	}
	if len(e.credit) != 0 {
		t.Errorf("%d messages count as not taken", len(e.credit))
	}
}

func TestExecEndsWithWhoAsked(t *testing.T) {
	p := newPlane(t)
	e, agent := p.begun(t.Context(), p.joined("n"))
	e.Close()
	if _, err := agent.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the agent's call ended with %v", err)
	}
	if _, err := e.Recv(); err == nil {
		t.Error("there is output after the end")
	}
}

func TestExecInputWaitsForTheCommand(t *testing.T) {
	p := newPlane(t)
	ctx, cancel := context.WithCancel(t.Context())
	e, _ := p.begun(ctx, p.joined("n"))
	for range maxInput {
		if err := e.Send(&agentapi.ExecInput{Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	sent := make(chan error, 1)
	go func() { sent <- e.Send(&agentapi.ExecInput{}) }()
	cancel()
	if err := <-sent; !errors.Is(err, context.Canceled) {
		t.Errorf("one message more: %v", err)
	}
}

func TestExecOfALostAgent(t *testing.T) {
	p := newPlane(t)
	ctx, lose := context.WithCancel(t.Context())
	a := p.joined("n")
	asked := p.exec(t.Context(), "n")
	stream, err := agentapi.NewDispatcherClient(p.dial).ExecSession(ctx)
	if err == nil {
		err = stream.Send(&agentapi.ExecOutput{RequestId: a.receive().GetExec().Id})
	}
	if err != nil {
		t.Fatal(err)
	}
	e := <-asked
	lose()
	if _, err := e.Recv(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("recv = %v", err)
	}
}

func TestExecIsAnsweredByItsNodeOnly(t *testing.T) {
	p := newPlane(t)
	p.Authorize = func(ctx context.Context, node string) error {
		md, _ := metadata.FromIncomingContext(ctx)
		if who := md.Get("node"); len(who) > 0 && who[0] != node {
			return errors.New("the certificate names another node")
		}
		return nil
	}
	if o := <-p.exec(t.Context(), "n"); !errors.Is(o.err, ErrNotConnected) {
		t.Errorf("of a node that is not there: %v", o.err)
	}
	a := p.joined("n")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := p.exec(ctx, "n")
	req := a.receive().GetExec()
	for name, c := range map[string]struct {
		node, request string
		want          codes.Code
	}{
		"another node":    {"m", req.Id, codes.PermissionDenied},
		"another request": {"n", "guess", codes.NotFound},
	} {
		if _, err := p.answerExec(c.node, c.request).Recv(); status.Code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	logs := p.answer("n", req.Id) // a call of another kind
	if err := logs.RecvMsg(&agentapi.LogsRead{}); status.Code(err) != codes.NotFound {
		t.Errorf("logs instead of a command: %v", err)
	}
	p.answerExec("n", req.Id)
	if o := <-asked; o.err != nil {
		t.Error(o.err)
	}
}
