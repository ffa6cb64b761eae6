package ecs

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
)

func TestCreateCluster(t *testing.T) {
	p := newPlatform(t)
	made := must(p, p.createCluster, &ecs.CreateClusterInput{}).Cluster
	if *made.ClusterArn != "arn:aws:ecs:us-east-1:000000000000:cluster/default" || *made.Status != "ACTIVE" {
		t.Errorf("got %s, %s", *made.ClusterArn, *made.Status)
	}
	in := &ecs.CreateClusterInput{
		ClusterName: aws.String("a"), CapacityProviders: []string{"FARGATE"},
		DefaultCapacityProviderStrategy: []types.CapacityProviderStrategyItem{{CapacityProvider: aws.String("FARGATE"), Weight: 1}},
		Tags:                            []types.Tag{{Key: aws.String("team"), Value: aws.String("x")}},
	}
	first, again := must(p, p.createCluster, in).Cluster, must(p, p.createCluster, &ecs.CreateClusterInput{ClusterName: aws.String("a")}).Cluster
	if len(again.CapacityProviders) != 1 || len(again.Tags) != 1 || *again.ClusterArn != *first.ClusterArn {
		t.Errorf("creating it again changed it: %+v", again)
	}
}

func TestListClusters(t *testing.T) {
	p := newPlatform(t)
	var want []string
	for i := range 5 {
		name := fmt.Sprint("c", i)
		must(p, p.createCluster, &ecs.CreateClusterInput{ClusterName: &name})
		want = append(want, here.ClusterARN(name))
	}
	must(p, p.createCluster, &ecs.CreateClusterInput{ClusterName: aws.String("c9")})
	must(p, p.deleteCluster, &ecs.DeleteClusterInput{Cluster: aws.String("c9")})
	var got []string
	in := &ecs.ListClustersInput{MaxResults: aws.Int32(2)}
	for pages := 0; ; pages++ {
		out := must(p, p.listClusters, in)
		got = append(got, out.ClusterArns...)
		if in.NextToken = out.NextToken; in.NextToken == nil {
			if pages != 2 {
				t.Errorf("got %d pages", pages+1)
			}
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestAccountsAndRegions: nobody sees what is elsewhere.
func TestAccountsAndRegions(t *testing.T) {
	p := world(t)
	for _, other := range []controlplane.Scope{{Account: "111111111111", Region: "us-east-1"}, {Account: "000000000000", Region: "eu-west-1"}} {
		ctx := p.as(other)
		clusters, err := p.listClusters(ctx, &ecs.ListClustersInput{})
		if err != nil || len(clusters.ClusterArns) != 0 {
			t.Errorf("%v sees clusters %v, error %v", other, clusters.ClusterArns, err)
		}
		definitions, err := p.listTaskDefinitions(ctx, &ecs.ListTaskDefinitionsInput{})
		if err != nil || len(definitions.TaskDefinitionArns) != 0 {
			t.Errorf("%v sees task definitions %v, error %v", other, definitions.TaskDefinitionArns, err)
		}
		for _, ref := range []string{here.ClusterARN("default"), "default"} {
			if out, err := p.listServices(ctx, &ecs.ListServicesInput{Cluster: &ref}); err == nil {
				t.Errorf("%v sees services %v of %s", other, out.ServiceArns, ref)
			}
		}
		if _, err := p.createCluster(ctx, &ecs.CreateClusterInput{}); err != nil {
			t.Error(err)
		}
		if out, err := p.describeServices(ctx, &ecs.DescribeServicesInput{Services: []string{"active"}}); err != nil || len(out.Services) != 0 {
			t.Errorf("%v sees services %v, error %v", other, out, err)
		}
	}
}

func TestDescribeClusters(t *testing.T) {
	p := world(t)
	must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web"), Count: aws.Int32(2)})
	must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("vpc"), LaunchType: types.LaunchTypeFargate, NetworkConfiguration: subnet()})
	p.report("default", agentapi.TaskState_RUNNING)
	must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web")})
	out := must(p, p.describeClusters, &ecs.DescribeClustersInput{
		Clusters: []string{"default", here.ClusterARN("gone"), "nowhere"}, Include: []types.ClusterField{types.ClusterFieldStatistics},
	})
	if len(out.Clusters) != 2 || *out.Clusters[1].Status != "INACTIVE" {
		t.Fatalf("got %+v", out.Clusters)
	}
	if len(out.Failures) != 1 || *out.Failures[0].Reason != "MISSING" || *out.Failures[0].Arn != here.ClusterARN("nowhere") {
		t.Errorf("got failures %+v", out.Failures)
	}
	c := out.Clusters[0]
	if c.RunningTasksCount != 3 || c.PendingTasksCount != 1 || c.RegisteredContainerInstancesCount != 1 || c.ActiveServicesCount != 1 {
		t.Errorf("got %d running, %d pending, %d instances, %d services", c.RunningTasksCount, c.PendingTasksCount, c.RegisteredContainerInstancesCount, c.ActiveServicesCount)
	}
	statistics := map[string]string{}
	for _, s := range c.Statistics {
		statistics[*s.Name] = *s.Value
	}
	for name, want := range map[string]string{
		"runningEC2TasksCount": "2", "runningFargateTasksCount": "1", "pendingEC2TasksCount": "1", "activeEC2ServiceCount": "1", "drainingEC2ServiceCount": "1",
	} {
		if statistics[name] != want {
			t.Errorf("%s is %q, want %s", name, statistics[name], want)
		}
	}
}
