package ecs

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// newService is the record a CreateService asks for, before it is checked and dated.
func newService(scope controlplane.Scope, c *controlplane.Cluster, in *ecs.CreateServiceInput) (*controlplane.Service, *launch) {
	svc := &controlplane.Service{
		Account: scope.Account, Region: scope.Region, Cluster: c.Name, Name: aws.ToString(in.ServiceName), Status: active, Generation: 1,
		DesiredCount: uint32(aws.ToInt32(in.DesiredCount)), SchedulingStrategy: string(in.SchedulingStrategy), LaunchType: string(in.LaunchType),
		PlatformVersion: aws.ToString(in.PlatformVersion), HealthCheckGraceSeconds: uint32(aws.ToInt32(in.HealthCheckGracePeriodSeconds)),
		LoadBalancersJson: controlplane.EncodeShape(in.LoadBalancers), ServiceRegistriesJson: controlplane.EncodeShape(in.ServiceRegistries),
		NetworkConfigurationJson: controlplane.EncodeShape(in.NetworkConfiguration),
		PlacementConstraintsJson: controlplane.EncodeShape(in.PlacementConstraints), PlacementStrategyJson: controlplane.EncodeShape(in.PlacementStrategy),
		CapacityProviderStrategyJson: controlplane.EncodeShape(in.CapacityProviderStrategy), DeploymentConfigurationJson: controlplane.EncodeShape(in.DeploymentConfiguration),
		DeploymentController: string(types.DeploymentControllerTypeEcs), RoleArn: aws.ToString(in.Role),
		PropagateTags: string(in.PropagateTags), EnableEcsManagedTags: in.EnableECSManagedTags, EnableExecuteCommand: in.EnableExecuteCommand,
		AvailabilityZoneRebalancing: string(in.AvailabilityZoneRebalancing),
	}
	if svc.SchedulingStrategy == "" {
		svc.SchedulingStrategy = string(types.SchedulingStrategyReplica)
	}
	if in.DeploymentController != nil {
		svc.DeploymentController = string(in.DeploymentController.Type)
	}
	return svc, launchOf(c, svc)
}

// changeService applies an UpdateService; what the request leaves out stays.
func changeService(c *controlplane.Cluster, svc *controlplane.Service, in *ecs.UpdateServiceInput) *launch {
	if in.DesiredCount != nil {
		svc.DesiredCount = uint32(*in.DesiredCount)
	}
	if in.PlatformVersion != nil {
		svc.PlatformVersion = *in.PlatformVersion
	}
	if in.HealthCheckGracePeriodSeconds != nil {
		svc.HealthCheckGraceSeconds = uint32(*in.HealthCheckGracePeriodSeconds)
	}
	if len(in.CapacityProviderStrategy) > 0 || in.CapacityProviderStrategy != nil && svc.CapacityProviderStrategyJson != "" {
		svc.LaunchType = "" // an empty strategy takes one away; a launch type it leaves alone
	}
	if in.DeploymentController != nil {
		svc.DeploymentController = string(in.DeploymentController.Type)
	}
	if in.PropagateTags != "" {
		svc.PropagateTags = string(in.PropagateTags)
	}
	if in.EnableExecuteCommand != nil { // of tasks that are started from now on
		svc.EnableExecuteCommand = *in.EnableExecuteCommand
	}
	if in.EnableECSManagedTags != nil {
		svc.EnableEcsManagedTags = *in.EnableECSManagedTags
	}
	svc.AvailabilityZoneRebalancing = cmp.Or(string(in.AvailabilityZoneRebalancing), svc.AvailabilityZoneRebalancing, string(types.AvailabilityZoneRebalancingDisabled))
	if in.DeploymentConfiguration != nil {
		merged := decode[types.DeploymentConfiguration](svc.DeploymentConfigurationJson)
		merged.MaximumPercent = cmp.Or(in.DeploymentConfiguration.MaximumPercent, merged.MaximumPercent)
		merged.MinimumHealthyPercent = cmp.Or(in.DeploymentConfiguration.MinimumHealthyPercent, merged.MinimumHealthyPercent)
		merged.Strategy = cmp.Or(in.DeploymentConfiguration.Strategy, merged.Strategy)
		merged.DeploymentCircuitBreaker = cmp.Or(in.DeploymentConfiguration.DeploymentCircuitBreaker, merged.DeploymentCircuitBreaker)
		svc.DeploymentConfigurationJson = controlplane.EncodeShapeOver(svc.DeploymentConfigurationJson, merged)
	}
	replace(&svc.LoadBalancersJson, in.LoadBalancers)
	replace(&svc.ServiceRegistriesJson, in.ServiceRegistries)
	replace(&svc.NetworkConfigurationJson, in.NetworkConfiguration)
	replace(&svc.PlacementConstraintsJson, in.PlacementConstraints)
	replace(&svc.PlacementStrategyJson, in.PlacementStrategy)
	replace(&svc.CapacityProviderStrategyJson, in.CapacityProviderStrategy)
	return launchOf(c, svc)
}

// replace keeps what is there when nothing is given. An empty list is given: it is kept as none, so that emptying what is empty
// changes nothing.
func replace(kept *string, given any) {
	switch s := controlplane.EncodeShape(given); s {
	case "":
	case "[]":
		*kept = ""
	default:
		*kept = s
	}
}

func launchOf(c *controlplane.Cluster, svc *controlplane.Service) *launch {
	return &launch{
		cluster: c, launchType: types.LaunchType(svc.LaunchType), platform: optional(svc.PlatformVersion),
		strategy:    decode[[]types.CapacityProviderStrategyItem](svc.CapacityProviderStrategyJson),
		network:     decode[*types.NetworkConfiguration](svc.NetworkConfigurationJson),
		constraints: decode[[]types.PlacementConstraint](svc.PlacementConstraintsJson),
		spread:      decode[[]types.PlacementStrategy](svc.PlacementStrategyJson),
	}
}

// checkCounts refuses numbers that a request gives and its service can not have.
func checkCounts(strategy string, desired, grace *int32) error {
	switch {
	case desired != nil && strategy == string(types.SchedulingStrategyDaemon):
		return invalid("The daemon scheduling strategy does not support a desired count for services. Remove the desired count value and try again")
	case aws.ToInt32(desired) < 0:
		return invalid("desiredCount can not be negative.")
	case aws.ToInt32(grace) < 0:
		return invalid("healthCheckGracePeriodSeconds can not be negative.")
	}
	return nil
}

// checkService completes the record and refuses what can not be. It sets the task definition to the launch's.
func (s *Service) checkService(r state.Reader, svc *controlplane.Service, l *launch) error {
	if svc.DeploymentController != string(types.DeploymentControllerTypeEcs) {
		return client("'deploymentController.type' is not supported by this platform with the value %s: only ECS is, yet.", svc.DeploymentController)
	}
	daemon := svc.SchedulingStrategy == string(types.SchedulingStrategyDaemon)
	if daemon && (len(l.strategy) > 0 || l.launchType == "" && len(decode[[]types.CapacityProviderStrategyItem](l.cluster.DefaultStrategyJson)) > 0) {
		return invalid("Specifying a capacity provider strategy is not supported when you create a service using the DAEMON scheduling strategy.")
	}
	if err := s.check(r, l); err != nil {
		return err
	}
	switch {
	case daemon && l.fargate():
		return invalid("The daemon scheduling strategy is not supported with the FARGATE launch type.")
	case daemon && len(l.spread) > 0:
		return invalid("Placement strategies are not supported for services that use the DAEMON scheduling strategy.")
	}
	svc.TaskDefinition = l.definition.FamilyRevision()
	svc.LaunchType = string(l.launchType)
	svc.CapacityProviderStrategyJson = controlplane.EncodeShape(l.strategy)
	if l.fargate() {
		svc.PlatformVersion = cmp.Or(svc.PlatformVersion, "LATEST")
	}
	svc.PropagateTags = cmp.Or(svc.PropagateTags, string(types.PropagateTagsNone))
	if err := checkDeploymentConfiguration(svc); err != nil {
		return err
	}
	if err := checkRebalancing(svc, l); err != nil {
		return err
	}
	if err := s.checkLoadBalancers(r, svc, l); err != nil {
		return err
	}
	return s.checkRegistries(r, svc, l)
}

func checkDeploymentConfiguration(svc *controlplane.Service) error {
	given := decode[types.DeploymentConfiguration](svc.DeploymentConfigurationJson)
	if given.Strategy != "" && given.Strategy != types.DeploymentStrategyRolling {
		return client("'deploymentConfiguration.strategy' is not supported by this platform with the value %s: only ROLLING is, yet.", given.Strategy)
	}
	least, most := int32(100), int32(200)
	if svc.SchedulingStrategy == string(types.SchedulingStrategyDaemon) {
		least, most = 0, 100
	}
	if given.MinimumHealthyPercent != nil {
		least = *given.MinimumHealthyPercent
	}
	if given.MaximumPercent != nil {
		most = *given.MaximumPercent
	}
	switch {
	case least < 0 || least > 100:
		return invalid("minimumHealthyPercent must be between 0 and 100.")
	case most < 100 || most > 200:
		return invalid("maximumPercent must be between 100 and 200.")
	case least == 100 && most == 100:
		return invalid("Both maximumPercent and minimumHealthyPercent cannot be 100 as this will block deployments.")
	}
	svc.MinimumHealthyPercent, svc.MaximumPercent = uint32(least), uint32(most)
	return nil
}

func (s *Service) checkLoadBalancers(r state.Reader, svc *controlplane.Service, l *launch) error {
	balancers := decode[[]types.LoadBalancer](svc.LoadBalancersJson)
	if len(balancers) == 0 && svc.HealthCheckGraceSeconds > 0 {
		return invalid("Health check grace period is only valid for services configured to use load balancers")
	}
	if len(balancers) > 5 {
		return invalid("load balancers can have at most 5 items.")
	}
	for _, b := range balancers {
		group := aws.ToString(b.TargetGroupArn)
		if group == "" {
			return invalid("targetGroupArn can not be blank.")
		}
		if err := l.checkContainerPort(b.ContainerName, b.ContainerPort); err != nil {
			return err
		}
		targetType, attached, exists := s.TargetGroups.ServiceTargetGroup(r, svc.Account, svc.Region, group)
		switch {
		case !exists:
			return invalid("The specified target group does not exist. Specify a valid target group and try again. targetGroupArn: %s", group)
		case !attached:
			return invalid("The target group with targetGroupArn %s does not have an associated load balancer.", group)
		case (l.shape.NetworkMode == types.NetworkModeAwsvpc) != (targetType == "ip"):
			return invalid("The provided target group %s has target type %s, which is incompatible with the %s network mode specified in the task definition.",
				group, targetType, l.shape.NetworkMode)
		}
	}
	return nil
}

func (s *Service) checkRegistries(r state.Reader, svc *controlplane.Service, l *launch) error {
	registries := decode[[]types.ServiceRegistry](svc.ServiceRegistriesJson)
	if len(registries) > 1 {
		return invalid("serviceRegistries can have at most 1 items.")
	}
	for _, reg := range registries {
		srv, exists := s.Registries.ServiceRegistry(r, svc.Account, svc.Region, aws.ToString(reg.RegistryArn))
		if !exists {
			return invalid("The specified service registry does not exist: %s", aws.ToString(reg.RegistryArn))
		}
		named := reg.ContainerName != nil && reg.ContainerPort != nil
		own := l.shape.NetworkMode == types.NetworkModeAwsvpc
		switch {
		case !own && !named:
			return invalid("When specifying 'host' or 'bridge' for networkMode, values for 'containerName' and 'containerPort' must be specified from the task definition.")
		case own && srv && !named && reg.Port == nil:
			return invalid("When the service registry uses SRV records, either 'port' or 'containerName' and 'containerPort' must be specified.")
		case named && reg.Port != nil:
			return invalid("Both 'port' and 'containerPort' can not be specified for a service registry.")
		}
		if named {
			if err := l.checkContainerPort(reg.ContainerName, reg.ContainerPort); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkContainerPort wants the container and its port in the task definition.
func (l *launch) checkContainerPort(name *string, port *int32) error {
	for _, c := range l.shape.ContainerDefinitions {
		if aws.ToString(c.Name) != aws.ToString(name) {
			continue
		}
		for _, m := range c.PortMappings {
			if aws.ToInt32(m.ContainerPort) == aws.ToInt32(port) {
				return nil
			}
		}
		return invalid("The container %s did not have a container port %d defined.", aws.ToString(name), aws.ToInt32(port))
	}
	return invalid("The container %s does not exist in the task definition.", aws.ToString(name))
}

// template is all of a service that its tasks are made of: another template is another deployment.
func template(svc *controlplane.Service) string {
	return controlplane.EncodeShape([]string{
		svc.TaskDefinition, svc.LaunchType, svc.PlatformVersion, svc.NetworkConfigurationJson, svc.CapacityProviderStrategyJson,
		svc.LoadBalancersJson, svc.ServiceRegistriesJson, svc.PlacementConstraintsJson, svc.PlacementStrategyJson,
	})
}

// sameService says whether the two were asked for by the same request.
func sameService(a, b *controlplane.Service) bool {
	return template(a) == template(b) && a.DesiredCount == b.DesiredCount && a.SchedulingStrategy == b.SchedulingStrategy &&
		a.MinimumHealthyPercent == b.MinimumHealthyPercent && a.MaximumPercent == b.MaximumPercent &&
		a.HealthCheckGraceSeconds == b.HealthCheckGraceSeconds && a.RoleArn == b.RoleArn &&
		a.PropagateTags == b.PropagateTags && a.EnableEcsManagedTags == b.EnableEcsManagedTags &&
		a.EnableExecuteCommand == b.EnableExecuteCommand
}

// deploy makes a new deployment of the service's present template the PRIMARY one; the one before becomes ACTIVE and the
// orchestrator replaces its tasks.
func (s *Service) deploy(tx *state.Tx, svc *controlplane.Service, now time.Time) {
	var before []*controlplane.Deployment
	for d := range controlplane.Deployments.Scan(tx, svc.Scope().Key(svc.Cluster, svc.Name)) {
		if d.Status != inactive {
			before = append(before, d)
		}
		if d.Status == primary {
			d = proto.CloneOf(d)
			d.Status, d.Updated = active, timestamppb.New(now)
			controlplane.Deployments.Put(tx, d)
		}
	}
	d := &controlplane.Deployment{
		Account: svc.Account, Region: svc.Region, Cluster: svc.Cluster, Service: svc.Name, Id: deploymentID(s.Rand), Status: primary,
		TaskDefinition: svc.TaskDefinition, DesiredCount: svc.DesiredCount, LaunchType: svc.LaunchType,
		NetworkConfigurationJson: svc.NetworkConfigurationJson, CapacityProviderStrategyJson: svc.CapacityProviderStrategyJson,
		LoadBalancersJson: svc.LoadBalancersJson, ServiceRegistriesJson: svc.ServiceRegistriesJson,
		PlacementConstraintsJson: svc.PlacementConstraintsJson, PlacementStrategyJson: svc.PlacementStrategyJson,
		RolloutState: string(types.DeploymentRolloutStateInProgress), Created: timestamppb.New(now), Updated: timestamppb.New(now),
	}
	if svc.PlatformVersion != "" {
		d.PlatformVersion = latestPlatform
	}
	d.RolloutReason = "ECS deployment " + d.Id + " in progress."
	controlplane.Deployments.Put(tx, d)
	svc.PrimaryDeployment = d.Id
	controlplane.BeginServiceDeployment(tx, svc, d, before, now, s.Rand)
}

// scaleDeployment takes the service's desired count over to its PRIMARY deployment.
func scaleDeployment(tx *state.Tx, svc *controlplane.Service, now time.Time) {
	if d, ok := controlplane.Deployments.Get(tx, svc.Scope().Key(svc.Cluster, svc.Name, svc.PrimaryDeployment)); ok {
		d = proto.CloneOf(d)
		d.DesiredCount, d.Updated = svc.DesiredCount, timestamppb.New(now)
		controlplane.Deployments.Put(tx, d)
	}
}

// forgetService removes what an INACTIVE service left, so that its name can be used again.
func forgetService(tx *state.Tx, svc *controlplane.Service) {
	key := svc.Scope().Key(svc.Cluster, svc.Name)
	for _, d := range slices.Collect(controlplane.Deployments.Scan(tx, key)) {
		controlplane.Deployments.Delete(tx, controlplane.Deployments.Key(d))
	}
	controlplane.DeleteServiceEvents(tx, key)
}

// deploymentID is ecs-svc/ and 19 digits.
func deploymentID(rand io.Reader) string {
	var b [8]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		panic(fmt.Sprintf("ecs: read randomness: %v", err))
	}
	return fmt.Sprintf("%s%019d", controlplane.DeploymentPrefix, binary.BigEndian.Uint64(b[:])>>1)
}
