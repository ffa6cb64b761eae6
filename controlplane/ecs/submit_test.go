package ecs

import (
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// onAmazonHost starts a task on an instance with Amazon's agent, which is made to look connected.
func onAmazonHost(p *platform) types.Task {
	p.t.Helper()
	ci := must(p, p.registerContainerInstance, amazonHost()).ContainerInstance
	p.change(func(tx *state.Tx) {
		for n := range controlplane.Nodes.Scan(tx, state.K()) {
			if n.AmazonAgent != nil {
				n = proto.CloneOf(n)
				n.Status = "READY"
				controlplane.Nodes.Put(tx, n)
			}
		}
	})
	out := must(p, p.startTask, &ecs.StartTaskInput{ContainerInstances: []string{*ci.ContainerInstanceArn}, TaskDefinition: aws.String("web:1")})
	if len(out.Tasks) != 1 {
		p.t.Fatalf("not started: %+v", out.Failures)
	}
	return out.Tasks[0]
}

func TestSubmitTaskStateChange(t *testing.T) {
	p := world(t)
	task := onAmazonHost(p)
	describe := func() types.Task {
		return must(p, p.describeTasks, &ecs.DescribeTasksInput{Tasks: []string{*task.TaskArn}}).Tasks[0]
	}
	submit := func(in *ecs.SubmitTaskStateChangeInput) {
		t.Helper()
		in.Task = task.TaskArn
		if out := must(p, p.submitTaskStateChange, in); aws.ToString(out.Acknowledgment) == "" {
			t.Error("no acknowledgment")
		}
	}
	pulled := p.now.Add(time.Second)
	submit(&ecs.SubmitTaskStateChangeInput{Status: aws.String("RUNNING"), PullStartedAt: &p.now, PullStoppedAt: &pulled, Containers: []types.ContainerStateChange{
		{ContainerName: aws.String("~internal~ecs~pause"), Status: aws.String("RUNNING")},
		{ContainerName: aws.String("web"), Status: aws.String("RUNNING"), RuntimeId: aws.String("abc"), ImageDigest: aws.String("sha256:1"), NetworkBindings: []types.NetworkBinding{
			{BindIP: aws.String("0.0.0.0"), ContainerPort: aws.Int32(3000), HostPort: aws.Int32(49153), Protocol: "tcp"},
		}},
	}})
	got := describe()
	if c := got.Containers[0]; *got.LastStatus != "RUNNING" || *c.LastStatus != "RUNNING" || *c.RuntimeId != "abc" || *c.ImageDigest != "sha256:1" ||
		*c.NetworkBindings[0].HostPort != 49153 || !got.PullStoppedAt.Equal(pulled) || got.StartedAt == nil {
		t.Errorf("running: %+v", got)
	}
	// What was said before stays said: a container's change alone, then the task's.
	must(p, p.submitContainerStateChange, &ecs.SubmitContainerStateChangeInput{Task: task.TaskArn, ContainerName: aws.String("web"), Status: aws.String("STOPPED"), ExitCode: aws.Int32(3), Reason: aws.String("OutOfMemoryError")})
	if c := describe().Containers[0]; *c.LastStatus != "STOPPED" || *c.ExitCode != 3 || *c.Reason != "OutOfMemoryError" || *c.RuntimeId != "abc" {
		t.Errorf("stopped: %+v", c)
	}
	submit(&ecs.SubmitTaskStateChangeInput{Status: aws.String("STOPPED"), Reason: aws.String("Essential container in task exited"), ExecutionStoppedAt: &pulled})
	got = describe()
	if *got.LastStatus != "STOPPED" || got.StopCode != "EssentialContainerExited" || *got.StoppedReason != "Essential container in task exited" || !got.ExecutionStoppedAt.Equal(pulled) {
		t.Errorf("over: %+v", got)
	}
	// Late words are acknowledged, and change nothing.
	submit(&ecs.SubmitTaskStateChangeInput{Status: aws.String("RUNNING")})
	if late := describe(); *late.LastStatus != "STOPPED" || late.Version != got.Version {
		t.Errorf("late: %+v", late)
	}
}

func TestSubmittedBeforeItRan(t *testing.T) {
	p := world(t)
	task := onAmazonHost(p)
	must(p, p.submitTaskStateChange, &ecs.SubmitTaskStateChangeInput{Task: task.TaskArn, Status: aws.String("STOPPED"), Reason: aws.String("Task failed to start"), Containers: []types.ContainerStateChange{
		{ContainerName: aws.String("web"), Status: aws.String("STOPPED"), Reason: aws.String("CannotPullContainerError: no such image")},
	}})
	got := must(p, p.describeTasks, &ecs.DescribeTasksInput{Tasks: []string{*task.TaskArn}}).Tasks[0]
	if got.StopCode != "TaskFailedToStart" || *got.Containers[0].Reason != "CannotPullContainerError: no such image" {
		t.Errorf("got %+v", got)
	}
}

func TestSubmitRefuses(t *testing.T) {
	p := world(t)
	task := onAmazonHost(p)
	own := must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web:1")}).Tasks[0]
	attachments := []types.AttachmentStateChange{{AttachmentArn: aws.String("arn:aws:ecs:us-east-1:1:attachment/1"), Status: aws.String("ATTACHED")}}
	for message, call := range map[string]func() error{
		"The referenced task was not found.": func() error {
			_, err := p.submitTaskStateChange(p.ctx(), &ecs.SubmitTaskStateChangeInput{Task: aws.String("none"), Status: aws.String("RUNNING")})
			return err
		},
		"The task " + (*own.TaskArn)[len(*own.TaskArn)-32:] + " is not on a container instance that was registered by RegisterContainerInstance.": func() error {
			_, err := p.submitTaskStateChange(p.ctx(), &ecs.SubmitTaskStateChangeInput{Task: own.TaskArn, Status: aws.String("STOPPED")})
			return err
		},
		"The status 'FLYING' is not one of [PENDING, RUNNING, STOPPED].": func() error {
			_, err := p.submitTaskStateChange(p.ctx(), &ecs.SubmitTaskStateChangeInput{Task: task.TaskArn, Status: aws.String("FLYING")})
			return err
		},
		"The container db was not found in the task.": func() error {
			_, err := p.submitContainerStateChange(p.ctx(), &ecs.SubmitContainerStateChangeInput{Task: task.TaskArn, ContainerName: aws.String("db"), Status: aws.String("RUNNING")})
			return err
		},
		"A network binding of container web has no valid port.": func() error {
			_, err := p.submitContainerStateChange(p.ctx(), &ecs.SubmitContainerStateChangeInput{Task: task.TaskArn, ContainerName: aws.String("web"), NetworkBindings: []types.NetworkBinding{{HostPort: aws.Int32(1)}}})
			return err
		},
		"The attachment arn:aws:ecs:us-east-1:1:attachment/1 was not found.": func() error {
			_, err := p.submitAttachmentStateChanges(p.ctx(), &ecs.SubmitAttachmentStateChangesInput{Attachments: attachments})
			return err
		},
	} {
		if e, ok := awserr.As(call()); !ok || e.Code != "InvalidParameterException" || e.Message != message {
			t.Errorf("got %v, want %s", e, message)
		}
	}
}

// What the way to Amazon's agent cannot carry is kept off its hosts, and so is ECS Exec.
func TestAmazonHostLacks(t *testing.T) {
	p := world(t)
	onAmazonHost(p)
	arns := must(p, p.listContainerInstances, &ecs.ListContainerInstancesInput{Filter: aws.String("attribute:tier == web and agentVersion == 1.105.1")}).ContainerInstanceArns
	if len(arns) != 1 {
		t.Fatalf("instances %v", arns)
	}
	secret := webDefinition()
	secret.Family, secret.ExecutionRoleArn = aws.String("secret"), aws.String("arn:aws:iam::"+here.Account+":role/e")
	secret.ContainerDefinitions[0].Secrets = []types.Secret{{Name: aws.String("S"), ValueFrom: aws.String("p")}}
	must(p, p.registerTaskDefinition, secret)
	for _, in := range []*ecs.StartTaskInput{
		{TaskDefinition: aws.String("secret")}, {TaskDefinition: aws.String("web:1"), EnableExecuteCommand: true},
	} {
		in.ContainerInstances = slices.Clone(arns)
		if out := must(p, p.startTask, in); len(out.Failures) != 1 || *out.Failures[0].Reason != "ATTRIBUTE" {
			t.Errorf("%s: %+v", *in.TaskDefinition, out)
		}
	}
}
