package elb

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/capacity"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/mesh"
)

// maxTargetsPerCall is one transaction's worth.
const maxTargetsPerCall = 90

// instance finds the host that is called id as a container instance's EC2 instance, or as a node. An instance whose data directory was lost, or whose
// agent of Amazon's has registered anew, has left records of what it was: it is the one that is there, and of several the last that registered.
func instance(r state.Reader, id string) (*controlplane.Node, bool) {
	if n, ok := controlplane.Nodes.Get(r, state.K(id)); ok {
		return n, true
	}
	var best *controlplane.Node
	for n := range controlplane.Nodes.Scan(r, state.K()) {
		if n.Attributes["ecs.instance-id"] == id && (best == nil || succeeds(n, best)) {
			best = n
		}
	}
	return best, best != nil
}

// succeeds says whether of two records of one instance a is what it is now, rather than b.
func succeeds(a, b *controlplane.Node) bool {
	there := []string{capacity.NodeDown, capacity.NodeAway, capacity.NodeReady}
	if order := slices.Index(there, a.Status) - slices.Index(there, b.Status); order != 0 {
		return order > 0
	}
	return a.Registered.AsTime().After(b.Registered.AsTime())
}

func instanceID(n *controlplane.Node) string {
	if i := n.Attributes["ecs.instance-id"]; i != "" {
		return i
	}
	return n.Id
}

// endpointOf is the endpoint that a target description names.
func endpointOf(r state.Reader, g *TargetGroup, t types.TargetDescription) (*mesh.Endpoint, error) {
	e := &mesh.Endpoint{Account: g.Account, Region: g.Region, Group: g.ARN(), Port: g.Port, Weight: 1, Target: aws.ToString(t.Id)}
	if t.Port != nil {
		if *t.Port < 1 || *t.Port > 65535 {
			return nil, invalid("Target port '%d' must be between '1' and '65535' inclusive", *t.Port)
		}
		e.Port = uint32(*t.Port)
	}
	if g.TargetType == "ip" {
		a, err := netip.ParseAddr(e.Target)
		if err != nil || !a.Is4() {
			return nil, invalid("The IP address '%s' is not a valid IPv4 address", e.Target)
		}
		e.Address, e.Zone = e.Target, aws.ToString(t.AvailabilityZone)
	} else {
		n, ok := instance(r, e.Target)
		if !ok {
			return nil, awserr.New("InvalidTarget", "The following targets are not in a running state and cannot be registered: '%s'", e.Target)
		}
		e.Address, e.Node, e.Zone = n.Address, n.Id, n.Attributes["ecs.availability-zone"]
	}
	e.Id = endpointID(e.Address, e.Port)
	return e, nil
}

func endpointID(address string, port uint32) string { return address + ":" + strconv.Itoa(int(port)) }

// start is the state an endpoint begins in.
func start(e *mesh.Endpoint) *mesh.Endpoint {
	e.State = agent.EndpointState_ENDPOINT_INITIAL
	e.Reason, e.Description = "Elb.RegistrationInProgress", "Target registration is in progress"
	return e
}

// registerTargets implements elasticloadbalancing:RegisterTargets.
func (s *Service) registerTargets(ctx context.Context, in *elbv2.RegisterTargetsInput) (*elbv2.RegisterTargetsOutput, error) {
	if len(in.Targets) == 0 {
		return nil, invalid("At least one target must be specified")
	}
	if len(in.Targets) > maxTargetsPerCall {
		return nil, awserr.New("TooManyTargets", "At most %d targets can be registered at once", maxTargetsPerCall)
	}
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		g, err := findTargetGroup(tx, scope, aws.ToString(in.TargetGroupArn))
		if err != nil {
			return err
		}
		for _, t := range in.Targets {
			e, err := endpointOf(tx, g, t)
			if err != nil {
				return err
			}
			mesh.Register(tx, start(e), api.CallFrom(ctx).Time)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elbv2.RegisterTargetsOutput{}, nil
}

// deregisterTargets implements elasticloadbalancing:DeregisterTargets. A target that is not registered is none of it.
func (s *Service) deregisterTargets(ctx context.Context, in *elbv2.DeregisterTargetsInput) (*elbv2.DeregisterTargetsOutput, error) {
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		g, err := findTargetGroup(tx, scope, aws.ToString(in.TargetGroupArn))
		if err != nil {
			return err
		}
		for _, t := range in.Targets {
			for e := range mesh.Endpoints.Scan(tx, scope.Key(g.ARN())) {
				// Without a port every port of the target is meant.
				if e.Target == aws.ToString(t.Id) && (t.Port == nil || e.Port == uint32(*t.Port)) {
					mesh.Withdraw(tx, mesh.Endpoints.Key(e), g.withdrawal(), api.CallFrom(ctx).Time)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elbv2.DeregisterTargetsOutput{}, nil
}

func (g *TargetGroup) withdrawal() mesh.Withdrawal {
	return mesh.Withdrawal{Delay: time.Duration(g.seconds("deregistration_delay.timeout_seconds")) * time.Second}
}

// describeTargetHealth implements elasticloadbalancing:DescribeTargetHealth.
func (s *Service) describeTargetHealth(ctx context.Context, in *elbv2.DescribeTargetHealthInput) (*elbv2.DescribeTargetHealthOutput, error) {
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	g, err := findTargetGroup(v, scope, aws.ToString(in.TargetGroupArn))
	if err != nil {
		return nil, err
	}
	inUse := used(v, scope, g.ARN())
	out := &elbv2.DescribeTargetHealthOutput{TargetHealthDescriptions: []types.TargetHealthDescription{}}
	asked := make([]bool, len(in.Targets))
	for e := range mesh.Endpoints.Scan(v, scope.Key(g.ARN())) {
		wanted := len(in.Targets) == 0
		for i, t := range in.Targets {
			if aws.ToString(t.Id) == e.Target && (t.Port == nil || uint32(*t.Port) == e.Port) {
				wanted, asked[i] = true, true
			}
		}
		if wanted {
			out.TargetHealthDescriptions = append(out.TargetHealthDescriptions, renderHealth(g, e, inUse))
		}
	}
	for i, t := range in.Targets {
		if !asked[i] {
			if t.Port == nil {
				t.Port = aws.Int32(int32(g.Port))
			}
			out.TargetHealthDescriptions = append(out.TargetHealthDescriptions, types.TargetHealthDescription{
				Target: &t, TargetHealth: &types.TargetHealth{State: types.TargetHealthStateEnumUnused,
					Reason: types.TargetHealthReasonEnumNotRegistered, Description: aws.String("Target is not registered to the target group")},
			})
		}
	}
	return out, nil
}

func renderHealth(g *TargetGroup, e *mesh.Endpoint, inUse bool) types.TargetHealthDescription {
	d := types.TargetHealthDescription{
		Target:          &types.TargetDescription{Id: aws.String(e.Target), Port: aws.Int32(int32(e.Port))},
		HealthCheckPort: aws.String(strconv.Itoa(int(healthPort(g, e)))),
	}
	if e.Zone != "" && g.TargetType == "ip" {
		d.Target.AvailabilityZone = aws.String(e.Zone)
	}
	h := &types.TargetHealth{}
	d.TargetHealth = h
	switch e.State {
	case agent.EndpointState_ENDPOINT_DRAINING:
		h.State = types.TargetHealthStateEnumDraining
	case agent.EndpointState_ENDPOINT_HEALTHY:
		h.State = types.TargetHealthStateEnumHealthy
	case agent.EndpointState_ENDPOINT_UNHEALTHY:
		h.State = types.TargetHealthStateEnumUnhealthy
	default:
		h.State = types.TargetHealthStateEnumInitial
	}
	if e.Reason != "" {
		h.Reason, h.Description = types.TargetHealthReasonEnum(e.Reason), aws.String(e.Description)
	}
	if !inUse && h.State != types.TargetHealthStateEnumDraining {
		h.State, h.Reason = types.TargetHealthStateEnumUnused, types.TargetHealthReasonEnumNotInUse
		h.Description = aws.String("Target group is not configured to receive traffic from the load balancer")
	}
	return d
}

func healthPort(g *TargetGroup, e *mesh.Endpoint) uint32 {
	if n, err := strconv.ParseUint(g.HealthCheckPort, 10, 16); err == nil {
		return uint32(n)
	}
	return e.Port
}
