package orchestrator

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Restart throttling ("Service throttle logic" in the ECS guide): a task that ends by itself before it has run for stableAfter
// counts as failed. The first freeWaves rounds of failures are replaced at once, then the pause doubles up to maxBackoff.
const (
	stableAfter  = time.Minute
	freeWaves    = 3
	firstBackoff = 10 * time.Second
	maxBackoff   = 15 * time.Minute
)

// failures counts the tasks of a deployment that failed, with reset only since the last one that ran stably, and gives the
// last one. Those that ran but were replaced as unhealthy are counted apart: the circuit breaker counts them, the throttle does not.
func failures(v *state.View, s *controlplane.Service, d *controlplane.Deployment, reset bool) (count int, last *controlplane.TaskStatus, unhealthy int) {
	var stopped []*controlplane.TaskStatus
	ended := map[string]state.Revision{} // in which a task did: what clocks say of the order may be wrong, if one was set
	for status := range controlplane.FailedTasksByService.Scan(v, s.Scope().Key(s.Cluster, s.Name)) {
		t, ok := controlplane.Tasks.Get(v, controlplane.TaskStatuses.Key(status))
		switch {
		case !ok || t.Deployment != d.Id || status.Stopped.AsTime().Before(d.RolledBack.AsTime()):
		case status.StopCode == stopEssential || status.StopCode == stopFailedToStart:
			stopped = append(stopped, status)
			_, ended[status.Id], _ = controlplane.TaskStatuses.GetRevision(v, controlplane.TaskStatuses.Key(status))
		case strings.HasPrefix(status.StoppedReason, controlplane.FailedHealth):
			unhealthy++
		}
	}
	slices.SortFunc(stopped, func(a, b *controlplane.TaskStatus) int {
		return cmp.Or(cmp.Compare(ended[b.Id], ended[a.Id]), b.Stopped.AsTime().Compare(a.Stopped.AsTime()))
	})
	for _, status := range stopped {
		if !ranStably(status) {
			count++
		} else if reset {
			break
		}
	}
	if count > 0 {
		last = stopped[0]
	}
	return count, last, unhealthy
}

func ranStably(s *controlplane.TaskStatus) bool {
	started := s.Report.GetStarted()
	return started != nil && s.Stopped.AsTime().Sub(started.AsTime()) >= stableAfter
}

// backoff is the pause after so many failed tasks of a service that wants desired of them.
func backoff(failed, desired int) time.Duration {
	waves := failed / max(desired, 1)
	if waves < freeWaves {
		return 0
	}
	if waves-freeWaves > 10 {
		return maxBackoff
	}
	return min(firstBackoff<<(waves-freeWaves), maxBackoff)
}
