package ecs

import (
	"context"
	"iter"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

func serviceNotFound() error { return awserr.New("ServiceNotFoundException", "Service not found.") }

// findService finds the service that ref means, INACTIVE ones too.
func findService(r state.Reader, scope controlplane.Scope, cluster, ref string) (*controlplane.Service, error) {
	name, err := member(scope, "service", cluster, ref)
	if err != nil {
		return nil, err
	}
	svc, ok := controlplane.Services.Get(r, scope.Key(cluster, name))
	if !ok {
		return nil, serviceNotFound()
	}
	return svc, nil
}

// createService implements ecs:CreateService. The orchestrator starts the tasks.
func (s *Service) createService(ctx context.Context, in *ecs.CreateServiceInput) (*ecs.CreateServiceOutput, error) {
	if !validName.MatchString(aws.ToString(in.ServiceName)) {
		return nil, invalid("Service name must be 1 to 255 letters, numbers, underscores and hyphens.")
	}
	if err := refuse(in); err != nil {
		return nil, err
	}
	if err := s.passRoles(ctx, ecsService, in.Role); err != nil {
		return nil, err
	}
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	untokened := *in
	untokened.ClientToken = nil
	request := controlplane.Request{Scope: scopeOf(ctx), Operation: "ecs:CreateService", Token: aws.ToString(in.ClientToken), Hash: controlplane.HashRequest(&untokened)}
	call := api.CallFrom(ctx)
	var made *controlplane.Service
	err = s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		c, err := cluster(tx, scope, in.Cluster)
		if err != nil {
			return err
		}
		if err := checkCounts(string(in.SchedulingStrategy), in.DesiredCount, in.HealthCheckGracePeriodSeconds); err != nil {
			return err
		}
		svc, l := newService(scope, c, in)
		if l.definition, err = runnable(tx, scope, in.TaskDefinition, "ClientException"); err != nil {
			return err
		}
		if err := s.passTaskRoles(ctx, l.definition, nil); err != nil {
			return err
		}
		if err := s.checkService(tx, svc, l); err != nil {
			return err
		}
		old, exists := controlplane.Services.Get(tx, controlplane.Services.Key(svc))
		_, seen, same := request.Earlier(tx, call.Time)
		switch {
		case exists && old.Status == draining:
			return invalid("Unable to Start a service that is still Draining.")
		case exists && old.Status == active:
			// The same request again is answered with what it made; a token says so, otherwise the service must be as the
			// request would make it.
			if seen && !same || !seen && !sameService(old, svc) {
				return invalid("Creation of service was not idempotent.")
			}
			made = old
			return nil
		case exists:
			forgetService(tx, old)
		}
		svc.Created, svc.CreatedBy = timestamppb.New(call.Time), call.ARN
		s.deploy(tx, svc, call.Time)
		controlplane.Services.Put(tx, svc)
		controlplane.PutTags(tx, scope, svc.ARN(), tags)
		request.Remember(tx, call.Time, svc.Name)
		made = svc
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.CreateServiceOutput{Service: s.shown(made)}, nil
}

// shown renders a service once its change is committed: rendering reads all its tasks, which must not become guards.
func (s *Service) shown(svc *controlplane.Service) *types.Service {
	return serviceShape(s.Store.View(), svc, true)
}

// updateService implements ecs:UpdateService. A change of what tasks are made of begins a new deployment; a change of the
// desired count alone continues the present one.
func (s *Service) updateService(ctx context.Context, in *ecs.UpdateServiceInput) (*ecs.UpdateServiceOutput, error) {
	if err := refuse(in); err != nil {
		return nil, err
	}
	now := api.CallFrom(ctx).Time
	var changed *controlplane.Service
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		c, err := cluster(tx, scope, in.Cluster)
		if err != nil {
			return err
		}
		old, err := findService(tx, scope, c.Name, aws.ToString(in.Service))
		if err != nil {
			return err
		}
		if old.Status != active {
			return awserr.New("ServiceNotActiveException", "Service was not ACTIVE.")
		}
		if err := checkCounts(old.SchedulingStrategy, in.DesiredCount, in.HealthCheckGracePeriodSeconds); err != nil {
			return err
		}
		svc := proto.CloneOf(old)
		svc.Generation++
		l := changeService(c, svc, in)
		if in.TaskDefinition != nil {
			if l.definition, err = runnable(tx, scope, in.TaskDefinition, "ClientException"); err == nil {
				err = s.passTaskRoles(ctx, l.definition, nil)
			}
		} else { // what was passed to the service before is not passed anew
			l.definition, err = runningDefinition(tx, svc)
		}
		if err != nil {
			return err
		}
		if err := s.checkService(tx, svc, l); err != nil {
			return err
		}
		if in.ForceNewDeployment || template(old) != template(svc) {
			s.deploy(tx, svc, now)
		} else if svc.DesiredCount != old.DesiredCount {
			scaleDeployment(tx, svc, now)
		}
		controlplane.Services.Put(tx, svc)
		changed = svc
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.UpdateServiceOutput{Service: s.shown(changed)}, nil
}

// runningDefinition is the definition of the present deployment; it may be deregistered by now, what runs from it may go on.
func runningDefinition(r state.Reader, svc *controlplane.Service) (*controlplane.TaskDefinition, error) {
	d, ok := controlplane.TaskDefinitions.Get(r, svc.Scope().FamilyRevisionKey(svc.TaskDefinition))
	if !ok {
		return nil, client("TaskDefinition not found.")
	}
	return d, nil
}

// deleteService implements ecs:DeleteService. The orchestrator stops the tasks and makes the service INACTIVE.
func (s *Service) deleteService(ctx context.Context, in *ecs.DeleteServiceInput) (*ecs.DeleteServiceOutput, error) {
	now := api.CallFrom(ctx).Time
	var deleted *controlplane.Service
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		c, err := cluster(tx, scope, in.Cluster)
		if err != nil {
			return err
		}
		svc, err := findService(tx, scope, c.Name, aws.ToString(in.Service))
		if err != nil {
			return err
		}
		switch svc.Status {
		case inactive:
			return serviceNotFound()
		case active:
			if !aws.ToBool(in.Force) && svc.DesiredCount > 0 && svc.SchedulingStrategy == string(types.SchedulingStrategyReplica) {
				return invalid("The service cannot be stopped while it is scaled above 0.")
			}
			svc = proto.CloneOf(svc)
			svc.Status, svc.DesiredCount, svc.Deleted = draining, 0, timestamppb.New(now)
			svc.Generation++
			scaleDeployment(tx, svc, now)
			controlplane.Services.Put(tx, svc)
		}
		deleted = svc
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecs.DeleteServiceOutput{Service: s.shown(deleted)}, nil
}

// describeServices implements ecs:DescribeServices.
func (s *Service) describeServices(ctx context.Context, in *ecs.DescribeServicesInput) (*ecs.DescribeServicesOutput, error) {
	if len(in.Services) == 0 {
		return nil, invalid("Services cannot be empty.")
	}
	if len(in.Services) > 10 {
		return nil, invalid("Services cannot have more than 10 elements.")
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	c, err := cluster(v, scope, in.Cluster)
	if err != nil {
		return nil, err
	}
	withTags := slices.Contains(in.Include, types.ServiceFieldTags)
	out := &ecs.DescribeServicesOutput{Services: []types.Service{}, Failures: []types.Failure{}}
	for _, ref := range in.Services {
		name, err := member(scope, "service", c.Name, ref)
		if err != nil {
			return nil, err
		}
		if svc, ok := controlplane.Services.Get(v, scope.Key(c.Name, name)); ok {
			out.Services = append(out.Services, *serviceShape(v, svc, withTags))
			continue
		}
		if !arn.Is(ref) {
			ref = scope.ServiceARN(c.Name, name)
		}
		out.Failures = append(out.Failures, missing(ref))
	}
	return out, nil
}

// listServices implements ecs:ListServices.
func (s *Service) listServices(ctx context.Context, in *ecs.ListServicesInput) (*ecs.ListServicesOutput, error) {
	size, err := pageSize(in.MaxResults, 10, 100)
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
	page, next, err := api.Page(ctx, s.Pages, in, size, func(last state.Key) iter.Seq[*controlplane.Service] {
		return filter(controlplane.Services.ScanFrom(v, scope.Key(c.Name), last), func(svc *controlplane.Service) bool {
			return svc.Status != inactive &&
				(in.LaunchType == "" || svc.LaunchType == string(in.LaunchType)) &&
				(in.SchedulingStrategy == "" || svc.SchedulingStrategy == string(in.SchedulingStrategy)) &&
				(in.ResourceManagementType == "" || in.ResourceManagementType == types.ResourceManagementTypeCustomer)
		})
	}, controlplane.Services.Key)
	if err != nil {
		return nil, err
	}
	return &ecs.ListServicesOutput{ServiceArns: arns(page), NextToken: next}, nil
}
