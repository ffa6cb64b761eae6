package agent

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/agent/runtime"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// expireEvery is the pause between two looks for old logs.
const expireEvery = time.Hour

// What travels together at most; less does when no more is there.
const (
	chunkLines = 256
	chunkBytes = 1 << 20 // a line, or part of one, has up to 16 KiB; gRPC takes messages of 4 MiB
)

// sendLogs answers one request with a call of its own, so that a slow reader holds up nothing else.
func (a *Agent) sendLogs(ctx context.Context, req *agentapi.LogRequest) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := a.cfg.Client.Logs(ctx)
	if err != nil {
		a.log.Warn("answer a request for logs", "task", req.TaskId, "error", err)
		return
	}
	if err := stream.Send(&agentapi.LogChunk{RequestId: req.Id}); err != nil {
		return // the reader has left
	}
	// The server ends the call when its reader leaves: its answer comes before everything is sent.
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		defer cancel()
		_ = stream.RecvMsg(&agentapi.LogsRead{})
	}()
	if err := a.copyLogs(ctx, req, stream); err != nil && ctx.Err() == nil {
		_ = stream.Send(&agentapi.LogChunk{Error: err.Error()}) // whoever reads may be gone
	}
	_ = stream.CloseSend()
	<-answered
}

func (a *Agent) copyLogs(ctx context.Context, req *agentapi.LogRequest, to agentapi.Dispatcher_LogsClient) error {
	opt := runtime.LogOptions{Follow: req.Follow, Tail: int(req.Tail)}
	if req.Since != nil {
		opt.Since = req.Since.AsTime()
	}
	r, err := a.cfg.Driver.Logs(ctx, req.TaskId, req.Container, opt)
	if err != nil {
		return err
	}
	lines, failed := make(chan runtime.LogLine, chunkLines), make(chan error, 1)
	go func() { // ends with ctx at the latest
		defer close(lines)
		defer r.Close()
		for {
			l, err := r.Next()
			if err != nil {
				failed <- err
				return
			}
			select {
			case lines <- l:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
		}
	}()
	for l := range lines {
		chunk, size := &agentapi.LogChunk{Lines: []*agentapi.LogLine{wireLine(l)}}, len(l.Text)
		for ready := len(lines); ready > 0 && size < chunkBytes; ready-- {
			l := <-lines
			chunk.Lines, size = append(chunk.Lines, wireLine(l)), size+len(l.Text)
		}
		if err := to.Send(chunk); err != nil {
			return err
		}
	}
	if err := <-failed; !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func wireLine(l runtime.LogLine) *agentapi.LogLine {
	return &agentapi.LogLine{At: timestamppb.New(l.At), Stderr: l.Stderr, Text: wireText(l.Text), Partial: l.Partial}
}

// wireText is output as a message can carry it: programs write what they like, messages hold UTF-8 only.
func wireText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// expireLogs removes the logs of tasks that ended long ago, now and then.
func (a *Agent) expireLogs(ctx context.Context) {
	for {
		ids, err := a.store.endedBefore(a.cfg.Clock.Now().Add(-a.cfg.LogRetention))
		for _, id := range ids {
			if err = a.cfg.Driver.RemoveLogs(ctx, id); err == nil {
				err = a.store.forgetLogs(id)
			}
			if err != nil {
				break
			}
		}
		if err != nil && ctx.Err() == nil {
			a.log.Error("remove old logs", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-a.cfg.Clock.After(expireEvery):
		}
	}
}
