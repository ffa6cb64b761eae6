package ecs

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
)

// TestProxyConfiguration: what is registered is shown, is what a host has to have, and is what its agent is told.
func TestProxyConfiguration(t *testing.T) {
	p := world(t)
	in := vpcDefinition()
	in.Family = aws.String("meshed")
	properties := func(pairs ...string) (list []types.KeyValuePair) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, types.KeyValuePair{Name: &pairs[i], Value: &pairs[i+1]})
		}
		return list
	}
	in.ProxyConfiguration = &types.ProxyConfiguration{ContainerName: aws.String("web"), Properties: properties(
		"IgnoredUID", "1337", "IgnoredGID", "", "AppPorts", "9080, 9081", "ProxyIngressPort", "15000", "ProxyEgressPort", "15001",
		"EgressIgnoredPorts", "", "EgressIgnoredIPs", "10.0.0.7,10.1.2.3/16,2001:db8::1")}
	def := must(p, p.registerTaskDefinition, in).TaskDefinition
	if got := def.ProxyConfiguration; got == nil || got.Type != types.ProxyConfigurationTypeAppmesh || len(got.Properties) != 7 {
		t.Errorf("shown is %+v", got)
	}
	out := must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("meshed"), LaunchType: "FARGATE", NetworkConfiguration: subnet()}).Tasks[0]
	task, _, _ := findTask(p.Store.View(), here, "default", (*out.TaskArn)[len(*out.TaskArn)-32:])
	if diff := cmp.Diff([]string{controlplane.CapabilityAppMesh}, task.Demand.Attributes); diff != "" {
		t.Errorf("a host must have: %s", diff)
	}
	record, _ := controlplane.TaskDefinitions.Get(p.Store.View(), here.FamilyRevisionKey(task.TaskDefinition))
	spec, _, err := controlplane.RenderTaskSpec(task, record, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &agentapi.Interception{
		IgnoredUser: new(uint32(1337)), AppPorts: []uint32{9080, 9081}, IngressPort: 15000, EgressPort: 15001,
		IgnoredBlocks: []string{"169.254.170.2/32", "169.254.169.254/32", "10.0.0.7/32", "10.1.0.0/16", "2001:db8::1/128"},
	}
	if diff := cmp.Diff(want, spec.Interception, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}
