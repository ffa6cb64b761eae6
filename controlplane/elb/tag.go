package elb

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
)

var tagCodes = controlplane.TagCodes{TooMany: "TooManyTags", Duplicate: "DuplicateTagKeys", Invalid: "ValidationError"}

func tagSet(tags []types.Tag) (map[string]string, error) {
	var list []controlplane.Tag
	for _, t := range tags {
		list = append(list, controlplane.Tag{Key: aws.ToString(t.Key), Value: aws.ToString(t.Value)})
	}
	return controlplane.TagSet(list, tagCodes)
}

// taggable says whether the resource exists.
func taggable(r state.Reader, scope controlplane.Scope, text string) error {
	a, err := arn.Parse(text)
	if err != nil {
		return invalid("'%s' is not a valid ARN", text)
	}
	switch a.Type() {
	case "loadbalancer":
		_, err = findLoadBalancer(r, scope, text)
	case "listener":
		_, err = findListener(r, scope, text)
	case "listener-rule":
		_, _, err = findRule(r, scope, text)
	case "targetgroup":
		_, err = findTargetGroup(r, scope, text)
	default:
		err = invalid("'%s' is not a valid ARN of a taggable resource", text)
	}
	return err
}

// addTags implements elasticloadbalancing:AddTags.
func (s *Service) addTags(ctx context.Context, in *elbv2.AddTagsInput) (*elbv2.AddTagsOutput, error) {
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	err = s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		for _, a := range in.ResourceArns {
			if err := taggable(tx, scope, a); err != nil {
				return err
			}
			if err := controlplane.AddTags(tx, scope, a, tags, tagCodes); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elbv2.AddTagsOutput{}, nil
}

// removeTags implements elasticloadbalancing:RemoveTags.
func (s *Service) removeTags(ctx context.Context, in *elbv2.RemoveTagsInput) (*elbv2.RemoveTagsOutput, error) {
	err := s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		for _, a := range in.ResourceArns {
			if err := taggable(tx, scope, a); err != nil {
				return err
			}
			controlplane.RemoveTags(tx, scope, a, in.TagKeys)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &elbv2.RemoveTagsOutput{}, nil
}

// describeTags implements elasticloadbalancing:DescribeTags.
func (s *Service) describeTags(ctx context.Context, in *elbv2.DescribeTagsInput) (*elbv2.DescribeTagsOutput, error) {
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	out := &elbv2.DescribeTagsOutput{}
	for _, a := range in.ResourceArns {
		if err := taggable(v, scope, a); err != nil {
			return nil, err
		}
		d := types.TagDescription{ResourceArn: aws.String(a), Tags: []types.Tag{}}
		for _, t := range controlplane.SortedTags(controlplane.TagsOf(v, scope, a)) {
			d.Tags = append(d.Tags, types.Tag{Key: aws.String(t.Key), Value: aws.String(t.Value)})
		}
		out.TagDescriptions = append(out.TagDescriptions, d)
	}
	return out, nil
}
