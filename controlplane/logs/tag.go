package logs

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
)

var tagCodes = controlplane.TagCodes{TooMany: "TooManyTagsException", Duplicate: "InvalidParameterException", Invalid: "InvalidParameterException"}

// tagSet checks the tags of a request.
func tagSet(tags map[string]string) (map[string]string, error) {
	var list []controlplane.Tag
	for k, v := range tags {
		list = append(list, controlplane.Tag{Key: k, Value: v})
	}
	return controlplane.TagSet(list, tagCodes)
}

// tagged finds the group that an ARN names. Streams have no tags.
func tagged(r state.Reader, scope controlplane.Scope, resource *string) (*LogGroup, error) {
	if !arn.Is(aws.ToString(resource)) {
		return nil, invalid("'%s' is not an ARN.", aws.ToString(resource))
	}
	return identified(r, scope, *resource)
}

// find is how an operation names its group: group or tagged.
type find func(state.Reader, controlplane.Scope, *string) (*LogGroup, error)

func (f *Family) addTags(ctx context.Context, by find, name *string, given map[string]string) error {
	tags, err := tagSet(given)
	if err != nil {
		return err
	}
	return f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		g, err := by(tx, scope, name)
		if err != nil {
			return err
		}
		return controlplane.AddTags(tx, scope, g.ARN(), tags, tagCodes)
	})
}

func (f *Family) removeTags(ctx context.Context, by find, name *string, keys []string) error {
	return f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		g, err := by(tx, scope, name)
		if err != nil {
			return err
		}
		controlplane.RemoveTags(tx, scope, g.ARN(), keys)
		return nil
	})
}

func (f *Family) tags(ctx context.Context, by find, name *string) (map[string]string, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	g, err := by(v, scope, name)
	if err != nil {
		return nil, err
	}
	if tags := controlplane.TagsOf(v, scope, g.ARN()); tags != nil {
		return tags, nil
	}
	return map[string]string{}, nil
}

// tagResource implements logs:TagResource.
func (f *Family) tagResource(ctx context.Context, in *cwl.TagResourceInput) (*cwl.TagResourceOutput, error) {
	if err := f.addTags(ctx, tagged, in.ResourceArn, in.Tags); err != nil {
		return nil, err
	}
	return &cwl.TagResourceOutput{}, nil
}

// untagResource implements logs:UntagResource.
func (f *Family) untagResource(ctx context.Context, in *cwl.UntagResourceInput) (*cwl.UntagResourceOutput, error) {
	if err := f.removeTags(ctx, tagged, in.ResourceArn, in.TagKeys); err != nil {
		return nil, err
	}
	return &cwl.UntagResourceOutput{}, nil
}

// listTagsForResource implements logs:ListTagsForResource.
func (f *Family) listTagsForResource(ctx context.Context, in *cwl.ListTagsForResourceInput) (*cwl.ListTagsForResourceOutput, error) {
	tags, err := f.tags(ctx, tagged, in.ResourceArn)
	if err != nil {
		return nil, err
	}
	return &cwl.ListTagsForResourceOutput{Tags: tags}, nil
}

// tagLogGroup implements logs:TagLogGroup, which TagResource replaces.
func (f *Family) tagLogGroup(ctx context.Context, in *cwl.TagLogGroupInput) (*cwl.TagLogGroupOutput, error) {
	if err := f.addTags(ctx, group, in.LogGroupName, in.Tags); err != nil {
		return nil, err
	}
	return &cwl.TagLogGroupOutput{}, nil
}

// untagLogGroup implements logs:UntagLogGroup, which UntagResource replaces.
func (f *Family) untagLogGroup(ctx context.Context, in *cwl.UntagLogGroupInput) (*cwl.UntagLogGroupOutput, error) {
	if err := f.removeTags(ctx, group, in.LogGroupName, in.Tags); err != nil {
		return nil, err
	}
	return &cwl.UntagLogGroupOutput{}, nil
}

// listTagsLogGroup implements logs:ListTagsLogGroup, which ListTagsForResource replaces.
func (f *Family) listTagsLogGroup(ctx context.Context, in *cwl.ListTagsLogGroupInput) (*cwl.ListTagsLogGroupOutput, error) {
	tags, err := f.tags(ctx, group, in.LogGroupName)
	if err != nil {
		return nil, err
	}
	return &cwl.ListTagsLogGroupOutput{Tags: tags}, nil
}
