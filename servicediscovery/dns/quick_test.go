package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/seed-2f228079/neargate/api/agent"
)

func testView() view {
	return view{"prod.local.": compile(&agent.Zone{Name: "prod.local.", Records: []*agent.RecordSet{
		records("web.prod.local.", "A", "multivalue", "10.0.0.1"),
		records("six.prod.local.", "AAAA", "weighted", "fd00::1"),
		records("alias.prod.local.", "CNAME", "weighted", "web.prod.local."),
		records("a.b.prod.local.", "A", "", "10.0.0.9"),
		records("lb.prod.local.", "A", "local", "127.9.9.9"),
	}})}
}

// slow is the answer of the other path.
func (v view) slow(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	v.zone(strings.ToLower(q.Question[0].Name)).fill(m, q.Question[0], net.IPv4(127, 0, 0, 1))
	if q.IsEdns0() != nil {
		m.SetEdns0(1232, false)
	}
	return m
}

// TestQuickIsSlow: where the quick path answers, it answers what the other one does.
func TestQuickIsSlow(t *testing.T) {
	v := testView()
	for _, c := range []struct {
		name  string
		kind  uint16
		quick bool
	}{
		{"web.prod.local.", dns.TypeA, true},
		{"wEB.pRod.local.", dns.TypeA, true},
		{"web.prod.local.", dns.TypeAAAA, true},
		{"six.prod.local.", dns.TypeAAAA, true},
		{"b.prod.local.", dns.TypeA, true},
		{"none.prod.local.", dns.TypeA, true},
		{"prod.local.", dns.TypeA, true},
		{"alias.prod.local.", dns.TypeA, false},
		{"lb.prod.local.", dns.TypeA, false},
		{"web.prod.local.", dns.TypeSRV, false},
		{"example.com.", dns.TypeA, false},
		{`a\.b.prod.local.`, dns.TypeA, false},
	} {
		for _, edns := range []bool{false, true} {
			q := new(dns.Msg)
			q.SetQuestion(c.name, c.kind)
			if edns {
				q.SetEdns0(4096, true)
			}
			packet, err := q.Pack()
			if err != nil {
				t.Fatal(err)
			}
			answer := v.quick(nil, packet)
			if (answer != nil) != c.quick {
				t.Errorf("%s %s: quick %v, want %v", c.name, dns.TypeToString[c.kind], answer != nil, c.quick)
			}
			if answer == nil {
				continue
			}
			got := new(dns.Msg)
			if err := got.Unpack(answer); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if want := v.slow(q); got.String() != want.String() {
				t.Errorf("%s (EDNS %v):\n%s\nwant\n%s", c.name, edns, got, want)
			}
		}
	}
}

// TestQuickChoosesAtRandom: every instance gets its turn, none twice in an answer.
func TestQuickChoosesAtRandom(t *testing.T) {
	var many []string
	for i := range 20 {
		many = append(many, fmt.Sprintf("10.0.1.%d", i))
	}
	v := view{"z.": compile(&agent.Zone{Name: "z.", Records: []*agent.RecordSet{records("m.z.", "A", "multivalue", many...), records("w.z.", "A", "weighted", many...)}})}
	for name, size := range map[string]int{"m.z.": 8, "w.z.": 1} {
		q := new(dns.Msg)
		q.SetQuestion(name, dns.TypeA)
		packet, _ := q.Pack()
		seen := map[string]bool{}
		for range 2000 { // 20 coupons: the chance to miss one is below 1e-40
			m := new(dns.Msg)
			if err := m.Unpack(v.quick(nil, packet)); err != nil {
				t.Fatal(err)
			}
			var now []string
			for _, rr := range m.Answer {
				now = append(now, rr.(*dns.A).A.String())
				seen[now[len(now)-1]] = true
			}
			slices.Sort(now)
			if len(slices.Compact(now)) != size || len(m.Answer) != size {
				t.Fatalf("%s: %d different of %d records, want %d", name, len(now), len(m.Answer), size)
			}
		}
		if len(seen) != len(many) {
			t.Errorf("%s: %d of %d instances were answered", name, len(seen), len(many))
		}
	}
}

func FuzzQuick(f *testing.F) {
	q := new(dns.Msg)
	q.SetQuestion("web.prod.local.", dns.TypeA)
	q.SetEdns0(1232, false)
	packet, _ := q.Pack()
	f.Add(packet)
	v := testView()
	f.Fuzz(func(t *testing.T, packet []byte) {
		answer := v.quick(nil, packet)
		if answer == nil {
			return
		}
		q, got := new(dns.Msg), new(dns.Msg)
		if err := q.Unpack(packet); err != nil {
			t.Fatalf("answered what cannot be read: %v", err)
		}
		if err := got.Unpack(answer); err != nil || !slices.Equal(got.Question, q.Question) || got.Id != q.Id {
			t.Fatalf("%v\nanswered by %v\n%v", q, err, got)
		}
	})
}

// TestAccountsAreApart: two accounts have a zone of the same name; no task is told the other's records.
func TestAccountsAreApart(t *testing.T) {
	who := map[string][2]string{"127.0.0.1": {"111111111111", "us-east-1"}, "127.0.0.2": {"222222222222", "us-east-1"}, "127.0.0.3": {"333333333333", "us-east-1"}}
	s := New(Config{Addresses: []string{"127.0.0.1:0"}, Upstreams: []string{}, Owner: func(a netip.Addr) (string, string, bool) {
		o, ok := who[a.String()]
		return o[0], o[1], ok
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	zone := func(account, name, address string) *agent.Resource {
		z := &agent.Zone{Name: name, Account: account, Region: "us-east-1", Records: []*agent.RecordSet{records("web."+name, "A", "", address), records("srv."+name, "SRV", "", "1 1 80 web."+name)}}
		if account == "" {
			z.Region = ""
		}
		return &agent.Resource{Name: account + name, Body: &agent.Resource_Zone{Zone: z}}
	}
	s.Apply(ctx, &agent.Update{Full: true, Resources: []*agent.Resource{
		zone("222222222222", "prod.local.", "10.0.0.2"), zone("111111111111", "prod.local.", "10.0.0.1"), zone("222222222222", "two.local.", "10.0.0.22"), zone("", "lb.local.", "10.0.0.9")}})
	from := func(source, network, name string, kind uint16) *dns.Msg {
		t.Helper()
		var local net.Addr = &net.UDPAddr{IP: net.ParseIP(source)}
		if network == "tcp" {
			local = &net.TCPAddr{IP: net.ParseIP(source)}
		}
		q := new(dns.Msg)
		q.SetQuestion(name, kind)
		m, _, err := (&dns.Client{Net: network, Timeout: time.Minute, Dialer: &net.Dialer{LocalAddr: local}}).Exchange(q, s.Addresses()[0])
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct{ source, name, want string }{
			{"127.0.0.1", "web.prod.local.", "10.0.0.1"},
			{"127.0.0.2", "web.prod.local.", "10.0.0.2"},
			{"127.0.0.1", "web.two.local.", ""},
			{"127.0.0.2", "web.two.local.", "10.0.0.22"},
			{"127.0.0.3", "web.prod.local.", ""},
			{"127.0.0.3", "web.lb.local.", "10.0.0.9"},
			{"127.0.0.9", "web.prod.local.", "10.0.0.1"}, // this host: the first account's
		} {
			if got := values(from(c.source, network, c.name, dns.TypeA)); got != c.want {
				t.Errorf("%s asks for %s over %s: %q, want %q", c.source, c.name, network, got, c.want)
			}
		}
		m := from("127.0.0.2", network, "srv.prod.local.", dns.TypeSRV)
		if len(m.Extra) != 1 || m.Extra[0].(*dns.A).A.String() != "10.0.0.2" {
			t.Errorf("SRV over %s: %v", network, m.Extra)
		}
	}
	stranger := netip.MustParseAddr("192.0.2.1")
	if v := s.table.Load().view(stranger, s.owner); v.zone("web.prod.local.") != nil || v.zone("web.lb.local.") == nil {
		t.Error("somebody unknown sees a private zone of one of two accounts")
	}
	s.Apply(ctx, &agent.Update{Removed: []string{"222222222222prod.local.", "222222222222two.local."}})
	if v := s.table.Load().view(stranger, s.owner); v.zone("web.prod.local.") == nil {
		t.Error("the only account's zone is hidden")
	}
}

// Both paths over a socket pair of packets, without the kernel: what a query costs in this process.
func BenchmarkQuick(b *testing.B) {
	v := testView()
	q := new(dns.Msg)
	q.SetQuestion("web.prod.local.", dns.TypeA)
	q.SetEdns0(1232, false)
	packet, _ := q.Pack()
	out := make([]byte, 0, quickMax)
	b.ReportAllocs()
	for b.Loop() {
		if v.quick(out, packet) == nil {
			b.Fatal("not quick")
		}
	}
}

func BenchmarkParsed(b *testing.B) {
	v := testView()
	q := new(dns.Msg)
	q.SetQuestion("web.prod.local.", dns.TypeA)
	q.SetEdns0(1232, false)
	packet, _ := q.Pack()
	b.ReportAllocs()
	for b.Loop() {
		q := new(dns.Msg)
		if err := q.Unpack(packet); err != nil {
			b.Fatal(err)
		}
		m := v.slow(q)
		m.Compress = true
		if _, err := m.Pack(); err != nil {
			b.Fatal(err)
		}
	}
}
