package registry

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/api/policy"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// maxTemplates is how many creation templates a registry has at most.
const maxTemplates = 50

func templateNotFound(account, prefix string) error {
	return awserr.New("TemplateNotFoundException", "The repository creation template with prefix '%s' does not exist in the registry with id '%s'", prefix, account)
}

// templateChange is what create and update have in common; nil members are not given.
type templateChange struct {
	description     *string
	encryption      *types.EncryptionConfigurationForRepositoryCreationTemplate
	tags            []types.Tag
	mutability      types.ImageTagMutability
	filters         []types.ImageTagMutabilityExclusionFilter
	repository      *string // policy
	lifecycle       *string // policy
	appliedFor      []types.RCTAppliedFor
	customRole      *string
	registryAccount string
}

// apply puts what is given into the template.
func (c templateChange) apply(r *Registry, tx *state.Tx, t *CreationTemplate) error {
	if value(c.repository) != "" {
		p, err := parsePolicy(policy.Own, "", *c.repository)
		if err != nil {
			return err
		}
		if _, err := r.pin(tx, policy.Own, p); err != nil {
			return err
		}
	}
	if value(c.lifecycle) != "" {
		if _, err := parseLifecyclePolicy(*c.lifecycle); err != nil {
			return err
		}
	}
	if role := value(c.customRole); role != "" && !strings.HasPrefix(role, "arn:aws:iam::"+c.registryAccount+":role/") {
		return awserr.New("InvalidParameterException", "Invalid parameter at 'customRoleArn' failed to satisfy constraint: 'must be a role of the account %s'", c.registryAccount)
	}
	if c.tags != nil {
		tags, err := tagSet(c.tags)
		if err != nil {
			return err
		}
		t.Tags = tags
	}
	if c.mutability != "" || c.filters != nil {
		var settings Repository
		if err := settings.setMutability(c.mutability, c.filters); err != nil {
			return err
		}
		t.TagMutability, t.MutabilityExclusions = settings.TagMutability, settings.MutabilityExclusions
	}
	if e := c.encryption; e != nil {
		if e.EncryptionType == types.EncryptionTypeAes256 && value(e.KmsKey) != "" {
			return awserr.New("InvalidParameterException", "Invalid parameter at 'encryptionConfiguration' failed to satisfy constraint: 'kmsKey cannot be used with the encryption type AES256'")
		}
		t.EncryptionType, t.KmsKey = string(e.EncryptionType), value(e.KmsKey)
	}
	if c.appliedFor != nil {
		t.AppliedFor = nil
		for _, a := range c.appliedFor {
			t.AppliedFor = append(t.AppliedFor, string(a))
		}
		slices.Sort(t.AppliedFor)
		t.AppliedFor = slices.Compact(t.AppliedFor)
	}
	for field, given := range map[*string]*string{&t.Description: c.description, &t.LifecyclePolicy: c.lifecycle, &t.RepositoryPolicy: c.repository, &t.CustomRole: c.customRole} {
		if given != nil {
			*field = *given
		}
	}
	return nil
}

// createRepositoryCreationTemplate implements ecr:CreateRepositoryCreationTemplate.
func (r *Registry) createRepositoryCreationTemplate(ctx context.Context, in *ecr.CreateRepositoryCreationTemplateInput) (*ecr.CreateRepositoryCreationTemplateOutput, error) {
	c := api.CallFrom(ctx)
	now := timestamppb.New(r.Clock.Now())
	t := &CreationTemplate{
		Account: c.Account, Region: c.Region, Prefix: normalPrefix(value(in.Prefix)), TagMutability: string(types.ImageTagMutabilityMutable),
		EncryptionType: string(types.EncryptionTypeAes256), Created: now, Updated: now,
	}
	if len(in.AppliedFor) == 0 {
		return nil, awserr.New("InvalidParameterException", "Invalid parameter at 'appliedFor' failed to satisfy constraint: 'must have at least one scenario'")
	}
	change := templateChange{in.Description, in.EncryptionConfiguration, in.ResourceTags, in.ImageTagMutability, in.ImageTagMutabilityExclusionFilters,
		in.RepositoryPolicy, in.LifecyclePolicy, in.AppliedFor, in.CustomRoleArn, c.Account}
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		if err := change.apply(r, tx, t); err != nil {
			return err
		}
		n := 0
		for other := range CreationTemplates.Scan(tx, state.K(c.Account, c.Region)) {
			if n++; other.Prefix == t.Prefix {
				return awserr.New("TemplateAlreadyExistsException", "The repository creation template with prefix '%s' already exists in the registry with id '%s'", t.Prefix, c.Account)
			}
		}
		if n >= maxTemplates {
			return awserr.New("LimitExceededException", "The registry with id '%s' has %d repository creation templates already, which is the limit", c.Account, n)
		}
		CreationTemplates.Put(tx, t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.CreateRepositoryCreationTemplateOutput{RegistryId: new(c.Account), RepositoryCreationTemplate: new(t.shape())}, nil
}

// normalPrefix drops the slash that every prefix is taken to end with.
func normalPrefix(p string) string { return strings.TrimSuffix(p, "/") }

// updateRepositoryCreationTemplate implements ecr:UpdateRepositoryCreationTemplate. What is not given stays.
func (r *Registry) updateRepositoryCreationTemplate(ctx context.Context, in *ecr.UpdateRepositoryCreationTemplateInput) (*ecr.UpdateRepositoryCreationTemplateOutput, error) {
	c := api.CallFrom(ctx)
	prefix := normalPrefix(value(in.Prefix))
	change := templateChange{in.Description, in.EncryptionConfiguration, in.ResourceTags, in.ImageTagMutability, in.ImageTagMutabilityExclusionFilters,
		in.RepositoryPolicy, in.LifecyclePolicy, in.AppliedFor, in.CustomRoleArn, c.Account}
	var t *CreationTemplate
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		old, ok := CreationTemplates.Get(tx, state.K(c.Account, c.Region, prefix))
		if !ok {
			return templateNotFound(c.Account, prefix)
		}
		t = proto.CloneOf(old)
		t.Updated = timestamppb.New(r.Clock.Now())
		if err := change.apply(r, tx, t); err != nil {
			return err
		}
		CreationTemplates.Put(tx, t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.UpdateRepositoryCreationTemplateOutput{RegistryId: new(c.Account), RepositoryCreationTemplate: new(t.shape())}, nil
}

// deleteRepositoryCreationTemplate implements ecr:DeleteRepositoryCreationTemplate.
func (r *Registry) deleteRepositoryCreationTemplate(ctx context.Context, in *ecr.DeleteRepositoryCreationTemplateInput) (*ecr.DeleteRepositoryCreationTemplateOutput, error) {
	c := api.CallFrom(ctx)
	prefix := normalPrefix(value(in.Prefix))
	var t *CreationTemplate
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		var ok bool
		if t, ok = CreationTemplates.Get(tx, state.K(c.Account, c.Region, prefix)); !ok {
			return templateNotFound(c.Account, prefix)
		}
		CreationTemplates.Delete(tx, CreationTemplates.Key(t))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.DeleteRepositoryCreationTemplateOutput{RegistryId: new(c.Account), RepositoryCreationTemplate: new(t.shape())}, nil
}

// describeRepositoryCreationTemplates implements ecr:DescribeRepositoryCreationTemplates.
func (r *Registry) describeRepositoryCreationTemplates(ctx context.Context, in *ecr.DescribeRepositoryCreationTemplatesInput) (*ecr.DescribeRepositoryCreationTemplatesOutput, error) {
	c := api.CallFrom(ctx)
	v := r.Store.View()
	prefix := state.K(c.Account, c.Region)
	var wanted []string
	for _, p := range in.Prefixes {
		wanted = append(wanted, normalPrefix(p))
		if _, ok := CreationTemplates.Get(v, state.K(c.Account, c.Region, normalPrefix(p))); !ok {
			return nil, templateNotFound(c.Account, normalPrefix(p))
		}
	}
	page, next, err := api.Page(ctx, r.pages, in, api.PageSize(in.MaxResults, pageFallback, pageMost), func(after state.Key) iter.Seq[*CreationTemplate] {
		return func(yield func(*CreationTemplate) bool) {
			for t := range CreationTemplates.ScanFrom(v, prefix, max(after, prefix)) {
				if (wanted == nil || slices.Contains(wanted, t.Prefix)) && !yield(t) {
					return
				}
			}
		}
	}, CreationTemplates.Key)
	if err != nil {
		return nil, err
	}
	out := &ecr.DescribeRepositoryCreationTemplatesOutput{NextToken: next, RegistryId: new(c.Account), RepositoryCreationTemplates: []types.RepositoryCreationTemplate{}}
	for _, t := range page {
		out.RepositoryCreationTemplates = append(out.RepositoryCreationTemplates, t.shape())
	}
	return out, nil
}

func (t *CreationTemplate) shape() types.RepositoryCreationTemplate {
	settings := Repository{MutabilityExclusions: t.MutabilityExclusions}
	out := types.RepositoryCreationTemplate{
		CreatedAt: optionalTime(t.Created), EncryptionConfiguration: &types.EncryptionConfigurationForRepositoryCreationTemplate{EncryptionType: types.EncryptionType(t.EncryptionType)},
		ImageTagMutability: types.ImageTagMutability(t.TagMutability), ImageTagMutabilityExclusionFilters: settings.exclusionFilters(), Prefix: new(t.Prefix), UpdatedAt: optionalTime(t.Updated),
	}
	for _, a := range t.AppliedFor {
		out.AppliedFor = append(out.AppliedFor, types.RCTAppliedFor(a))
	}
	for _, tag := range controlplane.SortedTags(t.Tags) {
		out.ResourceTags = append(out.ResourceTags, types.Tag{Key: new(tag.Key), Value: new(tag.Value)})
	}
	if t.KmsKey != "" {
		out.EncryptionConfiguration.KmsKey = new(t.KmsKey)
	}
	for field, text := range map[**string]string{&out.Description: t.Description, &out.LifecyclePolicy: t.LifecyclePolicy, &out.RepositoryPolicy: t.RepositoryPolicy, &out.CustomRoleArn: t.CustomRole} {
		if text != "" {
			*field = new(text)
		}
	}
	return out
}
