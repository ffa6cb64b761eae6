package controlplane

import (
	"cmp"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/id"
)

// A service deployment is the history of a Deployment: where a Deployment is what the orchestrator works with, and goes with its last task, a
// service deployment says what was released, from what, and how it ended, and stays.
//
// Invariants: a service has at most one that is not over, and it is Service.service_deployment; its target, or after a rollback its
// rollback_revision, is the PRIMARY deployment; every revision that one names has a record.

// ServiceDeploymentsKept bounds those of one service; AWS keeps them for as long as ServiceDeploymentLife, whatever their number.
const (
	ServiceDeploymentsKept = 100
	ServiceDeploymentLife  = 90 * 24 * time.Hour
)

// Over says whether nothing will become of the service deployment any more.
func (d *ServiceDeployment) Over() bool {
	switch types.ServiceDeploymentStatus(d.GetStatus()) {
	case types.ServiceDeploymentStatusSuccessful, types.ServiceDeploymentStatusStopped, types.ServiceDeploymentStatusRollbackSuccessful,
		types.ServiceDeploymentStatusRollbackFailed, "":
		return true
	}
	return false
}

// LastServiceDeployment is the service's, under way or over; nil: none was begun since there are such records.
func LastServiceDeployment(r state.Reader, s *Service) *ServiceDeployment {
	d, _ := ServiceDeployments.Get(r, s.Scope().Key(s.Cluster, s.Name, s.ServiceDeployment))
	return d
}

// BeginServiceDeployment writes the release of d, the service's new PRIMARY deployment, and ends the one that is under way. before are the
// deployments that it replaces. The service is changed, and not written.
func BeginServiceDeployment(tx *state.Tx, s *Service, d *Deployment, before []*Deployment, now time.Time, rand io.Reader) {
	if old := LastServiceDeployment(tx, s); !old.Over() {
		EndServiceDeployment(tx, s, old, types.ServiceDeploymentStatusStopped, "A newer service deployment began.", nil, now)
	}
	at := timestamppb.New(now)
	release := &ServiceDeployment{
		Account: s.Account, Region: s.Region, Cluster: s.Cluster, Service: s.Name, Id: serviceDeploymentID(rand),
		Status: string(types.ServiceDeploymentStatusInProgress), Target: &RevisionCount{Revision: RevisionID(d.Id)},
		Created: at, Started: at, Updated: at, Breaker: string(types.ServiceDeploymentRollbackMonitorsStatusDisabled),
	}
	given := DecodeShape[types.DeploymentConfiguration](s.DeploymentConfigurationJson)
	least, most := int32(s.MinimumHealthyPercent), int32(s.MaximumPercent)
	given.MinimumHealthyPercent, given.MaximumPercent, given.Strategy = &least, &most, types.DeploymentStrategyRolling
	release.DeploymentConfigurationJson = EncodeShape(given)
	if b := given.DeploymentCircuitBreaker; b != nil && b.Enable {
		release.Breaker = string(types.ServiceDeploymentRollbackMonitorsStatusMonitoring)
	}
	putRevision(tx, d)
	for _, source := range before {
		putRevision(tx, source)
		release.Sources = append(release.Sources, &RevisionCount{Revision: RevisionID(source.Id)})
	}
	ServiceDeployments.Put(tx, release)
	s.ServiceDeployment = release.Id
	forgetReleases(tx, s)
}

// EndServiceDeployment says how d ended; counts are the tasks of its revisions, where they matter.
func EndServiceDeployment(tx *state.Tx, s *Service, d *ServiceDeployment, status types.ServiceDeploymentStatus, reason string, counts map[string]*RevisionCount, now time.Time) {
	d = proto.CloneOf(d)
	d.Status, d.StatusReason, d.Updated = string(status), reason, timestamppb.New(now)
	d.Finished = d.Updated
	if status == types.ServiceDeploymentStatusStopped {
		d.Stopped = d.Updated
	}
	if d.Breaker == string(types.ServiceDeploymentRollbackMonitorsStatusMonitoring) {
		d.Breaker = string(types.ServiceDeploymentRollbackMonitorsStatusMonitoringComplete)
	}
	d.Threshold = uint32(BreakerThreshold(DecodeShape[types.DeploymentConfiguration](d.DeploymentConfigurationJson).DeploymentCircuitBreaker, int(s.DesiredCount)))
	for _, n := range append(slices.Clone(d.Sources), d.Target) {
		if c := counts[n.Revision]; c != nil {
			n.Requested, n.Running, n.Pending = c.Requested, c.Running, c.Pending
		}
	}
	ServiceDeployments.Put(tx, d)
}

// CountRevisions counts the service's tasks by revision. Of the PRIMARY deployment as many as the service wants are requested, of others those that
// nobody has asked to stop. A task that leaves counts as running while it runs, as in ECS: a service is not stable before it is gone.
func CountRevisions(r state.Reader, s *Service) map[string]*RevisionCount {
	primary := RevisionID(s.PrimaryDeployment)
	counts := map[string]*RevisionCount{primary: {Revision: primary}}
	last, n := "", (*RevisionCount)(nil) // most tasks are of the deployment of the one before
	for key, st := range LiveTasksByService.ScanKeys(r, s.Scope().Key(s.Cluster, s.Name)) {
		deployment := st.Deployment
		if deployment == "" {
			t, ok := Tasks.Get(r, key)
			if !ok {
				continue
			}
			deployment = t.Deployment
		}
		if n == nil || deployment != last {
			last = deployment
			revision := RevisionID(last)
			if n = counts[revision]; n == nil {
				n = &RevisionCount{Revision: revision}
				counts[revision] = n
			}
		}
		if st.Desired <= agentapi.TaskState_RUNNING {
			n.Requested++
		}
		switch {
		case st.Observed == agentapi.TaskState_RUNNING:
			n.Running++
		case st.Observed < agentapi.TaskState_RUNNING:
			n.Pending++
		}
	}
	if s.SchedulingStrategy != string(types.SchedulingStrategyDaemon) {
		counts[primary].Requested = s.DesiredCount
	}
	return counts
}

// BreakerThreshold is how many failed tasks fail a deployment: half of the desired count, but from 3 to 200, unless another is configured.
func BreakerThreshold(b *types.DeploymentCircuitBreaker, desired int) int {
	c := &types.ThresholdConfiguration{Type: types.ThresholdTypeBoundedPercent, Value: 50}
	if b != nil && b.ThresholdConfiguration != nil {
		c = b.ThresholdConfiguration
	}
	share := (desired*int(c.Value) + 99) / 100
	switch c.Type {
	case types.ThresholdTypeCount:
		return max(1, int(c.Value))
	case types.ThresholdTypeUnboundedPercent:
		return max(1, share)
	}
	return max(3, min(200, share))
}

// putRevision keeps what the deployment's tasks are made of, unless it is kept already.
func putRevision(tx *state.Tx, d *Deployment) {
	r := &ServiceRevision{
		Account: d.Account, Region: d.Region, Cluster: d.Cluster, Service: d.Service, Id: RevisionID(d.Id), TaskDefinition: d.TaskDefinition,
		LaunchType: d.LaunchType, PlatformVersion: d.PlatformVersion, NetworkConfigurationJson: d.NetworkConfigurationJson,
		CapacityProviderStrategyJson: d.CapacityProviderStrategyJson, LoadBalancersJson: d.LoadBalancersJson,
		ServiceRegistriesJson: d.ServiceRegistriesJson, Created: d.Created,
	}
	if _, ok := ServiceRevisions.Get(tx, ServiceRevisions.Key(r)); ok {
		return
	}
	if def, ok := TaskDefinitions.Get(tx, d.Scope().FamilyRevisionKey(d.TaskDefinition)); ok {
		var images []types.ContainerImage
		for _, c := range def.Shape().ContainerDefinitions {
			image := types.ContainerImage{ContainerName: c.Name, Image: c.Image}
			if digest := d.ImageDigests[*c.Name]; digest != "" {
				image.ImageDigest = &digest
			}
			images = append(images, image)
		}
		r.ContainerImagesJson = EncodeShape(images)
	}
	ServiceRevisions.Put(tx, r)
}

// forgetReleases removes the oldest of those that are too many.
func forgetReleases(tx *state.Tx, s *Service) {
	all := slices.Collect(ServiceDeployments.Scan(tx, s.Scope().Key(s.Cluster, s.Name)))
	slices.SortFunc(all, func(a, b *ServiceDeployment) int {
		return cmp.Or(a.Created.AsTime().Compare(b.Created.AsTime()), cmp.Compare(a.Id, b.Id))
	})
	for _, d := range all[:max(0, len(all)-ServiceDeploymentsKept)] {
		if d.Id != s.ServiceDeployment {
			DeleteServiceDeployment(tx, d)
		}
	}
}

// DeleteServiceDeployment removes it, and the revisions that no other one of the service names.
func DeleteServiceDeployment(tx *state.Tx, d *ServiceDeployment) {
	ServiceDeployments.Delete(tx, ServiceDeployments.Key(d))
	gone := d.revisions()
	for other := range ServiceDeployments.Scan(tx, d.Scope().Key(d.Cluster, d.Service)) {
		if other.Id != d.Id {
			for revision := range other.revisions() {
				delete(gone, revision)
			}
		}
	}
	for _, revision := range slices.Sorted(maps.Keys(gone)) {
		ServiceRevisions.Delete(tx, d.Scope().Key(d.Cluster, d.Service, revision))
	}
}

// revisions are all that it names.
func (d *ServiceDeployment) revisions() map[string]bool {
	all := map[string]bool{d.GetTarget().GetRevision(): true}
	for _, s := range d.Sources {
		all[s.Revision] = true
	}
	if d.RollbackRevision != "" {
		all[d.RollbackRevision] = true
	}
	return all
}

// serviceDeploymentID is 21 characters, as ECS's.
func serviceDeploymentID(rand io.Reader) string { return id.Hex(rand, 21) }
