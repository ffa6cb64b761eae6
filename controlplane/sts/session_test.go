package sts

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
)

const (
	account = "111111111111"
	role    = "arn:aws:iam::" + account + ":role/ci/deploy"
	managed = "arn:aws:iam::aws:policy/PowerUserAccess"
	allow   = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ecs:*","Resource":"*"}}`
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// directory has one role, whose sessions may last two hours, and whom its trust policy lets in.
type directory struct {
	trust  string
	asked  []string // actions that were authorized besides
	caller string   // account, region and ARN of the last one
}

func (d *directory) Role(arn string) (string, time.Duration, bool) {
	return "AROAROLE", 2 * time.Hour, arn == role
}

func (d *directory) Trust(arn string) (*policy.Policy, bool) {
	p, err := policy.Parse(policy.Trust, d.trust)
	if err != nil {
		panic(err)
	}
	return p, arn == role
}

func (d *directory) PolicyExists(of, arn string) bool { return of == account && arn == managed }

func (d *directory) Begin(who api.Identity) api.Credential {
	who.AccessKeyID = "ASIATEMPORARY"
	return api.Credential{SecretAccessKey: "secret", SessionToken: "token", Expires: who.Session.Expires, Identity: who}
}

func (d *directory) Authorize(_ context.Context, c *api.Call, a api.Access) error {
	d.asked, d.caller = append(d.asked, a.Action), c.Account+" "+c.Region+" "+c.ARN
	return nil
}

func newService() (*Service, *directory) {
	d := &directory{}
	return New(Config{Roles: d, Sessions: d, Authorizer: d, Clock: clock.NewFake(now)}), d
}

var (
	ana  = api.Identity{Account: account, ARN: "arn:aws:iam::" + account + ":user/ana", UserID: "AIDAANA"}
	root = api.Identity{Account: account, ARN: "arn:aws:iam::" + account + ":root", UserID: account, Root: true}
)

func as(who api.Identity) context.Context {
	return api.WithCall(context.Background(), &api.Call{Identity: who, Region: "us-east-1", Service: "sts", Time: now})
}

func ask(more func(*sts.AssumeRoleInput)) *sts.AssumeRoleInput {
	in := &sts.AssumeRoleInput{RoleArn: new(role), RoleSessionName: new("build-7")}
	if more != nil {
		more(in)
	}
	return in
}

func TestAssumeRole(t *testing.T) {
	s, _ := newService()
	out, err := s.assumeRole(as(ana), ask(nil))
	if err != nil {
		t.Fatal(err)
	}
	if u := out.AssumedRoleUser; *u.Arn != "arn:aws:sts::"+account+":assumed-role/deploy/build-7" || *u.AssumedRoleId != "AROAROLE:build-7" {
		t.Errorf("user %s, %s", *u.Arn, *u.AssumedRoleId)
	}
	if c := out.Credentials; *c.AccessKeyId != "ASIATEMPORARY" || *c.SecretAccessKey != "secret" || *c.SessionToken != "token" || !c.Expiration.Equal(now.Add(time.Hour)) {
		t.Errorf("credentials until %v", c.Expiration)
	}
	if out.PackedPolicySize != nil {
		t.Errorf("packed %d%% of nothing", *out.PackedPolicySize)
	}
}

// Tags and source identity need permissions of their own, and go on to the next session where they are to.
func TestSessionTags(t *testing.T) {
	s, d := newService()
	out, err := s.assumeRole(as(ana), ask(func(in *sts.AssumeRoleInput) {
		in.Tags = []types.Tag{{Key: new("team"), Value: new("red")}, {Key: new("own"), Value: new("x")}}
		in.TransitiveTagKeys = []string{"team"}
		in.SourceIdentity = new("eve")
	}))
	if err != nil || *out.SourceIdentity != "eve" {
		t.Fatalf("%+v, %v", out, err)
	}
	if got := strings.Join(d.asked, " "); got != "sts:TagSession sts:SetSourceIdentity" {
		t.Errorf("asked for %s", got)
	}
	first := roleIdentity(role, "AROAROLE", &api.Session{Role: role, Name: "a", Tags: map[string]string{"team": "red", "own": "x"}, Transitive: []string{"team"}, SourceIdentity: "eve"})
	session := &api.Session{Role: role}
	if err := s.inherit(as(first), session, ask(nil)); err != nil {
		t.Fatal(err)
	}
	if len(session.Tags) != 1 || session.Tags["team"] != "red" || session.SourceIdentity != "eve" {
		t.Errorf("inherited %+v", session)
	}
}

func TestRefusals(t *testing.T) {
	chained := roleIdentity(role, "AROAROLE", &api.Session{Role: role, Name: "a", Transitive: []string{"team"}, Tags: map[string]string{"team": "red"}, SourceIdentity: "eve"})
	long := strings.Replace(allow, `"ecs:*"`, `["`+strings.Repeat("ecs:RunTask\",\"", 150)+`ecs:*"]`, 1)
	for name, c := range map[string]struct {
		who  api.Identity
		in   *sts.AssumeRoleInput
		want string
	}{
		"root":          {root, ask(nil), "AccessDenied: Roles may not be assumed by root accounts."},
		"no such role":  {ana, ask(func(in *sts.AssumeRoleInput) { in.RoleArn = new(role + "x") }), "AccessDenied: User: " + ana.ARN + " is not authorized to perform: sts:AssumeRole on resource: " + role + "x"},
		"too long":      {ana, ask(func(in *sts.AssumeRoleInput) { in.DurationSeconds = new(int32(7201)) }), "ValidationError: The requested DurationSeconds exceeds the MaxSessionDuration set for this role."},
		"chained":       {chained, ask(func(in *sts.AssumeRoleInput) { in.DurationSeconds = new(int32(3601)) }), "ValidationError: The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining"},
		"no policy":     {ana, ask(func(in *sts.AssumeRoleInput) { in.Policy = new("{") }), "MalformedPolicyDocument: Syntax errors in policy."},
		"no such ARN":   {ana, ask(func(in *sts.AssumeRoleInput) { in.PolicyArns = []types.PolicyDescriptorType{{Arn: new(managed + "x")}} }), "MalformedPolicyDocument: The policy " + managed + "x does not exist or is not attachable."},
		"MFA":           {ana, ask(func(in *sts.AssumeRoleInput) { in.SerialNumber = new("arn:mfa") }), "AccessDenied: MultiFactorAuthentication failed, there are no MFA devices"},
		"not among":     {ana, ask(func(in *sts.AssumeRoleInput) { in.TransitiveTagKeys = []string{"a"} }), "InvalidParameterValue: The transitive tag key a is not among the session tags."},
		"transitive":    {chained, ask(func(in *sts.AssumeRoleInput) { in.Tags = []types.Tag{{Key: new("team"), Value: new("blue")}} }), "InvalidParameterValue: One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session."},
		"somebody else": {chained, ask(func(in *sts.AssumeRoleInput) { in.SourceIdentity = new("bob") }), "AccessDenied: The source identity of the calling session cannot be changed."},
		"large policy":  {ana, ask(func(in *sts.AssumeRoleInput) { in.Policy = &long }), "PackedPolicyTooLarge: "},
	} {
		s, _ := newService()
		if _, err := s.assumeRole(as(c.who), c.in); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: got %v\nwant %s", name, err, c.want)
		}
	}
}

func TestGetSessionToken(t *testing.T) {
	s, _ := newService()
	for _, c := range []struct {
		who   api.Identity
		asked *int32
		want  time.Duration
	}{{ana, nil, 12 * time.Hour}, {ana, new(int32(900)), 15 * time.Minute}, {root, nil, time.Hour}, {root, new(int32(36000)), time.Hour}} {
		out, err := s.getSessionToken(as(c.who), &sts.GetSessionTokenInput{DurationSeconds: c.asked})
		if err != nil || !out.Credentials.Expiration.Equal(now.Add(c.want)) {
			t.Errorf("%s: until %v, %v", c.who.ARN, out.Credentials.Expiration, err)
		}
	}
	with := ana
	with.Session = &api.Session{}
	if _, err := s.getSessionToken(as(with), &sts.GetSessionTokenInput{}); !awserr.Is(err, "AccessDenied") {
		t.Errorf("with session credentials: %v", err)
	}
}

func TestTaskCredentials(t *testing.T) {
	const task = "arn:aws:ecs:eu-west-1:" + account + ":task/default/0123"
	trust := func(service, condition string) string {
		return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"` + service + `"}` + condition + `}}`
	}
	for name, c := range map[string]struct {
		trust, account, role string
		ok                   bool
	}{
		"trusted":         {trust("ecs-tasks.amazonaws.com", ""), account, role, true},
		"another service": {trust("ec2.amazonaws.com", ""), account, role, false},
		"another account": {trust("ecs-tasks.amazonaws.com", ""), "222222222222", role, false},
		"another role":    {trust("ecs-tasks.amazonaws.com", ""), account, role + "x", false},
		"this task": {trust("ecs-tasks.amazonaws.com", `,"Condition":{"ArnLike":{"aws:SourceArn":"arn:aws:ecs:eu-west-1:`+account+`:*"},"StringEquals":{"aws:SourceAccount":"`+account+`"}}`),
			account, role, true},
		"other tasks": {trust("ecs-tasks.amazonaws.com", `,"Condition":{"ArnLike":{"aws:SourceArn":"arn:aws:ecs:us-east-1:`+account+`:*"}}`), account, role, false},
	} {
		s, d := newService()
		d.trust = c.trust
		cred, err := s.TaskCredentials(c.account, c.role, task)
		if (err == nil) != c.ok || !c.ok && !awserr.Is(err, "ClientException") {
			t.Errorf("%s: %v", name, err)
		}
		if c.ok && (cred.Identity.ARN != "arn:aws:sts::"+account+":assumed-role/deploy/0123" || cred.Identity.Session.Role != role || !cred.Expires.Equal(now.Add(6*time.Hour))) {
			t.Errorf("%s: %+v", name, cred)
		}
	}
}

// What the platform does on a task's behalf is authorized as the session that the role gives it.
func TestTaskMay(t *testing.T) {
	const task = "arn:aws:ecs:eu-west-1:" + account + ":task/default/0123"
	s, d := newService()
	d.trust = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"ecs-tasks.amazonaws.com"}}}`
	if err := s.TaskMay(t.Context(), role, task, "ecr:GetAuthorizationToken", "*"); err != nil {
		t.Error(err)
	}
	if want := account + " eu-west-1 arn:aws:sts::" + account + ":assumed-role/deploy/0123"; len(d.asked) != 1 || d.asked[0] != "ecr:GetAuthorizationToken" || d.caller != want {
		t.Errorf("asked for %v as %s, want %s", d.asked, d.caller, want)
	}
	if err := s.TaskMay(t.Context(), role+"x", task, "ecr:GetAuthorizationToken", "*"); !awserr.Is(err, "ClientException") || len(d.asked) != 1 {
		t.Errorf("by a role that is not there: %v", err)
	}
}
