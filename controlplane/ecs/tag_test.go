package ecs

import (
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/google/go-cmp/cmp"
)

// TestTags: every kind of resource can be tagged, described with its tags, and untagged.
func TestTags(t *testing.T) {
	p := world(t)
	task := must(p, p.runTask, &ecs.RunTaskInput{TaskDefinition: aws.String("web")}).Tasks[0].TaskArn
	for _, arn := range []string{
		here.ClusterARN("default"), here.ServiceARN("default", "active"), here.TaskDefinitionARN("web:1"), *task,
		here.ContainerInstanceARN("default", "0123456789abcdef0123456789abcdef"),
	} {
		list := func() []string {
			got := []string{}
			for _, tag := range must(p, p.listTagsForResource, &ecs.ListTagsForResourceInput{ResourceArn: &arn}).Tags {
				got = append(got, *tag.Key+"="+*tag.Value)
			}
			return got
		}
		tag := func(k, v string) types.Tag { return types.Tag{Key: &k, Value: &v} }
		must(p, p.tagResource, &ecs.TagResourceInput{ResourceArn: &arn, Tags: []types.Tag{tag("b", "1"), tag("a", "1")}})
		must(p, p.tagResource, &ecs.TagResourceInput{ResourceArn: &arn, Tags: []types.Tag{tag("b", "2")}})
		if diff := cmp.Diff([]string{"a=1", "b=2"}, list()); diff != "" {
			t.Errorf("%s: %s", arn, diff)
		}
		must(p, p.untagResource, &ecs.UntagResourceInput{ResourceArn: &arn, TagKeys: []string{"a", "absent"}})
		if diff := cmp.Diff([]string{"b=2"}, list()); diff != "" {
			t.Errorf("%s: %s", arn, diff)
		}
	}
	described := must(p, p.describeTaskDefinition, &ecs.DescribeTaskDefinitionInput{TaskDefinition: aws.String("web:1"), Include: []types.TaskDefinitionField{"TAGS"}})
	if len(described.Tags) != 1 {
		t.Errorf("described with tags %v", described.Tags)
	}
}

// TestOperations: the table is alphabetical, and no two operations share a route.
func TestOperations(t *testing.T) {
	table := newPlatform(t).Operations()
	var names []string
	routes := map[string]string{}
	for _, o := range table {
		names = append(names, o.Name)
		if other, taken := routes[o.Route]; taken && o.Route != "" {
			t.Errorf("%s and %s share %s", o.Name, other, o.Route)
		}
		routes[o.Route] = o.Name
	}
	if !slices.IsSorted(names) {
		t.Errorf("not in order: %v", names)
	}
}
