// Package capacity says which nodes offer what: which clusters a node is a container instance of, and whether it belongs to the
// serverless pool.
//
// A node joins the one cluster its agent names, or "default". The node of `neargate dev` is special: it is a container instance
// of every cluster and the serverless pool at once. Its resources are counted once all the same, because the scheduler's ledger
// belongs to the node, not to the membership.
//
// A deregistered instance (DeregisterContainerInstance) stays INACTIVE until its agent starts anew: that it merely reconnects, to whichever
// server, does not undo what somebody decided.
//
// Invariant: a container instance's id follows from its node and cluster, so that joining twice, from two places or after a
// crash, makes one record.
package capacity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/addressing"
)

// Statuses of nodes, container instances and clusters.
const (
	NodeReady = "READY"
	NodeDown  = "DOWN"
	NodeAway  = "AWAY" // no session, but its tasks are taken to run: of nodes with Amazon's agent, which comes back late
	Active    = "ACTIVE"
	Draining  = "DRAINING"
	Inactive  = "INACTIVE"
)

// Rule is how nodes join.
type Rule struct {
	// Account and Region of the cluster that a node names: agents know neither.
	Account, Region string
	// EveryCluster makes nodes container instances of every cluster, there now or made later.
	EveryCluster bool
	// Serverless puts nodes into the pool that runs FARGATE tasks.
	Serverless bool
	// BlockBits is the length of the block of task addresses that a node gets when it joins without one; 0: addressing.HostBits.
	BlockBits int
}

// Join writes the records of a node that says hello: the node itself, READY, and its memberships.
func (r Rule) Join(tx *state.Tx, h *agentapi.Hello, now time.Time) error {
	if h.NodeId == "" {
		return errors.New("the node has no id")
	}
	n := &controlplane.Node{
		Id: h.NodeId, Name: h.NodeName, Status: NodeReady, Resources: h.Resources, Attributes: maps.Clone(h.Attributes), Address: h.Address,
		Version: h.Version, Runtime: h.Runtime, Serverless: r.Serverless, EveryCluster: r.EveryCluster, Registered: timestamppb.New(now),
		Health: h.Health, HealthSince: timestamppb.New(now), Speaks: h.Speaks, Papers: h.Papers,
	}
	old, ok := controlplane.Nodes.Get(tx, state.K(n.Id))
	if old.GetAmazonAgent() != nil || h.Runtime == RuntimeAmazon {
		return connected(tx, old, h)
	}
	if err := place(tx, n, h.Network, old, cmp.Or(r.BlockBits, addressing.HostBits)); err != nil {
		return err
	}
	if ok {
		n.Registered = old.Registered
		if proto.Equal(old.Health, n.Health) {
			n.HealthSince = old.HealthSince
		}
		if !proto.Equal(old, n) {
			controlplane.Nodes.Put(tx, n)
		}
	} else {
		controlplane.Nodes.Put(tx, n)
	}
	name := h.Cluster
	if name == "" {
		name = "default"
	}
	scope := controlplane.Scope{Account: r.Account, Region: r.Region}
	c, ok := controlplane.Clusters.Get(tx, scope.Key(name))
	if ok && r.EveryCluster {
		// Clusters get theirs from Memberships and from EnsureInstances: they may be more than fit one transaction.
		if h.Started {
			reactivate(tx, n.Id, now)
		}
		return nil
	}
	switch {
	case (!ok || c.Status != Active) && name == "default":
		c = &controlplane.Cluster{Account: r.Account, Region: r.Region, Name: name, Status: Active, Created: timestamppb.New(now)}
		controlplane.Clusters.Put(tx, c)
	case !ok || c.Status != Active:
		return fmt.Errorf("cluster %s not found", name)
	}
	if ci, made := ensure(tx, n, c, now); !made && ci.Status == Inactive && h.Started {
		controlplane.ContainerInstances.Put(tx, activated(ci, now))
	}
	return nil
}

// RuntimeAmazon is what the gateway says in Hello of a node whose agent is Amazon's. RegisterContainerInstance has made its records.
const RuntimeAmazon = "amazon-ecs-agent"

// Attributes of its Hello, which says nothing else: what the agent has said of its versions when it connected.
const (
	HelloAgentHash     = "agentHash"
	HelloDockerVersion = "dockerVersion"
)

// connected makes such a node READY: its agent has a session.
func connected(tx *state.Tx, old *controlplane.Node, h *agentapi.Hello) error {
	if old.GetAmazonAgent() == nil {
		return errors.New("its container instance is not registered")
	}
	n := proto.CloneOf(old)
	n.Status, n.DownSince, n.Version = NodeReady, nil, cmp.Or(h.Version, n.Version)
	n.AmazonAgent.Hash = cmp.Or(h.Attributes[HelloAgentHash], n.AmazonAgent.Hash)
	n.AmazonAgent.DockerVersion = cmp.Or(h.Attributes[HelloDockerVersion], n.AmazonAgent.DockerVersion)
	if !proto.Equal(old, n) {
		controlplane.Nodes.Put(tx, n)
	}
	return nil
}

// maxReactivated bounds the transaction of a hello; instances beyond it wait for the next.
const maxReactivated = 50

// reactivate makes a node's deregistered instances active again.
func reactivate(tx *state.Tx, node string, now time.Time) {
	var gone []*controlplane.ContainerInstance
	for ci := range controlplane.ContainerInstancesByNode.Scan(tx, state.K(node)) {
		if ci.Status == Inactive && len(gone) < maxReactivated {
			gone = append(gone, ci)
		}
	}
	for _, ci := range gone {
		controlplane.ContainerInstances.Put(tx, activated(ci, now))
	}
}

func activated(ci *controlplane.ContainerInstance, now time.Time) *controlplane.ContainerInstance {
	ci = proto.CloneOf(ci)
	ci.Status, ci.Registered = Active, timestamppb.New(now)
	ci.Version++
	return ci
}

// InstanceID is the id of a node's membership in a cluster: 32 hex digits.
func InstanceID(node string, c *controlplane.Cluster) string {
	sum := sha256.Sum256([]byte(state.K(node, c.Account, c.Region, c.Name)))
	return hex.EncodeToString(sum[:16])
}

// EnsureInstances makes the nodes that are in every cluster container instances of this one, now: who runs a task in a cluster
// just created need not wait for Memberships. It says whether it has made any.
func EnsureInstances(tx *state.Tx, c *controlplane.Cluster, now time.Time) (made bool) {
	for n := range controlplane.NodesEverywhere.Scan(tx, state.K()) {
		_, one := ensure(tx, n, c, now)
		made = made || one
	}
	return made
}

// ensure makes the node an instance of the cluster unless it is one, or was one until it was deregistered: that record is returned. The id is
// the node's, whoever has registered by it while the node was forgotten.
func ensure(tx *state.Tx, n *controlplane.Node, c *controlplane.Cluster, now time.Time) (old *controlplane.ContainerInstance, made bool) {
	id := InstanceID(n.Id, c)
	key := c.Scope().Key(c.Name, id)
	if old, ok := controlplane.ContainerInstances.Get(tx, key); ok && old.Node == n.Id {
		return old, false
	}
	controlplane.ContainerInstances.Put(tx, &controlplane.ContainerInstance{
		Account: c.Account, Region: c.Region, Cluster: c.Name, Id: id, Node: n.Id, Status: Active,
		Registered: timestamppb.New(now), Version: 1,
	})
	return nil, true
}

// Memberships keeps nodes that are in every cluster container instances of all clusters that are ACTIVE, and of no other.
type Memberships struct {
	Store *state.Store
	Now   func() time.Time
	Log   *slog.Logger
}

// Run works whenever this server leads, until ctx ends.
func (m *Memberships) Run(ctx context.Context) error {
	return m.Store.RunLeader(ctx, func(ctx context.Context) error {
		for ctx.Err() == nil {
			if err := m.follow(ctx); ctx.Err() == nil && !errors.Is(err, state.ErrCompacted) {
				return err
			}
		}
		return nil
	})
}

// follow ends with an error.
func (m *Memberships) follow(ctx context.Context) error {
	v := m.Store.View()
	w := m.Store.Watch(ctx, v.Revision(), controlplane.Clusters, controlplane.Nodes)
	if err := m.clusters(ctx, v); err != nil {
		return err
	}
	for {
		b, err := w.Next(ctx)
		if err != nil {
			return err
		}
		if err := m.changed(ctx, b); err != nil {
			return err
		}
	}
}

// changed looks at the clusters that were changed, and at all only when a node has come to be in every one: there may be many.
func (m *Memberships) changed(ctx context.Context, b state.Batch) error {
	if slices.ContainsFunc(b.Events, func(e state.Event) bool {
		now, _ := e.New.(*controlplane.Node)
		was, _ := e.Old.(*controlplane.Node)
		return now.GetEveryCluster() && !was.GetEveryCluster()
	}) {
		return m.clusters(ctx, b.View)
	}
	for _, e := range b.Events {
		if c, ok := e.New.(*controlplane.Cluster); ok {
			if err := m.cluster(ctx, b.View, c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *Memberships) clusters(ctx context.Context, v *state.View) error {
	for c := range controlplane.Clusters.Scan(v, state.K()) {
		if err := m.cluster(ctx, v, c); err != nil {
			return err
		}
	}
	return nil
}

// cluster brings one cluster's instances up to date; without a change it writes nothing.
func (m *Memberships) cluster(ctx context.Context, v *state.View, c *controlplane.Cluster) error {
	for n := range controlplane.NodesEverywhere.Scan(v, state.K()) {
		key := c.Scope().Key(c.Name, InstanceID(n.Id, c))
		_, is := controlplane.ContainerInstances.Get(v, key)
		if is == (c.Status == Active) {
			continue
		}
		_, err := m.Store.Update(ctx, func(tx *state.Tx) error {
			c, ok := controlplane.Clusters.Get(tx, c.Scope().Key(c.Name))
			if ok && c.Status == Active {
				ensure(tx, n, c, m.Now())
			} else if _, is := controlplane.ContainerInstances.Get(tx, key); is {
				controlplane.ContainerInstances.Delete(tx, key)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("membership of node %s in cluster %s: %w", n.Id, c.Name, err)
		}
		m.Log.Debug("membership changed", "node", n.Id, "cluster", c.Name)
	}
	return nil
}
