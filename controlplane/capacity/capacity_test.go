package capacity

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
)

// A deregistered instance is one again once its agent has started anew, and not because it has lost a server.
func TestDeregisteredUntilTheAgentStartsAnew(t *testing.T) {
	for name, rule := range map[string]Rule{
		"of one cluster":   {Account: "000000000000", Region: "us-east-1"},
		"of every cluster": {Account: "000000000000", Region: "us-east-1", EveryCluster: true},
	} {
		t.Run(name, func(t *testing.T) {
			store := statetest.New(t, controlplane.Schema...)
			change := func(fn func(tx *state.Tx) error) {
				t.Helper()
				if _, err := store.Update(context.Background(), fn); err != nil {
					t.Fatal(err)
				}
			}
			now := time.Unix(1e9, 0)
			hello := func(started bool) {
				t.Helper()
				change(func(tx *state.Tx) error { return rule.Join(tx, &agentapi.Hello{NodeId: "n", Started: started}, now) })
				change(func(tx *state.Tx) error {
					for c := range controlplane.Clusters.Scan(tx, state.K()) {
						if rule.EveryCluster {
							EnsureInstances(tx, c, now)
						}
					}
					return nil
				})
			}
			instance := func() *controlplane.ContainerInstance {
				t.Helper()
				for ci := range controlplane.ContainerInstancesByNode.Scan(store.View(), state.K("n")) {
					return ci
				}
				t.Fatal("the node is no instance")
				return nil
			}
			hello(true)
			first := instance()
			change(func(tx *state.Tx) error {
				ci := proto.CloneOf(first)
				ci.Status = Inactive
				controlplane.ContainerInstances.Put(tx, ci)
				return nil
			})
			now = now.Add(time.Hour)
			hello(false)
			if ci := instance(); ci.Status != Inactive {
				t.Errorf("after a new session: %v", ci)
			}
			hello(true)
			if ci := instance(); ci.Status != Active || ci.Id != first.Id || !ci.Registered.AsTime().Equal(now) || ci.Version <= first.Version {
				t.Errorf("after a new start: %v", ci)
			}
		})
	}
}

// The id of a membership is its node's: an agent of Amazon's that has named it while the node was forgotten does not keep the node out.
func TestMembershipIsTheNodesOwn(t *testing.T) {
	store := statetest.New(t, controlplane.Schema...)
	rule := Rule{Account: "000000000000", Region: "us-east-1"}
	join := func(node string) {
		t.Helper()
		if _, err := store.Update(context.Background(), func(tx *state.Tx) error {
			return rule.Join(tx, &agentapi.Hello{NodeId: node}, time.Unix(1e9, 0))
		}); err != nil {
			t.Fatal(err)
		}
	}
	join("other")
	c, _ := controlplane.Clusters.Get(store.View(), controlplane.Scope{Account: rule.Account, Region: rule.Region}.Key("default"))
	if _, err := store.Update(context.Background(), func(tx *state.Tx) error {
		controlplane.ContainerInstances.Put(tx, &controlplane.ContainerInstance{Account: rule.Account, Region: rule.Region, Cluster: "default", Id: InstanceID("n", c), Node: "amazon", Status: Inactive})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	join("n")
	ci, _ := controlplane.ContainerInstances.Get(store.View(), c.Scope().Key("default", InstanceID("n", c)))
	if ci.GetNode() != "n" || ci.Status != Active {
		t.Errorf("it is %v", ci)
	}
}
