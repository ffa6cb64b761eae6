package ecs

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/controlplane"
)

const zoneField = "attribute:ecs.availability-zone"

// checkRebalancing completes what a service says of Availability Zone rebalancing: a new one that says nothing has it if it can. It refuses what can not
// have it. See "Balancing an Amazon ECS service across Availability Zones".
func checkRebalancing(svc *controlplane.Service, l *launch) error {
	why := unbalanceable(svc, l)
	switch types.AvailabilityZoneRebalancing(svc.AvailabilityZoneRebalancing) {
	case "":
		svc.AvailabilityZoneRebalancing = string(types.AvailabilityZoneRebalancingEnabled)
		if why != "" {
			svc.AvailabilityZoneRebalancing = string(types.AvailabilityZoneRebalancingDisabled)
		}
	case types.AvailabilityZoneRebalancingEnabled:
		if why != "" {
			return invalid("Availability Zone rebalancing can not be enabled for a service that %s.", why)
		}
	}
	return nil
}

// unbalanceable is why a service's tasks can not be balanced over zones.
func unbalanceable(svc *controlplane.Service, l *launch) string {
	switch {
	case svc.SchedulingStrategy == string(types.SchedulingStrategyDaemon):
		return "uses the DAEMON scheduling strategy"
	case l.launchType == types.LaunchTypeExternal:
		return "uses the EXTERNAL launch type"
	case svc.MaximumPercent <= 100:
		return "has a maximumPercent of 100"
	case len(l.spread) > 0 && (l.spread[0].Type != types.PlacementStrategyTypeSpread || !strings.EqualFold(aws.ToString(l.spread[0].Field), zoneField)):
		return "does not have spread over " + zoneField + " as its first placement strategy"
	}
	texts := []string{}
	for _, c := range l.constraints {
		texts = append(texts, aws.ToString(c.Expression))
	}
	for _, c := range l.shape.PlacementConstraints {
		texts = append(texts, aws.ToString(c.Expression))
	}
	for _, text := range texts {
		if strings.Contains(strings.ToLower(text), zoneField) {
			return "uses " + zoneField + " in a placement constraint"
		}
	}
	return ""
}
