package wire

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"

	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/schemas"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/eventstream"
	"github.com/aws/smithy-go/transport/http/protocol/awsjson"

	"github.com/seed-2f228079/neargate/internal/awserr"
)

// EventStreamType is the content type of an answer that is an event stream.
const EventStreamType = "application/vnd.amazon.eventstream"

// eventStreams are the unions of the operations that answer with one, by service and operation. The models have none, since the SDK keeps
// them outside its output types; so the SDK's own schemas say how events look.
var eventStreams = map[string]struct {
	service *smithy.ServiceSchema
	union   *smithy.Schema
}{
	"cloudwatchlogs StartLiveTail": {logs.Logs_20140328, logs.StartLiveTailResponseStream},
}

// EventEncoder makes the messages of one event stream: frames with their lengths and checksums. One goroutine uses it.
type EventEncoder struct {
	union    *smithy.Schema
	protocol *awsjson.Protocol
	buf      bytes.Buffer
}

// Events is an encoder for an answer of the operation, which has an event stream in a JSON protocol.
func (o *Operation) Events() (*EventEncoder, error) {
	s, ok := eventStreams[o.codec.model.Service+" "+o.Name()]
	if !ok || o.codec.protocol != JSON {
		return nil, fmt.Errorf("wire: there is no event stream of %s.%s in %s", o.codec.model.Service, o.Name(), o.codec.protocol)
	}
	return &EventEncoder{union: s.union, protocol: awsjson.New11(s.service)}, nil
}

// Initial is the message that an RPC protocol begins with: the output beside the stream, of which there is none.
func (e *EventEncoder) Initial() []byte {
	return frame([]byte("{}"), eventstream.MessageTypeHeader, eventstream.EventMessageType, eventstream.EventTypeHeader, "initial-response",
		eventstream.ContentTypeHeader, "application/json")
}

// Event is the message of an event: a pointer to a variant of the SDK's union. It is overwritten by the next.
func (e *EventEncoder) Event(event any) ([]byte, error) {
	v := reflect.ValueOf(event)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("wire: %T is no event", event)
	}
	_, name, _ := strings.Cut(v.Type().Elem().Name(), "Member")
	field := v.Elem().FieldByName("Value")
	for _, member := range e.union.Members() {
		if !strings.EqualFold(member.MemberName(), name) || !field.IsValid() {
			continue
		}
		value, ok := field.Addr().Interface().(smithy.Serializable)
		if !ok {
			break
		}
		e.buf.Reset()
		if err := e.protocol.SerializeEventMessage(e.union, member, value, &e.buf); err != nil {
			return nil, fmt.Errorf("wire: encode event %s: %w", name, err)
		}
		return e.buf.Bytes(), nil
	}
	return nil, fmt.Errorf("wire: %T is no event of %s", event, e.union.ID())
}

// Line is an event as a line of JSON: an object whose one member is the event's.
func (e *EventEncoder) Line(event any) ([]byte, error) {
	f, err := e.Event(event)
	if err != nil {
		return nil, err
	}
	m, err := eventstream.NewDecoder().Decode(bytes.NewReader(f), nil)
	if err != nil {
		return nil, fmt.Errorf("wire: a frame of our own: %w", err)
	}
	b := append(appendString([]byte{'{'}, m.Headers.Get(eventstream.EventTypeHeader).String()), ':')
	return append(append(b, m.Payload...), "}\n"...), nil
}

// Error is the last message of a stream that fails: one of its exceptions, if the code is one, or an error without a shape.
func (e *EventEncoder) Error(err *awserr.Error) []byte {
	if e.union.Member(err.Code) != nil {
		return frame(jsonError("", err, nil), eventstream.MessageTypeHeader, eventstream.ExceptionMessageType,
			eventstream.ExceptionTypeHeader, err.Code, eventstream.ContentTypeHeader, "application/json")
	}
	return frame(nil, eventstream.MessageTypeHeader, eventstream.ErrorMessageType,
		eventstream.ErrorCodeHeader, err.Code, eventstream.ErrorMessageHeader, err.Message)
}

// frame is a message with these headers: names and values.
func frame(payload []byte, headers ...string) []byte {
	m := eventstream.Message{Payload: payload}
	for i := 0; i < len(headers); i += 2 {
		m.Headers.Set(headers[i], eventstream.StringValue(headers[i+1]))
	}
	var b bytes.Buffer
	if err := eventstream.NewEncoder().Encode(&b, m); err != nil {
		panic(err) // a few short strings into memory
	}
	return b.Bytes()
}
