package ec2

import (
	"context"
	"maps"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"google.golang.org/protobuf/proto"

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

// createTags implements ec2:CreateTags, for security groups and their rules: what the default network has besides can not be changed.
func (s *Service) createTags(ctx context.Context, in *ec2.CreateTagsInput) (*ec2.CreateTagsOutput, error) {
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	if len(tags) == 0 {
		return nil, awserr.New("MissingParameter", "The request must contain the parameter tag")
	}
	err = s.tagged(ctx, in.Resources, in.DryRun, func(have map[string]string) (map[string]string, error) {
		all := maps.Clone(have)
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, tags)
		return controlplane.TagSet(controlplane.SortedTags(all), tagCodes)
	})
	if err != nil {
		return nil, err
	}
	return &ec2.CreateTagsOutput{}, nil
}

// deleteTags implements ec2:DeleteTags: those with the value given, or with any; no tags named means all.
func (s *Service) deleteTags(ctx context.Context, in *ec2.DeleteTagsInput) (*ec2.DeleteTagsOutput, error) {
	err := s.tagged(ctx, in.Resources, in.DryRun, func(have map[string]string) (map[string]string, error) {
		if len(in.Tags) == 0 {
			return nil, nil
		}
		left := maps.Clone(have)
		for _, t := range in.Tags {
			if v, ok := left[str(t.Key)]; ok && (t.Value == nil || *t.Value == v) {
				delete(left, *t.Key)
			}
		}
		return left, nil
	})
	if err != nil {
		return nil, err
	}
	return &ec2.DeleteTagsOutput{}, nil
}

// tagged gives each of the resources the tags that change makes of those that it has. The tags of a rule are in its group's record.
func (s *Service) tagged(ctx context.Context, ids []string, dry *bool, change func(have map[string]string) (map[string]string, error)) error {
	if len(ids) == 0 {
		return awserr.New("MissingParameter", "The request must contain the parameter resourceIdSet")
	}
	return s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		for _, id := range ids {
			if !idPattern.MatchString(id) {
				return awserr.New("InvalidID", "The ID '%s' is not valid", id)
			}
		}
		for _, id := range ids {
			kind, exists := groupKind, func(id string) bool { return findGroup(tx, scope, id) != nil }
			if isRule(id) {
				kind, exists = ruleKind, func(id string) bool { g, _ := ruleWithID(tx, scope, id); return g != nil }
			}
			if err := kind.check([]string{id}, exists); err != nil {
				return err
			}
		}
		if err := dryRun(dry); err != nil {
			return err
		}
		for _, id := range ids {
			if err := tagOne(tx, scope, id, change); err != nil {
				return err
			}
		}
		return nil
	})
}

func tagOne(tx *state.Tx, scope controlplane.Scope, id string, change func(have map[string]string) (map[string]string, error)) error {
	if !isRule(id) {
		arn := groupARN(scope.Account, scope.Region, id)
		tags, err := change(controlplane.TagsOf(tx, scope, arn))
		if err != nil {
			return err
		}
		controlplane.PutTags(tx, scope, arn, tags)
		return nil
	}
	old, i := ruleWithID(tx, scope, id)
	g := proto.CloneOf(old)
	tags, err := change(g.Rules[i].Tags)
	if err != nil {
		return err
	}
	g.Rules[i].Tags = tags
	return g.put(tx)
}
