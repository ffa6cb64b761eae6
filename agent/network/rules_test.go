package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

func words(r *ruleset, name string) string {
	for _, c := range r.chains {
		if c.name == name {
			var lines []string
			for _, r := range c.rules {
				lines = append(lines, r.text)
			}
			return strings.Join(lines, "\n")
		}
	}
	return ""
}

func TestCompile(t *testing.T) {
	a, b, c := netip.MustParseAddr("10.64.0.2"), netip.MustParseAddr("10.64.0.3"), netip.MustParseAddr("10.64.0.4")
	groups := map[string]*agentapi.SecurityGroup{
		"sg-1": {Id: "sg-1", Members: []string{"10.64.4.9", "10.64.0.2", "nonsense", "10.64.0.2"}, Egress: everything, Ingress: []*agentapi.TrafficRule{
			through(6, 80, 443, "10.0.0.7/8", ""), through(17, 0, 65535, "0.0.0.0/0", ""), through(-1, -1, -1, "", "sg-1"), through(1, 8, -1, "0.0.0.0/0", ""),
			through(58, -1, -1, "::/0", ""), through(6, 1, 1, "2001:db8::/32", ""), through(47, -1, -1, "192.0.2.1/32", ""), through(1, 3, 4, "", "sg-3"),
		}},
		"sg-2": {Id: "sg-2", Ingress: []*agentapi.TrafficRule{through(17, 0, 65535, "0.0.0.0/0", ""), through(6, 22, 22, "", "sg-2")}},
	}
	hosts := []netip.Addr{netip.MustParseAddr("10.64.4.1")}
	got := compile(ipv4, groups, map[netip.Addr]Interface{
		a: {Address: a, Own: true, Groups: []string{"sg-1"}}, b: {Address: b, Own: true, Groups: []string{"sg-2", "sg-1"}}, c: {Address: c, Groups: []string{"sg-1"}},
	}, hosts)
	ofOne := `ip saddr 10.0.0.0/8 meta l4proto 6 th dport 80-443 accept
meta l4proto 17 accept
ip saddr @members-sg-1 accept
meta l4proto 1 icmp type 8 accept
ip saddr 192.0.2.1/32 meta l4proto 47 accept
ip saddr @members-sg-3 meta l4proto 1 icmp type 3 icmp code 4 accept
`
	if diff := cmp.Diff(ofOne+"drop", words(got, got.to[a])); diff != "" {
		t.Errorf("into a task of one group (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(ofOne+"ip saddr @members-sg-2 meta l4proto 6 th dport 22-22 accept\ndrop", words(got, got.to[b])); diff != "" {
		t.Errorf("into a task of two groups (-want +got):\n%s", diff)
	}
	if out := words(got, got.from[b]); out != "accept\ndrop" {
		t.Errorf("out of a task of two groups: %s", out)
	}
	if _, ok := got.to[c]; ok {
		t.Error("a task without an address of its own is filtered")
	}
	want := map[string][]netip.Addr{"hosts": hosts, "members-sg-1": {a, netip.MustParseAddr("10.64.4.9")}, "members-sg-2": nil, "members-sg-3": nil}
	if diff := cmp.Diff(want, got.sets, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("sets (-want +got):\n%s", diff)
	}
	// What only differs in members does not have the table made anew.
	groups["sg-1"].Members = nil
	again := compile(ipv4, groups, map[netip.Addr]Interface{a: {Address: a, Own: true, Groups: []string{"sg-1"}}, b: {Address: b, Own: true, Groups: []string{"sg-1", "sg-2"}}}, hosts)
	if !got.sameRules(again) || got.equal(again) {
		t.Errorf("same rules: %v, equal: %v; want true, false", got.sameRules(again), got.equal(again))
	}
}

// TestCompileIPv6: of the same groups, the rules that can match a packet of IPv6, for the tasks that have an address of it.
func TestCompileIPv6(t *testing.T) {
	a, b := netip.MustParseAddr("10.64.0.2"), netip.MustParseAddr("10.64.0.3")
	six := netip.MustParseAddr("fd8e:2f17:5b60::a40:2")
	groups := map[string]*agentapi.SecurityGroup{
		"sg-1": {Id: "sg-1", Members: []string{"10.64.0.2", six.String(), "::ffff:10.64.0.9"}, Egress: everything, Ingress: []*agentapi.TrafficRule{
			through(6, 80, 443, "10.0.0.0/8", ""), through(17, 53, 53, "::/0", ""), through(-1, -1, -1, "", "sg-1"), through(1, 8, -1, "::/0", ""),
			through(58, 128, 0, "::/0", ""), through(6, 1, 1, "2001:db8::7/32", ""), through(58, 128, 0, "", "sg-1"),
		}},
	}
	got := compile(ipv6, groups, map[netip.Addr]Interface{
		a: {Address: a, Address6: six, Own: true, Groups: []string{"sg-1"}}, b: {Address: b, Own: true, Groups: []string{"sg-1"}},
	}, nil)
	want := `meta l4proto 17 th dport 53-53 accept
ip6 saddr @members-sg-1 accept
meta l4proto 58 icmpv6 type 128 icmpv6 code 0 accept
ip6 saddr 2001:db8::/32 meta l4proto 6 th dport 1-1 accept
ip6 saddr @members-sg-1 meta l4proto 58 icmpv6 type 128 icmpv6 code 0 accept
drop`
	if diff := cmp.Diff(want, words(got, got.to[six])); diff != "" {
		t.Errorf("into a task (-want +got):\n%s", diff)
	}
	if out := words(got, got.from[six]); out != "drop" || len(got.to) != 1 {
		t.Errorf("out of a task whose groups let IPv4 out: %s; chains %v", out, got.to)
	}
	if m := got.sets["members-sg-1"]; len(m) != 1 || m[0] != six {
		t.Errorf("members %v", m)
	}
}

func TestIntervals(t *testing.T) {
	var got []string
	for _, e := range intervals([]netip.Prefix{netip.MustParsePrefix("10.64.0.0/22"), netip.MustParsePrefix("10.64.4.0/22"), netip.MustParsePrefix("10.64.16.0/20")}) {
		a, _ := netip.AddrFromSlice(e.Key)
		got = append(got, a.String())
	}
	if want := "10.64.0.0 10.64.8.0 10.64.16.0 10.64.32.0"; strings.Join(got, " ") != want {
		t.Errorf("intervals %v, want %s", got, want)
	}
}
