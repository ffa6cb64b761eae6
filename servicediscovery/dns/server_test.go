package dns

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/seed-2f228079/neargate/api/agent"
)

func start(t *testing.T, upstreams ...string) *Server {
	s := New(Config{Addresses: []string{"127.0.0.1:0"}, Upstreams: append([]string{}, upstreams...)})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}

func records(name, kind, policy string, values ...string) *agent.RecordSet {
	return &agent.RecordSet{Name: name, Type: kind, Ttl: 7, Values: values, Policy: policy}
}

func apply(t *testing.T, s *Server, zones ...*agent.Zone) {
	u := &agent.Update{Kind: agent.Kind_ZONES, Full: true}
	for _, z := range zones {
		u.Resources = append(u.Resources, &agent.Resource{Name: z.Name, Body: &agent.Resource_Zone{Zone: z}})
	}
	if err := s.Apply(context.Background(), u); err != nil {
		t.Fatal(err)
	}
}

func ask(t *testing.T, s *Server, network, name string, kind uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	m, _, err := (&dns.Client{Net: network, Timeout: time.Minute}).Exchange(q, s.Addresses()[0])
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func values(m *dns.Msg) string {
	var out []string
	for _, r := range m.Answer {
		out = append(out, strings.TrimPrefix(r.String(), r.Header().String()))
	}
	return strings.Join(out, "|")
}

func TestAnswers(t *testing.T) {
	s := start(t)
	var many []string
	for i := range 60 {
		many = append(many, fmt.Sprintf("10.0.1.%d", i))
	}
	apply(t, s, &agent.Zone{Name: "prod.local.", Records: []*agent.RecordSet{
		records("web.prod.local.", "A", "multivalue", "10.0.0.1"),
		records("web.prod.local.", "SRV", "multivalue", "1 1 3000 t1.web.prod.local."),
		records("t1.web.prod.local.", "A", "multivalue", "10.0.0.1"),
		records("many.prod.local.", "A", "multivalue", many...),
		records("one.prod.local.", "A", "weighted", many...),
		records("alias.prod.local.", "CNAME", "weighted", "web.prod.local."),
		records("a.b.prod.local.", "A", "", "10.0.0.9"),
		records("lb.prod.local.", "A", "local", "127.9.9.9"),
	}})
	for _, c := range []struct {
		name  string
		kind  uint16
		rcode int
		want  string
	}{
		{"web.prod.local.", dns.TypeA, 0, "10.0.0.1"},
		{"WEB.Prod.Local.", dns.TypeA, 0, "10.0.0.1"},
		{"web.prod.local.", dns.TypeAAAA, 0, ""},
		{"web.prod.local.", dns.TypeSRV, 0, "1 1 3000 t1.web.prod.local."},
		{"alias.prod.local.", dns.TypeA, 0, "web.prod.local.|10.0.0.1"},
		{"b.prod.local.", dns.TypeA, 0, ""}, // exists between others
		{"none.prod.local.", dns.TypeA, dns.RcodeNameError, ""},
		{"lb.prod.local.", dns.TypeA, 0, "127.9.9.9"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			m := ask(t, s, network, c.name, c.kind)
			if m.Rcode != c.rcode || values(m) != c.want {
				t.Errorf("%s %s: %s %q, want %q", c.name, dns.TypeToString[c.kind], dns.RcodeToString[m.Rcode], values(m), c.want)
			}
			if c.want == "" && (len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeSOA) {
				t.Errorf("%s: an empty answer without SOA", c.name)
			}
			if c.want != "" && m.Answer[0].Header().Name != c.name {
				t.Errorf("asked %s, answered %s", c.name, m.Answer[0].Header().Name)
			}
		}
	}
	if m := ask(t, s, "udp", "web.prod.local.", dns.TypeSRV); len(m.Extra) != 1 {
		t.Errorf("SRV without the address: %v", m.Extra)
	}
	if m := ask(t, s, "udp", "many.prod.local.", dns.TypeA); len(m.Answer) != 8 {
		t.Errorf("multivalue gives %d records", len(m.Answer))
	}
	if m := ask(t, s, "udp", "one.prod.local.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("weighted gives %d records", len(m.Answer))
	}
	apply(t, s)
	if m := ask(t, s, "udp", "web.prod.local.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("a zone that is gone: %s", dns.RcodeToString[m.Rcode])
	}
}

// TestLocal: what a load balancer's name means depends on where the question came to.
func TestLocal(t *testing.T) {
	z := compile(&agent.Zone{Name: "elb.localhost.", Records: []*agent.RecordSet{records("lb.elb.localhost.", "A", "local", "127.9.9.9")}})
	for local, want := range map[string]string{"127.0.0.1": "127.9.9.9", "172.20.0.1": "172.20.0.1"} {
		m := new(dns.Msg)
		z.fill(m, dns.Question{Name: "lb.elb.localhost.", Qtype: dns.TypeA}, net.ParseIP(local))
		if got := m.Answer[0].(*dns.A).A.String(); got != want {
			t.Errorf("asked at %s: %s, want %s", local, got, want)
		}
	}
}

func TestForward(t *testing.T) {
	upstream := start(t)
	apply(t, upstream, &agent.Zone{Name: "example.", Records: []*agent.RecordSet{records("www.example.", "A", "", "192.0.2.7")}})
	s := start(t, "127.0.0.1:1", upstream.Addresses()[0])
	if m := ask(t, s, "udp", "www.example.", dns.TypeA); values(m) != "192.0.2.7" {
		t.Errorf("forwarded: %v", m)
	}
}

func TestTruncation(t *testing.T) {
	s := start(t)
	var texts []string
	for i := range 8 {
		texts = append(texts, fmt.Sprintf("%q", strings.Repeat(fmt.Sprint(i), 200)))
	}
	apply(t, s, &agent.Zone{Name: "z.", Records: []*agent.RecordSet{records("big.z.", "TXT", "", texts...)}})
	if m := ask(t, s, "udp", "big.z.", dns.TypeTXT); !m.Truncated {
		t.Error("a large answer over udp is not marked truncated")
	}
	if m := ask(t, s, "tcp", "big.z.", dns.TypeTXT); m.Truncated || len(m.Answer) != 8 {
		t.Errorf("over tcp: truncated %v, %d records", m.Truncated, len(m.Answer))
	}
}

func TestAddressesChange(t *testing.T) {
	s := start(t)
	old := s.Addresses()[0]
	if err := s.SetAddresses([]string{"127.0.0.2:0"}); err != nil {
		t.Fatal(err)
	}
	if now := s.Addresses(); len(now) != 1 || !strings.HasPrefix(now[0], "127.0.0.2:") {
		t.Errorf("listens on %v", now)
	}
	if c, err := net.Dial("tcp", old); err == nil {
		c.Close()
		t.Error("the old address is still open")
	}
}

func FuzzZone(f *testing.F) {
	f.Add("web.local.", "A", "10.0.0.1", "WEB.local.")
	f.Add("x.local.", "CNAME", "x.local.", "x.local.")
	f.Fuzz(func(t *testing.T, name, kind, value, question string) {
		table := view{"local.": compile(&agent.Zone{Name: "local.", Records: []*agent.RecordSet{records(name, kind, "weighted", value)}})}
		if _, ok := dns.IsDomainName(question); !ok {
			return
		}
		question = dns.Fqdn(question)
		if z := table.zone(strings.ToLower(question)); z != nil {
			for _, q := range []uint16{dns.TypeA, dns.TypeSRV, dns.TypeCNAME} {
				z.fill(new(dns.Msg), dns.Question{Name: question, Qtype: q}, net.IPv4(127, 0, 0, 1))
			}
		}
	})
}
