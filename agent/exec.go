package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// Commands at a time that people run in containers beside their programs.
const (
	maxTaskCommands = 20
	maxCommands     = 100
)

// execInput is how many messages of input may wait for a command; the server sends no more before some are taken.
const execInput = 64

// execPiece is how much output travels in one message.
const execPiece = 16 << 10

// commands are the sessions of ECS Exec on this host, running ones and those that were.
type commands struct {
	mu      sync.Mutex
	used    map[string]time.Time // sessions by id, until they could not be opened anyway
	running map[string]int       // by task
	total   int
}

func newCommands() commands {
	return commands{used: map[string]time.Time{}, running: map[string]int{}}
}

// begin takes a session once. done is to be called at its end.
func (c *commands) begin(req *agentapi.ExecRequest, now time.Time) (done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, expires := range c.used {
		if now.After(expires) {
			delete(c.used, id)
		}
	}
	expires := req.Expires.AsTime()
	_, used := c.used[req.SessionId]
	switch {
	case used:
		return nil, errors.New("the session has been opened before")
	case req.SessionId == "" || !now.Before(expires.Add(maxClockSkew)):
		return nil, errors.New("the session can not be opened any more")
	case c.running[req.TaskId] >= maxTaskCommands:
		return nil, fmt.Errorf("the task has %d sessions already", maxTaskCommands)
	case c.total >= maxCommands:
		return nil, fmt.Errorf("the host has %d sessions already", maxCommands)
	}
	c.used[req.SessionId] = expires.Add(maxClockSkew)
	c.running[req.TaskId]++
	c.total++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.running[req.TaskId]--; c.running[req.TaskId] == 0 {
			delete(c.running, req.TaskId)
		}
		c.total--
	}, nil
}

// maxClockSkew is how far this host's clock may be from the server's.
const maxClockSkew = 5 * time.Minute

// exec answers one request with a call of its own. The command ends with the call.
func (a *Agent) exec(ctx context.Context, req *agentapi.ExecRequest) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := a.cfg.Client.ExecSession(ctx)
	if err != nil {
		a.log.Warn("answer a request for a command", "task", req.TaskId, "error", err)
		return
	}
	e := &execution{req: req, stream: stream, inputs: make(chan *agentapi.ExecInput, execInput)}
	if e.send(&agentapi.ExecOutput{RequestId: req.Id}) != nil {
		return // whoever asked has left
	}
	received := make(chan struct{})
	go func() { // until the server ends the call
		defer close(received)
		defer cancel()
		e.receive()
	}()
	exit := &agentapi.ExecExit{}
	done, err := a.commands.begin(req, a.cfg.Clock.Now())
	if err == nil {
		var code int
		code, err = e.run(ctx, a.cfg.Driver)
		exit.Code = int32(code)
		done()
	}
	if errors.Is(err, runtime.ErrNotFound) {
		err = errors.New("the container does not run")
	}
	if err != nil {
		exit.Error = err.Error()
	}
	_ = e.send(&agentapi.ExecOutput{Exit: exit}) // whoever asked may have left
	_ = stream.CloseSend()
	<-received
}

// execution is one command and its call.
type execution struct {
	req    *agentapi.ExecRequest
	stream agentapi.Dispatcher_ExecSessionClient
	inputs chan *agentapi.ExecInput // never full: the server counts

	mu sync.Mutex // one sends at a time; held across the sending, for that is what is serialised
}

func (e *execution) send(out *agentapi.ExecOutput) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stream.Send(out)
}

// receive always reads on, so that the end of the call is seen although the command reads nothing.
func (e *execution) receive() {
	for {
		in, err := e.stream.Recv()
		if err != nil {
			return
		}
		select {
		case e.inputs <- in:
		default:
			return // a server that does not count
		}
	}
}

func (e *execution) run(ctx context.Context, driver runtime.Driver) (int, error) {
	read, write := io.Pipe()
	sizes := make(chan runtime.Size, 1)
	c := runtime.Command{Args: e.req.Command, Root: true, Input: read, Output: execWriter(e.sendOutput)}
	if t := e.req.Terminal; t != nil {
		c.Terminal = &runtime.Terminal{Size: terminalSize(t), Resize: sizes}
		c.Environment = []string{"TERM=xterm-256color"}
	} else {
		c.Errors = execWriter(e.sendErrors)
	}
	ctx, cancel := context.WithCancel(ctx)
	var feeding sync.WaitGroup
	feeding.Go(func() { e.feed(ctx, write, sizes) })
	defer feeding.Wait() // the exit is the last that is sent
	defer read.Close()
	defer cancel()
	return driver.Exec(ctx, e.req.TaskId, e.req.Container, c)
}

// feed gives the command its input until ctx ends.
func (e *execution) feed(ctx context.Context, to *io.PipeWriter, sizes chan runtime.Size) {
	for {
		var in *agentapi.ExecInput
		select {
		case in = <-e.inputs:
		case <-ctx.Done():
			return
		}
		if in.Resize != nil {
			select { // the newest counts
			case <-sizes:
			default:
			}
			sizes <- terminalSize(in.Resize)
		}
		if len(in.Data) > 0 {
			_, _ = to.Write(in.Data) // a command may close its input
		}
		if in.End {
			to.Close()
		}
		if e.send(&agentapi.ExecOutput{Taken: 1}) != nil {
			return
		}
	}
}

func (e *execution) sendOutput(b []byte) error { return e.send(&agentapi.ExecOutput{Output: b}) }
func (e *execution) sendErrors(b []byte) error { return e.send(&agentapi.ExecOutput{Errors: b}) }

func terminalSize(t *agentapi.TerminalSize) runtime.Size {
	return runtime.Size{Columns: uint16(min(t.Columns, math.MaxUint16)), Rows: uint16(min(t.Rows, math.MaxUint16))}
}

// execWriter sends what is written, in pieces.
type execWriter func([]byte) error

func (w execWriter) Write(b []byte) (n int, err error) {
	for n < len(b) {
		piece := b[n:min(len(b), n+execPiece)]
		if err := w(piece); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}
