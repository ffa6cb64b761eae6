package orchestrator

import (
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane"
)

// trip is the deployment circuit breaker ("deployment circuit breaker" in the ECS guide): a deployment under way of which too many
// tasks fail is FAILED and starts no more of them; with rollback, the last deployment that completed becomes PRIMARY again.
// Then it returns true: what follows is another look at the service.
//
// The deployment that completed is used again, not copied: its tasks that still run stay.
func (s *step) trip() (rolledBack bool) {
	breaker := controlplane.DecodeShape[types.DeploymentConfiguration](s.service.DeploymentConfigurationJson).DeploymentCircuitBreaker
	if breaker == nil || !breaker.Enable || s.primary.RolloutState != rolloutInProgress {
		return false
	}
	reset := breaker.ResetOnHealthyTask == nil || *breaker.ResetOnHealthyTask
	count, _, unhealthy := failures(s.v, s.service, s.primary, reset)
	threshold := controlplane.BreakerThreshold(breaker, int(s.service.DesiredCount))
	if count += unhealthy; count < threshold {
		return false
	}
	s.changePrimary(func(d *controlplane.Deployment) {
		d.RolloutState, d.FailedTasks = rolloutFailed, uint32(count)
		d.RolloutReason = "ECS deployment circuit breaker: tasks failed to start."
	})
	s.event("(service %s) (deployment %s) deployment failed: tasks failed to start.", s.service.Name, s.primary.Id)
	s.changeRelease(func(r *controlplane.ServiceDeployment) {
		r.Breaker, r.Failures, r.Threshold = string(types.ServiceDeploymentRollbackMonitorsStatusTriggered), uint32(count), uint32(threshold)
	})
	to := s.lastCompleted()
	switch r := s.release(); {
	case r.GetRollbackRevision() != "":
		s.endRelease(types.ServiceDeploymentStatusRollbackFailed, "Tasks failed to start during the rollback.")
	case !breaker.Rollback:
		s.endRelease(types.ServiceDeploymentStatusStopped, "Service deployment stopped because the circuit breaker threshold was exceeded.")
	case to == nil:
		s.endRelease(types.ServiceDeploymentStatusRollbackFailed, noCandidate)
	}
	if !breaker.Rollback || to == nil {
		return false
	}
	s.rollBack(to, "ECS deployment circuit breaker: rolling back to deploymentId "+to.Id+".",
		"Service deployment rolled back because the circuit breaker threshold was exceeded.")
	return true
}

// rollBack makes a deployment that completed PRIMARY again.
func (s *step) rollBack(to *controlplane.Deployment, rolloutReason, reason string) {
	s.event("(service %s) rolling back to deployment %s.", s.service.Name, to.Id)
	s.changeRelease(func(r *controlplane.ServiceDeployment) {
		r.Status, r.StatusReason, r.RollbackReason = string(types.ServiceDeploymentStatusRollbackInProgress), reason, reason
		r.RollbackRevision, r.RollbackStarted = controlplane.RevisionID(to.Id), timestamppb.New(s.now)
	})
	s.changePrimary(func(d *controlplane.Deployment) { d.Status = deploymentActive })
	s.primary = to
	s.changePrimary(func(d *controlplane.Deployment) {
		d.Status, d.DesiredCount, d.FailedTasks = deploymentPrimary, s.service.DesiredCount, 0
		d.RolloutState, d.RolledBack = rolloutInProgress, timestamppb.New(s.now)
		d.RolloutReason = rolloutReason
	})
	back := proto.CloneOf(s.service)
	back.PrimaryDeployment, back.TaskDefinition, back.LaunchType = to.Id, to.TaskDefinition, to.LaunchType
	back.NetworkConfigurationJson, back.CapacityProviderStrategyJson = to.NetworkConfigurationJson, to.CapacityProviderStrategyJson
	back.LoadBalancersJson, back.ServiceRegistriesJson = to.LoadBalancersJson, to.ServiceRegistriesJson
	back.PlacementConstraintsJson, back.PlacementStrategyJson = to.PlacementConstraintsJson, to.PlacementStrategyJson
	switch {
	case to.PlatformVersion == "":
		back.PlatformVersion = ""
	case back.PlatformVersion == "":
		back.PlatformVersion = to.PlatformVersion
	}
	controlplane.Services.Put(s.tx, back)
}

// lastCompleted is the newest deployment before the present one that completed; nil when there is none.
func (s *step) lastCompleted() (last *controlplane.Deployment) {
	for _, d := range s.others {
		if d.RolloutState == rolloutCompleted && (last == nil || d.Created.AsTime().After(last.Created.AsTime())) {
			last = d
		}
	}
	return last
}

// forgetDeployments removes those without tasks. While the present deployment has not completed, the last one that has stays,
// INACTIVE and shown to nobody: there must be something to roll back to. It returns those that are still to be seen.
func (s *step) forgetDeployments(tasks map[string]int) (left int) {
	keep := s.lastCompleted()
	for _, d := range s.others {
		switch {
		case tasks[d.Id] > 0:
			left++
		case d != keep || s.primary.RolloutState == rolloutCompleted:
			controlplane.Deployments.Delete(s.tx, controlplane.Deployments.Key(d))
		case d.Status != deploymentInactive:
			d = proto.CloneOf(d)
			d.Status = deploymentInactive
			controlplane.Deployments.Put(s.tx, d)
		}
	}
	return left
}
