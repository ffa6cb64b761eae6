package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	ecstypes "github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/seed-2f228079/neargate/internal/sdkhttp"
)

// principal is somebody who calls a control plane with the Go SDK.
type principal struct {
	t    *testing.T
	ctx  context.Context
	url  string
	cred aws.Credentials
	iam  *iam.Client
	sts  *sts.Client
	ecs  *ecs.Client
	ecr  *ecr.Client
	elb  *elb.Client
	ec2  *ec2.Client
	sd   *servicediscovery.Client
}

func newPrincipal(t *testing.T, url, id, secret, token string) *principal {
	cred := aws.Credentials{AccessKeyID: id, SecretAccessKey: secret, SessionToken: token}
	cfg := aws.Config{Region: "us-east-1", BaseEndpoint: &url, HTTPClient: sdkhttp.New(nil), RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return cred, nil })}
	return &principal{t, t.Context(), url, cred, iam.NewFromConfig(cfg), sts.NewFromConfig(cfg), ecs.NewFromConfig(cfg), ecr.NewFromConfig(cfg), elb.NewFromConfig(cfg),
		ec2.NewFromConfig(cfg), servicediscovery.NewFromConfig(cfg)}
}

// newUser makes a user with one inline policy, and an access key.
func (root *principal) newUser(name, policy string) *principal {
	root.t.Helper()
	ok(root.iam.CreateUser(root.ctx, &iam.CreateUserInput{UserName: &name}))(root.t)
	root.policy(name, policy)
	k := ok(root.iam.CreateAccessKey(root.ctx, &iam.CreateAccessKeyInput{UserName: &name}))(root.t).AccessKey
	return newPrincipal(root.t, root.url, *k.AccessKeyId, *k.SecretAccessKey, "")
}

// policy gives a user its one policy.
func (root *principal) policy(name, statements string) {
	root.t.Helper()
	ok(root.iam.PutUserPolicy(root.ctx, &iam.PutUserPolicyInput{UserName: &name, PolicyName: new("p"), PolicyDocument: new(document(statements))}))(root.t)
}

func document(statements string) string {
	return `{"Version":"2012-10-17","Statement":[` + statements + `]}`
}

func ok[O any](out O, err error) func(*testing.T) O {
	return func(t *testing.T) O {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// denied wants a refusal with this code, whose message has this part.
func denied(t *testing.T, code, part string, err error) {
	t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != code || !strings.Contains(e.ErrorMessage(), part) {
		t.Errorf("got %v\nwant %s: …%s…", err, code, part)
	}
}

// TestEnforcement has a user try every protocol, without and with permission.
func TestEnforcement(t *testing.T) {
	_, url := startControlPlane(t)
	root := newPrincipal(t, url, "test", "test", "")
	ctx := t.Context()
	ok(root.ecs.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("prod")}))(t)
	ana := root.newUser("ana", `{"Effect":"Deny","Action":"none:none","Resource":"*"}`)
	me := ok(ana.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}))(t) // which needs no permission
	const arn = "arn:aws:iam::000000000000:user/ana"
	if *me.Arn != arn || *me.Account != "000000000000" || !strings.HasPrefix(*me.UserId, "AIDA") {
		t.Errorf("she is %s, %s", *me.Arn, *me.UserId)
	}
	for name, c := range map[string]struct {
		action, resource, code string
		call                   func(*principal) error
	}{
		"JSON": {"ecs:ListClusters", " on resource: *", "AccessDeniedException", func(p *principal) error {
			_, err := p.ecs.ListClusters(ctx, &ecs.ListClustersInput{})
			return err
		}},
		"resource": {"ecs:DescribeClusters", " on resource: arn:aws:ecs:us-east-1:000000000000:cluster/prod", "AccessDeniedException", func(p *principal) error {
			_, err := p.ecs.DescribeClusters(ctx, &ecs.DescribeClustersInput{Clusters: []string{"prod"}})
			return err
		}},
		"query": {"elasticloadbalancing:DescribeLoadBalancers", "", "AccessDenied", func(p *principal) error {
			_, err := p.elb.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{})
			return err
		}},
		"iam": {"iam:ListUsers", " on resource: arn:aws:iam::000000000000:user/", "AccessDenied", func(p *principal) error {
			_, err := p.iam.ListUsers(ctx, &iam.ListUsersInput{})
			return err
		}},
		"ec2": {"ec2:DescribeVpcs", "", "UnauthorizedOperation", func(p *principal) error {
			_, err := p.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{})
			return err
		}},
		"ecr": {"ecr:CreateRepository", " on resource: arn:aws:ecr:us-east-1:000000000000:repository/web", "AccessDeniedException", func(p *principal) error {
			_, err := p.ecr.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: new("web")})
			return err
		}},
		"cloud map": {"servicediscovery:ListNamespaces", " on resource: *", "AccessDeniedException", func(p *principal) error {
			_, err := p.sd.ListNamespaces(ctx, &servicediscovery.ListNamespacesInput{})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			who := root.newUser("user-"+strings.ReplaceAll(name, " ", ""), `{"Effect":"Deny","Action":"none:none","Resource":"*"}`)
			user := strings.Replace(arn, "ana", "user-"+strings.ReplaceAll(name, " ", ""), 1)
			denied(t, c.code, "User: "+user+" is not authorized to perform: "+c.action+c.resource+" because no identity-based policy allows the "+c.action+" action", c.call(who))
			root.policy("user-"+strings.ReplaceAll(name, " ", ""), `{"Effect":"Allow","Action":"`+c.action+`","Resource":"*"}`)
			if err := c.call(who); err != nil {
				t.Errorf("with permission: %v", err)
			}
		})
	}
	// The REST API, its resources included.
	get := func(path string) (int, string) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/api/v1"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.SetBasicAuth(ana.cred.AccessKeyID, ana.cred.SecretAccessKey)
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		b, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return a.StatusCode, string(b)
	}
	const placement = "/clusters/prod/tasks/0123/placement"
	for path, want := range map[string]struct {
		status int // the service's own: ECS answers 400 to everything that is the client's fault
		action string
	}{"/clusters": {400, "ecs:ListClusters"}, placement: {403, "neargate:ExplainTask"}} {
		if status, body := get(path); status != want.status || !strings.Contains(body, "is not authorized to perform: "+want.action) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	root.policy("ana", `{"Effect":"Allow","Action":["ecs:ListClusters","neargate:ExplainTask"],"Resource":"*"}`)
	if status, body := get("/clusters"); status != 200 {
		t.Errorf("with permission: %d %s", status, body)
	}
	if status, body := get(placement); status != 400 { // there is no such task
		t.Errorf("with permission: %d %s", status, body)
	}
	// The key goes, and with it everything.
	ok(root.iam.UpdateAccessKey(ctx, &iam.UpdateAccessKeyInput{UserName: new("ana"), AccessKeyId: &ana.cred.AccessKeyID, Status: "Inactive"}))(t)
	_, err := ana.ecs.ListClusters(ctx, &ecs.ListClustersInput{})
	denied(t, "UnrecognizedClientException", "The security token included in the request is invalid.", err)
}

// TestConditionsOfECS: clusters, tags, and revisions that a policy may name.
func TestConditionsOfECS(t *testing.T) {
	_, url := startControlPlane(t)
	root := newPrincipal(t, url, "test", "test", "")
	ctx := t.Context()
	for name, stage := range map[string]string{"prod": "prod", "test": "test"} {
		ok(root.ecs.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: &name, Tags: []ecstypes.Tag{{Key: new("stage"), Value: &stage}}}))(t)
	}
	for range 2 {
		ok(root.ecs.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("web"), ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: new("m"), Image: new("i"), Memory: new(int32(8))}}}))(t)
	}
	ana := root.newUser("ana", `{"Effect":"Allow","Action":"ecs:ListTasks","Resource":"*","Condition":{"ArnEquals":{"ecs:cluster":"arn:aws:ecs:*:*:cluster/test"}}},
		{"Effect":"Allow","Action":"ecs:DescribeClusters","Resource":"*","Condition":{"StringEquals":{"ecs:ResourceTag/stage":"test"}}},
		{"Effect":"Allow","Action":"ecs:TagResource","Resource":"arn:aws:ecs:*:*:cluster/h*","Condition":{"StringEquals":{"ecs:CreateAction":"CreateCluster"}}},
		{"Effect":"Allow","Action":"ecs:CreateCluster","Resource":"*","Condition":{"StringEquals":{"aws:RequestTag/stage":"${aws:username}"},"ForAllValues:StringEquals":{"aws:TagKeys":"stage"}}},
		{"Effect":"Allow","Action":"ecs:CreateService","Resource":"arn:aws:ecs:*:*:service/test/*","Condition":{"ArnLike":{"ecs:task-definition":"arn:aws:ecs:*:*:task-definition/web:1"}}},
		{"Effect":"Allow","Action":"ecs:RunTask","Resource":"arn:aws:ecs:*:*:task-definition/web:1"}`)
	list := func(cluster string) error {
		_, err := ana.ecs.ListTasks(ctx, &ecs.ListTasksInput{Cluster: &cluster})
		return err
	}
	if err := list("test"); err != nil {
		t.Errorf("her cluster: %v", err)
	}
	denied(t, "AccessDeniedException", "ecs:ListTasks on resource: *", list("prod"))
	describe := func(clusters ...string) error {
		_, err := ana.ecs.DescribeClusters(ctx, &ecs.DescribeClustersInput{Clusters: clusters})
		return err
	}
	if err := describe("test"); err != nil {
		t.Errorf("by tag: %v", err)
	}
	denied(t, "AccessDeniedException", "cluster/prod", describe("test", "prod"))
	create := func(name string, tags ...string) error {
		in := &ecs.CreateClusterInput{ClusterName: &name}
		for _, k := range tags {
			in.Tags = append(in.Tags, ecstypes.Tag{Key: &k, Value: new("ana")})
		}
		_, err := ana.ecs.CreateCluster(ctx, in)
		return err
	}
	if err := create("hers", "stage"); err != nil {
		t.Errorf("with the right tag: %v", err)
	}
	denied(t, "AccessDeniedException", "ecs:CreateCluster", create("more", "stage", "extra"))
	denied(t, "AccessDeniedException", "ecs:CreateCluster", create("more"))
	denied(t, "AccessDeniedException", "ecs:TagResource on resource: arn:aws:ecs:us-east-1:000000000000:cluster/more because", create("more", "stage"))
	// "web" is web:2 now, which she may not run.
	_, err := ana.ecs.RunTask(ctx, &ecs.RunTaskInput{Cluster: new("test"), TaskDefinition: new("web")})
	denied(t, "AccessDeniedException", "ecs:RunTask on resource: arn:aws:ecs:us-east-1:000000000000:task-definition/web:2 because", err)
	_, err = ana.ecs.RunTask(ctx, &ecs.RunTaskInput{Cluster: new("test"), TaskDefinition: new("web:1")})
	denied(t, "InvalidParameterException", "No Container Instances were found in your cluster.", err)
	service := func(definition string) error {
		_, err := ana.ecs.CreateService(ctx, &ecs.CreateServiceInput{Cluster: new("test"), ServiceName: new("s"), TaskDefinition: &definition, DesiredCount: new(int32(0))})
		return err
	}
	denied(t, "AccessDeniedException", "ecs:CreateService on resource: arn:aws:ecs:us-east-1:000000000000:service/test/s", service("web:2"))
	if err := service("web:1"); err != nil {
		t.Errorf("the revision she may: %v", err)
	}
}

// TestPassRole: who may register task definitions may not thereby use any role.
func TestPassRole(t *testing.T) {
	_, url := startControlPlane(t)
	root := newPrincipal(t, url, "test", "test", "")
	ctx := t.Context()
	ok(root.ecs.CreateCluster(ctx, &ecs.CreateClusterInput{}))(t)
	ana := root.newUser("ana", `{"Effect":"Allow","Action":"ecs:*","Resource":"*"}`)
	register := func(p *principal, role string) error {
		_, err := p.ecs.RegisterTaskDefinition(ctx, &ecs.RegisterTaskDefinitionInput{Family: new("f"), ExecutionRoleArn: &role,
			ContainerDefinitions: []ecstypes.ContainerDefinition{{Name: new("m"), Image: new("i"), Memory: new(int32(8))}}})
		return err
	}
	const role = "arn:aws:iam::000000000000:role/execution"
	message := "User: arn:aws:iam::000000000000:user/ana is not authorized to perform: iam:PassRole on resource: " + role + " because no identity-based policy allows the iam:PassRole action"
	denied(t, "AccessDeniedException", message, register(ana, role))
	denied(t, "AccessDeniedException", message, register(ana, "execution"))
	if err := register(root, role); err != nil {
		t.Errorf("root: %v", err)
	}
	denied(t, "AccessDeniedException", "Cross-account pass role is not allowed.", register(root, "arn:aws:iam::222222222222:role/x"))
	run := func() error {
		_, err := ana.ecs.RunTask(ctx, &ecs.RunTaskInput{TaskDefinition: new("f")})
		return err
	}
	denied(t, "AccessDeniedException", message, run())
	serve := func() error {
		_, err := ana.ecs.CreateService(ctx, &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new("f"), DesiredCount: new(int32(0))})
		return err
	}
	denied(t, "AccessDeniedException", message, serve())
	ok(root.ecs.CreateService(ctx, &ecs.CreateServiceInput{ServiceName: new("s"), TaskDefinition: new("f"), DesiredCount: new(int32(0))}))(t)
	update := &ecs.UpdateServiceInput{Service: new("s"), TaskDefinition: new("f")}
	_, err := ana.ecs.UpdateService(ctx, update)
	denied(t, "AccessDeniedException", message, err)
	ok(ana.ecs.UpdateService(ctx, &ecs.UpdateServiceInput{Service: new("s"), DesiredCount: new(int32(0))}))(t) // as on AWS: no role is given
	root.policy("ana", `{"Effect":"Allow","Action":"ecs:*","Resource":"*"},
		{"Effect":"Allow","Action":"iam:PassRole","Resource":"`+role+`","Condition":{"StringEquals":{"iam:PassedToService":"ecs-tasks.amazonaws.com"}}}`)
	if err := register(ana, role); err != nil {
		t.Errorf("with permission: %v", err)
	}
	ok(ana.ecs.UpdateService(ctx, update))(t)
	// The right to pass a role does not make it one that tasks can have.
	denied(t, "ClientException", "ECS was unable to assume the role '"+role+"' that was provided for this task.", run())
	ok(root.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("execution"),
		AssumeRolePolicyDocument: new(document(`{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"ecs-tasks.amazonaws.com"}}`))}))(t)
	denied(t, "InvalidParameterException", "No Container Instances were found in your cluster.", run())
}

// TestRoles: assuming them, within an account and from another, and what ends a session.
func TestRoles(t *testing.T) {
	_, url := startControlPlane(t)
	root := newPrincipal(t, url, "test", "test", "")
	ctx := t.Context()
	ana := root.newUser("ana", `{"Effect":"Allow","Action":"ecs:ListClusters","Resource":"*"}`)
	const arn = "arn:aws:iam::000000000000:user/ana"
	trust := func(principal, condition string) string {
		return document(`{"Effect":"Allow","Action":["sts:AssumeRole","sts:TagSession"],"Principal":{"AWS":"` + principal + `"}` + condition + `}`)
	}
	r := ok(root.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: new("deploy"), Path: new("/ci/"), AssumeRolePolicyDocument: new(trust("arn:aws:iam::000000000000:root", ""))}))(t).Role
	ok(root.iam.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: new("deploy"), PolicyArn: new("arn:aws:iam::aws:policy/PowerUserAccess")}))(t)
	assume := func(p *principal, more func(*sts.AssumeRoleInput)) (*principal, error) {
		in := &sts.AssumeRoleInput{RoleArn: r.Arn, RoleSessionName: new("build")}
		if more != nil {
			more(in)
		}
		out, err := p.sts.AssumeRole(ctx, in)
		if err != nil {
			return nil, err
		}
		return newPrincipal(t, url, *out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken), nil
	}
	refusal := "User: " + arn + " is not authorized to perform: sts:AssumeRole on resource: " + *r.Arn
	_, err := assume(root, nil)
	denied(t, "AccessDenied", "Roles may not be assumed by root accounts.", err)
	_, err = assume(ana, nil) // the account is trusted, which has not let her
	denied(t, "AccessDenied", refusal, err)
	setTrust := func(doc string) {
		t.Helper()
		ok(root.iam.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: new("deploy"), PolicyDocument: &doc}))(t)
	}
	setTrust(trust(arn, `,"Condition":{"StringEquals":{"sts:ExternalId":"x-1"}}`))
	_, err = assume(ana, nil)
	denied(t, "AccessDenied", refusal, err)
	session, err := assume(ana, func(in *sts.AssumeRoleInput) { in.ExternalId = new("x-1") })
	if err != nil {
		t.Fatal(err)
	}
	me := ok(session.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}))(t)
	if *me.Arn != "arn:aws:sts::000000000000:assumed-role/deploy/build" || *me.UserId != *r.RoleId+":build" {
		t.Errorf("the session is %s, %s", *me.Arn, *me.UserId)
	}
	ok(session.ecs.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("made-by-role")}))(t)
	_, err = session.iam.ListUsers(ctx, &iam.ListUsersInput{})
	denied(t, "AccessDenied", "User: arn:aws:sts::000000000000:assumed-role/deploy/build is not authorized to perform: iam:ListUsers on resource: arn:aws:iam::000000000000:user/ because no identity-based policy allows the iam:ListUsers action", err)
	// A session policy takes away.
	limited, err := assume(ana, func(in *sts.AssumeRoleInput) {
		in.ExternalId, in.Policy = new("x-1"), new(document(`{"Effect":"Allow","Action":"ecs:List*","Resource":"*"}`))
	})
	if err != nil {
		t.Fatal(err)
	}
	ok(limited.ecs.ListClusters(ctx, &ecs.ListClustersInput{}))(t)
	_, err = limited.ecs.CreateCluster(ctx, &ecs.CreateClusterInput{ClusterName: new("no")})
	denied(t, "AccessDeniedException", "because no session policy allows the ecs:CreateCluster action", err)
	// Without its token a session's key is nobody's.
	_, err = newPrincipal(t, url, session.cred.AccessKeyID, session.cred.SecretAccessKey, "").ecs.ListClusters(ctx, &ecs.ListClustersInput{})
	denied(t, "UnrecognizedClientException", "invalid", err)
	_, err = newPrincipal(t, url, session.cred.AccessKeyID, session.cred.SecretAccessKey, limited.cred.SessionToken).ecs.ListClusters(ctx, &ecs.ListClustersInput{})
	denied(t, "UnrecognizedClientException", "invalid", err)
	// Older sessions are revoked as the console of AWS does it.
	ok(root.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: new("deploy"), PolicyName: new("AWSRevokeOlderSessions"), PolicyDocument: new(document(
		`{"Effect":"Deny","Action":["*"],"Resource":["*"],"Condition":{"DateLessThan":{"aws:TokenIssueTime":"2100-01-01T00:00:00.000Z"}}}`))}))(t)
	_, err = session.ecs.ListClusters(ctx, &ecs.ListClustersInput{})
	denied(t, "AccessDeniedException", "with an explicit deny in an identity-based policy", err)
	// GetSessionToken: the user herself, for a while.
	token := ok(ana.sts.GetSessionToken(ctx, &sts.GetSessionTokenInput{}))(t).Credentials
	again := newPrincipal(t, url, *token.AccessKeyId, *token.SecretAccessKey, *token.SessionToken)
	if me := ok(again.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}))(t); *me.Arn != arn {
		t.Errorf("her session is %s", *me.Arn)
	}
	ok(again.ecs.ListClusters(ctx, &ecs.ListClustersInput{}))(t)
	if info := ok(root.sts.GetAccessKeyInfo(ctx, &sts.GetAccessKeyInfoInput{AccessKeyId: token.AccessKeyId}))(t); *info.Account != "000000000000" {
		t.Errorf("the key is of %s", *info.Account)
	}
	// With the role the sessions end.
	ok(root.iam.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: new("deploy"), PolicyName: new("AWSRevokeOlderSessions")}))(t)
	ok(root.iam.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: new("deploy"), PolicyArn: new("arn:aws:iam::aws:policy/PowerUserAccess")}))(t)
	ok(root.iam.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: new("deploy")}))(t)
	_, err = session.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	denied(t, "InvalidClientTokenId", "The security token included in the request is invalid.", err)
}

// TestRegistryRights: what docker does stands for ECR's actions.
func TestRegistryRights(t *testing.T) {
	_, url := startControlPlane(t)
	root := newPrincipal(t, url, "test", "test", "")
	ctx := t.Context()
	for _, name := range []string{"web", "secret"} {
		ok(root.ecr.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &name}))(t)
	}
	const pull = `"ecr:BatchGetImage","ecr:GetDownloadUrlForLayer"`
	const push = `"ecr:BatchCheckLayerAvailability","ecr:InitiateLayerUpload","ecr:UploadLayerPart","ecr:CompleteLayerUpload","ecr:PutImage"`
	on := func(actions string) string {
		return `{"Effect":"Allow","Action":"ecr:GetAuthorizationToken","Resource":"*"},{"Effect":"Allow","Action":[` + actions + `],"Resource":"arn:aws:ecr:*:*:repository/web"}`
	}
	ana := root.newUser("ana", on(pull))
	token := *ok(ana.ecr.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{}))(t).AuthorizationData[0].AuthorizationToken
	ask := func(method, path, body string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Basic "+token)
		if strings.Contains(path, "/manifests/") {
			r.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		}
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		b, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return a.StatusCode, string(b)
	}
	const digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" // of {}
	manifest := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` + digest + `","size":2},"layers":[]}`
	want := func(what string, status int, part, method, path, body string) {
		t.Helper()
		if got, text := ask(method, path, body); got != status || !strings.Contains(text, part) {
			t.Errorf("%s: %s %s: %d %s\nwant %d …%s…", what, method, path, got, text, status, part)
		}
	}
	no := func(action, repository string) string {
		return "User: arn:aws:iam::000000000000:user/ana is not authorized to perform: ecr:" + action + " on resource: arn:aws:ecr:us-east-1:000000000000:repository/" + repository +
			" because no identity-based policy allows the ecr:" + action + " action"
	}
	want("logged in", 200, "", "GET", "/v2/", "")
	want("a reader pushes", 403, no("InitiateLayerUpload", "web"), "POST", "/v2/web/blobs/uploads/", "")
	want("a reader pushes", 403, no("PutImage", "web"), "PUT", "/v2/web/manifests/1", manifest)
	want("a reader lists", 403, no("ListImages", "web"), "GET", "/v2/web/tags/list", "")
	want("a reader lists all", 403, no("DescribeRepositories", "*"), "GET", "/v2/_catalog", "")
	want("elsewhere", 403, no("BatchGetImage", "secret"), "GET", "/v2/secret/manifests/1", "")
	want("nothing there yet", 404, "", "GET", "/v2/web/manifests/1", "")
	// The same token pushes as soon as its owner may.
	root.policy("ana", on(pull+","+push))
	want("a writer pushes", 201, "", "POST", "/v2/web/blobs/uploads/?digest="+digest, "{}")
	want("a writer pushes", 201, "", "PUT", "/v2/web/manifests/1", manifest)
	want("a writer pulls", 200, "schemaVersion", "GET", "/v2/web/manifests/1", "")
	want("a writer deletes", 403, no("BatchDeleteImage", "web"), "DELETE", "/v2/web/manifests/1", "")
	want("mounting without the right to read uploads", 403, no("InitiateLayerUpload", "secret"), "POST", "/v2/secret/blobs/uploads/?mount="+digest+"&from=web", "")
	// And ends with its owner.
	ok(root.iam.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: new("ana"), AccessKeyId: &ana.cred.AccessKeyID}))(t)
	ok(root.iam.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: new("ana"), PolicyName: new("p")}))(t)
	ok(root.iam.DeleteUser(ctx, &iam.DeleteUserInput{UserName: new("ana")}))(t)
	want("nobody", 403, "The security token included in the request is invalid.", "GET", "/v2/web/manifests/1", "")
}
