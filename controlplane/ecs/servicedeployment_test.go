package ecs

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// tasksOf gives the service tasks of its present deployment, which run.
func (p *platform) tasksOf(service string, n int) {
	p.t.Helper()
	p.change(func(tx *state.Tx) {
		svc, _ := controlplane.Services.Get(tx, here.Key("default", service))
		for i := range n {
			controlplane.CreateTask(tx, &controlplane.Task{Account: here.Account, Region: here.Region, Cluster: "default", Id: fmt.Sprintf("%s-%s-%d", service, controlplane.RevisionID(svc.PrimaryDeployment), i),
				TaskDefinition: svc.TaskDefinition, Service: service, Deployment: svc.PrimaryDeployment, LaunchType: "EC2", Demand: &controlplane.Demand{}}, nil)
		}
	})
	p.report("default", agentapi.TaskState_RUNNING)
}

func (p *platform) describeDeployment(arn *string) types.ServiceDeployment {
	p.t.Helper()
	out := must(p, p.describeServiceDeployments, &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{*arn}})
	if len(out.ServiceDeployments) != 1 || len(out.Failures) != 0 {
		p.t.Fatalf("%s: %+v", *arn, out)
	}
	return out.ServiceDeployments[0]
}

// TestServiceDeployments: a release says what it makes of what, while it is under way as things stand; DescribeServices leads to it.
func TestServiceDeployments(t *testing.T) {
	p := world(t)
	breaker := &types.DeploymentConfiguration{DeploymentCircuitBreaker: &types.DeploymentCircuitBreaker{Enable: true, Rollback: true}}
	made := must(p, p.createService, &ecs.CreateServiceInput{ServiceName: aws.String("s"), TaskDefinition: aws.String("web"), DesiredCount: aws.Int32(2), DeploymentConfiguration: breaker}).Service
	number := strings.TrimPrefix(*made.Deployments[0].Id, "ecs-svc/")
	revision := "arn:aws:ecs:us-east-1:000000000000:service-revision/default/s/" + number
	if !strings.HasPrefix(*made.CurrentServiceDeployment, "arn:aws:ecs:us-east-1:000000000000:service-deployment/default/s/") ||
		len(made.CurrentServiceRevisions) != 1 || *made.CurrentServiceRevisions[0].Arn != revision || made.CurrentServiceRevisions[0].RequestedTaskCount != 2 {
		t.Errorf("the service leads to %s, %+v", *made.CurrentServiceDeployment, made.CurrentServiceRevisions)
	}
	first := p.describeDeployment(made.CurrentServiceDeployment)
	if first.Status != types.ServiceDeploymentStatusInProgress || len(first.SourceServiceRevisions) != 0 || *first.TargetServiceRevision.Arn != revision || first.StartedAt == nil || first.FinishedAt != nil ||
		*first.ServiceArn != here.ServiceARN("default", "s") || *first.ClusterArn != here.ClusterARN("default") || first.Rollback != nil || first.Alarms != nil {
		t.Errorf("the first release: %+v", first)
	}
	if b := first.DeploymentCircuitBreaker; b.Status != types.ServiceDeploymentRollbackMonitorsStatusMonitoring || b.FailureCount != 0 || b.Threshold != 3 {
		t.Errorf("its circuit breaker: %+v", b)
	}
	if c := first.DeploymentConfiguration; *c.MinimumHealthyPercent != 100 || *c.MaximumPercent != 200 || !c.DeploymentCircuitBreaker.Rollback {
		t.Errorf("its configuration: %+v", c)
	}
	p.tasksOf("s", 2)
	if n := p.describeDeployment(made.CurrentServiceDeployment).TargetServiceRevision; n.RequestedTaskCount != 2 || n.RunningTaskCount != 2 || n.PendingTaskCount != 0 {
		t.Errorf("its tasks: %+v", n)
	}

	p.now = p.now.Add(time.Second)
	changed := must(p, p.updateService, &ecs.UpdateServiceInput{Service: aws.String("s"), ForceNewDeployment: true}).Service
	second := p.describeDeployment(changed.CurrentServiceDeployment)
	if len(second.SourceServiceRevisions) != 1 || *second.SourceServiceRevisions[0].Arn != revision || second.SourceServiceRevisions[0].RunningTaskCount != 2 || second.SourceServiceRevisions[0].RequestedTaskCount != 2 {
		t.Errorf("it replaces %+v", second.SourceServiceRevisions)
	}
	if len(changed.CurrentServiceRevisions) != 2 || *changed.CurrentServiceRevisions[0].Arn != *second.TargetServiceRevision.Arn || *changed.CurrentServiceRevisions[1].Arn != revision {
		t.Errorf("the service has %+v", changed.CurrentServiceRevisions)
	}
	if d := p.describeDeployment(made.CurrentServiceDeployment); d.Status != types.ServiceDeploymentStatusStopped || d.StoppedAt == nil || d.FinishedAt == nil || *d.StatusReason == "" {
		t.Errorf("the first release, which the second one ended: %+v", d)
	}
	if scaled := must(p, p.updateService, &ecs.UpdateServiceInput{Service: aws.String("s"), DesiredCount: aws.Int32(9)}).Service; *scaled.CurrentServiceDeployment != *changed.CurrentServiceDeployment {
		t.Error("another count is another release")
	} else if d := p.describeDeployment(scaled.CurrentServiceDeployment); d.DeploymentCircuitBreaker.Threshold != 5 || d.TargetServiceRevision.RequestedTaskCount != 9 {
		t.Errorf("with another count: %+v", d)
	}

	out := must(p, p.describeServiceRevisions, &ecs.DescribeServiceRevisionsInput{ServiceRevisionArns: []string{revision, revision + "0"}})
	if len(out.ServiceRevisions) != 1 || len(out.Failures) != 1 || *out.Failures[0].Arn != revision+"0" || *out.Failures[0].Reason != "MISSING" {
		t.Fatalf("revisions %+v", out)
	}
	if r := out.ServiceRevisions[0]; *r.TaskDefinition != here.TaskDefinitionARN("web:1") || r.LaunchType != types.LaunchTypeEc2 || *r.ServiceRevisionArn != revision ||
		len(r.ContainerImages) != 1 || *r.ContainerImages[0].ContainerName != "web" || *r.ContainerImages[0].Image != "web:1" || r.CreatedAt == nil {
		t.Errorf("the revision: %+v", r)
	}
}

func TestListServiceDeployments(t *testing.T) {
	p := world(t)
	must(p, p.createService, &ecs.CreateServiceInput{ServiceName: aws.String("s"), TaskDefinition: aws.String("web"), DesiredCount: aws.Int32(0)})
	for range controlplane.ServiceDeploymentsKept + 3 { // the oldest are forgotten
		p.now = p.now.Add(time.Second)
		must(p, p.updateService, &ecs.UpdateServiceInput{Service: aws.String("s"), ForceNewDeployment: true})
		p.change(func(tx *state.Tx) { // as the orchestrator does
			for _, d := range slices.Collect(controlplane.Deployments.Scan(tx, here.Key("default", "s"))) {
				if d.Status != primary {
					controlplane.Deployments.Delete(tx, controlplane.Deployments.Key(d))
				}
			}
		})
	}
	var all []types.ServiceDeploymentBrief
	in := &ecs.ListServiceDeploymentsInput{Service: aws.String("s")}
	for pages := 1; ; pages++ {
		out := must(p, p.listServiceDeployments, in)
		all = append(all, out.ServiceDeployments...)
		if in.NextToken = out.NextToken; in.NextToken == nil {
			if pages != 5 {
				t.Errorf("%d pages", pages)
			}
			break
		}
	}
	if len(all) != controlplane.ServiceDeploymentsKept || !slices.IsSortedFunc(all, func(a, b types.ServiceDeploymentBrief) int { return b.CreatedAt.Compare(*a.CreatedAt) }) {
		t.Errorf("%d releases, in order: %v", len(all), all[0].CreatedAt)
	}
	revisions := 0
	for range controlplane.ServiceRevisions.Scan(p.Store.View(), here.Key("default", "s")) {
		revisions++
	}
	if revisions != controlplane.ServiceDeploymentsKept+1 { // the oldest one's source
		t.Errorf("%d revisions are kept", revisions)
	}
	count := func(in *ecs.ListServiceDeploymentsInput) int {
		t.Helper()
		in.Service, in.MaxResults = aws.String(here.ServiceARN("default", "s")), aws.Int32(100)
		return len(must(p, p.listServiceDeployments, in).ServiceDeployments)
	}
	if n := count(&ecs.ListServiceDeploymentsInput{Status: []types.ServiceDeploymentStatus{types.ServiceDeploymentStatusInProgress, types.ServiceDeploymentStatusSuccessful}}); n != 1 {
		t.Errorf("%d are under way or successful", n)
	}
	if n := count(&ecs.ListServiceDeploymentsInput{CreatedAt: &types.CreatedAt{After: aws.Time(p.now.Add(-3 * time.Second)), Before: aws.Time(p.now)}}); n != 2 {
		t.Errorf("%d began between", n)
	}
}

func TestStopServiceDeployment(t *testing.T) {
	p := world(t)
	for stop, want := range map[types.StopServiceDeploymentStopType]types.ServiceDeploymentStatus{
		"": types.ServiceDeploymentStatusRollbackRequested,
		types.StopServiceDeploymentStopTypeRollback: types.ServiceDeploymentStatusRollbackRequested,
		types.StopServiceDeploymentStopTypeAbort:    types.ServiceDeploymentStatusStopRequested,
	} {
		arn := must(p, p.updateService, &ecs.UpdateServiceInput{Service: aws.String("active"), ForceNewDeployment: true}).Service.CurrentServiceDeployment
		for range 2 { // once more changes nothing
			if out := must(p, p.stopServiceDeployment, &ecs.StopServiceDeploymentInput{ServiceDeploymentArn: arn, StopType: stop}); *out.ServiceDeploymentArn != *arn {
				t.Errorf("it answers %s", *out.ServiceDeploymentArn)
			}
		}
		if d := p.describeDeployment(arn); d.Status != want {
			t.Errorf("%q: %s", stop, d.Status)
		}
		p.change(func(tx *state.Tx) {
			d, _ := controlplane.ServiceDeployments.Get(tx, here.Key("default", "active", (*arn)[strings.LastIndexByte(*arn, '/')+1:]))
			d = proto.CloneOf(d)
			d.Status = string(types.ServiceDeploymentStatusRollbackSuccessful)
			controlplane.ServiceDeployments.Put(tx, d)
		})
		for arn, code := range map[string]string{
			*arn: "ConflictException", *arn + "0": "ServiceDeploymentNotFoundException", "no": "InvalidParameterException",
			here.ServiceARN("default", "active"): "InvalidParameterException", strings.Replace(*arn, "us-east-1", "eu-west-1", 1): "InvalidParameterException",
		} {
			if _, err := p.stopServiceDeployment(p.ctx(), &ecs.StopServiceDeploymentInput{ServiceDeploymentArn: &arn}); !awserr.Is(err, code) {
				t.Errorf("%s: %v, want %s", arn, err, code)
			}
		}
	}
}

func TestServiceDeploymentErrors(t *testing.T) {
	p := world(t)
	for want, call := range map[string]func() error{
		"ServiceNotFoundException": func() error {
			_, err := p.listServiceDeployments(p.ctx(), &ecs.ListServiceDeploymentsInput{Service: aws.String("nope")})
			return err
		},
		"ClusterNotFoundException": func() error {
			_, err := p.listServiceDeployments(p.ctx(), &ecs.ListServiceDeploymentsInput{Service: aws.String("active"), Cluster: aws.String("nope")})
			return err
		},
		"serviceDeploymentArns can not be empty.": func() error {
			_, err := p.describeServiceDeployments(p.ctx(), &ecs.DescribeServiceDeploymentsInput{})
			return err
		},
		"serviceRevisionArns can not have more than 20 elements.": func() error {
			_, err := p.describeServiceRevisions(p.ctx(), &ecs.DescribeServiceRevisionsInput{ServiceRevisionArns: make([]string, 21)})
			return err
		},
		"is not the ARN of a service-deployment": func() error {
			_, err := p.describeServiceDeployments(p.ctx(), &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{here.ServiceARN("default", "active")}})
			return err
		},
		"NamespaceNotFoundException": func() error {
			_, err := p.listServicesByNamespace(p.ctx(), &ecs.ListServicesByNamespaceInput{Namespace: aws.String("nope")})
			return err
		},
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for _, namespace := range []string{"prod.local", "arn:aws:servicediscovery:us-east-1:000000000000:namespace/ns-1"} {
		if out := must(p, p.listServicesByNamespace, &ecs.ListServicesByNamespaceInput{Namespace: &namespace}); out.ServiceArns == nil || len(out.ServiceArns) != 0 {
			t.Errorf("services of %s: %v", namespace, out.ServiceArns)
		}
	}
}
