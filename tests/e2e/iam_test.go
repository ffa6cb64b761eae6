package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestIAM makes a user, its key, a policy and a role with the AWS CLI, and uses all of them: denied, allowed, another role,
// a session of it, gone.
func TestIAM(t *testing.T) {
	t.Parallel()
	needsAWS(t)
	const other = "222222222222"
	p := startOn(t, "fake", "NEARGATE_ACCOUNTS="+other+":AKIAOTHERROOT00000000:other-secret")
	const (
		calling = "An error occurred (%s) when calling the %s operation: %s"
		user    = "arn:aws:iam::000000000000:user/team/ana"
		may     = "User: %s is not authorized to perform: %s on resource: %s because no identity-based policy allows the %[2]s action"
	)
	p.aws(nil, "iam", "create-user", "--user-name", "ana", "--path", "/team/", "--tags", "Key=team,Value=red")
	key := func(q *platform, name string) *platform {
		id, secret, _ := strings.Cut(q.text("AccessKey.[AccessKeyId,SecretAccessKey]", "iam", "create-access-key", "--user-name", name), "\t")
		return q.as("us-east-1", id, secret)
	}
	ana := key(p, "ana")
	if got := ana.text("Arn", "sts", "get-caller-identity"); got != user {
		t.Errorf("she is %s", got)
	}
	ana.refused(fmt.Sprintf(calling, "AccessDeniedException", "CreateCluster", fmt.Sprintf(may, user, "ecs:CreateCluster", "arn:aws:ecs:us-east-1:000000000000:cluster/hers")), "ecs", "create-cluster", "--cluster-name", "hers")
	ana.refused(fmt.Sprintf(calling, "AccessDenied", "CreateUser", fmt.Sprintf(may, user, "iam:CreateUser", "arn:aws:iam::000000000000:user/eve")), "iam", "create-user", "--user-name", "eve")

	policy := `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"ecs:*Cluster*","Resource":["*"],"Condition":{"StringEquals":{"aws:PrincipalTag/team":"red"}}},
		{"Effect":"Deny","Action":"ecs:DeleteCluster","Resource":"arn:aws:ecs:*:*:cluster/prod*"}]}`
	arn := p.text("Policy.Arn", "iam", "create-policy", "--policy-name", "clusters", "--policy-document", policy)
	p.aws(nil, "iam", "create-group", "--group-name", "operators")
	p.aws(nil, "iam", "attach-group-policy", "--group-name", "operators", "--policy-arn", arn)
	p.aws(nil, "iam", "add-user-to-group", "--group-name", "operators", "--user-name", "ana")
	for _, name := range []string{"hers", "production"} {
		ana.aws(nil, "ecs", "create-cluster", "--cluster-name", name)
	}
	ana.aws(nil, "ecs", "delete-cluster", "--cluster", "hers")
	ana.refused(fmt.Sprintf(calling, "AccessDeniedException", "DeleteCluster", "User: "+user+" is not authorized to perform: ecs:DeleteCluster "+
		"on resource: arn:aws:ecs:us-east-1:000000000000:cluster/production with an explicit deny in an identity-based policy"), "ecs", "delete-cluster", "--cluster", "production")
	// The CLI decodes documents: they come back as they went in.
	if got := p.text("PolicyVersion.Document.Statement[1].Effect", "iam", "get-policy-version", "--policy-arn", arn, "--version-id", "v1"); got != "Deny" {
		t.Errorf("the document reads %q", got)
	}
	if got := p.text("EvaluationResults[].EvalDecision", "iam", "simulate-principal-policy", "--policy-source-arn", user, "--action-names", "ecs:CreateCluster", "iam:CreateUser",
		"--context-entries", "ContextKeyName=aws:PrincipalTag/team,ContextKeyValues=red,ContextKeyType=string"); got != "allowed\timplicitDeny" {
		t.Errorf("simulated %q", got)
	}

	// A role of the first account, whom the other account's user is let assume by both.
	q := p.as("us-east-1", "AKIAOTHERROOT00000000", "other-secret")
	q.aws(nil, "iam", "create-user", "--user-name", "bob")
	bob := key(q, "bob")
	role := p.text("Role.Arn", "iam", "create-role", "--role-name", "visitor", "--assume-role-policy-document",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::`+other+`:root"},"Action":"sts:AssumeRole"}}`)
	p.aws(nil, "iam", "attach-role-policy", "--role-name", "visitor", "--policy-arn", "arn:aws:iam::aws:policy/AmazonECS_FullAccess")
	assume := []string{"sts", "assume-role", "--role-arn", role, "--role-session-name", "tour"}
	bob.refused(fmt.Sprintf(calling, "AccessDenied", "AssumeRole", "User: arn:aws:iam::"+other+":user/bob is not authorized to perform: sts:AssumeRole on resource: "+role), assume...)
	q.aws(nil, "iam", "put-user-policy", "--user-name", "bob", "--policy-name", "visit", "--policy-document",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"`+role+`"}}`)
	got := strings.Split(bob.text("Credentials.[AccessKeyId,SecretAccessKey,SessionToken]", assume...), "\t")
	if len(got) != 3 || !strings.HasPrefix(got[0], "ASIA") {
		t.Fatalf("credentials %q", got)
	}
	visitor := p.as("us-east-1", got[0], got[1])
	visitor.extra = append(visitor.extra, "AWS_SESSION_TOKEN="+got[2])
	if got := visitor.text("Arn", "sts", "get-caller-identity"); got != "arn:aws:sts::000000000000:assumed-role/visitor/tour" {
		t.Errorf("the visitor is %s", got)
	}
	if got := visitor.text("clusterArns", "ecs", "list-clusters"); !strings.Contains(got, "cluster/production") {
		t.Errorf("the visitor sees %s", got)
	}
	// State and sessions are there after a restart.
	p.stop()
	p.run("NEARGATE_ACCOUNTS=" + other + ":AKIAOTHERROOT00000000:other-secret")
	for _, c := range []*platform{ana, bob, visitor, q} {
		c.endpoint, c.listen, c.cmd, c.done, c.out = p.endpoint, p.listen, p.cmd, p.done, p.out
	}
	visitor.aws(nil, "ecs", "list-clusters")
	ana.aws(nil, "ecs", "list-clusters")

	p.aws(nil, "iam", "detach-role-policy", "--role-name", "visitor", "--policy-arn", "arn:aws:iam::aws:policy/AmazonECS_FullAccess")
	visitor.refused(fmt.Sprintf(calling, "AccessDeniedException", "ListClusters", fmt.Sprintf(may, "arn:aws:sts::000000000000:assumed-role/visitor/tour", "ecs:ListClusters", "*")), "ecs", "list-clusters")
	p.aws(nil, "iam", "delete-role", "--role-name", "visitor")
	visitor.refused(fmt.Sprintf(calling, "UnrecognizedClientException", "ListClusters", "The security token included in the request is invalid."), "ecs", "list-clusters")
	p.refused(fmt.Sprintf(calling, "DeleteConflict", "DeletePolicy", "Cannot delete a policy attached to entities."), "iam", "delete-policy", "--policy-arn", arn)
}

// TestIAMWithBoto3: testdata/boto3_iam.py says what it wants.
func TestIAMWithBoto3(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3 on this machine")
	}
	if out, err := exec.Command(python, "-c", "import boto3").CombinedOutput(); err != nil {
		t.Skipf("python3 has no boto3 (Debian: apt-get install python3-boto3): %s", out)
	}
	p := startOn(t, "fake")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "testdata/boto3_iam.py", p.endpoint)
	cmd.Env = p.environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
