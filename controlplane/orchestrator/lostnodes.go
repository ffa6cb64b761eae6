package orchestrator

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// staleNodes are those that have been DOWN for as long as a stopped task is kept: the tasks that they had when they were lost have gone, and nothing
// names them any more but their memberships. Those go first, with their tags, so that the event of an instance's end can still say what it was.
// What comes back afterwards is a host that nobody has seen: it joins as one.
func (o *Orchestrator) staleNodes(v *state.View, now time.Time) (stale []func(*state.Tx)) {
	var nodes []func(*state.Tx)
	for n := range controlplane.Nodes.Scan(v, state.K()) {
		if len(stale) == cleanStep {
			return stale
		}
		if n.Status != capacity.NodeDown || n.DownSince != nil && n.DownSince.AsTime().Add(o.TaskRetention).After(now) || busy(v, n) {
			continue
		}
		if n.DownSince == nil {
			stale = append(stale, ifStill(n, func(tx *state.Tx) {
				n := proto.CloneOf(n)
				n.DownSince = timestamppb.New(now)
				controlplane.Nodes.Put(tx, n)
			}))
			continue
		}
		member := false
		for ci := range controlplane.ContainerInstancesByNode.Scan(v, state.K(n.Id)) {
			if member = true; len(stale) == cleanStep {
				break
			}
			stale = append(stale, ifStill(n, func(tx *state.Tx) {
				controlplane.ContainerInstances.Delete(tx, controlplane.ContainerInstances.Key(ci))
				controlplane.PutTags(tx, ci.Scope(), ci.ARN(), nil)
			}))
		}
		if !member && len(nodes) < cleanStep {
			nodes = append(nodes, ifStill(n, func(tx *state.Tx) {
				for range controlplane.ContainerInstancesByNode.Scan(tx, state.K(n.Id)) {
					return // of a cluster that was made meanwhile
				}
				controlplane.Nodes.Delete(tx, state.K(n.Id))
			}))
		}
	}
	if len(stale) > 0 {
		return stale
	}
	return nodes
}

// ifStill is do unless the node has changed: its agent is back, or takes the place of what it was.
func ifStill(n *controlplane.Node, do func(*state.Tx)) func(*state.Tx) {
	return func(tx *state.Tx) {
		if is, ok := controlplane.Nodes.Get(tx, state.K(n.Id)); ok && proto.Equal(is, n) && !busy(tx, n) {
			do(tx)
		}
	}
}

// busy says whether the node has tasks that are not over.
func busy(r state.Reader, n *controlplane.Node) bool {
	for range controlplane.LiveTasksByNode.Scan(r, state.K(n.Id)) {
		return true
	}
	return false
}
