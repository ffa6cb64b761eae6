package logs

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// resource is the IAM resource of an operation on the group that name finds in its input, by name or ARN.
func resource[I any](name func(*I) *string) api.Option {
	return api.Resource(func(c *api.Call, in *I) string {
		text := aws.ToString(name(in))
		if arn.Is(text) {
			return strings.TrimSuffix(text, ":*")
		}
		return groupARN(controlplane.Scope{Account: c.Account, Region: c.Region}, text)
	})
}

// either is the one of name and identifier that was given.
func either(name, identifier *string) *string {
	if name != nil {
		return name
	}
	return identifier
}

// Operations is the family's table.
func (f *Family) Operations() []api.Operation {
	return []api.Operation{
		api.Write(f.createLogGroup, api.Route("POST /loggroups"), resource(func(in *cwl.CreateLogGroupInput) *string { return in.LogGroupName })),
		api.Write(f.createLogStream, resource(func(in *cwl.CreateLogStreamInput) *string { return in.LogGroupName })),
		api.Write(f.deleteLogGroup, resource(func(in *cwl.DeleteLogGroupInput) *string { return in.LogGroupName })),
		api.Write(f.deleteLogStream, resource(func(in *cwl.DeleteLogStreamInput) *string { return in.LogGroupName })),
		api.Write(f.deleteRetentionPolicy, resource(func(in *cwl.DeleteRetentionPolicyInput) *string { return in.LogGroupName })),
		api.Read(f.describeLogGroups, api.AtLeader(), api.Route("GET /loggroups")),
		api.Read(f.describeLogStreams, api.AtLeader(), resource(func(in *cwl.DescribeLogStreamsInput) *string { return either(in.LogGroupName, in.LogGroupIdentifier) })),
		api.Read(f.filterLogEvents, api.AtLeader(), resource(func(in *cwl.FilterLogEventsInput) *string { return either(in.LogGroupName, in.LogGroupIdentifier) })),
		api.Read(f.getLogEvents, api.AtLeader(), resource(func(in *cwl.GetLogEventsInput) *string { return either(in.LogGroupName, in.LogGroupIdentifier) })),
		api.Read(f.listLogGroups),
		api.Read(f.listTagsForResource, resource(func(in *cwl.ListTagsForResourceInput) *string { return in.ResourceArn })),
		api.Read(f.listTagsLogGroup, resource(func(in *cwl.ListTagsLogGroupInput) *string { return in.LogGroupName })),
		api.Write(f.putLogEvents, resource(func(in *cwl.PutLogEventsInput) *string { return in.LogGroupName })),
		api.Write(f.putLogGroupDeletionProtection, resource(func(in *cwl.PutLogGroupDeletionProtectionInput) *string { return in.LogGroupIdentifier })),
		api.Write(f.putRetentionPolicy, resource(func(in *cwl.PutRetentionPolicyInput) *string { return in.LogGroupName })),
		api.EventStream[cwl.StartLiveTailInput, cwl.StartLiveTailOutput](f.startLiveTail, api.AtLeader(), api.Resources(liveTailGroups)),
		api.Write(f.tagLogGroup, resource(func(in *cwl.TagLogGroupInput) *string { return in.LogGroupName })),
		api.Write(f.tagResource, resource(func(in *cwl.TagResourceInput) *string { return in.ResourceArn })),
		api.Read(f.testMetricFilter),
		api.Write(f.untagLogGroup, resource(func(in *cwl.UntagLogGroupInput) *string { return in.LogGroupName })),
		api.Write(f.untagResource, resource(func(in *cwl.UntagResourceInput) *string { return in.ResourceArn })),
	}
}
