package elb

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

var fixedStatus = regexp.MustCompile(`^[245]\d\d$`)

// checkActions validates the actions of a rule or listener and renders them as they are kept: a forward to one group stands
// both as targetGroupArn and in forwardConfig, as Elastic Load Balancing shows it.
func checkActions(r state.Reader, scope controlplane.Scope, lb *LoadBalancer, actions []types.Action) (string, error) {
	if len(actions) == 0 {
		return "", invalid("At least one action must be specified")
	}
	if len(actions) > 1 {
		// Only authentication may come before the deciding action, and there is none here.
		return "", awserr.New("InvalidLoadBalancerAction", "You must specify exactly one of forward, redirect or fixed-response as action")
	}
	a := actions[0]
	if lb.Type == "network" && a.Type != types.ActionTypeEnumForward {
		return "", awserr.New("InvalidLoadBalancerAction", "Action type '%s' is not supported for network load balancers", a.Type)
	}
	var err error
	switch a.Type {
	case types.ActionTypeEnumForward:
		err = checkForward(r, scope, lb, &a)
	case types.ActionTypeEnumRedirect:
		err = checkRedirect(&a)
	case types.ActionTypeEnumFixedResponse:
		err = checkFixed(&a)
	default:
		err = notYet("An action of type " + string(a.Type))
	}
	if err != nil {
		return "", err
	}
	return controlplane.EncodeShape([]types.Action{a}), nil
}

func checkForward(r state.Reader, scope controlplane.Scope, lb *LoadBalancer, a *types.Action) error {
	var cfg types.ForwardActionConfig
	if a.ForwardConfig != nil {
		cfg = *a.ForwardConfig
	}
	groups := append([]types.TargetGroupTuple(nil), cfg.TargetGroups...)
	switch one := aws.ToString(a.TargetGroupArn); {
	case len(groups) == 0 && one == "":
		return invalid("A target group ARN must be specified")
	case len(groups) == 0:
		groups = []types.TargetGroupTuple{{TargetGroupArn: a.TargetGroupArn}}
	case one != "" && (len(groups) > 1 || aws.ToString(groups[0].TargetGroupArn) != one):
		return awserr.New("InvalidLoadBalancerAction", "You cannot specify both a target group ARN and a different forward configuration")
	case len(groups) > 5:
		return awserr.New("TooManyTargetGroups", "A forward action can have at most 5 target groups")
	}
	for i, g := range groups {
		tg, err := findTargetGroup(r, scope, aws.ToString(g.TargetGroupArn))
		if err != nil {
			return err
		}
		if http := tg.Protocol == "HTTP" || tg.Protocol == "HTTPS"; http != (lb.Type == "application") {
			return awserr.New("InvalidConfigurationRequest", "The protocol '%s' of target group '%s' is not compatible with load balancer '%s'", tg.Protocol, tg.ARN(), lb.ARN())
		}
		if tg.Vpc != "" && tg.Vpc != lb.Vpc {
			return invalid("The following target groups are not in the same VPC as the load balancer: %s", tg.ARN())
		}
		for _, user := range usersOf(r, scope, tg.ARN()) {
			if user != lb.ARN() {
				return awserr.New("TargetGroupAssociationLimit", "The following target groups cannot be associated with more than one load balancer: %s", tg.ARN())
			}
		}
		if g.Weight == nil {
			groups[i].Weight = aws.Int32(1)
		} else if *g.Weight < 0 || *g.Weight > 999 {
			return invalid("Weight '%d' must be between 0 and 999 inclusive", *g.Weight)
		}
	}
	if st := cfg.TargetGroupStickinessConfig; st == nil {
		cfg.TargetGroupStickinessConfig = &types.TargetGroupStickinessConfig{Enabled: aws.Bool(false)}
	} else if aws.ToBool(st.Enabled) && (st.DurationSeconds == nil || *st.DurationSeconds < 1 || *st.DurationSeconds > 604800) {
		return invalid("Target group stickiness duration must be between 1 and 604800 seconds")
	}
	cfg.TargetGroups = groups
	a.ForwardConfig = &cfg
	a.TargetGroupArn = nil
	if len(groups) == 1 {
		a.TargetGroupArn = groups[0].TargetGroupArn
	}
	return nil
}

func checkRedirect(a *types.Action) error {
	if a.RedirectConfig == nil {
		return invalid("A redirect configuration must be specified")
	}
	c := *a.RedirectConfig
	if c.StatusCode != types.RedirectActionStatusCodeEnumHttp301 && c.StatusCode != types.RedirectActionStatusCodeEnumHttp302 {
		return invalid("Redirect status code '%s' must be one of 'HTTP_301, HTTP_302'", c.StatusCode)
	}
	for _, d := range []struct {
		field    **string
		fallback string
	}{{&c.Protocol, "#{protocol}"}, {&c.Host, "#{host}"}, {&c.Port, "#{port}"}, {&c.Path, "/#{path}"}, {&c.Query, "#{query}"}} {
		if *d.field == nil {
			*d.field = aws.String(d.fallback)
		}
	}
	if p := *c.Protocol; p != "HTTP" && p != "HTTPS" && p != "#{protocol}" {
		return invalid("Redirect protocol '%s' must be one of 'HTTP, HTTPS, #{protocol}'", p)
	}
	if p := *c.Port; p != "#{port}" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return invalid("Redirect port '%s' must be between 1 and 65535 or '#{port}'", p)
		}
	}
	if !strings.HasPrefix(*c.Path, "/") {
		return invalid("Redirect path '%s' must begin with '/'", *c.Path)
	}
	if *c.Protocol == "#{protocol}" && *c.Host == "#{host}" && *c.Port == "#{port}" && *c.Path == "/#{path}" {
		return awserr.New("InvalidLoadBalancerAction", "The redirect configuration is not valid because it creates a loop.")
	}
	a.RedirectConfig = &c
	return nil
}

func checkFixed(a *types.Action) error {
	c := a.FixedResponseConfig
	switch {
	case c == nil:
		return invalid("A fixed response configuration must be specified")
	case !fixedStatus.MatchString(aws.ToString(c.StatusCode)):
		return invalid("Fixed response status code '%s' must be 2XX, 4XX or 5XX", aws.ToString(c.StatusCode))
	case len(aws.ToString(c.MessageBody)) > 1024:
		return invalid("Fixed response message body cannot be longer than '1024' characters")
	}
	switch aws.ToString(c.ContentType) {
	case "", "text/plain", "text/css", "text/html", "application/javascript", "application/json":
		return nil
	}
	return invalid("Fixed response content type '%s' must be one of 'text/plain, text/css, text/html, application/javascript, application/json'", *c.ContentType)
}
