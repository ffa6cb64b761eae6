package servicediscovery

import (
	"strconv"
	"strings"

	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/dispatcher"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/mesh"
)

// LoadBalancerNames gives the zones of load balancers' names, made by their family.
type LoadBalancerNames interface {
	Tables() []state.TableInfo
	// Zones are all of them.
	Zones(v *state.View) []*agent.Zone
	// Changed are those that events concern; one that events emptied comes empty.
	Changed(v *state.View, events []state.Event) []*agent.Zone
}

// Source is the set ZONES: every private namespace, and the names of load balancers when Names is set. The zone of a namespace says
// whose it is: names of different accounts and regions may be the same.
type Source struct{ Names LoadBalancerNames }

// Kind is ZONES.
func (Source) Kind() agent.Kind { return agent.Kind_ZONES }

// Tables are those a zone is made of.
func (s Source) Tables() []state.TableInfo {
	tables := []state.TableInfo{Namespaces, Services, mesh.Endpoints}
	if s.Names != nil {
		tables = append(tables, s.Names.Tables()...)
	}
	return tables
}

// Full is every zone.
func (s Source) Full(v *state.View, _ string) []*agent.Resource {
	var out []*agent.Resource
	for n := range Namespaces.Scan(v, state.K()) {
		if n.Type == "DNS_PRIVATE" {
			out = append(out, zone(v, n))
		}
	}
	if s.Names != nil {
		for _, z := range s.Names.Zones(v) {
			out = append(out, nameZone(z))
		}
	}
	return out
}

func nameZone(z *agent.Zone) *agent.Resource {
	return &agent.Resource{Name: z.Name, Body: &agent.Resource_Zone{Zone: z}}
}

// Delta is the zones that events concern.
func (s Source) Delta(v *state.View, events []state.Event) []dispatcher.Change {
	changed := map[string]state.Key{} // name of the resource → key of the namespace
	add := func(account, region, id string) {
		n := &Namespace{Account: account, Region: region, Id: id}
		changed[n.ARN()] = Namespaces.Key(n)
	}
	for _, e := range events {
		for _, m := range []any{e.Old, e.New} {
			switch m := m.(type) {
			case *Namespace:
				if m != nil {
					add(m.Account, m.Region, m.Id)
				}
			case *Service:
				if m != nil {
					add(m.Account, m.Region, m.Namespace)
				}
			case *mesh.Endpoint:
				if m == nil || !m.Discovery {
					continue
				}
				// A service that is gone has an event of its own.
				if svc, err := findService(v, controlplane.Scope{Account: m.Account, Region: m.Region}, &m.Group); err == nil {
					add(svc.Account, svc.Region, svc.Namespace)
				}
			}
		}
	}
	var out []dispatcher.Change
	for name, key := range changed {
		n, ok := Namespaces.Get(v, key)
		switch {
		case !ok:
			out = append(out, dispatcher.Change{Name: name})
		case n.Type == "DNS_PRIVATE":
			out = append(out, dispatcher.Change{Name: name, Resource: zone(v, n)})
		}
	}
	if s.Names != nil {
		for _, z := range s.Names.Changed(v, events) {
			c := dispatcher.Change{Name: z.Name}
			if len(z.Records) > 0 {
				c.Resource = nameZone(z)
			}
			out = append(out, c)
		}
	}
	return out
}

// zone makes NAME.NAMESPACE of every service: what its instances have, and for SRV a name for each of them. When no instance
// is healthy all are answered, as Route 53 does.
func zone(v *state.View, n *Namespace) *agent.Resource {
	apex := strings.ToLower(n.Name) + "."
	z := &agent.Zone{Name: apex, Account: n.Account, Region: n.Region}
	for s := range Services.Scan(v, state.K(n.Account, n.Region, n.Id)) {
		name := strings.ToLower(s.Name) + "." + apex
		var all []*mesh.Endpoint
		for e := range instances(v, s) {
			all = append(all, e)
		}
		for _, rec := range s.Records {
			set := &agent.RecordSet{Name: name, Type: rec.Type, Ttl: rec.Ttl, Policy: strings.ToLower(s.RoutingPolicy)}
			for _, e := range orElseAll(all) {
				switch rec.Type {
				case "A":
					add(set, e.Address)
				case "AAAA":
					add(set, e.Attributes[attrIPv6])
				case "CNAME":
					add(set, e.Attributes[attrCNAME])
				case "SRV":
					host := strings.ToLower(e.Id) + "." + name
					set.Values = append(set.Values, "1 1 "+strconv.Itoa(int(e.Port))+" "+host)
					z.Records = append(z.Records, hostRecords(host, rec.Ttl, e)...)
				}
			}
			z.Records = append(z.Records, set)
		}
	}
	return &agent.Resource{Name: n.ARN(), Body: &agent.Resource_Zone{Zone: z}}
}

// add leaves out what an instance does not have: not every task has an IPv6 address, and none another name.
func add(set *agent.RecordSet, value string) {
	if set.Type == "CNAME" && value != "" {
		value = strings.TrimSuffix(value, ".") + "."
	}
	if value != "" {
		set.Values = append(set.Values, value)
	}
}

// hostRecords are the addresses of one instance, which its SRV record names.
func hostRecords(host string, ttl uint32, e *mesh.Endpoint) []*agent.RecordSet {
	var out []*agent.RecordSet
	if e.Address != "" {
		out = append(out, &agent.RecordSet{Name: host, Type: "A", Ttl: ttl, Values: []string{e.Address}})
	}
	if ip := e.Attributes[attrIPv6]; ip != "" {
		out = append(out, &agent.RecordSet{Name: host, Type: "AAAA", Ttl: ttl, Values: []string{ip}})
	}
	return out
}
