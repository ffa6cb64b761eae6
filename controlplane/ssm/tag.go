package ssm

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

var tagCodes = controlplane.TagCodes{TooMany: "TooManyTagsError", Duplicate: "ValidationException", Invalid: "ValidationException"}

func tagSet(tags []types.Tag) (map[string]string, error) {
	var list []controlplane.Tag
	for _, t := range tags {
		list = append(list, controlplane.Tag{Key: aws.ToString(t.Key), Value: aws.ToString(t.Value)})
	}
	return controlplane.TagSet(list, tagCodes)
}

// tagged finds the parameter whose tags an operation is about.
func tagged(r state.Reader, scope controlplane.Scope, kind types.ResourceTypeForTagging, id *string) (*Parameter, error) {
	if kind != types.ResourceTypeForTaggingParameter {
		return nil, awserr.New("InvalidResourceType", "The resource type is not valid: of this platform's only Parameter has tags.")
	}
	p, err := find(r, scope, aws.ToString(id))
	if awserr.Is(err, "ParameterNotFound") {
		err = awserr.New("InvalidResourceId", "The resource ID is not valid: there is no parameter %s.", aws.ToString(id))
	}
	return p, err
}

// addTagsToResource implements ssm:AddTagsToResource.
func (f *Family) addTagsToResource(ctx context.Context, in *ssm.AddTagsToResourceInput) (*ssm.AddTagsToResourceOutput, error) {
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	err = f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		p, err := tagged(tx, scope, in.ResourceType, in.ResourceId)
		if err != nil {
			return err
		}
		return controlplane.AddTags(tx, scope, p.ARN(), tags, tagCodes)
	})
	if err != nil {
		return nil, err
	}
	return &ssm.AddTagsToResourceOutput{}, nil
}

// removeTagsFromResource implements ssm:RemoveTagsFromResource.
func (f *Family) removeTagsFromResource(ctx context.Context, in *ssm.RemoveTagsFromResourceInput) (*ssm.RemoveTagsFromResourceOutput, error) {
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		p, err := tagged(tx, scope, in.ResourceType, in.ResourceId)
		if err != nil {
			return err
		}
		controlplane.RemoveTags(tx, scope, p.ARN(), in.TagKeys)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ssm.RemoveTagsFromResourceOutput{}, nil
}

// listTagsForResource implements ssm:ListTagsForResource.
func (f *Family) listTagsForResource(ctx context.Context, in *ssm.ListTagsForResourceInput) (*ssm.ListTagsForResourceOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	p, err := tagged(v, scope, in.ResourceType, in.ResourceId)
	if err != nil {
		return nil, err
	}
	out := &ssm.ListTagsForResourceOutput{TagList: []types.Tag{}}
	for _, t := range controlplane.SortedTags(controlplane.TagsOf(v, scope, p.ARN())) {
		out.TagList = append(out.TagList, types.Tag{Key: &t.Key, Value: &t.Value})
	}
	return out, nil
}
