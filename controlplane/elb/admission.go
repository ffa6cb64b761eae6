package elb

import (
	"slices"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/mesh"
)

// Firewall is what load balancing asks of security groups.
type Firewall interface {
	// Admits says whether tasks in groups let TCP to a port in that comes from members of others, or from an address in one of the subnets.
	Admits(r state.Reader, account, region string, groups, others, subnets []string, port uint32) bool
	// Tables are those that an answer follows from.
	Tables() []state.TableInfo
}

// admission says which endpoints a load balancer may reach. Hosts let everything through to tasks that comes from hosts, the proxies
// among them: it is here that a load balancer is held to its security groups. Without a firewall every endpoint is admitted.
type admission struct{ Firewall Firewall }

// tables are those besides a source's own.
func (a admission) tables() []state.TableInfo {
	if a.Firewall == nil {
		return nil
	}
	return append(a.Firewall.Tables(), LoadBalancers)
}

// refused says whether none of the load balancers that forward to the group gets through to the endpoint's port. What is no task with
// a network interface of its own is in no security group.
func (a admission) refused(r state.Reader, g *TargetGroup, e *mesh.Endpoint, port uint32) bool {
	if a.Firewall == nil || e.Task == "" {
		return false
	}
	s, ok := controlplane.TaskStatuses.Get(r, state.K(e.Account, e.Region, e.Cluster, e.Task))
	if !ok || len(s.SecurityGroups) == 0 || e.Address != s.Report.GetAddress() {
		return false
	}
	scope := controlplane.Scope{Account: g.Account, Region: g.Region}
	users := usersOf(r, scope, g.ARN())
	return len(users) > 0 && !slices.ContainsFunc(users, func(arn string) bool {
		lb, err := findLoadBalancer(r, scope, arn)
		if err != nil {
			return false
		}
		var subnets []string
		for _, z := range lb.Zones {
			subnets = append(subnets, z.Subnet)
		}
		return a.Firewall.Admits(r, e.Account, e.Region, s.SecurityGroups, lb.SecurityGroups, subnets, port)
	})
}

// changed says whether events may change who is admitted to any group: then all are looked at.
func (a admission) changed(events []state.Event) bool {
	return a.Firewall != nil && slices.ContainsFunc(events, func(e state.Event) bool {
		return e.Table == LoadBalancers || slices.Contains(a.Firewall.Tables(), e.Table)
	})
}
