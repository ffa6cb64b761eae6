package logs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/id"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// createLogStream implements logs:CreateLogStream.
func (f *Family) createLogStream(ctx context.Context, in *cwl.CreateLogStreamInput) (*cwl.CreateLogStreamOutput, error) {
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		g, err := group(tx, scope, in.LogGroupName)
		if err != nil {
			return err
		}
		if _, err := streamOf(tx, g, in.LogStreamName); err == nil {
			return awserr.New("ResourceAlreadyExistsException", "The specified log stream already exists")
		}
		LogStreams.Put(tx, f.newStream(g, *in.LogStreamName, timestamppb.New(api.CallFrom(ctx).Time)))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &cwl.CreateLogStreamOutput{}, nil
}

func (f *Family) newStream(g *LogGroup, name string, now *timestamppb.Timestamp) *LogStream {
	return &LogStream{Account: g.Account, Region: g.Region, Group: g.Id, Name: name, Data: id.Hex(f.Rand, 32), Created: now, Laned: f.Servers != nil}
}

// deleteLogStream implements logs:DeleteLogStream. Its data goes after the record; what a crash leaves of it, Run removes.
func (f *Family) deleteLogStream(ctx context.Context, in *cwl.DeleteLogStreamInput) (*cwl.DeleteLogStreamOutput, error) {
	err := f.update(ctx, func(tx *state.Tx, scope controlplane.Scope) error {
		g, err := group(tx, scope, in.LogGroupName)
		if err != nil {
			return err
		}
		s, err := streamOf(tx, g, in.LogStreamName)
		if err != nil {
			return err
		}
		LogStreams.Delete(tx, LogStreams.Key(s))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &cwl.DeleteLogStreamOutput{}, nil
}

// described is a stream with what its data says.
type described struct {
	*LogStream
	stream.Info
}

func (d *described) last() int64 { return d.MaxTime }

// place is where the stream is in a listing, for page tokens: what it is ordered by, then its name.
func (d *described) place() string { return fmt.Sprintf("%020d/%s", d.last(), d.Name) }

// describeLogStreams implements logs:DescribeLogStreams.
func (f *Family) describeLogStreams(ctx context.Context, in *cwl.DescribeLogStreamsInput) (*cwl.DescribeLogStreamsOutput, error) {
	byTime := in.OrderBy == types.OrderByLastEventTime
	if byTime && in.LogStreamNamePrefix != nil {
		return nil, invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
	}
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	g, err := groupOf(v, scope, in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	place, err := f.Pages.Place(ctx, in)
	if err != nil {
		return nil, err
	}
	var after described
	if at, name, ok := strings.Cut(place, "/"); ok {
		after.LogStream = &LogStream{Name: name}
		if after.MaxTime, err = strconv.ParseInt(at, 10, 64); err != nil {
			return nil, fmt.Errorf("a page token of our own holds %q: %w", place, err)
		}
	}
	compare := func(a, b *described) int {
		n := strings.Compare(a.Name, b.Name)
		if byTime {
			n = cmp.Or(cmp.Compare(a.last(), b.last()), n)
		}
		if aws.ToBool(in.Descending) {
			return -n
		}
		return n
	}
	if v, err = f.settled(ctx, v, g); err != nil {
		return nil, err
	}
	var list []*described
	for s := range LogStreams.Scan(v, g.streams()) {
		if !strings.HasPrefix(s.Name, aws.ToString(in.LogStreamNamePrefix)) {
			continue
		}
		d := &described{LogStream: s}
		if byTime {
			if d.Info, err = f.stat(s); err != nil {
				return nil, err
			}
		}
		if after.LogStream == nil || compare(d, &after) > 0 {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, compare)
	out := &cwl.DescribeLogStreamsOutput{LogStreams: []types.LogStream{}}
	if limit := api.PageSize(in.Limit, 50, 50); len(list) > limit {
		list = list[:limit]
		out.NextToken = f.Pages.TokenAt(ctx, in, list[limit-1].place())
	}
	for _, d := range list {
		if d.Info, err = f.stat(d.LogStream); err != nil {
			return nil, err
		}
		out.LogStreams = append(out.LogStreams, d.render(g))
	}
	return out, nil
}

func (d *described) render(g *LogGroup) types.LogStream {
	s := types.LogStream{
		Arn: aws.String(g.ARN() + ":log-stream:" + d.Name), LogStreamName: &d.Name, CreationTime: aws.Int64(millis(d.Created.AsTime())),
		UploadSequenceToken: sequenceToken(d.Next),
		StoredBytes:         aws.Int64(0), // as AWS since 2019: only a group has it
	}
	if d.First < d.Next {
		s.FirstEventTimestamp, s.LastEventTimestamp, s.LastIngestionTime = &d.MinTime, &d.MaxTime, &d.Ingested
	}
	return s
}

// sequenceToken is what clients of old expect and nobody looks at any more.
func sequenceToken(next uint64) *string { return aws.String(fmt.Sprintf("%056d", next)) }
