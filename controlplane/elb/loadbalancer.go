package elb

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

var namePattern = regexp.MustCompile(`^[A-Za-z0-9](-?[A-Za-z0-9])*$`)

// checkName holds for load balancers and target groups: 32 characters, letters, digits, hyphens within.
func checkName(what, name string) error {
	switch {
	case len(name) > 32:
		return invalid("%s name '%s' cannot be longer than '32' characters", what, name)
	case strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-"):
		return invalid("%s name '%s' cannot begin or end with '-'", what, name)
	case !namePattern.MatchString(strings.ReplaceAll(name, "--", "-")):
		return invalid("%s name '%s' can only contain characters that are alphanumeric characters and hyphens(-)", what, name)
	case strings.HasPrefix(name, "internal-"):
		return invalid("%s name '%s' cannot begin with 'internal-'", what, name)
	}
	return nil
}

// createLoadBalancer implements elasticloadbalancing:CreateLoadBalancer. Repeating it with the same settings answers the
// load balancer that is there.
func (s *Service) createLoadBalancer(ctx context.Context, in *elbv2.CreateLoadBalancerInput) (*elbv2.CreateLoadBalancerOutput, error) {
	name := aws.ToString(in.Name)
	if err := checkName("Load balancer", name); err != nil {
		return nil, err
	}
	lb := &LoadBalancer{Name: name, Type: string(in.Type), Scheme: string(in.Scheme), IpAddressType: string(in.IpAddressType)}
	if lb.Type == "" {
		lb.Type = "application"
	}
	if lb.Scheme == "" {
		lb.Scheme = "internet-facing"
	}
	switch {
	case lb.Type == "gateway":
		return nil, notYet("A load balancer of type gateway")
	case lb.IpAddressType != "" && lb.IpAddressType != "ipv4":
		return nil, notYet("IP address type " + lb.IpAddressType)
	case in.CustomerOwnedIpv4Pool != nil:
		return nil, notYet("A customer-owned address pool")
	case len(in.Subnets) > 0 && len(in.SubnetMappings) > 0:
		return nil, awserr.New("InvalidConfigurationRequest", "You must specify either subnets or subnet mappings, but not both")
	}
	lb.IpAddressType = "ipv4"
	subnets := in.Subnets
	for _, m := range in.SubnetMappings {
		if m.AllocationId != nil || m.PrivateIPv4Address != nil {
			return nil, notYet("A fixed address in a subnet mapping")
		}
		subnets = append(subnets, aws.ToString(m.SubnetId))
	}
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	scope := scopeOf(ctx)
	lb.Account, lb.Region = scope.Account, scope.Region
	if err := s.setSubnets(lb, subnets); err != nil {
		return nil, err
	}
	lb.Id, lb.DnsNumber = id.Hex(s.Rand, 16), digits(s.Rand, 10)
	lb.Created = timestamppb.New(api.CallFrom(ctx).Time)
	err = s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		if err := s.setSecurityGroups(tx, lb, in.SecurityGroups); err != nil {
			return err
		}
		if old, ok := LoadBalancers.Get(tx, scope.Key(name)); ok {
			if !sameSettings(old, lb) {
				return awserr.New("DuplicateLoadBalancerName", "A load balancer with the same name '%s' exists, but with different settings", name)
			}
			lb = old
			return nil
		}
		lb = proto.Clone(lb).(*LoadBalancer) // fn may run again
		if err := s.claimAddress(tx, lb); err != nil {
			return err
		}
		LoadBalancers.Put(tx, lb)
		controlplane.PutTags(tx, scope, lb.ARN(), tags)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elbv2.CreateLoadBalancerOutput{LoadBalancers: []types.LoadBalancer{s.renderLoadBalancer(lb)}}, nil
}

func sameSettings(a, b *LoadBalancer) bool {
	zones := func(l *LoadBalancer) []string {
		var out []string
		for _, z := range l.Zones {
			out = append(out, z.Subnet)
		}
		slices.Sort(out)
		return out
	}
	return a.Type == b.Type && a.Scheme == b.Scheme && slices.Equal(zones(a), zones(b)) &&
		slices.Equal(slices.Sorted(slices.Values(a.SecurityGroups)), slices.Sorted(slices.Values(b.SecurityGroups)))
}

func digits(r interface{ Read([]byte) (int, error) }, n int) string {
	v, _ := strconv.ParseUint(id.Hex(r, 14), 16, 64)
	d := fmt.Sprintf("%0*d", n, v)
	return "1" + d[len(d)-n+1:]
}

// setSubnets checks subnets and puts them into lb: an application load balancer wants two zones.
func (s *Service) setSubnets(lb *LoadBalancer, subnets []string) error {
	if len(subnets) == 0 {
		return invalid("At least one subnet must be specified")
	}
	lb.Zones = nil
	seen := map[string]bool{}
	for _, n := range subnets {
		zone, ok := s.Network.Subnet(lb.Account, lb.Region, n)
		if !ok {
			return awserr.New("SubnetNotFound", "The subnet ID '%s' does not exist", n)
		}
		if seen[zone] {
			return awserr.New("InvalidConfigurationRequest", "A load balancer cannot be attached to multiple subnets in the same Availability Zone")
		}
		seen[zone] = true
		lb.Zones = append(lb.Zones, &Zone{Name: zone, Subnet: n})
	}
	if lb.Type == "application" && len(seen) < 2 {
		return invalid("At least two subnets in two different Availability Zones must be specified")
	}
	lb.Vpc = s.Network.DefaultVPC(lb.Account, lb.Region) // every subnet belongs to it
	return nil
}

func (s *Service) setSecurityGroups(r state.Reader, lb *LoadBalancer, groups []string) error {
	for _, g := range groups {
		if vpc, ok := s.Network.SecurityGroup(r, lb.Account, lb.Region, g); !ok || vpc != lb.Vpc {
			return awserr.New("InvalidSecurityGroup", "The security group '%s' does not exist", g)
		}
	}
	lb.SecurityGroups = slices.Clone(groups)
	if len(groups) == 0 && lb.Type == "application" {
		lb.SecurityGroups = []string{s.Network.DefaultSecurityGroup(lb.Account, lb.Region)}
	}
	return nil
}

// claimAddress gives lb a loopback address of its own, from a /16 within 127/8 that follows from the installation.
func (s *Service) claimAddress(tx *state.Tx, lb *LoadBalancer) error {
	sum := sha256.Sum256([]byte("elb addresses " + s.Instance))
	second := 2 + sum[0]%250 // not 127.0 and 127.1, which others use
	own := sha256.Sum256([]byte(lb.ARN()))
	start := binary.BigEndian.Uint16(own[:])
	for i := range uint16(256) {
		n := start + i*257
		a := netip.AddrFrom4([4]byte{127, second, byte(n >> 8), byte(n)})
		if last := byte(n); last == 0 || last == 255 {
			continue
		}
		if _, taken := Addresses.Get(tx, state.K(a.String())); !taken {
			lb.Address = a.String()
			Addresses.Put(tx, &Address{Address: lb.Address, LoadBalancerArn: lb.ARN()})
			return nil
		}
	}
	return awserr.New("TooManyLoadBalancers", "The maximum number of load balancers has been reached")
}

// DNSName is the load balancer's name within the configured domain.
func (s *Service) DNSName(l *LoadBalancer) string {
	name := l.Name + "-" + l.DnsNumber
	if l.Scheme == "internal" {
		name = "internal-" + name
	}
	domain := s.Domain
	if domain == "" {
		domain = "localhost"
	}
	return strings.ToLower(name) + "." + l.Region + ".elb." + domain
}

func (s *Service) renderLoadBalancer(l *LoadBalancer) types.LoadBalancer {
	out := types.LoadBalancer{
		LoadBalancerArn: aws.String(l.ARN()), LoadBalancerName: aws.String(l.Name), DNSName: aws.String(s.DNSName(l)),
		CanonicalHostedZoneId: aws.String("Z35SXDOTRQ7X7K"), CreatedTime: aws.Time(l.Created.AsTime()),
		Scheme: types.LoadBalancerSchemeEnum(l.Scheme), Type: types.LoadBalancerTypeEnum(l.Type), VpcId: aws.String(l.Vpc),
		IpAddressType: types.IpAddressType(l.IpAddressType), SecurityGroups: l.SecurityGroups,
		// The record is the load balancer: there is nothing to wait for.
		State: &types.LoadBalancerState{Code: types.LoadBalancerStateEnumActive},
	}
	for _, z := range l.Zones {
		out.AvailabilityZones = append(out.AvailabilityZones, types.AvailabilityZone{
			ZoneName: aws.String(z.Name), SubnetId: aws.String(z.Subnet), LoadBalancerAddresses: []types.LoadBalancerAddress{}})
	}
	return out
}

// describeLoadBalancers implements elasticloadbalancing:DescribeLoadBalancers.
func (s *Service) describeLoadBalancers(ctx context.Context, in *elbv2.DescribeLoadBalancersInput) (*elbv2.DescribeLoadBalancersOutput, error) {
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	out := &elbv2.DescribeLoadBalancersOutput{LoadBalancers: []types.LoadBalancer{}}
	for _, a := range in.LoadBalancerArns {
		l, err := findLoadBalancer(v, scope, a)
		if err != nil {
			return nil, err
		}
		out.LoadBalancers = append(out.LoadBalancers, s.renderLoadBalancer(l))
	}
	for _, n := range in.Names {
		l, ok := LoadBalancers.Get(v, scope.Key(n))
		if !ok {
			return nil, awserr.New("LoadBalancerNotFound", "Load balancers '[%s]' not found", n)
		}
		out.LoadBalancers = append(out.LoadBalancers, s.renderLoadBalancer(l))
	}
	if len(in.LoadBalancerArns)+len(in.Names) > 0 {
		return out, nil
	}
	page, next, err := api.Page(ctx, s.Pages, in, api.PageSize(in.PageSize, 400, 400),
		func(after string) iter.Seq[*LoadBalancer] {
			return LoadBalancers.ScanFrom(v, scope.Key(), state.Key(after))
		},
		func(l *LoadBalancer) string { return string(LoadBalancers.Key(l)) })
	if err != nil {
		return nil, err
	}
	for _, l := range page {
		out.LoadBalancers = append(out.LoadBalancers, s.renderLoadBalancer(l))
	}
	out.NextMarker = next
	return out, nil
}

// deleteLoadBalancer implements elasticloadbalancing:DeleteLoadBalancer, with its listeners and rules. One that does not exist
// is deleted already.
func (s *Service) deleteLoadBalancer(ctx context.Context, in *elbv2.DeleteLoadBalancerInput) (*elbv2.DeleteLoadBalancerOutput, error) {
	arn := aws.ToString(in.LoadBalancerArn)
	// Rules first, in transactions of their own: all at once may be more than one transaction takes.
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	lb, err := findLoadBalancer(v, scope, arn)
	if awserr.Is(err, "LoadBalancerNotFound") {
		return &elbv2.DeleteLoadBalancerOutput{}, nil
	} else if err != nil {
		return nil, err
	}
	if lb.Attributes["deletion_protection.enabled"] == "true" {
		return nil, awserr.New("OperationNotPermitted", "Load balancer '%s' cannot be deleted because deletion protection is enabled", arn)
	}
	for l := range Listeners.Scan(v, scope.Key(lb.Name)) {
		if err := s.dropListener(ctx, l.ARN()); err != nil && !awserr.Is(err, "ListenerNotFound") {
			return nil, err
		}
	}
	err = s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		now, err := findLoadBalancer(tx, scope, arn)
		if err != nil {
			return nil
		}
		for range Listeners.Scan(tx, scope.Key(lb.Name)) {
			return awserr.New("ResourceInUse", "Load balancer '%s' got a listener meanwhile", arn)
		}
		Addresses.Delete(tx, state.K(now.Address))
		LoadBalancers.Delete(tx, LoadBalancers.Key(now))
		controlplane.PutTags(tx, scope, arn, nil)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elbv2.DeleteLoadBalancerOutput{}, nil
}

// changeLoadBalancer runs change on a copy of the record and puts it.
func (s *Service) changeLoadBalancer(ctx context.Context, arn *string, change func(*state.Tx, *LoadBalancer) error) (*LoadBalancer, error) {
	var lb *LoadBalancer
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		old, err := findLoadBalancer(tx, scope, aws.ToString(arn))
		if err != nil {
			return err
		}
		lb = proto.Clone(old).(*LoadBalancer)
		if err := change(tx, lb); err != nil {
			return err
		}
		LoadBalancers.Put(tx, lb)
		return nil
	})
	return lb, err
}

// setSubnetsOp implements elasticloadbalancing:SetSubnets.
func (s *Service) setSubnetsOp(ctx context.Context, in *elbv2.SetSubnetsInput) (*elbv2.SetSubnetsOutput, error) {
	subnets := in.Subnets
	for _, m := range in.SubnetMappings {
		subnets = append(subnets, aws.ToString(m.SubnetId))
	}
	lb, err := s.changeLoadBalancer(ctx, in.LoadBalancerArn, func(_ *state.Tx, l *LoadBalancer) error { return s.setSubnets(l, subnets) })
	if err != nil {
		return nil, err
	}
	return &elbv2.SetSubnetsOutput{AvailabilityZones: s.renderLoadBalancer(lb).AvailabilityZones, IpAddressType: types.IpAddressType(lb.IpAddressType)}, nil
}

// setSecurityGroupsOp implements elasticloadbalancing:SetSecurityGroups.
func (s *Service) setSecurityGroupsOp(ctx context.Context, in *elbv2.SetSecurityGroupsInput) (*elbv2.SetSecurityGroupsOutput, error) {
	lb, err := s.changeLoadBalancer(ctx, in.LoadBalancerArn, func(tx *state.Tx, l *LoadBalancer) error { return s.setSecurityGroups(tx, l, in.SecurityGroups) })
	if err != nil {
		return nil, err
	}
	return &elbv2.SetSecurityGroupsOutput{SecurityGroupIds: lb.SecurityGroups}, nil
}
