package logs

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/seed-2f228079/neargate/api"
	"github.com/seed-2f228079/neargate/internal/awserr"
	"github.com/seed-2f228079/neargate/storage/stream"
)

// session is a Live Tail session of a test.
type session struct {
	t      *testing.T
	events chan types.StartLiveTailResponseStream
	ended  chan error
	leave  context.CancelFunc
}

func tailOf(t *testing.T, f *Family, ctx context.Context, in *cwl.StartLiveTailInput) *session {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	s := &session{t: t, events: make(chan types.StartLiveTailResponseStream), ended: make(chan error, 1), leave: cancel}
	t.Cleanup(cancel)
	go func() {
		s.ended <- f.startLiveTail(ctx, in, func(e types.StartLiveTailResponseStream) error {
			select {
			case s.events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	return s
}

func (s *session) start() types.LiveTailSessionStart {
	s.t.Helper()
	select {
	case e := <-s.events:
		return e.(*types.StartLiveTailResponseStreamMemberSessionStart).Value
	case err := <-s.ended:
		s.t.Fatal(err)
	}
	panic("unreachable")
}

func (s *session) update() types.LiveTailSessionUpdate {
	s.t.Helper()
	select {
	case e := <-s.events:
		return e.(*types.StartLiveTailResponseStreamMemberSessionUpdate).Value
	case err := <-s.ended:
		s.t.Fatal(err)
	}
	panic("unreachable")
}

func live(u types.LiveTailSessionUpdate) (list []string) {
	for _, e := range u.SessionResults {
		list = append(list, *e.Message)
	}
	return list
}

// tail begins a session; it is there once its start was read.
func (b *bench) tail(in *cwl.StartLiveTailInput) *session {
	b.t.Helper()
	s := tailOf(b.t, b.Family, b.ctx(), in)
	s.start()
	return s
}

// pass lets time pass for sessions that wait for their next second and for their end.
func (b *bench) pass(sessions int, d time.Duration) {
	b.t.Helper()
	for deadline := time.Now().Add(time.Minute); b.clk.Waiters() < 2*sessions; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("%d wait for the clock, of %d sessions", b.clk.Waiters(), sessions)
		}
	}
	b.clk.Advance(d)
}

func (b *bench) second(sessions int) {
	b.t.Helper()
	b.pass(sessions, time.Second)
}

func arnOf(group string) string { return "arn:aws:logs:us-east-1:000000000000:log-group:" + group }

func TestLiveTail(t *testing.T) {
	b := newBench(t)
	for _, n := range []string{"web/1", "web/2", "db"} {
		b.stream("g", n)
	}
	b.stream("h", "web/1")
	b.put("g", "db", 0) // before any session
	in := &cwl.StartLiveTailInput{LogGroupIdentifiers: []string{arnOf("g"), arnOf("h")}, LogEventFilterPattern: aws.String("-4")}
	both := tailOf(t, b.Family, b.ctx(), in)
	if got := both.start(); *got.SessionId == "" || !slices.Equal(got.LogGroupIdentifiers, in.LogGroupIdentifiers) || *got.LogEventFilterPattern != "-4" {
		t.Errorf("the start says %+v", got)
	}
	named := b.tail(&cwl.StartLiveTailInput{LogGroupIdentifiers: []string{arnOf("g")}, LogStreamNames: []string{"db", "not yet"}})
	prefixed := b.tail(&cwl.StartLiveTailInput{LogGroupIdentifiers: []string{arnOf("g")}, LogStreamNamePrefixes: []string{"web/"}})
	b.second(3)
	if u := both.update(); u.SessionResults == nil || len(u.SessionResults) != 0 || u.SessionMetadata.Sampled {
		t.Errorf("without events: %+v", u)
	}
	named.update()
	prefixed.update()

	b.put("g", "web/2", 2, 4)
	b.put("g", "db", 1)
	b.put("h", "web/1", 3)
	b.second(3)
	u := both.update()
	if got, want := live(u), []string{"db 1", "web/2 2", "web/1 3"}; !slices.Equal(got, want) || u.SessionMetadata.Sampled {
		t.Errorf("both groups: %q, want %q", got, want)
	}
	if e := u.SessionResults[2]; *e.LogGroupIdentifier != arnOf("h") || *e.LogStreamName != "web/1" || *e.Timestamp != *at(3) || *e.IngestionTime != b.clk.Now().Add(-time.Second).UnixMilli() {
		t.Errorf("an event: %+v", e)
	}
	if got := live(named.update()); !slices.Equal(got, []string{"db 1"}) {
		t.Errorf("by name: %q", got)
	}
	if got := live(prefixed.update()); !slices.Equal(got, []string{"web/2 2", "web/2 4"}) {
		t.Errorf("by prefix: %q", got)
	}
	b.second(3)
	if got := live(both.update()); len(got) != 0 {
		t.Errorf("again: %q", got)
	}
	for _, s := range []*session{both, named, prefixed} {
		s.leave()
		if err := <-s.ended; err != nil && err != context.Canceled {
			t.Error(err)
		}
	}
	if len(b.tails.open) != 0 {
		t.Errorf("%d sessions are left", len(b.tails.open))
	}
}

// TestLiveTailSamples: a client that is slow, or a group that is busy, costs an update's memory.
func TestLiveTailSamples(t *testing.T) {
	b := newBench(t)
	b.stream("g", "s")
	s := b.tail(&cwl.StartLiveTailInput{LogGroupIdentifiers: []string{arnOf("g")}})
	minutes := make([]int, 100)
	for i := range minutes {
		minutes[i] = i
	}
	for range 40 {
		b.put("g", "s", minutes...)
	}
	b.second(1)
	u := s.update()
	if len(u.SessionResults) != maxUpdateEvents || !u.SessionMetadata.Sampled {
		t.Fatalf("%d events, sampled %v", len(u.SessionResults), u.SessionMetadata.Sampled)
	}
	b.put("g", "s", 1)
	b.second(1)
	if u := s.update(); len(u.SessionResults) != 1 || u.SessionMetadata.Sampled {
		t.Errorf("afterwards %+v", u)
	}
	large := strings.Repeat("x", 200<<10)
	for range 20 {
		do(b, b.putLogEvents, &cwl.PutLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s"),
			LogEvents: []types.InputLogEvent{{Timestamp: at(1), Message: &large}}})
	}
	b.second(1)
	if u := s.update(); len(u.SessionResults) != maxUpdateBytes/len(large) || !u.SessionMetadata.Sampled {
		t.Errorf("of large ones %d, sampled %v", len(u.SessionResults), u.SessionMetadata.Sampled)
	}
}

// TestLiveTailSampleIsFair: events of the end are as likely to be in it as those of the beginning.
func TestLiveTailSampleIsFair(t *testing.T) {
	b := newBench(t)
	r, err := seeded(strings.NewReader("sixteen bytes it"))
	if err != nil {
		t.Fatal(err)
	}
	b.stream("g", "s")
	tl, _, err := b.newTail(b.ctx(), &cwl.StartLiveTailInput{LogGroupIdentifiers: []string{arnOf("g")}})
	if err != nil {
		t.Fatal(err)
	}
	tl.rand = r
	for i := range 5000 {
		tl.offer("g", "s", &stream.Batch{Records: []stream.Record{{Time: int64(i), Data: []byte("x")}}})
	}
	late := 0
	for _, e := range tl.take().SessionResults {
		if *e.Timestamp >= 2500 {
			late++
		}
	}
	if late < 200 || late > 300 {
		t.Errorf("%d of %d events are of the later half", late, maxUpdateEvents)
	}
}

func TestLiveTailTimesOut(t *testing.T) {
	b := newBench(t)
	b.stream("g", "s")
	s := b.tail(&cwl.StartLiveTailInput{LogGroupIdentifiers: []string{arnOf("g")}})
	b.pass(1, maxSession)
	for {
		select {
		case <-s.events: // the second's may come first
			continue
		case err := <-s.ended:
			if !awserr.Is(err, "SessionTimeoutException") {
				t.Error(err)
			}
		}
		break
	}
	if len(b.tails.open) != 0 {
		t.Error("the session is kept")
	}
}

func TestLiveTailIsRefused(t *testing.T) {
	b := newBench(t)
	b.stream("g", "s")
	b.stream("h", "s")
	g, h := arnOf("g"), arnOf("h")
	refuse := func(in *cwl.StartLiveTailInput, code, message string) {
		t.Helper()
		err := b.startLiveTail(b.ctx(), in, func(types.StartLiveTailResponseStream) error { t.Error("it begins"); return context.Canceled })
		if e, ok := awserr.As(err); !ok || e.Code != code || !strings.Contains(e.Message, message) {
			t.Errorf("%+v: %v, want %s: %s", *in, err, code, message)
		}
	}
	refuse(&cwl.StartLiveTailInput{LogGroupIdentifiers: []string{g}, LogStreamNames: []string{"s"}, LogStreamNamePrefixes: []string{"s"}}, "InvalidParameterException", "both")
	refuse(&cwl.StartLiveTailInput{LogGroupIdentifiers: []string{g, h}, LogStreamNames: []string{"s"}}, "InvalidParameterException", "'logStreamNames'")
	refuse(&cwl.StartLiveTailInput{LogGroupIdentifiers: []string{g, h}, LogStreamNamePrefixes: []string{"s"}}, "InvalidParameterException", "'logStreamNamePrefixes'")
	refuse(&cwl.StartLiveTailInput{LogGroupIdentifiers: []string{g}, LogEventFilterPattern: aws.String("{ $.a")}, "InvalidParameterException", "filter pattern")
	refuse(&cwl.StartLiveTailInput{LogGroupIdentifiers: []string{"g"}}, "InvalidParameterException", "ARN")
	refuse(&cwl.StartLiveTailInput{LogGroupIdentifiers: []string{g + ":*"}}, "InvalidParameterException", "asterisk")
	refuse(&cwl.StartLiveTailInput{LogGroupIdentifiers: []string{arnOf("none")}}, "ResourceNotFoundException", "log group")
	refuse(&cwl.StartLiveTailInput{LogGroupIdentifiers: []string{strings.Replace(g, "000000000000", "111111111111", 1)}}, "ResourceNotFoundException", "log group")
	for range maxSessions {
		b.tail(&cwl.StartLiveTailInput{LogGroupIdentifiers: []string{g}})
	}
	refuse(&cwl.StartLiveTailInput{LogGroupIdentifiers: []string{g}}, "LimitExceededException", "15 Live Tail sessions")
	for i := len(b.tails.open); i < maxServerSessions; i++ {
		if err := b.tails.add(&tail{account: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.tails.add(&tail{account: "another"}); !awserr.Is(err, "LimitExceededException") {
		t.Errorf("one more than the server takes: %v", err)
	}
}

// TestLiveTailNeedsEveryGroup: whoever may not tail one of them gets no session.
func TestLiveTailNeedsEveryGroup(t *testing.T) {
	for _, o := range newBench(t).Operations() {
		if o.Name != "StartLiveTail" {
			continue
		}
		needs := o.Needs(&api.Call{}, &cwl.StartLiveTailInput{LogGroupIdentifiers: []string{arnOf("g"), arnOf("h")}})
		if len(needs) != 1 || needs[0].Action != "logs:StartLiveTail" || !slices.Equal(needs[0].Resources, []string{arnOf("g") + ":log-stream:", arnOf("h") + ":log-stream:"}) {
			t.Errorf("it needs %+v", needs)
		}
		return
	}
	t.Error("there is no such operation")
}

// TestLiveTailFollowsTheLeader: what is put is shown by whoever leads, and a session of a former leader says that it is over.
func TestLiveTailFollowsTheLeader(t *testing.T) {
	c := newServers(t, 3)
	c.makeStream("g", "s")
	old := c.Leader()
	in := &cwl.StartLiveTailInput{LogGroupIdentifiers: []string{arnOf("g")}}
	s := tailOf(t, c.family(old.ID), c.ctx("StartLiveTail"), in)
	s.start()
	c.put("one")
	for u := s.update(); !slices.Equal(live(u), []string{"one"}); u = s.update() {
		if len(live(u)) > 0 {
			t.Fatalf("got %q", live(u))
		}
	}
	for _, o := range c.Servers() {
		if o.ID != old.ID {
			err := c.family(o.ID).startLiveTail(c.ctx("StartLiveTail"), in, func(types.StartLiveTailResponseStream) error { return nil })
			if err == nil {
				t.Error("a follower has a session")
			}
		}
	}
	c.kill(old)
	for {
		select {
		case <-s.events:
			continue
		case err := <-s.ended:
			if !awserr.Is(err, "SessionStreamingException") {
				t.Error(err)
			}
		}
		break
	}
}
