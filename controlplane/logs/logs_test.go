package logs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/controlplane"
	"github.com/seed-2f228079/neargate/controlplane/state"
	"github.com/seed-2f228079/neargate/controlplane/state/statetest"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/internal/clock"
	"github.com/seed-2f228079/neargate/internal/seal"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// bench is the family over real state in memory and real streams on disk.
type bench struct {
	*Family
	t   *testing.T
	clk *clock.Fake
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newBench(t *testing.T) *bench {
	key := make([]byte, seal.KeySize)
	rand.Read(key)
	sealer, err := seal.New(key, "pages")
	if err != nil {
		t.Fatal(err)
	}
	events, err := stream.Open(t.TempDir(), stream.Options{SegmentAge: SegmentAge.Milliseconds()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { events.Close() })
	b := &bench{t: t, clk: clock.NewFake(start)}
	b.Family = New(Config{Store: statetest.New(t, append(append(state.Schema{}, controlplane.Schema...), Schema...)...), Events: events, Rand: rand.Reader,
		Pages: api.NewPages(sealer), Clock: b.clk, Log: slog.New(slog.DiscardHandler)})
	return b
}

// as is a request of the account at the clock's time.
func (b *bench) as(account, operation string) context.Context {
	return api.WithCall(b.t.Context(), &api.Call{Identity: api.System(account), Region: "us-east-1", Service: "cloudwatchlogs", Operation: operation, Time: b.clk.Now()})
}

func (b *bench) ctx() context.Context { return b.as("000000000000", "X") }

// do is an operation that has to work.
func do[I, O any](b *bench, f func(context.Context, *I) (*O, error), in *I) *O {
	b.t.Helper()
	out, err := f(b.ctx(), in)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// refused is an operation that has to fail so.
func refused[I, O any](b *bench, f func(context.Context, *I) (*O, error), in *I, code, message string) {
	b.t.Helper()
	_, err := f(b.ctx(), in)
	if e, ok := awserr.As(err); !ok || e.Code != code || !strings.Contains(e.Message, message) {
		b.t.Errorf("%+v: error %v, want %s: %s", *in, err, code, message)
	}
}

func (b *bench) stream(group, name string) {
	b.t.Helper()
	if _, err := b.createLogGroup(b.ctx(), &cwl.CreateLogGroupInput{LogGroupName: &group}); err != nil && !awserr.Is(err, "ResourceAlreadyExistsException") {
		b.t.Fatal(err)
	}
	do(b, b.createLogStream, &cwl.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &name})
}

// put writes events at minutes after start; their messages are those of their minutes.
func (b *bench) put(group, name string, minutes ...int) *cwl.PutLogEventsOutput {
	b.t.Helper()
	in := &cwl.PutLogEventsInput{LogGroupName: &group, LogStreamName: &name}
	for _, m := range minutes {
		in.LogEvents = append(in.LogEvents, types.InputLogEvent{Timestamp: at(m), Message: aws.String(fmt.Sprintf("%s %d", name, m))})
	}
	return do(b, b.putLogEvents, in)
}

func at(minutes int) *int64 {
	return aws.Int64(start.Add(time.Duration(minutes) * time.Minute).UnixMilli())
}

func messages(events []types.OutputLogEvent) (list []string) {
	for _, e := range events {
		list = append(list, *e.Message)
	}
	return list
}

func TestGroups(t *testing.T) {
	b := newBench(t)
	name := aws.String("/ecs/web")
	do(b, b.createLogGroup, &cwl.CreateLogGroupInput{LogGroupName: name, Tags: map[string]string{"a": "1"}})
	refused(b, b.createLogGroup, &cwl.CreateLogGroupInput{LogGroupName: name}, "ResourceAlreadyExistsException", "The specified log group already exists")
	refused(b, b.createLogGroup, &cwl.CreateLogGroupInput{LogGroupName: aws.String("k"), KmsKeyId: aws.String("arn:aws:kms:x")}, "InvalidParameterException", "kmsKeyId")
	refused(b, b.createLogGroup, &cwl.CreateLogGroupInput{LogGroupName: aws.String("aws/x")}, "InvalidParameterException", "reserved")
	refused(b, b.createLogGroup, &cwl.CreateLogGroupInput{LogGroupName: aws.String("d"), LogGroupClass: types.LogGroupClassDelivery}, "InvalidParameterException", "DELIVERY")
	for i := range 3 {
		do(b, b.createLogGroup, &cwl.CreateLogGroupInput{LogGroupName: aws.String(fmt.Sprintf("g%d", i)), LogGroupClass: types.LogGroupClassInfrequentAccess})
	}
	refused(b, b.putRetentionPolicy, &cwl.PutRetentionPolicyInput{LogGroupName: name, RetentionInDays: aws.Int32(2)}, "InvalidParameterException",
		"Value '2' at 'retentionInDays' failed to satisfy constraint: Member must satisfy enum value set: [1, 3, 5,")
	refused(b, b.putRetentionPolicy, &cwl.PutRetentionPolicyInput{LogGroupName: aws.String("none"), RetentionInDays: aws.Int32(1)}, "ResourceNotFoundException", "The specified log group does not exist.")
	do(b, b.putRetentionPolicy, &cwl.PutRetentionPolicyInput{LogGroupName: name, RetentionInDays: aws.Int32(7)})
	b.stream(*name, "s")
	b.put(*name, "s", 0, 1)

	out := do(b, b.describeLogGroups, &cwl.DescribeLogGroupsInput{LogGroupNamePrefix: aws.String("/ecs")})
	if len(out.LogGroups) != 1 {
		t.Fatalf("%d groups", len(out.LogGroups))
	}
	g := out.LogGroups[0]
	if *g.Arn != "arn:aws:logs:us-east-1:000000000000:log-group:/ecs/web:*" || *g.LogGroupArn+":*" != *g.Arn || *g.RetentionInDays != 7 ||
		*g.StoredBytes != 6 || g.LogGroupClass != "STANDARD" || *g.CreationTime != start.UnixMilli() {
		t.Errorf("group %+v", g)
	}
	do(b, b.deleteRetentionPolicy, &cwl.DeleteRetentionPolicyInput{LogGroupName: name})
	if g := do(b, b.describeLogGroups, &cwl.DescribeLogGroupsInput{LogGroupIdentifiers: []string{*name, "none"}}).LogGroups; len(g) != 1 || g[0].RetentionInDays != nil {
		t.Errorf("by identifier: %+v", g)
	}
	var pages []string
	in := &cwl.DescribeLogGroupsInput{Limit: aws.Int32(2)}
	for {
		out := do(b, b.describeLogGroups, in)
		for _, g := range out.LogGroups {
			pages = append(pages, *g.LogGroupName)
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if !slices.Equal(pages, []string{"/ecs/web", "g0", "g1", "g2"}) {
		t.Errorf("pages %v", pages)
	}
	for text, want := range map[string]int{"^/ecs": 1, "web|^g1x": 1, "^web": 0, "ecs|g0x": 1} {
		if got := do(b, b.listLogGroups, &cwl.ListLogGroupsInput{LogGroupNamePattern: &text}).LogGroups; len(got) != want {
			t.Errorf("pattern %s: %d groups", text, len(got))
		}
	}
	for value, want := range map[string]int{"1": 1, "!1": 0, "2": 0, "*": 1} {
		in := &cwl.ListLogGroupsInput{LogGroupTags: []types.TagFilter{{Key: aws.String("a"), Values: []string{value}}}}
		if got := do(b, b.listLogGroups, in).LogGroups; len(got) != want {
			t.Errorf("tag %s: %d groups", value, len(got))
		}
	}
	// Another account has groups of its own.
	if out, err := b.describeLogGroups(b.as("111111111111", "X"), &cwl.DescribeLogGroupsInput{}); err != nil || len(out.LogGroups) != 0 {
		t.Errorf("another account sees %v, %v", out, err)
	}
	if _, err := b.createLogGroup(b.as("111111111111", "X"), &cwl.CreateLogGroupInput{LogGroupName: name}); err != nil {
		t.Error(err)
	}

	do(b, b.putLogGroupDeletionProtection, &cwl.PutLogGroupDeletionProtectionInput{LogGroupIdentifier: g.LogGroupArn, DeletionProtectionEnabled: aws.Bool(true)})
	refused(b, b.deleteLogGroup, &cwl.DeleteLogGroupInput{LogGroupName: name}, "ValidationException", "deletion protection")
}

func TestTags(t *testing.T) {
	b := newBench(t)
	name, resource := aws.String("g"), aws.String("arn:aws:logs:us-east-1:000000000000:log-group:g")
	do(b, b.createLogGroup, &cwl.CreateLogGroupInput{LogGroupName: name, Tags: map[string]string{"a": "1"}})
	do(b, b.tagResource, &cwl.TagResourceInput{ResourceArn: aws.String(*resource + ":*"), Tags: map[string]string{"b": "2"}})
	do(b, b.tagLogGroup, &cwl.TagLogGroupInput{LogGroupName: name, Tags: map[string]string{"c": "3"}})
	do(b, b.untagResource, &cwl.UntagResourceInput{ResourceArn: resource, TagKeys: []string{"a"}})
	do(b, b.untagLogGroup, &cwl.UntagLogGroupInput{LogGroupName: name, Tags: []string{"x"}})
	one := do(b, b.listTagsForResource, &cwl.ListTagsForResourceInput{ResourceArn: resource}).Tags
	two := do(b, b.listTagsLogGroup, &cwl.ListTagsLogGroupInput{LogGroupName: name}).Tags
	if fmt.Sprint(one) != "map[b:2 c:3]" || fmt.Sprint(two) != fmt.Sprint(one) {
		t.Errorf("tags %v, %v", one, two)
	}
	many := map[string]string{}
	for i := range 49 {
		many[fmt.Sprint(i)] = ""
	}
	refused(b, b.tagResource, &cwl.TagResourceInput{ResourceArn: resource, Tags: many}, "TooManyTagsException", "50")
	refused(b, b.tagResource, &cwl.TagResourceInput{ResourceArn: aws.String("arn:aws:logs:us-east-1:000000000000:log-group:h"), Tags: map[string]string{"a": ""}},
		"ResourceNotFoundException", "log group does not exist")
	refused(b, b.tagResource, &cwl.TagResourceInput{ResourceArn: aws.String("arn:aws:ecs:us-east-1:000000000000:cluster/h"), Tags: map[string]string{"a": ""}},
		"InvalidParameterException", "not the ARN of a log group")
	do(b, b.deleteLogGroup, &cwl.DeleteLogGroupInput{LogGroupName: name})
	do(b, b.createLogGroup, &cwl.CreateLogGroupInput{LogGroupName: name})
	if got := do(b, b.listTagsLogGroup, &cwl.ListTagsLogGroupInput{LogGroupName: name}).Tags; len(got) != 0 {
		t.Errorf("a new group has the tags of the old one: %v", got)
	}
}

func TestStreams(t *testing.T) {
	b := newBench(t)
	g := aws.String("g")
	for _, n := range []string{"b", "a", "c", "empty"} {
		b.stream(*g, n)
	}
	refused(b, b.createLogStream, &cwl.CreateLogStreamInput{LogGroupName: g, LogStreamName: aws.String("a")}, "ResourceAlreadyExistsException", "The specified log stream already exists")
	refused(b, b.createLogStream, &cwl.CreateLogStreamInput{LogGroupName: aws.String("h"), LogStreamName: aws.String("a")}, "ResourceNotFoundException", "The specified log group does not exist.")
	b.put(*g, "a", 3, 4)
	b.put(*g, "b", 9)
	b.put(*g, "c", 1, 6)
	list := func(in cwl.DescribeLogStreamsInput) (names []string) {
		t.Helper()
		in.LogGroupName = g
		for {
			out := do(b, b.describeLogStreams, &in)
			for _, s := range out.LogStreams {
				names = append(names, *s.LogStreamName)
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				return names
			}
		}
	}
	for _, c := range []struct {
		in   cwl.DescribeLogStreamsInput
		want string
	}{
		{cwl.DescribeLogStreamsInput{}, "[a b c empty]"},
		{cwl.DescribeLogStreamsInput{Limit: aws.Int32(1)}, "[a b c empty]"},
		{cwl.DescribeLogStreamsInput{Descending: aws.Bool(true), Limit: aws.Int32(3)}, "[empty c b a]"},
		{cwl.DescribeLogStreamsInput{LogStreamNamePrefix: aws.String("c")}, "[c]"},
		{cwl.DescribeLogStreamsInput{OrderBy: types.OrderByLastEventTime}, "[empty a c b]"},
		{cwl.DescribeLogStreamsInput{OrderBy: types.OrderByLastEventTime, Descending: aws.Bool(true), Limit: aws.Int32(1)}, "[b c a empty]"},
	} {
		if got := fmt.Sprint(list(c.in)); got != c.want {
			t.Errorf("%+v: %s, want %s", c.in, got, c.want)
		}
	}
	refused(b, b.describeLogStreams, &cwl.DescribeLogStreamsInput{LogGroupName: g, OrderBy: types.OrderByLastEventTime, LogStreamNamePrefix: aws.String("a")},
		"InvalidParameterException", "Cannot order by LastEventTime with a logStreamNamePrefix.")
	refused(b, b.describeLogStreams, &cwl.DescribeLogStreamsInput{}, "InvalidParameterException", "logGroupIdentifier")
	refused(b, b.describeLogStreams, &cwl.DescribeLogStreamsInput{LogGroupName: g, LogGroupIdentifier: g}, "InvalidParameterException", "mutually exclusive")
	a := do(b, b.describeLogStreams, &cwl.DescribeLogStreamsInput{LogGroupIdentifier: aws.String("arn:aws:logs:us-east-1:000000000000:log-group:g:*")}).LogStreams[0]
	if *a.FirstEventTimestamp != *at(3) || *a.LastEventTimestamp != *at(4) || *a.LastIngestionTime != start.UnixMilli() ||
		*a.Arn != "arn:aws:logs:us-east-1:000000000000:log-group:g:log-stream:a" {
		t.Errorf("stream %+v", a)
	}
	do(b, b.deleteLogStream, &cwl.DeleteLogStreamInput{LogGroupName: g, LogStreamName: aws.String("a")})
	refused(b, b.getLogEvents, &cwl.GetLogEventsInput{LogGroupName: g, LogStreamName: aws.String("a")}, "ResourceNotFoundException", "The specified log stream does not exist.")
	b.stream(*g, "a")
	if got := do(b, b.getLogEvents, &cwl.GetLogEventsInput{LogGroupName: g, LogStreamName: aws.String("a")}).Events; len(got) != 0 {
		t.Errorf("a new stream has the events of the old one: %v", messages(got))
	}
}

func TestPutConstraints(t *testing.T) {
	b := newBench(t)
	b.stream("g", "s")
	put := func(events ...types.InputLogEvent) *cwl.PutLogEventsInput {
		return &cwl.PutLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s"), LogEvents: events, SequenceToken: aws.String("any")}
	}
	event := func(d time.Duration, size int) types.InputLogEvent {
		return types.InputLogEvent{Timestamp: aws.Int64(start.Add(d).UnixMilli()), Message: aws.String(strings.Repeat("x", size))}
	}
	refused(b, b.putLogEvents, put(event(time.Second, 1), event(0, 1)), "InvalidParameterException", "chronological order")
	refused(b, b.putLogEvents, put(event(-25*time.Hour, 1), event(0, 1)), "InvalidParameterException", "cannot span more than 24 hours")
	refused(b, b.putLogEvents, put(event(0, 1<<20-25)), "InvalidParameterException", "Upload too large: 1048577 bytes exceeds limit of 1048576")
	do(b, b.putLogEvents, put(event(0, 1<<20-26)))
	many := make([]types.InputLogEvent, 10_001)
	for i := range many {
		many[i] = event(0, 1)
	}
	refused(b, b.putLogEvents, put(many...), "InvalidParameterException", "10000 log events")
	do(b, b.putLogEvents, put(many[1:]...))
	missing := put(event(0, 1))
	missing.LogStreamName = aws.String("none")
	refused(b, b.putLogEvents, missing, "ResourceNotFoundException", "The specified log stream does not exist.")

	day := 24 * time.Hour
	out := do(b, b.putLogEvents, put(event(-20*day, 1), event(-15*day, 1), event(-time.Hour, 1), event(2*time.Hour, 1), event(2*time.Hour+time.Millisecond, 1), event(9*day, 1)))
	if r := out.RejectedLogEventsInfo; r == nil || *r.TooOldLogEventEndIndex != 2 || *r.TooNewLogEventStartIndex != 4 || r.ExpiredLogEventEndIndex != nil {
		t.Errorf("rejected %+v", out.RejectedLogEventsInfo)
	}
	do(b, b.putRetentionPolicy, &cwl.PutRetentionPolicyInput{LogGroupName: aws.String("g"), RetentionInDays: aws.Int32(3)})
	out = do(b, b.putLogEvents, put(event(-15*day, 1), event(-4*day, 1), event(0, 1)))
	if r := out.RejectedLogEventsInfo; r == nil || *r.TooOldLogEventEndIndex != 1 || *r.ExpiredLogEventEndIndex != 2 || r.TooNewLogEventStartIndex != nil {
		t.Errorf("rejected %+v", out.RejectedLogEventsInfo)
	}
	if out := do(b, b.putLogEvents, put(event(-15*day, 1), event(9*day, 1))); out.RejectedLogEventsInfo == nil {
		t.Error("nothing is rejected")
	}
	events := do(b, b.getLogEvents, &cwl.GetLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s"), Limit: aws.Int32(10000), StartTime: aws.Int64(start.UnixMilli() + 1)}).Events
	if len(events) != 1 {
		t.Errorf("%d events after the start", len(events))
	}
}

func TestGetLogEvents(t *testing.T) {
	b := newBench(t)
	b.stream("g", "s")
	get := func(in cwl.GetLogEventsInput) *cwl.GetLogEventsOutput {
		t.Helper()
		in.LogGroupName, in.LogStreamName = aws.String("g"), aws.String("s")
		return do(b, b.getLogEvents, &in)
	}
	empty := get(cwl.GetLogEventsInput{StartFromHead: aws.Bool(true)})
	if len(empty.Events) != 0 || empty.NextForwardToken == nil || empty.NextBackwardToken == nil {
		t.Fatalf("an empty stream: %+v", empty)
	}
	b.put("g", "s", 1, 2, 3)
	b.put("g", "s", 2, 4, 5) // a batch between the others' times
	want := []string{"s 1", "s 2", "s 2", "s 3", "s 4", "s 5"}

	// Forwards: pages, then the same token as given, then what has come since.
	var got []string
	in := cwl.GetLogEventsInput{StartFromHead: aws.Bool(true), Limit: aws.Int32(4), NextToken: empty.NextForwardToken}
	for {
		out := get(in)
		got = append(got, messages(out.Events)...)
		if *out.NextForwardToken == *in.NextToken {
			if len(out.Events) != 0 {
				t.Errorf("the token stays and there are events")
			}
			break
		}
		in.NextToken = out.NextForwardToken
	}
	if !slices.Equal(got, want) {
		t.Errorf("forwards %v", got)
	}
	b.put("g", "s", 6)
	if out := get(in); !slices.Equal(messages(out.Events), []string{"s 6"}) {
		t.Errorf("then %v", messages(out.Events))
	}

	// Backwards from the end: each page ascending.
	got = nil
	in = cwl.GetLogEventsInput{Limit: aws.Int32(3)}
	out := get(in)
	for {
		got = append(messages(out.Events), got...)
		in.NextToken = out.NextBackwardToken
		if out = get(in); *out.NextBackwardToken == *in.NextToken {
			break
		}
	}
	if !slices.Equal(got, append(want, "s 6")) {
		t.Errorf("backwards %v", got)
	}
	// Turn around in the middle.
	mid := get(cwl.GetLogEventsInput{Limit: aws.Int32(3)})
	back := get(cwl.GetLogEventsInput{Limit: aws.Int32(3), NextToken: mid.NextBackwardToken})
	again := get(cwl.GetLogEventsInput{Limit: aws.Int32(3), NextToken: back.NextForwardToken})
	if !slices.Equal(messages(again.Events), messages(mid.Events)) {
		t.Errorf("turned around: %v, want %v", messages(again.Events), messages(mid.Events))
	}
	// The end of a range is not part of it.
	ranged := get(cwl.GetLogEventsInput{StartTime: at(2), EndTime: at(4)})
	if !slices.Equal(messages(ranged.Events), []string{"s 2", "s 2", "s 3"}) {
		t.Errorf("range: %v", messages(ranged.Events))
	}
	for _, token := range []string{"x", "f/1/s", "f/" + strings.Repeat("9", 56) + "/s", "c/" + strings.Repeat("0", 56) + "/s"} {
		refused(b, b.getLogEvents, &cwl.GetLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s"), NextToken: &token},
			"InvalidParameterException", "The specified nextToken is invalid.")
	}
}

func TestFilterLogEvents(t *testing.T) {
	b := newBench(t)
	for _, s := range []string{"web/1", "web/2", "db/1"} {
		b.stream("g", s)
	}
	b.put("g", "web/2", 1, 4, 7)
	b.put("g", "db/1", 2, 4)
	b.put("g", "web/1", 3, 4)
	filter := func(in cwl.FilterLogEventsInput) (list []string) {
		t.Helper()
		in.LogGroupName = aws.String("g")
		seen := map[string]bool{}
		for {
			out := do(b, b.filterLogEvents, &in)
			for _, e := range out.Events {
				list = append(list, *e.Message)
				if seen[*e.EventId] || len(*e.EventId) != 56 || !strings.HasPrefix(*e.Message, *e.LogStreamName) {
					t.Errorf("event %+v", e)
				}
				seen[*e.EventId] = true
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				return list
			}
		}
	}
	all := []string{"web/2 1", "db/1 2", "web/1 3", "db/1 4", "web/1 4", "web/2 4", "web/2 7"}
	for _, c := range []struct {
		in   cwl.FilterLogEventsInput
		want []string
	}{
		{cwl.FilterLogEventsInput{}, all},
		{cwl.FilterLogEventsInput{Limit: aws.Int32(2)}, all},
		{cwl.FilterLogEventsInput{LogStreamNamePrefix: aws.String("web/")}, []string{"web/2 1", "web/1 3", "web/1 4", "web/2 4", "web/2 7"}},
		{cwl.FilterLogEventsInput{LogStreamNames: []string{"db/1", "db/1"}}, []string{"db/1 2", "db/1 4"}},
		{cwl.FilterLogEventsInput{StartTime: at(2), EndTime: at(3)}, []string{"db/1 2", "web/1 3"}},
		{cwl.FilterLogEventsInput{FilterPattern: aws.String("web -7"), Limit: aws.Int32(1)}, []string{"web/2 1", "web/1 3", "web/1 4", "web/2 4"}},
		{cwl.FilterLogEventsInput{FilterPattern: aws.String("[name = db*, n > 2]")}, []string{"db/1 4"}},
		{cwl.FilterLogEventsInput{StartFromHead: aws.Bool(false), StartTime: at(0), Limit: aws.Int32(3)},
			[]string{"web/1 4", "web/2 4", "web/2 7", "db/1 2", "web/1 3", "db/1 4", "web/2 1"}},
	} {
		if got := filter(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.in, got, c.want)
		}
	}
	g := aws.String("g")
	refused(b, b.filterLogEvents, &cwl.FilterLogEventsInput{LogGroupName: g, FilterPattern: aws.String("{ $.a")}, "InvalidParameterException", "Invalid filter pattern")
	refused(b, b.filterLogEvents, &cwl.FilterLogEventsInput{LogGroupName: g, LogStreamNames: []string{"none"}}, "ResourceNotFoundException", "The specified log stream does not exist.")
	refused(b, b.filterLogEvents, &cwl.FilterLogEventsInput{LogGroupName: g, LogStreamNames: []string{"db/1"}, LogStreamNamePrefix: g}, "InvalidParameterException", "logStreamNamePrefix")
	refused(b, b.filterLogEvents, &cwl.FilterLogEventsInput{LogGroupName: g, StartFromHead: aws.Bool(false)}, "InvalidParameterException", "2024")
	refused(b, b.filterLogEvents, &cwl.FilterLogEventsInput{LogGroupName: g, NextToken: aws.String("x")}, "InvalidParameterException", "nextToken is invalid")
}

func TestTestMetricFilter(t *testing.T) {
	b := newBench(t)
	out := do(b, b.testMetricFilter, &cwl.TestMetricFilterInput{FilterPattern: aws.String("{ $.n > 1 }"), LogEventMessages: []string{`{"n":1}`, `{"n":2}`}})
	if len(out.Matches) != 1 || out.Matches[0].EventNumber != 1 || out.Matches[0].ExtractedValues["$.n"] != "2" {
		t.Errorf("%+v", out.Matches)
	}
}

// TestCleaning: what was deleted leaves neither records nor data, expired events go, and what is in use stays.
func TestCleaning(t *testing.T) {
	b := newBench(t)
	for i := range 120 {
		b.stream("gone", fmt.Sprintf("s%d", i))
	}
	b.put("gone", "s7", 1)
	b.stream("kept", "deleted")
	b.put("kept", "deleted", 1)
	b.stream("kept", "old")
	b.put("kept", "old", 1)
	do(b, b.deleteLogGroup, &cwl.DeleteLogGroupInput{LogGroupName: aws.String("gone")})
	do(b, b.createLogGroup, &cwl.CreateLogGroupInput{LogGroupName: aws.String("gone")})
	if got := do(b, b.describeLogStreams, &cwl.DescribeLogStreamsInput{LogGroupName: aws.String("gone")}).LogStreams; len(got) != 0 {
		t.Errorf("the new group has %d streams", len(got))
	}
	do(b, b.deleteLogStream, &cwl.DeleteLogStreamInput{LogGroupName: aws.String("kept"), LogStreamName: aws.String("deleted")})
	do(b, b.putRetentionPolicy, &cwl.PutRetentionPolicyInput{LogGroupName: aws.String("kept"), RetentionInDays: aws.Int32(1)})
	b.clk.Advance(30 * time.Hour)
	b.put("kept", "old", 29*60)
	if err := errors.Join(b.tidy(t.Context()), b.clean(t.Context())); err != nil {
		t.Fatal(err)
	}
	records, data := 0, 0
	for range LogStreams.Scan(b.Store.View(), state.K()) {
		records++
	}
	for _, err := range b.Events.All() {
		if err != nil {
			t.Fatal(err)
		}
		data++
	}
	if records != 1 || data != 1 {
		t.Errorf("%d records and %d streams are left", records, data)
	}
	got := do(b, b.getLogEvents, &cwl.GetLogEventsInput{LogGroupName: aws.String("kept"), LogStreamName: aws.String("old")}).Events
	if !slices.Equal(messages(got), []string{"old 1740"}) {
		t.Errorf("kept %v", messages(got))
	}
}
