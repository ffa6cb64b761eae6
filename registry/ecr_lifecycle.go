package registry

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// previewLifetime is how long a preview can be read; then it is EXPIRED.
const previewLifetime = 24 * time.Hour

// previewMost is the largest and the usual page of a preview.
const previewMost = 100

func policyNotFound(r *Repository) error {
	return awserr.New("LifecyclePolicyNotFoundException", "Lifecycle policy does not exist for the repository with name '%s' in the registry with id '%s'", r.Name, r.Account)
}

// putLifecyclePolicy implements ecr:PutLifecyclePolicy. ApplyLifecyclePolicies does what it says, soon.
func (r *Registry) putLifecyclePolicy(ctx context.Context, in *ecr.PutLifecyclePolicyInput) (*ecr.PutLifecyclePolicyOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if _, err := parseLifecyclePolicy(value(in.LifecyclePolicyText)); err != nil {
		return nil, err
	}
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		if _, err := repo.still(tx); err != nil {
			return err
		}
		LifecyclePolicies.Put(tx, repo.lifecyclePolicy(*in.LifecyclePolicyText))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.PutLifecyclePolicyOutput{LifecyclePolicyText: in.LifecyclePolicyText, RegistryId: new(repo.Account), RepositoryName: new(repo.Name)}, nil
}

// lifecyclePolicy is the record of a policy that was not evaluated yet.
func (r *Repository) lifecyclePolicy(text string) *LifecyclePolicy {
	return &LifecyclePolicy{Account: r.Account, Region: r.Region, Repository: r.Id, Name: r.Name, Text: text}
}

// getLifecyclePolicy implements ecr:GetLifecyclePolicy.
func (r *Registry) getLifecyclePolicy(ctx context.Context, in *ecr.GetLifecyclePolicyInput) (*ecr.GetLifecyclePolicyOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	p, ok := LifecyclePolicies.Get(r.Store.View(), repo.in())
	if !ok {
		return nil, policyNotFound(repo)
	}
	return &ecr.GetLifecyclePolicyOutput{LastEvaluatedAt: optionalTime(p.Evaluated), LifecyclePolicyText: new(p.Text), RegistryId: new(repo.Account), RepositoryName: new(repo.Name)}, nil
}

func optionalTime(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	return new(t.AsTime())
}

// deleteLifecyclePolicy implements ecr:DeleteLifecyclePolicy. An evaluation under way stops with it.
func (r *Registry) deleteLifecyclePolicy(ctx context.Context, in *ecr.DeleteLifecyclePolicyInput) (*ecr.DeleteLifecyclePolicyOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	var p *LifecyclePolicy
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		var ok bool
		if p, ok = LifecyclePolicies.Get(tx, repo.in()); !ok {
			return policyNotFound(repo)
		}
		LifecyclePolicies.Delete(tx, repo.in())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.DeleteLifecyclePolicyOutput{LastEvaluatedAt: optionalTime(p.Evaluated), LifecyclePolicyText: new(p.Text), RegistryId: new(repo.Account), RepositoryName: new(repo.Name)}, nil
}

// startLifecyclePolicyPreview implements ecr:StartLifecyclePolicyPreview. It only keeps the policy; getLifecyclePolicyPreview
// evaluates it, so that a preview is never out of date and never in progress.
func (r *Registry) startLifecyclePolicyPreview(ctx context.Context, in *ecr.StartLifecyclePolicyPreviewInput) (*ecr.StartLifecyclePolicyPreviewOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if in.LifecyclePolicyText != nil {
		if _, err := parseLifecyclePolicy(*in.LifecyclePolicyText); err != nil {
			return nil, err
		}
	}
	text := value(in.LifecyclePolicyText)
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		if _, err := repo.still(tx); err != nil {
			return err
		}
		if in.LifecyclePolicyText == nil {
			p, ok := LifecyclePolicies.Get(tx, repo.in())
			if !ok {
				return policyNotFound(repo)
			}
			text = p.Text
		}
		LifecyclePreviews.Put(tx, &LifecyclePreview{Account: repo.Account, Region: repo.Region, Repository: repo.Id, Text: text, Started: timestamppb.New(r.Clock.Now())})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.StartLifecyclePolicyPreviewOutput{
		LifecyclePolicyText: &text, RegistryId: new(repo.Account), RepositoryName: new(repo.Name), Status: types.LifecyclePolicyPreviewStatusInProgress,
	}, nil
}

// getLifecyclePolicyPreview implements ecr:GetLifecyclePolicyPreview. Images that are kept although a rule asks for them are not
// among the results; explainLifecyclePolicy has them.
func (r *Registry) getLifecyclePolicyPreview(ctx context.Context, in *ecr.GetLifecyclePolicyPreviewInput) (*ecr.GetLifecyclePolicyPreviewOutput, error) {
	repo, err := r.repositoryOf(ctx, in.RegistryId, in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if len(in.ImageIds) > 0 && (in.NextToken != nil || in.MaxResults != nil) {
		return nil, awserr.New("InvalidParameterException", "Invalid parameter: 'nextToken' and 'maxResults' cannot be used with 'imageIds'")
	}
	v := r.Store.View()
	p, ok := LifecyclePreviews.Get(v, repo.in())
	if !ok {
		return nil, awserr.New("LifecyclePolicyPreviewNotFoundException", "Lifecycle policy preview does not exist for the repository with name '%s' in the registry with id '%s'", repo.Name, repo.Account)
	}
	out := &ecr.GetLifecyclePolicyPreviewOutput{
		LifecyclePolicyText: new(p.Text), PreviewResults: []types.LifecyclePolicyPreviewResult{}, RegistryId: new(repo.Account), RepositoryName: new(repo.Name),
		Status: types.LifecyclePolicyPreviewStatusComplete,
	}
	if r.Clock.Now().Sub(p.Started.AsTime()) > previewLifetime {
		out.Status = types.LifecyclePolicyPreviewStatusExpired
		return out, nil
	}
	verdicts, err := r.verdicts(v, repo, p.Text)
	if err != nil {
		return nil, err
	}
	verdicts = slices.DeleteFunc(verdicts, func(c verdict) bool { return c.kept != "" })
	out.Summary = previewSummary(verdicts)
	var status types.TagStatus
	if in.Filter != nil {
		status = in.Filter.TagStatus
	}
	verdicts = slices.DeleteFunc(verdicts, func(c verdict) bool {
		return !shows(status, len(c.tags) > 0) || len(in.ImageIds) > 0 && !slices.ContainsFunc(in.ImageIds, c.is)
	})
	if len(in.ImageIds) > 0 {
		out.PreviewResults = previewResults(verdicts)
		return out, nil
	}
	page, next, err := api.Page(ctx, r.pages, in, api.PageSize(in.MaxResults, previewMost, previewMost), func(after string) iter.Seq[verdict] {
		return func(yield func(verdict) bool) {
			for _, c := range verdicts {
				if c.digest > after && !yield(c) {
					return
				}
			}
		}
	}, func(c verdict) string { return c.digest })
	if err != nil {
		return nil, err
	}
	out.PreviewResults, out.NextToken = previewResults(page), next
	return out, nil
}

// verdicts is what a policy would do now, in order of digests.
func (r *Registry) verdicts(v state.Reader, repo *Repository, text string) ([]verdict, error) {
	rules, err := parseLifecyclePolicy(text)
	if err != nil {
		return nil, err
	}
	return rules.evaluate(r.candidates(v, repo, &needs{r: r}), r.Clock.Now()), nil
}

// is says whether an identifier names the image.
func (c *candidate) is(id types.ImageIdentifier) bool {
	return (id.ImageDigest != nil || id.ImageTag != nil) && (id.ImageDigest == nil || *id.ImageDigest == c.digest) && (id.ImageTag == nil || slices.Contains(c.tags, *id.ImageTag))
}

func previewResults(verdicts []verdict) []types.LifecyclePolicyPreviewResult {
	out := []types.LifecyclePolicyPreviewResult{}
	for _, c := range verdicts {
		p := types.LifecyclePolicyPreviewResult{
			Action: &types.LifecyclePolicyRuleAction{Type: types.ImageActionTypeExpire}, ImageDigest: new(c.digest), ImagePushedAt: new(c.pushed), ImageTags: c.tags,
			StorageClass: types.LifecyclePolicyStorageClassStandard,
		}
		if c.action == actionTransition {
			p.Action = &types.LifecyclePolicyRuleAction{Type: types.ImageActionTypeTransition, TargetStorageClass: types.LifecyclePolicyTargetStorageClassArchive}
		}
		if c.inArchive {
			p.StorageClass = types.LifecyclePolicyStorageClassArchive
		}
		if c.rule != nil {
			p.AppliedRulePriority = new(int32(c.rule.priority))
		}
		out = append(out, p)
	}
	return out
}

func previewSummary(verdicts []verdict) *types.LifecyclePolicyPreviewSummary {
	var expiring, archiving int32
	for _, c := range verdicts {
		if c.action == actionTransition {
			archiving++
		} else {
			expiring++
		}
	}
	s := &types.LifecyclePolicyPreviewSummary{ExpiringImageTotalCount: &expiring}
	if archiving > 0 {
		s.TransitioningImageTotalCounts = []types.TransitioningImageTotalCount{{ImageTotalCount: &archiving, TargetStorageClass: types.LifecyclePolicyTargetStorageClassArchive}}
	}
	return s
}

// ExplainLifecyclePolicyInput names a repository and chooses its preview over its policy.
type ExplainLifecyclePolicyInput struct {
	Repository string `json:"repository" doc:"name of the repository"`
	Preview    bool   `json:"preview" doc:"explain the policy that the last preview was started with"`
}

// LifecycleVerdict is what happens to one image, and why.
type LifecycleVerdict struct {
	ImageDigest  string   `json:"imageDigest"`
	ImageTags    []string `json:"imageTags"`
	Action       string   `json:"action"`                 // expire, transition
	RulePriority int      `json:"rulePriority,omitempty"` // none: a reference artifact that follows its subject
	Kept         string   `json:"kept,omitempty"`         // why it does not happen
}

// Resources are what ECR has no operation for.
func (r *Registry) Resources() []api.RESTResource {
	return []api.RESTResource{
		api.Stream("GET /lifecycle-verdicts", "What a repository's lifecycle policy would do now, image by image, and which images it keeps because somebody needs them.",
			func(c *api.Call, in *ExplainLifecyclePolicyInput) string {
				return (&Repository{Account: c.Account, Region: c.Region, Name: in.Repository}).arn()
			}, r.explainLifecyclePolicy),
		api.Document("GET /scan-suppressions", "The suppressions of findings in this registry.", registryTarget[ListScanSuppressionsInput], r.listScanSuppressions),
		api.Change("POST /scan-suppressions", "Keep findings of a vulnerability from counting, in repositories of this registry.", registryTarget[CreateScanSuppressionInput], r.createScanSuppression),
		api.Change("DELETE /scan-suppressions/{id}", "Let what a suppression was about count again.", registryTarget[DeleteScanSuppressionInput], r.deleteScanSuppression),
		api.Document("GET /operator/scrub", "How the image layers on the disk of the server that answers are, as it reads them again.",
			func(*api.Call, *GetScrubInput) string { return "*" }, r.getScrub),
		api.Document("GET /operator/object-store", "How what is in the object store stands to what the registry has, as the leader last compared them.",
			func(*api.Call, *GetObjectStoreInput) string { return "*" }, r.getObjectStore),
	}
}

// registryTarget: policies know what is on the registry as "*".
func registryTarget[I any](*api.Call, *I) string { return "*" }

func (r *Registry) explainLifecyclePolicy(ctx context.Context, in *ExplainLifecyclePolicyInput, emit func(...LifecycleVerdict) error) error {
	repo, err := r.repositoryOf(ctx, nil, &in.Repository)
	if err != nil {
		return err
	}
	v := r.Store.View()
	var text string
	if p, ok := LifecyclePreviews.Get(v, repo.in()); ok && in.Preview {
		text = p.Text
	} else if p, ok := LifecyclePolicies.Get(v, repo.in()); ok {
		text = p.Text
	} else {
		return policyNotFound(repo)
	}
	verdicts, err := r.verdicts(v, repo, text)
	if err != nil {
		return err
	}
	var out []LifecycleVerdict
	for _, c := range verdicts {
		l := LifecycleVerdict{ImageDigest: c.digest, ImageTags: append([]string{}, c.tags...), Action: c.action, Kept: c.kept}
		if c.rule != nil {
			l.RulePriority = c.rule.priority
		}
		out = append(out, l)
	}
	return emit(out...)
}
