package elb

import (
	"context"
	"maps"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

// attribute is one attribute's default and what may be set: supported says whether a value has its effect here, so that none is
// accepted and ignored.
type attribute struct {
	fallback  string
	supported func(v string) bool
}

func boolean(v string) bool { return v == "true" || v == "false" }

func only(v string) func(string) bool { return func(got string) bool { return got == v } }

func between(low, high int) func(string) bool {
	return func(v string) bool {
		n, err := strconv.Atoi(v)
		return err == nil && n >= low && n <= high
	}
}

func oneOf(vs ...string) func(string) bool {
	return func(v string) bool { return slices.Contains(vs, v) }
}

// loadBalancerAttributes with the defaults of the API reference.
var loadBalancerAttributes = map[string]map[string]attribute{
	"application": {
		"access_logs.s3.enabled":                                   {"false", only("false")},
		"access_logs.s3.bucket":                                    {"", only("")},
		"access_logs.s3.prefix":                                    {"", only("")},
		"connection_logs.s3.enabled":                               {"false", only("false")},
		"connection_logs.s3.bucket":                                {"", only("")},
		"connection_logs.s3.prefix":                                {"", only("")},
		"deletion_protection.enabled":                              {"false", boolean},
		"idle_timeout.timeout_seconds":                             {"60", between(1, 4000)},
		"client_keep_alive.seconds":                                {"3600", only("3600")},
		"load_balancing.cross_zone.enabled":                        {"true", only("true")},
		"routing.http2.enabled":                                    {"true", only("true")},
		"routing.http.desync_mitigation_mode":                      {"defensive", oneOf("defensive", "strictest")},
		"routing.http.drop_invalid_header_fields.enabled":          {"false", boolean},
		"routing.http.preserve_host_header.enabled":                {"false", boolean},
		"routing.http.x_amzn_tls_version_and_cipher_suite.enabled": {"false", only("false")},
		"routing.http.xff_client_port.enabled":                     {"false", only("false")},
		"routing.http.xff_header_processing.mode":                  {"append", only("append")},
		"waf.fail_open.enabled":                                    {"false", only("false")},
		"zonal_shift.config.enabled":                               {"false", only("false")},
	},
	"network": {
		"access_logs.s3.enabled":            {"false", only("false")},
		"access_logs.s3.bucket":             {"", only("")},
		"access_logs.s3.prefix":             {"", only("")},
		"deletion_protection.enabled":       {"false", boolean},
		"load_balancing.cross_zone.enabled": {"false", boolean},
		"dns_record.client_routing_policy":  {"any_availability_zone", only("any_availability_zone")},
		"zonal_shift.config.enabled":        {"false", only("false")},
	},
}

// targetGroupAttributes by the group's protocol.
var targetGroupAttributes = map[string]map[string]attribute{
	"HTTP": {
		"deregistration_delay.timeout_seconds":                                           {"300", between(0, 3600)},
		"stickiness.enabled":                                                             {"false", boolean},
		"stickiness.type":                                                                {"lb_cookie", only("lb_cookie")},
		"stickiness.lb_cookie.duration_seconds":                                          {"86400", between(1, 604800)},
		"stickiness.app_cookie.cookie_name":                                              {"", only("")},
		"stickiness.app_cookie.duration_seconds":                                         {"86400", only("86400")},
		"slow_start.duration_seconds":                                                    {"0", only("0")},
		"load_balancing.algorithm.type":                                                  {"round_robin", oneOf("round_robin", "least_outstanding_requests")},
		"load_balancing.algorithm.anomaly_mitigation":                                    {"off", only("off")},
		"load_balancing.cross_zone.enabled":                                              {"use_load_balancer_configuration", oneOf("use_load_balancer_configuration", "true")},
		"target_group_health.dns_failover.minimum_healthy_targets.count":                 {"1", only("1")},
		"target_group_health.dns_failover.minimum_healthy_targets.percentage":            {"off", only("off")},
		"target_group_health.unhealthy_state_routing.minimum_healthy_targets.count":      {"1", only("1")},
		"target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": {"off", only("off")},
	},
	"TCP": {
		"deregistration_delay.timeout_seconds":                {"300", between(0, 3600)},
		"deregistration_delay.connection_termination.enabled": {"false", only("false")},
		"stickiness.enabled":                                  {"false", only("false")},
		"stickiness.type":                                     {"source_ip", only("source_ip")},
		"preserve_client_ip.enabled":                          {"false", only("false")},
		"proxy_protocol_v2.enabled":                           {"false", only("false")},
		"load_balancing.cross_zone.enabled":                   {"use_load_balancer_configuration", oneOf("use_load_balancer_configuration", "true")},
	},
}

// setAttributes is have with the given pairs.
func setAttributes(known map[string]attribute, have, given map[string]string) (map[string]string, error) {
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	for k, v := range given {
		a, ok := known[k]
		if !ok {
			return nil, invalid("The attribute '%s' is not recognized", k)
		}
		if !a.supported(v) {
			return nil, invalid("The value '%s' of attribute '%s' is not valid or is not supported by this platform yet", v, k)
		}
		if out[k] = v; v == a.fallback {
			delete(out, k)
		}
	}
	return out, nil
}

func attributeOf(known map[string]attribute, have map[string]string, key string) string {
	if v, ok := have[key]; ok {
		return v
	}
	return known[key].fallback
}

func (l *LoadBalancer) attribute(key string) string {
	return attributeOf(loadBalancerAttributes[l.Type], l.Attributes, key)
}

func (g *TargetGroup) attribute(key string) string {
	return attributeOf(targetGroupAttributes[g.Protocol], g.Attributes, key)
}

func (g *TargetGroup) seconds(key string) uint32 {
	n, _ := strconv.Atoi(g.attribute(key)) // checked when it was set
	return uint32(n)
}

func loadBalancerAttributeList(l *LoadBalancer) []types.LoadBalancerAttribute {
	var out []types.LoadBalancerAttribute
	for _, k := range slices.Sorted(maps.Keys(loadBalancerAttributes[l.Type])) {
		out = append(out, types.LoadBalancerAttribute{Key: aws.String(k), Value: aws.String(l.attribute(k))})
	}
	return out
}

func targetGroupAttributeList(g *TargetGroup) []types.TargetGroupAttribute {
	var out []types.TargetGroupAttribute
	for _, k := range slices.Sorted(maps.Keys(targetGroupAttributes[g.Protocol])) {
		out = append(out, types.TargetGroupAttribute{Key: aws.String(k), Value: aws.String(g.attribute(k))})
	}
	return out
}

// describeLoadBalancerAttributes implements elasticloadbalancing:DescribeLoadBalancerAttributes.
func (s *Service) describeLoadBalancerAttributes(ctx context.Context, in *elbv2.DescribeLoadBalancerAttributesInput) (*elbv2.DescribeLoadBalancerAttributesOutput, error) {
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	l, err := findLoadBalancer(v, scope, aws.ToString(in.LoadBalancerArn))
	if err != nil {
		return nil, err
	}
	return &elbv2.DescribeLoadBalancerAttributesOutput{Attributes: loadBalancerAttributeList(l)}, nil
}

// modifyLoadBalancerAttributes implements elasticloadbalancing:ModifyLoadBalancerAttributes.
func (s *Service) modifyLoadBalancerAttributes(ctx context.Context, in *elbv2.ModifyLoadBalancerAttributesInput) (*elbv2.ModifyLoadBalancerAttributesOutput, error) {
	given := map[string]string{}
	for _, a := range in.Attributes {
		given[aws.ToString(a.Key)] = aws.ToString(a.Value)
	}
	l, err := s.changeLoadBalancer(ctx, in.LoadBalancerArn, func(_ *state.Tx, l *LoadBalancer) (err error) {
		l.Attributes, err = setAttributes(loadBalancerAttributes[l.Type], l.Attributes, given)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &elbv2.ModifyLoadBalancerAttributesOutput{Attributes: loadBalancerAttributeList(l)}, nil
}

// describeTargetGroupAttributes implements elasticloadbalancing:DescribeTargetGroupAttributes.
func (s *Service) describeTargetGroupAttributes(ctx context.Context, in *elbv2.DescribeTargetGroupAttributesInput) (*elbv2.DescribeTargetGroupAttributesOutput, error) {
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	g, err := findTargetGroup(v, scope, aws.ToString(in.TargetGroupArn))
	if err != nil {
		return nil, err
	}
	return &elbv2.DescribeTargetGroupAttributesOutput{Attributes: targetGroupAttributeList(g)}, nil
}

// modifyTargetGroupAttributes implements elasticloadbalancing:ModifyTargetGroupAttributes.
func (s *Service) modifyTargetGroupAttributes(ctx context.Context, in *elbv2.ModifyTargetGroupAttributesInput) (*elbv2.ModifyTargetGroupAttributesOutput, error) {
	given := map[string]string{}
	for _, a := range in.Attributes {
		given[aws.ToString(a.Key)] = aws.ToString(a.Value)
	}
	var g *TargetGroup
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		old, err := findTargetGroup(tx, scope, aws.ToString(in.TargetGroupArn))
		if err != nil {
			return err
		}
		g = proto.Clone(old).(*TargetGroup)
		if g.Attributes, err = setAttributes(targetGroupAttributes[g.Protocol], g.Attributes, given); err != nil {
			return err
		}
		TargetGroups.Put(tx, g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elbv2.ModifyTargetGroupAttributesOutput{Attributes: targetGroupAttributeList(g)}, nil
}
