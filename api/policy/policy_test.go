package policy_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/seed-2f228079/neargate/api/policy"
)

func parse(t testing.TB, kind policy.Kind, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse(kind, text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p
}

// statement is a document of one statement.
func statement(effect, rest string) string {
	return `{"Version":"2012-10-17","Statement":{"Effect":"` + effect + `",` + rest + `}}`
}

// Actions and resources: reference_policies_elements_action.html, …_notaction.html, …_resource.html, …_notresource.html.
func TestElements(t *testing.T) {
	for _, c := range []struct {
		elements, action, resource string
		want                       bool
	}{
		{`"Action":"ec2:StartInstances","Resource":"*"`, "ec2:StartInstances", "arn:aws:ec2:a:1:i", true},
		{`"Action":"EC2:startinstances","Resource":"*"`, "ec2:StartInstances", "arn:aws:ec2:a:1:i", true},
		{`"Action":"iam:*AccessKey*","Resource":"*"`, "iam:CreateAccessKey", "*", true},
		{`"Action":"iam:*AccessKey*","Resource":"*"`, "iam:ListAccessKeys", "*", true},
		{`"Action":"iam:*AccessKey*","Resource":"*"`, "iam:ListUsers", "*", false},
		{`"Action":["sqs:SendMessage","sqs:ReceiveMessage"],"Resource":"*"`, "sqs:ReceiveMessage", "*", true},
		{`"Action":"s3:Get?bject","Resource":"*"`, "s3:GetObject", "*", true},
		{`"Action":"*","Resource":"*"`, "anything:AtAll", "arn:aws:x:::y", true},
		{`"Action":"*:*","Resource":"*"`, "anything:AtAll", "arn:aws:x:::y", true},
		{`"NotAction":"iam:*","Resource":"*"`, "iam:ListUsers", "*", false},
		{`"NotAction":"iam:*","Resource":"*"`, "ecs:ListClusters", "*", true},
		{`"NotAction":["iam:*","ecs:List*"],"Resource":"*"`, "ecs:ListClusters", "*", false},
		{`"Action":"s3:*","Resource":"arn:aws:s3:::DOC-EXAMPLE-BUCKET/*/test/*"`, "s3:GetObject", "arn:aws:s3:::DOC-EXAMPLE-BUCKET/1/2/test/3/object.jpg", true},
		{`"Action":"s3:*","Resource":"arn:aws:s3:::DOC-EXAMPLE-BUCKET/*/test/*"`, "s3:GetObject", "arn:aws:s3:::DOC-EXAMPLE-BUCKET/test/object.jpg", false},
		{`"Action":"s3:*","Resource":"arn:aws:s3:::DOC-EXAMPLE-BUCKET/????/test"`, "s3:GetObject", "arn:aws:s3:::DOC-EXAMPLE-BUCKET/dept/test", true},
		{`"Action":"s3:*","Resource":"arn:aws:s3:::bucket/a"`, "s3:GetObject", "arn:aws:s3:::bucket/A", false},
		{`"Action":"ecs:*","Resource":["arn:aws:ecs:*:1:cluster/a","arn:aws:ecs:*:1:service/a/*"]`, "ecs:UpdateService", "arn:aws:ecs:eu:1:service/a/web", true},
		{`"Action":"ecs:*","Resource":"arn:aws:ecs:*:1:cluster/a"`, "ecs:ListClusters", "*", false},
		{`"Action":"s3:*","NotResource":["arn:aws:s3:::HR/*","arn:aws:s3:::HR"]`, "s3:GetObject", "arn:aws:s3:::HR/payroll", false},
		{`"Action":"s3:*","NotResource":["arn:aws:s3:::HR/*","arn:aws:s3:::HR"]`, "s3:GetObject", "arn:aws:s3:::sales", true},
		{`"Action":"ecs:*","Resource":"arn:aws:ecs:*:*:task-definition/${aws:PrincipalTag/team}-*"`, "ecs:RunTask", "arn:aws:ecs:eu:1:task-definition/red-web:1", true},
		{`"Action":"ecs:*","Resource":"arn:aws:ecs:*:*:task-definition/${aws:PrincipalTag/none}*"`, "ecs:RunTask", "arn:aws:ecs:eu:1:task-definition/red-web:1", false},
	} {
		p := parse(t, policy.Identity, statement("Allow", c.elements))
		r := &policy.Request{Action: c.action, Resource: c.resource, Key: keys{"aws:principaltag/team": "red"}.value}
		if got := p.Evaluate(r) == policy.Allow; got != c.want {
			t.Errorf("%s on %s %s: %v", c.elements, c.action, c.resource, got)
		}
	}
}

const (
	here, elsewhere = "111111111111", "222222222222"
	thing           = "arn:aws:ecr:eu-west-1:" + here + ":repository/web"
	roleARN         = "arn:aws:iam::" + here + ":role/ops/deploy"
)

var (
	ana    = policy.Principal{Account: here, ARN: "arn:aws:iam::" + here + ":user/ana", ID: "AIDAANA"}
	mary   = policy.Principal{Account: elsewhere, ARN: "arn:aws:iam::" + elsewhere + ":user/mary", ID: "AIDAMARY"}
	deploy = policy.Principal{Account: here, ARN: "arn:aws:sts::" + here + ":assumed-role/deploy/ci", Role: roleARN, ID: "AROADEPLOY"}
	owner  = policy.Principal{Account: here, ARN: "arn:aws:iam::" + here + ":root", ID: here, Root: true}
	tasks  = policy.Principal{Service: "ecs-tasks.amazonaws.com"}
)

// The cases of "Policy evaluation logic" (reference_policies_evaluation-logic.html, …_policy-eval-basics, …_policy-eval-denyallow,
// …_cross-account-policy-logic) and of "Permissions boundaries for IAM entities" (access_policies_boundaries.html).
func TestDecide(t *testing.T) {
	allow, deny := statement("Allow", `"Action":"ecr:*","Resource":"*"`), statement("Deny", `"Action":"ecr:*","Resource":"*"`)
	other := statement("Allow", `"Action":"s3:*","Resource":"*"`)
	to := func(effect, principal string) string {
		return statement(effect, `"Action":"ecr:*","Principal":`+principal)
	}
	arn := func(a string) string { return `{"AWS":"` + a + `"}` }
	allowed := policy.Decision{Allowed: true}
	denied := func(by policy.Source) policy.Decision { return policy.Decision{By: by} }
	explicitly := func(by policy.Source) policy.Decision { return policy.Decision{By: by, Explicit: true} }
	for _, c := range []struct {
		name                                  string
		who                                   policy.Principal
		identity, boundary, session, resource string // empty: none
		guarded                               bool
		want                                  policy.Decision
	}{
		{"nothing allows", ana, "", "", "", "", false, denied(policy.FromIdentity)},
		{"identity allows", ana, allow, "", "", "", false, allowed},
		{"identity allows something else", ana, other, "", "", "", false, denied(policy.FromIdentity)},
		{"explicit deny in identity", ana, deny, "", "", to("Allow", arn(ana.ARN)), false, explicitly(policy.FromIdentity)},
		{"explicit deny in resource", ana, allow, "", "", to("Deny", arn(ana.ARN)), false, explicitly(policy.FromResource)},
		{"explicit deny in boundary", ana, allow, deny, "", "", false, explicitly(policy.FromBoundary)},
		{"explicit deny in session", deploy, allow, "", deny, "", false, explicitly(policy.FromSession)},
		{"boundary does not grant", ana, "", allow, "", "", false, denied(policy.FromIdentity)},
		{"boundary limits", ana, allow, other, "", "", false, denied(policy.FromBoundary)},
		{"within the boundary", ana, allow, allow, "", "", false, allowed},
		{"session limits", deploy, allow, "", other, "", false, denied(policy.FromSession)},
		{"within the session", deploy, allow, "", allow, "", false, allowed},
		{"session does not grant", deploy, "", "", allow, "", false, denied(policy.FromIdentity)},
		{"root", owner, "", "", "", "", false, allowed},
		// Within an account, identity and resource add up.
		{"resource names the user", ana, "", "", "", to("Allow", arn(ana.ARN)), false, allowed},
		{"resource names the user, whom a boundary does not limit", ana, "", other, "", to("Allow", arn(ana.ARN)), false, allowed},
		{"resource names everybody", ana, "", "", "", to("Allow", `"*"`), false, allowed},
		{"resource names the account", ana, "", "", "", to("Allow", arn("arn:aws:iam::"+here+":root")), false, denied(policy.FromIdentity)},
		{"resource names the account, and identity allows", ana, allow, "", "", to("Allow", arn(here)), false, allowed},
		{"resource names somebody else", ana, "", "", "", to("Allow", arn(mary.ARN)), false, denied(policy.FromIdentity)},
		{"resource names the role", deploy, "", "", "", to("Allow", arn(roleARN)), false, allowed},
		{"resource names the role, a boundary limits it", deploy, "", other, "", to("Allow", arn(roleARN)), false, denied(policy.FromBoundary)},
		{"resource names the role, the session limits it", deploy, "", "", other, to("Allow", arn(roleARN)), false, denied(policy.FromSession)},
		{"resource names the session, which nothing limits", deploy, "", other, other, to("Allow", arn(deploy.ARN)), false, allowed},
		{"resource names everybody, the session limits", deploy, "", "", other, to("Allow", `"*"`), false, denied(policy.FromSession)},
		// Between accounts both must allow.
		{"across: both", mary, allow, "", "", to("Allow", arn(mary.ARN)), false, allowed},
		{"across: the account is named", mary, allow, "", "", to("Allow", arn(elsewhere)), false, allowed},
		{"across: identity alone", mary, allow, "", "", "", false, denied(policy.FromResource)},
		{"across: resource alone", mary, "", "", "", to("Allow", arn(mary.ARN)), false, denied(policy.FromIdentity)},
		{"across: boundary", mary, allow, other, "", to("Allow", arn(mary.ARN)), false, denied(policy.FromBoundary)},
		{"across: another is named", mary, allow, "", "", to("Allow", arn(ana.ARN)), false, denied(policy.FromResource)},
		// Nobody gets past a role's trust policy.
		{"guarded: identity alone", ana, allow, "", "", to("Allow", arn(mary.ARN)), true, denied(policy.FromResource)},
		{"guarded: user named", ana, "", "", "", to("Allow", arn(ana.ARN)), true, allowed},
		{"guarded: account named", ana, "", "", "", to("Allow", arn(here)), true, denied(policy.FromIdentity)},
		{"guarded: account named and identity", ana, allow, "", "", to("Allow", arn(here)), true, allowed},
		{"guarded: no policy", ana, allow, "", "", "", true, denied(policy.FromResource)},
		{"guarded: service", tasks, "", "", "", to("Allow", `{"Service":["ec2.amazonaws.com","ecs-tasks.amazonaws.com"]}`), true, allowed},
		{"guarded: other service", tasks, "", "", "", to("Allow", `{"Service":"ec2.amazonaws.com"}`), true, denied(policy.FromIdentity)},
		// NotPrincipal: reference_policies_elements_notprincipal.html.
		{"not principal denies others", ana, allow, "", "", to("Deny", `{"AWS":"x"}`), false, explicitly(policy.FromResource)},
		{"not principal spares", deploy, allow, "", "", to("Deny", `{"AWS":"x"}`), false, allowed},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p policy.Policies
			list := func(text string) []*policy.Policy {
				if text == "" {
					return nil
				}
				return []*policy.Policy{parse(t, policy.Identity, text)}
			}
			p.Identity, p.Boundary, p.Session = list(c.identity), list(c.boundary), list(c.session)
			p.Bounded, p.Limited = c.boundary != "", c.session != ""
			at := policy.Target{Account: here, Guarded: c.guarded}
			if c.resource != "" {
				text := c.resource
				if strings.Contains(text, `{"AWS":"x"}`) {
					text = strings.Replace(text, `"Principal":{"AWS":"x"}`, `"NotPrincipal":`+arn(roleARN), 1)
				}
				at.Policy = parse(t, policy.Resource, text)
			}
			if got := p.Decide(&policy.Request{Action: "ecr:PutImage", Resource: thing, Principal: c.who}, at); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// A user or role that is deleted and made again under its name is somebody else: reference_policies_elements_principal.html.
func TestPins(t *testing.T) {
	trust := parse(t, policy.Trust, statement("Allow", `"Action":"sts:AssumeRole","Principal":{"AWS":"`+ana.ARN+`"}`))
	pinned := trust.Pin(map[string]string{ana.ARN: ana.ID})
	again := ana
	again.ID = "AIDAAGAIN"
	for _, c := range []struct {
		p    *policy.Policy
		who  policy.Principal
		want policy.Effect
	}{{trust, ana, policy.Allow}, {trust, again, policy.Allow}, {pinned, ana, policy.Allow}, {pinned, again, policy.None}} {
		if got := c.p.Evaluate(&policy.Request{Action: "sts:AssumeRole", Resource: roleARN, Principal: c.who}); got != c.want {
			t.Errorf("%s: %v, want %v", c.who.ID, got, c.want)
		}
	}
}

func TestReasons(t *testing.T) {
	for want, d := range map[string]policy.Decision{
		"because no identity-based policy allows the ecs:RunTask action": {By: policy.FromIdentity},
		"because no permissions boundary allows the ecs:RunTask action":  {By: policy.FromBoundary},
		"because no session policy allows the ecs:RunTask action":        {By: policy.FromSession},
		"because no resource-based policy allows the ecs:RunTask action": {By: policy.FromResource},
		"with an explicit deny in an identity-based policy":              {By: policy.FromIdentity, Explicit: true},
		"with an explicit deny in a permissions boundary":                {By: policy.FromBoundary, Explicit: true},
		"with an explicit deny in a resource-based policy":               {By: policy.FromResource, Explicit: true},
	} {
		if got := d.Reason("ecs:RunTask"); got != want {
			t.Errorf("%+v: %q", d, got)
		}
	}
}

// What is no policy, and in which words: the messages are those that IAM is seen to answer (moto's and others' recorded tests).
func TestRefusals(t *testing.T) {
	st := func(rest string) string { return `{"Version":"2012-10-17","Statement":` + rest + `}` }
	const syntax = "Syntax errors in policy."
	for _, c := range []struct {
		kind policy.Kind
		text string
		want string
	}{
		{policy.Identity, ``, syntax},
		{policy.Identity, `[]`, syntax},
		{policy.Identity, `{"Version":"2012-10-17"}`, syntax},
		{policy.Identity, `{"Version":"2012-10-18","Statement":[]}`, syntax},
		{policy.Identity, st(`[]`) + "x", syntax},
		{policy.Identity, `{"Version":"2012-10-17","Version":"2012-10-17","Statement":[]}`, syntax},
		{policy.Identity, `{"Statement":[],"Extra":1}`, syntax},
		{policy.Identity, st(`{"Effect":"Deny","Effect":"Allow","Action":"*","Resource":"*"}`), syntax},
		{policy.Identity, st(`{"Effect":"allow","Action":"*","Resource":"*"}`), syntax},
		{policy.Identity, st(`{"Action":"*","Resource":"*"}`), syntax},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","NotAction":"a:b","Resource":"*"}`), syntax},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"*","NotResource":"*"}`), syntax},
		{policy.Identity, st(`{"Effect":"Allow","Action":1,"Resource":"*"}`), syntax},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":{"a":"b"}}`), syntax},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"*","Surprise":1}`), syntax},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":[]}`), syntax},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":"x"}}`), syntax},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":{"a:b":{}}}}`), syntax},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::${aws:username"}`), syntax},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::a\u0000"}`), syntax},
		{policy.Identity, strings.Repeat("[", 100000), syntax},
		{policy.Identity, st(`{"Effect":"Allow","Resource":"*"}`), "Policy statement must contain actions."},
		{policy.Identity, st(`{"Effect":"Allow","Action":[],"Resource":"*"}`), "Policy statement must contain actions."},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*"}`), "Policy statement must contain resources."},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":[]}`), "Policy statement must contain resources."},
		{policy.Identity, st(`{"Effect":"Allow","Action":"ListUsers","Resource":"*"}`), "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."},
		{policy.Identity, st(`{"Effect":"Allow","Action":"a:b:c","Resource":"*"}`), "Actions/Condition can contain only one colon."},
		{policy.Identity, st(`{"Effect":"Allow","Action":"e*c:x","Resource":"*"}`), "Vendor e*c is not valid"},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"bucket"}`), `Resource bucket must be in ARN format or "*".`},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3"}`), `Resource arn:aws:s3 must be in ARN format or "*".`},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"arn:azure:s3:::b"}`), `Partition "azure" is not valid for resource "arn:azure:s3:::b".`},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:iam:eu-west-1:1:user/a"}`), "IAM resource arn:aws:iam:eu-west-1:1:user/a cannot contain region information."},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}`), "Policy document should not specify a principal."},
		{policy.Identity, st(`[{"Sid":"a","Effect":"Allow","Action":"*","Resource":"*"},{"Sid":"a","Effect":"Allow","Action":"*","Resource":"*"}]`), "Statement IDs (SID) in a single policy must be unique."},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEqualz":{"a:b":"c"}}}`), "Invalid Condition type : StringEqualz."},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"NullIfExists":{"a:b":"true"}}}`), "Invalid Condition type : NullIfExists."},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.300"}}}`), `The value "10.0.0.300" of the condition key aws:SourceIp does not suit its operator.`},
		{policy.Identity, st(`{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"yes"}}}`), `The value "yes" of the condition key aws:SecureTransport does not suit its operator.`},
		{policy.Trust, st(`{"Effect":"Allow","Action":"sts:AssumeRole"}`), "Missing required field Principal"},
		{policy.Trust, st(`{"Effect":"Allow","Action":"sts:AssumeRole","Principal":"*","Resource":"*"}`), "Has prohibited field Resource"},
		{policy.Trust, st(`{"Effect":"Deny","Action":"sts:AssumeRole","NotPrincipal":{"AWS":"123456789012"}}`), "Has prohibited field NotPrincipal"},
		{policy.Trust, st(`{"Effect":"Allow","Action":"s3:*","Principal":"*"}`), "AssumeRole policy may only specify STS AssumeRole actions."},
		{policy.Trust, st(`{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::123456789012:user/*"}}`), `Invalid principal in policy: "AWS":"arn:aws:iam::123456789012:user/*"`},
		{policy.Trust, st(`{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"ecs"}}`), `Invalid principal in policy: "Service":"ecs"`},
		{policy.Own, st(`{"Effect":"Allow","Action":"ecr:*","Principal":"*","Resource":"*"}`), "Has prohibited field Resource"},
		{policy.Own, st(`{"Effect":"Allow","Action":"ecr:*","Principal":"*","NotResource":"*"}`), "Has prohibited field Resource"},
		{policy.Own, st(`{"Effect":"Allow","Action":"ecr:*"}`), "Missing required field Principal"},
		{policy.Shared, st(`{"Effect":"Allow","Action":"ecr:*","Principal":"*"}`), "Policy statement must contain resources."},
		{policy.Trust, st(`{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Azure":"x"}}`), `Invalid principal in policy: "Azure":"x"`},
	} {
		_, err := policy.Parse(c.kind, c.text)
		var p *policy.Error
		if !errors.As(err, &p) || p.Message != c.want {
			t.Errorf("%.200s\ngot  %v\nwant %s", c.text, err, c.want)
		}
	}
}

// Documents of the User Guide that must be taken, of either version.
func TestAccepted(t *testing.T) {
	for _, c := range []struct {
		kind policy.Kind
		text string
	}{
		{policy.Identity, `{"Version":"2012-10-17","Statement":[]}`},
		{policy.Identity, `{"Id":"x","Statement":{"Sid":"","Effect":"Allow","Action":"*","Resource":"*"}}`},
		{policy.Identity, `{"Version":"2008-10-17","Statement":[{"Effect":"Deny","NotAction":["iam:*"],"NotResource":["arn:aws:s3:::a"]}]}`},
		{policy.Identity, statement("Allow", `"Action":"s3:*","Resource":"arn:aws:s3:*"`)},
		{policy.Identity, statement("Allow", `"Action":"iam:*","Resource":["arn:aws:iam::*:user/${aws:username}","arn:aws:iam::123456789012:root","arn:aws:iam::1:*"]`)},
		{policy.Trust, statement("Allow", `"Action":["sts:AssumeRole","sts:TagSession"],"Principal":{"AWS":["123456789012","arn:aws:iam::123456789012:root","AIDAJQABLZS4A3QDU576Q"],"Service":"ecs-tasks.amazonaws.com","Federated":"cognito-identity.amazonaws.com"},"Condition":{"StringEquals":{"sts:ExternalId":"x"}}`)},
		{policy.Resource, statement("Allow", `"Sid":"__owner_statement","Action":"ecr:*","Principal":{"AWS":"*"}`)},
		{policy.Own, statement("Allow", `"Sid":"new statement","Action":"ecr:*","Principal":{"AWS":"*"}`)},
		{policy.Shared, statement("Allow", `"Action":"ecr:*","Principal":{"AWS":"*"},"Resource":"arn:aws:ecr:*:*:repository/*"`)},
	} {
		if _, err := policy.Parse(c.kind, c.text); err != nil {
			t.Errorf("%s: %v", c.text, err)
		}
	}
}

func TestJoin(t *testing.T) {
	allow := parse(t, policy.Own, statement("Allow", `"Action":["ecr:*","S3:Get*"],"Principal":"*"`))
	deny := parse(t, policy.Shared, statement("Deny", `"Action":"*","Principal":"*","Resource":"*"`))
	r := &policy.Request{Action: "ecr:GetImage", Resource: "arn:aws:ecr:a:b:repository/c", Principal: ana}
	for want, p := range map[policy.Effect]*policy.Policy{policy.Allow: policy.Join(nil, allow, nil), policy.Deny: policy.Join(allow, deny)} {
		if got := p.Evaluate(r); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	if policy.Join() != nil || policy.Join(nil, allow) != allow {
		t.Error("what needs no joining is joined")
	}
	if got := policy.Join(allow, deny).Vendors(); !slices.Equal(got, []string{"ecr", "s3", "*"}) {
		t.Errorf("vendors %v", got)
	}
}

func TestSize(t *testing.T) {
	if got := policy.Size("{ \"a\":\t\"é b\"\r\n}"); got != len(`{"a":"eb"}`) {
		t.Errorf("got %d", got)
	}
}

// FuzzParse: whatever is taken can be evaluated, and taken again gives the same.
func FuzzParse(f *testing.F) {
	f.Add(statement("Allow", `"Action":"ecs:*","Resource":"arn:aws:ecs:*:*:task/${aws:username, 'x'}*?","Condition":{"ForAnyValue:StringLikeIfExists":{"aws:TagKeys":["a*",1,true]},"IpAddress":{"aws:SourceIp":"10.0.0.0/8"},"ArnLike":{"aws:PrincipalArn":"arn:*:iam::*:role/${aws:username}"}}`), "ecs:RunTask", "arn:aws:ecs:a:b:task/x")
	f.Add(statement("Deny", `"NotAction":"a:?","NotResource":"*","Principal":{"AWS":["*","123456789012"]}`), "a:b", "*")
	f.Add(`{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`, "", "")
	f.Fuzz(func(t *testing.T, text, action, resource string) {
		r := &policy.Request{Action: action, Resource: resource, Principal: ana, Key: func(k string) ([]string, bool) { return []string{resource, action}, len(k)%2 == 0 }}
		for _, kind := range []policy.Kind{policy.Identity, policy.Trust, policy.Resource, policy.Own, policy.Shared} {
			p, err := policy.Parse(kind, text)
			if err != nil {
				continue
			}
			again := parse(t, kind, text)
			if p.Evaluate(r) != again.Evaluate(r) {
				t.Error("the same document says different things")
			}
			own := policy.Policies{Identity: []*policy.Policy{p}}
			if d := own.Decide(r, policy.Target{Policy: p, Account: here}); d.Allowed && p.Evaluate(r) != policy.Allow {
				t.Error("allowed, by nobody")
			}
		}
	})
}

// BenchmarkDecide is a user of ten policies of five statements each, the last of which allows.
func BenchmarkDecide(b *testing.B) {
	var own policy.Policies
	for i := range 10 {
		var st []string
		for j := range 5 {
			st = append(st, fmt.Sprintf(`{"Effect":"Allow","Action":["ecs:Describe%d*","ecr:Get*","logs:%d"],"Resource":["arn:aws:ecs:*:*:service/%d/*","arn:aws:ecr:*:*:repository/team-%d/*"],"Condition":{"StringEquals":{"aws:RequestedRegion":"eu-west-1"}}}`, j, j, i, j))
		}
		own.Identity = append(own.Identity, parse(b, policy.Identity, `{"Version":"2012-10-17","Statement":[`+strings.Join(st, ",")+`]}`))
	}
	own.Identity = append(own.Identity, parse(b, policy.Identity, statement("Allow", `"Action":"ecs:RunTask","Resource":"arn:aws:ecs:*:*:task-definition/${aws:username}-*"`)))
	r := &policy.Request{Action: "ecs:RunTask", Resource: "arn:aws:ecs:eu-west-1:1:task-definition/bob-web:1", Principal: ana, Key: keys{"aws:username": "bob"}.value}
	b.ReportAllocs()
	for b.Loop() {
		if !own.Decide(r, policy.Target{}).Allowed {
			b.Fatal("denied")
		}
	}
}

func BenchmarkParse(b *testing.B) {
	text := statement("Allow", `"Action":["ecs:*","ecr:Get*"],"Resource":["arn:aws:ecs:*:*:service/a/*"],"Condition":{"StringEquals":{"aws:RequestedRegion":"eu-west-1"}}`)
	for b.Loop() {
		parse(b, policy.Identity, text)
	}
}
