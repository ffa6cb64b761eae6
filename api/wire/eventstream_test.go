package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/schemas"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/eventstream"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

func liveTailEncoder(t *testing.T) *EventEncoder {
	t.Helper()
	e, err := mustBind(t, "cloudwatchlogs", "StartLiveTail").Events()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func update(results ...types.LiveTailSessionLogEvent) *types.StartLiveTailResponseStreamMemberSessionUpdate {
	return &types.StartLiveTailResponseStreamMemberSessionUpdate{Value: types.LiveTailSessionUpdate{
		SessionMetadata: &types.LiveTailSessionMetadata{Sampled: len(results) > 0}, SessionResults: append([]types.LiveTailSessionLogEvent{}, results...)}}
}

// TestEventStreamIsReadByTheSDK: its decoder checks lengths and checksums, its protocol what the messages hold.
func TestEventStreamIsReadByTheSDK(t *testing.T) {
	e := liveTailEncoder(t)
	start := &types.StartLiveTailResponseStreamMemberSessionStart{Value: types.LiveTailSessionStart{RequestId: new("r"), SessionId: new("s"),
		LogGroupIdentifiers: []string{"arn:aws:logs:us-east-1:000000000000:log-group:g"}, LogEventFilterPattern: new(`"ä" <&>`)}}
	full := update(types.LiveTailSessionLogEvent{LogGroupIdentifier: new("g"), LogStreamName: new("s"), Message: new("a \"line\"\x00\u2028\n"),
		Timestamp: new(int64(1_700_000_000_123)), IngestionTime: new(int64(1_700_000_000_124))})
	stream := bytes.NewBuffer(e.Initial())
	for _, ev := range []any{start, full, update()} {
		f, err := e.Event(ev)
		if err != nil {
			t.Fatal(err)
		}
		stream.Write(f)
	}
	stream.Write(e.Error(awserr.New("SessionTimeoutException", "It is over.")))
	stream.Write(e.Error(awserr.New("Other", "It failed.")))
	if f := e.Error(awserr.New("Other", "%s", strings.Repeat("ä", 1<<20))); len(f) > maxErrorMessage+200 {
		t.Errorf("an endless text makes a message of %d bytes", len(f))
	}

	p := awsjson.New11(schemas.Logs_20140328)
	if err := p.DeserializeInitialResponse(schemas.StartLiveTailResponse, stream, &cwl.StartLiveTailOutput{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []any{&start.Value, &full.Value, &update().Value} {
		got, err := p.DeserializeEventMessage(schemas.StartLiveTailResponseStream, cwl.TypeRegistry, stream)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, any(got), cmpopts.IgnoreUnexported(types.LiveTailSessionStart{}, types.LiveTailSessionUpdate{}, types.LiveTailSessionMetadata{}, types.LiveTailSessionLogEvent{})); d != "" {
			t.Error(d)
		}
	}
	_, err := p.DeserializeEventMessage(schemas.StartLiveTailResponseStream, cwl.TypeRegistry, stream)
	var timeout *types.SessionTimeoutException
	if !errors.As(err, &timeout) || timeout.ErrorMessage() != "It is over." {
		t.Errorf("the exception is read as %v", err)
	}
	_, err = p.DeserializeEventMessage(schemas.StartLiveTailResponseStream, cwl.TypeRegistry, stream)
	var other smithy.APIError
	if !errors.As(err, &other) || other.ErrorCode() != "Other" || other.ErrorMessage() != "It failed." {
		t.Errorf("the error is read as %v", err)
	}
	if _, err := p.DeserializeEventMessage(schemas.StartLiveTailResponseStream, cwl.TypeRegistry, stream); err != io.EOF {
		t.Errorf("behind the stream: %v", err)
	}
}

// TestFramesHaveChecksums: one changed bit anywhere is found.
func TestFramesHaveChecksums(t *testing.T) {
	f, err := liveTailEncoder(t).Event(update())
	if err != nil {
		t.Fatal(err)
	}
	for i := range f {
		bad := bytes.Clone(f)
		bad[i] ^= 1
		if _, err := eventstream.NewDecoder().Decode(bytes.NewReader(bad), nil); err == nil {
			t.Errorf("byte %d is changed and nobody minds", i)
		}
	}
}

func TestEventLines(t *testing.T) {
	e := liveTailEncoder(t)
	l, err := e.Line(update())
	if want := `{"sessionUpdate":{"sessionMetadata":{"sampled":false},"sessionResults":[]}}` + "\n"; err != nil || string(l) != want {
		t.Errorf("%s, %v; want %s", l, err, want)
	}
	for _, no := range []any{nil, 1, &types.LiveTailSessionStart{}, (*types.StartLiveTailResponseStreamMemberSessionUpdate)(nil), update} {
		if _, err := e.Event(no); err == nil || !strings.HasPrefix(err.Error(), "wire: ") {
			t.Errorf("%T: %v", no, err)
		}
	}
}

// TestEventStreamsAreThoseOfTheSDK: every variant of the SDK's union is encoded, and nothing else answers with events.
func TestEventStreamsAreThoseOfTheSDK(t *testing.T) {
	if _, err := mustBind(t, "cloudwatchlogs", "PutLogEvents").Events(); err == nil {
		t.Error("PutLogEvents has an event stream")
	}
	e := liveTailEncoder(t)
	for _, variant := range []reflect.Type{reflect.TypeFor[types.StartLiveTailResponseStreamMemberSessionStart](), reflect.TypeFor[types.StartLiveTailResponseStreamMemberSessionUpdate]()} {
		if _, err := e.Event(reflect.New(variant).Interface()); err != nil {
			t.Error(err)
		}
	}
}
