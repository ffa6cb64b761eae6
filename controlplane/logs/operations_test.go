package logs

import (
	"reflect"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	"github.com/seed-2f228079/neargate/api"
)

// Policies are written against the resources that AWS's refusals name: a stream's of what is on a stream, a group's with an empty stream of what
// is on a group, the group's own of its tags.
func TestResources(t *testing.T) {
	b := newBench(t)
	table := map[reflect.Type]api.Operation{}
	for _, o := range b.Operations() {
		table[o.In] = o
	}
	const all = "arn:aws:logs:us-east-1:000000000000:log-group:"
	g, s, arn := aws.String("g"), aws.String("app/main/1"), aws.String(all+"g:*")
	for _, c := range []struct {
		in   any
		want []string
	}{
		{&cwl.CreateLogStreamInput{LogGroupName: g, LogStreamName: s}, []string{all + "g:log-stream:app/main/1"}},
		{&cwl.DeleteLogStreamInput{LogGroupName: g, LogStreamName: s}, []string{all + "g:log-stream:app/main/1"}},
		{&cwl.PutLogEventsInput{LogGroupName: g, LogStreamName: s}, []string{all + "g:log-stream:app/main/1"}},
		{&cwl.GetLogEventsInput{LogGroupName: g, LogStreamName: s}, []string{all + "g:log-stream:app/main/1"}},
		{&cwl.GetLogEventsInput{LogGroupIdentifier: arn, LogStreamName: s}, []string{all + "g:log-stream:app/main/1"}},
		{&cwl.CreateLogGroupInput{LogGroupName: g}, []string{all + "g:log-stream:"}},
		{&cwl.DescribeLogStreamsInput{LogGroupIdentifier: arn}, []string{all + "g:log-stream:"}},
		{&cwl.FilterLogEventsInput{LogGroupName: g}, []string{all + "g:log-stream:"}},
		{&cwl.PutRetentionPolicyInput{LogGroupName: g}, []string{all + "g:log-stream:"}},
		{&cwl.DescribeLogGroupsInput{LogGroupNamePrefix: g}, []string{all + ":log-stream:"}},
		{&cwl.StartLiveTailInput{LogGroupIdentifiers: []string{*arn, all + "h"}}, []string{all + "g:log-stream:", all + "h:log-stream:"}},
		{&cwl.TagResourceInput{ResourceArn: arn}, []string{all + "g"}},
		{&cwl.UntagLogGroupInput{LogGroupName: g}, []string{all + "g"}},
	} {
		o, ok := table[reflect.TypeOf(c.in).Elem()]
		if !ok {
			t.Errorf("%T is no operation", c.in)
			continue
		}
		if got := o.Needs(api.CallFrom(b.ctx()), c.in)[0].Resources; !slices.Equal(got, c.want) {
			t.Errorf("%s is on %q, want %q", o.Name, got, c.want)
		}
	}
}
