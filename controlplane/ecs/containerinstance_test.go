package ecs

import (
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

func TestDescribeContainerInstances(t *testing.T) {
	p := world(t)
	static := webDefinition()
	static.ContainerDefinitions[0].PortMappings[0].HostPort = aws.Int32(8080)
	must(p, p.registerTaskDefinition, static)
	must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web:2")})
	p.report("default", agentapi.TaskState_RUNNING)
	must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web:1")})

	arn := here.ContainerInstanceARN("default", "0123456789abcdef0123456789abcdef")
	out := must(p, p.describeContainerInstances, &ecs.DescribeContainerInstancesInput{ContainerInstances: []string{arn, "nothing"}})
	if len(out.ContainerInstances) != 1 || len(out.Failures) != 1 || *out.Failures[0].Reason != "MISSING" {
		t.Fatalf("got %d instances, failures %+v", len(out.ContainerInstances), out.Failures)
	}
	ci := out.ContainerInstances[0]
	if ci.RunningTasksCount != 1 || ci.PendingTasksCount != 1 || !ci.AgentConnected || *ci.Status != "ACTIVE" {
		t.Errorf("got %d running, %d pending, connected %v, %s", ci.RunningTasksCount, ci.PendingTasksCount, ci.AgentConnected, *ci.Status)
	}
	for name, c := range map[string]struct {
		got  []types.Resource
		cpu  int32
		mem  int32
		port []string
	}{
		"registered": {ci.RegisteredResources, 2048, 4096, []string{"22"}},
		"remaining":  {ci.RemainingResources, 2048 - 512, 4096 - 512, []string{"22", "8080"}},
	} {
		if c.got[0].IntegerValue != c.cpu || c.got[1].IntegerValue != c.mem {
			t.Errorf("%s: got %d CPU units, %d MiB", name, c.got[0].IntegerValue, c.got[1].IntegerValue)
		}
		if diff := cmp.Diff(c.port, c.got[2].StringSetValue); diff != "" {
			t.Errorf("%s ports: %s", name, diff)
		}
	}
	attributes := map[string]string{}
	for _, a := range ci.Attributes {
		attributes[*a.Name] = *a.Value
	}
	if diff := cmp.Diff(map[string]string{"ecs.availability-zone": "us-east-1a", "ecs.cpu-architecture": "x86_64", "tier": "web"}, attributes); diff != "" {
		t.Error(diff)
	}
}

// What the agent says of its host is shown to who asks for it.
func TestContainerInstanceHealth(t *testing.T) {
	p := world(t)
	arn := here.ContainerInstanceARN("default", "0123456789abcdef0123456789abcdef")
	describe := func(include ...types.ContainerInstanceField) types.ContainerInstance {
		return must(p, p.describeContainerInstances, &ecs.DescribeContainerInstancesInput{ContainerInstances: []string{arn}, Include: include}).ContainerInstances[0]
	}
	if ci := describe(types.ContainerInstanceFieldTags); ci.HealthStatus != nil {
		t.Errorf("unasked: %+v", ci.HealthStatus)
	}
	for _, c := range []struct {
		status                  string
		health                  *agentapi.HostHealth
		overall, runtime, agent types.InstanceHealthCheckState
	}{
		{"READY", nil, "INSUFFICIENT_DATA", "INSUFFICIENT_DATA", "OK"},
		{"READY", &agentapi.HostHealth{}, "OK", "OK", "OK"},
		{"READY", &agentapi.HostHealth{Runtime: "no cgroups"}, "IMPAIRED", "IMPAIRED", "OK"},
		{"READY", &agentapi.HostHealth{Disk: "3 MiB"}, "IMPAIRED", "OK", "OK"},
		{"DOWN", &agentapi.HostHealth{}, "IMPAIRED", "INSUFFICIENT_DATA", "IMPAIRED"},
	} {
		since := p.now
		p.change(func(tx *state.Tx) {
			n, _ := controlplane.Nodes.Get(tx, state.K("node"))
			n = proto.CloneOf(n)
			n.Status, n.Health, n.HealthSince = c.status, c.health, timestamppb.New(since)
			controlplane.Nodes.Put(tx, n)
		})
		ci := describe(types.ContainerInstanceFieldContainerInstanceHealth)
		h := ci.HealthStatus
		if h.OverallStatus != c.overall || h.Details[0].Type != "CONTAINER_RUNTIME" || h.Details[0].Status != c.runtime || h.Details[1].Status != c.agent || !h.Details[0].LastStatusChange.Equal(since) {
			t.Errorf("%s, %v: %+v", c.status, c.health, h)
		}
		shown := slices.ContainsFunc(ci.Attributes, func(a types.Attribute) bool { return *a.Name == diskAttribute && *a.Value == "3 MiB" })
		if shown != (c.health.GetDisk() != "") {
			t.Errorf("%v: attributes %+v", c.health, ci.Attributes)
		}
	}
}

func TestDeregisterContainerInstance(t *testing.T) {
	p := world(t)
	const id = "0123456789abcdef0123456789abcdef"
	task := must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web")}).Tasks[0]
	refused := func(want string, in *ecs.DeregisterContainerInstanceInput) {
		t.Helper()
		_, err := p.deregisterContainerInstance(p.ctx(), in)
		if e, ok := awserr.As(err); !ok || e.Code != "InvalidParameterException" || e.Message != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
	refused("Container instance can not be blank.", &ecs.DeregisterContainerInstanceInput{})
	refused("The referenced container instance was not found.", &ecs.DeregisterContainerInstanceInput{ContainerInstance: aws.String("nothing")})
	refused("Found running tasks on the instance.", &ecs.DeregisterContainerInstanceInput{ContainerInstance: aws.String(id)})
	out := must(p, p.deregisterContainerInstance, &ecs.DeregisterContainerInstanceInput{ContainerInstance: aws.String(here.ContainerInstanceARN("default", id)), Force: aws.Bool(true)})
	if *out.ContainerInstance.Status != "INACTIVE" {
		t.Errorf("got %+v", out.ContainerInstance)
	}
	if left := must(p, p.listContainerInstances, &ecs.ListContainerInstancesInput{}); len(left.ContainerInstanceArns) != 0 {
		t.Errorf("listed: %v", left.ContainerInstanceArns)
	}
	if ci := must(p, p.describeContainerInstances, &ecs.DescribeContainerInstancesInput{ContainerInstances: []string{id}}).ContainerInstances; len(ci) != 1 || *ci[0].Status != "INACTIVE" {
		t.Errorf("described: %+v", ci)
	}
	on := must(p, p.describeTasks, &ecs.DescribeTasksInput{Tasks: []string{*task.TaskArn}}).Tasks[0].ContainerInstanceArn
	if want := here.ContainerInstanceARN("default", id); aws.ToString(on) != want {
		t.Errorf("the task is on %q, want %s", aws.ToString(on), want)
	}
	refused("The referenced container instance was not found.", &ecs.DeregisterContainerInstanceInput{ContainerInstance: aws.String(id), Force: aws.Bool(true)})
}

// Tasks of other clusters, and of Fargate, on the same host do not keep an instance.
func TestDeregisterContainerInstanceBesideOthers(t *testing.T) {
	p := world(t)
	must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("vpc"), LaunchType: "FARGATE", NetworkConfiguration: subnet()})
	p.report("default", agentapi.TaskState_RUNNING)
	must(p, p.deregisterContainerInstance, &ecs.DeregisterContainerInstanceInput{ContainerInstance: aws.String("0123456789abcdef0123456789abcdef")})
}

func TestUpdateContainerAgent(t *testing.T) {
	p := world(t)
	for ref, want := range map[string]string{"0123456789abcdef0123456789abcdef": "NoUpdateAvailableException", "nothing": "InvalidParameterException"} {
		if _, err := p.updateContainerAgent(p.ctx(), &ecs.UpdateContainerAgentInput{ContainerInstance: aws.String(ref)}); err == nil {
			t.Errorf("%s: no error", ref)
		} else if e, ok := awserr.As(err); !ok || e.Code != want {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestDrainContainerInstance(t *testing.T) {
	p := world(t)
	const id = "0123456789abcdef0123456789abcdef"
	out := must(p, p.updateContainerInstancesState, &ecs.UpdateContainerInstancesStateInput{ContainerInstances: []string{id, "nothing"}, Status: "DRAINING"})
	if len(out.ContainerInstances) != 1 || *out.ContainerInstances[0].Status != "DRAINING" || len(out.Failures) != 1 {
		t.Errorf("got %+v, %+v", out.ContainerInstances, out.Failures)
	}
	for status, want := range map[types.ContainerInstanceStatus]int{"": 1, "ACTIVE": 0, "DRAINING": 1} {
		if got := must(p, p.listContainerInstances, &ecs.ListContainerInstancesInput{Status: status}).ContainerInstanceArns; len(got) != want || got == nil {
			t.Errorf("%q lists %v", status, got)
		}
	}
}
