package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// reading is a reader who waits for the agent's answer.
type reading struct {
	lines iter.Seq2[[]*agentapi.LogLine, error]
	err   error
}

func (p *plane) read(ctx context.Context, node string) <-chan reading {
	done := make(chan reading, 1)
	go func() {
		lines, err := p.ReadLogs(ctx, node, &agentapi.LogRequest{TaskId: "t", Container: "web", Follow: true, Tail: 5})
		done <- reading{lines, err}
	}()
	return done
}

// joined is an agent of the node whose session has begun.
func (p *plane) joined(node string) *agentSession {
	a := p.connect(hello(node))
	a.receive()
	a.ack(a.update())
	return a
}

func (a *agentSession) logRequest() *agentapi.LogRequest {
	a.p.t.Helper()
	r := a.receive().GetLogs()
	if r == nil {
		a.p.t.Fatal("got something else than a request for logs")
	}
	return r
}

// answer begins an agent's call, as the node in the metadata.
func (p *plane) answer(node, id string) agentapi.Dispatcher_LogsClient {
	p.t.Helper()
	stream, err := agentapi.NewDispatcherClient(p.dial).Logs(metadata.AppendToOutgoingContext(p.t.Context(), "node", node))
	if err != nil {
		p.t.Fatal(err)
	}
	p.put(stream, &agentapi.LogChunk{RequestId: id})
	return stream
}

func (p *plane) put(stream agentapi.Dispatcher_LogsClient, c *agentapi.LogChunk) {
	p.t.Helper()
	if err := stream.Send(c); err != nil {
		p.t.Fatal(err)
	}
}

func chunk(texts ...string) *agentapi.LogChunk {
	c := &agentapi.LogChunk{}
	for _, t := range texts {
		c.Lines = append(c.Lines, &agentapi.LogLine{Text: t})
	}
	return c
}

func (p *plane) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.callbacks)
}

func TestReadLogs(t *testing.T) {
	p := newPlane(t)
	p.Authorize = func(ctx context.Context, node string) error {
		if md, _ := metadata.FromIncomingContext(ctx); len(md["node"]) == 1 && md["node"][0] != node {
			return errors.New("the certificate names another node")
		}
		return nil
	}
	a := p.joined("a")
	done := p.read(t.Context(), "a")
	req := a.logRequest()
	if req.TaskId != "t" || req.Container != "web" || !req.Follow || req.Tail != 5 || len(req.Id) != 32 {
		t.Fatalf("request %v", req)
	}
	// Whoever guesses, and another node that knows the id, get nowhere; the reader goes on waiting.
	if _, err := p.answer("a", strings.Repeat("0", 32)).CloseAndRecv(); status.Code(err) != codes.NotFound {
		t.Errorf("a guess: %v", err)
	}
	if _, err := p.answer("b", req.Id).CloseAndRecv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another node: %v", err)
	}
	stream := p.answer("a", req.Id)
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	// An id serves once.
	if _, err := p.answer("a", req.Id).CloseAndRecv(); status.Code(err) != codes.NotFound {
		t.Errorf("a second answer: %v", err)
	}
	p.put(stream, chunk("one", "two"))
	p.put(stream, chunk("three"))
	p.put(stream, &agentapi.LogChunk{Error: "the disk is on fire"})
	var got []string
	for lines, err := range r.lines {
		for _, l := range lines {
			got = append(got, l.Text)
		}
		if err != nil {
			got = append(got, "error: "+err.Error())
		}
	}
	if fmt.Sprint(got) != "[one two three error: the disk is on fire]" {
		t.Error(got)
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		t.Error(err)
	}
	if p.waiting() != 0 {
		t.Errorf("%d readers are left", p.waiting())
	}
}

func TestReaderLeaves(t *testing.T) {
	p := newPlane(t)
	a := p.joined("a")
	// Before the agent has answered: its call is refused.
	ctx, cancel := context.WithCancel(t.Context())
	done := p.read(ctx, "a")
	req := a.logRequest()
	cancel()
	if r := <-done; !errors.Is(r.err, context.Canceled) {
		t.Fatal(r.err)
	}
	if _, err := p.answer("a", req.Id).CloseAndRecv(); status.Code(err) != codes.NotFound {
		t.Errorf("nobody reads: %v", err)
	}
	// In the middle: the agent's call ends, though it has nothing to send.
	done = p.read(t.Context(), "a")
	stream := p.answer("a", a.logRequest().Id)
	r := <-done
	p.put(stream, chunk("one"))
	for lines := range r.lines {
		if lines[0].Text != "one" {
			t.Error(lines)
		}
		break
	}
	if err := stream.RecvMsg(&agentapi.LogsRead{}); err != nil {
		t.Error(err)
	}
}

// A reader who takes nothing holds the agent up and fills no memory.
func TestSlowReaderSlowsTheAgentDown(t *testing.T) {
	p := newPlane(t)
	a := p.joined("a")
	done := p.read(t.Context(), "a")
	stream := p.answer("a", a.logRequest().Id)
	r := <-done
	const chunks, size = 200, 100 << 10
	var sent atomic.Int32
	go func() {
		for range chunks {
			if stream.Send(chunk(strings.Repeat("x", size))) != nil {
				return
			}
			sent.Add(1)
		}
		stream.CloseSend()
	}()
	p.until("the agent has begun", func() bool { return sent.Load() > 0 })
	total := 0
	for lines, err := range r.lines {
		if err != nil {
			t.Fatal(err)
		}
		total++
		// What is under way is what the transport may hold, 64 KiB a stream on each side, and a message or two at hand.
		if ahead := int(sent.Load()) - total; ahead > 10 {
			t.Fatalf("the agent is %d chunks ahead", ahead)
		}
		if len(lines[0].Text) != size {
			t.Fatal("not what was sent")
		}
	}
	if total != chunks {
		t.Errorf("%d chunks", total)
	}
}

func TestNodeOutOfReach(t *testing.T) {
	p := newPlane(t)
	if r := <-p.read(t.Context(), "a"); !errors.Is(r.err, ErrNotConnected) {
		t.Errorf("never seen: %v", r.err)
	}
	a := p.joined("a")
	// The session ends before the agent answers.
	done := p.read(t.Context(), "a")
	a.logRequest()
	a.cancel()
	if r := <-done; !errors.Is(r.err, ErrNotConnected) {
		t.Errorf("session ended: %v", r.err)
	}
	p.until("the session is over", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return !p.subscribers["a"].open
	})
	if r := <-p.read(t.Context(), "a"); !errors.Is(r.err, ErrNotConnected) {
		t.Errorf("between sessions: %v", r.err)
	}
	// An agent that does not answer is not waited for beyond its lease.
	b := p.joined("b")
	done = p.read(t.Context(), "b")
	b.logRequest()
	p.clock.Advance(p.Lease)
	if r := <-done; r.err == nil || !strings.Contains(r.err.Error(), "has not answered within 10s") {
		t.Errorf("no answer: %v", r.err)
	}
	if p.waiting() != 0 {
		t.Errorf("%d readers are left", p.waiting())
	}
}

// A connection that is cut in the middle is an error, not an end.
func TestCutLog(t *testing.T) {
	p := newPlane(t)
	a := p.joined("a")
	done := p.read(t.Context(), "a")
	ctx, cut := context.WithCancel(t.Context())
	stream, err := agentapi.NewDispatcherClient(p.dial).Logs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p.put(stream, &agentapi.LogChunk{RequestId: a.logRequest().Id})
	r := <-done
	cut()
	for _, err := range r.lines {
		if err == nil || !strings.HasPrefix(err.Error(), "the connection to the node was lost") {
			t.Error(err)
		}
		return
	}
	t.Error("it ended as if that were all")
}
