package controlplane

import (
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/id"
)

// A service's events are kept in pages: what is said is written to the log of every server, and an event that names many tasks is long, so with
// a new event its page is written, and not all of them. Builds of before kept a service's events in one record, page 0, which is only read now.
//
// Invariant: pages are numbered in the order of their events, and all but the newest are full.
const (
	// serviceEventsKept is how many events ECS shows of a service.
	serviceEventsKept = 100
	// pageEvents is how many a page takes.
	pageEvents = 10
	// pagesRemoved is how many pages that are not shown any more one event removes: a transaction is bounded.
	pagesRemoved = 2
)

func eventPageKey(service state.Key, page uint64) state.Key {
	if page == 0 {
		return service
	}
	return service + state.K(fmt.Sprintf("%016x", ^page))
}

// AppendServiceEvent puts message on top of the service's events. The same message as the one on top is not repeated: a
// reconciler that finds the same obstacle every time it looks says so once.
func AppendServiceEvent(tx *state.Tx, s *Service, message string, now time.Time, rand io.Reader) {
	key := s.Scope().Key(s.Cluster, s.Name)
	page, older := uint64(1), []*ServiceEvent(nil)
	shown, removed := 0, 0
	for p := range eventPagesOf(tx, key) {
		switch {
		case shown == 0 && p.Events[0].Message == message:
			return
		case shown == 0 && p.Page > 0 && len(p.Events) < pageEvents:
			page, older = p.Page, p.Events
		case shown == 0:
			page = p.Page + 1
		case shown >= serviceEventsKept && removed < pagesRemoved:
			ServiceEventRings.Delete(tx, eventPageKey(key, p.Page))
			removed++
		}
		shown += len(p.Events)
	}
	events := append([]*ServiceEvent{{Id: id.UUID(rand), Created: timestamppb.New(now), Message: message}}, older...)
	ServiceEventRings.Put(tx, &ServiceEvents{Account: s.Account, Region: s.Region, Cluster: s.Cluster, Service: s.Name, Page: page, Events: events})
}

// ServiceEventsOf are a service's events, the newest first.
func ServiceEventsOf(r state.Reader, service state.Key) (events []*ServiceEvent) {
	for p := range eventPagesOf(r, service) {
		if p.Page == 0 { // a build of before may have written it again since
			events = append(events, p.Events...)
			slices.SortStableFunc(events, func(a, b *ServiceEvent) int { return b.Created.AsTime().Compare(a.Created.AsTime()) })
		} else if len(events) < serviceEventsKept {
			events = append(events, p.Events...)
		}
	}
	return events[:min(len(events), serviceEventsKept)]
}

// DeleteServiceEvents removes the events of a service that is over: a dozen records.
func DeleteServiceEvents(tx *state.Tx, service state.Key) {
	for p := range eventPagesOf(tx, service) {
		ServiceEventRings.Delete(tx, ServiceEventRings.Key(p))
	}
}

// eventPagesOf yields a service's pages, the newest first.
func eventPagesOf(r state.Reader, service state.Key) iter.Seq[*ServiceEvents] {
	return func(yield func(*ServiceEvents) bool) {
		var before *ServiceEvents
		for p := range ServiceEventRings.Scan(r, service) {
			if p.Page == 0 {
				before = p
			} else if !yield(p) {
				return
			}
		}
		if before != nil && len(before.Events) > 0 {
			yield(before)
		}
	}
}
