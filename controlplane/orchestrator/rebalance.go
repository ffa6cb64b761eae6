package orchestrator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
)

// Availability Zone rebalancing: a service that has what it wants, but not as evenly over zones as there are hosts, gets tasks where it has few, and once these
// are healthy loses as many where it has most. A task that is started for it is bound to its zone, which no other task of a service is; that a
// rebalancing is under way, and for which desired count, stands in the primary deployment. See "Balancing an Amazon ECS service across Availability Zones".

// rebalanceAgain is when a service that is not balanced for want of room is looked at again: nothing says that there is some.
const rebalanceAgain = 5 * time.Minute

// seat is where a task of the service is.
type seat struct {
	id        string
	host      int // among the hosts
	zone      string
	created   int64
	healthy   bool
	protected bool
	moving    bool // started to balance the service, and not healthy yet
}

func rebalances(s *controlplane.Service) bool {
	return s.AvailabilityZoneRebalancing == string(types.AvailabilityZoneRebalancingEnabled)
}

// rebalance carries the look of a service that nothing else is to be done about, and says so; starting and stopping are then set.
func (s *step) rebalance() bool {
	enabled := rebalances(s.service)
	under := s.primary.Rebalancing
	desired := int(s.service.DesiredCount)
	// What is cheap to ask comes first: most looks are at services that have one zone, or something under way.
	if under == 0 && (!enabled || desired < 2 || len(s.live) != desired || s.primary.RolloutState != rolloutCompleted || len(s.zones.of(s.v).names(s.v, s.pool())) < 2) {
		return false
	}
	seats, steady := s.seats()
	if !enabled || !steady || len(seats) < desired || under != 0 && under != s.service.DesiredCount {
		return s.endRebalancing("(service %s) stopped AZ Rebalancing.", s.service.Name)
	}
	moving, healthy := 0, 0
	for _, one := range seats {
		if one.moving {
			moving++
		}
		if one.healthy {
			healthy++
		}
	}
	if under > 0 && len(seats) > desired {
		for _, id := range leave(seats, min(len(seats)-desired-moving, healthy-desired)) {
			s.stopping = append(s.stopping, victim{id, "", true})
		}
		return true
	}
	if healthy < desired || len(s.live) > desired {
		return under > 0 // a task ends, or is not well just now
	}
	zones := s.zones.of(s.v).names(s.v, s.pool())
	if balanced(seats, zones) {
		return s.endRebalancing("(service %s) is AZ balanced with %s.", s.service.Name, counts(seats, zones))
	}
	hosts := s.balanceHosts()
	zones = slices.Sorted(maps.Keys(hosts))
	if balanced(seats, zones) { // over those where it can be
		return s.endRebalancing("(service %s) is AZ balanced with %s.", s.service.Name, counts(seats, zones))
	}
	most := min(desired*int(s.service.MaximumPercent)/100-desired, lookTasks)
	to := move(seats, zones, s.roomIn(hosts, seats), most)
	if len(to) == 0 {
		s.lookAgain(rebalanceAgain)
		return s.endRebalancing("(service %s) stopped AZ Rebalancing.", s.service.Name)
	}
	if s.throttled(desired) {
		return under > 0
	}
	if under == 0 {
		s.changePrimary(func(d *controlplane.Deployment) { d.Rebalancing = s.service.DesiredCount })
		s.event("(service %s) is not AZ balanced with %s. AZ Rebalancing in progress.", s.service.Name, counts(seats, zones))
	}
	for _, zone := range to {
		t := s.newTask()
		t.AvailabilityZone = zone
		s.starting = append(s.starting, t)
	}
	return true
}

// endRebalancing says how a rebalancing that is under way has ended, and leaves the look to others.
func (s *step) endRebalancing(format string, args ...any) bool {
	if s.primary.Rebalancing != 0 {
		s.changePrimary(func(d *controlplane.Deployment) { d.Rebalancing = 0 })
		s.event(format, args...)
	}
	return false
}

// seats are the service's tasks that nobody wants gone. Steady: none of them is to be replaced, for a deployment, its instance's draining or its health.
func (s *step) seats() (list []seat, steady bool) {
	steady = s.primary.RolloutState == rolloutCompleted
	for _, m := range s.members() {
		steady = steady && m.current && m.failed == ""
		asked := m.task.AvailabilityZone
		list = append(list, seat{m.id(), m.host.at, cmp.Or(m.host.inZone, asked), m.created(), m.healthy, m.protected, asked != "" && !m.healthy})
	}
	return list, steady
}

// inZones counts seats; a zone without any counts, too.
func inZones(seats []seat, zones []string) map[string]int {
	n := map[string]int{}
	for _, zone := range zones {
		n[zone] = 0
	}
	for _, one := range seats {
		n[one.zone]++
	}
	return n
}

// balanced says whether no zone has two tasks more than another. Of a service that has tasks outside of zones nobody can say.
func balanced(seats []seat, zones []string) bool {
	has := inZones(seats, zones)
	least, most := len(seats), 0
	for _, zone := range zones {
		least = min(least, has[zone])
	}
	for _, n := range has {
		most = max(most, n)
	}
	_, outside := has[""]
	return outside || len(zones) == 0 || most-least < 2
}

// move is where tasks are to be started so that the zones have as many, but for one: each in the zone that has fewest of those with room, in place of one
// in the zone that has most which may be stopped. n bounds them.
func move(seats []seat, zones []string, room func(zone string) bool, n int) (to []string) {
	has := inZones(seats, zones)
	movable := map[string]int{}
	for _, one := range seats {
		if !one.protected {
			movable[one.zone]++
		}
	}
	open := slices.Clone(zones)
	for len(to) < n && len(open) > 0 {
		least := slices.MinFunc(open, func(a, b string) int { return cmp.Or(cmp.Compare(has[a], has[b]), cmp.Compare(a, b)) })
		from := ""
		for _, zone := range slices.Sorted(maps.Keys(movable)) {
			if movable[zone] > 0 && (from == "" || has[zone] > has[from]) {
				from = zone
			}
		}
		if from == "" || has[from]-has[least] < 2 {
			break
		}
		if !room(least) {
			open = slices.DeleteFunc(open, func(zone string) bool { return zone == least })
			continue
		}
		to = append(to, least)
		has[least]++
		has[from]--
		movable[from]--
	}
	return to
}

// leave chooses n healthy tasks to stop: from the zone that has most, there from the host that has most, the newest first.
func leave(seats []seat, n int) (ids []string) {
	zones, hosts := inZones(seats, nil), map[int]int{}
	for _, one := range seats {
		hosts[one.host]++
	}
	left := slices.DeleteFunc(slices.Clone(seats), func(one seat) bool { return one.protected || !one.healthy })
	for len(ids) < n && len(left) > 0 {
		one := slices.MinFunc(left, func(a, b seat) int {
			return cmp.Or(cmp.Compare(zones[b.zone], zones[a.zone]), cmp.Compare(hosts[b.host], hosts[a.host]), cmp.Compare(b.created, a.created), cmp.Compare(a.id, b.id))
		})
		ids = append(ids, one.id)
		zones[one.zone]--
		hosts[one.host]--
		left = slices.DeleteFunc(left, func(l seat) bool { return l.id == one.id })
	}
	return ids
}

// counts says how many tasks are in each zone, the most first.
func counts(seats []seat, zones []string) string {
	has := inZones(seats, zones)
	names := slices.SortedFunc(maps.Keys(has), func(a, b string) int { return cmp.Or(cmp.Compare(has[b], has[a]), cmp.Compare(a, b)) })
	var list []string
	for _, zone := range names {
		list = append(list, fmt.Sprintf("%d tasks in %s", has[zone], zone))
	}
	return strings.Join(list, ", ")
}

// tellStarted tells of tasks that were started.
func (s *step) tellStarted(tasks []*controlplane.Task) {
	for zone, names := range byZone(tasks, func(t *controlplane.Task) (string, string) { return t.AvailabilityZone, t.Id }) {
		if zone == "" {
			s.event("(service %s) has started %d tasks: %s.", s.service.Name, len(names), strings.Join(names, " "))
		} else {
			s.event("(service %s) has started %d tasks in %s to AZ Rebalance: %s.", s.service.Name, len(names), zone, strings.Join(names, " "))
		}
	}
}

// tellStopped tells of running tasks that were stopped.
func (s *step) tellStopped(list []victim) {
	if s.primary == nil || s.primary.Rebalancing == 0 || s.service.Status == serviceDraining {
		var names []string
		for _, v := range list {
			names = append(names, "(task "+v.id+")")
		}
		s.event("(service %s) has stopped %d running tasks: %s.", s.service.Name, len(names), strings.Join(names, " "))
		return
	}
	in := map[string]string{}
	seats, _ := s.seats()
	for _, one := range seats {
		in[one.id] = one.zone
	}
	for zone, names := range byZone(list, func(v victim) (string, string) { return in[v.id], v.id }) {
		s.event("(service %s) has stopped %d running tasks in %s due to AZ rebalancing: %s.", s.service.Name, len(names), zone, strings.Join(names, " "))
	}
}
