package client

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/smithy-go"
)

// Deployment is a service as `neargate deploy` wants it.
type Deployment struct {
	Name         string
	Image        string
	Cluster      string
	Port         int32 // container port; 0: no load balancer
	Count        int32
	CPU          int32 // CPU units of the container
	Memory       int32 // MiB
	Environment  map[string]string
	Command      []string
	LoadBalancer string   // name; created when it is not there
	Paths        []string // path patterns that lead to the service; none: everything
	HealthPath   string
	StopTimeout  int32 // seconds; 0: ECS's default
	Exec         bool  // commands may be run in the tasks
}

// Progress is told what is being done, a line each.
type Progress func(format string, args ...any)

// Deploy creates or updates the service and waits until it is stable. The URL is empty without a port.
func (c *Client) Deploy(ctx context.Context, d Deployment, say Progress) (url string, err error) {
	if _, err := c.ECS.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: &d.Cluster}); err != nil {
		return "", fmt.Errorf("cluster %s: %w", d.Cluster, err)
	}
	def, err := c.register(ctx, d)
	if err != nil {
		return "", fmt.Errorf("task definition %s: %w", d.Name, err)
	}
	say("%s: task definition %s:%d", d.Name, *def.Family, def.Revision)
	var group string
	if d.Port != 0 {
		if group, url, err = c.route(ctx, d, say); err != nil {
			return "", err
		}
	}
	if err := c.place(ctx, d, *def.TaskDefinitionArn, group); err != nil {
		return "", fmt.Errorf("service %s: %w", d.Name, err)
	}
	return url, c.waitStable(ctx, d, say)
}

func (c *Client) register(ctx context.Context, d Deployment) (*ecstypes.TaskDefinition, error) {
	con := ecstypes.ContainerDefinition{Name: &d.Name, Image: &d.Image, Cpu: d.CPU, Memory: &d.Memory, Essential: aws.Bool(true), Command: d.Command}
	if d.StopTimeout > 0 {
		con.StopTimeout = &d.StopTimeout
	}
	for k, v := range d.Environment {
		con.Environment = append(con.Environment, ecstypes.KeyValuePair{Name: aws.String(k), Value: aws.String(v)})
	}
	slices.SortFunc(con.Environment, func(a, b ecstypes.KeyValuePair) int { return strings.Compare(*a.Name, *b.Name) })
	if d.Port != 0 {
		con.PortMappings = []ecstypes.PortMapping{{ContainerPort: &d.Port, HostPort: aws.Int32(0)}}
	}
	out, err := c.ECS.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{
		Family: &d.Name, RequiresCompatibilities: []ecstypes.Compatibility{ecstypes.CompatibilityEc2}, ContainerDefinitions: []ecstypes.ContainerDefinition{con},
	})
	if err != nil {
		return nil, err
	}
	return out.TaskDefinition, nil
}

// route makes the target group, the load balancer, its listener and the rule that leads to the group, where they are not
// there yet.
func (c *Client) route(ctx context.Context, d Deployment, say Progress) (group, url string, err error) {
	vpc, subnets, err := c.network(ctx)
	if err != nil {
		return "", "", fmt.Errorf("network: %w", err)
	}
	tg, err := c.ELB.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{
		Name: &d.Name, Protocol: elbtypes.ProtocolEnumHttp, Port: aws.Int32(80), VpcId: &vpc, HealthCheckPath: &d.HealthPath,
		HealthCheckIntervalSeconds: aws.Int32(5), HealthyThresholdCount: aws.Int32(2),
	})
	if err != nil {
		return "", "", fmt.Errorf("target group %s: %w", d.Name, err)
	}
	group = *tg.TargetGroups[0].TargetGroupArn
	lb, err := c.ELB.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: &d.LoadBalancer, Subnets: subnets})
	if err != nil {
		return "", "", fmt.Errorf("load balancer %s: %w", d.LoadBalancer, err)
	}
	l, err := c.listener(ctx, *lb.LoadBalancers[0].LoadBalancerArn)
	if err != nil {
		return "", "", fmt.Errorf("listener of %s: %w", d.LoadBalancer, err)
	}
	url = "http://" + *lb.LoadBalancers[0].DNSName
	if len(d.Paths) > 0 {
		url += strings.TrimRight(d.Paths[0], "*")
	}
	say("%s: routed at %s", d.Name, url)
	return group, url, c.rule(ctx, d, *l.ListenerArn, group)
}

func (c *Client) network(ctx context.Context) (vpc string, subnets []string, err error) {
	v, err := c.EC2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{Filters: []ec2types.Filter{{Name: aws.String("is-default"), Values: []string{"true"}}}})
	if err != nil {
		return "", nil, err
	}
	if len(v.Vpcs) == 0 {
		return "", nil, errors.New("there is no default VPC")
	}
	s, err := c.EC2.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{Filters: []ec2types.Filter{{Name: aws.String("vpc-id"), Values: []string{*v.Vpcs[0].VpcId}}}})
	if err != nil {
		return "", nil, err
	}
	for _, n := range s.Subnets {
		subnets = append(subnets, *n.SubnetId)
	}
	return *v.Vpcs[0].VpcId, subnets, nil
}

func (c *Client) listener(ctx context.Context, lb string) (*elbtypes.Listener, error) {
	have, err := c.ELB.DescribeListeners(ctx, &elb.DescribeListenersInput{LoadBalancerArn: &lb})
	if err != nil {
		return nil, err
	}
	for _, l := range have.Listeners {
		if *l.Port == 80 {
			return &l, nil
		}
	}
	out, err := c.ELB.CreateListener(ctx, &elb.CreateListenerInput{
		LoadBalancerArn: &lb, Port: aws.Int32(80), Protocol: elbtypes.ProtocolEnumHttp,
		DefaultActions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumFixedResponse, FixedResponseConfig: &elbtypes.FixedResponseActionConfig{
			StatusCode: aws.String("404"), ContentType: aws.String("text/plain"), MessageBody: aws.String("no service has this path"),
		}}},
	})
	if err != nil {
		return nil, err
	}
	return &out.Listeners[0], nil
}

// rule leads d's paths to group, at a priority of the name's own so that services deployed side by side do not compete.
func (c *Client) rule(ctx context.Context, d Deployment, listener, group string) error {
	paths := d.Paths
	if len(paths) == 0 {
		paths = []string{"/*"}
	}
	have, err := c.ELB.DescribeRules(ctx, &elb.DescribeRulesInput{ListenerArn: &listener})
	if err != nil {
		return err
	}
	taken := map[string]bool{}
	for _, r := range have.Rules {
		taken[*r.Priority] = true
		for _, a := range r.Actions {
			if aws.ToString(a.TargetGroupArn) == group {
				return nil
			}
		}
	}
	h := fnv.New32a()
	h.Write([]byte(d.Name))
	priority := 1 + int32(h.Sum32()%40_000)
	for taken[strconv.Itoa(int(priority))] {
		priority++
	}
	_, err = c.ELB.CreateRule(ctx, &elb.CreateRuleInput{
		ListenerArn: &listener, Priority: &priority, Conditions: []elbtypes.RuleCondition{{Field: aws.String("path-pattern"), Values: paths}},
		Actions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, TargetGroupArn: &group}},
	})
	if err != nil {
		return fmt.Errorf("rule for %s: %w", strings.Join(paths, " "), err)
	}
	return nil
}

// place creates the service, or moves the one that is there to the new task definition.
func (c *Client) place(ctx context.Context, d Deployment, definition, group string) error {
	_, err := c.ECS.UpdateService(ctx, &ecs.UpdateServiceInput{Cluster: &d.Cluster, Service: &d.Name, TaskDefinition: &definition, DesiredCount: &d.Count, EnableExecuteCommand: &d.Exec})
	var api smithy.APIError
	if err == nil || !errors.As(err, &api) || api.ErrorCode() != "ServiceNotFoundException" && api.ErrorCode() != "ServiceNotActiveException" {
		return err
	}
	in := &ecs.CreateServiceInput{Cluster: &d.Cluster, ServiceName: &d.Name, TaskDefinition: &definition, DesiredCount: &d.Count, LaunchType: ecstypes.LaunchTypeEc2,
		EnableExecuteCommand: d.Exec}
	if group != "" {
		in.LoadBalancers = []ecstypes.LoadBalancer{{TargetGroupArn: &group, ContainerName: &d.Name, ContainerPort: &d.Port}}
	}
	_, err = c.ECS.CreateService(ctx, in)
	return err
}

// waitStable reports the service's events until its only deployment is complete. A failed one is an error with the last event.
func (c *Client) waitStable(ctx context.Context, d Deployment, say Progress) error {
	seen := map[string]bool{}
	began := time.Now().Add(-time.Second)
	for {
		out, err := c.ECS.DescribeServices(ctx, &ecs.DescribeServicesInput{Cluster: &d.Cluster, Services: []string{d.Name}})
		if err != nil {
			return err
		}
		if len(out.Services) == 0 {
			return fmt.Errorf("service %s is gone", d.Name)
		}
		s := out.Services[0]
		for _, e := range slices.Backward(s.Events) {
			if !seen[*e.Id] && e.CreatedAt.After(began) {
				say("%s", *e.Message)
			}
			seen[*e.Id] = true
		}
		if len(s.Deployments) == 1 && s.RunningCount == s.DesiredCount && s.Deployments[0].RolloutState == ecstypes.DeploymentRolloutStateCompleted {
			return nil
		}
		if s.Deployments[0].RolloutState == ecstypes.DeploymentRolloutStateFailed {
			return fmt.Errorf("service %s: %s", d.Name, aws.ToString(s.Deployments[0].RolloutStateReason))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("service %s has %d of %d tasks running: %w\nWhy? neargate ps --cluster %s; neargate explain TASK", d.Name, s.RunningCount, s.DesiredCount, ctx.Err(), d.Cluster)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
