package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

func (b *bench) taskRole(role string) {
	b.t.Helper()
	_, err := b.Store.Update(b.t.Context(), func(tx *state.Tx) error {
		d, _ := controlplane.TaskDefinitions.Get(tx, controlplane.Scope{Account: "000000000000", Region: "us-east-1"}.TaskDefinitionKey("f", 1))
		d = proto.CloneOf(d)
		d.DefinitionJson = bytes.Replace(d.DefinitionJson, []byte("{"), []byte(`{"taskRoleArn":"`+role+`",`), 1)
		controlplane.TaskDefinitions.Put(tx, d)
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// TestSessionsByTheTaskRole: a session's output goes to a stream that is called like it, once, by what the task's role may.
func TestSessionsByTheTaskRole(t *testing.T) {
	b := newBench(t)
	b.placed(nil)
	to := &agentapi.SessionLog{Session: "ecs-execute-command-1", Group: "audit", Region: "us-east-1"}
	keep := func(mark uint64, text string) error {
		return b.KeepSession(t.Context(), task, to, []*agentapi.ShipEvent{event(text, int(mark))}, mark)
	}
	if err := keep(1, "one"); status.Code(err) != codes.NotFound {
		t.Errorf("without the group: %v", err)
	}
	do(b, b.createLogGroup, &cwl.CreateLogGroupInput{LogGroupName: &to.Group})
	allowed, asked := map[string]bool{}, []string{}
	b.TaskMay = func(_ context.Context, role, taskARN, action, resource string) error {
		asked = append(asked, action+" "+resource)
		if allowed[action] && role == "arn:aws:iam::000000000000:role/app" && strings.HasSuffix(taskARN, task) {
			return nil
		}
		return errors.New("not authorized to perform: " + action)
	}
	if err := keep(1, "one"); err != nil || len(asked) > 0 {
		t.Errorf("without a role: %v, asked for %q", err, asked)
	}
	b.taskRole("app")
	to = &agentapi.SessionLog{Session: "ecs-execute-command-2", Group: "audit", Region: "us-east-1"}
	for _, action := range []string{"logs:PutLogEvents", "logs:CreateLogStream"} {
		if err := keep(2, "two"); status.Code(err) != codes.PermissionDenied || !strings.HasSuffix(err.Error(), "not authorized to perform: "+action) {
			t.Errorf("without %s: %v", action, err)
		}
		allowed[action] = true
	}
	for range 2 { // the second time it was acknowledged, and nobody heard of it
		if err := keep(2, "two"); err != nil {
			t.Error(err)
		}
	}
	if err := keep(3, "three"); err != nil {
		t.Error(err)
	}
	const name = "arn:aws:logs:us-east-1:000000000000:log-group:audit:log-stream:ecs-execute-command-2"
	if want := []string{"logs:CreateLogStream " + name, "logs:PutLogEvents " + name}; !slices.Equal(slices.Compact(slices.Sorted(slices.Values(asked))), want) {
		t.Errorf("asked for %q", asked)
	}
	var texts []string
	for _, e := range do(b, b.getLogEvents, &cwl.GetLogEventsInput{LogGroupName: &to.Group, LogStreamName: &to.Session, StartFromHead: aws.Bool(true)}).Events {
		texts = append(texts, *e.Message)
	}
	if !slices.Equal(texts, []string{"two", "three"}) {
		t.Errorf("the stream has %q", texts)
	}
	b.noTask()
	if err := keep(4, "four"); status.Code(err) != codes.NotFound {
		t.Errorf("of a task that is not known: %v", err)
	}
}

// TestSessionsOnOtherServers: whichever server a session is on, the leader takes its output.
func TestSessionsOnOtherServers(t *testing.T) {
	c := newServers(t, 3)
	c.placed()
	c.makeStream("g", "another")
	to := &agentapi.SessionLog{Session: "ecs-execute-command-1", Group: "g", Region: "us-east-1"}
	var want []string
	for i, s := range c.Servers() {
		text := fmt.Sprint("from server ", i)
		if err := c.family(s.ID).KeepSession(t.Context(), task, to, []*agentapi.ShipEvent{{Text: text, TimeMillis: int64(i)}}, uint64(i+1)); err != nil {
			t.Fatal(err)
		}
		want = append(want, text)
	}
	f := c.family(c.Leader().ID)
	out, err := f.getLogEvents(c.ctx("GetLogEvents"), &cwl.GetLogEventsInput{LogGroupName: &to.Group, LogStreamName: &to.Session, StartFromHead: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range out.Events {
		got = append(got, *e.Message)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the stream has %q", got)
	}
}
