package execute

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/internal/datachannel"
)

// Times of a session's beginning and end.
const (
	openTimeout = 10 * time.Second // for the first message, and for the handshake
	sizeTimeout = time.Second      // for a terminal's first size
	leaveTime   = 10 * time.Second // for the client to take the last of the output
)

// maxInput is how many messages of input wait for the command.
const maxInput = 64

// session is one data channel.
type session struct {
	*Service
	claims
	opening datachannel.Opening
	channel *datachannel.Channel
	// What is shown goes there too; nil: nowhere.
	transcript *transcript
	spool      *spool // and there

	shaken chan []string // the handshake's errors
	sized  chan struct{} // closed with the first size
	inputs chan *agentapi.ExecInput
	size   atomic.Pointer[agentapi.TerminalSize]
	end    context.CancelCauseFunc

	active            atomic.Int64 // when something was last taken, in nanoseconds of the epoch
	received, written atomic.Int64 // bytes of input and output
}

// Why a session ends before its command.
var (
	errClientLeft = errors.New("the client left")
	errTerminated = errors.New("the client ended the session")
	errIdle       = errors.New("the session was idle for too long")
	errShutdown   = errors.New("the server is shutting down")
)

// Serve runs a session on a data channel that a client has just opened, and closes the channel. ctx ends when the server shuts down.
func (s *Service) Serve(ctx context.Context, conn *datachannel.Conn, id string) {
	defer conn.Drop()
	opening, c, err := s.open(ctx, conn, id)
	if err != nil {
		s.Log.Info("a session of ECS Exec is refused", "session", id, "error", err)
		conn.Refuse(err.Error())
		return
	}
	// A connection does not outlive the end of a context that it is used with: it has its own, for the last words.
	serving := ctx
	connected, leave := context.WithCancel(ctx)
	defer leave()
	ctx, end := context.WithCancelCause(connected)
	defer end(nil)
	x := &session{
		Service: s, claims: c, opening: opening, channel: datachannel.NewServer(conn, s.Clock), end: end,
		shaken: make(chan []string, 1), sized: make(chan struct{}), inputs: make(chan *agentapi.ExecInput, maxInput),
	}
	if c.Kept != nil && c.Kept.Group != "" && s.Keep != nil {
		defer x.keepTranscript(serving)()
	}
	if c.Kept != nil && c.Kept.Bucket != "" {
		defer x.keepObject(serving)()
	}
	began := s.Clock.Now()
	x.touch()
	read := make(chan struct{})
	go func() {
		defer close(read)
		err := x.channel.Run(connected, x.take)
		s.Log.Debug("data channel", "session", id, "error", err)
		end(errClientLeft)
	}()
	go x.watchIdle(ctx)
	code, err := x.run(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if connected.Err() != nil {
		err = errShutdown
	}
	end(nil)
	x.record(began, code, err)
	x.close(connected, code, err)
	conn.Close()
	leave()
	<-read
}

// keepTranscript begins to keep what the session shows, in the log group that its token names; what it returns ends that. It goes on for
// a moment when the server shuts down.
func (x *session) keepTranscript(serving context.Context) (end func()) {
	to := &agentapi.SessionLog{Session: x.Session, Group: x.Kept.Group, Region: x.Kept.Region}
	x.transcript = newTranscript(x.Clock, x.Log.With("session", x.Session, "task", x.Task, "group", to.Group),
		func(ctx context.Context, events []*agentapi.ShipEvent, mark uint64) error {
			return x.Keep(ctx, x.Task, to, events, mark)
		})
	keeping, stop := context.WithCancel(context.WithoutCancel(serving))
	go x.transcript.run(keeping)
	return func() {
		limit := lastWords
		if serving.Err() != nil {
			limit = shutdownWords
		}
		x.transcript.finish(limit, stop)
	}
}

// keepObject begins to keep what the session shows for an object in the bucket that its token names; what it returns writes that. As with the
// log, a session goes on without it.
func (x *session) keepObject(serving context.Context) (end func()) {
	log := x.Log.With("session", x.Session, "task", x.Task, "bucket", x.Kept.Bucket)
	err := errors.New("this server has no S3 endpoint")
	if x.KeepObject != nil {
		x.spool, err = newSpool()
	}
	if err != nil {
		log.Warn("what a session of ECS Exec shows is not kept", "error", err)
		return func() {}
	}
	return func() {
		defer x.spool.close()
		writing, cancel := context.WithTimeout(context.WithoutCancel(serving), uploadTime)
		defer cancel()
		shutdown := context.AfterFunc(serving, func() { time.AfterFunc(shutdownWords, cancel) })
		defer shutdown()
		c, err := x.spool.content()
		if err == nil {
			err = x.KeepObject(writing, x.Task, x.Session, x.Kept, c)
		}
		if err != nil {
			log.Warn("what a session of ECS Exec has shown is not kept", "bytes", c.Size, "error", err)
		}
	}
}

// open reads the first message.
func (s *Service) open(ctx context.Context, conn *datachannel.Conn, id string) (o datachannel.Opening, c claims, err error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	text, err := conn.ReadText(ctx)
	if err != nil {
		return o, c, err
	}
	if err := json.Unmarshal(text, &o); err != nil {
		return o, c, errors.New("the first message does not open a data channel")
	}
	c, ok := s.claims(id, o.Token)
	if !ok {
		return o, c, errors.New("the token does not open this session, or not any more")
	}
	return o, c, nil
}

// terminal says whether the command gets one. Clients that do not say what they want, which is all of AWS's, want one.
func (x *session) terminal() bool { return x.opening.SessionType != datachannel.NonInteractive }

// run shakes hands, starts the command and carries its output until it has ended.
func (x *session) run(ctx context.Context) (code int32, err error) {
	if err := x.handshake(ctx); err != nil {
		return 0, err
	}
	req := &agentapi.ExecRequest{SessionId: x.Session, TaskId: x.Task, Container: x.Container, Command: x.Command, Expires: timestamppb.New(x.Expires)}
	if x.terminal() {
		select { // its size comes first; a program that asks for it when it starts gets the right one
		case <-x.sized:
		case <-x.Clock.After(sizeTimeout):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if req.Terminal = x.size.Load(); req.Terminal == nil {
			req.Terminal = &agentapi.TerminalSize{}
		}
	}
	command, err := x.Open(ctx, x.Node, req)
	if err != nil {
		return 0, fmt.Errorf("the task's host is out of reach: %w", err)
	}
	defer command.Close()
	go x.feed(ctx, command)
	for {
		out, err := command.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return 0, errors.New("the host lost the command")
		case err != nil:
			return 0, err
		case out.Exit.GetError() != "":
			return 0, errors.New(out.Exit.Error)
		}
		for _, p := range []struct {
			kind datachannel.PayloadType
			data []byte
		}{{datachannel.Output, out.Output}, {datachannel.StdErr, out.Errors}} {
			if err := x.send(ctx, p.kind, p.data); err != nil {
				return 0, err
			}
		}
		if out.Exit != nil {
			return out.Exit.Code, nil
		}
	}
}

// sentPiece is how much output goes in one message, as AWS's agent has it: clients' terminals show it as it comes.
const sentPiece = 1024

func (x *session) send(ctx context.Context, kind datachannel.PayloadType, data []byte) error {
	piece := sentPiece
	if !x.terminal() {
		piece = datachannel.MaxPayload
	}
	if x.transcript != nil {
		x.transcript.add(ctx, data)
	}
	if x.spool != nil {
		x.spool.add(data)
	}
	for len(data) > 0 {
		n := min(len(data), piece)
		if err := x.channel.Send(ctx, kind, 0, data[:n]); err != nil {
			return err
		}
		x.written.Add(int64(n))
		x.touch()
		data = data[n:]
	}
	return nil
}

func (x *session) handshake(ctx context.Context) error {
	began := x.Clock.Now()
	kind := datachannel.Interactive
	if !x.terminal() {
		kind = datachannel.NonInteractive
	}
	if err := x.channel.SendJSON(ctx, datachannel.HandshakeRequest, datachannel.NewHandshake(kind)); err != nil {
		return err
	}
	select {
	case problems := <-x.shaken:
		if len(problems) > 0 {
			return fmt.Errorf("the client can not do what the session needs: %q", problems)
		}
	case <-x.Clock.After(openTimeout):
		return errors.New("the client does not answer the handshake")
	case <-ctx.Done():
		return ctx.Err()
	}
	return x.channel.SendJSON(ctx, datachannel.HandshakeComplete, datachannel.Completion{Time: x.Clock.Now().Sub(began)})
}

// take is given what the client sends.
func (x *session) take(m *datachannel.Message) (bool, error) {
	in := &agentapi.ExecInput{End: m.Flags&datachannel.FIN != 0}
	switch m.PayloadType {
	case datachannel.HandshakeResponse:
		var r datachannel.HandshakeAnswer
		if err := json.Unmarshal(m.Payload, &r); err != nil {
			return false, fmt.Errorf("the handshake: %w", err)
		}
		select {
		case x.shaken <- r.Errors:
		default:
		}
		return true, nil
	case datachannel.Size:
		var size datachannel.TerminalSize
		if err := json.Unmarshal(m.Payload, &size); err != nil {
			return false, fmt.Errorf("a terminal's size: %w", err)
		}
		in.Resize = &agentapi.TerminalSize{Columns: size.Columns, Rows: size.Rows}
		if x.size.Swap(in.Resize) == nil {
			close(x.sized)
		}
	case datachannel.Flag:
		if len(m.Payload) == 4 && binary.BigEndian.Uint32(m.Payload) == datachannel.TerminateSession {
			x.end(errTerminated)
		}
		return true, nil
	case datachannel.Output:
		in.Data = m.Payload
	default:
		return true, nil
	}
	select {
	case x.inputs <- in:
		return x.took(in), nil
	default:
	}
	select {
	case x.inputs <- in:
		return x.took(in), nil
	case <-x.channel.Full():
		// The command may wait for its output to be taken before it reads on, and to hear of that this must return. The client
		// sends it again.
		return false, nil
	}
}

func (x *session) took(in *agentapi.ExecInput) bool {
	x.received.Add(int64(len(in.Data)))
	x.touch()
	return true
}

// feed gives the command its input.
func (x *session) feed(ctx context.Context, command Command) {
	for {
		select {
		case in := <-x.inputs:
			if command.Send(in) != nil {
				return // which Recv tells too
			}
		case <-ctx.Done():
			return
		}
	}
}

// close tells the client how it went: with nothing in the message that ends a session which went well, as AWS does.
func (x *session) close(ctx context.Context, code int32, err error) {
	if errors.Is(err, errClientLeft) {
		return
	}
	limit, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	said := ""
	if err != nil {
		said = err.Error()
	} else {
		if x.opening.SessionType != "" { // AWS's own client would print it
			_ = x.channel.Send(limit, datachannel.ExitCode, datachannel.FIN, []byte(strconv.Itoa(int(code))))
		}
		_ = x.channel.Flush(limit) // a client that does not take it has the loss
	}
	_ = x.channel.Closed(limit, x.Session, x.Task, said)
}

func (x *session) touch() { x.active.Store(x.Clock.Now().UnixNano()) }

// watchIdle ends a session in which nothing happens.
func (x *session) watchIdle(ctx context.Context) {
	for {
		left := x.Idle - x.Clock.Now().Sub(time.Unix(0, x.active.Load()))
		if left <= 0 {
			x.end(errIdle)
			return
		}
		select {
		case <-x.Clock.After(left):
		case <-ctx.Done():
			return
		}
	}
}

// Record is what is kept of a session that is over.
type Record struct {
	Session   string
	Account   string
	Region    string
	Cluster   string
	Task      string
	Container string
	Command   []string
	Caller    string
	Began     time.Time
	Ended     time.Time
	ExitCode  *int32
	Reason    string // why it has no exit code
	Received  int64  // from the client
	Written   int64  // to the client
}

func (x *session) record(began time.Time, code int32, err error) {
	r := Record{
		Session: x.Session, Account: x.Account, Region: x.Region, Cluster: x.Cluster, Task: x.Task, Container: x.Container, Command: x.Command,
		Caller: x.Caller, Began: began, Ended: x.Clock.Now(), Received: x.received.Load(), Written: x.written.Load(),
	}
	if err == nil {
		r.ExitCode = &code
	} else {
		r.Reason = err.Error()
	}
	// The record of who did what is written however little is logged.
	x.Log.Warn("a session of ECS Exec ended", "session", r.Session, "caller", r.Caller, "account", r.Account, "region", r.Region, "cluster", r.Cluster,
		"task", r.Task, "container", r.Container, "command", r.Command, "exit", code, "reason", r.Reason, "seconds", r.Ended.Sub(r.Began).Seconds(),
		"received", r.Received, "written", r.Written)
	if x.Ended != nil {
		x.Ended(r)
	}
}
