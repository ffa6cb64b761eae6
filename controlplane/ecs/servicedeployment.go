package ecs

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// maxDescribed is how many service deployments or revisions one request may name.
const maxDescribed = 20

// listServiceDeployments implements ecs:ListServiceDeployments: the newest first.
func (s *Service) listServiceDeployments(ctx context.Context, in *ecs.ListServiceDeploymentsInput) (*ecs.ListServiceDeploymentsOutput, error) {
	size, err := pageSize(in.MaxResults, 20, 100)
	if err != nil {
		return nil, err
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	c, err := cluster(v, scope, in.Cluster)
	if err != nil {
		return nil, err
	}
	svc, err := findService(v, scope, c.Name, aws.ToString(in.Service))
	if err != nil {
		return nil, err
	}
	wanted := func(d *controlplane.ServiceDeployment) bool {
		at := d.Created.AsTime()
		return (len(in.Status) == 0 || slices.Contains(in.Status, types.ServiceDeploymentStatus(d.Status))) &&
			(in.CreatedAt == nil || (in.CreatedAt.After == nil || at.After(*in.CreatedAt.After)) && (in.CreatedAt.Before == nil || at.Before(*in.CreatedAt.Before)))
	}
	all := slices.Collect(filter(controlplane.ServiceDeployments.Scan(v, scope.Key(c.Name, svc.Name)), wanted))
	key := func(d *controlplane.ServiceDeployment) state.Key {
		return state.K(controlplane.TimeKey(d.Created.AsTime()), d.Id)
	}
	slices.SortFunc(all, func(a, b *controlplane.ServiceDeployment) int { return cmp.Compare(key(a), key(b)) })
	page, next, err := api.Page(ctx, s.Pages, in, size, func(last state.Key) iter.Seq[*controlplane.ServiceDeployment] {
		return backwards(slices.Values(all), last, key)
	}, key)
	if err != nil {
		return nil, err
	}
	out := &ecs.ListServiceDeploymentsOutput{ServiceDeployments: []types.ServiceDeploymentBrief{}, NextToken: next}
	for _, d := range page {
		out.ServiceDeployments = append(out.ServiceDeployments, types.ServiceDeploymentBrief{
			ServiceDeploymentArn: aws.String(d.ARN()), ServiceArn: aws.String(svc.ARN()), ClusterArn: aws.String(c.ARN()), Status: types.ServiceDeploymentStatus(d.Status),
			StatusReason: optional(d.StatusReason), TargetServiceRevisionArn: aws.String(scope.ServiceRevisionARN(d.Cluster, d.Service, d.Target.GetRevision())),
			CreatedAt: timeOf(d.Created), StartedAt: timeOf(d.Started), FinishedAt: timeOf(d.Finished),
		})
	}
	return out, nil
}

// describeServiceDeployments implements ecs:DescribeServiceDeployments.
func (s *Service) describeServiceDeployments(ctx context.Context, in *ecs.DescribeServiceDeploymentsInput) (*ecs.DescribeServiceDeploymentsOutput, error) {
	out := &ecs.DescribeServiceDeploymentsOutput{ServiceDeployments: []types.ServiceDeployment{}}
	var err error
	out.Failures, err = s.eachOfService(ctx, "serviceDeploymentArns", "service-deployment", in.ServiceDeploymentArns, func(v *state.View, key state.Key) bool {
		d, ok := controlplane.ServiceDeployments.Get(v, key)
		if ok {
			out.ServiceDeployments = append(out.ServiceDeployments, serviceDeploymentShape(v, d))
		}
		return ok
	})
	return answer(out, err)
}

// describeServiceRevisions implements ecs:DescribeServiceRevisions.
func (s *Service) describeServiceRevisions(ctx context.Context, in *ecs.DescribeServiceRevisionsInput) (*ecs.DescribeServiceRevisionsOutput, error) {
	out := &ecs.DescribeServiceRevisionsOutput{ServiceRevisions: []types.ServiceRevision{}}
	var err error
	out.Failures, err = s.eachOfService(ctx, "serviceRevisionArns", "service-revision", in.ServiceRevisionArns, func(v *state.View, key state.Key) bool {
		r, ok := controlplane.ServiceRevisions.Get(v, key)
		if ok {
			out.ServiceRevisions = append(out.ServiceRevisions, serviceRevisionShape(r))
		}
		return ok
	})
	return answer(out, err)
}

// eachOfService finds what ARNs kind/cluster/service/id name.
func (s *Service) eachOfService(ctx context.Context, member, kind string, names []string, found func(v *state.View, key state.Key) bool) ([]types.Failure, error) {
	if len(names) == 0 {
		return nil, invalid("%s can not be empty.", member)
	}
	if len(names) > maxDescribed {
		return nil, invalid("%s can not have more than %d elements.", member, maxDescribed)
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	failures := []types.Failure{}
	for _, name := range names {
		key, err := keyOfService(scope, kind, name)
		if err != nil {
			return nil, err
		}
		if !found(v, key) {
			failures = append(failures, missing(name))
		}
	}
	return failures, nil
}

func keyOfService(scope controlplane.Scope, kind, name string) (state.Key, error) {
	a, err := parseARN(scope, name, kind)
	if err != nil {
		return "", err
	}
	parts := strings.Split(a.Rest(), "/")
	if len(parts) != 3 {
		return "", invalid("Invalid identifier: %s is not the ARN of a %s", name, kind)
	}
	return scope.Key(parts...), nil
}

// stopServiceDeployment implements ecs:StopServiceDeployment. The orchestrator stops it. One that is being stopped, or rolled back, goes on so.
func (s *Service) stopServiceDeployment(ctx context.Context, in *ecs.StopServiceDeploymentInput) (*ecs.StopServiceDeploymentOutput, error) {
	now := api.CallFrom(ctx).Time
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		key, err := keyOfService(scope, "service-deployment", aws.ToString(in.ServiceDeploymentArn))
		if err != nil {
			return err
		}
		d, ok := controlplane.ServiceDeployments.Get(tx, key)
		if !ok {
			return awserr.New("ServiceDeploymentNotFoundException", "Service deployment not found.")
		}
		svc, ok := controlplane.Services.Get(tx, scope.Key(d.Cluster, d.Service))
		if d.Over() || !ok || svc.Status != active {
			return awserr.New("ConflictException", "The service deployment can not be stopped: its status is %s.", d.Status)
		}
		if d.Status != string(types.ServiceDeploymentStatusInProgress) {
			return nil
		}
		d = proto.CloneOf(d)
		d.Status, d.Updated = string(types.ServiceDeploymentStatusRollbackRequested), timestamppb.New(now)
		if in.StopType == types.StopServiceDeploymentStopTypeAbort {
			d.Status = string(types.ServiceDeploymentStatusStopRequested)
		}
		controlplane.ServiceDeployments.Put(tx, d)
		return nil
	})
	return answer(&ecs.StopServiceDeploymentOutput{ServiceDeploymentArn: in.ServiceDeploymentArn}, err)
}

// serviceDeploymentShape renders a service deployment: the tasks of its revisions as they are, or as they were when it was over.
func serviceDeploymentShape(r state.Reader, d *controlplane.ServiceDeployment) types.ServiceDeployment {
	scope := d.Scope()
	config := decode[types.DeploymentConfiguration](d.DeploymentConfigurationJson)
	if config.DeploymentCircuitBreaker == nil {
		config.DeploymentCircuitBreaker = &types.DeploymentCircuitBreaker{}
	}
	breaker := &types.ServiceDeploymentCircuitBreaker{Status: types.ServiceDeploymentRollbackMonitorsStatus(d.Breaker), FailureCount: int32(d.Failures), Threshold: int32(d.Threshold)}
	var counts map[string]*controlplane.RevisionCount
	if svc, ok := controlplane.Services.Get(r, scope.Key(d.Cluster, d.Service)); ok && !d.Over() {
		counts = controlplane.CountRevisions(r, svc)
		breaker.Threshold = int32(controlplane.BreakerThreshold(config.DeploymentCircuitBreaker, int(svc.DesiredCount)))
		target, _ := controlplane.Deployments.Get(r, scope.Key(d.Cluster, d.Service, controlplane.DeploymentPrefix+d.Target.GetRevision()))
		if breaker.Status == types.ServiceDeploymentRollbackMonitorsStatusMonitoring {
			breaker.FailureCount = int32(target.GetFailedTasks())
		}
	}
	summary := func(n *controlplane.RevisionCount) types.ServiceRevisionSummary {
		name := n.GetRevision()
		if !d.Over() {
			n = counts[name]
		}
		return types.ServiceRevisionSummary{Arn: aws.String(scope.ServiceRevisionARN(d.Cluster, d.Service, name)),
			RequestedTaskCount: int32(n.GetRequested()), RunningTaskCount: int32(n.GetRunning()), PendingTaskCount: int32(n.GetPending())}
	}
	out := types.ServiceDeployment{
		ServiceDeploymentArn: aws.String(d.ARN()), ServiceArn: aws.String(scope.ServiceARN(d.Cluster, d.Service)), ClusterArn: aws.String(scope.ClusterARN(d.Cluster)),
		Status: types.ServiceDeploymentStatus(d.Status), StatusReason: optional(d.StatusReason), DeploymentConfiguration: &config, DeploymentCircuitBreaker: breaker,
		CreatedAt: timeOf(d.Created), StartedAt: timeOf(d.Started), UpdatedAt: timeOf(d.Updated), FinishedAt: timeOf(d.Finished), StoppedAt: timeOf(d.Stopped),
		TargetServiceRevision: new(summary(d.Target)), SourceServiceRevisions: []types.ServiceRevisionSummary{},
	}
	for _, n := range d.Sources {
		out.SourceServiceRevisions = append(out.SourceServiceRevisions, summary(n))
	}
	if d.RollbackRevision != "" {
		out.Rollback = &types.Rollback{Reason: optional(d.RollbackReason), StartedAt: timeOf(d.RollbackStarted),
			ServiceRevisionArn: aws.String(scope.ServiceRevisionARN(d.Cluster, d.Service, d.RollbackRevision))}
	}
	return out
}

func serviceRevisionShape(r *controlplane.ServiceRevision) types.ServiceRevision {
	scope := controlplane.Scope{Account: r.Account, Region: r.Region}
	out := types.ServiceRevision{
		ServiceRevisionArn: aws.String(scope.ServiceRevisionARN(r.Cluster, r.Service, r.Id)), ServiceArn: aws.String(scope.ServiceARN(r.Cluster, r.Service)),
		ClusterArn: aws.String(scope.ClusterARN(r.Cluster)), TaskDefinition: aws.String(scope.TaskDefinitionARN(r.TaskDefinition)),
		LaunchType: types.LaunchType(r.LaunchType), CapacityProviderStrategy: decode[[]types.CapacityProviderStrategyItem](r.CapacityProviderStrategyJson),
		PlatformVersion: optional(r.PlatformVersion), NetworkConfiguration: decode[*types.NetworkConfiguration](r.NetworkConfigurationJson),
		LoadBalancers: decode[[]types.LoadBalancer](r.LoadBalancersJson), ServiceRegistries: decode[[]types.ServiceRegistry](r.ServiceRegistriesJson),
		ContainerImages: append([]types.ContainerImage{}, decode[[]types.ContainerImage](r.ContainerImagesJson)...), CreatedAt: timeOf(r.Created),
	}
	if r.PlatformVersion != "" {
		out.PlatformFamily = aws.String("Linux")
	}
	return out
}

// currentRevisions are what a service's tasks are made of now.
func currentRevisions(svc *controlplane.Service, counts map[string]*controlplane.RevisionCount, deployments []types.Deployment) []types.ServiceCurrentRevisionSummary {
	var out []types.ServiceCurrentRevisionSummary
	for _, d := range deployments {
		n := counts[controlplane.RevisionID(*d.Id)]
		out = append(out, types.ServiceCurrentRevisionSummary{Arn: aws.String(svc.Scope().ServiceRevisionARN(svc.Cluster, svc.Name, *d.Id)),
			RequestedTaskCount: int32(n.GetRequested()), RunningTaskCount: int32(n.GetRunning()), PendingTaskCount: int32(n.GetPending())})
	}
	return out
}

// listServicesByNamespace implements ecs:ListServicesByNamespace. A service is of a namespace by its Service Connect configuration, which is
// refused so far: there are none.
func (s *Service) listServicesByNamespace(ctx context.Context, in *ecs.ListServicesByNamespaceInput) (*ecs.ListServicesByNamespaceOutput, error) {
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := pageSize(in.MaxResults, 10, 100); err != nil {
		return nil, err
	}
	if aws.ToString(in.Namespace) == "" {
		return nil, invalid("namespace can not be blank.")
	}
	if !s.Registries.NamespaceExists(v, scope.Account, scope.Region, *in.Namespace) {
		return nil, awserr.New("NamespaceNotFoundException", "The specified namespace was not found.")
	}
	if in.NextToken != nil {
		return nil, invalid("Invalid token.")
	}
	return &ecs.ListServicesByNamespaceOutput{ServiceArns: []string{}}, nil
}
