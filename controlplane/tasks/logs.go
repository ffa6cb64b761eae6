package tasks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// GetTaskLogsInput selects lines.
type GetTaskLogsInput struct {
	Cluster   string    `json:"cluster" doc:"Name or ARN of the cluster."`
	Task      string    `json:"task" doc:"Id or ARN of the task."`
	Container string    `json:"container" doc:"Only this container's lines; without it, all containers' as they come."`
	Follow    bool      `json:"follow" doc:"Go on with what comes, until the containers have ended."`
	Tail      uint32    `json:"tail" doc:"Begin with the last lines of each container; 0 is all there are."`
	Since     time.Time `json:"since" doc:"Only lines that are not older."`
}

// The streams of lines.
const (
	stdout   = "stdout"
	stderr   = "stderr"
	platform = "platform" // not written by the container: a word on the lines that follow
)

// LogLine is one line that a container wrote.
type LogLine struct {
	Time      time.Time `json:"time"`
	Container string    `json:"container"`
	Stream    string    `json:"stream"`          // stdout, stderr; platform: a remark of ours
	Message   string    `json:"message"`         // without the newline
	Error     string    `json:"error,omitempty"` // reading ends here, too early; there is no message then
}

// part is what one container's reader has for the answer.
type part struct {
	lines     []LogLine
	container string
	err       error // there are no more lines
}

// logs implements neargate:GetTaskLogs. Every container has its reader; what they have is merged as it comes.
func (s *Service) logs(ctx context.Context, in *GetTaskLogsInput, emit func(...LogLine) error) error {
	v, t, _, err := s.find(ctx, in.Cluster, in.Task)
	if err != nil {
		return err
	}
	names, err := containers(v, t, in.Container)
	if err != nil {
		return err
	}
	var readers sync.WaitGroup
	defer readers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := make(chan part)
	for _, name := range names {
		readers.Go(func() {
			put := func(p part) bool {
				select {
				case parts <- p:
					return true
				case <-ctx.Done():
					return false
				}
			}
			r := &reader{Service: s, task: controlplane.Tasks.Key(t), container: name, in: in}
			if err := r.read(ctx, func(lines []LogLine) bool { return put(part{lines: lines}) }); err != nil {
				put(part{err: err, container: name})
			}
		})
	}
	go func() {
		readers.Wait()
		close(parts)
	}()
	begun := false
	for p := range parts {
		switch {
		case p.err != nil && !begun:
			return p.err
		case p.err != nil:
			return emit(lastLine(api.CallFrom(ctx), p))
		}
		begun = true
		if err := emit(p.lines...); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// lastLine is an error that comes too late to be the answer.
func lastLine(c *api.Call, p part) LogLine {
	l := LogLine{Time: c.Time, Container: p.container, Stream: platform, Error: p.err.Error()}
	if e, ok := awserr.As(p.err); ok {
		l.Error = e.Message
	}
	return l
}

// containers are the names of the task's containers that were asked for.
func containers(v *state.View, t *controlplane.Task, only string) ([]string, error) {
	var names []string
	silent := map[string]bool{} // those whose output is not kept
	if d, ok := controlplane.TaskDefinitions.Get(v, t.Scope().FamilyRevisionKey(t.TaskDefinition)); ok {
		for _, c := range d.Shape().ContainerDefinitions {
			if c.LogConfiguration != nil && c.LogConfiguration.LogDriver == "none" {
				silent[aws.ToString(c.Name)] = true
				continue
			}
			names = append(names, aws.ToString(c.Name))
		}
	} else if st, ok := controlplane.TaskStatuses.Get(v, controlplane.Tasks.Key(t)); ok { // a definition may go before its stopped tasks
		for _, c := range st.Report.GetContainers() {
			names = append(names, c.Name)
		}
	}
	switch {
	case silent[only] || only == "" && len(names) == 0 && len(silent) > 0:
		return nil, awserr.New("InvalidParameterException", "Nothing is kept of what the container writes: its log driver is none.")
	case only == "":
		return names, nil
	}
	for _, name := range names {
		if name == only {
			return []string{name}, nil
		}
	}
	return nil, awserr.New("InvalidParameterException", "The task has no container %s.", only)
}

// reader reads one container's output.
type reader struct {
	*Service
	task      state.Key
	container string
	in        *GetTaskLogsInput
}

// read hands out lines until there are no more, or put says that nobody wants them. To put nothing says that reading has begun.
func (r *reader) read(ctx context.Context, put func([]LogLine) bool) error {
	st, err := r.started(ctx, put)
	if err != nil || st == nil {
		return err
	}
	req := &agentapi.LogRequest{TaskId: st.Id, Container: r.container, Follow: r.in.Follow, Tail: r.in.Tail}
	if !r.in.Since.IsZero() {
		req.Since = timestamppb.New(r.in.Since)
	}
	chunks, err := r.Nodes.ReadLogs(ctx, st.Node, req)
	var at *api.ElsewhereError
	switch {
	case err == nil:
		put(nil)
	case errors.As(err, &at):
		return err
	case r.kept(err, put):
		return nil
	default:
		return awserr.WithStatus(503, "TargetNotConnectedException", "The logs of container %s are out of reach: %v.", r.container, err)
	}
	lines, come := joiner{container: r.container}, false
	for chunk, err := range chunks {
		if err != nil && !come && r.kept(err, put) {
			return nil
		}
		if err != nil {
			put(lines.rest())
			return fmt.Errorf("the logs of container %s can be read no further: %w", r.container, err)
		}
		come = true
		if !put(lines.join(chunk)) {
			return nil
		}
	}
	put(lines.rest())
	return nil
}

// started is the task's status once the container has been started; nil when it was not, and is not waited for. Only a follower
// waits, until the task has stopped.
func (r *reader) started(ctx context.Context, put func([]LogLine) bool) (*controlplane.TaskStatus, error) {
	v, waits := r.Store.View(), false
	for {
		w := r.Store.Watch(ctx, v.Revision(), controlplane.TaskStatuses)
		for {
			st, ok := controlplane.TaskStatuses.Get(v, r.task)
			switch {
			case ok && statusOf(st, r.container).GetStarted() != nil:
				return st, nil
			case !ok || !st.Live() || !r.in.Follow:
				return nil, nil
			case !waits:
				waits = true
				put(nil)
			}
			b, err := w.Next(ctx)
			if errors.Is(err, state.ErrCompacted) {
				v = r.Store.View()
				break
			}
			if err != nil {
				return nil, err
			}
			v = b.View
		}
	}
}

func statusOf(st *controlplane.TaskStatus, container string) *agentapi.ContainerStatus {
	for _, c := range st.GetReport().GetContainers() {
		if c.Name == container {
			return c
		}
	}
	return nil
}

// kept answers, for a container that has ended, with the lines that its last report brought. It says whether it did.
func (r *reader) kept(why error, put func([]LogLine) bool) bool {
	st, ok := controlplane.TaskStatuses.Get(r.Store.View(), r.task)
	c := statusOf(st, r.container)
	if !ok || st.Live() && c.GetState() != agentapi.ContainerState_CONTAINER_STOPPED {
		return false
	}
	at := c.GetFinished().AsTime()
	if c.GetFinished() == nil {
		at = st.Stopped.AsTime() // the host was lost with it
	}
	last := c.GetLastLog()
	if r.in.Since.After(at) {
		last = nil
	}
	if n := int(r.in.Tail); n > 0 && n < len(last) {
		last = last[len(last)-n:]
	}
	remark := "The full log is out of reach (" + why.Error() + "); these are the last lines that were kept."
	if len(last) == 0 {
		remark = "The log is out of reach (" + why.Error() + ") and no lines of it were kept."
	}
	lines := []LogLine{{Time: at, Container: r.container, Stream: platform, Message: remark}}
	for _, text := range last {
		lines = append(lines, LogLine{Time: at, Container: r.container, Stream: stdout, Message: text})
	}
	put(lines)
	return true
}
