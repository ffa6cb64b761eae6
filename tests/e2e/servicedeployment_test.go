package e2e

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// TestServiceDeployments: the history of a service by AWS's CLI, and a release that is taken back.
func TestServiceDeployments(t *testing.T) {
	t.Parallel()
	needsNewAWS(t, "ecs", "list-service-deployments")
	p := startOn(t, "fake")
	c := p.client().ECS
	register := func(image string) *string {
		t.Helper()
		return must(c.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: aws.String("web"), ContainerDefinitions: []ecstypes.ContainerDefinition{{
			Name: aws.String("web"), Image: &image, Cpu: 16, Memory: aws.Int32(16)}}}))(t).TaskDefinition.TaskDefinitionArn
	}
	ends := func(release *string, want ecstypes.ServiceDeploymentStatus) ecstypes.ServiceDeployment {
		t.Helper()
		var d ecstypes.ServiceDeployment
		eventually(t, time.Minute, "the end of a release", func() (bool, string) {
			d = must(c.DescribeServiceDeployments(t.Context(), &ecs.DescribeServiceDeploymentsInput{ServiceDeploymentArns: []string{*release}}))(t).ServiceDeployments[0]
			return d.Status == want, string(d.Status)
		})
		return d
	}
	first := must(c.CreateService(t.Context(), &ecs.CreateServiceInput{ServiceName: aws.String("web"), TaskDefinition: register("registry.test/web:1"), DesiredCount: aws.Int32(2)}))(t).Service
	done := ends(first.CurrentServiceDeployment, ecstypes.ServiceDeploymentStatusSuccessful)
	if n := done.TargetServiceRevision; n.RequestedTaskCount != 2 || n.RunningTaskCount != 2 || done.FinishedAt == nil {
		t.Errorf("it ended with %+v", n)
	}
	// A release that needs more room than there is stays under way, until it is taken back.
	must(c.RegisterTaskDefinition(t.Context(), &ecs.RegisterTaskDefinitionInput{Family: aws.String("web"), ContainerDefinitions: []ecstypes.ContainerDefinition{{
		Name: aws.String("web"), Image: aws.String("registry.test/web:2"), Cpu: 16, Memory: aws.Int32(1 << 30)}}}))(t)
	second := must(c.UpdateService(t.Context(), &ecs.UpdateServiceInput{Service: aws.String("web"), TaskDefinition: aws.String("web")}))(t).Service
	if got := p.text("serviceDeployments[].status", "ecs", "list-service-deployments", "--service", "web"); got != "IN_PROGRESS\tSUCCESSFUL" {
		t.Errorf("the history is %q", got)
	}
	must(c.StopServiceDeployment(t.Context(), &ecs.StopServiceDeploymentInput{ServiceDeploymentArn: second.CurrentServiceDeployment}))(t)
	back := ends(second.CurrentServiceDeployment, ecstypes.ServiceDeploymentStatusRollbackSuccessful)
	if *back.Rollback.ServiceRevisionArn != *done.TargetServiceRevision.Arn || len(back.SourceServiceRevisions) != 1 || *back.SourceServiceRevisions[0].Arn != *done.TargetServiceRevision.Arn {
		t.Errorf("it went back to %+v, from %+v", back.Rollback, back.SourceServiceRevisions)
	}
	if got := p.text("serviceRevisions[0].[taskDefinition, containerImages[0].image]", "ecs", "describe-service-revisions", "--service-revision-arns", *back.Rollback.ServiceRevisionArn); got != *first.TaskDefinition+"\tregistry.test/web:1" {
		t.Errorf("that is %q", got)
	}
	if got := p.text("services[0].[taskDefinition, currentServiceDeployment, currentServiceRevisions[0].arn]", "ecs", "describe-services", "--services", "web"); got != *first.TaskDefinition+"\t"+*second.CurrentServiceDeployment+"\t"+*back.Rollback.ServiceRevisionArn {
		t.Errorf("the service is %q", got)
	}
}
