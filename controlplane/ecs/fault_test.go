package ecs

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/controlplane"
)

// TestFaultInjectionIsEnabled: what is registered is shown, is what a host has to have, and is what its agent is told.
func TestFaultInjectionIsEnabled(t *testing.T) {
	p := world(t)
	for _, enabled := range []bool{true, false} {
		in := vpcDefinition()
		in.EnableFaultInjection = &enabled
		out := must(p, p.registerTaskDefinition, in)
		shown := false
		for _, a := range out.TaskDefinition.RequiresAttributes {
			shown = shown || *a.Name == controlplane.CapabilityFaultInjection
		}
		if shown != enabled || aws.ToBool(out.TaskDefinition.EnableFaultInjection) != enabled {
			t.Errorf("%v: shown is %+v", enabled, out.TaskDefinition)
		}
		arn := *must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: in.Family, LaunchType: "FARGATE", NetworkConfiguration: subnet()}).Tasks[0].TaskArn
		task, _, _ := findTask(p.Store.View(), here, "default", arn[len(arn)-32:])
		var want []string
		if enabled {
			want = []string{controlplane.CapabilityFaultInjection}
		}
		if diff := cmp.Diff(want, task.Demand.Attributes); diff != "" {
			t.Errorf("a host must have: %s", diff)
		}
		record, _ := controlplane.TaskDefinitions.Get(p.Store.View(), here.FamilyRevisionKey(task.TaskDefinition))
		if spec, _, err := controlplane.RenderTaskSpec(task, record, nil); err != nil || spec.FaultInjection != enabled {
			t.Errorf("the agent is told %v, %v", spec.GetFaultInjection(), err)
		}
	}
}
