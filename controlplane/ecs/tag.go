package ecs

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"

	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// tagResource implements ecs:TagResource.
func (s *Service) tagResource(ctx context.Context, in *ecs.TagResourceInput) (*ecs.TagResourceOutput, error) {
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	return answer(&ecs.TagResourceOutput{}, s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		name, err := taggable(tx, scope, aws.ToString(in.ResourceArn))
		if err != nil {
			return err
		}
		return controlplane.AddTags(tx, scope, name, tags, tagCodes)
	}))
}

// untagResource implements ecs:UntagResource.
func (s *Service) untagResource(ctx context.Context, in *ecs.UntagResourceInput) (*ecs.UntagResourceOutput, error) {
	return answer(&ecs.UntagResourceOutput{}, s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		name, err := taggable(tx, scope, aws.ToString(in.ResourceArn))
		if err != nil {
			return err
		}
		controlplane.RemoveTags(tx, scope, name, in.TagKeys)
		return nil
	}))
}

// listTagsForResource implements ecs:ListTagsForResource.
func (s *Service) listTagsForResource(ctx context.Context, in *ecs.ListTagsForResourceInput) (*ecs.ListTagsForResourceOutput, error) {
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	name, err := taggable(v, scope, aws.ToString(in.ResourceArn))
	if err != nil {
		return nil, err
	}
	return &ecs.ListTagsForResourceOutput{Tags: tagList(controlplane.TagsOf(v, scope, name))}, nil
}

// taggable finds what an ARN names: tags hang on resources that are there.
func taggable(r state.Reader, scope controlplane.Scope, ref string) (string, error) {
	a, err := arn.Parse(ref)
	if err != nil || !canonical(a) || a.Account != scope.Account || a.Region != scope.Region {
		return "", invalid("Invalid resource ARN: %s", ref)
	}
	notFound := invalid("The specified resource could not be found. Specify a valid resource ARN and try again.")
	in, name, ok := strings.Cut(a.Rest(), "/")
	switch a.Type() {
	case "cluster":
		if c, found := controlplane.Clusters.Get(r, scope.Key(a.Rest())); !found || c.Status != active {
			return "", awserr.New("ClusterNotFoundException", "Cluster not found.")
		}
	case "task-definition":
		if d, found, err := taskDefinition(r, scope, ref); err != nil || !found || d.ARN() != ref {
			return "", notFound
		}
	case "service":
		if svc, found := controlplane.Services.Get(r, scope.Key(in, name)); !ok || !found || svc.Status == inactive {
			return "", notFound
		}
	case "task":
		if _, found := controlplane.Tasks.Get(r, scope.Key(in, name)); !ok || !found {
			return "", notFound
		}
	case "container-instance":
		if _, found := controlplane.ContainerInstances.Get(r, scope.Key(in, name)); !ok || !found {
			return "", notFound
		}
	default:
		return "", invalid("Invalid resource ARN: %s", ref)
	}
	return ref, nil
}
