package elb

import (
	"context"
	"iter"
	"regexp"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
	"github.com/seed-2f228079/neargate/mesh"
)

var matcherPattern = regexp.MustCompile(`^\d{3}(-\d{3})?(,\d{3}(-\d{3})?)*$`)

// createTargetGroup implements elasticloadbalancing:CreateTargetGroup. Repeating it with the same settings answers the group
// that is there.
func (s *Service) createTargetGroup(ctx context.Context, in *elbv2.CreateTargetGroupInput) (*elbv2.CreateTargetGroupOutput, error) {
	name := aws.ToString(in.Name)
	if err := checkName("Target group", name); err != nil {
		return nil, err
	}
	scope := scopeOf(ctx)
	g := &TargetGroup{
		Account: scope.Account, Region: scope.Region, Name: name, Protocol: string(in.Protocol), ProtocolVersion: aws.ToString(in.ProtocolVersion),
		TargetType: string(in.TargetType), IpAddressType: "ipv4", Vpc: aws.ToString(in.VpcId),
	}
	if g.TargetType == "" {
		g.TargetType = "instance"
	}
	switch g.TargetType {
	case "lambda", "alb":
		return nil, notYet("Target type " + g.TargetType)
	}
	if in.IpAddressType != "" && in.IpAddressType != types.TargetGroupIpAddressTypeEnumIpv4 {
		return nil, notYet("IP address type " + string(in.IpAddressType))
	}
	switch g.Protocol {
	case "HTTP", "TCP":
	case "":
		return nil, invalid("A protocol must be specified")
	case "HTTPS", "TLS", "UDP", "TCP_UDP", "GENEVE", "QUIC", "TCP_QUIC":
		return nil, awserr.New("UnsupportedProtocol", "Target groups of protocol %s are not supported by this platform yet", g.Protocol)
	default:
		return nil, invalid("Protocol '%s' must be one of 'HTTP, HTTPS, TCP, TLS, UDP, TCP_UDP, GENEVE'", g.Protocol)
	}
	if g.Protocol == "HTTP" && g.ProtocolVersion == "" {
		g.ProtocolVersion = "HTTP1"
	}
	if v := g.ProtocolVersion; v != "" && (g.Protocol != "HTTP" || v != "HTTP1" && v != "HTTP2" && v != "GRPC") {
		return nil, invalid("Protocol version '%s' is not valid for protocol '%s'", v, g.Protocol)
	}
	if in.Port == nil {
		return nil, invalid("A port must be specified")
	}
	if *in.Port < 1 || *in.Port > 65535 {
		return nil, invalid("Port '%d' must be between '1' and '65535' inclusive", *in.Port)
	}
	g.Port = uint32(*in.Port)
	if g.Vpc == "" {
		return nil, invalid("A VPC ID must be specified")
	}
	if !s.Network.VPCExists(g.Account, g.Region, g.Vpc) {
		return nil, invalid("The VPC ID '%s' is not found", g.Vpc)
	}
	setHealthDefaults(g)
	if err := setHealthCheck(g, healthCheck{
		in.HealthCheckEnabled, in.HealthCheckProtocol, in.HealthCheckPort, in.HealthCheckPath, in.HealthCheckIntervalSeconds,
		in.HealthCheckTimeoutSeconds, in.HealthyThresholdCount, in.UnhealthyThresholdCount, in.Matcher,
	}); err != nil {
		return nil, err
	}
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	g.Id = id.Hex(s.Rand, 16)
	var lbs []string
	made := g
	err = s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		made, lbs = g, nil
		if old, ok := TargetGroups.Get(tx, scope.Key(name)); ok {
			same := proto.Clone(old).(*TargetGroup)
			same.Id, same.Attributes = g.Id, nil
			if !proto.Equal(same, g) {
				return awserr.New("DuplicateTargetGroupName", "A target group with the same name '%s' exists, but with different settings", name)
			}
			made, lbs = old, usersOf(tx, scope, old.ARN())
			return nil
		}
		TargetGroups.Put(tx, g)
		controlplane.PutTags(tx, scope, g.ARN(), tags)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elbv2.CreateTargetGroupOutput{TargetGroups: []types.TargetGroup{renderTargetGroup(made, lbs)}}, nil
}

// setHealthDefaults are those of the API reference for each protocol.
func setHealthDefaults(g *TargetGroup) {
	g.HealthCheckEnabled, g.HealthCheckPort, g.HealthCheckProtocol = true, "traffic-port", g.Protocol
	g.HealthCheckIntervalSeconds, g.HealthyThreshold, g.UnhealthyThreshold = 30, 5, 2
	if g.Protocol == "TCP" {
		g.HealthCheckTimeoutSeconds = 10
		return
	}
	g.HealthCheckTimeoutSeconds, g.HealthCheckPath, g.Matcher = 5, "/", "200"
}

// healthCheck is what CreateTargetGroup and ModifyTargetGroup may set.
type healthCheck struct {
	enabled            *bool
	protocol           types.ProtocolEnum
	port, path         *string
	interval, timeout  *int32
	healthy, unhealthy *int32
	matcher            *types.Matcher
}

func setHealthCheck(g *TargetGroup, h healthCheck) error {
	if h.enabled != nil {
		if !*h.enabled && g.TargetType != "lambda" {
			return invalid("Health check enabled must be true for target groups with target type '%s'", g.TargetType)
		}
		g.HealthCheckEnabled = *h.enabled
	}
	switch h.protocol {
	case "", types.ProtocolEnum(g.HealthCheckProtocol):
	case types.ProtocolEnumHttp:
		g.HealthCheckProtocol = "HTTP"
		if g.HealthCheckPath == "" {
			g.HealthCheckPath, g.Matcher = "/", "200-399" // a network load balancer's default
		}
	case types.ProtocolEnumTcp:
		if g.Protocol == "HTTP" {
			return invalid("Health check protocol 'TCP' is not supported for target groups with the '%s' protocol", g.Protocol)
		}
		g.HealthCheckProtocol, g.HealthCheckPath, g.Matcher = "TCP", "", ""
	default:
		return awserr.New("UnsupportedProtocol", "Health checks of protocol %s are not supported by this platform yet", h.protocol)
	}
	if h.port != nil {
		if n, err := strconv.Atoi(*h.port); *h.port != "traffic-port" && (err != nil || n < 1 || n > 65535) {
			return invalid("Health check port '%s' must be either 'traffic-port' or in the range [1, 65535]", *h.port)
		}
		g.HealthCheckPort = *h.port
	}
	if h.path != nil && g.HealthCheckProtocol == "HTTP" {
		if !strings.HasPrefix(*h.path, "/") || len(*h.path) > 1024 || strings.ContainsAny(*h.path, " \r\n\t") {
			return invalid("Health check path '%s' must begin with a '/' character, and can only contain printable ASCII characters, without spaces", *h.path)
		}
		g.HealthCheckPath = *h.path
	}
	for _, n := range []struct {
		what      string
		given     *int32
		field     *uint32
		low, high int32
	}{
		{"Health check interval", h.interval, &g.HealthCheckIntervalSeconds, 5, 300},
		{"Health check timeout", h.timeout, &g.HealthCheckTimeoutSeconds, 2, 120},
		{"Healthy threshold count", h.healthy, &g.HealthyThreshold, 2, 10},
		{"Unhealthy threshold count", h.unhealthy, &g.UnhealthyThreshold, 2, 10},
	} {
		if n.given == nil {
			continue
		}
		if *n.given < n.low || *n.given > n.high {
			return invalid("%s '%d' must be in the range [%d, %d]", n.what, *n.given, n.low, n.high)
		}
		*n.field = uint32(*n.given)
	}
	if g.HealthCheckTimeoutSeconds >= g.HealthCheckIntervalSeconds {
		if h.timeout != nil || h.interval == nil || g.HealthCheckIntervalSeconds <= 2 {
			return invalid("Health check timeout '%d' must be smaller than or equal to the interval '%d'", g.HealthCheckTimeoutSeconds, g.HealthCheckIntervalSeconds)
		}
		g.HealthCheckTimeoutSeconds = g.HealthCheckIntervalSeconds - 1 // the default follows a short interval
	}
	if h.matcher != nil {
		switch code := aws.ToString(h.matcher.HttpCode); {
		case h.matcher.GrpcCode != nil:
			return notYet("A matcher of gRPC codes")
		case g.HealthCheckProtocol != "HTTP":
			return invalid("Health check matcher is not supported for health check protocol '%s'", g.HealthCheckProtocol)
		case !matcherPattern.MatchString(code):
			return invalid("Health check matcher HTTP code '%s' must be within '200-499' inclusive", code)
		default:
			g.Matcher = code
		}
	}
	return nil
}

func renderTargetGroup(g *TargetGroup, loadBalancers []string) types.TargetGroup {
	out := types.TargetGroup{
		TargetGroupArn: aws.String(g.ARN()), TargetGroupName: aws.String(g.Name), Protocol: types.ProtocolEnum(g.Protocol), Port: aws.Int32(int32(g.Port)),
		VpcId: aws.String(g.Vpc), TargetType: types.TargetTypeEnum(g.TargetType), IpAddressType: types.TargetGroupIpAddressTypeEnum(g.IpAddressType),
		HealthCheckEnabled: aws.Bool(g.HealthCheckEnabled), HealthCheckProtocol: types.ProtocolEnum(g.HealthCheckProtocol),
		HealthCheckPort: aws.String(g.HealthCheckPort), HealthCheckIntervalSeconds: aws.Int32(int32(g.HealthCheckIntervalSeconds)),
		HealthCheckTimeoutSeconds: aws.Int32(int32(g.HealthCheckTimeoutSeconds)), HealthyThresholdCount: aws.Int32(int32(g.HealthyThreshold)),
		UnhealthyThresholdCount: aws.Int32(int32(g.UnhealthyThreshold)), LoadBalancerArns: loadBalancers,
	}
	if loadBalancers == nil {
		out.LoadBalancerArns = []string{}
	}
	if g.ProtocolVersion != "" {
		out.ProtocolVersion = aws.String(g.ProtocolVersion)
	}
	if g.HealthCheckProtocol == "HTTP" {
		out.HealthCheckPath, out.Matcher = aws.String(g.HealthCheckPath), &types.Matcher{HttpCode: aws.String(g.Matcher)}
	}
	return out
}

// describeTargetGroups implements elasticloadbalancing:DescribeTargetGroups.
func (s *Service) describeTargetGroups(ctx context.Context, in *elbv2.DescribeTargetGroupsInput) (*elbv2.DescribeTargetGroupsOutput, error) {
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	given := 0
	for _, b := range []bool{in.LoadBalancerArn != nil, len(in.Names) > 0, len(in.TargetGroupArns) > 0} {
		if b {
			given++
		}
	}
	if given > 1 {
		return nil, invalid("You can specify only one of load balancer ARN, target group ARNs or target group names")
	}
	out := &elbv2.DescribeTargetGroupsOutput{TargetGroups: []types.TargetGroup{}}
	add := func(g *TargetGroup) {
		out.TargetGroups = append(out.TargetGroups, renderTargetGroup(g, usersOf(v, scope, g.ARN())))
	}
	for _, a := range in.TargetGroupArns {
		g, err := findTargetGroup(v, scope, a)
		if err != nil {
			return nil, err
		}
		add(g)
	}
	for _, n := range in.Names {
		g, ok := TargetGroups.Get(v, scope.Key(n))
		if !ok {
			return nil, targetGroupNotFound()
		}
		add(g)
	}
	if len(in.TargetGroupArns)+len(in.Names) > 0 {
		return out, nil
	}
	keep := func(*TargetGroup) bool { return true }
	if in.LoadBalancerArn != nil {
		lb, err := findLoadBalancer(v, scope, *in.LoadBalancerArn)
		if err != nil {
			return nil, err
		}
		keep = func(g *TargetGroup) bool {
			for _, u := range usersOf(v, scope, g.ARN()) {
				if u == lb.ARN() {
					return true
				}
			}
			return false
		}
	}
	page, next, err := api.Page(ctx, s.Pages, in, api.PageSize(in.PageSize, 400, 400), func(after string) iter.Seq[*TargetGroup] {
		return func(yield func(*TargetGroup) bool) {
			for g := range TargetGroups.ScanFrom(v, scope.Key(), state.Key(after)) {
				if keep(g) && !yield(g) {
					return
				}
			}
		}
	}, func(g *TargetGroup) string { return string(TargetGroups.Key(g)) })
	if err != nil {
		return nil, err
	}
	for _, g := range page {
		add(g)
	}
	out.NextMarker = next
	return out, nil
}

// modifyTargetGroup implements elasticloadbalancing:ModifyTargetGroup.
func (s *Service) modifyTargetGroup(ctx context.Context, in *elbv2.ModifyTargetGroupInput) (*elbv2.ModifyTargetGroupOutput, error) {
	var g *TargetGroup
	var lbs []string
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		old, err := findTargetGroup(tx, scope, aws.ToString(in.TargetGroupArn))
		if err != nil {
			return err
		}
		g = proto.Clone(old).(*TargetGroup)
		if err := setHealthCheck(g, healthCheck{
			in.HealthCheckEnabled, in.HealthCheckProtocol, in.HealthCheckPort, in.HealthCheckPath, in.HealthCheckIntervalSeconds,
			in.HealthCheckTimeoutSeconds, in.HealthyThresholdCount, in.UnhealthyThresholdCount, in.Matcher,
		}); err != nil {
			return err
		}
		TargetGroups.Put(tx, g)
		lbs = usersOf(tx, scope, g.ARN())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elbv2.ModifyTargetGroupOutput{TargetGroups: []types.TargetGroup{renderTargetGroup(g, lbs)}}, nil
}

// deleteTargetGroup implements elasticloadbalancing:DeleteTargetGroup. One that does not exist is deleted already.
func (s *Service) deleteTargetGroup(ctx context.Context, in *elbv2.DeleteTargetGroupInput) (*elbv2.DeleteTargetGroupOutput, error) {
	arn := aws.ToString(in.TargetGroupArn)
	const batch = 90 // below the store's limit of operations a transaction
	for done := false; !done; {
		err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
			done = true
			g, err := findTargetGroup(tx, scope, arn)
			if awserr.Is(err, "TargetGroupNotFound") {
				return nil
			} else if err != nil {
				return err
			}
			if used(tx, scope, arn) {
				return awserr.New("ResourceInUse", "Target group '%s' is currently in use by a listener or a rule", arn)
			}
			n := 0
			for e := range mesh.Endpoints.Scan(tx, scope.Key(arn)) {
				if n++; n > batch {
					done = false
					return nil
				}
				mesh.Endpoints.Delete(tx, mesh.Endpoints.Key(e))
			}
			TargetGroups.Delete(tx, TargetGroups.Key(g))
			controlplane.PutTags(tx, scope, arn, nil)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return &elbv2.DeleteTargetGroupOutput{}, nil
}
