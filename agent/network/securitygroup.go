package network

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/seed-2f228079/neargate/internal/addressing"
)

// groupWait is how long a task's interface waits for the rules of its security groups.
const groupWait = 30 * time.Second

// AwaitGroups returns once this host knows the groups: their rules come beside the task's assignment.
func (n *Network) AwaitGroups(ctx context.Context, groups []string) error {
	limit := time.NewTimer(groupWait)
	defer limit.Stop()
	for {
		n.mu.Lock()
		missing := slices.IndexFunc(groups, func(g string) bool { return n.groups[g] == nil })
		learned := n.learned
		n.mu.Unlock()
		if missing < 0 {
			return nil
		}
		select {
		case <-learned:
		case <-limit.C:
			return fmt.Errorf("the rules of security group %s are not known to this host", groups[missing])
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// admit makes the tables know a task's interface. n.mu is held.
func (n *Network) admit(i Interface) error {
	c, err := openTables()
	if err != nil {
		return err
	}
	if i.Own {
		if err := c.SetAddElements(n.addressSet(ownSet), []nftables.SetElement{{Key: i.Address.AsSlice()}}); err != nil {
			return err
		}
	}
	if err := n.addPort(c, i); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables sets of task %s: %w", i.Task, err)
	}
	if i.Address6.IsValid() {
		if err := n.admit6(i); err != nil {
			return err
		}
	}
	return n.filter()
}

// dismiss takes a task's interface out of the tables.
func (n *Network) dismiss(task string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for a, i := range n.interfaces {
		if i.Task != task {
			continue
		}
		delete(n.interfaces, a)
		if !n.up {
			continue // the tables will be made without it
		}
		links, ports := n.portSets()
		link, port := n.portKeys(i)
		sets := map[*nftables.Set][]nftables.SetElement{links: link, ports: port}
		if i.Own {
			sets[n.addressSet(ownSet)] = []nftables.SetElement{{Key: a.AsSlice()}}
		}
		if i.Address6.IsValid() && n.up6 {
			sets[n.ports6()], sets[n.addressSet6(ownSet)] = n.portKeys6(i), []nftables.SetElement{{Key: i.Address6.AsSlice()}}
			if err := n.forget6(i); err != nil {
				return err
			}
		}
		for set, elements := range sets {
			c, err := openTables()
			if err != nil {
				return err
			}
			if err := c.SetDeleteElements(set, elements); err != nil {
				return err
			}
			if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("nftables set %s without task %s: %w", set.Name, task, err)
			}
		}
		if len(i.Groups) > 0 {
			return n.filter()
		}
	}
	return nil
}

func (n *Network) filterTable(f *family) *nftables.Table {
	return &nftables.Table{Name: "neargate-" + n.short + "-sg", Family: f.table}
}

// filter makes the kernel's rules those of the security groups, for both families in one transaction. Connections that are established stay, as on EC2.
// n.mu is held.
func (n *Network) filter() error {
	changed := map[*family]*ruleset{}
	var c *nftables.Conn
	for _, f := range []*family{ipv4, ipv6} {
		if f == ipv6 && !n.up6 {
			continue
		}
		want := compile(f, n.groups, n.interfaces, n.hosts(f))
		if n.filtering[f].equal(want) {
			continue
		}
		if c == nil {
			var err error
			if c, err = openTables(); err != nil {
				return err
			}
		}
		if err := n.refilter(f, c, n.filtering[f], want); err != nil {
			return err
		}
		changed[f] = want
	}
	if c == nil {
		return nil
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables rules of security groups: %w", err)
	}
	maps.Copy(n.filtering, changed)
	return nil
}

// refilter is filter's part about one family. Where only members of groups or tasks have come or gone, only sets and maps change; else the table is
// replaced as a whole.
func (n *Network) refilter(f *family, c *nftables.Conn, have, want *ruleset) error {
	if have.sameRules(want) {
		for name, members := range want.sets {
			if slices.Equal(members, have.sets[name]) {
				continue
			}
			set := n.memberSet(f, name)
			c.FlushSet(set)
			if err := addElements(c, set, addresses(members)); err != nil {
				return err
			}
		}
		for direction, tasks := range map[string]map[netip.Addr]string{"from": want.from, "to": want.to} {
			if len(want.to) == 0 {
				break // there is no table
			}
			c.FlushSet(n.taskMap(f, direction))
			if err := addElements(c, n.taskMap(f, direction), jumps(tasks)); err != nil {
				return err
			}
		}
		return nil
	}
	return n.replaceFilter(f, c, want)
}

// hosts are the addresses of the other hosts themselves: whoever works on a host, its load balancers among them, may reach tasks.
func (n *Network) hosts(f *family) (list []netip.Addr) {
	for _, p := range n.peers {
		if b, err := netip.ParsePrefix(p.GetCidr()); err == nil && b != n.subnet && addressing.Within(b) {
			list = append(list, f.host(b))
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}

func (n *Network) memberSet(f *family, name string) *nftables.Set {
	return &nftables.Set{Table: n.filterTable(f), Name: name, KeyType: f.key}
}

// replaceFilter, in nft's words:
//
//	chain to-HASH, from-HASH: one of each for every combination of groups that tasks are in: what the groups let through: accept; drop
//	chain from { forward, before to; established, related: accept; ip saddr vmap { task: jump from-HASH } }
//	chain to   { forward; established, related: accept; from other hosts themselves: accept; ip daddr vmap { task: jump to-HASH } }
func (n *Network) replaceFilter(f *family, c *nftables.Conn, want *ruleset) error {
	t := n.filterTable(f)
	c.AddTable(t) // so that deleting cannot fail
	c.DelTable(t)
	if len(want.to) == 0 {
		return nil
	}
	c.AddTable(t)
	for _, name := range slices.Sorted(maps.Keys(want.sets)) {
		set := n.memberSet(f, name)
		if err := c.AddSet(set, nil); err != nil {
			return err
		}
		if err := addElements(c, set, addresses(want.sets[name])); err != nil {
			return err
		}
	}
	for _, ch := range want.chains {
		chain := c.AddChain(&nftables.Chain{Name: ch.name, Table: t})
		for _, r := range ch.rules {
			c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: r.exprs})
		}
	}
	for k, hook := range []struct {
		name  string
		field field
		tasks map[netip.Addr]string
	}{{"from", f.saddr, want.from}, {"to", f.daddr, want.to}} {
		set := n.taskMap(f, hook.name)
		if err := c.AddSet(set, nil); err != nil {
			return err
		}
		if err := addElements(c, set, jumps(hook.tasks)); err != nil {
			return err
		}
		chain := c.AddChain(&nftables.Chain{Name: hook.name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward,
			Priority: nftables.ChainPriorityRef(nftables.ChainPriority(k - 2))})
		rule := func(exprs ...expr.Any) { c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs}) }
		accept := expr.Verdict{Kind: expr.VerdictAccept}
		rule(append(conntrack(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), &accept)...)
		if hook.name == "to" {
			rule(append(member(f.saddr, hostSet), &accept)...)
		}
		rule(hook.field.load(), &expr.Lookup{SourceRegister: 1, SetName: set.Name, IsDestRegSet: true})
	}
	return nil
}

// taskMap leads from the addresses of tasks to their chains.
func (n *Network) taskMap(f *family, direction string) *nftables.Set {
	return &nftables.Set{Table: n.filterTable(f), Name: direction + "-task", IsMap: true, KeyType: f.key, DataType: nftables.TypeVerdict}
}

func jumps(tasks map[netip.Addr]string) (elements []nftables.SetElement) {
	for a, chain := range tasks {
		elements = append(elements, nftables.SetElement{Key: a.AsSlice(), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: chain}})
	}
	return elements
}

// guardPorts lets a bridge port take only what comes from the address of its task, which the rules of others trust, and keeps ports from
// one another. In nft's words:
//
//	set links { type ifname }, set ports { type ifname . ipv4_addr }, set ports6 { type ifname . ipv6_addr }
//	chain guard { bridge prerouting: IPv4 or ARP, through one of links, not from one of ports: drop; IPv6, not from one of ports6: drop }
//	chain apart { bridge forward: from one of links to one of links, unmarked: drop }
func (n *Network) guardPorts() error {
	c, err := openTables()
	if err != nil {
		return err
	}
	t := n.portTable()
	c.AddTable(t)
	c.DelTable(t)
	c.AddTable(t)
	links, ports := n.portSets()
	for _, set := range []*nftables.Set{links, ports, n.ports6()} {
		if err := c.AddSet(set, nil); err != nil {
			return err
		}
	}
	for _, i := range n.interfaces {
		if err := n.addPort(c, i); err != nil {
			return err
		}
	}
	chain := c.AddChain(&nftables.Chain{Name: "guard", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRef(-300)})
	for etherType, source := range map[uint16]field{unix.ETH_P_IP: saddr, unix.ETH_P_ARP: {14, 4}, unix.ETH_P_IPV6: saddr6} {
		known := ports
		if etherType == unix.ETH_P_IPV6 {
			known = n.ports6()
		}
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(etherType >> 8), byte(etherType)}},
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
			&expr.Lookup{SourceRegister: 1, SetName: links.Name},
			// A name takes four of the 32-bit registers, which begin with 8.
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: source.offset, Len: source.size, DestRegister: 12},
			&expr.Lookup{SourceRegister: 1, SetName: known.Name, Invert: true},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
	apart := c.AddChain(&nftables.Chain{Name: "apart", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityRef(-300)})
	c.AddRule(&nftables.Rule{Table: t, Chain: apart, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: links.Name},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: links.Name},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(forwardedMark), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables table %s: %w", t.Name, err)
	}
	return nil
}

func (n *Network) portTable() *nftables.Table {
	return &nftables.Table{Name: "neargate-" + n.short, Family: nftables.TableFamilyBridge}
}

func (n *Network) portSets() (links, ports *nftables.Set) {
	t := n.portTable()
	return &nftables.Set{Table: t, Name: "links", KeyType: nftables.TypeIFName},
		&nftables.Set{Table: t, Name: "ports", KeyType: nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr), Concatenation: true}
}

// addPort makes the sets know an interface.
func (n *Network) addPort(c *nftables.Conn, i Interface) error {
	links, ports := n.portSets()
	link, port := n.portKeys(i)
	err := errors.Join(c.SetAddElements(links, link), c.SetAddElements(ports, port))
	if i.Address6.IsValid() {
		err = errors.Join(err, c.SetAddElements(n.ports6(), n.portKeys6(i)))
	}
	return err
}

// portKeys are an interface's elements of the two.
func (n *Network) portKeys(i Interface) (link, port []nftables.SetElement) {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, n.veth(i.Task))
	return []nftables.SetElement{{Key: name}}, []nftables.SetElement{{Key: append(slices.Clone(name), i.Address.AsSlice()...)}}
}

// chainName is for one combination of groups.
func chainName(direction string, sum []byte) string {
	return direction + "-" + hex.EncodeToString(sum[:8])
}
