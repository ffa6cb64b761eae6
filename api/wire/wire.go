// Package wire turns the AWS protocols into the official SDK's types and back.
//
// A Codec is one service: its model and its protocol. Binding an operation's input and output types gives an Operation,
// whose plans are compiled once, on first use: each shape of the model is paired with its Go type, each member with the
// offset of its field. From then on decoding and encoding walk the plan; nothing is looked up by reflection.
//
// The package knows no handler, no server and no state. It refuses what AWS refuses, with *awserr.Error in the service's
// own words: a body that is not what the protocol allows (SerializationException and its like) when decoding, a value
// the model does not allow when validating.
//
// Invariants:
//   - unsafe is confined to memory.go's accessors and is reached only through nodes whose Go type compile has checked.
//   - A decoded value shares no memory with the body when the body is longer than maxShared; otherwise its strings may
//     share one copy of it, so that a string kept for long pins at most that much.
//   - nil and empty lists and maps stay what they are in both directions.
package wire

import (
	"fmt"
	"reflect"
	"sync"

	"github.com/seed-2f228079/neargate/api/model"
)

// Protocol is how a client speaks to a service.
type Protocol string

// The protocols. JSON is awsJson 1.0 and 1.1, which differ in their content type only.
const (
	JSON     Protocol = "json"
	Query    Protocol = "query"
	EC2      Protocol = "ec2"
	RESTJSON Protocol = "rest-json"
)

// MaxBody is the longest request body the decoders are meant for; the caller enforces it while reading.
const MaxBody = 4 << 20

// Codec speaks for one service. It is safe for concurrent use.
type Codec struct {
	model    *model.Model
	protocol Protocol
	style    style

	mu      sync.Mutex
	nodes   map[nodeKey]*node       // complete once mu is released
	learned map[string]*model.Shape // of event streams, which the model does not have
}

// New loads the service's model. service is the SDK's package name.
func New(service string) (*Codec, error) {
	m, err := model.Load(service)
	if err != nil {
		return nil, err
	}
	return newCodec(m), nil
}

func newCodec(m *model.Model) *Codec {
	return &Codec{model: m, protocol: Protocol(m.Protocol), style: styleOf(m), nodes: map[nodeKey]*node{}}
}

// Model is the service's model.
func (c *Codec) Model() *model.Model { return c.model }

// Protocol is the protocol of the service's own endpoint.
func (c *Codec) Protocol() Protocol { return c.protocol }

// ContentType is that of the service's answers.
func (c *Codec) ContentType() string {
	switch c.protocol {
	case JSON:
		return "application/x-amz-json-" + c.model.JSONVersion
	case RESTJSON:
		return "application/json"
	}
	return "text/xml"
}

// Operation encodes and decodes one operation. It is safe for concurrent use. Values go in and out as pointers to the
// bound types; a nil or wrongly typed one is a programming error and panics.
type Operation struct {
	codec  *Codec
	model  *model.Operation
	inType reflect.Type
	in     func() *node
	out    func() *node
	mustBe struct{ in, out reflect.Type } // pointer types
}

// Bind pairs the operation called name with its Go types (structs, not pointers). The plans are compiled on first use or
// by Prepare.
func (c *Codec) Bind(name string, in, out reflect.Type) (*Operation, error) {
	m := c.model.Operation(name)
	if m == nil {
		return nil, fmt.Errorf("wire: %s has no operation %s", c.model.Service, name)
	}
	if in.Kind() != reflect.Struct || out.Kind() != reflect.Struct {
		return nil, fmt.Errorf("wire: bind %s to %s and %s: structs are due", name, in, out)
	}
	o := &Operation{codec: c, model: m, inType: in}
	o.mustBe.in, o.mustBe.out = reflect.PointerTo(in), reflect.PointerTo(out)
	o.in = sync.OnceValue(func() *node { return c.mustCompile(m.Input, in) })
	o.out = sync.OnceValue(func() *node { return c.mustCompile(m.Output, out) })
	return o, nil
}

// Prepare compiles the plans now, and says what does not fit.
func (o *Operation) Prepare() error {
	if _, err := o.codec.compile(o.model.Input, o.mustBe.in.Elem()); err != nil {
		return err
	}
	_, err := o.codec.compile(o.model.Output, o.mustBe.out.Elem())
	return err
}

// Name is the operation's name.
func (o *Operation) Name() string { return o.model.Name }

// Model is the operation's model.
func (o *Operation) Model() *model.Operation { return o.model }

// Codec is the codec the operation was bound with.
func (o *Operation) Codec() *Codec { return o.codec }

// New is a new, empty input.
func (o *Operation) New() any { return reflect.New(o.inType).Interface() }

// pointer checks v's type and returns its address.
func pointer(v any, want reflect.Type) reflect.Value {
	r := reflect.ValueOf(v)
	if !r.IsValid() || r.Type() != want || r.IsNil() {
		panic(fmt.Sprintf("wire: got %T, want a non-nil %s", v, want))
	}
	return r
}
