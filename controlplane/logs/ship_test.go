package logs

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

const task = "0123456789abcdef0123456789abcdef"

// placed puts a task with the options on node n1.
func (b *bench) placed(options map[string]string) {
	b.t.Helper()
	def := ecstypes.TaskDefinition{ContainerDefinitions: []ecstypes.ContainerDefinition{
		{Name: aws.String("app"), LogConfiguration: &ecstypes.LogConfiguration{LogDriver: "awslogs", Options: options}},
		{Name: aws.String("plain")},
	}}
	_, err := b.Store.Update(b.t.Context(), func(tx *state.Tx) error {
		controlplane.TaskDefinitions.Put(tx, &controlplane.TaskDefinition{Account: "000000000000", Region: "us-east-1", Family: "f", Revision: 1, DefinitionJson: []byte(controlplane.EncodeShape(def))})
		controlplane.Tasks.Put(tx, &controlplane.Task{Account: "000000000000", Region: "us-east-1", Cluster: "c", Id: task, TaskDefinition: "f:1"})
		controlplane.TaskStatuses.Put(tx, &controlplane.TaskStatus{Account: "000000000000", Region: "us-east-1", Cluster: "c", Id: task, Node: "n1"})
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) noTask() {
	b.t.Helper()
	_, err := b.Store.Update(b.t.Context(), func(tx *state.Tx) error {
		k := state.K("000000000000", "us-east-1", "c", task)
		controlplane.Tasks.Delete(tx, k)
		controlplane.TaskStatuses.Delete(tx, k)
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func event(text string, minute int) *agentapi.ShipEvent {
	return &agentapi.ShipEvent{Text: text, TimeMillis: *at(minute)}
}

func TestOutputOfTheNodesOwnTasks(t *testing.T) {
	b := newBench(t)
	b.placed(map[string]string{"awslogs-region": "us-east-1", "awslogs-group": "/ecs/f", "awslogs-stream-prefix": "p"})
	ctx := t.Context()
	code := func(node, container string) codes.Code {
		_, _, err := b.OpenStream(ctx, node, task, container)
		return status.Code(err)
	}
	if _, _, err := b.OpenStream(ctx, "n1", task, "app"); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "ResourceNotFoundException: The specified log group does not exist.") {
		t.Errorf("without the group: %v", err)
	}
	do(b, b.createLogGroup, &cwl.CreateLogGroupInput{LogGroupName: aws.String("/ecs/f")})
	if code("n2", "app") != codes.PermissionDenied || code("n1", "plain") != codes.PermissionDenied || code("n1", "none") != codes.PermissionDenied {
		t.Error("a stream was opened that is not the node's")
	}
	write, mark, err := b.OpenStream(ctx, "n1", task, "app")
	if err != nil || mark != 0 {
		t.Fatalf("mark %d, %v", mark, err)
	}
	for range 2 { // the second time it is a repetition
		if err := write(ctx, []*agentapi.ShipEvent{event("one", 1), event("two", 2)}, 20); err != nil {
			t.Fatal(err)
		}
	}
	if err := write(ctx, []*agentapi.ShipEvent{event("three", 3)}, 30); err != nil {
		t.Fatal(err)
	}
	read := func() []string {
		in := &cwl.GetLogEventsInput{LogGroupName: aws.String("/ecs/f"), LogStreamName: aws.String("p/app/" + task)}
		return messages(do(b, b.getLogEvents, in).Events)
	}
	if got := read(); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("events %v", got)
	}
	if err := write(ctx, nil, 40); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an empty batch: %v", err)
	}
	if err := write(ctx, []*agentapi.ShipEvent{event(strings.Repeat("x", 1<<20), 1)}, 40); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a batch too large: %v", err)
	}
	// A node that comes back when the task is forgotten goes on, with its own stream alone.
	b.noTask()
	write, mark, err = b.OpenStream(ctx, "n1", task, "app")
	if err != nil || mark != 30 {
		t.Fatalf("mark %d, %v", mark, err)
	}
	if err := write(ctx, []*agentapi.ShipEvent{event("four", 4)}, 40); err != nil || len(read()) != 4 {
		t.Errorf("%v, %v", read(), err)
	}
	if code("n2", "app") != codes.PermissionDenied {
		t.Error("another node took over the stream")
	}
	do(b, b.deleteLogStream, &cwl.DeleteLogStreamInput{LogGroupName: aws.String("/ecs/f"), LogStreamName: aws.String("p/app/" + task)})
	if err := write(ctx, []*agentapi.ShipEvent{event("five", 5)}, 50); status.Code(err) != codes.NotFound {
		t.Errorf("into a deleted stream: %v", err)
	}
}

// With an execution role the output is held against what that one may, with each request.
func TestOutputByTheExecutionRole(t *testing.T) {
	b := newBench(t)
	b.placed(map[string]string{"awslogs-region": "us-east-1", "awslogs-group": "g", "awslogs-stream-prefix": "p", "awslogs-create-group": "true"})
	allowed, asked := map[string]bool{}, []string{}
	b.TaskMay = func(_ context.Context, role, taskARN, action, resource string) error {
		asked = append(asked, action+" "+resource)
		if allowed[action] && role == "arn:aws:iam::000000000000:role/ship" && strings.HasSuffix(taskARN, task) {
			return nil
		}
		return errors.New("not authorized to perform: " + action)
	}
	if _, _, err := b.OpenStream(t.Context(), "n1", task, "app"); err != nil || len(asked) > 0 {
		t.Errorf("without an execution role: %v, asked for %v", err, asked)
	}
	do(b, b.deleteLogGroup, &cwl.DeleteLogGroupInput{LogGroupName: aws.String("g")})
	_, err := b.Store.Update(t.Context(), func(tx *state.Tx) error {
		d, _ := controlplane.TaskDefinitions.Get(tx, controlplane.Scope{Account: "000000000000", Region: "us-east-1"}.TaskDefinitionKey("f", 1))
		d = proto.CloneOf(d)
		d.DefinitionJson = bytes.Replace(d.DefinitionJson, []byte("{"), []byte(`{"executionRoleArn":"ship",`), 1)
		controlplane.TaskDefinitions.Put(tx, d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, action := range []string{"logs:CreateLogStream", "logs:CreateLogGroup"} {
		if _, _, err := b.OpenStream(t.Context(), "n1", task, "app"); status.Code(err) != codes.PermissionDenied || !strings.HasSuffix(err.Error(), "AccessDeniedException: not authorized to perform: "+action) {
			t.Errorf("without %s: %v", action, err)
		}
		allowed[action] = true
	}
	write, _, err := b.OpenStream(t.Context(), "n1", task, "app")
	if err != nil {
		t.Fatal(err)
	}
	one := []*agentapi.ShipEvent{event("one", 1)}
	if err := write(t.Context(), one, 20); status.Code(err) != codes.PermissionDenied {
		t.Errorf("without logs:PutLogEvents: %v", err)
	}
	allowed["logs:PutLogEvents"] = true
	if err := write(t.Context(), one, 20); err != nil {
		t.Error(err)
	}
	asked = slices.Compact(asked)
	const group = "arn:aws:logs:us-east-1:000000000000:log-group:g:log-stream:"
	if want := []string{"logs:CreateLogGroup " + group, "logs:PutLogEvents " + group + "p/app/" + task}; !slices.Equal(asked[len(asked)-2:], want) {
		t.Errorf("asked for %v, want %v at last", asked, want)
	}
}

func TestGroupMadeForTheOutput(t *testing.T) {
	b := newBench(t)
	b.placed(map[string]string{"awslogs-region": "eu-west-1", "awslogs-group": "made", "awslogs-create-group": "true"})
	if _, _, err := b.OpenStream(t.Context(), "n1", task, "app"); err != nil {
		t.Fatal(err)
	}
	for s := range LogStreams.Scan(b.Store.View(), state.K()) {
		if s.Region != "eu-west-1" || s.Name != task+"-4198675434" && !strings.HasPrefix(s.Name, task+"-") {
			t.Errorf("stream %+v", s)
		}
	}
	if g, ok := LogGroups.Get(b.Store.View(), state.K("000000000000", "eu-west-1", "made")); !ok || g.Class != "STANDARD" || !g.Created.AsTime().Equal(timestamppb.New(start).AsTime()) {
		t.Errorf("group %+v", g)
	}
}
