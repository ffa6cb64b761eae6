package ec2

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

var tagCodes = controlplane.TagCodes{TooMany: "TagLimitExceeded", Duplicate: "InvalidParameterValue", Invalid: "InvalidParameterValue"}

func tagSet(tags []types.Tag) (map[string]string, error) {
	var list []controlplane.Tag
	for _, t := range tags {
		list = append(list, controlplane.Tag{Key: str(t.Key), Value: str(t.Value)})
	}
	return controlplane.TagSet(list, tagCodes)
}

// tagSpecification is the tags that a request has for the one kind of resource that it makes.
func tagSpecification(specs []types.TagSpecification, kind string) (map[string]string, error) {
	var all []types.Tag
	for _, s := range specs {
		if string(s.ResourceType) != kind {
			return nil, awserr.New("InvalidParameterValue", "'%s' is not a valid taggable resource type for this operation.", s.ResourceType)
		}
		all = append(all, s.Tags...)
	}
	return tagSet(all)
}

func tagsOf(r state.Reader, scope controlplane.Scope, arn string) []types.Tag {
	return shapeTags(controlplane.TagsOf(r, scope, arn))
}

func shapeTags(tags map[string]string) []types.Tag {
	list := []types.Tag{}
	for _, t := range controlplane.SortedTags(tags) {
		list = append(list, types.Tag{Key: &t.Key, Value: &t.Value})
	}
	return list
}

// createTags implements ec2:CreateTags, for security groups: what the default network has besides can not be changed.
func (s *Service) createTags(ctx context.Context, in *ec2.CreateTagsInput) (*ec2.CreateTagsOutput, error) {
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	if len(tags) == 0 {
		return nil, awserr.New("MissingParameter", "The request must contain the parameter tag")
	}
	err = s.tagged(ctx, in.Resources, in.DryRun, func(tx *state.Tx, scope controlplane.Scope, arn string) error {
		return controlplane.AddTags(tx, scope, arn, tags, tagCodes)
	})
	if err != nil {
		return nil, err
	}
	return &ec2.CreateTagsOutput{}, nil
}

// deleteTags implements ec2:DeleteTags: those with the value given, or with any; no tags named means all.
func (s *Service) deleteTags(ctx context.Context, in *ec2.DeleteTagsInput) (*ec2.DeleteTagsOutput, error) {
	err := s.tagged(ctx, in.Resources, in.DryRun, func(tx *state.Tx, scope controlplane.Scope, arn string) error {
		have := controlplane.TagsOf(tx, scope, arn)
		var gone []string
		for _, t := range in.Tags {
			if v, ok := have[str(t.Key)]; ok && (t.Value == nil || *t.Value == v) {
				gone = append(gone, *t.Key)
			}
		}
		if len(in.Tags) == 0 {
			controlplane.PutTags(tx, scope, arn, nil)
			return nil
		}
		controlplane.RemoveTags(tx, scope, arn, gone)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &ec2.DeleteTagsOutput{}, nil
}

func (s *Service) tagged(ctx context.Context, ids []string, dry *bool, change func(*state.Tx, controlplane.Scope, string) error) error {
	if len(ids) == 0 {
		return awserr.New("MissingParameter", "The request must contain the parameter resourceIdSet")
	}
	return s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		for _, id := range ids {
			if !idPattern.MatchString(id) {
				return awserr.New("InvalidID", "The ID '%s' is not valid", id)
			}
		}
		if err := groupKind.check(ids, func(id string) bool { return findGroup(tx, scope, id) != nil }); err != nil {
			return err
		}
		if err := dryRun(dry); err != nil {
			return err
		}
		for _, id := range ids {
			if err := change(tx, scope, groupARN(scope.Account, scope.Region, id)); err != nil {
				return err
			}
		}
		return nil
	})
}
