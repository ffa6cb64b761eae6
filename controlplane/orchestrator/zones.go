package orchestrator

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// byZone yields names by zone, in their order.
func byZone[T any](list []T, of func(T) (zone, id string)) iter.Seq2[string, []string] {
	names := map[string][]string{}
	for _, one := range list {
		zone, id := of(one)
		names[zone] = append(names[zone], "(task "+id+")")
	}
	return func(yield func(string, []string) bool) {
		for _, zone := range slices.Sorted(maps.Keys(names)) {
			if !yield(zone, names[zone]) {
				return
			}
		}
	}
}

// serverlessPool stands for the hosts of FARGATE tasks; clusters are named by their keys.
const serverlessPool = state.Key("serverless")

func serverlessOnly(s *controlplane.Service) bool {
	return s.LaunchType == string(types.LaunchTypeFargate) || strings.Contains(s.CapacityProviderStrategyJson, `"FARGATE`)
}

// pool is where the service's tasks go.
func (s *step) pool() state.Key {
	if serverlessOnly(s.service) {
		return serverlessPool
	}
	return s.service.Scope().Key(s.service.Cluster)
}

// hostsOf yields the nodes of a pool that take tasks. The instance is nil in the serverless one.
func hostsOf(v *state.View, pool state.Key) iter.Seq2[*controlplane.Node, *controlplane.ContainerInstance] {
	open := func(n *controlplane.Node) bool {
		return n.Status == capacity.NodeReady && n.Health.GetDisk() == "" && n.Attributes[zoneAttribute] != ""
	}
	return func(yield func(*controlplane.Node, *controlplane.ContainerInstance) bool) {
		if pool == serverlessPool {
			for n := range controlplane.Nodes.Scan(v, state.K()) {
				if n.Serverless && open(n) && !yield(n, nil) {
					return
				}
			}
			return
		}
		for c := range controlplane.ContainerInstances.Scan(v, pool) {
			if n, ok := controlplane.Nodes.Get(v, state.K(c.Node)); ok && c.Status == capacity.Active && open(n) && !yield(n, c) {
				return
			}
		}
	}
}

const zoneAttribute = "ecs.availability-zone"

// zones are those in which pools have hosts, since a node or a container instance last changed.
type zones struct {
	nodes, instances state.Version

	mu sync.Mutex
	of map[state.Key][]string // by pool
}

// names are those of the pool in v, whose tables are of z's versions.
func (z *zones) names(v *state.View, pool state.Key) []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	names, ok := z.of[pool]
	if !ok {
		set := map[string]bool{}
		for n := range hostsOf(v, pool) {
			set[n.Attributes[zoneAttribute]] = true
		}
		names = slices.Sorted(maps.Keys(set))
		z.of[pool] = names
	}
	return names
}

// zonesCache has the last ones.
type zonesCache struct {
	mu   sync.Mutex
	last *zones
}

// of are the zones of v's versions of the tables.
func (c *zonesCache) of(v *state.View) *zones {
	c.mu.Lock()
	defer c.mu.Unlock()
	nodes, instances := controlplane.Nodes.Version(v), controlplane.ContainerInstances.Version(v)
	if c.last == nil || c.last.nodes != nodes || c.last.instances != instances {
		c.last = &zones{nodes: nodes, instances: instances, of: map[state.Key][]string{}}
	}
	return c.last
}

// balanceHosts are the hosts, by zone, that can have a task of the service apart from what others have of them.
func (s *step) balanceHosts() map[string][]*controlplane.Node {
	def, ok := controlplane.TaskDefinitions.Get(s.v, s.service.Scope().FamilyRevisionKey(s.primary.TaskDefinition))
	if !ok {
		return nil
	}
	meets, dynamic := s.hostConstraints(def)
	if dynamic {
		return nil // what it asks of its hosts changes with what they have, so the scheduler alone knows where there is room
	}
	hosts := map[string][]*controlplane.Node{}
	for n, c := range hostsOf(s.v, s.pool()) {
		if c == nil {
			c = &controlplane.ContainerInstance{Node: n.Id} // of the pool, which has no attributes of its own
		}
		if s.canHave(def, n) && hasAttributes(def.Demand, c, n) && meets(c, n) {
			zone := n.Attributes[zoneAttribute]
			hosts[zone] = append(hosts[zone], n)
		}
	}
	return hosts
}

// hasAttributes says whether the host has those that the demand asks for.
func hasAttributes(d *controlplane.Demand, c *controlplane.ContainerInstance, n *controlplane.Node) bool {
	return !slices.ContainsFunc(d.GetAttributes(), func(want string) bool {
		name, value, valued := strings.Cut(want, "=")
		has := capacity.Facts(c, n, "attribute:"+name)
		return len(has) == 0 || valued && has[0] != value
	})
}

// roomIn says, and takes, whether a host of a zone has room for one task more. It is the scheduler that places it: where that finds no room
// after all, the task waits for some.
func (s *step) roomIn(hosts map[string][]*controlplane.Node, seats []seat) func(zone string) bool {
	def, _ := controlplane.TaskDefinitions.Get(s.v, s.service.Scope().FamilyRevisionKey(s.primary.TaskDefinition))
	used := map[string]*taken{}
	alone := strings.Contains(s.service.PlacementConstraintsJson, `"`+string(types.PlacementConstraintTypeDistinctInstance)+`"`)
	return func(zone string) bool {
		for _, n := range hosts[zone] {
			has := used[n.Id]
			if has == nil {
				has = s.taken(n)
				has.own = alone && slices.ContainsFunc(seats, func(one seat) bool { return one.host == s.known.in(s.v, n.Id).at })
				used[n.Id] = has
			}
			if has.fits(n, def.GetDemand()) {
				has.take(def.GetDemand())
				has.own = alone
				return true
			}
		}
		return false
	}
}

type hostPort struct {
	port     uint32
	protocol string
}

// taken is what tasks have of a host.
type taken struct {
	cpu, memory, gpus uint32
	ports             map[hostPort]bool
	own               bool // it has a task of the service, which wants no host twice
}

func (s *step) taken(n *controlplane.Node) *taken {
	u := &taken{ports: map[hostPort]bool{}}
	for st := range controlplane.LiveTasksByNode.Scan(s.v, state.K(n.Id)) {
		if t, ok := controlplane.Tasks.Get(s.v, controlplane.TaskStatuses.Key(st)); ok {
			u.take(t.Demand)
		}
	}
	return u
}

func (u *taken) take(d *controlplane.Demand) {
	u.cpu += d.GetCpuUnits()
	u.memory += d.GetMemoryMib()
	u.gpus += d.GetGpus()
	for _, p := range d.GetHostPorts() {
		u.ports[hostPort{p.Port, p.Protocol}] = true
	}
}

func (u *taken) fits(n *controlplane.Node, d *controlplane.Demand) bool {
	r := n.Resources
	return !u.own && u.cpu+d.GetCpuUnits() <= r.GetCpuUnits() && u.memory+d.GetMemoryMib() <= r.GetMemoryMib() && u.gpus+d.GetGpus() <= uint32(len(r.GetGpus())) &&
		!slices.ContainsFunc(d.GetHostPorts(), func(p *controlplane.HostPort) bool {
			if u.ports[hostPort{p.Port, p.Protocol}] {
				return true
			}
			for _, reserved := range r.GetReservedPorts() {
				if reserved.First <= p.Port && p.Port <= max(reserved.First, reserved.Last) && (reserved.Protocol == "" || reserved.Protocol == p.Protocol) {
					return true
				}
			}
			return false
		})
}
