package registry_test

import (
	"cmp"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/auth"
	iampolicy "github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/registry"
	"github.com/seed-2f228079/neargate/storage/blob"
)

const (
	stranger = "111111111111" // another account
	abroad   = account + ".dkr.ecr." + region + ".localhost"
)

// people are users by unique id, with what their own policy allows.
type people map[string]string

func (p people) Policies(who *api.Identity) (*iampolicy.Policies, bool) {
	text, ok := p[who.UserID]
	if !ok {
		return nil, false
	}
	parsed, err := iampolicy.Parse(iampolicy.Identity, policyOf(text))
	if err != nil {
		panic(err)
	}
	return &iampolicy.Policies{Identity: []*iampolicy.Policy{parsed}}, true
}

func (people) Tags(*api.Identity) map[string]string { return nil }

// guarded is a registry whose callers are held against policies. Ana and Bob are the account's, Eve and Zoe another's; Ana and Eve may
// everything by themselves, Bob and Zoe nothing. They log in by their names, with any password.
func guarded(t *testing.T) *bench {
	t.Helper()
	var b *bench
	ids, known, everybody := map[string]string{}, people{}, map[string]api.Identity{"root": rootOf(account)}
	user := func(name, account, policy string) {
		id := userOf(account, name)
		ids[id.ARN], known[id.UserID], everybody[name] = id.UserID, policy, id
	}
	const all, nothing = `{"Effect":"Allow","Action":"ecr:*","Resource":"*"}`, `{"Effect":"Deny","Action":"none:none","Resource":"*"}`
	user("ana", account, all)
	user("bob", account, nothing)
	user("eve", stranger, all)
	user("zoe", stranger, nothing)
	access := &auth.IAM{Principals: known, Recovery: registry.Recovery, Resource: func(action, arn string) (*iampolicy.Policy, bool) {
		return b.reg.ResourcePolicy(action, arn), false
	}}
	b = newBench(t, func(c *registry.Config) {
		c.Authorizer, c.Weigh, c.Domain = access, access.Weigh, "localhost"
		c.Principals = func(_ state.Reader, arn string) (string, bool) { id, ok := ids[arn]; return id, ok }
		c.Credentials = func(_ context.Context, name, _ string) (api.Identity, bool) { id, ok := everybody[name]; return id, ok }
	})
	return b
}

func userOf(account, name string) api.Identity {
	return api.Identity{Account: account, ARN: "arn:aws:iam::" + account + ":user/" + name, UserID: "AIDA" + strings.ToUpper(name)}
}

func rootOf(account string) api.Identity {
	return api.Identity{Account: account, ARN: "arn:aws:iam::" + account + ":root", UserID: account, Root: true}
}

func policyOf(statements string) string {
	return `{"Version":"2012-10-17","Statement":[` + statements + `]}`
}

func (b *bench) setPolicy(repo, statements string) {
	b.t.Helper()
	must[ecr.SetRepositoryPolicyOutput](b, &ecr.SetRepositoryPolicyInput{RepositoryName: &repo, PolicyText: new(policyOf(statements))})
}

func (b *bench) setRegistryPolicy(statements string) {
	b.t.Helper()
	must[ecr.PutRegistryPolicyOutput](b, &ecr.PutRegistryPolicyInput{PolicyText: new(policyOf(statements))})
}

// TestRepositoryPolicies are the rules of "Policy evaluation logic" for one account and for two, over the distribution protocol.
func TestRepositoryPolicies(t *testing.T) {
	reader := func(who string) string {
		return `{"Effect":"Allow","Principal":{"AWS":"` + who + `"},"Action":["ecr:BatchGetImage","ecr:GetDownloadUrlForLayer"]}`
	}
	type refusals map[string]string
	const identity, resource, explicit = "because no identity-based policy", "because no resource-based policy", "with an explicit deny in a resource-based policy"
	others := refusals{"bob": identity, "eve": resource, "zoe": identity} // who may nothing without a policy
	for name, tc := range map[string]struct {
		repository, registry string   // statements
		pull, push           refusals // of those who are not let
	}{
		"none": {"", "", others, others},
		"the user of the account is named": {
			reader("arn:aws:iam::" + account + ":user/bob"), "",
			refusals{"eve": resource, "zoe": identity}, others,
		},
		"the other account is named": { // and gives it on
			reader("arn:aws:iam::" + stranger + ":root"), "",
			refusals{"bob": identity, "zoe": identity}, others,
		},
		"a user of the other account is named": { // who needs his own account's leave as well
			reader("arn:aws:iam::" + stranger + ":user/zoe"), "",
			others, others,
		},
		"everybody is named": {
			reader("*"), "",
			refusals{"zoe": identity}, others,
		},
		"a denial binds everybody": {
			`{"Effect":"Deny","Principal":"*","Action":"ecr:BatchGet*"}`, "",
			refusals{"ana": explicit, "bob": explicit, "eve": explicit, "zoe": explicit, "root": explicit}, others,
		},
		"the registry lets a whole account push": {
			"", `{"Effect":"Allow","Principal":{"AWS":"` + stranger + `"},"Action":"ecr:*","Resource":"arn:aws:ecr:` + region + `:` + account + `:repository/w*"}`,
			refusals{"bob": identity, "zoe": identity}, refusals{"bob": identity, "zoe": identity},
		},
		"of both a denial counts": {
			reader("*"), `{"Effect":"Deny","Principal":{"AWS":"arn:aws:iam::` + stranger + `:user/eve"},"Action":"*","Resource":"*"}`,
			refusals{"eve": explicit, "zoe": identity}, refusals{"bob": identity, "eve": explicit, "zoe": identity},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := guarded(t)
			b.create("web", "other")
			b.pushImage("web", "v1", "x")
			if tc.repository != "" {
				b.setPolicy("web", tc.repository)
			}
			if tc.registry != "" {
				b.setRegistryPolicy(tc.registry)
			}
			for what, refused := range map[[2]string]refusals{{"GET", "/v2/web/manifests/v1"}: tc.pull, {"POST", "/v2/web/blobs/uploads/"}: tc.push} {
				for _, who := range []string{"ana", "bob", "eve", "zoe", "root"} {
					a := b.do(what[0], what[1], nil, host(abroad), basic(who, ""))
					why := refused[who]
					if (a.StatusCode < 300) != (why == "") || !strings.Contains(a.body, why) || why != "" && a.code() != "DENIED" {
						t.Errorf("%v by %s: %s: %s; want %s", what, who, a.Status, a.body, cmp.Or(why, "success"))
					}
				}
			}
			if a := b.do("GET", "/v2/other/tags/list", nil, host(abroad), basic("zoe", "")); a.StatusCode != 403 {
				t.Errorf("another repository: %s", a.Status)
			}
		})
	}
}

// TestCrossAccountPush pushes and pulls whole images in another account's registry with the token of GetAuthorizationToken, and
// makes a repository there by a template where the registry policy lets it.
func TestCrossAccountPush(t *testing.T) {
	b := guarded(t)
	home := host(abroad + ":4566")
	b.create("shared/app")
	b.setPolicy("shared/app", `{"Effect":"Allow","Principal":{"AWS":"`+stranger+`"},"Action":"ecr:*"}`)
	b.createTemplate("made", "m", "CREATE_ON_PUSH")
	b.token = b.login(stranger, region)
	push := func(repo string) answer {
		b.t.Helper()
		var digests []blob.Digest
		for _, content := range []string{"{}", "layer"} {
			digests = append(digests, blob.Sum([]byte(content)))
			if a := b.do("POST", "/v2/"+repo+"/blobs/uploads/?digest="+string(blob.Sum([]byte(content))), content, home); a.StatusCode != 201 {
				return a
			}
		}
		m := marshal(map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": desc(ociConfig, digests[0], 2), "layers": []any{desc(ociLayer, digests[1], 5)}})
		return b.do("PUT", "/v2/"+repo+"/manifests/v1", m, home, mediaType(ociManifest))
	}
	if a := push("shared/app"); a.StatusCode != 201 {
		t.Fatalf("%s: %s", a.Status, a.body)
	}
	b.want(200, "GET", "/v2/shared/app/manifests/v1", nil, home)
	b.want(404, "GET", "/v2/shared/app/manifests/v1", nil) // a bare host is the stranger's own registry
	b.want(403, "GET", "/v2/_catalog", nil, home)
	if a := push("made/app"); a.StatusCode != 403 {
		t.Errorf("made without leave: %s: %s", a.Status, a.body)
	}
	b.setRegistryPolicy(`{"Effect":"Allow","Principal":{"AWS":"` + stranger + `"},"Action":"ecr:*","Resource":"arn:aws:ecr:*:` + account + `:repository/made/*"}`)
	if a := push("made/app"); a.StatusCode != 201 {
		t.Errorf("made with leave: %s: %s", a.Status, a.body)
	}
	// In V1 a registry policy says nothing about pushes.
	must[ecr.PutAccountSettingOutput](b, &ecr.PutAccountSettingInput{Name: new("REGISTRY_POLICY_SCOPE"), Value: new("V1")})
	if a := push("made/app"); a.StatusCode != 403 {
		t.Errorf("in scope V1: %s: %s", a.Status, a.body)
	}
	b.token = b.login(account, region)
	b.want(200, "GET", "/v2/shared/app/manifests/v1", nil)

	// The API names the registry so that each of the two can use the name.
	uri := func(caller string) string {
		out, err := call[ecr.DescribeRepositoriesOutput](b, caller, region, &ecr.DescribeRepositoriesInput{RegistryId: new(account), RepositoryNames: []string{"shared/app"}})
		if err != nil {
			t.Fatal(err)
		}
		return *out.Repositories[0].RepositoryUri
	}
	_, port, _ := strings.Cut(b.host(), ":")
	for caller, want := range map[string]string{account: b.host() + "/shared/app", stranger: abroad + ":" + port + "/shared/app"} {
		if got := uri(caller); got != want {
			t.Errorf("for %s it is %s, want %s", caller, got, want)
		}
	}
}

// TestCrossAccountTasks: what a task's host is given pulls another account's image when that account's policies let the task's have it.
func TestCrossAccountTasks(t *testing.T) {
	b := guarded(t)
	b.create("web")
	b.pushImage("web", "v1", "x")
	user, password, ok := b.reg.PullCredentials(stranger, region, abroad+":4566/web:v1", nil)
	if !ok {
		t.Fatal("the registry does not know its image")
	}
	task := basic(user, password)
	b.want(403, "GET", "/v2/web/manifests/v1", nil, task, host(abroad))
	b.setPolicy("web", `{"Effect":"Allow","Principal":{"AWS":"`+stranger+`"},"Action":["ecr:BatchGetImage","ecr:GetDownloadUrlForLayer"]}`)
	for _, at := range []string{abroad, b.host()} { // a host that names nobody means the image's account too
		b.want(200, "GET", "/v2/web/manifests/v1", nil, task, host(at))
		b.want(200, "GET", "/v2/web/blobs/"+string(blob.Sum([]byte("x"))), nil, task, host(at))
		b.want(403, "GET", "/v2/web/tags/list", nil, task, host(at))
		b.want(403, "POST", "/v2/web/blobs/uploads/", nil, task, host(at))
	}
}

// TestSetRepositoryPolicy has the operations' answers and refusals.
func TestSetRepositoryPolicy(t *testing.T) {
	b := guarded(t)
	b.create("web")
	web := new("web")
	const missing = "RepositoryPolicyNotFoundException: Repository policy does not exist for the repository with name 'web' in the registry with id '000000000000'"
	refused[ecr.GetRepositoryPolicyOutput](b, &ecr.GetRepositoryPolicyInput{RepositoryName: web}, missing)
	refused[ecr.DeleteRepositoryPolicyOutput](b, &ecr.DeleteRepositoryPolicyInput{RepositoryName: web}, missing)
	refused[ecr.SetRepositoryPolicyOutput](b, &ecr.SetRepositoryPolicyInput{RepositoryName: new("none"), PolicyText: new("{}")},
		"RepositoryNotFoundException: The repository with name 'none' does not exist in the registry with id '000000000000'")
	for bad, why := range map[string]string{
		`{}`: "Syntax errors in policy.",
		policyOf(`{"Effect":"Allow","Principal":"*","Action":"ecr:*","Resource":"*"}`):                                     "Has prohibited field Resource",
		policyOf(`{"Effect":"Allow","Action":"ecr:*"}`):                                                                    "Missing required field Principal",
		policyOf(`{"Effect":"Allow","Principal":"*","Action":"s3:*"}`):                                                     "Actions of s3 have no place in it.",
		policyOf(`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:user/nobody"},"Action":"ecr:*"}`):        `Invalid principal in policy: "AWS":"arn:aws:iam::000000000000:user/nobody"`,
		policyOf(`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:*"},"Action":"ecr:*"}`):                  `Invalid principal in policy: "AWS":"arn:aws:iam::000000000000:*"`,
		policyOf(`{"Effect":"Allow","Principal":"*","Action":"ecr:*","Condition":{"StringEqualz":{"aws:SourceVpc":"x"}}}`): "Invalid Condition type : StringEqualz.",
	} {
		refused[ecr.SetRepositoryPolicyOutput](b, &ecr.SetRepositoryPolicyInput{RepositoryName: web, PolicyText: &bad},
			"InvalidParameterException: Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided: "+why+"'")
	}
	text := policyOf(`{"Sid":"new statement","Effect":"Allow","Principal":{"AWS":["` + stranger + `","arn:aws:iam::000000000000:user/bob"]},"Action":"ecr:BatchGetImage"}`)
	if out := must[ecr.SetRepositoryPolicyOutput](b, &ecr.SetRepositoryPolicyInput{RepositoryName: web, PolicyText: &text}); *out.PolicyText != text || *out.RepositoryName != "web" || *out.RegistryId != account {
		t.Errorf("%+v", out)
	}
	if out := must[ecr.GetRepositoryPolicyOutput](b, &ecr.GetRepositoryPolicyInput{RepositoryName: web}); *out.PolicyText != text {
		t.Errorf("%+v", out)
	}
	if out := must[ecr.DeleteRepositoryPolicyOutput](b, &ecr.DeleteRepositoryPolicyInput{RepositoryName: web}); *out.PolicyText != text {
		t.Errorf("%+v", out)
	}
	refused[ecr.GetRepositoryPolicyOutput](b, &ecr.GetRepositoryPolicyInput{RepositoryName: web}, missing)

	// A policy goes with its repository.
	b.setPolicy("web", `{"Effect":"Deny","Principal":"*","Action":"ecr:*"}`)
	must[ecr.DeleteRepositoryOutput](b, &ecr.DeleteRepositoryInput{RepositoryName: web, Force: true})
	b.create("web")
	refused[ecr.GetRepositoryPolicyOutput](b, &ecr.GetRepositoryPolicyInput{RepositoryName: web}, missing)
}

// TestLockOut: a policy that keeps its author from setting another one takes force, but for root, who can always take it back.
func TestLockOut(t *testing.T) {
	b := guarded(t)
	b.create("web")
	ana, eve := userOf(account, "ana"), userOf(stranger, "eve")
	const (
		locked = `{"Effect":"Deny","Principal":"*","Action":"ecr:Set*"}`
		reader = `{"Effect":"Allow","Principal":{"AWS":"` + stranger + `"},"Action":"ecr:BatchGetImage"}`
		keeper = `{"Effect":"Allow","Principal":{"AWS":"` + stranger + `"},"Action":"ecr:*RepositoryPolicy"}`
	)
	for _, tc := range []struct {
		who        api.Identity
		policy     string
		force, let bool
	}{
		{ana, locked, false, false}, {ana, locked, true, true}, {ana, reader, false, true}, {rootOf(account), locked, false, true},
		{eve, reader, false, false}, {eve, reader, true, true}, {eve, keeper, false, true}, {rootOf(stranger), reader, false, false},
	} {
		_, err := callAs[ecr.SetRepositoryPolicyOutput](b, tc.who, region,
			&ecr.SetRepositoryPolicyInput{RegistryId: new(account), RepositoryName: new("web"), PolicyText: new(policyOf(tc.policy)), Force: tc.force})
		if (err == nil) != tc.let || err != nil && !strings.Contains(err.Error(), "would keep "+tc.who.ARN+" from setting another one") {
			t.Errorf("%s sets %s, force %v: %v", tc.who.ARN, tc.policy, tc.force, err)
		}
	}
}

// TestPolicyMeansWhoItNamed: whoever is made anew under the name of a user that a policy names is somebody else.
func TestPolicyMeansWhoItNamed(t *testing.T) {
	b := guarded(t)
	id := "AIDAEARLIER"
	b.config.Principals = func(state.Reader, string) (string, bool) { return id, true }
	b.restart()
	b.create("web")
	b.pushImage("web", "v1", "x")
	allow := `{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + account + `:user/bob"},"Action":"ecr:*"}`
	b.setPolicy("web", allow)
	b.want(403, "GET", "/v2/web/manifests/v1", nil, basic("bob", ""))
	id = userOf(account, "bob").UserID
	b.want(403, "GET", "/v2/web/manifests/v1", nil, basic("bob", ""))
	b.setPolicy("web", allow)
	b.want(200, "GET", "/v2/web/manifests/v1", nil, basic("bob", ""))
}

// TestTemplatePolicy: a repository that a template makes has the template's policy.
func TestTemplatePolicy(t *testing.T) {
	b := guarded(t)
	text := policyOf(`{"Effect":"Allow","Principal":{"AWS":"` + stranger + `"},"Action":"ecr:BatchGetImage"}`)
	must[ecr.CreateRepositoryCreationTemplateOutput](b, &ecr.CreateRepositoryCreationTemplateInput{Prefix: new("p"), AppliedFor: []types.RCTAppliedFor{"CREATE_ON_PUSH"}, RepositoryPolicy: &text})
	if got := must[ecr.DescribeRepositoryCreationTemplatesOutput](b, &ecr.DescribeRepositoryCreationTemplatesInput{}).RepositoryCreationTemplates[0]; *got.RepositoryPolicy != text {
		t.Errorf("the template has %s", *got.RepositoryPolicy)
	}
	b.pushImage("p/web", "v1", "x")
	if got := must[ecr.GetRepositoryPolicyOutput](b, &ecr.GetRepositoryPolicyInput{RepositoryName: new("p/web")}); *got.PolicyText != text {
		t.Errorf("the repository has %s", *got.PolicyText)
	}
	b.want(200, "GET", "/v2/p/web/manifests/v1", nil, basic("eve", ""), host(abroad))
}

// TestCrossAccountReplication: the registry policy of the destination decides; ecr:CreateRepository is for what is not there.
func TestCrossAccountReplication(t *testing.T) {
	b := guarded(t)
	b.create("web")
	must[ecr.PutReplicationConfigurationOutput](b, &ecr.PutReplicationConfigurationInput{ReplicationConfiguration: &types.ReplicationConfiguration{
		Rules: []types.ReplicationRule{{Destinations: []types.ReplicationDestination{{Region: new(region), RegistryId: new(stranger)}}}}}})
	b.run()
	d := b.pushImage("web", "v1", "x")
	wait := func(want string) {
		t.Helper()
		b.eventually(time.Hour, func(*state.View) bool { return b.statuses("web", "v1")[region] == want }) // past the pause after a refusal
	}
	let := func(actions string) {
		t.Helper()
		text := policyOf(`{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + account + `:root"},"Action":[` + actions + `],"Resource":"arn:aws:ecr:` + region + `:` + stranger + `:repository/*"}`)
		if _, err := call[ecr.PutRegistryPolicyOutput](b, stranger, region, &ecr.PutRegistryPolicyInput{PolicyText: &text}); err != nil {
			t.Fatal(err)
		}
	}
	there := func() (*ecr.DescribeImagesOutput, error) {
		return call[ecr.DescribeImagesOutput](b, stranger, region, &ecr.DescribeImagesInput{RepositoryName: new("web")})
	}
	attempts := func() (n uint32) {
		for e := range registry.Replications.Scan(b.store.View(), state.K()) {
			n = e.Attempts
		}
		return n
	}
	wait("FAILED AccessDenied")
	let(`"ecr:ReplicateImage"`)
	n := attempts()
	b.eventually(time.Hour, func(*state.View) bool { return attempts() > n+1 }) // so one of them was after the policy came
	if out, err := there(); err == nil {
		t.Fatalf("the repository was made without leave: %v", out)
	}
	let(`"ecr:ReplicateImage","ecr:CreateRepository"`)
	wait("COMPLETE")
	if out, err := there(); err != nil || len(out.ImageDetails) != 1 || *out.ImageDetails[0].ImageDigest != string(d) || out.ImageDetails[0].ImageTags[0] != "v1" {
		t.Errorf("%+v, %v", out, err)
	}
}
