package ec2

import (
	"iter"
	"regexp"
	"slices"
	"strings"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Service answers EC2's operations.
type Service struct {
	network Network
	pages   *api.Pages
}

// New makes the family.
func New(network Network, pages *api.Pages) *Service { return &Service{network, pages} }

// Operations is the family's table.
func (s *Service) Operations() []api.Operation {
	return []api.Operation{
		api.Read(s.describeAvailabilityZones, api.Route("GET /availability-zones")),
		api.Read(s.describeSecurityGroups, api.Route("GET /security-groups")),
		api.Read(s.describeSubnets, api.Route("GET /subnets")),
		api.Read(s.describeVpcs, api.Route("GET /vpcs")),
	}
}

// maxPage is how many items an answer has at most, and without MaxResults.
const maxPage = 1000

// dryRun answers a request that only asks whether it would be allowed: authorization has said so by now.
func dryRun(asked *bool) error {
	if asked == nil || !*asked {
		return nil
	}
	return awserr.WithStatus(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
}

var idPattern = regexp.MustCompile(`^[a-z]+-([0-9a-f]{8}|[0-9a-f]{17})$`)

// kind is how one kind of resource words its errors. AWS spells the codes differently for each.
type kind struct{ prefix, malformed, notFound, noun string }

var (
	vpcKind    = kind{"vpc", "InvalidVpcID.Malformed", "InvalidVpcID.NotFound", "vpc ID"}
	subnetKind = kind{"subnet", "InvalidSubnetID.Malformed", "InvalidSubnetID.NotFound", "subnet ID"}
	groupKind  = kind{"sg", "InvalidGroupId.Malformed", "InvalidGroup.NotFound", "security group"}
)

// check refuses ids that are malformed, wherever they stand in the list, and then ids that nothing has.
func (k kind) check(ids []string, exists func(id string) bool) error {
	for _, id := range ids {
		if !strings.HasPrefix(id, k.prefix+"-") || !idPattern.MatchString(id) {
			return awserr.New(k.malformed, `Invalid id: "%s" (expecting "%s-...")`, id, k.prefix)
		}
	}
	for _, id := range ids {
		if !exists(id) {
			return awserr.New(k.notFound, "The %s '%s' does not exist", k.noun, id)
		}
	}
	return nil
}

// named says whether id is among those asked for; none asked for means all.
func named(ids []string, id *string) bool { return len(ids) == 0 || slices.Contains(ids, *id) }

// after yields the items whose key is greater than last, in the order they stand in, which must be that of their keys.
func after[T any](items []T, key func(T) string, last string) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, v := range items {
			if key(v) > last && !yield(v) {
				return
			}
		}
	}
}
