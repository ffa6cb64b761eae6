package ecs

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

// TestRebalancingIsForServicesThatCanHaveIt: a new service that says nothing has it if it can; one that asks for it and cannot have it is refused, also later.
func TestRebalancingIsForServicesThatCanHaveIt(t *testing.T) {
	spread := func(first ...types.PlacementStrategy) func(*ecs.CreateServiceInput) {
		return func(in *ecs.CreateServiceInput) { in.PlacementStrategy = first }
	}
	zone := types.PlacementStrategy{Type: "spread", Field: aws.String("attribute:ecs.availability-zone")}
	binpack := types.PlacementStrategy{Type: "binpack", Field: aws.String("memory")}
	for name, c := range map[string]struct {
		change func(*ecs.CreateServiceInput)
		why    string // "": it can
	}{
		"nothing said":     {func(*ecs.CreateServiceInput) {}, ""},
		"zones first":      {spread(zone, binpack), ""},
		"binpack first":    {spread(binpack, zone), "first placement strategy"},
		"spread over host": {spread(types.PlacementStrategy{Type: "spread", Field: aws.String("instanceId")}), "first placement strategy"},
		"daemon":           {func(in *ecs.CreateServiceInput) { in.SchedulingStrategy, in.DesiredCount = "DAEMON", nil }, "DAEMON"},
		"no more than it wants": {func(in *ecs.CreateServiceInput) {
			in.DeploymentConfiguration = &types.DeploymentConfiguration{MaximumPercent: aws.Int32(100), MinimumHealthyPercent: aws.Int32(50)}
		}, "maximumPercent of 100"},
		"bound to a zone": {func(in *ecs.CreateServiceInput) {
			in.PlacementConstraints = []types.PlacementConstraint{{Type: "memberOf", Expression: aws.String("attribute:ecs.availability-zone == us-east-1a")}}
		}, "placement constraint"},
	} {
		t.Run(name, func(t *testing.T) {
			p := world(t)
			in := func(value types.AvailabilityZoneRebalancing) *ecs.CreateServiceInput {
				in := &ecs.CreateServiceInput{ServiceName: aws.String("s" + strings.ToLower(string(value))), TaskDefinition: aws.String("web"), DesiredCount: aws.Int32(2), AvailabilityZoneRebalancing: value}
				c.change(in)
				return in
			}
			refused := func(_ any, err error) {
				t.Helper()
				if e, ok := awserr.As(err); !ok || e.Code != "InvalidParameterException" || !strings.Contains(e.Message, c.why) {
					t.Errorf("got %v", err)
				}
			}
			made := must(p, p.createService, in("")).Service
			if want := types.AvailabilityZoneRebalancingEnabled; c.why == "" && made.AvailabilityZoneRebalancing != want {
				t.Errorf("by default it is %s", made.AvailabilityZoneRebalancing)
			} else if c.why != "" && made.AvailabilityZoneRebalancing != types.AvailabilityZoneRebalancingDisabled {
				t.Errorf("by default it is %s", made.AvailabilityZoneRebalancing)
			}
			update := &ecs.UpdateServiceInput{Service: made.ServiceName, AvailabilityZoneRebalancing: types.AvailabilityZoneRebalancingEnabled}
			if c.why != "" {
				_, err := p.createService(p.ctx(), in("ENABLED"))
				refused(nil, err)
				_, err = p.updateService(p.ctx(), update)
				refused(nil, err)
				return
			}
			if s := must(p, p.createService, in("DISABLED")).Service; s.AvailabilityZoneRebalancing != "DISABLED" {
				t.Errorf("it is %s, though DISABLED was asked for", s.AvailabilityZoneRebalancing)
			}
			// An update that says nothing leaves it, and starts no deployment.
			update.Service = aws.String("sdisabled")
			if s := must(p, p.updateService, &ecs.UpdateServiceInput{Service: update.Service, DesiredCount: aws.Int32(3)}).Service; s.AvailabilityZoneRebalancing != "DISABLED" {
				t.Errorf("after an update of something else it is %s", s.AvailabilityZoneRebalancing)
			}
			if s := must(p, p.updateService, update).Service; s.AvailabilityZoneRebalancing != "ENABLED" || len(s.Deployments) != 1 {
				t.Errorf("after an update it is %s, with %d deployments", s.AvailabilityZoneRebalancing, len(s.Deployments))
			}
		})
	}
}
