package logs

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/seed-2f228079/neargate/storage/stream"
)

// place is between two events of one stream, in the order of time: in front of those that have at least this time and position.
type place struct {
	time     int64
	position uint64
}

// token is the place as clients hold it: "f/" forwards, "b/" backwards. It is not sealed, since it says nothing that its stream does
// not, and it must be the same whenever the place is: whoever reads at the end gets back what was given.
func (p place) token(direction string) *string {
	return aws.String(fmt.Sprintf("%s/%020d%036d/s", direction, p.time, p.position))
}

// parseToken undoes token.
func parseToken(text string) (direction string, p place, ok bool) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 || parts[0] != "f" && parts[0] != "b" || len(parts[1]) != 56 || parts[2] != "s" {
		return "", p, false
	}
	var err1, err2 error
	p.time, err1 = strconv.ParseInt(parts[1][:20], 10, 64)
	p.position, err2 = strconv.ParseUint(parts[1][20:], 10, 64)
	return parts[0], p, err1 == nil && err2 == nil && p.time >= 0
}

// after is the place as the last thing in front of it.
func (p place) after() *stream.Cursor {
	if p.position == 0 {
		return &stream.Cursor{Time: p.time - 1, Order: lastOrder, Position: math.MaxUint64}
	}
	return &stream.Cursor{Time: p.time, Position: p.position - 1}
}

// lastOrder is behind the name of every stream.
const lastOrder = "\xff"

// getLogEvents implements logs:GetLogEvents.
func (f *Family) getLogEvents(ctx context.Context, in *cwl.GetLogEventsInput) (*cwl.GetLogEventsOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	g, err := groupOf(v, scope, in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	s, err := streamOf(v, g, in.LogStreamName)
	if err != nil {
		return nil, err
	}
	streams, err := f.ready(ctx, []*LogStream{s})
	if err != nil {
		return nil, err
	}
	sources, err := f.sources(ctx, streams[0], "")
	if err != nil {
		return nil, err
	}
	q := stream.Query{
		Sources: sources, From: aws.ToInt64(in.StartTime), To: math.MaxInt64, Backward: !aws.ToBool(in.StartFromHead),
		Limit: limit(in.Limit), Bytes: maxBatchBytes, Overhead: eventOverhead,
	}
	if in.EndTime != nil {
		q.To = *in.EndTime
	}
	here := place{time: q.From}
	if in.NextToken != nil {
		direction, at, ok := parseToken(*in.NextToken)
		if !ok {
			return nil, invalid("The specified nextToken is invalid.")
		}
		here = at
		if q.Backward = direction == "b"; q.Backward {
			q.Before = &stream.Cursor{Time: at.time, Position: at.position}
		} else {
			q.After = at.after()
		}
	}
	page, err := f.Events.Query(ctx, q)
	if err != nil {
		return nil, err
	}
	out := &cwl.GetLogEventsOutput{Events: []types.OutputLogEvent{}, NextForwardToken: here.token("f"), NextBackwardToken: here.token("b")}
	for _, r := range page.Records {
		out.Events = append(out.Events, types.OutputLogEvent{Timestamp: aws.Int64(r.Time), IngestionTime: aws.Int64(r.Ingested), Message: aws.String(string(r.Data))})
	}
	if n := len(page.Records); n > 0 {
		first, last := page.Records[0], page.Records[n-1]
		out.NextBackwardToken = place{first.Time, first.Position}.token("b")
		out.NextForwardToken = place{last.Time, last.Position + 1}.token("f")
	}
	return out, nil
}

func limit(n *int32) int {
	if n == nil {
		return maxEvents
	}
	return int(*n) // the model bounds it
}
