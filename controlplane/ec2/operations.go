package ec2

import (
	"cmp"
	"context"
	"io"
	"iter"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// Config is what the family stands on.
type Config struct {
	Store   *state.Store
	Rand    io.Reader // of identifiers
	Pages   *api.Pages
	Network Network
	// Uses says whether some other family has something in the group.
	Uses func(r state.Reader, account, region, group string) bool
}

// Service answers EC2's operations. It keeps nothing between calls.
type Service struct{ Config }

// New makes the family.
func New(c Config) *Service { return &Service{c} }

// Operations is the family's table.
func (s *Service) Operations() []api.Operation {
	return []api.Operation{
		api.Write(s.authorizeSecurityGroupEgress, onGroup(func(in *ec2.AuthorizeSecurityGroupEgressInput) *string { return in.GroupId })),
		api.Write(s.authorizeSecurityGroupIngress, onGroup(func(in *ec2.AuthorizeSecurityGroupIngressInput) *string { return in.GroupId })),
		api.Write(s.createSecurityGroup, api.Route("POST /security-groups"), api.Resource(func(c *api.Call, _ *ec2.CreateSecurityGroupInput) string {
			return groupARN(c.Account, c.Region, "*")
		})),
		api.Write(s.createTags, api.Resources(func(c *api.Call, in *ec2.CreateTagsInput) []string { return resourceARNs(c, in.Resources) })),
		api.Write(s.deleteSecurityGroup, onGroup(func(in *ec2.DeleteSecurityGroupInput) *string { return in.GroupId })),
		api.Write(s.deleteTags, api.Resources(func(c *api.Call, in *ec2.DeleteTagsInput) []string { return resourceARNs(c, in.Resources) })),
		api.Read(s.describeAvailabilityZones, api.Route("GET /availability-zones")),
		api.Read(s.describeNetworkInterfaces, api.Route("GET /network-interfaces")),
		api.Read(s.describeSecurityGroupRules, api.Route("GET /security-group-rules")),
		api.Read(s.describeSecurityGroups, api.Route("GET /security-groups")),
		api.Read(s.describeSubnets, api.Route("GET /subnets")),
		api.Read(s.describeVpcs, api.Route("GET /vpcs")),
		api.Write(s.modifySecurityGroupRules, onGroup(func(in *ec2.ModifySecurityGroupRulesInput) *string { return in.GroupId })),
		api.Write(s.revokeSecurityGroupEgress, onGroup(func(in *ec2.RevokeSecurityGroupEgressInput) *string { return in.GroupId })),
		api.Write(s.revokeSecurityGroupIngress, onGroup(func(in *ec2.RevokeSecurityGroupIngressInput) *string { return in.GroupId })),
	}
}

// onGroup says which group an operation is on; one that is named otherwise may be any.
func onGroup[I any](id func(*I) *string) api.Option {
	return api.Resource(func(c *api.Call, in *I) string { return groupARN(c.Account, c.Region, cmp.Or(str(id(in)), "*")) })
}

func resourceARNs(c *api.Call, ids []string) (list []string) {
	for _, id := range ids {
		of := groupARN
		if isRule(id) {
			of = ruleARN
		}
		list = append(list, of(c.Account, c.Region, id))
	}
	return list
}

// view is what reads are answered from: everything acknowledged before the call is in it.
func (s *Service) view(ctx context.Context) (*state.View, controlplane.Scope, error) {
	v, err := s.Store.Linearizable(ctx)
	return v, scopeOf(ctx), err
}

func scopeOf(ctx context.Context) controlplane.Scope {
	c := api.CallFrom(ctx)
	return controlplane.Scope{Account: c.Account, Region: c.Region}
}

func (s *Service) update(ctx context.Context, change func(*state.Tx, controlplane.Scope) error) error {
	_, err := s.Store.Update(ctx, func(tx *state.Tx) error { return change(tx, scopeOf(ctx)) })
	return err
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
	vpcKind       = kind{"vpc", "InvalidVpcID.Malformed", "InvalidVpcID.NotFound", "vpc ID"}
	subnetKind    = kind{"subnet", "InvalidSubnetID.Malformed", "InvalidSubnetID.NotFound", "subnet ID"}
	groupKind     = kind{"sg", "InvalidGroupId.Malformed", "InvalidGroup.NotFound", "security group"}
	interfaceKind = kind{"eni", "InvalidNetworkInterfaceId.Malformed", "InvalidNetworkInterfaceID.NotFound", "networkInterface ID"}
	ruleKind      = kind{"sgr", "InvalidSecurityGroupRuleId.Malformed", "InvalidSecurityGroupRuleId.NotFound", "security group rule ID"}
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
