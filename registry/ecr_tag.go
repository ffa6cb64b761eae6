package registry

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

var tagCodes = controlplane.TagCodes{
	TooMany: "TooManyTagsException", Duplicate: "InvalidTagParameterException", Invalid: "InvalidTagParameterException",
}

func tagSet(tags []types.Tag) (map[string]string, error) {
	list := make([]controlplane.Tag, 0, len(tags))
	for _, t := range tags {
		list = append(list, controlplane.Tag{Key: value(t.Key), Value: value(t.Value)})
	}
	return controlplane.TagSet(list, tagCodes)
}

// tagged finds the repository that an ARN names; see registryOf for one of another account.
func (r *Registry) tagged(ctx context.Context, v state.Reader, resource *string) (*Repository, error) {
	c := api.CallFrom(ctx)
	a, err := arn.Parse(value(resource))
	name, ok := strings.CutPrefix(a.Resource, "repository/")
	service, region := "ecr", a.Region
	if c.Region == publicRegion {
		service, region = publicService, publicRegion
	}
	if err != nil || a.Partition != "aws" || a.Service != service || !ok || region == publicRegion && a.Region != "" { // one spelling: policies are held against it
		return nil, awserr.New("InvalidParameterException", "Invalid parameter at 'resourceArn' failed to satisfy constraint: 'Invalid ARN'")
	}
	if a.Account != c.Account && r.Authorizer == nil || region != c.Region {
		return nil, repositoryNotFound(a.Account, name)
	}
	return repository(v, a.Account, region, name)
}

func (r *Registry) tagResource(ctx context.Context, in *ecr.TagResourceInput) (*ecr.TagResourceOutput, error) {
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	_, err = r.Store.Update(ctx, func(tx *state.Tx) error {
		repo, err := r.tagged(ctx, tx, in.ResourceArn)
		if err != nil {
			return err
		}
		return controlplane.AddTags(tx, repo.scope(), repo.arn(), tags, tagCodes)
	})
	if err != nil {
		return nil, err
	}
	return &ecr.TagResourceOutput{}, nil
}

func (r *Registry) untagResource(ctx context.Context, in *ecr.UntagResourceInput) (*ecr.UntagResourceOutput, error) {
	_, err := r.Store.Update(ctx, func(tx *state.Tx) error {
		repo, err := r.tagged(ctx, tx, in.ResourceArn)
		if err != nil {
			return err
		}
		controlplane.RemoveTags(tx, repo.scope(), repo.arn(), in.TagKeys)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ecr.UntagResourceOutput{}, nil
}

func (r *Registry) listTagsForResource(ctx context.Context, in *ecr.ListTagsForResourceInput) (*ecr.ListTagsForResourceOutput, error) {
	v := r.Store.View()
	repo, err := r.tagged(ctx, v, in.ResourceArn)
	if err != nil {
		return nil, err
	}
	out := &ecr.ListTagsForResourceOutput{Tags: []types.Tag{}}
	for _, t := range controlplane.SortedTags(controlplane.TagsOf(v, repo.scope(), repo.arn())) {
		out.Tags = append(out.Tags, types.Tag{Key: new(t.Key), Value: new(t.Value)})
	}
	return out, nil
}
