package iam

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
)

func tagSet(tags []types.Tag) (map[string]string, error) {
	return controlplane.TagSet(list(tags, func(t types.Tag) controlplane.Tag {
		return controlplane.Tag{Key: aws.ToString(t.Key), Value: aws.ToString(t.Value)}
	}), tagCodes)
}

func tagList(tags map[string]string) []types.Tag {
	return list(controlplane.SortedTags(tags), func(t controlplane.Tag) types.Tag { return types.Tag{Key: &t.Key, Value: &t.Value} })
}

// tagged finds the ARN of what is tagged.
type tagged func(r state.Reader, account string) (arn string, err error)

func taggedEntity(k kind, name *string) tagged {
	return func(r state.Reader, account string) (string, error) {
		e, err := entity(r, account, k, aws.ToString(name))
		if err != nil {
			return "", err
		}
		return e.ARN(), nil
	}
}

func taggedPolicy(arn *string) tagged {
	return func(r state.Reader, account string) (string, error) {
		p, err := writable(r, account, arn)
		if err != nil {
			return "", err
		}
		return p.ARN(), nil
	}
}

func (s *Service) tag(ctx context.Context, what tagged, given []types.Tag) error {
	tags, err := tagSet(given)
	if err != nil {
		return err
	}
	return s.update(ctx, func(tx *state.Tx, account string) error {
		arn, err := what(tx, account)
		if err != nil {
			return err
		}
		return controlplane.AddTags(tx, scopeOf(account), arn, tags, tagCodes)
	})
}

func (s *Service) untag(ctx context.Context, what tagged, keys []string) error {
	return s.update(ctx, func(tx *state.Tx, account string) error {
		arn, err := what(tx, account)
		if err == nil {
			controlplane.RemoveTags(tx, scopeOf(account), arn, keys)
		}
		return err
	})
}

func (s *Service) tags(ctx context.Context, what tagged, in any, most *int32) (tags []types.Tag, marker *string, more bool, err error) {
	v, account, err := s.view(ctx)
	if err != nil {
		return nil, nil, false, err
	}
	arn, err := what(v, account)
	if err != nil {
		return nil, nil, false, err
	}
	all := controlplane.TagsOf(v, scopeOf(account), arn)
	var keys []string
	for _, t := range controlplane.SortedTags(all) {
		keys = append(keys, t.Key)
	}
	keys, marker, more, err = page(ctx, s, in, most, sorted(keys), self)
	return list(keys, func(k string) types.Tag { return types.Tag{Key: &k, Value: new(all[k])} }), marker, more, err
}

// tagUser implements iam:TagUser.
func (s *Service) tagUser(ctx context.Context, in *iam.TagUserInput) (*iam.TagUserOutput, error) {
	return answer(&iam.TagUserOutput{}, s.tag(ctx, taggedEntity(user, in.UserName), in.Tags))
}

// tagRole implements iam:TagRole.
func (s *Service) tagRole(ctx context.Context, in *iam.TagRoleInput) (*iam.TagRoleOutput, error) {
	return answer(&iam.TagRoleOutput{}, s.tag(ctx, taggedEntity(role, in.RoleName), in.Tags))
}

// tagPolicy implements iam:TagPolicy.
func (s *Service) tagPolicy(ctx context.Context, in *iam.TagPolicyInput) (*iam.TagPolicyOutput, error) {
	return answer(&iam.TagPolicyOutput{}, s.tag(ctx, taggedPolicy(in.PolicyArn), in.Tags))
}

// untagUser implements iam:UntagUser.
func (s *Service) untagUser(ctx context.Context, in *iam.UntagUserInput) (*iam.UntagUserOutput, error) {
	return answer(&iam.UntagUserOutput{}, s.untag(ctx, taggedEntity(user, in.UserName), in.TagKeys))
}

// untagRole implements iam:UntagRole.
func (s *Service) untagRole(ctx context.Context, in *iam.UntagRoleInput) (*iam.UntagRoleOutput, error) {
	return answer(&iam.UntagRoleOutput{}, s.untag(ctx, taggedEntity(role, in.RoleName), in.TagKeys))
}

// untagPolicy implements iam:UntagPolicy.
func (s *Service) untagPolicy(ctx context.Context, in *iam.UntagPolicyInput) (*iam.UntagPolicyOutput, error) {
	return answer(&iam.UntagPolicyOutput{}, s.untag(ctx, taggedPolicy(in.PolicyArn), in.TagKeys))
}

// listUserTags implements iam:ListUserTags.
func (s *Service) listUserTags(ctx context.Context, in *iam.ListUserTagsInput) (*iam.ListUserTagsOutput, error) {
	tags, marker, more, err := s.tags(ctx, taggedEntity(user, in.UserName), in, in.MaxItems)
	return answer(&iam.ListUserTagsOutput{Tags: tags, Marker: marker, IsTruncated: more}, err)
}

// listRoleTags implements iam:ListRoleTags.
func (s *Service) listRoleTags(ctx context.Context, in *iam.ListRoleTagsInput) (*iam.ListRoleTagsOutput, error) {
	tags, marker, more, err := s.tags(ctx, taggedEntity(role, in.RoleName), in, in.MaxItems)
	return answer(&iam.ListRoleTagsOutput{Tags: tags, Marker: marker, IsTruncated: more}, err)
}

// listPolicyTags implements iam:ListPolicyTags.
func (s *Service) listPolicyTags(ctx context.Context, in *iam.ListPolicyTagsInput) (*iam.ListPolicyTagsOutput, error) {
	tags, marker, more, err := s.tags(ctx, taggedPolicy(in.PolicyArn), in, in.MaxItems)
	return answer(&iam.ListPolicyTagsOutput{Tags: tags, Marker: marker, IsTruncated: more}, err)
}
