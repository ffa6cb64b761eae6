package wire

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/schemas"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/eventstream"

	"github.com/seed-2f228079/neargate/api/model"
	"github.com/seed-2f228079/neargate/internal/awserr"
)

// EventStreamType is the content type of an answer that is an event stream.
const EventStreamType = "application/vnd.amazon.eventstream"

// eventStreams are the unions of the operations that answer with one, by service and operation. The models have none, since the SDK keeps
// them outside its output types; its schemas say what is in them.
var eventStreams = map[string]*smithy.Schema{
	"cloudwatchlogs StartLiveTail": logs.StartLiveTailResponseStream,
}

// EventEncoder makes the messages of an event stream: frames with their lengths and checksums. It is safe for concurrent use.
type EventEncoder struct {
	codec *Codec
	union *smithy.Schema
}

// Events is the encoder for answers of the operation, which has an event stream in a JSON protocol. (The SDK's own serializers leave out
// what is false, which clients may not expect.)
func (o *Operation) Events() (*EventEncoder, error) {
	union := eventStreams[o.codec.model.Service+" "+o.Name()]
	if union == nil || o.codec.protocol != JSON {
		return nil, fmt.Errorf("wire: there is no event stream of %s.%s in %s", o.codec.model.Service, o.Name(), o.codec.protocol)
	}
	o.codec.mu.Lock()
	defer o.codec.mu.Unlock()
	for _, member := range union.Members() {
		o.codec.learn(member)
	}
	return &EventEncoder{codec: o.codec, union: union}, nil
}

// learn adds the shape of a member, and all it reaches, to those of the model.
func (c *Codec) learn(member *smithy.Schema) {
	name := member.TargetID().Name
	if c.model.Shape(name) != nil || c.learned[name] != nil {
		return
	}
	s := &model.Shape{Name: name, Type: schemaTypes[member.Type()]}
	if c.learned == nil {
		c.learned = map[string]*model.Shape{}
	}
	c.learned[name] = s
	for _, m := range slices.Sorted(maps.Keys(member.Members())) {
		of := member.Member(m)
		c.learn(of)
		ref := model.Ref{Name: m, Shape: of.TargetID().Name}
		if s.Type == "list" {
			s.Member = &ref
		} else {
			s.Members = append(s.Members, ref)
		}
	}
}

// schemaTypes are what event streams have so far.
var schemaTypes = map[smithy.ShapeType]string{smithy.ShapeTypeString: "string", smithy.ShapeTypeBoolean: "boolean", smithy.ShapeTypeInteger: "integer",
	smithy.ShapeTypeLong: "long", smithy.ShapeTypeList: "list", smithy.ShapeTypeStructure: "structure"}

// json is an event's name and its value: event is a pointer to a variant of the SDK's union.
func (e *EventEncoder) json(event any) (name string, body []byte, err error) {
	v := reflect.ValueOf(event)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct || !v.Elem().FieldByName("Value").IsValid() {
		return "", nil, fmt.Errorf("wire: %T is no event", event)
	}
	_, goName, _ := strings.Cut(v.Type().Elem().Name(), "Member")
	value := v.Elem().FieldByName("Value")
	for name, member := range e.union.Members() {
		if !strings.EqualFold(name, goName) {
			continue
		}
		n, err := e.codec.compile(member.TargetID().Name, value.Type())
		if err != nil {
			return "", nil, err
		}
		return name, n.encode(nil, pointee(value.Addr()), ""), nil
	}
	return "", nil, fmt.Errorf("wire: %T is no event of %s", event, e.union.ID())
}

const (
	messageType = eventstream.MessageTypeHeader
	contentType = eventstream.ContentTypeHeader
)

// maxErrorMessage is how much of an error's text goes into a header, which holds 32 KiB at most.
const maxErrorMessage = 8 << 10

// Initial is the message that an RPC protocol begins with: the output beside the stream, of which there is none.
func (e *EventEncoder) Initial() []byte {
	return frame([]byte("{}"), eventstream.EventTypeHeader, "initial-response", messageType, eventstream.EventMessageType, contentType, e.codec.ContentType())
}

// Event is the message of an event.
func (e *EventEncoder) Event(event any) ([]byte, error) {
	name, body, err := e.json(event)
	if err != nil {
		return nil, err
	}
	return frame(body, eventstream.EventTypeHeader, name, messageType, eventstream.EventMessageType, contentType, "application/json"), nil
}

// Line is an event as a line of JSON: an object whose one member is the event's.
func (e *EventEncoder) Line(event any) ([]byte, error) {
	name, body, err := e.json(event)
	if err != nil {
		return nil, err
	}
	return append(append(append(appendString([]byte{'{'}, name), ':'), body...), "}\n"...), nil
}

// Error is the last message of a stream that fails: one of its exceptions, if the code is one, or an error without a shape.
func (e *EventEncoder) Error(err *awserr.Error) []byte {
	if e.union.Member(err.Code) != nil {
		return frame(jsonError("", err, e.codec.model.ErrorShape(err.Code)), eventstream.ExceptionTypeHeader, err.Code,
			messageType, eventstream.ExceptionMessageType, contentType, "application/json")
	}
	message := err.Message
	if len(message) > maxErrorMessage {
		message = strings.ToValidUTF8(message[:maxErrorMessage], "")
	}
	return frame(nil, messageType, eventstream.ErrorMessageType, eventstream.ErrorCodeHeader, err.Code, eventstream.ErrorMessageHeader, message)
}

// frame is a message with these headers: names and values.
func frame(payload []byte, headers ...string) []byte {
	m := eventstream.Message{Payload: payload}
	for i := 0; i < len(headers); i += 2 {
		m.Headers.Set(headers[i], eventstream.StringValue(headers[i+1]))
	}
	var b bytes.Buffer
	if err := eventstream.NewEncoder().Encode(&b, m); err != nil {
		panic(fmt.Sprintf("wire: frame of %d bytes: %v", len(payload), err)) // whoever emits keeps events far below the 16 MiB that are the limit
	}
	return b.Bytes()
}
