package ecs

import (
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

func gpusAsked(value string) []types.ResourceRequirement {
	return []types.ResourceRequirement{{Type: types.ResourceTypeGpu, Value: &value}}
}

// TestGPUs: instances list what they have and have left, StartTask gives it out, and a task says which container has which.
func TestGPUs(t *testing.T) {
	p := world(t)
	p.change(func(tx *state.Tx) {
		n, _ := controlplane.Nodes.Get(tx, state.K("node"))
		n = proto.CloneOf(n)
		n.Resources.Gpus = []string{"GPU-a", "GPU-b", "GPU-c", "GPU-d"}
		controlplane.Nodes.Put(tx, n)
	})
	in := webDefinition()
	in.ContainerDefinitions[0].ResourceRequirements = []types.ResourceRequirement{{Type: types.ResourceTypeGpu, SharingStrategy: &types.SharingStrategyMemberNvidiaMps{}}}
	if _, err := p.registerTaskDefinition(p.ctx(), in); err == nil || !strings.Contains(err.Error(), "sharingStrategy' is not supported by this platform") {
		t.Errorf("a shared GPU: %v", err)
	}
	in = webDefinition()
	in.Family = aws.String("train")
	in.ContainerDefinitions[0].ResourceRequirements = gpusAsked("1")
	in.ContainerDefinitions = append(in.ContainerDefinitions,
		types.ContainerDefinition{Name: aws.String("plain"), Image: aws.String("web:1"), Memory: aws.Int32(8)},
		types.ContainerDefinition{Name: aws.String("more"), Image: aws.String("web:1"), Memory: aws.Int32(8), ResourceRequirements: gpusAsked("2")})
	def := must(p, p.registerTaskDefinition, in).TaskDefinition
	if slices.Contains(def.Compatibilities, types.CompatibilityFargate) {
		t.Error("the definition is compatible with FARGATE")
	}
	instance := []string{"0123456789abcdef0123456789abcdef"}
	start := func(over *types.TaskOverride) *ecs.StartTaskOutput {
		return must(p, p.startTask, &ecs.StartTaskInput{TaskDefinition: aws.String("train"), ContainerInstances: instance, Overrides: over})
	}
	out := start(nil)
	if len(out.Tasks) != 1 {
		t.Fatalf("failures: %+v", out.Failures)
	}
	has := func(task types.Task, want ...[]string) {
		t.Helper()
		for i, c := range task.Containers {
			if !slices.Equal(c.GpuIds, want[i]) {
				t.Errorf("container %s has %v, not %v", *c.Name, c.GpuIds, want[i])
			}
		}
	}
	has(p.describeTask(out.Tasks[0].TaskArn), []string{"GPU-a"}, nil, []string{"GPU-b", "GPU-c"})
	left := func() (registered, remaining []string) {
		ci := must(p, p.describeContainerInstances, &ecs.DescribeContainerInstancesInput{ContainerInstances: instance}).ContainerInstances[0]
		of := func(list []types.Resource) []string {
			i := slices.IndexFunc(list, func(r types.Resource) bool { return *r.Name == "GPU" })
			if i < 0 || *list[i].Type != "STRINGSET" {
				t.Fatalf("resources: %+v", list)
			}
			return list[i].StringSetValue
		}
		return of(ci.RegisteredResources), of(ci.RemainingResources)
	}
	if registered, remaining := left(); len(registered) != 4 || !slices.Equal(remaining, []string{"GPU-d"}) {
		t.Errorf("registered %v, remaining %v", registered, remaining)
	}
	if out := start(nil); len(out.Tasks) != 0 || *out.Failures[0].Reason != "RESOURCE:GPU" {
		t.Errorf("the second task: %+v", out)
	}
	// An override asks for something else than the definition does.
	less := &types.TaskOverride{ContainerOverrides: []types.ContainerOverride{
		{Name: aws.String("web"), ResourceRequirements: []types.ResourceRequirement{}}, {Name: aws.String("more"), ResourceRequirements: gpusAsked("1")}}}
	out = start(less)
	if len(out.Tasks) != 1 {
		t.Fatalf("failures: %+v", out.Failures)
	}
	has(out.Tasks[0], nil, nil, []string{"GPU-d"})

	// The agent is told.
	st := must(p, p.describeTasks, &ecs.DescribeTasksInput{Tasks: []string{*out.Tasks[0].TaskArn}}).Tasks[0]
	task, status, _ := findTask(p.Store.View(), here, "default", (*st.TaskArn)[len(*st.TaskArn)-32:])
	record, _ := controlplane.TaskDefinitions.Get(p.Store.View(), here.FamilyRevisionKey(task.TaskDefinition))
	spec, _, err := controlplane.RenderTaskSpec(task, record, nil)
	if err != nil {
		t.Fatal(err)
	}
	controlplane.SetGPUs(status, task, record, spec)
	for _, c := range spec.Containers {
		if want := map[string][]string{"more": {"GPU-d"}}[c.Name]; !slices.Equal(c.Gpus, want) {
			t.Errorf("the agent is told that %s has %v", c.Name, c.Gpus)
		}
	}
}
