package logs

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// What PutLogEvents allows: docs of the operation.
const (
	maxBatchBytes = 1 << 20
	eventOverhead = 26 // counted for each event beside its message
	maxEvents     = 10_000
	maxSpan       = 24 * time.Hour
	maxAge        = 14 * 24 * time.Hour
	maxAhead      = 2 * time.Hour
)

// putLogEvents implements logs:PutLogEvents. The events are durable when it answers.
func (f *Family) putLogEvents(ctx context.Context, in *cwl.PutLogEventsInput) (*cwl.PutLogEventsOutput, error) {
	v, scope, err := f.view(ctx)
	if err != nil {
		return nil, err
	}
	g, err := group(v, scope, in.LogGroupName)
	if err != nil {
		return nil, err
	}
	s, err := streamOf(v, g, in.LogStreamName)
	if err != nil {
		return nil, err
	}
	now := api.CallFrom(ctx).Time
	events, rejected, err := accept(in.LogEvents, now, g.RetentionDays)
	if err != nil {
		return nil, err
	}
	out := &cwl.PutLogEventsOutput{RejectedLogEventsInfo: rejected}
	if in.Entity != nil { // nothing here knows entities; the events are accepted
		out.RejectedEntityInfo = &types.RejectedEntityInfo{ErrorType: types.EntityRejectionErrorTypeUnsupportedLogGroupType}
	}
	next := uint64(0)
	if len(events) > 0 {
		b := stream.Batch{Ingested: millis(now)}
		for _, e := range events {
			b.Records = append(b.Records, stream.Record{Time: *e.Timestamp, Data: []byte(*e.Message)})
		}
		first, _, err := f.append(ctx, s, b)
		if err != nil {
			return nil, appendError(err)
		}
		next = first + uint64(len(events))
	}
	out.NextSequenceToken = sequenceToken(next)
	return out, nil
}

// appendError is what a client is told: a full disk may be cleared, a deleted stream may be made anew.
func appendError(err error) error {
	switch {
	case errors.Is(err, stream.ErrNoSpace):
		return awserr.WithStatus(503, "ServiceUnavailableException", "The server has no space left on its disk for log events.")
	case errors.Is(err, stream.ErrBroken):
		return awserr.WithStatus(503, "ServiceUnavailableException", "The server cannot write to its disk any more and has to be started again: %v", err)
	case errors.Is(err, stream.ErrDeleted):
		return noStream()
	}
	return unavailable(err)
}

// accept holds a batch against the constraints and returns the events that are taken: those in the middle.
func accept(all []types.InputLogEvent, now time.Time, retentionDays uint32) ([]types.InputLogEvent, *types.RejectedLogEventsInfo, error) {
	size := 0
	for i, e := range all {
		if size += len(aws.ToString(e.Message)) + eventOverhead; i > 0 && aws.ToInt64(e.Timestamp) < aws.ToInt64(all[i-1].Timestamp) {
			return nil, nil, invalid("Log events in a single PutLogEvents request must be in chronological order.")
		}
	}
	if len(all) > maxEvents {
		return nil, nil, invalid("A single PutLogEvents request can not have more than %d log events.", maxEvents)
	}
	if size > maxBatchBytes {
		return nil, nil, invalid("Upload too large: %d bytes exceeds limit of %d", size, maxBatchBytes)
	}
	var r types.RejectedLogEventsInfo
	before := func(t time.Time) int { // how many events are older
		n := 0
		for n < len(all) && aws.ToInt64(all[n].Timestamp) < millis(t) {
			n++
		}
		return n
	}
	first, last := before(now.Add(-maxAge)), before(now.Add(maxAhead).Add(time.Millisecond))
	if first > 0 {
		r.TooOldLogEventEndIndex = aws.Int32(int32(first))
	}
	if retentionDays > 0 {
		if n := before(now.AddDate(0, 0, -int(retentionDays))); n > first {
			r.ExpiredLogEventEndIndex = aws.Int32(int32(n))
			first = n
		}
	}
	if last < len(all) {
		r.TooNewLogEventStartIndex = aws.Int32(int32(last))
	}
	taken := all[min(first, last):last]
	if n := len(taken); n > 0 && *taken[n-1].Timestamp-*taken[0].Timestamp > maxSpan.Milliseconds() {
		return nil, nil, invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
	}
	if len(taken) == len(all) {
		return taken, nil, nil
	}
	return taken, &r, nil
}
