package logs

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/logs/pattern"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
)

// createLogGroup implements logs:CreateLogGroup.
func (f *Family) createLogGroup(ctx context.Context, in *cwl.CreateLogGroupInput) (*cwl.CreateLogGroupOutput, error) {
	class := in.LogGroupClass
	switch {
	case in.KmsKeyId != nil:
		return nil, invalid("'kmsKeyId' is not supported by this platform: there are no KMS keys yet.")
	case class == types.LogGroupClassDelivery:
		return nil, invalid("'logGroupClass' DELIVERY is not supported by this platform: nothing is delivered to other services.")
	case strings.HasPrefix(strings.ToLower(aws.ToString(in.LogGroupName)), "aws/"):
		return nil, invalid("Log groups starting with AWS/ are reserved for AWS.")
	case class == "":
		class = types.LogGroupClassStandard
	}
	tags, err := tagSet(in.Tags)
	if err != nil {
		return nil, err
	}
	g := &LogGroup{Name: aws.ToString(in.LogGroupName), Class: string(class), DeletionProtection: aws.ToBool(in.DeletionProtectionEnabled)}
	err = f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		if _, ok := LogGroups.Get(tx, scope.Key(g.Name)); ok {
			return awserr.New("ResourceAlreadyExistsException", "The specified log group already exists")
		}
		f.putGroup(tx, scope, g, timestamppb.New(api.CallFrom(ctx).Time))
		controlplane.PutTags(tx, scope, g.ARN(), tags)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &cwl.CreateLogGroupOutput{}, nil
}

// putGroup writes a new group, of which name and choices are set.
func (f *Family) putGroup(tx *state.Tx, scope controlplane.Scope, g *LogGroup, now *timestamppb.Timestamp) {
	g.Account, g.Region, g.Created, g.Id = scope.Account, scope.Region, now, id.Hex(f.Rand, 16)
	LogGroups.Put(tx, proto.CloneOf(g))
}

// deleteLogGroup implements logs:DeleteLogGroup. Its streams are out of sight with it; Run removes them.
func (f *Family) deleteLogGroup(ctx context.Context, in *cwl.DeleteLogGroupInput) (*cwl.DeleteLogGroupOutput, error) {
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		g, err := group(tx, scope, in.LogGroupName)
		if err != nil {
			return err
		}
		if g.DeletionProtection {
			return awserr.New("ValidationException", "The log group '%s' can not be deleted: deletion protection is enabled.", g.Name)
		}
		LogGroups.Delete(tx, scope.Key(g.Name))
		controlplane.PutTags(tx, scope, g.ARN(), nil)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &cwl.DeleteLogGroupOutput{}, nil
}

// changeGroup applies change to a group.
func (f *Family) changeGroup(ctx context.Context, name string, change func(*LogGroup)) error {
	return f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		old, err := identified(tx, scope, name)
		if err != nil {
			return err
		}
		g := proto.CloneOf(old)
		change(g)
		LogGroups.Put(tx, g)
		return nil
	})
}

// putLogGroupDeletionProtection implements logs:PutLogGroupDeletionProtection.
func (f *Family) putLogGroupDeletionProtection(ctx context.Context, in *cwl.PutLogGroupDeletionProtectionInput) (*cwl.PutLogGroupDeletionProtectionOutput, error) {
	err := f.changeGroup(ctx, aws.ToString(in.LogGroupIdentifier), func(g *LogGroup) { g.DeletionProtection = aws.ToBool(in.DeletionProtectionEnabled) })
	if err != nil {
		return nil, err
	}
	return &cwl.PutLogGroupDeletionProtectionOutput{}, nil
}

// retentions are the numbers of days that can be chosen.
var retentions = []int32{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}

// putRetentionPolicy implements logs:PutRetentionPolicy.
func (f *Family) putRetentionPolicy(ctx context.Context, in *cwl.PutRetentionPolicyInput) (*cwl.PutRetentionPolicyOutput, error) {
	days := aws.ToInt32(in.RetentionInDays)
	if !slices.Contains(retentions, days) {
		return nil, invalid("1 validation error detected: Value '%d' at 'retentionInDays' failed to satisfy constraint: Member must satisfy enum value set: %s",
			days, strings.Join(strings.Fields(fmt.Sprint(retentions)), ", "))
	}
	if err := f.changeGroup(ctx, aws.ToString(in.LogGroupName), func(g *LogGroup) { g.RetentionDays = uint32(days) }); err != nil {
		return nil, err
	}
	return &cwl.PutRetentionPolicyOutput{}, nil
}

// deleteRetentionPolicy implements logs:DeleteRetentionPolicy.
func (f *Family) deleteRetentionPolicy(ctx context.Context, in *cwl.DeleteRetentionPolicyInput) (*cwl.DeleteRetentionPolicyOutput, error) {
	if err := f.changeGroup(ctx, aws.ToString(in.LogGroupName), func(g *LogGroup) { g.RetentionDays = 0 }); err != nil {
		return nil, err
	}
	return &cwl.DeleteRetentionPolicyOutput{}, nil
}

// describeLogGroups implements logs:DescribeLogGroups.
func (f *Family) describeLogGroups(ctx context.Context, in *cwl.DescribeLogGroupsInput) (*cwl.DescribeLogGroupsOutput, error) {
	prefix, part := aws.ToString(in.LogGroupNamePrefix), aws.ToString(in.LogGroupNamePattern)
	switch {
	case in.LogGroupNamePrefix != nil && in.LogGroupNamePattern != nil:
		return nil, invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
	case len(in.LogGroupIdentifiers) > 0 && (in.LogGroupNamePrefix != nil || in.LogGroupNamePattern != nil || in.LogGroupClass != ""):
		return nil, invalid("'logGroupIdentifiers' can not be combined with other filters.")
	}
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	named := map[string]bool{}
	for _, text := range in.LogGroupIdentifiers {
		if g, err := identified(v, scope, text); err == nil {
			named[g.Name] = true
		} else if !awserr.Is(err, "ResourceNotFoundException") {
			return nil, err
		}
	}
	wanted := func(g *LogGroup) bool {
		return strings.HasPrefix(g.Name, prefix) && strings.Contains(g.Name, part) &&
			(in.LogGroupClass == "" || string(in.LogGroupClass) == g.Class) && (len(in.LogGroupIdentifiers) == 0 || named[g.Name])
	}
	page, next, err := api.Page(ctx, f.Pages, in, api.PageSize(in.Limit, 50, 50), groups(v, scope, wanted), LogGroups.Key)
	if err != nil {
		return nil, err
	}
	if v, err = f.settled(ctx, v, page...); err != nil {
		return nil, err
	}
	out := &cwl.DescribeLogGroupsOutput{LogGroups: []types.LogGroup{}, NextToken: next}
	for _, g := range page {
		shape, err := f.renderGroup(v, g)
		if err != nil {
			return nil, err
		}
		out.LogGroups = append(out.LogGroups, shape)
	}
	return out, nil
}

func groups(v *state.View, scope controlplane.Scope, wanted func(*LogGroup) bool) func(state.Key) iter.Seq[*LogGroup] {
	return func(after state.Key) iter.Seq[*LogGroup] {
		return func(yield func(*LogGroup) bool) {
			for g := range LogGroups.ScanFrom(v, scope.Key(), after) {
				if wanted(g) && !yield(g) {
					return
				}
			}
		}
	}
}

func (f *Family) renderGroup(r state.Reader, g *LogGroup) (types.LogGroup, error) {
	stored := int64(0)
	for s := range LogStreams.Scan(r, g.streams()) {
		info, err := f.stat(s)
		if err != nil {
			return types.LogGroup{}, err
		}
		stored += info.Bytes
	}
	shape := types.LogGroup{
		Arn: aws.String(g.ARN() + ":*"), LogGroupArn: aws.String(g.ARN()), LogGroupName: &g.Name, LogGroupClass: types.LogGroupClass(g.Class),
		CreationTime: aws.Int64(millis(g.Created.AsTime())), MetricFilterCount: aws.Int32(0), StoredBytes: &stored,
		DeletionProtectionEnabled: &g.DeletionProtection,
	}
	if g.RetentionDays > 0 {
		shape.RetentionInDays = aws.Int32(int32(g.RetentionDays))
	}
	return shape, nil
}

// listLogGroups implements logs:ListLogGroups.
func (f *Family) listLogGroups(ctx context.Context, in *cwl.ListLogGroupsInput) (*cwl.ListLogGroupsOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	// No group has indexes of fields or data sources: whoever asks for one finds nothing.
	none := len(in.FieldIndexNames)+len(in.DataSources) > 0
	wanted := func(g *LogGroup) bool {
		return !none && (in.LogGroupClass == "" || string(in.LogGroupClass) == g.Class) && matchesName(in.LogGroupNamePattern, g.Name) &&
			matchesTags(in.LogGroupTags, controlplane.TagsOf(v, scope, g.ARN()))
	}
	size, ok := api.PageWithin(in.Limit, 50, 1000)
	if !ok {
		return nil, invalid("limit must be between 1 and 1000.")
	}
	page, next, err := api.Page(ctx, f.Pages, in, size, groups(v, scope, wanted), LogGroups.Key)
	if err != nil {
		return nil, err
	}
	out := &cwl.ListLogGroupsOutput{LogGroups: []types.LogGroupSummary{}, NextToken: next}
	for _, g := range page {
		out.LogGroups = append(out.LogGroups, types.LogGroupSummary{LogGroupArn: aws.String(g.ARN()), LogGroupName: &g.Name, LogGroupClass: types.LogGroupClass(g.Class)})
	}
	return out, nil
}

// matchesName takes up to five alternatives (a|^b): parts of a name, or with ^ its beginning. The model allows nothing else.
func matchesName(given *string, name string) bool {
	if given == nil {
		return true
	}
	for alternative := range strings.SplitSeq(*given, "|") {
		if begin, ok := strings.CutPrefix(alternative, "^"); ok && strings.HasPrefix(name, begin) || !ok && strings.Contains(name, alternative) {
			return true
		}
	}
	return false
}

// matchesTags: each filter's key with one of its values; prod* is a prefix in any case, !prod is anything else.
func matchesTags(filters []types.TagFilter, tags map[string]string) bool {
	for _, filter := range filters {
		value, ok := tags[aws.ToString(filter.Key)]
		if !ok || len(filter.Values) > 0 && !slices.ContainsFunc(filter.Values, func(want string) bool {
			if not, ok := strings.CutPrefix(want, "!"); ok {
				return value != not
			}
			if strings.Contains(want, "*") {
				return pattern.Wildcard(strings.ToLower(want), strings.ToLower(value))
			}
			return value == want
		}) {
			return false
		}
	}
	return true
}
