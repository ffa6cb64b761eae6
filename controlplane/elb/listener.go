package elb

import (
	"context"
	"iter"

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

// checkProtocol says which listeners there are: HTTP on application, TCP on network load balancers.
func checkProtocol(lbType string, p types.ProtocolEnum) error {
	switch {
	case p == "":
		return invalid("A listener protocol must be specified")
	case lbType == "application" && p == types.ProtocolEnumHttp, lbType == "network" && p == types.ProtocolEnumTcp:
		return nil
	case lbType == "application" && p == types.ProtocolEnumHttps, lbType == "network" && (p == types.ProtocolEnumTls || p == types.ProtocolEnumUdp || p == types.ProtocolEnumTcpUdp):
		return awserr.New("UnsupportedProtocol", "A listener of protocol %s is not supported by this platform yet", p)
	case lbType == "application":
		return invalid("Listener protocol '%s' must be one of 'HTTPS, HTTP'", p)
	}
	return invalid("Listener protocol '%s' must be one of 'UDP, TCP, TCP_UDP, TLS'", p)
}

func checkPort(p *int32) error {
	if p == nil {
		return invalid("A listener port must be specified")
	}
	if *p < 1 || *p > 65535 {
		return invalid("Listener port '%d' must be between '1' and '65535' inclusive", *p)
	}
	return nil
}

func refuseTLS(certificates []types.Certificate, policy *string, alpn []string, mutual *types.MutualAuthenticationAttributes) error {
	if len(certificates) > 0 || aws.ToString(policy) != "" || len(alpn) > 0 || mutual != nil {
		return awserr.New("UnsupportedProtocol", "Certificates and TLS settings of listeners are not supported by this platform yet")
	}
	return nil
}

// createListener implements elasticloadbalancing:CreateListener. Repeating it with the same settings answers what is there.
func (s *Service) createListener(ctx context.Context, in *elbv2.CreateListenerInput) (*elbv2.CreateListenerOutput, error) {
	if err := refuseTLS(in.Certificates, in.SslPolicy, in.AlpnPolicy, in.MutualAuthentication); err != nil {
		return nil, err
	}
	if err := checkPort(in.Port); err != nil {
		return nil, err
	}
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	newID, newRule := id.Hex(s.Rand, 16), id.Hex(s.Rand, 16)
	var l *Listener
	err = s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		lb, err := findLoadBalancer(tx, scope, aws.ToString(in.LoadBalancerArn))
		if err != nil {
			return err
		}
		if err := checkProtocol(lb.Type, in.Protocol); err != nil {
			return err
		}
		actions, err := checkActions(tx, scope, lb, in.DefaultActions)
		if err != nil {
			return err
		}
		l = &Listener{
			Account: scope.Account, Region: scope.Region, LoadBalancer: lb.Name, LoadBalancerId: lb.Id, LoadBalancerType: lb.Type,
			Id: newID, Port: uint32(*in.Port), Protocol: string(in.Protocol), ActionsJson: actions, DefaultRule: newRule,
			Created: timestamppb.New(api.CallFrom(ctx).Time),
		}
		if old, ok := Listeners.Get(tx, Listeners.Key(l)); ok {
			if old.Protocol == l.Protocol && old.ActionsJson == l.ActionsJson {
				l = old
				return nil
			}
			return duplicateListener(lb.ARN())
		}
		Listeners.Put(tx, l)
		controlplane.PutTags(tx, scope, l.ARN(), tags)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elbv2.CreateListenerOutput{Listeners: []types.Listener{renderListener(l)}}, nil
}

func duplicateListener(lb string) error {
	return awserr.New("DuplicateListener", "A listener already exists on this port for this load balancer '%s'", lb)
}

func renderListener(l *Listener) types.Listener {
	return types.Listener{
		ListenerArn: aws.String(l.ARN()), LoadBalancerArn: aws.String(l.LoadBalancerARN()), Port: aws.Int32(int32(l.Port)),
		Protocol: types.ProtocolEnum(l.Protocol), DefaultActions: decodeActions(l.ActionsJson),
	}
}

// describeListeners implements elasticloadbalancing:DescribeListeners.
func (s *Service) describeListeners(ctx context.Context, in *elbv2.DescribeListenersInput) (*elbv2.DescribeListenersOutput, error) {
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	out := &elbv2.DescribeListenersOutput{Listeners: []types.Listener{}}
	for _, a := range in.ListenerArns {
		l, err := findListener(v, scope, a)
		if err != nil {
			return nil, err
		}
		out.Listeners = append(out.Listeners, renderListener(l))
	}
	if len(in.ListenerArns) > 0 {
		return out, nil
	}
	if in.LoadBalancerArn == nil {
		return nil, invalid("You must specify either listener ARNs or a load balancer ARN")
	}
	lb, err := findLoadBalancer(v, scope, *in.LoadBalancerArn)
	if err != nil {
		return nil, err
	}
	page, next, err := api.Page(ctx, s.Pages, in, api.PageSize(in.PageSize, 400, 400),
		func(after string) iter.Seq[*Listener] {
			return Listeners.ScanFrom(v, scope.Key(lb.Name), state.Key(after))
		},
		func(l *Listener) string { return string(Listeners.Key(l)) })
	if err != nil {
		return nil, err
	}
	for _, l := range page {
		out.Listeners = append(out.Listeners, renderListener(l))
	}
	out.NextMarker = next
	return out, nil
}

// modifyListener implements elasticloadbalancing:ModifyListener.
func (s *Service) modifyListener(ctx context.Context, in *elbv2.ModifyListenerInput) (*elbv2.ModifyListenerOutput, error) {
	if err := refuseTLS(in.Certificates, in.SslPolicy, in.AlpnPolicy, in.MutualAuthentication); err != nil {
		return nil, err
	}
	var l *Listener
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		old, err := findListener(tx, scope, aws.ToString(in.ListenerArn))
		if err != nil {
			return err
		}
		l = proto.Clone(old).(*Listener)
		lb, err := findLoadBalancer(tx, scope, l.LoadBalancerARN())
		if err != nil {
			return err
		}
		if in.Protocol != "" {
			if err := checkProtocol(lb.Type, in.Protocol); err != nil {
				return err
			}
			l.Protocol = string(in.Protocol)
		}
		if in.DefaultActions != nil {
			if l.ActionsJson, err = checkActions(tx, scope, lb, in.DefaultActions); err != nil {
				return err
			}
		}
		if in.Port != nil && uint32(*in.Port) != old.Port {
			if err := checkPort(in.Port); err != nil {
				return err
			}
			l.Port = uint32(*in.Port)
			if _, taken := Listeners.Get(tx, Listeners.Key(l)); taken {
				return duplicateListener(lb.ARN())
			}
			Listeners.Delete(tx, Listeners.Key(old))
		}
		Listeners.Put(tx, l)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elbv2.ModifyListenerOutput{Listeners: []types.Listener{renderListener(l)}}, nil
}

// deleteListener implements elasticloadbalancing:DeleteListener.
func (s *Service) deleteListener(ctx context.Context, in *elbv2.DeleteListenerInput) (*elbv2.DeleteListenerOutput, error) {
	if err := s.dropListener(ctx, aws.ToString(in.ListenerArn)); err != nil {
		return nil, err
	}
	return &elbv2.DeleteListenerOutput{}, nil
}

// rulesPerTransaction keeps below the store's limit of 100 operations, at three a rule.
const rulesPerTransaction = 30

// dropListener deletes a listener after its rules, which may be more than one transaction takes.
func (s *Service) dropListener(ctx context.Context, arn string) error {
	for done := false; !done; {
		err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
			l, err := findListener(tx, scope, arn)
			if err != nil {
				return err
			}
			var batch []*Rule
			for r := range Rules.Scan(tx, scope.Key(l.LoadBalancer, l.Id)) {
				if len(batch) == rulesPerTransaction {
					break
				}
				batch = append(batch, r)
			}
			for _, r := range batch {
				dropRule(tx, scope, r)
			}
			if done = len(batch) < rulesPerTransaction; done {
				Listeners.Delete(tx, Listeners.Key(l))
				controlplane.PutTags(tx, scope, arn, nil)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
