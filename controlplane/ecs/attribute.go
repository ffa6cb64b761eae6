package ecs

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"google.golang.org/protobuf/proto"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/arn"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// maxAttributes bounds the custom attributes of an instance, and those of one request.
const maxAttributes = 10

var (
	attributeName  = regexp.MustCompile(`^[A-Za-z0-9_./\\-]{1,128}$`)
	attributeValue = regexp.MustCompile(`^[A-Za-z0-9_.@/\\:-]([A-Za-z0-9_.@/\\: -]{0,126}[A-Za-z0-9_.@/\\:-])?$`)
)

// putAttributes implements ecs:PutAttributes. The scheduler looks at an instance's own attributes before its node's.
func (s *Service) putAttributes(ctx context.Context, in *ecs.PutAttributesInput) (*ecs.PutAttributesOutput, error) {
	out := &ecs.PutAttributesOutput{}
	err := s.changeAttributes(ctx, in.Cluster, in.Attributes, &out.Attributes, func(ci *controlplane.ContainerInstance, a types.Attribute) error {
		if v := aws.ToString(a.Value); v != "" && !attributeValue.MatchString(v) {
			return invalid("Attribute value '%s' of '%s' is invalid: it must have between 1 and 128 letters, numbers, hyphens, underscores, periods, at signs, "+
				"slashes, colons or spaces, and neither start nor end with a space.", v, *a.Name)
		}
		if ci.Attributes == nil {
			ci.Attributes = map[string]string{}
		}
		ci.Attributes[*a.Name] = aws.ToString(a.Value)
		if len(ci.Attributes) > maxAttributes {
			return awserr.New("AttributeLimitExceededException", "A container instance can have up to %d custom attributes.", maxAttributes)
		}
		return nil
	})
	return answer(out, err)
}

// deleteAttributes implements ecs:DeleteAttributes. What is not there is no error.
func (s *Service) deleteAttributes(ctx context.Context, in *ecs.DeleteAttributesInput) (*ecs.DeleteAttributesOutput, error) {
	out := &ecs.DeleteAttributesOutput{}
	err := s.changeAttributes(ctx, in.Cluster, in.Attributes, &out.Attributes, func(ci *controlplane.ContainerInstance, a types.Attribute) error {
		delete(ci.Attributes, *a.Name)
		return nil
	})
	return answer(out, err)
}

// changeAttributes applies change for every attribute to its instance, all or nothing, and says what was asked with full ARNs.
func (s *Service) changeAttributes(ctx context.Context, clusterRef *string, attributes []types.Attribute, done *[]types.Attribute,
	change func(*controlplane.ContainerInstance, types.Attribute) error,
) error {
	switch {
	case len(attributes) == 0:
		return invalid("Attributes cannot be empty.")
	case len(attributes) > maxAttributes:
		return invalid("Attributes cannot have more than %d elements.", maxAttributes)
	}
	return s.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		*done = nil
		c, err := cluster(tx, scope, clusterRef)
		if err != nil {
			return err
		}
		for _, a := range attributes {
			ci, err := attributeTarget(tx, scope, c, a)
			if err != nil {
				return err
			}
			changed := proto.CloneOf(ci)
			if err := change(changed, a); err != nil {
				return err
			}
			if !maps.Equal(changed.Attributes, ci.Attributes) {
				changed.Version++
				controlplane.ContainerInstances.Put(tx, changed)
			}
			*done = append(*done, types.Attribute{Name: a.Name, Value: a.Value, TargetId: aws.String(ci.ARN())})
		}
		return nil
	})
}

// attributeTarget checks an attribute's name and finds the instance that it belongs to.
func attributeTarget(r state.Reader, scope controlplane.Scope, c *controlplane.Cluster, a types.Attribute) (*controlplane.ContainerInstance, error) {
	name, target := aws.ToString(a.Name), aws.ToString(a.TargetId)
	switch {
	case !attributeName.MatchString(name):
		return nil, invalid("Attribute name '%s' is invalid: it must have between 1 and 128 letters, numbers, hyphens, underscores, slashes or periods.", name)
	case strings.HasPrefix(name, "ecs."):
		return nil, invalid("Attribute '%s' can not be changed: names that begin with 'ecs.' are reserved.", name)
	case target == "":
		return nil, invalid("targetId is required for attribute '%s'.", name)
	case a.TargetType == "" && !arn.Is(target):
		return nil, invalid("targetType is required for attribute '%s': its targetId is not an ARN.", name)
	}
	id, err := member(scope, "container-instance", c.Name, target)
	if err != nil {
		return nil, err
	}
	ci, ok := controlplane.ContainerInstances.Get(r, scope.Key(c.Name, id))
	if !ok || ci.Status == inactive {
		return nil, awserr.New("TargetNotFoundException", "The specified target wasn't found: %s", target)
	}
	return ci, nil
}

// attributeOf is one attribute of one instance.
type attributeOf struct {
	instance    *controlplane.ContainerInstance
	name, value string
}

func (a attributeOf) key() state.Key {
	return controlplane.ContainerInstances.Key(a.instance) + state.K(a.name)
}

// listAttributes implements ecs:ListAttributes: custom attributes and those that the hosts have of themselves.
func (s *Service) listAttributes(ctx context.Context, in *ecs.ListAttributesInput) (*ecs.ListAttributesOutput, error) {
	size, err := pageSize(in.MaxResults, 100, 100)
	if err != nil {
		return nil, err
	}
	if aws.ToString(in.AttributeValue) != "" && aws.ToString(in.AttributeName) == "" {
		return nil, invalid("attributeName is required when attributeValue is given.")
	}
	v, scope, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	c, err := cluster(v, scope, in.Cluster)
	if err != nil {
		return nil, err
	}
	all := filter(attributesOf(v, controlplane.ContainerInstances.Scan(v, scope.Key(c.Name))), func(a attributeOf) bool {
		return cmp.Or(aws.ToString(in.AttributeName), a.name) == a.name && cmp.Or(aws.ToString(in.AttributeValue), a.value) == a.value
	})
	page, next, err := api.Page(ctx, s.Pages, in, size,
		func(last state.Key) iter.Seq[attributeOf] { return after(all, last, attributeOf.key) }, attributeOf.key)
	if err != nil {
		return nil, err
	}
	out := &ecs.ListAttributesOutput{Attributes: []types.Attribute{}, NextToken: next}
	for _, a := range page {
		out.Attributes = append(out.Attributes, types.Attribute{Name: aws.String(a.name), Value: optional(a.value), TargetId: aws.String(a.instance.ARN())})
	}
	return out, nil
}

// attributesOf yields the attributes of instances, by instance and name.
func attributesOf(r state.Reader, instances iter.Seq[*controlplane.ContainerInstance]) iter.Seq[attributeOf] {
	return func(yield func(attributeOf) bool) {
		for ci := range instances {
			if ci.Status == inactive {
				continue
			}
			all := instanceAttributes(r, ci)
			for _, name := range slices.Sorted(maps.Keys(all)) {
				if !yield(attributeOf{ci, name, all[name]}) {
					return
				}
			}
		}
	}
}

// instanceAttributes are the node's, and before them the instance's own.
func instanceAttributes(r state.Reader, ci *controlplane.ContainerInstance) map[string]string {
	all := map[string]string{}
	if n, ok := controlplane.Nodes.Get(r, state.K(ci.Node)); ok {
		maps.Copy(all, n.Attributes)
		if n.Health.GetDisk() != "" {
			all[diskAttribute] = n.Health.Disk
		}
	}
	maps.Copy(all, ci.Attributes)
	return all
}
