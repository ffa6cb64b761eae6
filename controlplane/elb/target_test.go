package elb

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/mesh"
)

// TestTargetIsTheInstanceThatIsThere, of several records that it has left behind under other names: in whatever order they stand.
func TestTargetIsTheInstanceThatIsThere(t *testing.T) {
	type record struct {
		status     string
		registered int64
	}
	for name, c := range map[string]struct {
		records []record // the address ends in the index
		want    string
	}{
		"one that is down": {[]record{{"DOWN", 1}}, "192.0.2.0"},
		"down, then ready": {[]record{{"DOWN", 1}, {"READY", 2}}, "192.0.2.1"},
		"ready, then down": {[]record{{"READY", 1}, {"DOWN", 2}}, "192.0.2.0"},
		"away and down":    {[]record{{"DOWN", 9}, {"AWAY", 2}}, "192.0.2.1"},
		"both ready":       {[]record{{"READY", 5}, {"READY", 7}, {"READY", 6}}, "192.0.2.1"},
		"all down":         {[]record{{"DOWN", 5}, {"DOWN", 4}}, "192.0.2.0"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t).with()
			g := groupInput("hosts")
			g.TargetType = "instance"
			group, err := f.createTargetGroup(f.ctx, g)
			f.ok(err)
			_, err = f.Store.Update(f.ctx, func(tx *state.Tx) error {
				for i, r := range c.records {
					controlplane.Nodes.Put(tx, &controlplane.Node{
						Id: string(rune('a' + i)), Status: r.status, Registered: timestamppb.New(time.Unix(r.registered, 0)), Address: "192.0.2." + string(rune('0'+i)),
						Attributes: map[string]string{"ecs.instance-id": "i-1"},
					})
				}
				return nil
			})
			f.ok(err)
			arn := group.TargetGroups[0].TargetGroupArn
			_, err = f.registerTargets(f.ctx, &elbv2.RegisterTargetsInput{TargetGroupArn: arn, Targets: []elbtypes.TargetDescription{{Id: aws.String("i-1")}}})
			f.ok(err)
			for e := range mesh.Endpoints.Scan(f.Store.View(), controlplane.Scope{Account: account, Region: region}.Key(*arn)) {
				if e.Address != c.want {
					t.Errorf("it is at %s, not at %s", e.Address, c.want)
				}
				return
			}
			t.Error("it is not registered")
		})
	}
}
