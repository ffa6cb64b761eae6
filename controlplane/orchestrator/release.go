package orchestrator

import (
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane"
)

// noCandidate is ECS's word for a rollback to nothing.
const noCandidate = "No rollback candidate was found to run the rollback."

// release is the service deployment under way; nil: there is none, or the service is from before there were such records.
func (s *step) release() *controlplane.ServiceDeployment {
	if d := controlplane.LastServiceDeployment(s.tx, s.service); !d.Over() {
		return d
	}
	return nil
}

// obey does what StopServiceDeployment asks for. Then it returns true: what follows is another look at the service.
func (s *step) obey() bool {
	r := s.release()
	if r == nil {
		return false
	}
	switch types.ServiceDeploymentStatus(r.Status) {
	case types.ServiceDeploymentStatusStopRequested:
		s.fail("ECS deployment was stopped.")
		s.endRelease(types.ServiceDeploymentStatusStopped, "The service deployment was stopped by a user.")
		s.event("(service %s) (deployment %s) deployment stopped.", s.service.Name, s.primary.Id)
		return true
	case types.ServiceDeploymentStatusRollbackRequested:
		s.fail("ECS deployment was stopped.")
		s.event("(service %s) (deployment %s) deployment stopped.", s.service.Name, s.primary.Id)
		to := s.lastCompleted()
		if to == nil {
			s.endRelease(types.ServiceDeploymentStatusRollbackFailed, noCandidate)
			return true
		}
		s.rollBack(to, "ECS deployment rolling back to deploymentId "+to.Id+".", "Service deployment rolled back because of a user's request to stop it.")
		return true
	}
	return false
}

// fail ends the present deployment: it starts no more tasks.
func (s *step) fail(why string) {
	s.changePrimary(func(d *controlplane.Deployment) { d.RolloutState, d.RolloutReason = rolloutFailed, why })
}

// endRelease says how the service deployment under way ended, if there is one.
func (s *step) endRelease(status types.ServiceDeploymentStatus, reason string) {
	r := s.release()
	if r == nil {
		return
	}
	if r.Breaker == string(types.ServiceDeploymentRollbackMonitorsStatusMonitoring) {
		r = proto.CloneOf(r)
		r.Failures = s.primary.FailedTasks
	}
	controlplane.EndServiceDeployment(s.tx, s.service, r, status, reason, controlplane.CountRevisions(s.v, s.service), s.now)
}

// changeRelease changes the service deployment under way, if there is one.
func (s *step) changeRelease(change func(*controlplane.ServiceDeployment)) {
	if r := s.release(); r != nil {
		r = proto.CloneOf(r)
		change(r)
		r.Updated = timestamppb.New(s.now)
		controlplane.ServiceDeployments.Put(s.tx, r)
	}
}

// completeRelease is for a deployment that completed: the one that was released, or the one before, once more.
func (s *step) completeRelease() {
	if r := s.release(); r != nil && r.RollbackRevision != "" {
		s.endRelease(types.ServiceDeploymentStatusRollbackSuccessful, r.StatusReason)
		return
	}
	s.endRelease(types.ServiceDeploymentStatusSuccessful, "")
}

// forgetReleases removes the service's history, as ECS does when a service is deleted: a part of it, and says whether there is more.
func (s *step) forgetReleases() (more bool) {
	n := 0
	for d := range controlplane.ServiceDeployments.Scan(s.tx, controlplane.Services.Key(s.service)) {
		if n++; n > cleanStep {
			return true
		}
		controlplane.ServiceDeployments.Delete(s.tx, controlplane.ServiceDeployments.Key(d))
	}
	for r := range controlplane.ServiceRevisions.Scan(s.tx, controlplane.Services.Key(s.service)) {
		if n++; n > 2*cleanStep {
			return true
		}
		controlplane.ServiceRevisions.Delete(s.tx, controlplane.ServiceRevisions.Key(r))
	}
	return false
}
