package ecs

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

const instanceID = "0123456789abcdef0123456789abcdef"

// attributes are listed as name=value.
func attributes(p *platform, in *ecs.ListAttributesInput) (list []string) {
	p.t.Helper()
	in.TargetType = types.TargetTypeContainerInstance
	for {
		out := must(p, p.listAttributes, in)
		for _, a := range out.Attributes {
			if *a.TargetId != here.ContainerInstanceARN("default", instanceID) {
				p.t.Errorf("%s is an attribute of %s", *a.Name, *a.TargetId)
			}
			list = append(list, *a.Name+"="+aws.ToString(a.Value))
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			return list
		}
	}
}

func TestAttributes(t *testing.T) {
	p := world(t)
	arn := here.ContainerInstanceARN("default", instanceID)
	put := must(p, p.putAttributes, &ecs.PutAttributesInput{Attributes: []types.Attribute{
		{Name: aws.String("stack"), Value: aws.String("production"), TargetId: &arn},
		{Name: aws.String("tier"), Value: aws.String("db"), TargetId: aws.String(instanceID), TargetType: types.TargetTypeContainerInstance},
		{Name: aws.String("fast"), TargetId: &arn},
	}})
	if len(put.Attributes) != 3 || *put.Attributes[1].TargetId != arn || *put.Attributes[1].Value != "db" {
		t.Errorf("put answers %+v", put.Attributes)
	}
	all := []string{"ecs.availability-zone=us-east-1a", "ecs.cpu-architecture=x86_64", "fast=", "stack=production", "tier=db"}
	if d := cmp.Diff(all, attributes(p, &ecs.ListAttributesInput{})); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(all, attributes(p, &ecs.ListAttributesInput{MaxResults: aws.Int32(2)})); d != "" {
		t.Errorf("in pages of two: %s", d)
	}
	if d := cmp.Diff([]string{"tier=db"}, attributes(p, &ecs.ListAttributesInput{AttributeName: aws.String("tier")})); d != "" {
		t.Error(d)
	}
	if got := attributes(p, &ecs.ListAttributesInput{AttributeName: aws.String("tier"), AttributeValue: aws.String("web")}); len(got) != 0 {
		t.Errorf("of another value: %v", got)
	}
	must(p, p.deleteAttributes, &ecs.DeleteAttributesInput{Attributes: []types.Attribute{
		{Name: aws.String("tier"), TargetId: &arn}, {Name: aws.String("fast"), TargetId: &arn}, {Name: aws.String("never-there"), TargetId: &arn},
	}})
	if d := cmp.Diff([]string{"ecs.availability-zone=us-east-1a", "ecs.cpu-architecture=x86_64", "stack=production"}, attributes(p, &ecs.ListAttributesInput{})); d != "" {
		t.Error(d)
	}
}

// A request that goes beyond the limit changes nothing.
func TestAttributeLimit(t *testing.T) {
	p := world(t)
	before := attributes(p, &ecs.ListAttributesInput{})
	var many []types.Attribute
	for i := range maxAttributes { // the instance has one already
		many = append(many, types.Attribute{Name: aws.String(fmt.Sprintf("a%d", i)), TargetId: aws.String(here.ContainerInstanceARN("default", instanceID))})
	}
	_, err := p.putAttributes(p.ctx(), &ecs.PutAttributesInput{Attributes: many})
	if e, ok := err.(*awserr.Error); !ok || e.Code != "AttributeLimitExceededException" {
		t.Errorf("got %v", err)
	}
	if d := cmp.Diff(before, attributes(p, &ecs.ListAttributesInput{})); d != "" {
		t.Error(d)
	}
	must(p, p.putAttributes, &ecs.PutAttributesInput{Attributes: many[1:]})
}

func TestFilterContainerInstances(t *testing.T) {
	p := world(t)
	must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web"), Group: aws.String("batch")})
	for filter, want := range map[string]int{
		"":                      1,
		"attribute:tier == web": 1,
		"attribute:tier == db":  0,
		"attribute:ecs.availability-zone exists and not(attribute:gpu exists)": 1,
		"task:group == batch":                               1,
		"task:group == other":                               0,
		"remainingCPU < 2048 and registeredCPU == 2048":     1,
		"remainingMemory >= 4096":                           0,
		"pendingTasksCount == 1 and runningTasksCount == 0": 1,
		"agentConnected == true and status == ACTIVE":       1,
		"containerInstanceId == " + instanceID:              1,
		"ec2InstanceId exists":                              0,
	} {
		if got := must(p, p.listContainerInstances, &ecs.ListContainerInstancesInput{Filter: &filter}).ContainerInstanceArns; len(got) != want {
			t.Errorf("%q lists %v, want %d", filter, got, want)
		}
	}
}
