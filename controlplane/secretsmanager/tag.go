package secretsmanager

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

var tagCodes = controlplane.TagCodes{TooMany: "LimitExceededException", Duplicate: "InvalidParameterException", Invalid: "InvalidParameterException"}

func tagSet(tags []types.Tag) (map[string]string, error) {
	var list []controlplane.Tag
	for _, t := range tags {
		list = append(list, controlplane.Tag{Key: aws.ToString(t.Key), Value: aws.ToString(t.Value)})
	}
	return controlplane.TagSet(list, tagCodes)
}

func tagList(tags map[string]string) []types.Tag {
	var list []types.Tag
	for _, t := range controlplane.SortedTags(tags) {
		list = append(list, types.Tag{Key: &t.Key, Value: &t.Value})
	}
	return list
}

// tagResource implements secretsmanager:TagResource.
func (f *Family) tagResource(ctx context.Context, in *sm.TagResourceInput) (*sm.TagResourceOutput, error) {
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	err = f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		s, err := live(tx, scope, in.SecretId)
		if err != nil {
			return err
		}
		return controlplane.AddTags(tx, scope, s.ARN(), tags, tagCodes)
	})
	if err != nil {
		return nil, err
	}
	return &sm.TagResourceOutput{}, nil
}

// untagResource implements secretsmanager:UntagResource.
func (f *Family) untagResource(ctx context.Context, in *sm.UntagResourceInput) (*sm.UntagResourceOutput, error) {
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		s, err := live(tx, scope, in.SecretId)
		if err != nil {
			return err
		}
		controlplane.RemoveTags(tx, scope, s.ARN(), in.TagKeys)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &sm.UntagResourceOutput{}, nil
}
