package ecs

import (
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

func amazonHost() *ecs.RegisterContainerInstanceInput {
	integer, set := aws.String("INTEGER"), aws.String("STRINGSET")
	return &ecs.RegisterContainerInstanceInput{
		TotalResources: []types.Resource{
			{Name: aws.String("CPU"), Type: integer, IntegerValue: 2048}, {Name: aws.String("MEMORY"), Type: integer, IntegerValue: 3900},
			{Name: aws.String("PORTS"), Type: set, StringSetValue: []string{"22", "2376"}}, {Name: aws.String("PORTS_UDP"), Type: set, StringSetValue: []string{"53"}},
		},
		Attributes: []types.Attribute{
			{Name: aws.String("com.amazonaws.ecs.capability.docker-remote-api.1.18")}, {Name: aws.String("ecs.os-type"), Value: aws.String("linux")},
			{Name: aws.String("tier"), Value: aws.String("web")},
		},
		VersionInfo:              &types.VersionInfo{AgentVersion: aws.String("1.105.1"), AgentHash: aws.String("54d3e56b"), DockerVersion: aws.String("DockerVersion: 25.0.6")},
		InstanceIdentityDocument: aws.String(`{"instanceId":"i-0123456789abcdef0","instanceType":"t3.medium","imageId":"ami-1","availabilityZone":"us-east-1a","architecture":"x86_64","privateIp":"10.0.0.7"}`),
		Tags:                     []types.Tag{{Key: aws.String("team"), Value: aws.String("edge")}},
	}
}

func TestRegisterContainerInstance(t *testing.T) {
	p := world(t)
	ci := must(p, p.registerContainerInstance, amazonHost()).ContainerInstance
	if ci.AgentConnected || *ci.Status != "ACTIVE" || *ci.Ec2InstanceId != "i-0123456789abcdef0" || len(ci.Tags) != 1 ||
		*ci.VersionInfo.AgentVersion != "1.105.1" || *ci.VersionInfo.AgentHash != "54d3e56b" || *ci.VersionInfo.DockerVersion != "DockerVersion: 25.0.6" {
		t.Errorf("got %+v, %+v", ci, ci.VersionInfo)
	}
	if r := ci.RegisteredResources; r[0].IntegerValue != 2048 || r[1].IntegerValue != 3900 || !slices.Equal(r[2].StringSetValue, []string{"22", "2376"}) || !slices.Equal(r[3].StringSetValue, []string{"53"}) {
		t.Errorf("resources %+v", r)
	}
	// The agent takes an answer that lacks one of its attributes for a failure.
	has := map[string]string{}
	for _, a := range ci.Attributes {
		has[*a.Name] = aws.ToString(a.Value)
	}
	for _, a := range amazonHost().Attributes {
		if v, ok := has[*a.Name]; !ok || v != aws.ToString(a.Value) {
			t.Errorf("attribute %s: %q, %v", *a.Name, v, ok)
		}
	}
	if has["ecs.availability-zone"] != "us-east-1a" {
		t.Errorf("attributes %v", has)
	}

	// Started anew: the same instance, with what it has now. Attributes that somebody has put stay.
	must(p, p.putAttributes, &ecs.PutAttributesInput{Attributes: []types.Attribute{{Name: aws.String("rack"), Value: aws.String("4"), TargetId: ci.ContainerInstanceArn}}})
	again := amazonHost()
	again.ContainerInstanceArn, again.TotalResources[0].IntegerValue, again.Attributes = ci.ContainerInstanceArn, 1024, again.Attributes[:2]
	second := must(p, p.registerContainerInstance, again).ContainerInstance
	if *second.ContainerInstanceArn != *ci.ContainerInstanceArn || second.RegisteredResources[0].IntegerValue != 1024 || second.Version <= ci.Version {
		t.Errorf("again: %+v", second)
	}
	custom := 0
	for _, a := range second.Attributes {
		if *a.Name == "rack" || *a.Name == "tier" {
			custom++
		}
	}
	if custom != 2 {
		t.Errorf("attributes %+v", second.Attributes)
	}
	if list := must(p, p.listContainerInstances, &ecs.ListContainerInstancesInput{Filter: aws.String("agentConnected == false")}); !slices.Equal(list.ContainerInstanceArns, []string{*ci.ContainerInstanceArn}) {
		t.Errorf("listed %v", list.ContainerInstanceArns)
	}

	// It is drained and deregistered as any other, and is one again when its agent starts anew.
	must(p, p.updateContainerInstancesState, &ecs.UpdateContainerInstancesStateInput{ContainerInstances: []string{*ci.ContainerInstanceArn}, Status: "DRAINING"})
	must(p, p.deregisterContainerInstance, &ecs.DeregisterContainerInstanceInput{ContainerInstance: ci.ContainerInstanceArn})
	if back := must(p, p.registerContainerInstance, again).ContainerInstance; *back.Status != "ACTIVE" || *back.ContainerInstanceArn != *ci.ContainerInstanceArn {
		t.Errorf("back: %+v", back)
	}

	call := *api.CallFrom(p.ctx())
	call.Host = "localhost:4566"
	d, err := p.discoverPollEndpoint(api.WithCall(p.ctx(), &call), &ecs.DiscoverPollEndpointInput{ContainerInstance: ci.ContainerInstanceArn})
	if err != nil || *d.Endpoint != "http://localhost:4566/v1/ecs-agent/poll/" ||
		*d.TelemetryEndpoint != "http://localhost:4566/v1/ecs-agent/telemetry/" {
		t.Errorf("endpoints %s, %s", *d.Endpoint, *d.TelemetryEndpoint)
	}
	if out := must(p, p.startTask, &ecs.StartTaskInput{ContainerInstances: []string{*ci.ContainerInstanceArn}, TaskDefinition: aws.String("web:1")}); len(out.Tasks) != 0 || *out.Failures[0].Reason != "AGENT" {
		t.Errorf("without a connection: %+v", out)
	}
}

// An agent that was lost until it was forgotten knows its instance by the name that it had, and takes no other.
func TestRegisterForgottenContainerInstance(t *testing.T) {
	p := world(t)
	first := must(p, p.registerContainerInstance, amazonHost()).ContainerInstance
	p.change(func(tx *state.Tx) {
		for ci := range controlplane.ContainerInstances.Scan(tx, here.Key("default")) {
			if ci.ARN() == *first.ContainerInstanceArn {
				controlplane.ContainerInstances.Delete(tx, controlplane.ContainerInstances.Key(ci))
				controlplane.Nodes.Delete(tx, state.K(ci.Node))
			}
		}
	})
	again := amazonHost()
	again.ContainerInstanceArn = first.ContainerInstanceArn
	for range 2 { // it is told the same when it asks again
		second := must(p, p.registerContainerInstance, again).ContainerInstance
		if *second.ContainerInstanceArn != *first.ContainerInstanceArn || *second.Status != "ACTIVE" || second.RegisteredResources[0].IntegerValue != 2048 {
			t.Errorf("again: %+v", second)
		}
	}
	if list := must(p, p.listContainerInstances, &ecs.ListContainerInstancesInput{Filter: aws.String("agentConnected == false")}); len(list.ContainerInstanceArns) != 1 {
		t.Errorf("listed %v", list.ContainerInstanceArns)
	}
}

func TestRegisterContainerInstanceRefuses(t *testing.T) {
	p := world(t)
	known := must(p, p.registerContainerInstance, amazonHost()).ContainerInstance
	for name, c := range map[string]struct {
		change  func(in *ecs.RegisterContainerInstanceInput)
		code    string
		message string
	}{
		"no cluster":   {func(in *ecs.RegisterContainerInstanceInput) { in.Cluster = aws.String("nowhere") }, "ClusterNotFoundException", "Cluster not found."},
		"gone":         {func(in *ecs.RegisterContainerInstanceInput) { in.Cluster = aws.String("gone") }, "ClusterNotFoundException", "The referenced cluster was inactive."},
		"no resources": {func(in *ecs.RegisterContainerInstanceInput) { in.TotalResources = nil }, "InvalidParameterException", "totalResources must have CPU and MEMORY."},
		"unknown":      {func(in *ecs.RegisterContainerInstanceInput) { in.TotalResources[0].Name = aws.String("DISK") }, "InvalidParameterException", "The resource DISK is not one of [CPU, MEMORY, PORTS, PORTS_UDP, GPU, NEURON_CORES]."},
		"twice":        {func(in *ecs.RegisterContainerInstanceInput) { in.TotalResources[0] = in.TotalResources[1] }, "InvalidParameterException", "The resource MEMORY is given more than once."},
		"type":         {func(in *ecs.RegisterContainerInstanceInput) { in.TotalResources[0].Type = aws.String("LONG") }, "InvalidParameterException", "The type of the resource CPU must be INTEGER."},
		"negative":     {func(in *ecs.RegisterContainerInstanceInput) { in.TotalResources[1].IntegerValue = -1 }, "InvalidParameterException", "The integer value of the resource MEMORY must not be negative."},
		"port":         {func(in *ecs.RegisterContainerInstanceInput) { in.TotalResources[2].StringSetValue = []string{"0"} }, "InvalidParameterException", "The resource PORTS has '0', which is not a port."},
		"attribute":    {func(in *ecs.RegisterContainerInstanceInput) { in.Attributes[0].Name = aws.String("a b") }, "InvalidParameterException", "Attribute name 'a b' is invalid: it must have between 1 and 128 letters, numbers, hyphens, underscores, slashes or periods."},
		"document":     {func(in *ecs.RegisterContainerInstanceInput) { in.InstanceIdentityDocument = aws.String("{") }, "ClientException", "The instance identity document is not a document of EC2."},
		"address": {func(in *ecs.RegisterContainerInstanceInput) {
			in.InstanceIdentityDocument = aws.String(`{"privateIp":"example.com"}`)
		}, "ClientException", "The instance identity document is not a document of EC2."},
		"tag": {func(in *ecs.RegisterContainerInstanceInput) { in.Tags = append(in.Tags, in.Tags[0]) }, "InvalidParameterException", ""},
		"not there": {func(in *ecs.RegisterContainerInstanceInput) {
			in.ContainerInstanceArn = aws.String(here.ContainerInstanceARN("default", "none"))
		}, "InvalidParameterException", "The referenced container instance was not found."},
		"of another one": {func(in *ecs.RegisterContainerInstanceInput) {
			in.ContainerInstanceArn, in.Cluster = known.ContainerInstanceArn, aws.String("empty")
		}, "InvalidParameterException", "Invalid identifier: Identifier is for cluster default. Your cluster is empty"},
		"our own agent's": {func(in *ecs.RegisterContainerInstanceInput) {
			in.ContainerInstanceArn = aws.String(here.ContainerInstanceARN("default", "0123456789abcdef0123456789abcdef"))
		},
			"InvalidParameterException", "The container instance 0123456789abcdef0123456789abcdef was not registered by RegisterContainerInstance."},
		"another type": {func(in *ecs.RegisterContainerInstanceInput) {
			in.ContainerInstanceArn, in.InstanceIdentityDocument = known.ContainerInstanceArn, aws.String(`{"instanceType":"m5.large"}`)
		}, "ClientException", ""},
	} {
		in := amazonHost()
		c.change(in)
		_, err := p.registerContainerInstance(p.ctx(), in)
		if e, ok := awserr.As(err); !ok || e.Code != c.code || c.message != "" && e.Message != c.message {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := p.discoverPollEndpoint(p.ctx(), &ecs.DiscoverPollEndpointInput{ContainerInstance: aws.String("none")}); err == nil {
		t.Error("an endpoint for an instance that is not there")
	}
}
