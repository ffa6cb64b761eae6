package ecs

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/id"
)

func (p *platform) describeService(name string) types.Service {
	p.t.Helper()
	out := must(p, p.describeServices, &ecs.DescribeServicesInput{Services: []string{name}})
	if len(out.Services) != 1 {
		p.t.Fatalf("got failures %+v", out.Failures)
	}
	return out.Services[0]
}

// reconcile does what the orchestrator would: as many tasks of the primary deployment as it wants, all running, none of others.
func (p *platform) reconcile(name string) {
	p.change(func(tx *state.Tx) {
		svc, _ := controlplane.Services.Get(tx, here.Key("default", name))
		for st := range controlplane.LiveTasksByService.Scan(tx, here.Key("default", name)) {
			next, _ := st.AdvanceLost("ServiceSchedulerInitiated", "replaced", p.now)
			controlplane.TaskStatuses.Put(tx, next)
		}
		for d := range controlplane.Deployments.Scan(tx, here.Key("default", name)) {
			d = proto.CloneOf(d)
			if d.Id != svc.PrimaryDeployment {
				d.Status = inactive
			}
			controlplane.Deployments.Put(tx, d)
		}
		for range svc.DesiredCount {
			controlplane.CreateTask(tx, &controlplane.Task{
				Account: here.Account, Region: here.Region, Cluster: "default", Id: string(id.UUIDOf(p.now.String() + time.Now().String())), Service: name,
				TaskDefinition: svc.TaskDefinition, Deployment: svc.PrimaryDeployment, Group: "service:" + name, LaunchType: svc.LaunchType,
			}, nil)
		}
	})
	p.report("default", agentapi.TaskState_RUNNING)
}

// stable is what the waiter services-stable asks.
func stable(s types.Service) bool {
	return *s.Status == active && len(s.Deployments) == 1 && s.RunningCount == s.DesiredCount
}

func TestServiceLife(t *testing.T) {
	p := world(t)
	create := &ecs.CreateServiceInput{
		ServiceName: aws.String("s"), TaskDefinition: aws.String("web"), DesiredCount: aws.Int32(2), HealthCheckGracePeriodSeconds: aws.Int32(7),
		LoadBalancers: []types.LoadBalancer{{TargetGroupArn: aws.String(groupARN + "instance/1"), ContainerName: aws.String("web"), ContainerPort: aws.Int32(3000)}},
		Tags:          []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}},
	}
	made := *must(p, p.createService, create).Service
	if stable(made) || made.DesiredCount != 2 || len(made.Deployments) != 1 || made.Deployments[0].RolloutState != "IN_PROGRESS" || *made.Deployments[0].Status != "PRIMARY" ||
		*made.DeploymentConfiguration.MaximumPercent != 200 || *made.DeploymentConfiguration.MinimumHealthyPercent != 100 || *made.HealthCheckGracePeriodSeconds != 7 ||
		made.LaunchType != "EC2" || made.SchedulingStrategy != "REPLICA" || len(made.Tags) != 1 || made.Events == nil {
		t.Errorf("created as %+v", made)
	}
	if again := must(p, p.createService, create).Service; *again.Deployments[0].Id != *made.Deployments[0].Id {
		t.Error("creating it again began another deployment")
	}
	p.reconcile("s")
	if s := p.describeService("s"); !stable(s) || s.Deployments[0].RunningCount != 2 {
		t.Errorf("is not stable: %+v", s)
	}

	// A desired count alone continues the deployment.
	scaled := *must(p, p.updateService, &ecs.UpdateServiceInput{Service: aws.String("s"), DesiredCount: aws.Int32(3)}).Service
	if len(scaled.Deployments) != 1 || scaled.Deployments[0].DesiredCount != 3 || *scaled.Deployments[0].Id != *made.Deployments[0].Id || stable(scaled) {
		t.Errorf("scaled as %+v", scaled.Deployments)
	}
	p.reconcile("s")

	// Another task definition is another deployment; the one before stays ACTIVE until it is replaced.
	p.now = p.now.Add(time.Minute)
	must(p, p.registerTaskDefinition, webDefinition())
	rolled := *must(p, p.updateService, &ecs.UpdateServiceInput{Service: aws.String(here.ServiceARN("default", "s")), TaskDefinition: aws.String("web")}).Service
	var deployments []string
	for _, d := range rolled.Deployments {
		deployments = append(deployments, *d.Status+" "+*d.TaskDefinition)
	}
	want := []string{"PRIMARY " + here.TaskDefinitionARN("web:2"), "ACTIVE " + here.TaskDefinitionARN("web:1")}
	if diff := cmp.Diff(want, deployments); diff != "" || stable(rolled) {
		t.Error(diff)
	}
	if rolled.Deployments[0].RunningCount != 0 || rolled.Deployments[1].RunningCount != 3 || rolled.RunningCount != 3 {
		t.Errorf("counts %d of %d and %d", rolled.RunningCount, rolled.Deployments[0].RunningCount, rolled.Deployments[1].RunningCount)
	}
	p.reconcile("s")
	if !stable(p.describeService("s")) {
		t.Error("is not stable after the rollout")
	}
	same := must(p, p.updateService, &ecs.UpdateServiceInput{Service: aws.String("s"), TaskDefinition: aws.String("web:2")}).Service
	if len(same.Deployments) != 1 {
		t.Error("an update that changes nothing began a deployment")
	}
	forced := must(p, p.updateService, &ecs.UpdateServiceInput{Service: aws.String("s"), ForceNewDeployment: true}).Service
	if len(forced.Deployments) != 2 {
		t.Error("forceNewDeployment began none")
	}

	deleted := must(p, p.deleteService, &ecs.DeleteServiceInput{Service: aws.String("s"), Force: aws.Bool(true)}).Service
	if *deleted.Status != "DRAINING" || deleted.DesiredCount != 0 || deleted.Deployments[0].DesiredCount != 0 {
		t.Errorf("deleted as %+v", deleted)
	}
}

// TestRecreateService: the name of an INACTIVE service is free, and nothing of the old one shows.
func TestRecreateService(t *testing.T) {
	p := world(t)
	if s := p.describeService("inactive"); *s.Status != "INACTIVE" {
		t.Errorf("got %s", *s.Status)
	}
	s := must(p, p.createService, &ecs.CreateServiceInput{ServiceName: aws.String("inactive"), TaskDefinition: aws.String("web"), DesiredCount: aws.Int32(1)}).Service
	if *s.Status != "ACTIVE" || len(s.Deployments) != 1 || len(s.Tags) != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestUpdateKeepsWhatIsLeftOut(t *testing.T) {
	p := world(t)
	must(p, p.createService, &ecs.CreateServiceInput{
		ServiceName: aws.String("f"), TaskDefinition: aws.String("vpc"), LaunchType: "FARGATE", DesiredCount: aws.Int32(1), NetworkConfiguration: subnet(),
		DeploymentConfiguration: &types.DeploymentConfiguration{MaximumPercent: aws.Int32(150)},
		ServiceRegistries:       []types.ServiceRegistry{{RegistryArn: aws.String("a")}},
	})
	s := must(p, p.updateService, &ecs.UpdateServiceInput{Service: aws.String("f"), DeploymentConfiguration: &types.DeploymentConfiguration{MinimumHealthyPercent: aws.Int32(50)}}).Service
	if *s.DeploymentConfiguration.MaximumPercent != 150 || *s.DeploymentConfiguration.MinimumHealthyPercent != 50 || s.LaunchType != "FARGATE" ||
		s.NetworkConfiguration.AwsvpcConfiguration.Subnets[0] != "subnet-1" || len(s.ServiceRegistries) != 1 || *s.PlatformVersion != "LATEST" || *s.Deployments[0].PlatformVersion != "1.4.0" {
		t.Errorf("got %+v", s)
	}
	if len(s.Deployments) != 1 {
		t.Error("percentages alone began a deployment")
	}
	s = must(p, p.updateService, &ecs.UpdateServiceInput{Service: aws.String("f"), ServiceRegistries: []types.ServiceRegistry{}}).Service
	if len(s.ServiceRegistries) != 0 || len(s.Deployments) != 2 {
		t.Errorf("an empty list of registries left %+v in %d deployments", s.ServiceRegistries, len(s.Deployments))
	}
}

// TestEmptyLists: emptying what is empty changes nothing, above all not the launch type.
func TestEmptyLists(t *testing.T) {
	p := world(t)
	must(p, p.createService, &ecs.CreateServiceInput{
		ServiceName: aws.String("f"), TaskDefinition: aws.String("vpc"), LaunchType: "FARGATE", DesiredCount: aws.Int32(1), NetworkConfiguration: subnet(),
	})
	for _, name := range []string{"active", "f"} {
		before := p.describeService(name)
		after := must(p, p.updateService, &ecs.UpdateServiceInput{
			Service: &name, CapacityProviderStrategy: []types.CapacityProviderStrategyItem{}, LoadBalancers: []types.LoadBalancer{},
			ServiceRegistries: []types.ServiceRegistry{}, PlacementConstraints: []types.PlacementConstraint{}, PlacementStrategy: []types.PlacementStrategy{},
		}).Service
		if len(after.Deployments) != 1 || after.LaunchType != before.LaunchType {
			t.Errorf("%s: %d deployments, launch type %s", name, len(after.Deployments), after.LaunchType)
		}
	}
	must(p, p.putClusterCapacityProviders, &ecs.PutClusterCapacityProvidersInput{Cluster: aws.String("default"), CapacityProviders: []string{"FARGATE", "FARGATE_SPOT"}})
	to := must(p, p.updateService, &ecs.UpdateServiceInput{
		Service: aws.String("f"), CapacityProviderStrategy: []types.CapacityProviderStrategyItem{{CapacityProvider: aws.String("FARGATE_SPOT"), Weight: 1}},
	}).Service
	if len(to.Deployments) != 2 || to.LaunchType != "" || *to.CapacityProviderStrategy[0].CapacityProvider != "FARGATE_SPOT" {
		t.Errorf("a strategy in place of a launch type made %+v", to)
	}
}

func TestCircuitBreaker(t *testing.T) {
	p := world(t)
	s := must(p, p.createService, &ecs.CreateServiceInput{
		ServiceName: aws.String("s"), TaskDefinition: aws.String("web"), DesiredCount: aws.Int32(1),
		DeploymentConfiguration: &types.DeploymentConfiguration{DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{Enable: true, Rollback: true}},
	}).Service
	want := types.DeploymentCircuitBreaker{Enable: true, Rollback: true}
	if *s.DeploymentConfiguration.DeploymentCircuitBreaker != want {
		t.Errorf("created with %+v", s.DeploymentConfiguration.DeploymentCircuitBreaker)
	}
	s = must(p, p.updateService, &ecs.UpdateServiceInput{Service: aws.String("s"), DeploymentConfiguration: &types.DeploymentConfiguration{MaximumPercent: aws.Int32(150)}}).Service
	if *s.DeploymentConfiguration.DeploymentCircuitBreaker != want || len(s.Deployments) != 1 {
		t.Errorf("another percentage left %+v in %d deployments", s.DeploymentConfiguration.DeploymentCircuitBreaker, len(s.Deployments))
	}
}

// An older build that changes a service keeps what a newer one has written into its shapes.
func TestUpdateServiceKeepsUnknownMembers(t *testing.T) {
	p := world(t)
	must(p, p.createService, &ecs.CreateServiceInput{ServiceName: aws.String("s"), TaskDefinition: aws.String("web"), DesiredCount: aws.Int32(1)})
	key := here.Key("default", "s")
	if _, err := p.Store.Update(p.ctx(), func(tx *state.Tx) error {
		s, _ := controlplane.Services.Get(tx, key)
		s = proto.CloneOf(s)
		s.DeploymentConfigurationJson = `{"maximumPercent":200,"newer":[1,2]}`
		controlplane.Services.Put(tx, s)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	must(p, p.updateService, &ecs.UpdateServiceInput{Service: aws.String("s"), DeploymentConfiguration: &types.DeploymentConfiguration{MaximumPercent: aws.Int32(150)}})
	s, _ := controlplane.Services.Get(p.Store.View(), key)
	if want := `{"maximumPercent":150,"newer":[1,2]}`; s.DeploymentConfigurationJson != want {
		t.Errorf("got %s, want %s", s.DeploymentConfigurationJson, want)
	}
}

func TestServiceClientToken(t *testing.T) {
	p := world(t)
	in := &ecs.CreateServiceInput{ServiceName: aws.String("s"), TaskDefinition: aws.String("web"), DesiredCount: aws.Int32(1), ClientToken: aws.String("token")}
	must(p, p.createService, in)
	must(p, p.updateService, &ecs.UpdateServiceInput{Service: aws.String("s"), DesiredCount: aws.Int32(5)})
	if s := must(p, p.createService, in).Service; s.DesiredCount != 5 {
		t.Errorf("the same request again answered with %d tasks", s.DesiredCount)
	}
	in.DesiredCount = aws.Int32(2)
	if _, err := p.createService(p.ctx(), in); err == nil {
		t.Error("another request with the same token was taken for the same")
	}
}

func TestListAndDescribeServices(t *testing.T) {
	p := world(t)
	out := must(p, p.listServices, &ecs.ListServicesInput{})
	if diff := cmp.Diff([]string{here.ServiceARN("default", "active"), here.ServiceARN("default", "draining")}, out.ServiceArns); diff != "" {
		t.Error(diff)
	}
	if fargate := must(p, p.listServices, &ecs.ListServicesInput{LaunchType: "FARGATE"}).ServiceArns; len(fargate) != 0 || fargate == nil {
		t.Errorf("got %v", fargate)
	}
	described := must(p, p.describeServices, &ecs.DescribeServicesInput{Services: []string{"active", "nothing", here.ServiceARN("default", "draining")}})
	if len(described.Services) != 2 || len(described.Failures) != 1 || *described.Failures[0].Reason != "MISSING" || *described.Failures[0].Arn != here.ServiceARN("default", "nothing") {
		t.Errorf("got %d services, failures %+v", len(described.Services), described.Failures)
	}
}
