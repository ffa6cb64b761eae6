package ecs

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
)

// TestShapesAreComplete holds what is described against the example responses of the ECS API reference: whatever they show is
// there. false and 0 are not looked for. What they show and we do not have: an elastic network interface's id, MAC
// address and DNS name, and the hash of AWS's agent.
func TestShapesAreComplete(t *testing.T) {
	p := world(t)
	ec2 := must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web"), StartedBy: aws.String("me")}).Tasks[0].TaskArn
	fargate := must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("vpc"), LaunchType: "FARGATE", NetworkConfiguration: subnet()}).Tasks[0].TaskArn
	p.report("default", agentapi.TaskState_RUNNING)
	running := p.describeTask(ec2)
	apart := p.describeTask(fargate)
	must(p, p.stopTask, &ecs.StopTaskInput{Task: ec2})
	p.report("default", agentapi.TaskState_STOPPED)
	stopped := p.describeTask(ec2)
	instance := must(p, p.describeContainerInstances, &ecs.DescribeContainerInstancesInput{ContainerInstances: []string{*stopped.ContainerInstanceArn}}).ContainerInstances[0]
	cluster := must(p, p.describeClusters, &ecs.DescribeClustersInput{}).Clusters[0]
	service := p.describeService("active")

	const task = "attachments attributes availabilityZone clusterArn connectivity containers cpu createdAt desiredStatus group healthStatus " +
		"lastStatus launchType memory overrides.containerOverrides overrides.inferenceAcceleratorOverrides tags taskArn taskDefinitionArn version "
	const container = "containerArn cpu healthStatus image imageDigest lastStatus name networkBindings networkInterfaces runtimeId taskArn "
	for _, c := range []struct {
		name, members string
		shape         any
	}{
		{"task on an instance", task + "containerInstanceArn startedBy", running},
		{"its container", container + "memory", running.Containers[0]},
		{"its port", "bindIP containerPort hostPort protocol", running.Containers[0].NetworkBindings[0]},
		{"task on Fargate", task + "ephemeralStorage platformFamily platformVersion", apart},
		{"its attachment", "details id status type", apart.Attachments[0]},
		{"its container", container, apart.Containers[0]},
		{"its container's interface", "attachmentId ipv6Address privateIpv4Address", apart.Containers[0].NetworkInterfaces[0]},
		{"stopped task", task + "stopCode stoppedAt stoppedReason stoppingAt", stopped},
		{"its container", container + "exitCode", stopped.Containers[0]},
		{"container instance", "attachments attributes containerInstanceArn registeredResources remainingResources status tags version versionInfo.agentVersion agentConnected", instance},
		{"cluster", "activeServicesCount capacityProviders clusterArn clusterName defaultCapacityProviderStrategy registeredContainerInstancesCount settings statistics status tags", cluster},
		{"service", "clusterArn createdAt createdBy deploymentConfiguration.deploymentCircuitBreaker deploymentConfiguration.maximumPercent " +
			"deploymentConfiguration.minimumHealthyPercent deploymentController.type deployments desiredCount events launchType loadBalancers " +
			"placementConstraints placementStrategy propagateTags schedulingStrategy serviceArn serviceName serviceRegistries status tags taskDefinition", service},
		{"its deployment", "createdAt desiredCount id launchType rolloutState rolloutStateReason status taskDefinition updatedAt", service.Deployments[0]},
	} {
		var have map[string]any
		if err := json.Unmarshal([]byte(controlplane.EncodeShape(c.shape)), &have); err != nil {
			t.Fatal(err)
		}
		for _, m := range strings.Fields(c.members) {
			outer, inner, nested := strings.Cut(m, ".")
			v, ok := have[outer]
			if nested && ok {
				_, ok = v.(map[string]any)[inner]
			}
			if !ok {
				t.Errorf("%s: %s is missing", c.name, m)
			}
		}
	}
	if running.HealthStatus != types.HealthStatusHealthy || running.Containers[0].HealthStatus != types.HealthStatusHealthy {
		t.Errorf("health is %s, the container's %s", running.HealthStatus, running.Containers[0].HealthStatus)
	}
	for _, list := range [][]types.Resource{instance.RegisteredResources, instance.RemainingResources} {
		var names []string
		for _, r := range list {
			names = append(names, *r.Name+" "+*r.Type)
		}
		if got := strings.Join(names, ", "); got != "CPU INTEGER, MEMORY INTEGER, PORTS STRINGSET, PORTS_UDP STRINGSET" {
			t.Errorf("resources are %s", got)
		}
	}
	if cluster.RunningTasksCount != 0 || cluster.PendingTasksCount != 0 || cluster.ActiveServicesCount != 1 || cluster.RegisteredContainerInstancesCount != 1 {
		t.Errorf("the cluster counts %+v", cluster)
	}
}
