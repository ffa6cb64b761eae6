package logs

import (
	"context"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/seed-2f228079/neargate/controlplane/logs/pattern"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// scanBytes is about how much is read for one page of FilterLogEvents; a page may then have fewer events, or none, and a token.
const scanBytes = 32 << 20

// backwardSince is when AWS begins to answer the latest events first.
var backwardSince = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// filterLogEvents implements logs:FilterLogEvents.
func (f *Family) filterLogEvents(ctx context.Context, in *cwl.FilterLogEventsInput) (*cwl.FilterLogEventsOutput, error) {
	if in.LogStreamNamePrefix != nil && len(in.LogStreamNames) > 0 {
		return nil, invalid("'logStreamNames' and 'logStreamNamePrefix' can not both be given.")
	}
	match, err := pattern.Compile(aws.ToString(in.FilterPattern))
	if err != nil {
		return nil, invalid("Invalid filter pattern: %v", err)
	}
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	g, err := groupOf(v, scope, in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	q := stream.Query{From: aws.ToInt64(in.StartTime), To: math.MaxInt64, Limit: limit(in.Limit), Bytes: maxBatchBytes, Overhead: eventOverhead, Scan: scanBytes,
		Match: func(r stream.Record) bool { return match.Match(string(r.Data)) }}
	if in.EndTime != nil && *in.EndTime < math.MaxInt64 {
		q.To = *in.EndTime + 1 // here the end is part of the range
	}
	if q.Backward = in.StartFromHead != nil && !*in.StartFromHead; q.Backward && q.From < millis(backwardSince) {
		return nil, invalid("'startFromHead' can be false only with a 'startTime' on or after Jan 1, 2024 00:00:00 UTC.")
	}
	streams, err := selected(v, g, in)
	if err != nil {
		return nil, err
	}
	if streams, err = f.ready(ctx, streams); err != nil {
		return nil, err
	}
	var owners []*LogStream // of the sources
	for _, s := range streams {
		sources, err := f.sources(ctx, s, s.Name)
		if err != nil {
			return nil, err
		}
		q.Sources = append(q.Sources, sources...)
		owners = append(owners, slices.Repeat([]*LogStream{s}, len(sources))...)
	}
	text, err := f.Pages.Place(ctx, in)
	if err != nil {
		return nil, err
	}
	if text != "" {
		at, err := parseCursor(text)
		if err != nil {
			return nil, err
		}
		if q.Backward {
			q.Before = at
		} else {
			q.After = at
		}
	}
	page, err := f.Events.Query(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &cwl.FilterLogEventsOutput{Events: []types.FilteredLogEvent{}, SearchedLogStreams: []types.SearchedLogStream{}}
	for _, r := range page.Records {
		s := owners[r.Source]
		out.Events = append(out.Events, types.FilteredLogEvent{
			EventId: eventID(s, r.Record), LogStreamName: &s.Name, Timestamp: aws.Int64(r.Time), IngestionTime: aws.Int64(r.Ingested), Message: aws.String(string(r.Data)),
		})
	}
	if page.Rest != nil {
		out.NextToken = f.Pages.TokenAt(ctx, in, cursorText(page.Rest))
	}
	return out, nil
}

// selected are the streams of the group that are asked for.
func selected(v *state.View, g *LogGroup, in *cwl.FilterLogEventsInput) ([]*LogStream, error) {
	var list []*LogStream
	if len(in.LogStreamNames) > 0 {
		seen := map[string]bool{}
		for _, name := range in.LogStreamNames {
			s, err := streamOf(v, g, &name)
			if err != nil {
				return nil, err
			}
			if !seen[name] {
				list = append(list, s)
			}
			seen[name] = true
		}
		return list, nil
	}
	for s := range LogStreams.Scan(v, g.streams()) {
		if strings.HasPrefix(s.Name, aws.ToString(in.LogStreamNamePrefix)) {
			list = append(list, s)
		}
	}
	return list, nil
}

// eventID is unique in the account and always the same for one event: its time, whose it is, and its position, in 56 digits as AWS's.
func eventID(s *LogStream, r stream.Record) *string {
	h := fnv.New64a()
	h.Write([]byte(s.Data))
	return aws.String(fmt.Sprintf("%015d%020d%021d", r.Time, h.Sum64(), r.Position))
}

func cursorText(c *stream.Cursor) string { return fmt.Sprintf("%d/%d/%s", c.Time, c.Position, c.Order) }

func parseCursor(text string) (*stream.Cursor, error) {
	p := strings.SplitN(text, "/", 3)
	if len(p) == 3 {
		t, err1 := strconv.ParseInt(p[0], 10, 64)
		n, err2 := strconv.ParseUint(p[1], 10, 64)
		if err1 == nil && err2 == nil {
			return &stream.Cursor{Time: t, Position: n, Order: p[2]}, nil
		}
	}
	return nil, fmt.Errorf("a page token of our own holds %q", text)
}

// testMetricFilter implements logs:TestMetricFilter.
func (f *Family) testMetricFilter(_ context.Context, in *cwl.TestMetricFilterInput) (*cwl.TestMetricFilterOutput, error) {
	p, err := pattern.Compile(aws.ToString(in.FilterPattern))
	if err != nil {
		return nil, invalid("Invalid filter pattern: %v", err)
	}
	out := &cwl.TestMetricFilterOutput{Matches: []types.MetricFilterMatchRecord{}}
	for i, m := range in.LogEventMessages {
		if p.Match(m) {
			out.Matches = append(out.Matches, types.MetricFilterMatchRecord{EventNumber: int64(i), EventMessage: &m, ExtractedValues: p.Extract(m)})
		}
	}
	return out, nil
}
