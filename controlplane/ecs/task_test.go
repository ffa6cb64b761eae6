package ecs

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

func (p *platform) describeTask(arn *string) types.Task {
	p.t.Helper()
	out := must(p, p.describeTasks, &ecs.DescribeTasksInput{Tasks: []string{*arn}, Include: []types.TaskField{types.TaskFieldTags}})
	if len(out.Tasks) != 1 {
		p.t.Fatalf("got failures %+v", out.Failures)
	}
	return out.Tasks[0]
}

// TestTaskLife follows one task by what DescribeTasks says; the waiters tasks-running and tasks-stopped look at lastStatus.
func TestTaskLife(t *testing.T) {
	p := world(t)
	started := must(p, p.runTask, &ecs.RunTaskInput{
		TaskDefinition: aws.String("web"), StartedBy: aws.String("me"), Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}},
		EnableECSManagedTags: true, Overrides: &types.TaskOverride{ContainerOverrides: []types.ContainerOverride{{Name: aws.String("web"), Command: []string{"x"}}}},
	}).Tasks[0]
	if *started.LastStatus != "PENDING" || *started.DesiredStatus != "RUNNING" || *started.Group != "family:web" || *started.StartedBy != "me" ||
		started.LaunchType != "EC2" || *started.Cpu != "256" || *started.Memory != "256" || *started.Containers[0].LastStatus != "PENDING" {
		t.Errorf("started as %+v", started)
	}
	if diff := cmp.Diff(started.Overrides.ContainerOverrides[0].Command, []string{"x"}); diff != "" {
		t.Error(diff)
	}
	if len(started.Tags) != 2 || *started.Tags[1].Key != "aws:ecs:clusterName" || *started.Tags[1].Value != "default" {
		t.Errorf("got tags %+v", started.Tags)
	}

	p.report("default", agentapi.TaskState_RUNNING)
	running := p.describeTask(started.TaskArn)
	c := running.Containers[0]
	if *running.LastStatus != "RUNNING" || *c.LastStatus != "RUNNING" || *c.RuntimeId != "rt" || *c.ImageDigest != "sha256:1" || c.ExitCode != nil {
		t.Errorf("runs as %+v", running)
	}
	if b := c.NetworkBindings; len(b) != 1 || *b[0].HostPort != 32768 || *b[0].ContainerPort != 3000 || *b[0].BindIP != "0.0.0.0" || b[0].Protocol != "tcp" {
		t.Errorf("got bindings %+v", b)
	}
	if *running.ContainerInstanceArn != here.ContainerInstanceARN("default", "0123456789abcdef0123456789abcdef") || *running.AvailabilityZone != "us-east-1a" {
		t.Errorf("runs on %s in %s", *running.ContainerInstanceArn, *running.AvailabilityZone)
	}

	stopping := must(p, p.stopTask, &ecs.StopTaskInput{Task: started.TaskArn, Reason: aws.String("enough")}).Task
	if *stopping.DesiredStatus != "STOPPED" || *stopping.LastStatus != "RUNNING" || *stopping.StoppedReason != "enough" || stopping.StopCode != "UserInitiated" {
		t.Errorf("stops as %+v", stopping)
	}
	must(p, p.stopTask, &ecs.StopTaskInput{Task: started.TaskArn, Reason: aws.String("again")})

	p.report("default", agentapi.TaskState_STOPPED)
	stopped := p.describeTask(started.TaskArn)
	if *stopped.LastStatus != "STOPPED" || stopped.StopCode != "UserInitiated" || *stopped.StoppedReason != "enough" || stopped.StoppedAt == nil ||
		*stopped.Containers[0].ExitCode != 3 || *stopped.Containers[0].LastStatus != "STOPPED" {
		t.Errorf("stopped as %+v", stopped)
	}
}

func TestFargateTask(t *testing.T) {
	p := world(t)
	started := must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("vpc"), LaunchType: "FARGATE", NetworkConfiguration: subnet(), PlatformVersion: aws.String("LATEST")}).Tasks[0]
	if *started.LastStatus != "PROVISIONING" || *started.PlatformVersion != "1.4.0" || *started.PlatformFamily != "Linux" || started.ContainerInstanceArn != nil {
		t.Errorf("started as %+v", started)
	}
	p.report("default", agentapi.TaskState_RUNNING)
	running := p.describeTask(started.TaskArn)
	details := map[string]string{}
	for _, d := range running.Attachments[0].Details {
		details[*d.Name] = *d.Value
	}
	if diff := cmp.Diff(map[string]string{"subnetId": "subnet-1", "networkInterfaceId": "eni-" + path.Base(*started.TaskArn)[:17], "macAddress": "02:42:0a:01:00:02", "privateIPv4Address": "10.1.0.2", "ipv6Address": "fd00::2"}, details); diff != "" {
		t.Error(diff)
	}
	c := running.Containers[0]
	if len(c.NetworkBindings) != 0 || *c.NetworkInterfaces[0].PrivateIpv4Address != "10.1.0.2" || *c.NetworkInterfaces[0].Ipv6Address != "fd00::2" || *c.NetworkInterfaces[0].AttachmentId != *running.Attachments[0].Id {
		t.Errorf("got %+v", c)
	}
}

// A task that asks for ephemeral storage goes where there is some to give, and says how much it has; its override goes before its definition.
func TestEphemeralStorage(t *testing.T) {
	p := world(t)
	in := vpcDefinition()
	in.Family, in.EphemeralStorage = aws.String("large"), &types.EphemeralStorage{SizeInGiB: 21}
	must(p, p.registerTaskDefinition, in)
	for _, c := range []struct {
		definition string
		override   int32
		want       int32
		attributes []string
	}{
		{"vpc", 0, 20, nil}, // Fargate's own, shown and not enforced
		{"large", 0, 21, []string{controlplane.CapabilityEphemeralStorage}},
		{"large", 100, 100, []string{controlplane.CapabilityEphemeralStorage}},
		{"vpc", 200, 200, []string{controlplane.CapabilityEphemeralStorage}},
	} {
		run := &ecs.RunTaskInput{TaskDefinition: aws.String(c.definition), LaunchType: "FARGATE", NetworkConfiguration: subnet()}
		if c.override > 0 {
			run.Overrides = &types.TaskOverride{EphemeralStorage: &types.EphemeralStorage{SizeInGiB: c.override}}
		}
		out := must(p, p.runTask, run).Tasks[0]
		task, _, ok := findTask(p.Store.View(), here, "default", (*out.TaskArn)[strings.LastIndexByte(*out.TaskArn, '/')+1:])
		if !ok || out.EphemeralStorage.SizeInGiB != c.want || !slices.Equal(task.Demand.Attributes, c.attributes) {
			t.Errorf("%s with %d: %+v, attributes %v", c.definition, c.override, out.EphemeralStorage, task.GetDemand().GetAttributes())
		}
		def, _ := controlplane.TaskDefinitions.Get(p.Store.View(), here.FamilyRevisionKey(task.TaskDefinition))
		spec, _, err := controlplane.RenderTaskSpec(task, def, nil)
		if want := uint32(c.want) << 10; err != nil || spec.EphemeralStorageMib != want && c.attributes != nil || spec.EphemeralStorageMib != 0 && c.attributes == nil {
			t.Errorf("%s with %d: the agent is told %d MiB, %v", c.definition, c.override, spec.GetEphemeralStorageMib(), err)
		}
	}
}

func TestRunTaskWithoutRoom(t *testing.T) {
	p := world(t)
	out := must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web"), Count: aws.Int32(6)})
	if len(out.Tasks) != 4 || len(out.Failures) != 1 || *out.Failures[0].Reason != "RESOURCE:MEMORY" {
		t.Errorf("got %d tasks, failures %+v", len(out.Tasks), out.Failures)
	}
	if left := must(p, p.listTasks, &ecs.ListTasksInput{}); len(left.TaskArns) != 4 {
		t.Errorf("%d tasks were created", len(left.TaskArns))
	}
}

func TestRunTaskClientToken(t *testing.T) {
	p := world(t)
	in := &ecs.RunTaskInput{TaskDefinition: aws.String("web"), Count: aws.Int32(2), ClientToken: aws.String("token")}
	first, second := must(p, p.runTask, in), must(p, p.runTask, in)
	for i := range first.Tasks {
		if *first.Tasks[i].TaskArn != *second.Tasks[i].TaskArn {
			t.Errorf("the same request started %s and %s", *first.Tasks[i].TaskArn, *second.Tasks[i].TaskArn)
		}
	}
	in.Count = aws.Int32(1)
	_, err := p.runTask(p.ctx(), in)
	e, _ := awserr.As(err)
	if e == nil || e.Code != "ConflictException" {
		t.Fatalf("another request with the token: %v", err)
	}
	if diff := cmp.Diff([]string{*first.Tasks[0].TaskArn, *first.Tasks[1].TaskArn}, e.Fields["resourceIds"]); diff != "" {
		t.Error(diff)
	}
}

func TestCapacityProviderStrategy(t *testing.T) {
	p := world(t)
	must(p, p.putClusterCapacityProviders, &ecs.PutClusterCapacityProvidersInput{
		Cluster: aws.String("default"), CapacityProviders: []string{"FARGATE", "FARGATE_SPOT"}, DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{
			{CapacityProvider: aws.String("FARGATE"), Base: 2, Weight: 1}, {CapacityProvider: aws.String("FARGATE_SPOT"), Weight: 3},
		},
	})
	out := must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("vpc"), NetworkConfiguration: subnet(), Count: aws.Int32(10)})
	have := map[string]int{}
	for _, task := range out.Tasks {
		have[*task.CapacityProviderName]++
	}
	if diff := cmp.Diff(map[string]int{"FARGATE": 4, "FARGATE_SPOT": 6}, have); diff != "" {
		t.Error(diff)
	}
}

func TestStartTask(t *testing.T) {
	p := world(t)
	const instance = "0123456789abcdef0123456789abcdef"
	out := must(p, p.startTask, &ecs.StartTaskInput{TaskDefinition: aws.String("web"), ContainerInstances: []string{instance, here.ContainerInstanceARN("default", "none")}})
	if len(out.Tasks) != 1 || *out.Tasks[0].ContainerInstanceArn != here.ContainerInstanceARN("default", instance) || *out.Tasks[0].LastStatus != "PENDING" {
		t.Errorf("got %+v", out.Tasks)
	}
	if len(out.Failures) != 1 || *out.Failures[0].Reason != "MISSING" {
		t.Errorf("got %+v", out.Failures)
	}
	over := &types.TaskOverride{ContainerOverrides: []types.ContainerOverride{{Name: aws.String("web"), Memory: aws.Int32(3841)}}}
	out = must(p, p.startTask, &ecs.StartTaskInput{TaskDefinition: aws.String("web"), ContainerInstances: []string{instance}, Overrides: over})
	if len(out.Tasks) != 0 || *out.Failures[0].Reason != "RESOURCE:MEMORY" {
		t.Errorf("256 of 4096 MiB are taken; for 3841 more got %+v, %+v", out.Tasks, out.Failures)
	}
}

func TestListTasks(t *testing.T) {
	p := world(t)
	web := *must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web"), StartedBy: aws.String("me")}).Tasks[0].TaskArn
	vpc := *must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("vpc"), LaunchType: "FARGATE", NetworkConfiguration: subnet()}).Tasks[0].TaskArn
	over := *must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web"), Group: aws.String("batch")}).Tasks[0].TaskArn
	must(p, p.stopTask, &ecs.StopTaskInput{Task: &over})
	for _, c := range []struct {
		name string
		in   ecs.ListTasksInput
		want []string
	}{
		{"all", ecs.ListTasksInput{}, []string{web, vpc}},
		{"stopped", ecs.ListTasksInput{DesiredStatus: "STOPPED"}, []string{over}},
		{"pending", ecs.ListTasksInput{DesiredStatus: "PENDING"}, nil},
		{"family", ecs.ListTasksInput{Family: aws.String("vpc")}, []string{vpc}},
		{"started by", ecs.ListTasksInput{StartedBy: aws.String("me")}, []string{web}},
		{"launch type", ecs.ListTasksInput{LaunchType: "FARGATE"}, []string{vpc}},
		{"instance", ecs.ListTasksInput{ContainerInstance: aws.String("0123456789abcdef0123456789abcdef")}, []string{web}},
		{"service", ecs.ListTasksInput{ServiceName: aws.String("active")}, nil},
	} {
		got := must(p, p.listTasks, &c.in).TaskArns
		want := map[string]bool{}
		for _, w := range c.want {
			want[w] = true
		}
		have := map[string]bool{}
		for _, g := range got {
			have[g] = true
		}
		if diff := cmp.Diff(want, have); diff != "" || got == nil {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	for _, in := range []*ecs.ListTasksInput{{Family: aws.String("web")}, {ServiceName: aws.String("active")}, {ContainerInstance: aws.String("0123456789abcdef0123456789abcdef")}} {
		in.StartedBy = aws.String("me")
		if _, err := p.listTasks(p.ctx(), in); !awserr.Is(err, "InvalidParameterException") {
			t.Errorf("startedBy with another filter: %v", err)
		}
	}
	in := &ecs.ListTasksInput{MaxResults: aws.Int32(1)}
	first := must(p, p.listTasks, in)
	in.NextToken = first.NextToken
	second := must(p, p.listTasks, in)
	if first.TaskArns[0] == second.TaskArns[0] || second.NextToken != nil {
		t.Errorf("pages are %v and %v", first.TaskArns, second.TaskArns)
	}
}

// TestPagesOfTasksAreAllOfThem: page by page as at once, whichever records they are read from, with those of other services and clusters beside them.
func TestPagesOfTasksAreAllOfThem(t *testing.T) {
	p := world(t)
	p.change(func(tx *state.Tx) {
		for i := range 30 {
			st := controlplane.CreateTask(tx, &controlplane.Task{
				Account: here.Account, Region: here.Region, Cluster: []string{"default", "defaulu", "other"}[i%3], Id: fmt.Sprintf("%032x", i*7919%31), TaskDefinition: "web:1",
				Service: []string{"active", "active2", ""}[i/3%3], LaunchType: "EC2",
			}, nil)
			if i%2 == 0 {
				st, _ = st.AdvanceDesired(agentapi.TaskState_STOPPED, "", "", time.Unix(0, 0))
				controlplane.TaskStatuses.Put(tx, st)
			}
		}
	})
	for _, in := range []ecs.ListTasksInput{{}, {DesiredStatus: "STOPPED"}, {ServiceName: aws.String("active")}, {ServiceName: aws.String("active"), DesiredStatus: "STOPPED"}} {
		all := must(p, p.listTasks, &in).TaskArns
		if len(all) < 2 {
			t.Fatalf("%+v: only %v", in, all)
		}
		var got []string
		for in.MaxResults = aws.Int32(1); ; {
			out := must(p, p.listTasks, &in)
			got = append(got, out.TaskArns...)
			if in.NextToken = out.NextToken; in.NextToken == nil {
				break
			}
		}
		if !slices.Equal(got, all) {
			t.Errorf("%+v: pages have %v, of %v", in, got, all)
		}
	}
}
