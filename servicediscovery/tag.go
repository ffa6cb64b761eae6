package servicediscovery

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	sd "github.com/aws/aws-sdk-go-v2/service/servicediscovery"
	"github.com/aws/aws-sdk-go-v2/service/servicediscovery/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

var tagCodes = controlplane.TagCodes{TooMany: "TooManyTagsException", Duplicate: "InvalidInput", Invalid: "InvalidInput"}

// tagSet checks the tags of a request.
func tagSet(tags []types.Tag) (map[string]string, error) {
	var list []controlplane.Tag
	for _, t := range tags {
		list = append(list, controlplane.Tag{Key: aws.ToString(t.Key), Value: aws.ToString(t.Value)})
	}
	return controlplane.TagSet(list, tagCodes)
}

// taggable says whether the namespace or service exists.
func taggable(r state.Reader, scope controlplane.Scope, text string) error {
	a, err := arn.Parse(text)
	if err != nil {
		return invalid("'%s' is not a valid ARN", text)
	}
	switch a.Type() {
	case "namespace":
		_, err = findNamespace(r, scope, &text)
	case "service":
		_, err = findService(r, scope, &text)
	default:
		return invalid("'%s' is not the ARN of a namespace or service", text)
	}
	if err != nil {
		return awserr.New("ResourceNotFoundException", "The resource '%s' does not exist.", text)
	}
	return nil
}

// tagResource implements servicediscovery:TagResource.
func (f *Family) tagResource(ctx context.Context, in *sd.TagResourceInput) (*sd.TagResourceOutput, error) {
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	name := aws.ToString(in.ResourceARN)
	err = f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		if err := taggable(tx, scope, name); err != nil {
			return err
		}
		return controlplane.AddTags(tx, scope, name, tags, tagCodes)
	})
	if err != nil {
		return nil, err
	}
	return &sd.TagResourceOutput{}, nil
}

// untagResource implements servicediscovery:UntagResource.
func (f *Family) untagResource(ctx context.Context, in *sd.UntagResourceInput) (*sd.UntagResourceOutput, error) {
	name := aws.ToString(in.ResourceARN)
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		if err := taggable(tx, scope, name); err != nil {
			return err
		}
		controlplane.RemoveTags(tx, scope, name, in.TagKeys)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &sd.UntagResourceOutput{}, nil
}

// listTagsForResource implements servicediscovery:ListTagsForResource.
func (f *Family) listTagsForResource(ctx context.Context, in *sd.ListTagsForResourceInput) (*sd.ListTagsForResourceOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	name := aws.ToString(in.ResourceARN)
	if err := taggable(v, scope, name); err != nil {
		return nil, err
	}
	out := &sd.ListTagsForResourceOutput{Tags: []types.Tag{}}
	for _, t := range controlplane.SortedTags(controlplane.TagsOf(v, scope, name)) {
		out.Tags = append(out.Tags, types.Tag{Key: &t.Key, Value: &t.Value})
	}
	return out, nil
}
