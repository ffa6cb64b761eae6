package execute

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/datachannel"
	"github.com/seed-2f228079/neargate/internal/seal"
)

// node is a host whose commands are in the test's hands.
type node struct {
	asked   chan *agentapi.ExecRequest
	inputs  chan *agentapi.ExecInput
	outputs chan *agentapi.ExecOutput
	closed  chan struct{}
	refuse  error
	ctx     context.Context // of the command
}

func (n *node) open(ctx context.Context, _ string, req *agentapi.ExecRequest) (Command, error) {
	if n.refuse != nil {
		return nil, n.refuse
	}
	n.ctx = ctx
	n.asked <- req
	return n, nil
}

func (n *node) Send(in *agentapi.ExecInput) error {
	select {
	case n.inputs <- in:
		return nil
	case <-n.closed:
		return io.EOF
	}
}

func (n *node) Recv() (*agentapi.ExecOutput, error) {
	select {
	case out, ok := <-n.outputs:
		if !ok {
			return nil, errors.New("the connection to the node was lost")
		}
		return out, nil
	case <-n.ctx.Done():
		return nil, n.ctx.Err()
	}
}

func (n *node) Close()                     { close(n.closed) }
func (n *node) Connected(name string) bool { return name == "here" }
func (n *node) Where(_ context.Context, name string) (string, error) {
	return strings.TrimPrefix(name, "at "), nil
}

// site is the service behind a server.
type site struct {
	*Service
	t     *testing.T
	node  *node
	clock *clock.Fake
	url   string
	ended chan Record
	stop  context.CancelFunc
	log   *controlplane.SessionLog // of sessions that begin
}

func newSite(t *testing.T) *site {
	s := &site{t: t, clock: clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), ended: make(chan Record, 1),
		node: &node{asked: make(chan *agentapi.ExecRequest, 1), inputs: make(chan *agentapi.ExecInput), outputs: make(chan *agentapi.ExecOutput), closed: make(chan struct{})}}
	sealer, err := seal.New(make([]byte, seal.KeySize), "sessions")
	if err != nil {
		t.Fatal(err)
	}
	s.Service = New(Config{Nodes: s.node, Open: s.node.open, Seal: sealer, Rand: rand.Reader, Clock: s.clock, Log: slog.New(slog.DiscardHandler),
		Ended: func(r Record) { s.ended <- r }})
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := datachannel.Accept(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		s.Serve(ctx, conn, strings.TrimPrefix(r.URL.Path, Path))
	}))
	t.Cleanup(func() { stop(); server.Close() })
	s.url = strings.TrimPrefix(server.URL, "http://")
	return s
}

func (s *site) begin() types.Session {
	s.t.Helper()
	ctx := api.WithCall(s.t.Context(), &api.Call{Host: s.url, Identity: api.Identity{ARN: "arn:aws:iam::000000000000:user/ann"}})
	session, err := s.Begin(ctx, &controlplane.Task{Account: "000000000000", Region: "us-east-1", Cluster: "c", Id: "t"}, "here", "web", []string{"sh", "-i"}, s.log)
	if err != nil {
		s.t.Fatal(err)
	}
	return session
}

// user is a client.
type user struct {
	t       *testing.T
	conn    *datachannel.Conn
	channel *datachannel.Channel
	shaken  chan struct{}             // closed with the end of the handshake
	got     chan *datachannel.Message // what is not part of it
	over    chan error
}

func (s *site) connect(session types.Session, kind string) *user {
	s.t.Helper()
	conn, err := datachannel.Dial(s.t.Context(), *session.StreamUrl, http.DefaultClient)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(conn.Drop)
	text, err := json.Marshal(datachannel.Opening{SchemaVersion: "1.0", Token: *session.TokenValue, SessionType: kind})
	if err == nil {
		err = conn.WriteText(s.t.Context(), text)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	u := &user{t: s.t, conn: conn, channel: datachannel.NewClient(conn, clock.Real{}), shaken: make(chan struct{}), got: make(chan *datachannel.Message, 64), over: make(chan error, 1)}
	go func() {
		u.over <- u.channel.Run(s.t.Context(), func(m *datachannel.Message) (bool, error) {
			switch m.PayloadType {
			case datachannel.HandshakeRequest:
				var h datachannel.Handshake
				if err := json.Unmarshal(m.Payload, &h); err != nil {
					return false, err
				}
				return true, u.channel.SendJSON(s.t.Context(), datachannel.HandshakeResponse, h.Answer("test"))
			case datachannel.HandshakeComplete:
				close(u.shaken)
				return true, nil
			}
			u.got <- m
			return true, nil
		})
	}()
	return u
}

func (u *user) send(kind datachannel.PayloadType, flags uint64, text string) {
	u.t.Helper()
	if err := u.channel.Send(u.t.Context(), kind, flags, []byte(text)); err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) closing() datachannel.Closing {
	u.t.Helper()
	m := <-u.got
	var c datachannel.Closing
	if m.Type != datachannel.ChannelClosed || json.Unmarshal(m.Payload, &c) != nil {
		u.t.Fatalf("got %+v", m)
	}
	return c
}

// advance moves the clock until ready is closed or holds something: timers of the fake clock are set while it goes on.
func advance[T any](s *site, step time.Duration, ready <-chan T) T {
	s.t.Helper()
	for {
		select {
		case v := <-ready:
			return v
		case <-time.After(time.Millisecond):
			s.clock.Advance(step)
		}
	}
}

func TestSession(t *testing.T) {
	s := newSite(t)
	session := s.begin()
	u := s.connect(session, datachannel.Interactive)
	u.send(datachannel.Size, 0, `{"cols":80,"rows":24}`)
	req := <-s.node.asked
	if req.SessionId != *session.SessionId || req.TaskId != "t" || req.Container != "web" || len(req.Command) != 2 || req.Terminal.Columns != 80 || req.Terminal.Rows != 24 {
		t.Errorf("asked for %v", req)
	}
	if in := <-s.node.inputs; in.Resize.GetRows() != 24 {
		t.Errorf("input %v", in)
	}
	u.send(datachannel.Output, 0, "ls\r")
	if in := <-s.node.inputs; string(in.Data) != "ls\r" {
		t.Errorf("input %v", in)
	}
	s.node.outputs <- &agentapi.ExecOutput{Output: []byte("file\r\n")}
	if m := <-u.got; m.PayloadType != datachannel.Output || string(m.Payload) != "file\r\n" {
		t.Errorf("got %+v", m)
	}
	s.node.outputs <- &agentapi.ExecOutput{Exit: &agentapi.ExecExit{Code: 3}}
	if m := <-u.got; m.PayloadType != datachannel.ExitCode || string(m.Payload) != "3" {
		t.Errorf("got %+v", m)
	}
	if c := u.closing(); c.Output != "" || c.Session != *session.SessionId {
		t.Errorf("closed with %+v", c)
	}
	r := <-s.ended
	if r.ExitCode == nil || *r.ExitCode != 3 || r.Reason != "" || r.Received != 3 || r.Written != 6 || r.Caller != "arn:aws:iam::000000000000:user/ann" {
		t.Errorf("record %+v", r)
	}
}

// TestAWSClient: one that does not know our additions gets a terminal, and no exit code that it would print.
func TestAWSClient(t *testing.T) {
	s := newSite(t)
	u := s.connect(s.begin(), "")
	<-u.shaken // which is waited for by the same clock
	if req := advance(s, 100*time.Millisecond, s.node.asked); req.Terminal == nil {
		t.Error("it gets no terminal")
	}
	go func() { s.node.outputs <- &agentapi.ExecOutput{Exit: &agentapi.ExecExit{Code: 3}} }()
	u.closing()
}

func TestPipes(t *testing.T) {
	s := newSite(t)
	u := s.connect(s.begin(), datachannel.NonInteractive)
	if req := <-s.node.asked; req.Terminal != nil {
		t.Error("it gets a terminal")
	}
	u.send(datachannel.Output, datachannel.FIN, "last")
	if in := <-s.node.inputs; string(in.Data) != "last" || !in.End {
		t.Errorf("input %v", in)
	}
	s.node.outputs <- &agentapi.ExecOutput{Errors: []byte("oops")}
	if m := <-u.got; m.PayloadType != datachannel.StdErr || string(m.Payload) != "oops" {
		t.Errorf("got %+v", m)
	}
}

func TestHowSessionsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(s *site, u *user)
		want string // in the record
		said bool   // to the client too
	}{
		"the client leaves":     {func(_ *site, u *user) { u.conn.Drop() }, "the client left", false},
		"the client ends it":    {func(_ *site, u *user) { u.send(datachannel.Flag, 0, "\x00\x00\x00\x02") }, "the client ended the session", true},
		"the node is lost":      {func(s *site, _ *user) { close(s.node.outputs) }, "the connection to the node was lost", true},
		"the server shuts down": {func(s *site, _ *user) { s.stop() }, "the server is shutting down", false},
		"the command cannot be run": {func(s *site, _ *user) {
			s.node.outputs <- &agentapi.ExecOutput{Exit: &agentapi.ExecExit{Error: "the container does not run"}}
		}, "the container does not run", true},
		"nothing happens": {func(s *site, _ *user) {
			s.ended <- advance(s, time.Minute, s.ended)
		}, "the session was idle for too long", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			u := s.connect(s.begin(), datachannel.NonInteractive)
			<-s.node.asked
			c.end(s, u)
			if r := <-s.ended; r.Reason != c.want || r.ExitCode != nil {
				t.Errorf("record %+v", r)
			}
			<-s.node.closed
			if c.said {
				if got := u.closing().Output; got != c.want {
					t.Errorf("the client is told %q", got)
				}
			}
		})
	}
}

func TestTokens(t *testing.T) {
	s := newSite(t)
	refused := func(name string, session types.Session) {
		t.Helper()
		u := s.connect(session, datachannel.NonInteractive)
		if err := <-u.over; err == nil || !strings.Contains(err.Error(), "token") {
			t.Errorf("%s: %v", name, err)
		}
	}
	one, two := s.begin(), s.begin()
	refused("of another session", types.Session{StreamUrl: one.StreamUrl, TokenValue: two.TokenValue})
	changed := "x" + *one.TokenValue
	refused("changed", types.Session{StreamUrl: one.StreamUrl, TokenValue: &changed})
	s.clock.Advance(tokenLife + time.Second)
	refused("late", one)
}

func TestBeginNeedsTheNode(t *testing.T) {
	s := newSite(t)
	ctx := api.WithCall(t.Context(), &api.Call{Host: "neargate.example", Secure: true})
	task := &controlplane.Task{Id: "t"}
	if _, err := s.Begin(ctx, task, "", "web", nil, nil); err == nil || !strings.Contains(err.Error(), "TargetNotConnectedException") {
		t.Errorf("of a node that is nowhere: %v", err)
	}
	session, err := s.Begin(ctx, task, "at s2", "web", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(*session.StreamUrl, "wss://neargate.example/v1/data-channel/ecs-execute-command-") {
		t.Errorf("at %s", *session.StreamUrl)
	}
	if got := s.Elsewhere(httptest.NewRequest(http.MethodGet, *session.StreamUrl, nil)); got != "s2" {
		t.Errorf("elsewhere: %q", got)
	}
}
