package auth_test

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/auth"
	"github.com/seed-2f228079/neargate/api/policy"
)

// principals are users and roles by unique id, each with one policy.
type principals map[string]string

func (p principals) Policies(who *api.Identity) (*policy.Policies, bool) {
	id, _, _ := strings.Cut(who.UserID, ":")
	text, ok := p[id]
	if !ok {
		return nil, false
	}
	doc, err := policy.Parse(policy.Identity, text)
	if err != nil {
		panic(err)
	}
	return &policy.Policies{Identity: []*policy.Policy{doc}}, true
}

func (principals) Tags(*api.Identity) map[string]string {
	return map[string]string{"Team": "red", "unit": "a"}
}

const task = "arn:aws:ecs:eu-west-1:" + account + ":task/default/1"

var (
	userCall = api.Call{Identity: api.Identity{Account: account, ARN: "arn:aws:iam::" + account + ":user/ops/ana", UserID: "AIDAANA"}, Region: "eu-west-1",
		Time: noon, SourceIP: netip.MustParseAddr("203.0.113.9"), UserAgent: "aws-cli/2", Secure: true}
	roleCall = api.Call{Identity: api.Identity{Account: account, ARN: "arn:aws:sts::" + account + ":assumed-role/deploy/ci", UserID: "AROAR:ci",
		Session: &api.Session{Role: "arn:aws:iam::" + account + ":role/x/deploy", Name: "ci", Issued: noon, Tags: map[string]string{"Team": "blue"}, SourceIdentity: "eve"}},
		Region: "eu-west-1", Time: noon}
)

func allowIf(condition string) string {
	return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ecs:*","Resource":"*","Condition":` + condition + `}}`
}

// Every key of "AWS global condition context keys" that is answered, for a user and for a role's session.
func TestContextKeys(t *testing.T) {
	for _, c := range []struct {
		condition  string
		user, role bool
	}{
		{`{"StringEquals":{"aws:username":"ana"}}`, true, false},
		{`{"StringEquals":{"aws:userid":["AIDAANA","AROAR:ci"]}}`, true, true},
		{`{"StringEquals":{"aws:PrincipalType":"User"}}`, true, false},
		{`{"StringEquals":{"aws:PrincipalType":"AssumedRole"}}`, false, true},
		{`{"StringEquals":{"aws:PrincipalAccount":"` + account + `"}}`, true, true},
		{`{"ArnEquals":{"aws:PrincipalArn":"arn:aws:iam::*:user/ops/ana"}}`, true, false},
		{`{"ArnEquals":{"aws:PrincipalArn":"arn:aws:iam::*:role/x/deploy"}}`, false, true},
		{`{"StringEquals":{"aws:PrincipalTag/team":"red"}}`, true, false},
		{`{"StringEquals":{"aws:PrincipalTag/TEAM":"blue"}}`, false, true}, // the session's before the role's
		{`{"StringEquals":{"aws:PrincipalTag/unit":"a"}}`, true, true},
		{`{"IpAddress":{"aws:SourceIp":"203.0.113.0/24"}}`, true, false},
		{`{"Bool":{"aws:SecureTransport":"true"}}`, true, false},
		{`{"StringLike":{"aws:UserAgent":"aws-cli/*"}}`, true, false},
		{`{"StringEquals":{"aws:RequestedRegion":"eu-west-1"}}`, true, true},
		{`{"DateEquals":{"aws:CurrentTime":"2015-08-30T12:36:00Z"}}`, true, true},
		{`{"DateEquals":{"aws:EpochTime":"2015-08-30T12:36:00Z"}}`, true, true},
		{`{"DateEquals":{"aws:TokenIssueTime":"2015-08-30T12:36:00Z"}}`, false, true},
		{`{"Null":{"aws:TokenIssueTime":"true"}}`, true, false},
		{`{"Bool":{"aws:MultiFactorAuthPresent":"false"}}`, false, true},
		{`{"BoolIfExists":{"aws:MultiFactorAuthPresent":"false"}}`, true, true},
		{`{"Bool":{"aws:ViaAWSService":"false"}}`, true, true},
		{`{"StringEquals":{"aws:SourceIdentity":"eve"}}`, false, true},
		{`{"StringEquals":{"aws:ResourceAccount":"` + account + `"}}`, true, true},
		{`{"StringEquals":{"aws:ResourceTag/stage":"prod"}}`, true, true},
		{`{"StringEquals":{"ecs:ResourceTag/stage":"prod"}}`, true, true},
		{`{"StringEquals":{"ecr:ResourceTag/stage":"prod"}}`, false, false},
		{`{"StringEquals":{"aws:RequestTag/made-by":"me"}}`, true, true},
		{`{"ForAllValues:StringEquals":{"aws:TagKeys":["made-by","for"]}}`, true, true},
		{`{"ForAnyValue:StringEquals":{"aws:TagKeys":["nothing"]}}`, false, false},
		{`{"ArnEquals":{"ecs:cluster":"arn:aws:ecs:eu-west-1:` + account + `:cluster/default"}}`, true, true},
		{`{"StringEquals":{"ecs:unheard-of":"x"}}`, false, false},
	} {
		text := allowIf(c.condition)
		a := auth.IAM{Principals: principals{"AIDAANA": text, "AROAR": text}, Tags: func(arn string) map[string]string {
			if arn != task {
				t.Errorf("asked for the tags of %s", arn)
			}
			return map[string]string{"stage": "prod"}
		}}
		access := api.Access{Action: "ecs:StopTask", Resources: []string{task},
			Input: &ecs.RunTaskInput{Tags: []types.Tag{{Key: new("made-by"), Value: new("me")}, {Key: new("for")}}},
			Key: func(key string) ([]string, bool) {
				return []string{"arn:aws:ecs:eu-west-1:" + account + ":cluster/default"}, key == "ecs:cluster"
			}}
		for who, want := range map[*api.Call]bool{&userCall: c.user, &roleCall: c.role} {
			if got := a.Authorize(t.Context(), who, access) == nil; got != want {
				t.Errorf("%s: %s is let: %v", c.condition, who.ARN, got)
			}
		}
	}
}

// A call without a request is told when a policy wants to know what only that could tell, and only then.
func TestUnsentCall(t *testing.T) {
	for condition, want := range map[string]bool{
		`{"IpAddress":{"aws:SourceIp":"203.0.113.0/24"}}`:                                                    true,
		`{"NotIpAddress":{"aws:SourceIp":"203.0.113.0/24"}}`:                                                 true,
		`{"Null":{"aws:SourceIp":"true"}}`:                                                                   true,
		`{"Bool":{"aws:SecureTransport":"true"}}`:                                                            true,
		`{"StringLike":{"aws:UserAgent":"aws-cli/*"}}`:                                                       true,
		`{"StringEquals":{"aws:RequestedRegion":"eu-west-1","aws:username":"ana","aws:PrincipalTag/a":"b"}}`: false,
	} {
		text := allowIf(condition)
		a := auth.IAM{Principals: principals{"AIDAANA": text}}
		call, asked := userCall, false
		call.Unsent = &asked
		_ = a.Authorize(t.Context(), &call, api.Access{Action: "ecs:StopTask", Resources: []string{task}})
		if asked != want {
			t.Errorf("%s: it is asked for: %v", condition, asked)
		}
	}
}

// The words of a refusal, and its code by protocol.
func TestDenials(t *testing.T) {
	const ana = "User: arn:aws:iam::000000000000:user/ops/ana is not authorized to perform: "
	deny := `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"ecs:Delete*","Resource":"*"},{"Effect":"Allow","Action":"ecs:*","Resource":"` + task + `"}]}`
	a := auth.IAM{Principals: principals{"AIDAANA": deny}, Resource: func(action, arn string) (*policy.Policy, bool) {
		return nil, action == "sts:AssumeRole"
	}}
	for _, c := range []struct{ action, resource, protocol, code, message string }{
		{"ecs:ListClusters", "", "json", "AccessDeniedException", ana + "ecs:ListClusters on resource: * because no identity-based policy allows the ecs:ListClusters action"},
		{"ecs:DeleteService", "arn:aws:ecs:a:000000000000:service/s", "json", "AccessDeniedException", ana + "ecs:DeleteService on resource: arn:aws:ecs:a:000000000000:service/s with an explicit deny in an identity-based policy"},
		{"ecs:StopTask", "arn:aws:ecs:a:999999999999:task/t", "json", "AccessDeniedException", ana + "ecs:StopTask on resource: arn:aws:ecs:a:999999999999:task/t because no identity-based policy allows the ecs:StopTask action"},
		{"iam:CreateUser", "arn:aws:iam::000000000000:user/x", "query", "AccessDenied", ana + "iam:CreateUser on resource: arn:aws:iam::000000000000:user/x because no identity-based policy allows the iam:CreateUser action"},
		{"elasticloadbalancing:DescribeLoadBalancers", "", "query", "AccessDenied", ana + "elasticloadbalancing:DescribeLoadBalancers because no identity-based policy allows the elasticloadbalancing:DescribeLoadBalancers action"},
		{"ec2:DescribeVpcs", "", "ec2", "UnauthorizedOperation", "You are not authorized to perform this operation. " + ana + "ec2:DescribeVpcs because no identity-based policy allows the ec2:DescribeVpcs action"},
		{"sts:AssumeRole", "arn:aws:iam::000000000000:role/r", "query", "AccessDenied", ana + "sts:AssumeRole on resource: arn:aws:iam::000000000000:role/r"},
	} {
		access := api.Access{Action: c.action}
		if c.resource != "" {
			access.Resources = []string{c.resource}
		}
		call := userCall
		err := a.Authorize(t.Context(), &call, access)
		f, ok := err.(*auth.Failure)
		if !ok {
			t.Errorf("%s: %v", c.action, err)
			continue
		}
		if e := f.In(c.protocol); e.Code != c.code || e.Message != c.message {
			t.Errorf("%s:\ngot  %s: %s\nwant %s: %s", c.action, e.Code, e.Message, c.code, c.message)
		}
	}
	// All resources must be allowed, and the one that is not is named.
	call := userCall
	if err := a.Authorize(t.Context(), &call, api.Access{Action: "ecs:DescribeTasks", Resources: []string{task, task + "2"}}); err == nil || !strings.Contains(err.Error(), task+"2 because") {
		t.Errorf("one of two: %v", err)
	}
	gone := userCall
	gone.UserID = "AIDAGONE"
	if err := a.Authorize(t.Context(), &gone, api.Access{Action: "ecs:ListClusters"}); code(err, "query") != "InvalidClientTokenId" {
		t.Errorf("a user who is gone: %v", err)
	}
}

// What GetSessionToken makes is no good for IAM.
func TestSessionMay(t *testing.T) {
	a := auth.IAM{Principals: principals{"AIDAANA": `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`}}
	own := userCall
	own.Session = &api.Session{}
	root := api.Call{Identity: api.Identity{Account: account, Root: true}}
	session := root
	session.Session = &api.Session{}
	for action, want := range map[string][4]string{ // code for root and a user, and for sessions of them
		"ecs:RunTask": {}, "iam:ListUsers": {2: "InvalidClientTokenId", 3: "InvalidClientTokenId"},
		"sts:GetAccessKeyInfo": {2: "InvalidClientTokenId", 3: "InvalidClientTokenId"}, "sts:AssumeRole": {},
	} {
		for i, c := range []*api.Call{&root, &userCall, &session, &own} {
			if got := code(a.Authorize(t.Context(), c, api.Access{Action: action}), "query"); got != want[i] {
				t.Errorf("%s, caller %d: %q", action, i, got)
			}
		}
	}
}

// In another account root may what that account's resource lets it, and nothing else.
func TestRootAbroad(t *testing.T) {
	const abroad = "arn:aws:ecr:a:999999999999:repository/"
	trusting, err := policy.Parse(policy.Resource, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ecr:*","Principal":{"AWS":"`+account+`"}}}`)
	if err != nil {
		t.Fatal(err)
	}
	a := auth.IAM{Resource: func(_, arn string) (*policy.Policy, bool) {
		if arn == abroad+"shared" {
			return trusting, false
		}
		return nil, false
	}}
	root := api.Call{Identity: api.Identity{Account: account, ARN: "arn:aws:iam::" + account + ":root", Root: true}}
	for name, want := range map[string]bool{"shared": true, "private": false} {
		if err := a.Authorize(t.Context(), &root, api.Access{Action: "ecr:BatchGetImage", Resources: []string{abroad + name}}); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// At home what a resource's policy denies binds root too, but for what takes the policy back.
func TestRootAtHome(t *testing.T) {
	const repository = "arn:aws:ecr:a:" + account + ":repository/locked"
	locked, err := policy.Parse(policy.Own, `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"ecr:*","Principal":"*","Condition":{"StringNotEquals":{"aws:UserAgent":"robot"}}}}`)
	if err != nil {
		t.Fatal(err)
	}
	a := auth.IAM{
		Resource: func(string, string) (*policy.Policy, bool) { return locked, false },
		Recovery: func(action string) bool { return action == "ecr:DeleteRepositoryPolicy" },
	}
	root := api.Call{Identity: api.Identity{Account: account, ARN: "arn:aws:iam::" + account + ":root", Root: true}}
	robot := root
	robot.UserAgent = "robot"
	for _, c := range []struct {
		call   *api.Call
		action string
		want   policy.Effect
	}{
		{&root, "ecr:BatchGetImage", policy.Deny}, {&robot, "ecr:BatchGetImage", policy.None}, {&root, "ecr:DeleteRepositoryPolicy", policy.Allow},
	} {
		err := a.Authorize(t.Context(), c.call, api.Access{Action: c.action, Resources: []string{repository}})
		if (err != nil) != (c.want == policy.Deny) || err != nil && !strings.HasSuffix(err.Error(), "with an explicit deny in a resource-based policy") {
			t.Errorf("%s, %q: %v", c.action, c.call.UserAgent, err)
		}
		if got := a.Weigh(c.call, c.action, repository, locked); got != c.want {
			t.Errorf("%s, %q weighs %v", c.action, c.call.UserAgent, got)
		}
	}
}

func TestPassRole(t *testing.T) {
	a := auth.IAM{Principals: principals{"AIDAANA": `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:PassRole","Resource":"arn:aws:iam::*:role/tasks/*","Condition":{"StringEquals":{"iam:PassedToService":"ecs-tasks.amazonaws.com"}}}}`}}
	call := userCall
	ctx := api.WithCall(t.Context(), &call)
	for _, c := range []struct{ role, service, want string }{
		{"arn:aws:iam::" + account + ":role/tasks/web", "ecs-tasks.amazonaws.com", ""},
		{"arn:aws:iam::" + account + ":role/tasks/web", "ec2.amazonaws.com", "because no identity-based policy allows the iam:PassRole action"},
		{"arn:aws:iam::" + account + ":role/admin", "ecs-tasks.amazonaws.com", "because no identity-based policy allows the iam:PassRole action"},
		{"arn:aws:iam::222222222222:role/tasks/web", "ecs-tasks.amazonaws.com", "Cross-account pass role is not allowed."},
	} {
		err := a.PassRole(ctx, c.role, c.service)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s to %s: %v", c.role, c.service, err)
		}
	}
}

// chain members answer in order.
type known string

func (k known) Lookup(_ context.Context, id, _ string) (auth.Credential, bool, error) {
	return auth.Credential{SecretAccessKey: string(k)}, id == string(k) || id == "both", nil
}

func TestChain(t *testing.T) {
	c := auth.Chain{known("a"), known("b")}
	var got []string
	for _, id := range []string{"a", "b", "both", "none"} {
		found, _, err := c.Lookup(t.Context(), id, "")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, found.SecretAccessKey)
	}
	if !slices.Equal(got, []string{"a", "b", "a", ""}) {
		t.Errorf("found %q", got)
	}
}

// BenchmarkAuthorize is a call of a user with two policies, one with a condition.
func BenchmarkAuthorize(b *testing.B) {
	first, err := policy.Parse(policy.Identity, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["ecr:*","logs:*"],"Resource":"*"}}`)
	if err != nil {
		b.Fatal(err)
	}
	second, err := policy.Parse(policy.Identity, allowIf(`{"StringEquals":{"aws:RequestedRegion":"eu-west-1"},"IpAddress":{"aws:SourceIp":"203.0.113.0/24"}}`))
	if err != nil {
		b.Fatal(err)
	}
	a := auth.IAM{Principals: fixed{&policy.Policies{Identity: []*policy.Policy{first, second}}}}
	call, access := userCall, api.Access{Action: "ecs:StopTask", Resources: []string{task}}
	call.Time = time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if err := a.Authorize(context.Background(), &call, access); err != nil {
			b.Fatal(err)
		}
	}
}

type fixed struct{ p *policy.Policies }

func (f fixed) Policies(*api.Identity) (*policy.Policies, bool) { return f.p, true }
func (fixed) Tags(*api.Identity) map[string]string              { return nil }
