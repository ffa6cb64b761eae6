package controlplane

import (
	"io"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/id"
)

// serviceEventsKept is how many events ECS shows of a service.
const serviceEventsKept = 100

// AppendServiceEvent puts message on top of the service's ring. The same message as the one on top is not repeated: a
// reconciler that finds the same obstacle every time it looks says so once.
func AppendServiceEvent(tx *state.Tx, s *Service, message string, now time.Time, rand io.Reader) {
	old, _ := ServiceEventRings.Get(tx, s.Scope().Key(s.Cluster, s.Name))
	if events := old.GetEvents(); len(events) > 0 && events[0].Message == message {
		return
	}
	ring := &ServiceEvents{Account: s.Account, Region: s.Region, Cluster: s.Cluster, Service: s.Name}
	ring.Events = append(ring.Events, &ServiceEvent{Id: id.UUID(rand), Created: timestamppb.New(now), Message: message})
	ring.Events = append(ring.Events, old.GetEvents()[:min(len(old.GetEvents()), serviceEventsKept-1)]...)
	ServiceEventRings.Put(tx, ring)
}
