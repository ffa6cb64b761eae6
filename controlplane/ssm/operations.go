package ssm

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// on is the IAM resource of an operation on the parameters that names finds in its input.
func on[I any](names func(*I) []string) api.Option {
	return api.Resources(func(c *api.Call, in *I) []string {
		var list []string
		for _, name := range names(in) {
			name, _ = cutSelector(name)
			if !arn.Is(name) {
				name = parameterARN(controlplane.Scope{Account: c.Account, Region: c.Region}, name)
			}
			list = append(list, name)
		}
		return list
	})
}

func one(name *string) []string { return []string{aws.ToString(name)} }

// Operations is the family's table.
func (f *Family) Operations() []api.Operation {
	return []api.Operation{
		api.Write(f.addTagsToResource, on(func(in *ssm.AddTagsToResourceInput) []string { return one(in.ResourceId) })),
		api.Write(f.deleteParameter, on(func(in *ssm.DeleteParameterInput) []string { return one(in.Name) })),
		api.Write(f.deleteParameters, on(func(in *ssm.DeleteParametersInput) []string { return in.Names })),
		api.Read(f.describeParameters, api.Route("GET /parameters")),
		api.Read(f.getParameter, on(func(in *ssm.GetParameterInput) []string { return one(in.Name) })),
		api.Read(f.getParameterHistory, on(func(in *ssm.GetParameterHistoryInput) []string { return one(in.Name) })),
		api.Read(f.getParameters, on(func(in *ssm.GetParametersInput) []string { return in.Names })),
		api.Read(f.getParametersByPath, on(func(in *ssm.GetParametersByPathInput) []string {
			return []string{strings.TrimSuffix(aws.ToString(in.Path), "/")} // of "/" it is parameter/
		})),
		api.Write(f.labelParameterVersion, on(func(in *ssm.LabelParameterVersionInput) []string { return one(in.Name) })),
		api.Read(f.listTagsForResource, on(func(in *ssm.ListTagsForResourceInput) []string { return one(in.ResourceId) })),
		api.Write(f.putParameter, api.Route("POST /parameters"), on(func(in *ssm.PutParameterInput) []string { return one(in.Name) })),
		api.Write(f.removeTagsFromResource, on(func(in *ssm.RemoveTagsFromResourceInput) []string { return one(in.ResourceId) })),
		api.Write(f.unlabelParameterVersion, on(func(in *ssm.UnlabelParameterVersionInput) []string { return one(in.Name) })),
	}
}
