package dispatcher

import (
	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// Peers is the source of what nodes know of one another's networks: every node that is READY and has a block, for every node, itself included.
type Peers struct{}

// Kind is PEERS.
func (Peers) Kind() agentapi.Kind { return agentapi.Kind_PEERS }

// Tables are the nodes.
func (Peers) Tables() []state.TableInfo { return []state.TableInfo{controlplane.Nodes} }

// Full is every peer.
func (Peers) Full(v *state.View, _ string) []*agentapi.Resource {
	var list []*agentapi.Resource
	for n := range controlplane.Nodes.Scan(v, state.K()) {
		if p := peer(n); p != nil {
			list = append(list, &agentapi.Resource{Name: n.Id, Body: &agentapi.Resource_Peer{Peer: p}})
		}
	}
	return list
}

// Delta is the peers that came, went or moved.
func (Peers) Delta(_ *state.View, events []state.Event) []Change {
	var changes []Change
	for _, e := range events {
		before, _ := e.Old.(*controlplane.Node)
		after, _ := e.New.(*controlplane.Node)
		was, is := peer(before), peer(after)
		switch {
		case is != nil && !proto.Equal(was, is):
			changes = append(changes, Change{Name: after.Id, Resource: &agentapi.Resource{Name: after.Id, Body: &agentapi.Resource_Peer{Peer: is}}})
		case was != nil && is == nil:
			changes = append(changes, Change{Name: before.Id})
		}
	}
	return changes
}

func peer(n *controlplane.Node) *agentapi.Peer {
	w := n.GetNetwork()
	if w.GetCidr() == "" || n.Status != capacity.NodeReady {
		return nil
	}
	return &agentapi.Peer{NodeId: n.Id, Address: n.Address, Cidr: w.Cidr, Mode: w.Mode, VxlanPort: w.VxlanPort, VxlanId: w.VxlanId, Ipv6: w.Ipv6}
}
