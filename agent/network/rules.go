package network

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
)

// ruleset is what security groups come to in a table: sets of addresses by name, chains, and by which chain a task's packets have to pass.
type ruleset struct {
	sets     map[string][]netip.Addr // sorted
	chains   []chain
	from, to map[netip.Addr]string
}

type chain struct {
	name  string
	rules []rule
}

// rule has its words besides its expressions: they are what is compared.
type rule struct {
	text  string
	exprs []expr.Any
}

func (r *ruleset) equal(o *ruleset) bool {
	return r.sameRules(o) && maps.EqualFunc(r.sets, o.sets, slices.Equal[[]netip.Addr]) && maps.Equal(r.from, o.from) && maps.Equal(r.to, o.to)
}

// sameRules says whether the two differ in what sets and maps hold at most.
func (r *ruleset) sameRules(o *ruleset) bool {
	return r != nil && (len(r.to) == 0) == (len(o.to) == 0) && maps.EqualFunc(r.sets, o.sets, func(_, _ []netip.Addr) bool { return true }) &&
		slices.EqualFunc(r.chains, o.chains, func(a, b chain) bool {
			return a.name == b.name && slices.EqualFunc(a.rules, b.rules, func(a, b rule) bool { return a.text == b.text })
		})
}

// compile is pure, for one family of addresses. A task that is in groups may do what any of them lets through, and nothing else; hosts may do everything.
func compile(f *family, groups map[string]*agentapi.SecurityGroup, tasks map[netip.Addr]Interface, hosts []netip.Addr) *ruleset {
	out := &ruleset{sets: map[string][]netip.Addr{}, from: map[netip.Addr]string{}, to: map[netip.Addr]string{}}
	combinations := map[string][]string{} // by hash
	for _, i := range tasks {
		a := f.address(i)
		if !a.IsValid() || !i.Own || len(i.Groups) == 0 {
			continue
		}
		ids := slices.Compact(slices.Sorted(slices.Values(i.Groups)))
		sum := sha256.Sum256([]byte(strings.Join(ids, " ")))
		out.from[a], out.to[a] = chainName("from", sum[:]), chainName("to", sum[:])
		combinations[string(sum[:])] = ids
	}
	if len(combinations) > 0 {
		out.sets[hostSet] = hosts
	}
	for _, sum := range slices.Sorted(maps.Keys(combinations)) {
		from, to := chain{name: chainName("from", []byte(sum))}, chain{name: chainName("to", []byte(sum))}
		for _, id := range combinations[sum] {
			for _, r := range groups[id].GetIngress() {
				to.add(f, out, groups, r, "saddr", f.saddr)
			}
			for _, r := range groups[id].GetEgress() {
				from.add(f, out, groups, r, "daddr", f.daddr)
			}
		}
		drop := rule{"drop", verdict(expr.VerdictDrop)}
		from.rules, to.rules = append(from.rules, drop), append(to.rules, drop)
		out.chains = append(out.chains, from, to)
	}
	return out
}

// add adds what one rule of a group lets through; other is where the other side's address is. What cannot match a packet of the family adds nothing.
func (c *chain) add(f *family, out *ruleset, groups map[string]*agentapi.SecurityGroup, r *agentapi.TrafficRule, side string, other field) {
	var words []string
	var exprs []expr.Any
	switch {
	case r.Group != "":
		set := "members-" + r.Group
		if _, ok := out.sets[set]; !ok {
			out.sets[set] = memberAddresses(f, groups[r.Group])
		}
		words = append(words, fmt.Sprintf("%s %s @%s", f.word, side, set))
		exprs = append(exprs, member(other, set)...)
	default:
		p, err := netip.ParsePrefix(r.Cidr)
		if err != nil || !f.is(p.Addr()) {
			return
		}
		if p.Bits() > 0 {
			words = append(words, fmt.Sprintf("%s %s %s", f.word, side, p.Masked()))
			exprs = append(exprs, address(other, expr.CmpOpEq, p)...)
		}
	}
	switch r.Protocol {
	case -1:
	case f.otherICMP:
		return
	default:
		words = append(words, fmt.Sprintf("meta l4proto %d", r.Protocol))
		exprs = append(exprs, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{byte(r.Protocol)}})
	}
	switch r.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		if r.FromPort > 0 || r.ToPort < 65535 {
			words = append(words, fmt.Sprintf("th dport %d-%d", r.FromPort, r.ToPort))
			exprs = append(exprs, &expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2, DestRegister: 1},
				&expr.Cmp{Register: 1, Op: expr.CmpOpGte, Data: binary.BigEndian.AppendUint16(nil, uint16(r.FromPort))},
				&expr.Cmp{Register: 1, Op: expr.CmpOpLte, Data: binary.BigEndian.AppendUint16(nil, uint16(r.ToPort))})
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		for i, v := range []int32{r.FromPort, r.ToPort} {
			if v >= 0 {
				words = append(words, fmt.Sprintf("%s %s %d", f.icmp, [...]string{"type", "code"}[i], v))
				exprs = append(exprs, &expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: uint32(i), Len: 1, DestRegister: 1},
					&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{byte(v)}})
			}
		}
	}
	text := strings.TrimSpace(strings.Join(words, " ") + " accept")
	if slices.ContainsFunc(c.rules, func(have rule) bool { return have.text == text }) {
		return // another group has it as well
	}
	c.rules = append(c.rules, rule{text, append(exprs, verdict(expr.VerdictAccept)...)})
}

func memberAddresses(f *family, g *agentapi.SecurityGroup) (list []netip.Addr) {
	for _, m := range g.GetMembers() {
		if a, err := netip.ParseAddr(m); err == nil && f.is(a) {
			list = append(list, a)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}
