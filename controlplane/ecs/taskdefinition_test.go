package ecs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/controlplane"
)

func TestRegisterTaskDefinition(t *testing.T) {
	p := newPlatform(t)
	must(p, p.registerTaskDefinition, webDefinition())
	got := must(p, p.registerTaskDefinition, webDefinition()).TaskDefinition
	want := `{"compatibilities":["EXTERNAL","EC2"],"containerDefinitions":[{"cpu":256,"environment":[],"essential":true,"image":"web:1","memory":256,` +
		`"mountPoints":[],"name":"web","portMappings":[{"containerPort":3000,"hostPort":0,"protocol":"tcp"}],"systemControls":[],"volumesFrom":[]}],` +
		`"family":"web","networkMode":"bridge","placementConstraints":[],"registeredAt":"2025-06-01T12:00:00Z","registeredBy":"arn:aws:iam::000000000000:root",` +
		`"requiresAttributes":[{"name":"com.amazonaws.ecs.capability.docker-remote-api.1.18"}],"revision":2,"status":"ACTIVE",` +
		`"taskDefinitionArn":"arn:aws:ecs:us-east-1:000000000000:task-definition/web:2","volumes":[]}`
	if diff := cmp.Diff(want, controlplane.EncodeShape(got)); diff != "" {
		t.Error(diff)
	}
	described := must(p, p.describeTaskDefinition, &ecs.DescribeTaskDefinitionInput{TaskDefinition: aws.String("web")}).TaskDefinition
	if diff := cmp.Diff(want, controlplane.EncodeShape(described)); diff != "" {
		t.Errorf("described differently: %s", diff)
	}
}

// TestFargateSizes walks the whole table of sizes.
func TestFargateSizes(t *testing.T) {
	want := map[uint32]int{256: 3, 512: 4, 1024: 7, 2048: 13, 4096: 23, 8192: 12, 16384: 12}
	for cpu := range uint32(20000) {
		sizes := 0
		for memory := uint32(0); memory <= 130000; memory += 256 {
			if _, known := want[cpu]; !known && memory > 4096 {
				break
			}
			if fargateHas(cpu, memory) {
				sizes++
			}
		}
		if sizes != want[cpu] {
			t.Errorf("%d CPU units have %d sizes, want %d", cpu, sizes, want[cpu])
		}
	}
}

func TestFargateDefinition(t *testing.T) {
	p := newPlatform(t)
	got := must(p, p.registerTaskDefinition, vpcDefinition()).TaskDefinition
	if *got.Cpu != "256" || *got.Memory != "512" {
		t.Errorf("size is not normalized: %s, %s", *got.Cpu, *got.Memory)
	}
	if diff := cmp.Diff([]types.Compatibility{"EC2", "FARGATE"}, got.Compatibilities); diff != "" {
		t.Error(diff)
	}
	if port := got.ContainerDefinitions[0].PortMappings[0]; *port.HostPort != 3000 {
		t.Errorf("host port is %d; with awsvpc it is the container's", *port.HostPort)
	}
}

// TestRevisions: numbers are never reused, a family alone is its newest ACTIVE revision.
func TestRevisions(t *testing.T) {
	p := newPlatform(t)
	for range 3 {
		must(p, p.registerTaskDefinition, webDefinition())
	}
	newest := func() string {
		return *must(p, p.describeTaskDefinition, &ecs.DescribeTaskDefinitionInput{TaskDefinition: aws.String("web")}).TaskDefinition.TaskDefinitionArn
	}
	must(p, p.deregisterTaskDefinition, &ecs.DeregisterTaskDefinitionInput{TaskDefinition: aws.String("web:3")})
	if got := newest(); got != here.TaskDefinitionARN("web:2") {
		t.Errorf("got %s", got)
	}
	out := must(p, p.deleteTaskDefinitions, &ecs.DeleteTaskDefinitionsInput{TaskDefinitions: []string{"web:3", "web:1", "web:7"}})
	if len(out.TaskDefinitions) != 1 || out.TaskDefinitions[0].Status != "DELETE_IN_PROGRESS" || len(out.Failures) != 2 {
		t.Errorf("deleted %+v, failed %+v", out.TaskDefinitions, out.Failures)
	}
	must(p, p.registerTaskDefinition, webDefinition())
	if got := newest(); got != here.TaskDefinitionARN("web:4") {
		t.Errorf("got %s", got)
	}
	for _, c := range []struct {
		in   ecs.ListTaskDefinitionsInput
		want []string
	}{
		{ecs.ListTaskDefinitionsInput{}, []string{"web:1", "web:2", "web:4"}},
		{ecs.ListTaskDefinitionsInput{FamilyPrefix: aws.String("web"), Sort: types.SortOrderDesc}, []string{"web:4", "web:2", "web:1"}},
		{ecs.ListTaskDefinitionsInput{FamilyPrefix: aws.String("we")}, nil},
		{ecs.ListTaskDefinitionsInput{Status: types.TaskDefinitionStatusDeleteInProgress}, []string{"web:3"}},
	} {
		want := []string{}
		for _, w := range c.want {
			want = append(want, here.TaskDefinitionARN(w))
		}
		if diff := cmp.Diff(want, must(p, p.listTaskDefinitions, &c.in).TaskDefinitionArns); diff != "" {
			t.Errorf("%+v: %s", c.in, diff)
		}
	}
	backwards := &ecs.ListTaskDefinitionsInput{Sort: types.SortOrderDesc, MaxResults: aws.Int32(2)}
	backwards.NextToken = must(p, p.listTaskDefinitions, backwards).NextToken
	if rest := must(p, p.listTaskDefinitions, backwards).TaskDefinitionArns; len(rest) != 1 || rest[0] != here.TaskDefinitionARN("web:1") {
		t.Errorf("the second page backwards is %v", rest)
	}
}

func TestListTaskDefinitionFamilies(t *testing.T) {
	p := world(t)
	for status, want := range map[types.TaskDefinitionFamilyStatus][]string{
		"ACTIVE": {"vpc", "web"}, "INACTIVE": {"dead"}, "ALL": {"dead", "vpc", "web"}, "": {"dead", "vpc", "web"},
	} {
		got := must(p, p.listTaskDefinitionFamilies, &ecs.ListTaskDefinitionFamiliesInput{Status: status}).Families
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", status, diff)
		}
	}
}

// TestTaskDefinitionSize: a definition may have 64 KiB as JSON, and the overrides of a task 8,192 characters.
func TestTaskDefinitionSize(t *testing.T) {
	p := newPlatform(t)
	padded := func(n int) *ecs.RegisterTaskDefinitionInput {
		in := webDefinition()
		in.ContainerDefinitions[0].Environment = append(in.ContainerDefinitions[0].Environment, types.KeyValuePair{Name: aws.String("PAD"), Value: aws.String(strings.Repeat("x", n))})
		return in
	}
	must(p, p.registerTaskDefinition, padded(60_000))
	_, err := p.registerTaskDefinition(p.ctx(), padded(70_000))
	var length int
	if _, scan := fmt.Sscanf(fmt.Sprint(err), "ClientException: Actual length: '%d'. Max allowed length is '65536' bytes.", &length); scan != nil || length < 70_000 {
		t.Errorf("70,000 bytes more: %v", err)
	}
	if list := must(p, p.listTaskDefinitions, &ecs.ListTaskDefinitionsInput{}).TaskDefinitionArns; len(list) != 1 {
		t.Errorf("there are %v", list)
	}
	must(p, p.createCluster, &ecs.CreateClusterInput{})
	over := func(n int) error {
		_, err := p.runTask(p.ctx(), &ecs.RunTaskInput{TaskDefinition: aws.String("web"), Overrides: &types.TaskOverride{ContainerOverrides: []types.ContainerOverride{
			{Name: aws.String("web"), Command: []string{strings.Repeat("é", n)}},
		}}})
		return err
	}
	const says = "Container Overrides length must be at most 8192"
	if err := over(8000); err != nil && strings.Contains(err.Error(), says) {
		t.Errorf("8,000 characters: %v", err)
	}
	if err := over(8190); err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("8,190 characters and their JSON: %v", err)
	}
}
