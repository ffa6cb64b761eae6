package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/datachannel"
)

// ExecOptions are a command and its streams.
type ExecOptions struct {
	Container      string    // empty: the task's only one
	Command        []string  // run as it is, without a shell
	Stdin          io.Reader // nil: none
	Stdout, Stderr io.Writer
	// Terminal is where the caller's is; nil: the command gets pipes.
	Terminal *ExecTerminal
}

// ExecTerminal is the caller's terminal, in raw mode. Its output goes to Stdout.
type ExecTerminal struct {
	Sizes <-chan TerminalSize // the first one is there already
}

// TerminalSize is in characters.
type TerminalSize struct{ Columns, Rows uint32 }

// execVersion is said to servers.
const execVersion = "neargate"

// Exec runs a command in a container of a task and returns its exit code. Stdin may still be read from when it returns.
func (c *Client) Exec(ctx context.Context, t Task, o ExecOptions) (code int, err error) {
	in := &ecs.ExecuteCommandInput{Cluster: &t.Cluster, Task: &t.ID, Command: aws.String(quoteCommand(o.Command)), Interactive: true}
	if o.Container != "" {
		in.Container = &o.Container
	}
	out, err := c.ECS.ExecuteCommand(ctx, in)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, err := datachannel.Dial(ctx, aws.ToString(out.Session.StreamUrl), c.http)
	if err != nil {
		return 0, fmt.Errorf("open the session: %w", err)
	}
	defer conn.Drop()
	kind := datachannel.Interactive
	if o.Terminal == nil {
		kind = datachannel.NonInteractive
	}
	opening, err := json.Marshal(datachannel.Opening{SchemaVersion: "1.0", RequestID: aws.ToString(out.Session.SessionId), Token: aws.ToString(out.Session.TokenValue),
		ClientID: aws.ToString(out.Session.SessionId), ClientVersion: execVersion, SessionType: kind})
	if err != nil {
		return 0, err
	}
	if err := conn.WriteText(ctx, opening); err != nil {
		return 0, fmt.Errorf("open the session: %w", err)
	}
	x := &execution{ExecOptions: o, channel: datachannel.NewClient(conn, clock.Real{}), ready: make(chan struct{})}
	go func() {
		if err := x.send(ctx); err != nil {
			cancel(err)
		}
	}()
	err = x.channel.Run(ctx, func(m *datachannel.Message) (bool, error) { return x.take(ctx, m) })
	switch {
	case errors.Is(err, errOver) && x.code != nil:
		conn.Close()
		return *x.code, nil
	case errors.Is(err, errOver) && x.why != "":
		return 0, errors.New(x.why)
	case context.Cause(ctx) != nil:
		return 0, context.Cause(ctx)
	}
	return 0, fmt.Errorf("the session broke: %w", err)
}

// errOver is how a session ends in good order.
var errOver = errors.New("the session is over")

// execution is one session. take, and what it writes, is the reader's alone.
type execution struct {
	ExecOptions
	channel *datachannel.Channel
	ready   chan struct{} // closed when the handshake is done
	code    *int
	why     string // the session ended without a code
}

func (x *execution) take(ctx context.Context, m *datachannel.Message) (bool, error) {
	if m.Type == datachannel.ChannelClosed {
		var c datachannel.Closing
		if err := json.Unmarshal(m.Payload, &c); err != nil {
			return false, err
		}
		x.why = c.Output
		if x.why == "" {
			x.why = "the session ended without the command's exit code"
		}
		return true, errOver
	}
	var err error
	switch m.PayloadType {
	case datachannel.HandshakeRequest:
		var h datachannel.Handshake
		if err := json.Unmarshal(m.Payload, &h); err != nil {
			return false, err
		}
		// The window is empty: this does not wait.
		err = x.channel.SendJSON(ctx, datachannel.HandshakeResponse, h.Answer(execVersion))
	case datachannel.HandshakeComplete:
		select {
		case <-x.ready:
		default:
			close(x.ready)
		}
	case datachannel.Output:
		_, err = x.Stdout.Write(m.Payload)
	case datachannel.StdErr:
		_, err = x.Stderr.Write(m.Payload)
	case datachannel.ExitCode:
		code, bad := strconv.Atoi(string(m.Payload))
		x.code, err = &code, bad
	}
	return true, err
}

// send sends the terminal's sizes and the input, once the session stands.
func (x *execution) send(ctx context.Context) error {
	select {
	case <-x.ready:
	case <-ctx.Done():
		return nil
	}
	if x.Terminal != nil {
		if err := x.sendSize(ctx, <-x.Terminal.Sizes); err != nil { // before any input
			return err
		}
		go func() {
			for size := range x.Terminal.Sizes {
				if x.sendSize(ctx, size) != nil {
					return
				}
			}
		}()
	}
	var err error
	if x.Stdin != nil {
		_, err = io.Copy(inputWriter{ctx, x.channel}, x.Stdin)
	}
	if err == nil {
		err = x.channel.Send(ctx, datachannel.Output, datachannel.FIN, nil)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (x *execution) sendSize(ctx context.Context, s TerminalSize) error {
	return x.channel.SendJSON(ctx, datachannel.Size, datachannel.TerminalSize{Columns: s.Columns, Rows: s.Rows})
}

type inputWriter struct {
	ctx     context.Context
	channel *datachannel.Channel
}

func (w inputWriter) Write(b []byte) (n int, err error) {
	for n < len(b) {
		piece := b[n:min(len(b), n+datachannel.MaxPayload)]
		if err := w.channel.Send(w.ctx, datachannel.Output, 0, piece); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}

// quoteCommand writes words so that ExecuteCommand reads them as they are.
func quoteCommand(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}
