package capacity

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	agentapi "github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/addressing"
)

type joining struct {
	t     *testing.T
	store *state.Store
}

// join says hello and returns the block that the node has then.
func (j joining) join(node, zone string, w *agentapi.HostNetwork) string {
	j.t.Helper()
	_, err := j.store.Update(j.t.Context(), func(tx *state.Tx) error {
		return Rule{Account: "1", Region: "us-east-1"}.Join(tx, &agentapi.Hello{NodeId: node, Network: w, Attributes: map[string]string{"ecs.availability-zone": zone}}, time.Unix(1, 0))
	})
	if err != nil {
		j.t.Fatal(err)
	}
	n, _ := controlplane.Nodes.Get(j.store.View(), state.K(node))
	return n.GetNetwork().GetCidr()
}

func (j joining) down(node string) {
	j.t.Helper()
	_, err := j.store.Update(j.t.Context(), func(tx *state.Tx) error {
		n, _ := controlplane.Nodes.Get(tx, state.K(node))
		controlplane.Nodes.Put(tx, &controlplane.Node{Id: n.Id, Status: NodeDown, Network: n.Network})
		return nil
	})
	if err != nil {
		j.t.Fatal(err)
	}
}

func TestBlocks(t *testing.T) {
	j := joining{t, statetest.New(t, controlplane.Schema...)}
	none := &agentapi.HostNetwork{}
	for _, c := range []struct {
		what, node, zone string
		network          *agentapi.HostNetwork
		want             string
	}{
		{"the first of its zone", "a1", "us-east-1a", none, "10.64.0.0/22"},
		{"the next", "a2", "us-east-1a", none, "10.64.4.0/22"},
		{"one of another zone", "b1", "us-east-1b", none, "10.80.0.0/22"},
		{"one of no zone of ours", "x1", "rack-7", none, "10.112.0.0/22"},
		{"once more: it has one", "a1", "us-east-1a", none, "10.64.0.0/22"},
		{"once more, saying so", "a1", "us-east-1a", &agentapi.HostNetwork{Cidr: "10.64.0.0/22"}, "10.64.0.0/22"},
		{"a host that has one already, of a former version", "old", "us-east-1a", &agentapi.HostNetwork{Cidr: "10.93.16.0/20"}, "10.93.16.0/20"},
		{"a host that says it has another's", "a3", "us-east-1a", &agentapi.HostNetwork{Cidr: "10.64.4.0/22"}, "10.64.8.0/22"},
		{"a host that says it has what is none of ours", "a4", "us-east-1a", &agentapi.HostNetwork{Cidr: "192.168.0.0/22"}, "10.64.12.0/22"},
		{"too large a one", "a5", "us-east-1a", &agentapi.HostNetwork{Cidr: "10.64.0.0/12"}, "10.64.16.0/22"},
		{"a host that leads the next elsewhere", "a6", "us-east-1a", &agentapi.HostNetwork{Taken: []string{"10.64.20.0/23", "nonsense"}}, "10.64.24.0/22"},
		{"what some host leads elsewhere is nobody's", "a7", "us-east-1a", none, "10.64.28.0/22"},
		{"a host that has come to lead its own elsewhere", "a2", "us-east-1a", &agentapi.HostNetwork{Cidr: "10.64.4.0/22", Taken: []string{"10.64.4.0/24"}}, "10.64.32.0/22"},
		{"a host that has come to lead everything elsewhere", "a2", "us-east-1a", &agentapi.HostNetwork{Cidr: "10.64.32.0/22", Taken: []string{"10.0.0.0/8"}}, "10.64.32.0/22"},
		{"that is nobody else's business", "a8", "us-east-1a", none, "10.64.4.0/22"},
		{"a host whose tasks have no such addresses", "docker", "us-east-1a", nil, ""},
	} {
		if got := j.join(c.node, c.zone, c.network); got != c.want {
			t.Errorf("%s: %s has %q, want %s", c.what, c.node, got, c.want)
		}
	}
}

// TestBlocksRunOut: then a node that is down without tasks gives its own up, and one that is not keeps it.
func TestBlocksRunOut(t *testing.T) {
	j := joining{t, statetest.New(t, controlplane.Schema...)}
	_, err := j.store.Update(t.Context(), func(tx *state.Tx) error {
		for i := range 16 { // each takes a /14: all that there is
			p := addressing.Nth(addressing.VPC, 14, i)
			controlplane.Nodes.Put(tx, &controlplane.Node{Id: fmt.Sprintf("n%02d", i), Status: NodeReady, Network: &agentapi.HostNetwork{Cidr: p.String()}})
		}
		controlplane.TaskStatuses.Put(tx, &controlplane.TaskStatus{Account: "1", Region: "us-east-1", Cluster: "default", Id: "t1", Node: "n03", Observed: agentapi.TaskState_RUNNING})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	hello := &agentapi.Hello{NodeId: "new", Network: &agentapi.HostNetwork{}}
	join := func() error {
		_, err := j.store.Update(t.Context(), func(tx *state.Tx) error { return Rule{}.Join(tx, hello, time.Unix(1, 0)) })
		return err
	}
	if err := join(); err == nil || !strings.Contains(err.Error(), "no block of 10.64.0.0/10 is left") {
		t.Errorf("joining without a block: %v", err)
	}
	j.down("n03") // has a task
	if err := join(); err == nil {
		t.Error("the block of a node with tasks was given away")
	}
	j.down("n07")
	if err := join(); err != nil {
		t.Fatal(err)
	}
	v := j.store.View()
	got, _ := controlplane.Nodes.Get(v, state.K("new"))
	gave, _ := controlplane.Nodes.Get(v, state.K("n07"))
	if got.Network.Cidr != addressing.Nth(addressing.VPC, 14, 7).String() || gave.Network.Cidr != "" {
		t.Errorf("the new node has %q, that which is down %q", got.Network.Cidr, gave.Network.Cidr)
	}
}

// TestThousandsOfBlocks: no two overlap, as many as there are.
func TestThousandsOfBlocks(t *testing.T) {
	for bits, want := range map[int]int{addressing.HostBits: 4096, 24: 16384} {
		seen := map[netip.Prefix]bool{}
		var all []netip.Prefix
		// One after the other as hosts join; given the last ones at once, as that is quadratic.
		for range 1500 {
			p, ok := free(all, bits, addressing.SubnetOf("us-east-1a"), addressing.VPC)
			if !ok {
				t.Fatalf("there are only %d of /%d", len(all), bits)
			}
			if overlaps(all, p) || !addressing.Within(p) {
				t.Fatalf("block %d is %s", len(all), p)
			}
			all = append(all, p)
		}
		for i := range addressing.Parts(addressing.VPC, bits) {
			seen[addressing.Nth(addressing.VPC, bits, i)] = true
		}
		if len(seen) != want {
			t.Errorf("%d hosts can have a /%d, want %d", len(seen), bits, want)
		}
		last := addressing.Nth(addressing.VPC, bits, want-1)
		delete(seen, last)
		if p, ok := free(slices.Collect(maps.Keys(seen)), bits, addressing.SubnetOf("us-east-1a"), addressing.VPC); !ok || p != last {
			t.Errorf("the last one is %s, want %s", p, last)
		}
	}
}

// TestBlocksOfTwoLengths: hosts that joined while blocks had another length keep theirs, and no new one overlaps them; IPv6 blocks, which follow
// from them, do not either.
func TestBlocksOfTwoLengths(t *testing.T) {
	j := joining{t, statetest.New(t, controlplane.Schema...)}
	var blocks []netip.Prefix
	for i, c := range []struct {
		bits int
		want string
	}{{0, "10.64.0.0/22"}, {24, "10.64.4.0/24"}, {22, "10.64.8.0/22"}, {24, "10.64.5.0/24"}, {26, "10.64.6.0/26"}, {24, "10.64.7.0/24"}, {26, "10.64.6.64/26"}, {0, "10.64.12.0/22"}} {
		id := fmt.Sprint("n", i)
		for range 2 { // and keeps it
			hello := &agentapi.Hello{NodeId: id, Network: &agentapi.HostNetwork{}, Attributes: map[string]string{"ecs.availability-zone": "us-east-1a"}}
			if _, err := j.store.Update(t.Context(), func(tx *state.Tx) error { return Rule{BlockBits: c.bits}.Join(tx, hello, time.Unix(1, 0)) }); err != nil {
				t.Fatal(err)
			}
			c.bits = 22
		}
		n, _ := controlplane.Nodes.Get(j.store.View(), state.K(id))
		if n.Network.Cidr != c.want {
			t.Errorf("%s has %s, want %s", id, n.Network.Cidr, c.want)
		}
		blocks = append(blocks, netip.MustParsePrefix(n.Network.Cidr))
	}
	for i, a := range blocks {
		for _, b := range blocks[:i] {
			if addressing.Block6(a).Overlaps(addressing.Block6(b)) {
				t.Errorf("%s and %s have one IPv6 block", a, b)
			}
		}
	}
}
