package registry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func (b *bench) createTemplate(prefix string, tag string, reasons ...types.RCTAppliedFor) {
	b.t.Helper()
	must[ecr.CreateRepositoryCreationTemplateOutput](b, &ecr.CreateRepositoryCreationTemplateInput{
		Prefix: &prefix, AppliedFor: reasons, ResourceTags: []types.Tag{{Key: new("template"), Value: &tag}}})
}

// templateTag is the tag by which a repository tells its template.
func (b *bench) templateTag(repo string) string {
	b.t.Helper()
	for _, t := range must[ecr.ListTagsForResourceOutput](b, &ecr.ListTagsForResourceInput{ResourceArn: new("arn:aws:ecr:us-east-1:000000000000:repository/" + repo)}).Tags {
		if *t.Key == "template" {
			return *t.Value
		}
	}
	return ""
}

// TestCreateOnPush: the longest prefix that applies decides, settings and all; without a template nothing is created.
func TestCreateOnPush(t *testing.T) {
	b := newBench(t)
	b.want(404, "POST", "/v2/prod/app/blobs/uploads/", nil)
	text := policy("untagged count 1")
	must[ecr.CreateRepositoryCreationTemplateOutput](b, &ecr.CreateRepositoryCreationTemplateInput{
		Prefix: new("prod"), AppliedFor: []types.RCTAppliedFor{"CREATE_ON_PUSH", "REPLICATION"}, ImageTagMutability: "IMMUTABLE_WITH_EXCLUSION",
		ImageTagMutabilityExclusionFilters: filters("latest"), LifecyclePolicy: text, ResourceTags: []types.Tag{{Key: new("template"), Value: new("prod")}},
		EncryptionConfiguration: &types.EncryptionConfigurationForRepositoryCreationTemplate{EncryptionType: "KMS"},
	})
	b.createTemplate("prod/team/", "team", "CREATE_ON_PUSH")
	b.createTemplate("cache", "cache", "PULL_THROUGH_CACHE")
	for _, repo := range []string{"prod/app", "prod/team/app", "prod/teams/app"} {
		b.want(404, "GET", "/v2/"+repo+"/tags/list", nil)
		b.pushImage(repo, "v1", "1")
	}
	for _, repo := range []string{"cache/app", "production/app", "prod"} {
		b.want(404, "POST", "/v2/"+repo+"/blobs/uploads/", nil)
	}
	b.createTemplate("ROOT", "root", "CREATE_ON_PUSH")
	b.pushImage("cache/app", "v1", "1")
	b.pushImage("prod", "v1", "1")
	for repo, want := range map[string]string{"prod/app": "prod", "prod/team/app": "team", "prod/teams/app": "prod", "cache/app": "root", "prod": "root"} {
		if got := b.templateTag(repo); got != want {
			t.Errorf("%s was made as %q, want %q", repo, got, want)
		}
	}
	repo := must[ecr.DescribeRepositoriesOutput](b, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{"prod/app"}}).Repositories[0]
	if repo.ImageTagMutability != "IMMUTABLE_WITH_EXCLUSION" || *repo.ImageTagMutabilityExclusionFilters[0].Filter != "latest" || repo.EncryptionConfiguration.EncryptionType != "KMS" {
		t.Errorf("%+v", repo)
	}
	if p := must[ecr.GetLifecyclePolicyOutput](b, &ecr.GetLifecyclePolicyInput{RepositoryName: new("prod/app")}); *p.LifecyclePolicyText != *text {
		t.Errorf("%+v", p)
	}
	// A token that only pulls creates nothing.
	b.want(403, "POST", "/v2/prod/new/blobs/uploads/", nil, basic("AWS", b.reg.PullToken(account, region, "prod/new")))
	b.want(404, "GET", "/v2/prod/new/tags/list", nil)
}

func TestRepositoryCreationTemplates(t *testing.T) {
	b := newBench(t)
	ignore := cmpopts.IgnoreUnexported(types.RepositoryCreationTemplate{}, types.EncryptionConfigurationForRepositoryCreationTemplate{}, types.Tag{}, types.ImageTagMutabilityExclusionFilter{})
	created := b.clock.Now()
	got := must[ecr.CreateRepositoryCreationTemplateOutput](b, &ecr.CreateRepositoryCreationTemplateInput{Prefix: new("prod"), Description: new("d"), AppliedFor: []types.RCTAppliedFor{"REPLICATION"}}).RepositoryCreationTemplate
	want := &types.RepositoryCreationTemplate{
		AppliedFor: []types.RCTAppliedFor{"REPLICATION"}, CreatedAt: &created, Description: new("d"), ImageTagMutability: "MUTABLE", Prefix: new("prod"), UpdatedAt: &created,
		EncryptionConfiguration: &types.EncryptionConfigurationForRepositoryCreationTemplate{EncryptionType: "AES256"},
	}
	if d := cmp.Diff(want, got, ignore); d != "" {
		t.Error(d)
	}
	refused[ecr.CreateRepositoryCreationTemplateOutput](b, &ecr.CreateRepositoryCreationTemplateInput{Prefix: new("prod/"), AppliedFor: []types.RCTAppliedFor{"REPLICATION"}},
		"TemplateAlreadyExistsException: The repository creation template with prefix 'prod' already exists in the registry with id '000000000000'")
	b.clock.Advance(time.Minute)
	want.UpdatedAt = new(b.clock.Now())
	want.ImageTagMutability, want.AppliedFor = "IMMUTABLE", []types.RCTAppliedFor{"CREATE_ON_PUSH", "PULL_THROUGH_CACHE"}
	got = must[ecr.UpdateRepositoryCreationTemplateOutput](b, &ecr.UpdateRepositoryCreationTemplateInput{Prefix: new("prod"), ImageTagMutability: "IMMUTABLE", AppliedFor: []types.RCTAppliedFor{"PULL_THROUGH_CACHE", "CREATE_ON_PUSH"}}).RepositoryCreationTemplate
	if d := cmp.Diff(want, got, ignore); d != "" {
		t.Error(d)
	}
	missing := "TemplateNotFoundException: The repository creation template with prefix 'nope' does not exist in the registry with id '000000000000'"
	refused[ecr.UpdateRepositoryCreationTemplateOutput](b, &ecr.UpdateRepositoryCreationTemplateInput{Prefix: new("nope")}, missing)
	refused[ecr.DeleteRepositoryCreationTemplateOutput](b, &ecr.DeleteRepositoryCreationTemplateInput{Prefix: new("nope")}, missing)
	refused[ecr.DescribeRepositoryCreationTemplatesOutput](b, &ecr.DescribeRepositoryCreationTemplatesInput{Prefixes: []string{"prod", "nope"}}, missing)
	for _, tc := range []struct {
		in   ecr.CreateRepositoryCreationTemplateInput
		want string
	}{
		{ecr.CreateRepositoryCreationTemplateInput{}, "InvalidParameterException: Invalid parameter at 'appliedFor' failed to satisfy constraint: 'must have at least one scenario'"},
		{ecr.CreateRepositoryCreationTemplateInput{RepositoryPolicy: new("{}")}, "InvalidParameterException: Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided: Syntax errors in policy.'"},
		{ecr.CreateRepositoryCreationTemplateInput{LifecyclePolicy: new("{}")}, `InvalidParameterException: Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: 'Lifecycle policy validation failure: object has missing required properties (["rules"])'`},
		{ecr.CreateRepositoryCreationTemplateInput{CustomRoleArn: new("arn:aws:iam::111111111111:role/x")}, "InvalidParameterException: Invalid parameter at 'customRoleArn' failed to satisfy constraint: 'must be a role of the account 000000000000'"},
		{ecr.CreateRepositoryCreationTemplateInput{ImageTagMutability: "IMMUTABLE_WITH_EXCLUSION"}, "InvalidParameterException: Invalid parameter at 'imageTagMutabilityExclusionFilters' failed to satisfy constraint: 'exclusion filters are given exactly when imageTagMutability is IMMUTABLE_WITH_EXCLUSION or MUTABLE_WITH_EXCLUSION'"},
	} {
		tc.in.Prefix = new("new")
		if tc.in.RepositoryPolicy != nil || tc.want[0] != 'I' || tc.in.LifecyclePolicy != nil || tc.in.CustomRoleArn != nil || tc.in.ImageTagMutability != "" {
			tc.in.AppliedFor = []types.RCTAppliedFor{"REPLICATION"}
		}
		refused[ecr.CreateRepositoryCreationTemplateOutput](b, &tc.in, tc.want)
	}
	for i := range 49 {
		b.createTemplate(fmt.Sprint("p", i), "x", "REPLICATION")
	}
	refused[ecr.CreateRepositoryCreationTemplateOutput](b, &ecr.CreateRepositoryCreationTemplateInput{Prefix: new("more"), AppliedFor: []types.RCTAppliedFor{"REPLICATION"}},
		"LimitExceededException: The registry with id '000000000000' has 50 repository creation templates already, which is the limit")
	var prefixes []string
	in := &ecr.DescribeRepositoryCreationTemplatesInput{MaxResults: new(int32(20))}
	for {
		out := must[ecr.DescribeRepositoryCreationTemplatesOutput](b, in)
		for _, x := range out.RepositoryCreationTemplates {
			prefixes = append(prefixes, *x.Prefix)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if len(prefixes) != 50 {
		t.Errorf("%d templates: %v", len(prefixes), prefixes)
	}
	if out := must[ecr.DescribeRepositoryCreationTemplatesOutput](b, &ecr.DescribeRepositoryCreationTemplatesInput{Prefixes: []string{"prod/"}}); len(out.RepositoryCreationTemplates) != 1 {
		t.Errorf("%+v", out)
	}
	must[ecr.DeleteRepositoryCreationTemplateOutput](b, &ecr.DeleteRepositoryCreationTemplateInput{Prefix: new("prod")})
	refused[ecr.DescribeRepositoryCreationTemplatesOutput](b, &ecr.DescribeRepositoryCreationTemplatesInput{Prefixes: []string{"prod"}},
		"TemplateNotFoundException: The repository creation template with prefix 'prod' does not exist in the registry with id '000000000000'")
}
