package ec2

import (
	"maps"
	"slices"
	"strconv"

	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/dispatcher"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// FirewallSource is the set FIREWALL: the security groups that a node's tasks are in, and those that the rules of these name, whose members it
// has to know.
type FirewallSource struct{}

// Kind is FIREWALL.
func (FirewallSource) Kind() agent.Kind { return agent.Kind_FIREWALL }

// Tables are the groups and what has members come and go.
func (FirewallSource) Tables() []state.TableInfo {
	return []state.TableInfo{SecurityGroups, controlplane.TaskStatuses}
}

// groupKey is a group of one account and region.
type groupKey struct {
	controlplane.Scope
	id string
}

// Full is every group that the node needs.
func (FirewallSource) Full(v *state.View, node string) []*agent.Resource {
	needed := map[groupKey]bool{}
	for s := range controlplane.LiveTasksByNode.Scan(v, state.K(node)) {
		for _, k := range withReferences(v, s) {
			needed[k] = true
		}
	}
	var list []*agent.Resource
	for k := range needed {
		if r := groupResource(v, k); r != nil {
			list = append(list, r)
		}
	}
	return list
}

// Delta says the groups anew, to the nodes that need them, whose rules or members have changed, and to a node those of a task that it
// got. What a node needs no longer it is told to forget.
func (FirewallSource) Delta(v *state.View, events []state.Event) []dispatcher.Change {
	type pair struct {
		node string
		groupKey
	}
	pairs := map[pair]bool{}
	everywhere := map[groupKey]bool{} // to every node that needs it
	for _, e := range events {
		for _, m := range []any{e.Old, e.New} {
			switch m := m.(type) {
			case *controlplane.TaskStatus:
				if m == nil || len(m.SecurityGroups) == 0 || place(e.Old) == place(e.New) {
					continue
				}
				if m.Node != "" {
					for _, k := range withReferences(v, m) {
						pairs[pair{m.Node, k}] = true
					}
				}
				if address(e.Old) != address(e.New) {
					for _, id := range ids(m) {
						everywhere[groupKey{m.Scope(), id}] = true
					}
				}
			case *SecurityGroup:
				if m == nil {
					continue
				}
				k := groupKey{m.scope(), m.Id}
				everywhere[k] = true
				for _, node := range nodesIn(v, k) {
					for _, id := range m.references() {
						pairs[pair{node, groupKey{m.scope(), id}}] = true
					}
				}
			}
		}
	}
	for k := range everywhere {
		for _, node := range nodesNeeding(v, k) {
			pairs[pair{node, k}] = true
		}
	}
	needed := map[string]map[groupKey]bool{} // by node
	var changes []dispatcher.Change
	for p := range pairs {
		if needed[p.node] == nil {
			needed[p.node] = map[groupKey]bool{}
			for s := range controlplane.LiveTasksByNode.Scan(v, state.K(p.node)) {
				for _, k := range withReferences(v, s) {
					needed[p.node][k] = true
				}
			}
		}
		c := dispatcher.Change{Node: p.node, Name: p.id}
		if needed[p.node][p.groupKey] {
			c.Resource = groupResource(v, p.groupKey)
		}
		changes = append(changes, c)
	}
	return changes
}

// place is where a task's interface is, and whether it is.
func place(record any) [2]string {
	s, _ := record.(*controlplane.TaskStatus)
	if s == nil || !s.Live() {
		return [2]string{}
	}
	return [2]string{s.Node, s.Report.GetAddress()}
}

func address(record any) string { return place(record)[1] }

// ids are the groups that a task is in.
func ids(s *controlplane.TaskStatus) []string {
	list := slices.Clone(s.SecurityGroups)
	for i, id := range list {
		if id == controlplane.DefaultSecurityGroup {
			list[i] = Network{}.DefaultSecurityGroup(s.Account, s.Region)
		}
	}
	return list
}

// withReferences are the groups that a task is in and those that their rules name.
func withReferences(v *state.View, s *controlplane.TaskStatus) []groupKey {
	all := map[groupKey]bool{}
	for _, id := range ids(s) {
		all[groupKey{s.Scope(), id}] = true
		if g := findGroup(v, s.Scope(), id); g != nil {
			for _, ref := range g.references() {
				all[groupKey{s.Scope(), ref}] = true
			}
		}
	}
	return slices.Collect(maps.Keys(all))
}

// members are the live tasks in a group, by whichever name they have it.
func members(v *state.View, k groupKey, yield func(*controlplane.TaskStatus)) {
	names := []string{k.id}
	if k.id == (Network{}).DefaultSecurityGroup(k.Account, k.Region) {
		names = append(names, controlplane.DefaultSecurityGroup)
	}
	for _, name := range names {
		for s := range controlplane.LiveTasksBySecurityGroup.Scan(v, k.Key(name)) {
			yield(s)
		}
	}
}

// nodesIn are those with tasks in the group.
func nodesIn(v *state.View, k groupKey) []string {
	nodes := map[string]bool{}
	members(v, k, func(s *controlplane.TaskStatus) {
		if s.Node != "" {
			nodes[s.Node] = true
		}
	})
	return slices.Collect(maps.Keys(nodes))
}

// nodesNeeding are those with tasks in the group or in one that refers to it.
func nodesNeeding(v *state.View, k groupKey) []string {
	nodes := nodesIn(v, k) // a default group without a record refers to itself alone
	for g := range GroupsReferring.Scan(v, k.Key(k.id)) {
		nodes = append(nodes, nodesIn(v, groupKey{k.Scope, g.Id})...)
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// groupResource is a group as hosts know it; nil: there is none.
func groupResource(v *state.View, k groupKey) *agent.Resource {
	g := findGroup(v, k.Scope, k.id)
	if g == nil {
		return nil
	}
	out := &agent.SecurityGroup{Id: g.Id}
	for _, r := range g.Rules {
		t := &agent.TrafficRule{Protocol: r.number(), FromPort: r.FromPort, ToPort: r.ToPort, Cidr: r.CidrIpv4 + r.CidrIpv6, Group: r.Group}
		if r.Egress {
			out.Egress = append(out.Egress, t)
		} else {
			out.Ingress = append(out.Ingress, t)
		}
	}
	members(v, k, func(s *controlplane.TaskStatus) {
		for _, a := range []string{s.Report.GetAddress(), s.Report.GetIpv6Address()} {
			if a != "" {
				out.Members = append(out.Members, a)
			}
		}
	})
	slices.Sort(out.Members)
	return &agent.Resource{Name: g.Id, Body: &agent.Resource_SecurityGroup{SecurityGroup: out}}
}

// number is IANA's of the protocol; -1: all.
func (r *SecurityGroupRule) number() int32 {
	if n, ok := protocolNumbers[r.Protocol]; ok {
		return n
	}
	n, _ := strconv.Atoi(r.Protocol) // was checked
	return int32(n)
}
