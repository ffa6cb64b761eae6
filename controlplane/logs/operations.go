package logs

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/internal/arn"
)

// The IAM resources, as AWS's own refusals name them: of operations on a stream it is the stream, of those on a group it is the group with a
// stream without a name, so that policies which name a group have to end in ":*", as its guide tells. Only tags are of the group itself.

// onTags is the resource of an operation on the tags of a group, which is named by its ARN or its name.
func onTags[I any](name func(*I) *string) api.Option {
	return api.Resource(func(c *api.Call, in *I) string { return groupResource(c, name(in)) })
}

// onGroup is the resource of an operation on a group, which is named by its name or ARN.
func onGroup[I any](name func(*I) *string) api.Option {
	return onStream(func(in *I) (group, stream *string) { return name(in), nil })
}

// onStream is the resource of an operation on a stream.
func onStream[I any](names func(*I) (group, stream *string)) api.Option {
	return api.Resource(func(c *api.Call, in *I) string {
		group, stream := names(in)
		return groupResource(c, group) + streamPart + aws.ToString(stream)
	})
}

func groupResource(c *api.Call, name *string) string {
	text := aws.ToString(name)
	if arn.Is(text) {
		return strings.TrimSuffix(text, ":*")
	}
	return groupARN(controlplane.Scope{Account: c.Account, Region: c.Region}, text)
}

// allGroups is the resource of what lists groups.
func allGroups[I any](*I) *string { return nil }

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
		api.Write(f.createLogGroup, api.Route("POST /loggroups"), onGroup(func(in *cwl.CreateLogGroupInput) *string { return in.LogGroupName })),
		api.Write(f.createLogStream, onStream(func(in *cwl.CreateLogStreamInput) (group, stream *string) { return in.LogGroupName, in.LogStreamName })),
		api.Write(f.deleteLogGroup, onGroup(func(in *cwl.DeleteLogGroupInput) *string { return in.LogGroupName })),
		api.Write(f.deleteLogStream, onStream(func(in *cwl.DeleteLogStreamInput) (group, stream *string) { return in.LogGroupName, in.LogStreamName })),
		api.Write(f.deleteRetentionPolicy, onGroup(func(in *cwl.DeleteRetentionPolicyInput) *string { return in.LogGroupName })),
		api.Read(f.describeLogGroups, api.AtLeader(), api.Route("GET /loggroups"), onGroup(allGroups[cwl.DescribeLogGroupsInput])),
		api.Read(f.describeLogStreams, api.AtLeader(), onGroup(func(in *cwl.DescribeLogStreamsInput) *string { return either(in.LogGroupName, in.LogGroupIdentifier) })),
		api.Read(f.filterLogEvents, api.AtLeader(), onGroup(func(in *cwl.FilterLogEventsInput) *string { return either(in.LogGroupName, in.LogGroupIdentifier) })),
		api.Read(f.getLogEvents, api.AtLeader(), onStream(func(in *cwl.GetLogEventsInput) (group, stream *string) {
			return either(in.LogGroupName, in.LogGroupIdentifier), in.LogStreamName
		})),
		api.Read(f.listLogGroups, onGroup(allGroups[cwl.ListLogGroupsInput])),
		api.Read(f.listTagsForResource, onTags(func(in *cwl.ListTagsForResourceInput) *string { return in.ResourceArn })),
		api.Read(f.listTagsLogGroup, onTags(func(in *cwl.ListTagsLogGroupInput) *string { return in.LogGroupName })),
		api.Write(f.putLogEvents, onStream(func(in *cwl.PutLogEventsInput) (group, stream *string) { return in.LogGroupName, in.LogStreamName })),
		api.Write(f.putLogGroupDeletionProtection, onGroup(func(in *cwl.PutLogGroupDeletionProtectionInput) *string { return in.LogGroupIdentifier })),
		api.Write(f.putRetentionPolicy, onGroup(func(in *cwl.PutRetentionPolicyInput) *string { return in.LogGroupName })),
		api.EventStream[cwl.StartLiveTailInput, cwl.StartLiveTailOutput](f.startLiveTail, api.AtLeader(), api.Resources(liveTailGroups)),
		api.Write(f.tagLogGroup, onTags(func(in *cwl.TagLogGroupInput) *string { return in.LogGroupName })),
		api.Write(f.tagResource, onTags(func(in *cwl.TagResourceInput) *string { return in.ResourceArn })),
		api.Read(f.testMetricFilter),
		api.Write(f.untagLogGroup, onTags(func(in *cwl.UntagLogGroupInput) *string { return in.LogGroupName })),
		api.Write(f.untagResource, onTags(func(in *cwl.UntagResourceInput) *string { return in.ResourceArn })),
	}
}
