package elb

import (
	"maps"
	"slices"

	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Names gives DNS servers the zones of load balancers' names, one a region.
type Names struct{ Service *Service }

// Tables are those the zones are made of.
func (Names) Tables() []state.TableInfo { return []state.TableInfo{LoadBalancers} }

// Zones has every load balancer's own name. The policy "local" has a server answer where the load balancer can be reached from:
// its own address on this host, the address that the query came to for a task.
func (n Names) Zones(v *state.View) []*agent.Zone {
	return n.zones(v, nil)
}

// Changed are the zones of the regions in which a load balancer changed; a region without load balancers has an empty one.
func (n Names) Changed(v *state.View, events []state.Event) []*agent.Zone {
	regions := map[string]bool{}
	for _, e := range events {
		for _, m := range []any{e.Old, e.New} {
			if lb, ok := m.(*LoadBalancer); ok && lb != nil {
				regions[lb.Region] = true
			}
		}
	}
	if len(regions) == 0 {
		return nil
	}
	return n.zones(v, regions)
}

// zones are those of the regions; nil: of all.
func (n Names) zones(v *state.View, regions map[string]bool) []*agent.Zone {
	domain := n.Service.Domain
	if domain == "" {
		domain = "localhost"
	}
	zones := map[string]*agent.Zone{}
	zone := func(region string) *agent.Zone {
		if zones[region] == nil {
			zones[region] = &agent.Zone{Name: region + ".elb." + domain + "."}
		}
		return zones[region]
	}
	for region := range regions {
		zone(region)
	}
	for lb := range LoadBalancers.Scan(v, state.K()) {
		if regions == nil || regions[lb.Region] {
			z := zone(lb.Region)
			z.Records = append(z.Records, &agent.RecordSet{Name: n.Service.DNSName(lb) + ".", Type: "A", Ttl: 60, Values: []string{lb.Address}, Policy: "local"})
		}
	}
	return slices.Collect(maps.Values(zones))
}
