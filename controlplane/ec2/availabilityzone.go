package ec2

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

var zoneFilters = filters[types.AvailabilityZone]{
	"group-name":    one(func(v types.AvailabilityZone) *string { return v.GroupName }),
	"opt-in-status": func(v types.AvailabilityZone) []string { return []string{string(v.OptInStatus)} },
	"region-name":   one(func(v types.AvailabilityZone) *string { return v.RegionName }),
	"state":         func(v types.AvailabilityZone) []string { return []string{string(v.State)} },
	"zone-id":       one(func(v types.AvailabilityZone) *string { return v.ZoneId }),
	"zone-name":     one(func(v types.AvailabilityZone) *string { return v.ZoneName }),
	"zone-type":     one(func(v types.AvailabilityZone) *string { return v.ZoneType }),

	"group-long-name":  nil,
	"message":          nil,
	"parent-zone-id":   nil,
	"parent-zone-name": nil,
}

// describeAvailabilityZones implements ec2:DescribeAvailabilityZones. AWS does not page it.
func (s *Service) describeAvailabilityZones(ctx context.Context, in *ec2.DescribeAvailabilityZonesInput) (*ec2.DescribeAvailabilityZonesOutput, error) {
	c := api.CallFrom(ctx)
	match, err := zoneFilters.compile(in.Filters)
	if err != nil {
		return nil, err
	}
	zones := s.Network.zones(c.Region)
	unknown := func(asked []string, of func(types.AvailabilityZone) *string) (bad []string) {
		for _, a := range asked {
			if !slices.ContainsFunc(zones, func(z types.AvailabilityZone) bool { return *of(z) == a }) {
				bad = append(bad, a)
			}
		}
		return bad
	}
	name := func(z types.AvailabilityZone) *string { return z.ZoneName }
	id := func(z types.AvailabilityZone) *string { return z.ZoneId }
	if bad := unknown(in.ZoneNames, name); len(bad) > 0 {
		return nil, awserr.New("InvalidParameterValue", "Invalid availability zone: [%s]", strings.Join(bad, ", "))
	}
	if bad := unknown(in.ZoneIds, id); len(bad) > 0 {
		return nil, awserr.New("InvalidParameterValue", "Invalid availability zone-id: [%s]", strings.Join(bad, ", "))
	}
	if err := dryRun(in.DryRun); err != nil {
		return nil, err
	}
	found := []types.AvailabilityZone{}
	for _, z := range zones {
		if named(in.ZoneNames, z.ZoneName) && named(in.ZoneIds, z.ZoneId) && match(z) {
			found = append(found, z)
		}
	}
	return &ec2.DescribeAvailabilityZonesOutput{AvailabilityZones: found}, nil
}

func (n Network) zones(region string) []types.AvailabilityZone {
	var out []types.AvailabilityZone
	for _, zone := range n.Zones(region) {
		out = append(out, types.AvailabilityZone{
			ZoneName:           &zone,
			ZoneId:             new(zoneID(region, zone)),
			RegionName:         &region,
			GroupName:          new(region + "-zg-1"),
			NetworkBorderGroup: &region,
			ZoneType:           new("availability-zone"),
			State:              types.AvailabilityZoneStateAvailable,
			OptInStatus:        types.AvailabilityZoneOptInStatusOptInNotRequired,
			Messages:           []types.AvailabilityZoneMessage{},
		})
	}
	return out
}
