package dns

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/seed-2f228079/neargate/api/agent"
)

// maxAnswers is how many records a multivalue answer has: Cloud Map gives up to eight at random.
const maxAnswers = 8

// negativeTTL is how long resolvers may remember that a name is not there: a service may come at any moment.
const negativeTTL = 5

// scope is an account in a region; the zero scope is everybody's.
type scope struct{ account, region string }

// view is the zones that one asker sees, by name.
type view map[string]*zone

// table is all zones, immutable.
type table struct {
	shared  view           // the zero scope's alone
	private map[scope]view // each with the shared ones
	all     view           // where names collide, the first account's in order
}

type zone struct {
	soa     dns.RR
	names   map[string]map[uint16]*set // lower case, fully qualified → type → records
	owner   scope
	soaWire []byte // the record as an authority section has it
}

// set is the records of one name and type.
type set struct {
	records []dns.RR
	policy  string   // multivalue, weighted, local
	wire    [][]byte // of addresses: each record as an answer has it whose name is that of the question; nil: the slow path
}

// index makes a table of compiled zones by resource name.
func index(zones map[string]*zone) *table {
	t := &table{shared: view{}, private: map[scope]view{}, all: view{}}
	names := slices.Collect(maps.Keys(zones))
	slices.SortFunc(names, func(a, b string) int {
		x, y := zones[a].owner, zones[b].owner
		return cmp.Or(strings.Compare(x.account, y.account), strings.Compare(x.region, y.region), strings.Compare(a, b))
	})
	put := func(v view, z *zone) {
		if name := z.soa.Header().Name; v[name] == nil {
			v[name] = z
		}
	}
	for _, n := range names { // the zero scope's come first
		z := zones[n]
		put(t.all, z)
		if z.owner == (scope{}) {
			put(t.shared, z)
			continue
		}
		if t.private[z.owner] == nil {
			t.private[z.owner] = maps.Clone(t.shared)
		}
		put(t.private[z.owner], z)
	}
	return t
}

// view is what the asker at an address sees. A task sees its own account's and region's zones and the shared ones. This host itself sees
// all. Somebody unknown sees private zones only while they are all one owner's: then there is nothing to keep apart.
func (t *table) view(from netip.Addr, owner func(netip.Addr) (account, region string, ok bool)) view {
	if owner != nil {
		if account, region, ok := owner(from); ok {
			if v := t.private[scope{account, region}]; v != nil {
				return v
			}
			return t.shared
		}
	}
	if len(t.private) <= 1 || from.IsLoopback() {
		return t.all
	}
	return t.shared
}

// compile drops what cannot be read: the control plane checks values before it stores them. It is nil when not even the name can.
func compile(in *agent.Zone) *zone {
	name := dns.Fqdn(strings.ToLower(in.Name))
	soa, err := dns.NewRR(fmt.Sprintf("%s %d IN SOA ns.%s hostmaster.%s 1 7200 900 1209600 %d", name, negativeTTL, name, name, negativeTTL))
	if err != nil || soa == nil {
		return nil
	}
	z := &zone{soa: soa, soaWire: packed(soa), names: map[string]map[uint16]*set{name: {}}, owner: scope{in.Account, in.Region}}
	for _, rs := range in.Records {
		z.add(name, rs)
	}
	return z
}

func (z *zone) add(zoneName string, rs *agent.RecordSet) {
	name, kind := dns.Fqdn(strings.ToLower(rs.Name)), dns.StringToType[rs.Type]
	if kind == 0 || !dns.IsSubDomain(zoneName, name) {
		return
	}
	s := &set{policy: rs.Policy}
	for _, v := range rs.Values {
		if rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", name, rs.Ttl, rs.Type, v)); err == nil && rr != nil {
			s.records = append(s.records, rr)
		}
	}
	// Names between this one and the zone exist, without records.
	for n := name; n != zoneName; {
		if z.names[n] == nil {
			z.names[n] = map[uint16]*set{}
		}
		i, end := dns.NextLabel(n, 0)
		if end {
			break
		}
		n = n[i:]
	}
	if len(s.records) > 0 {
		if (kind == dns.TypeA || kind == dns.TypeAAAA) && s.policy != "local" {
			for _, rr := range s.records {
				s.wire = append(s.wire, answerWire(rr))
			}
		}
		z.names[name][kind] = s
	}
}

// zone is the longest zone that name is in; nil: none of ours.
func (v view) zone(name string) *zone {
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		if z := v[name[off:]]; z != nil {
			return z
		}
	}
	return nil
}

// fill puts the answer to q into m.
func (z *zone) fill(m *dns.Msg, q dns.Question, local net.IP) {
	name := strings.ToLower(q.Name)
	// A chain of aliases within the zone is followed, but not for ever.
	for range 8 {
		types, ok := z.names[name]
		if !ok {
			if len(m.Answer) == 0 {
				m.Rcode = dns.RcodeNameError
			}
			m.Ns = []dns.RR{z.soa}
			return
		}
		if s := types[q.Qtype]; s != nil {
			m.Answer = append(m.Answer, withCase(s.choose(local), name, q.Name)...)
			if q.Qtype == dns.TypeSRV {
				z.additional(m)
			}
			return
		}
		alias := types[dns.TypeCNAME]
		if alias == nil {
			if q.Qtype == dns.TypeSOA && name == z.soa.Header().Name {
				m.Answer = []dns.RR{z.soa}
				return
			}
			m.Ns = []dns.RR{z.soa} // the name is there, the type is not
			return
		}
		chosen := alias.choose(local)[:1]
		m.Answer = append(m.Answer, withCase(chosen, name, q.Name)...)
		name = strings.ToLower(chosen[0].(*dns.CNAME).Target)
		if !dns.IsSubDomain(z.soa.Header().Name, name) {
			return // the client asks for it anew
		}
	}
}

// additional adds the addresses of the hosts that SRV records name.
func (z *zone) additional(m *dns.Msg) {
	for _, rr := range m.Answer {
		srv, ok := rr.(*dns.SRV)
		if !ok {
			continue
		}
		if types := z.names[strings.ToLower(srv.Target)]; types != nil {
			if s := types[dns.TypeA]; s != nil {
				m.Extra = append(m.Extra, s.records...)
			}
		}
	}
}

// choose picks records by the set's policy.
//
// A "local" set names this host's proxies: on a loopback address the values are reachable and answered; anywhere else, that is from
// a task, the address that the query came to is answered, since the proxies listen there too.
func (s *set) choose(local net.IP) []dns.RR {
	switch s.policy {
	case "local":
		if ip4 := local.To4(); ip4 != nil && !local.IsLoopback() && !local.IsUnspecified() {
			if a, ok := s.records[0].(*dns.A); ok {
				return []dns.RR{&dns.A{Hdr: a.Hdr, A: ip4}}
			}
		}
		return s.records
	case "weighted":
		return []dns.RR{s.records[rand.IntN(len(s.records))]}
	}
	if len(s.records) == 1 {
		return s.records
	}
	out := make([]dns.RR, 0, min(len(s.records), maxAnswers))
	for _, i := range rand.Perm(len(s.records))[:cap(out)] {
		out = append(out, s.records[i])
	}
	return out
}

// withCase gives the records the name as it was asked, since some resolvers compare its case (0x20).
func withCase(records []dns.RR, name, asked string) []dns.RR {
	if name == asked || !strings.EqualFold(name, asked) {
		return records
	}
	out := make([]dns.RR, len(records))
	for i, r := range records {
		out[i] = dns.Copy(r)
		out[i].Header().Name = asked
	}
	return out
}
