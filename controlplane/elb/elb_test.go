package elb

import (
	"context"
	"crypto/rand"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/agent"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/ec2"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/mesh"
)

const (
	account = "000000000000"
	region  = "us-east-1"
)

// plain is a sealer that keeps tokens readable.
type plain struct{}

func (plain) Seal(b, _ []byte) []byte          { return b }
func (plain) Open(b, _ []byte) ([]byte, error) { return b, nil }

type fixture struct {
	*Service
	t   *testing.T
	ctx context.Context
	lb  string // ARN
	tg  string
}

func newFixture(t *testing.T) *fixture {
	schema := append(append(state.Schema{}, controlplane.Schema...), append(Schema, append(ec2.Schema, mesh.Schema...)...)...)
	s := New(Config{Store: statetest.New(t, schema...), Rand: rand.Reader, Pages: api.NewPages(plain{}), Network: ec2.Network{}, Domain: "localhost", Instance: "test"})
	f := &fixture{Service: s, t: t, ctx: in(account, region)}
	return f
}

func in(account, region string) context.Context {
	return api.WithCall(context.Background(), &api.Call{
		Identity: api.System(account), Region: region, Service: "elasticloadbalancingv2", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)})
}

func subnets(zones ...string) []string {
	var out []string
	for _, z := range zones {
		out = append(out, ec2.Network{}.DefaultSubnet(account, region, region+z))
	}
	return out
}

// with makes a load balancer and a target group.
func (f *fixture) with() *fixture {
	f.t.Helper()
	lb, err := f.createLoadBalancer(f.ctx, &elbv2.CreateLoadBalancerInput{Name: aws.String("web"), Subnets: subnets("a", "b")})
	f.ok(err)
	f.lb = *lb.LoadBalancers[0].LoadBalancerArn
	f.tg = f.group("tg")
	return f
}

func (f *fixture) group(name string) string {
	f.t.Helper()
	tg, err := f.createTargetGroup(f.ctx, groupInput(name))
	f.ok(err)
	return *tg.TargetGroups[0].TargetGroupArn
}

func groupInput(name string) *elbv2.CreateTargetGroupInput {
	return &elbv2.CreateTargetGroupInput{Name: aws.String(name), Protocol: "HTTP", Port: aws.Int32(80), VpcId: aws.String(ec2.Network{}.DefaultVPC(account, region)), TargetType: "ip"}
}

func (f *fixture) listener(port int32) string {
	f.t.Helper()
	l, err := f.createListener(f.ctx, &elbv2.CreateListenerInput{LoadBalancerArn: &f.lb, Port: &port, Protocol: "HTTP", DefaultActions: forward(f.tg)})
	f.ok(err)
	return *l.Listeners[0].ListenerArn
}

func (f *fixture) rule(listener string, priority int32, path string) (string, error) {
	r, err := f.createRule(f.ctx, &elbv2.CreateRuleInput{ListenerArn: &listener, Priority: &priority, Actions: forward(f.tg),
		Conditions: []elbtypes.RuleCondition{{Field: aws.String("path-pattern"), Values: []string{path}}}})
	if err != nil {
		return "", err
	}
	return *r.Rules[0].RuleArn, nil
}

func forward(groups ...string) []elbtypes.Action {
	return []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, TargetGroupArn: &groups[0]}}
}

func (f *fixture) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) fails(err error, code, text string) {
	f.t.Helper()
	if e, ok := awserr.As(err); !ok || e.Code != code || !strings.Contains(e.Message, text) {
		f.t.Errorf("got %v, want %s: …%s…", err, code, text)
	}
}

func TestLoadBalancer(t *testing.T) {
	f := newFixture(t).with()
	if !regexp.MustCompile(`^arn:aws:elasticloadbalancing:us-east-1:000000000000:loadbalancer/app/web/[0-9a-f]{16}$`).MatchString(f.lb) {
		t.Errorf("ARN %s", f.lb)
	}
	create := func(name string, subnets ...string) (*elbv2.CreateLoadBalancerOutput, error) {
		return f.createLoadBalancer(f.ctx, &elbv2.CreateLoadBalancerInput{Name: &name, Subnets: subnets})
	}
	again, err := create("web", subnets("b", "a")...)
	f.ok(err)
	if *again.LoadBalancers[0].LoadBalancerArn != f.lb {
		t.Error("repeating the creation made another load balancer")
	}
	if d := *again.LoadBalancers[0].DNSName; !regexp.MustCompile(`^web-\d{10}\.us-east-1\.elb\.localhost$`).MatchString(d) {
		t.Errorf("DNS name %s", d)
	}
	_, err = create("web", subnets("a", "c")...)
	f.fails(err, "DuplicateLoadBalancerName", "A load balancer with the same name 'web' exists, but with different settings")
	_, err = create("one", subnets("a")...)
	f.fails(err, "ValidationError", "At least two subnets in two different Availability Zones must be specified")
	_, err = create("two", "subnet-00000000000000000", "subnet-1")
	f.fails(err, "SubnetNotFound", "The subnet ID 'subnet-00000000000000000' does not exist")
	_, err = create("-bad", subnets("a", "b")...)
	f.fails(err, "ValidationError", "cannot begin or end with '-'")
	_, err = create(strings.Repeat("x", 33), subnets("a", "b")...)
	f.fails(err, "ValidationError", "cannot be longer than '32' characters")
	_, err = f.describeLoadBalancers(f.ctx, &elbv2.DescribeLoadBalancersInput{Names: []string{"none"}})
	f.fails(err, "LoadBalancerNotFound", "Load balancers '[none]' not found")

	other := in("111111111111", region)
	out, err := f.describeLoadBalancers(other, &elbv2.DescribeLoadBalancersInput{})
	f.ok(err)
	if len(out.LoadBalancers) != 0 {
		t.Error("another account sees the load balancer")
	}
	_, err = f.describeLoadBalancers(other, &elbv2.DescribeLoadBalancersInput{LoadBalancerArns: []string{f.lb}})
	f.fails(err, "LoadBalancerNotFound", "One or more load balancers not found")
	_, err = f.describeLoadBalancers(in(account, "eu-west-1"), &elbv2.DescribeLoadBalancersInput{LoadBalancerArns: []string{f.lb}})
	f.fails(err, "LoadBalancerNotFound", "One or more load balancers not found")
}

func TestListenersAndRules(t *testing.T) {
	f := newFixture(t).with()
	l := f.listener(80)
	_, err := f.createListener(f.ctx, &elbv2.CreateListenerInput{LoadBalancerArn: &f.lb, Port: aws.Int32(80), Protocol: "HTTP", DefaultActions: forward(f.group("other"))})
	f.fails(err, "DuplicateListener", "A listener already exists on this port for this load balancer '"+f.lb+"'")
	_, err = f.createListener(f.ctx, &elbv2.CreateListenerInput{LoadBalancerArn: &f.lb, Port: aws.Int32(443), Protocol: "HTTPS", DefaultActions: forward(f.tg)})
	f.fails(err, "UnsupportedProtocol", "HTTPS")

	first, err := f.rule(l, 10, "/a/*")
	f.ok(err)
	second, err := f.rule(l, 5, "/b/*")
	f.ok(err)
	if again, err := f.rule(l, 5, "/b/*"); err != nil || again != second {
		t.Errorf("repeating the creation: %s, %v", again, err)
	}
	_, err = f.rule(l, 10, "/c/*")
	f.fails(err, "PriorityInUse", "Priority '10' is currently in use")
	_, err = f.rule(l, 50001, "/c/*")
	f.fails(err, "ValidationError", "must be between '1' and '50000' inclusive")
	list := func() (arns []string) {
		out, err := f.describeRules(f.ctx, &elbv2.DescribeRulesInput{ListenerArn: &l})
		f.ok(err)
		for _, r := range out.Rules {
			arns = append(arns, *r.Priority)
		}
		return arns
	}
	if got := strings.Join(list(), " "); got != "5 10 default" {
		t.Errorf("rules in order %s", got)
	}
	// Two rules change places in one call.
	_, err = f.setRulePriorities(f.ctx, &elbv2.SetRulePrioritiesInput{RulePriorities: []elbtypes.RulePriorityPair{
		{RuleArn: &first, Priority: aws.Int32(5)}, {RuleArn: &second, Priority: aws.Int32(10)}}})
	f.ok(err)
	_, err = f.deleteTargetGroup(f.ctx, &elbv2.DeleteTargetGroupInput{TargetGroupArn: &f.tg})
	f.fails(err, "ResourceInUse", "Target group '"+f.tg+"' is currently in use by a listener or a rule")
	v := f.Store.View()
	set := ListenerSource{f.Service}.Full(v, "")
	rules := set[0].GetListener().Rules
	if len(set) != 1 || len(rules) != 3 || rules[0].Arn != first || rules[0].Conditions[0].Values[0] != "/a/*" || rules[2].Priority != 0 {
		t.Errorf("proxies get %v", set)
	}
	_, err = f.deleteRule(f.ctx, &elbv2.DeleteRuleInput{RuleArn: &rules[2].Arn})
	f.fails(err, "OperationNotPermitted", "Default rule '"+rules[2].Arn+"' cannot be deleted")
	_, err = f.deleteLoadBalancer(f.ctx, &elbv2.DeleteLoadBalancerInput{LoadBalancerArn: &f.lb})
	f.ok(err)
	v = f.Store.View()
	for range Rules.Scan(v, state.K()) {
		t.Error("a rule is left behind")
	}
	for range Priorities.Scan(v, state.K()) {
		t.Error("a claim is left behind")
	}
	for range Addresses.Scan(v, state.K()) {
		t.Error("an address is left behind")
	}
	_, err = f.deleteTargetGroup(f.ctx, &elbv2.DeleteTargetGroupInput{TargetGroupArn: &f.tg})
	f.ok(err)
}

func TestManyRulesAreDeleted(t *testing.T) {
	f := newFixture(t).with()
	l := f.listener(80)
	for i := range int32(maxRules) {
		_, err := f.rule(l, i+1, "/x")
		f.ok(err)
	}
	_, err := f.rule(l, 200, "/x")
	f.fails(err, "TooManyRules", "maximum number of rules")
	_, err = f.deleteListener(f.ctx, &elbv2.DeleteListenerInput{ListenerArn: &l})
	f.ok(err)
}

func TestConditionLimits(t *testing.T) {
	for _, c := range []struct {
		condition elbtypes.RuleCondition
		text      string
	}{
		{elbtypes.RuleCondition{Field: aws.String("path-pattern"), Values: []string{"1", "2", "3", "4", "5", "6"}}, "more than '5' condition values"},
		{elbtypes.RuleCondition{Field: aws.String("path-pattern"), Values: []string{"/*/*/*/*/*/*/*"}}, "more than '6' wildcard"},
		{elbtypes.RuleCondition{Field: aws.String("path-pattern"), Values: []string{strings.Repeat("a", 129)}}, "longer than '128'"},
		{elbtypes.RuleCondition{Field: aws.String("moon")}, "must be one of"},
		{elbtypes.RuleCondition{Field: aws.String("host-header")}, "value must be specified"},
		{elbtypes.RuleCondition{Field: aws.String("source-ip"), SourceIpConfig: &elbtypes.SourceIpConditionConfig{Values: []string{"10.0.0.1"}}}, "not a valid CIDR"},
	} {
		_, err := checkConditions([]elbtypes.RuleCondition{c.condition})
		if e, ok := awserr.As(err); !ok || e.Code != "ValidationError" || !strings.Contains(e.Message, c.text) {
			t.Errorf("%v: %v", c.condition, err)
		}
	}
}

func TestTargetGroup(t *testing.T) {
	f := newFixture(t).with()
	if f.group("tg") != f.tg {
		t.Error("repeating the creation made another target group")
	}
	other := groupInput("tg")
	other.Port = aws.Int32(81)
	_, err := f.createTargetGroup(f.ctx, other)
	f.fails(err, "DuplicateTargetGroupName", "A target group with the same name 'tg' exists, but with different settings")
	other = groupInput("x")
	other.VpcId = aws.String("vpc-0")
	_, err = f.createTargetGroup(f.ctx, other)
	f.fails(err, "ValidationError", "The VPC ID 'vpc-0' is not found")
	other = groupInput("x")
	other.TargetType = "lambda"
	_, err = f.createTargetGroup(f.ctx, other)
	f.fails(err, "UnsupportedOperation", "lambda")
	out, err := f.describeTargetGroups(f.ctx, &elbv2.DescribeTargetGroupsInput{Names: []string{"tg"}})
	f.ok(err)
	g := out.TargetGroups[0]
	if *g.HealthCheckPath != "/" || *g.HealthCheckIntervalSeconds != 30 || *g.HealthCheckTimeoutSeconds != 5 || *g.HealthyThresholdCount != 5 ||
		*g.UnhealthyThresholdCount != 2 || *g.Matcher.HttpCode != "200" || *g.HealthCheckPort != "traffic-port" || *g.ProtocolVersion != "HTTP1" {
		t.Errorf("defaults %+v", g)
	}
	attributes, err := f.modifyTargetGroupAttributes(f.ctx, &elbv2.ModifyTargetGroupAttributesInput{TargetGroupArn: &f.tg,
		Attributes: []elbtypes.TargetGroupAttribute{{Key: aws.String("deregistration_delay.timeout_seconds"), Value: aws.String("7")}}})
	f.ok(err)
	if *attributes.Attributes[0].Value != "7" {
		t.Errorf("attributes %v", *attributes.Attributes[0].Value)
	}
	_, err = f.modifyTargetGroupAttributes(f.ctx, &elbv2.ModifyTargetGroupAttributesInput{TargetGroupArn: &f.tg,
		Attributes: []elbtypes.TargetGroupAttribute{{Key: aws.String("no.such"), Value: aws.String("7")}}})
	f.fails(err, "ValidationError", "'no.such' is not recognized")
}

func (f *fixture) health(targets ...elbtypes.TargetDescription) (out []string) {
	f.t.Helper()
	h, err := f.describeTargetHealth(f.ctx, &elbv2.DescribeTargetHealthInput{TargetGroupArn: &f.tg, Targets: targets})
	f.ok(err)
	for _, d := range h.TargetHealthDescriptions {
		out = append(out, *d.Target.Id+" "+string(d.TargetHealth.State)+" "+string(d.TargetHealth.Reason))
	}
	return out
}

func TestTargetHealth(t *testing.T) {
	f := newFixture(t).with()
	one := elbtypes.TargetDescription{Id: aws.String("10.0.0.1"), Port: aws.Int32(8080)}
	_, err := f.registerTargets(f.ctx, &elbv2.RegisterTargetsInput{TargetGroupArn: &f.tg, Targets: []elbtypes.TargetDescription{one}})
	f.ok(err)
	_, err = f.registerTargets(f.ctx, &elbv2.RegisterTargetsInput{TargetGroupArn: &f.tg, Targets: []elbtypes.TargetDescription{{Id: aws.String("nonsense")}}})
	f.fails(err, "ValidationError", "nonsense")
	want := func(when string, want ...string) {
		t.Helper()
		if got := f.health(); strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	want("without a listener", "10.0.0.1 unused Target.NotInUse")
	if checks := (CheckSource{}).Full(f.Store.View(), "n1"); len(checks) != 0 {
		t.Error("a group that is not in use is probed")
	}
	f.listener(80)
	want("registered", "10.0.0.1 initial Elb.RegistrationInProgress")
	_, err = f.Store.Update(f.ctx, func(tx *state.Tx) error {
		controlplane.Nodes.Put(tx, &controlplane.Node{Id: "n1", Status: "READY"})
		return nil
	})
	f.ok(err)
	if checks := (CheckSource{}).Full(f.Store.View(), "n1"); len(checks) != 1 || checks[0].GetCheck().Port != 8080 {
		t.Errorf("checks %v", checks)
	}
	d := mesh.NewDrainer(mesh.DrainerConfig{Store: f.Store, Clock: clock.Real{}})
	report := func(s agent.EndpointState, code, text string) {
		f.ok(d.Health(f.ctx, "n1", []*agent.HealthTransition{{TargetGroupArn: f.tg, EndpointId: "10.0.0.1:8080", State: s, ReasonCode: code, Description: text}}))
	}
	report(agent.EndpointState_ENDPOINT_HEALTHY, "", "")
	want("healthy", "10.0.0.1 healthy ")
	report(agent.EndpointState_ENDPOINT_UNHEALTHY, "Target.ResponseCodeMismatch", "Health checks failed with these codes: [500]")
	want("unhealthy", "10.0.0.1 unhealthy Target.ResponseCodeMismatch")
	_, err = f.deregisterTargets(f.ctx, &elbv2.DeregisterTargetsInput{TargetGroupArn: &f.tg, Targets: []elbtypes.TargetDescription{one}})
	f.ok(err)
	want("deregistered", "10.0.0.1 draining Target.DeregistrationInProgress")
	report(agent.EndpointState_ENDPOINT_HEALTHY, "", "")
	want("a late report", "10.0.0.1 draining Target.DeregistrationInProgress")
	if got := f.health(elbtypes.TargetDescription{Id: aws.String("10.0.0.9")}); got[0] != "10.0.0.9 unused Target.NotRegistered" {
		t.Errorf("unknown target: %q", got)
	}
}

// What is on a host with Amazon's agent, which probes nothing, another host probes; and such a host probes nothing for others.
func TestChecksOfAmazonsAgent(t *testing.T) {
	f := newFixture(t).with()
	f.listener(80)
	_, err := f.Store.Update(f.ctx, func(tx *state.Tx) error {
		controlplane.Nodes.Put(tx, &controlplane.Node{Id: "own", Status: "READY"})
		controlplane.Nodes.Put(tx, &controlplane.Node{Id: "amazon", Status: "READY", AmazonAgent: &controlplane.AmazonAgent{}})
		for i, node := range []string{"amazon", "own", ""} {
			mesh.Endpoints.Put(tx, &mesh.Endpoint{Account: account, Region: region, Group: f.tg, Id: fmt.Sprint(i), Node: node, Address: "10.0.0.1", Port: 80, State: agent.EndpointState_ENDPOINT_INITIAL})
		}
		return nil
	})
	f.ok(err)
	v := f.Store.View()
	if own, amazon := (CheckSource{}).Full(v, "own"), (CheckSource{}).Full(v, "amazon"); len(own) != 3 || len(amazon) != 0 {
		t.Errorf("own probes %v, amazon %v", own, amazon)
	}
}

func TestRouter(t *testing.T) {
	f := newFixture(t).with()
	f.listener(80)
	scope := controlplane.Scope{Account: account, Region: region}
	task := &controlplane.Task{Account: account, Region: region, Cluster: "default", Id: "t1", Service: "web"}
	status := &controlplane.TaskStatus{Account: account, Region: region, Cluster: "default", Id: "t1", Node: "n1", Report: &agent.TaskStatus{
		Address: "10.1.0.2", HostAddress: "192.0.2.1", Containers: []*agent.ContainerStatus{{Name: "app",
			Ports: []*agent.PortBinding{{ContainerPort: 3000, HostPort: 32768, Protocol: "tcp"}}}}}}
	byHost := groupInput("hosts")
	byHost.TargetType = "instance"
	hosts, err := f.createTargetGroup(f.ctx, byHost)
	f.ok(err)
	r := Router{Clock: clock.NewFake(time.Unix(1000, 0))}
	update := func(fn func(tx *state.Tx) error) {
		t.Helper()
		_, err := f.Store.Update(f.ctx, fn)
		f.ok(err)
	}
	update(func(tx *state.Tx) error {
		controlplane.Services.Put(tx, &controlplane.Service{Account: account, Region: region, Cluster: "default", Name: "web",
			LoadBalancersJson: controlplane.EncodeShape([]types.LoadBalancer{
				{TargetGroupArn: &f.tg, ContainerName: aws.String("app"), ContainerPort: aws.Int32(3000)},
				{TargetGroupArn: hosts.TargetGroups[0].TargetGroupArn, ContainerName: aws.String("app"), ContainerPort: aws.Int32(3000)}})})
		controlplane.Nodes.Put(tx, &controlplane.Node{Id: "n1", Status: "READY", Address: "192.0.2.1", Attributes: map[string]string{"ecs.instance-id": "i-1"}})
		return r.Register(tx, task, status)
	})
	v := f.Store.View()
	if e, ok := mesh.Endpoints.Get(v, scope.Key(f.tg, "10.1.0.2:3000")); !ok || e.Task != "t1" || e.State != agent.EndpointState_ENDPOINT_INITIAL {
		t.Errorf("endpoint by address: %v", e)
	}
	if e, ok := mesh.Endpoints.Get(v, scope.Key(*hosts.TargetGroups[0].TargetGroupArn, "192.0.2.1:32768")); !ok || e.Target != "i-1" {
		t.Errorf("endpoint by host: %v", e)
	}
	if r.Healthy(v, task) || r.Clear(v, task) {
		t.Error("a task whose endpoints are initial is healthy or clear")
	}
	d := mesh.NewDrainer(mesh.DrainerConfig{Store: f.Store, Clock: clock.Real{}})
	f.ok(d.Health(f.ctx, "n1", []*agent.HealthTransition{{TargetGroupArn: f.tg, EndpointId: "10.1.0.2:3000", State: agent.EndpointState_ENDPOINT_HEALTHY}}))
	if !r.Healthy(f.Store.View(), task) {
		t.Error("not healthy, though the one group in use says so")
	}
	update(func(tx *state.Tx) error { return r.Withdraw(tx, task, true) })
	if e, _ := mesh.Endpoints.Get(f.Store.View(), scope.Key(f.tg, "10.1.0.2:3000")); e.State != agent.EndpointState_ENDPOINT_DRAINING || e.DelaySeconds != 300 {
		t.Errorf("withdrawn: %v", e)
	}
	update(func(tx *state.Tx) error { return r.Remove(tx, task) })
	if !r.Clear(f.Store.View(), task) {
		t.Error("removed, yet not clear")
	}
}
