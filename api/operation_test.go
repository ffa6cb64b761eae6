package api_test

import (
	"context"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"github.com/seed-2f228079/neargate/api"
)

func nothing[I, O any](context.Context, *I) (*O, error) { return nil, nil }

// What a call needs: its action, and where it makes something with tags, that of tagging.
func TestNeeds(t *testing.T) {
	run := api.Write(nothing[ecs.RunTaskInput, ecs.RunTaskOutput],
		api.Resource(func(*api.Call, *ecs.RunTaskInput) string { return "definition" }),
		api.Tagged(func(*api.Call, *ecs.RunTaskInput) string { return "task" }),
		api.Key("ecs:Cluster", func(_ *api.Call, in *ecs.RunTaskInput) []string {
			if in.Cluster == nil {
				return nil
			}
			return []string{*in.Cluster}
		}))
	tagged := []types.Tag{{Key: new("a"), Value: new("b")}}
	for name, c := range map[string]struct {
		o    api.Operation
		in   any
		want []string // action, resource, action, resource
	}{
		"plain":  {run, &ecs.RunTaskInput{}, []string{"ecs:RunTask", "definition"}},
		"tagged": {run, &ecs.RunTaskInput{Tags: tagged}, []string{"ecs:RunTask", "definition", "ecs:TagResource", "task"}},
		"tagging itself": {api.Write(nothing[ecs.TagResourceInput, ecs.TagResourceOutput]), &ecs.TagResourceInput{Tags: tagged},
			[]string{"ecs:TagResource", "*"}},
		"load balancing": {api.Write(nothing[elb.CreateRuleInput, elb.CreateRuleOutput]), &elb.CreateRuleInput{Tags: []elbtypes.Tag{{Key: new("a")}}},
			[]string{"elasticloadbalancing:CreateRule", "*", "elasticloadbalancing:AddTags", "*"}},
		"IAM": {api.Write(nothing[iam.CreateRoleInput, iam.CreateRoleOutput]), &iam.CreateRoleInput{Tags: []iamtypes.Tag{{Key: new("a")}}},
			[]string{"iam:CreateRole", "*", "iam:TagRole", "*"}},
		"parameters": {api.Write(nothing[ssm.PutParameterInput, ssm.PutParameterOutput]), &ssm.PutParameterInput{Tags: []ssmtypes.Tag{{Key: new("a")}}},
			[]string{"ssm:PutParameter", "*", "ssm:AddTagsToResource", "*"}},
	} {
		var got []string
		for _, a := range c.o.Needs(&api.Call{}, c.in) {
			got = append(got, a.Action)
			if len(a.Resources) == 0 {
				got = append(got, "*")
			}
			got = append(got, a.Resources...)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	needs := run.Needs(&api.Call{}, &ecs.RunTaskInput{Cluster: new("c"), Tags: tagged})
	for i, want := range []map[string]string{{"ecs:cluster": "c", "ecs:createaction": ""}, {"ecs:cluster": "c", "ecs:createaction": "RunTask"}} {
		for key, value := range want {
			if got, ok := needs[i].Key(key); ok != (value != "") || ok && got[0] != value {
				t.Errorf("need %d, %s: %v", i, key, got)
			}
		}
	}
	if _, ok := run.Needs(&api.Call{}, &ecs.RunTaskInput{})[0].Key("ecs:cluster"); ok {
		t.Error("a key without a value is there")
	}
}

func TestRequestTags(t *testing.T) {
	for name, in := range map[string]any{
		"list": &ecs.TagResourceInput{Tags: []types.Tag{{Key: new("a"), Value: new("b")}}},
		"map":  &struct{ Tags map[string]string }{map[string]string{"a": "b"}},
		"EC2":  &ec2.CreateSecurityGroupInput{TagSpecifications: []ec2types.TagSpecification{{Tags: []ec2types.Tag{{Key: new("a"), Value: new("b")}}}}},
	} {
		if got := api.RequestTags(in); len(got) != 1 || got["a"] != "b" {
			t.Errorf("%s: %v", name, got)
		}
	}
	for name, in := range map[string]any{"nothing": nil, "no tags": &ecs.ListClustersInput{}, "other tags": &struct{ Tags string }{"x"}, "a nil pointer": (*ecs.RunTaskInput)(nil)} {
		if got := api.RequestTags(in); len(got) != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}
