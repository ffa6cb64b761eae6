package ecs

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// What Amazon's agent submits is put into the form in which ours reports, and takes the same way (Lifecycle.Report). Ours reports all that it
// knows each time, Amazon's only what has changed: so it is put onto the last report.

// acknowledgment is what ECS answers to all that is submitted.
const acknowledgment = "ACCEPT"

const (
	maxReason     = 1024 // characters of a reason; the agent cuts its own to that
	maxRuntimeID  = 255
	maxContainers = 100 // of one submission
)

// submitTaskStateChange implements ecs:SubmitTaskStateChange.
func (s *Service) submitTaskStateChange(ctx context.Context, in *ecs.SubmitTaskStateChangeInput) (*ecs.SubmitTaskStateChangeOutput, error) {
	status := aws.ToString(in.Status)
	if err := checkSubmitted(status, in.Reason, in.Containers, in.Attachments); err != nil {
		return nil, err
	}
	now := api.CallFrom(ctx).Time
	err := s.submit(ctx, in.Cluster, in.Task, func(r *agentapi.TaskStatus, names []string) error {
		setTime(&r.PullStarted, in.PullStartedAt)
		setTime(&r.PullStopped, in.PullStoppedAt)
		setTime(&r.ExecutionStopped, in.ExecutionStoppedAt)
		for _, c := range in.Containers {
			if err := takeContainer(r, names, c, now); err != nil {
				return err
			}
		}
		switch status {
		case "RUNNING":
			setTime(&r.Started, &now)
			r.State = max(r.State, agentapi.TaskState_RUNNING)
		case "STOPPED":
			r.StopCode = "EssentialContainerExited"
			if r.State < agentapi.TaskState_RUNNING {
				r.StopCode = "TaskFailedToStart"
			}
			r.StoppedReason = cut(aws.ToString(in.Reason), maxReason)
			setTime(&r.Stopped, &now)
			r.State = agentapi.TaskState_STOPPED
		}
		return nil
	})
	return answer(&ecs.SubmitTaskStateChangeOutput{Acknowledgment: aws.String(acknowledgment)}, err)
}

// submitContainerStateChange implements ecs:SubmitContainerStateChange.
func (s *Service) submitContainerStateChange(ctx context.Context, in *ecs.SubmitContainerStateChangeInput) (*ecs.SubmitContainerStateChangeOutput, error) {
	c := types.ContainerStateChange{ContainerName: in.ContainerName, ExitCode: in.ExitCode, NetworkBindings: in.NetworkBindings, Reason: in.Reason, RuntimeId: in.RuntimeId, Status: in.Status}
	if err := checkSubmitted("", nil, []types.ContainerStateChange{c}, nil); err != nil {
		return nil, err
	}
	now := api.CallFrom(ctx).Time
	err := s.submit(ctx, in.Cluster, in.Task, func(r *agentapi.TaskStatus, names []string) error {
		return takeContainer(r, names, c, now)
	})
	return answer(&ecs.SubmitContainerStateChangeOutput{Acknowledgment: aws.String(acknowledgment)}, err)
}

// submitAttachmentStateChanges implements ecs:SubmitAttachmentStateChanges. Instances with Amazon's agent have no attachments, so that whatever is
// named does not exist.
func (s *Service) submitAttachmentStateChanges(ctx context.Context, in *ecs.SubmitAttachmentStateChangesInput) (*ecs.SubmitAttachmentStateChangesOutput, error) {
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := cluster(v, scope, in.Cluster); err != nil {
		return nil, err
	}
	if len(in.Attachments) == 0 {
		return nil, invalid("Attachments cannot be empty.")
	}
	return nil, noAttachment(in.Attachments)
}

func noAttachment(list []types.AttachmentStateChange) error {
	return invalid("The attachment %s was not found.", aws.ToString(list[0].AttachmentArn))
}

func checkSubmitted(status string, reason *string, containers []types.ContainerStateChange, attachments []types.AttachmentStateChange) error {
	known := []string{"", "PENDING", "MANIFEST_PULLED", "RUNNING", "STOPPED"}
	switch {
	case len(attachments) > 0:
		return noAttachment(attachments)
	case !slices.Contains(known, status):
		return invalid("The status '%s' is not one of [PENDING, RUNNING, STOPPED].", status)
	case len(containers) > maxContainers:
		return invalid("Containers cannot have more than %d elements.", maxContainers)
	}
	for _, c := range containers {
		switch {
		case aws.ToString(c.ContainerName) == "":
			return invalid("Container name can not be blank.")
		case !slices.Contains(known, aws.ToString(c.Status)):
			return invalid("The status '%s' of container %s is not one of [PENDING, RUNNING, STOPPED].", *c.Status, *c.ContainerName)
		}
		for _, b := range c.NetworkBindings {
			if _, ok := binding(b); !ok {
				return invalid("A network binding of container %s has no valid port.", *c.ContainerName)
			}
		}
	}
	return nil
}

// submit puts what is said of a task onto its last report and hands that on.
func (s *Service) submit(ctx context.Context, clusterRef, taskRef *string, change func(r *agentapi.TaskStatus, containers []string) error) error {
	return s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		c, err := cluster(tx, scope, clusterRef)
		if err != nil {
			return err
		}
		name, err := taskID(scope, c.Name, aws.ToString(taskRef))
		if err != nil {
			return err
		}
		t, st, ok := findTask(tx, scope, c.Name, name)
		if !ok {
			return invalid("The referenced task was not found.")
		}
		if n, ok := controlplane.Nodes.Get(tx, state.K(st.Node)); !ok || n.AmazonAgent == nil {
			return invalid("The task %s is not on a container instance that was registered by RegisterContainerInstance.", t.Id)
		}
		var names []string
		var def types.TaskDefinition
		if d, ok := controlplane.TaskDefinitions.Get(tx, scope.FamilyRevisionKey(t.TaskDefinition)); ok {
			def = s.shapeOf(d)
		}
		for _, c := range def.ContainerDefinitions {
			names = append(names, aws.ToString(c.Name))
		}
		r := &agentapi.TaskStatus{}
		if st.Report != nil {
			r = proto.CloneOf(st.Report)
		}
		r.TaskId, r.Epoch = t.Id, st.Epoch
		setTime(&r.Connected, new(api.CallFrom(ctx).Time))
		if n, ok := controlplane.Nodes.Get(tx, state.K(st.Node)); ok {
			r.HostAddress = n.Address
		}
		r.State = max(r.State, agentapi.TaskState_PENDING)
		if err := change(r, names); err != nil {
			return err
		}
		controlplane.SettleHealth(r, def)
		return s.Lifecycle.Report(tx, st.Node, r)
	})
}

// takeContainer puts what is said of a container into the report. A container of the agent's own (a pause container) is none of the task's.
func takeContainer(r *agentapi.TaskStatus, names []string, c types.ContainerStateChange, now time.Time) error {
	name := aws.ToString(c.ContainerName)
	if !slices.Contains(names, name) {
		if strings.HasPrefix(name, "~internal~") {
			return nil
		}
		return invalid("The container %s was not found in the task.", name)
	}
	i := slices.IndexFunc(r.Containers, func(s *agentapi.ContainerStatus) bool { return s.Name == name })
	if i < 0 {
		i = len(r.Containers)
		r.Containers = append(r.Containers, &agentapi.ContainerStatus{Name: name, State: agentapi.ContainerState_CONTAINER_PENDING})
	}
	s := r.Containers[i]
	switch aws.ToString(c.Status) {
	case "RUNNING":
		if s.State < agentapi.ContainerState_CONTAINER_RUNNING {
			s.State = agentapi.ContainerState_CONTAINER_RUNNING
			setTime(&s.Started, &now)
		}
	case "STOPPED":
		s.State = agentapi.ContainerState_CONTAINER_STOPPED
		setTime(&s.Finished, &now)
	}
	if c.ExitCode != nil {
		s.ExitCode = c.ExitCode
	}
	s.Reason = cmp.Or(cut(aws.ToString(c.Reason), maxReason), s.Reason)
	s.RuntimeId = cmp.Or(cut(aws.ToString(c.RuntimeId), maxRuntimeID), s.RuntimeId)
	s.ImageDigest = cmp.Or(cut(aws.ToString(c.ImageDigest), maxRuntimeID), s.ImageDigest)
	if len(c.NetworkBindings) > 0 {
		s.Ports = nil
		for _, b := range c.NetworkBindings {
			p, _ := binding(b)
			s.Ports = append(s.Ports, p)
		}
	}
	return nil
}

// binding reads one port, or a row of them.
func binding(b types.NetworkBinding) (*agentapi.PortBinding, bool) {
	p := &agentapi.PortBinding{Protocol: cmp.Or(string(b.Protocol), "tcp"), BindIp: aws.ToString(b.BindIP)}
	if b.ContainerPortRange != nil {
		first, last, ok := controlplane.ParsePortRange(*b.ContainerPortRange)
		host, end, is := controlplane.ParsePortRange(aws.ToString(b.HostPortRange))
		p.ContainerPort, p.HostPort, p.Count = first, host, last-first+1
		return p, ok && is && end-host == last-first
	}
	container, host := aws.ToInt32(b.ContainerPort), aws.ToInt32(b.HostPort)
	p.ContainerPort, p.HostPort = uint32(container), uint32(host)
	return p, 0 < container && container < 1<<16 && 0 <= host && host < 1<<16
}

func setTime(to **timestamppb.Timestamp, at *time.Time) {
	if at != nil && at.Unix() > 0 && *to == nil { // the agent sends times that have not come as those of year 1
		*to = timestamppb.New(*at)
	}
}

// cut keeps the first bytes of a text, whole characters.
func cut(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}
