// Package model holds what AWS's service models say about the services Neargate speaks: operations, shapes, wire names,
// constraints, errors. The tables hold facts, no prose; `go generate` makes them (see generate).
//
// A table is decoded lazily: Load splits it into lines, a shape is parsed when it is first asked for. So the size of a
// service (ec2 has 3,500 shapes) costs a start only what its bound operations need.
package model

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
)

//go:generate go run ./generate -out tables

//go:embed tables
var tables embed.FS

// Metadata is what a model says about its whole service.
type Metadata struct {
	Service        string `json:"service"` // SDK package name, the table's name
	ServiceID      string `json:"serviceId"`
	Protocol       string `json:"protocol"` // json, query, ec2, rest-json, rest-xml
	JSONVersion    string `json:"jsonVersion,omitempty"`
	TargetPrefix   string `json:"targetPrefix,omitempty"`
	SigningName    string `json:"signingName"`
	EndpointPrefix string `json:"endpointPrefix"`
	APIVersion     string `json:"apiVersion"`
	XMLNamespace   string `json:"xmlNamespace,omitempty"`
	Source         string `json:"source"` // module versions the table was made from
}

// Operation is one operation of a service. Input and Output are empty when it has none.
type Operation struct {
	Name          string   `json:"-"`
	Method        string   `json:"method"`
	URI           string   `json:"uri"`
	Status        int      `json:"status,omitempty"` // of a successful answer; 0 means 200
	Input         string   `json:"input,omitempty"`
	Output        string   `json:"output,omitempty"`
	ResultWrapper string   `json:"resultWrapper,omitempty"`
	Errors        []string `json:"errors,omitempty"` // shapes
}

// Ref is a use of a shape: a member, an element, a key or a value.
type Ref struct {
	Name             string `json:"name,omitempty"` // of a structure's member
	Shape            string `json:"shape"`
	Location         string `json:"location,omitempty"`     // uri, querystring, header, headers, statusCode; empty means body
	LocationName     string `json:"locationName,omitempty"` // name on the wire where it differs from Name
	QueryName        string `json:"queryName,omitempty"`    // ec2: name in requests
	TimestampFormat  string `json:"timestampFormat,omitempty"`
	Flattened        bool   `json:"flattened,omitempty"`
	IdempotencyToken bool   `json:"idempotencyToken,omitempty"`
	XMLAttribute     bool   `json:"xmlAttribute,omitempty"`
	Streaming        bool   `json:"streaming,omitempty"`
}

// Wire is the name on the wire.
func (r *Ref) Wire() string {
	if r.LocationName != "" {
		return r.LocationName
	}
	return r.Name
}

// Shape is a type of a service.
type Shape struct {
	Name            string   `json:"-"`
	Type            string   `json:"type"` // structure, list, map, string, character, integer, long, float, double, boolean, timestamp, blob
	Members         []Ref    `json:"members,omitempty"`
	Required        []string `json:"required,omitempty"`
	Enum            []string `json:"enum,omitempty"`
	Member          *Ref     `json:"member,omitempty"` // element of a list
	Key             *Ref     `json:"key,omitempty"`
	Value           *Ref     `json:"value,omitempty"`
	Min             *float64 `json:"min,omitempty"` // length of a string, size of a list, map or blob, value of a number
	Max             *float64 `json:"max,omitempty"`
	Pattern         string   `json:"pattern,omitempty"` // as AWS writes it; Regexp compiles it
	Payload         string   `json:"payload,omitempty"` // REST: the member that is the body
	TimestampFormat string   `json:"timestampFormat,omitempty"`
	LocationName    string   `json:"locationName,omitempty"`
	Flattened       bool     `json:"flattened,omitempty"`
	Union           bool     `json:"union,omitempty"`
	Document        bool     `json:"document,omitempty"`
	EventStream     bool     `json:"eventstream,omitempty"`
	Streaming       bool     `json:"streaming,omitempty"`
	Sensitive       bool     `json:"sensitive,omitempty"`
	Exception       bool     `json:"exception,omitempty"`
	Fault           bool     `json:"fault,omitempty"` // the service's, not the sender's
	Error           *Error   `json:"error,omitempty"`
}

// Error is how an exception shape is answered.
type Error struct {
	Code        string `json:"code,omitempty"` // where it differs from the shape's name
	Status      int    `json:"httpStatusCode,omitempty"`
	SenderFault bool   `json:"senderFault,omitempty"`
}

// MemberNamed is the member called name, or nil.
func (s *Shape) MemberNamed(name string) *Ref {
	for i := range s.Members {
		if s.Members[i].Name == name {
			return &s.Members[i]
		}
	}
	return nil
}

// Model is one service's table. It is safe for concurrent use; what it returns is shared and must not be changed.
type Model struct {
	Metadata
	operations map[string]*lazy[Operation]
	shapes     map[string]*lazy[Shape]
	errors     func() map[string]*Shape
}

// lazy is a line of the table and what it says, once somebody asked.
type lazy[T any] struct {
	once sync.Once
	line []byte
	v    T
}

func (l *lazy[T]) get() *T {
	l.once.Do(func() {
		if err := json.Unmarshal(l.line, &l.v); err != nil {
			panic(fmt.Sprintf("model: broken table line %s: %v", l.line, err)) // the tables are ours, and tested whole
		}
	})
	return &l.v
}

// Operation is the operation called name, or nil.
func (m *Model) Operation(name string) *Operation {
	l := m.operations[name]
	if l == nil {
		return nil
	}
	return l.get()
}

// Operations are the names of all operations, sorted.
func (m *Model) Operations() []string { return slices.Sorted(maps.Keys(m.operations)) }

// Shape is the shape called name, or nil.
func (m *Model) Shape(name string) *Shape {
	l := m.shapes[name]
	if l == nil {
		return nil
	}
	return l.get()
}

// Shapes are the names of all shapes, sorted.
func (m *Model) Shapes() []string { return slices.Sorted(maps.Keys(m.shapes)) }

// ErrorShape is the exception that is answered with code, or nil. A code is the shape's own, or else its name.
func (m *Model) ErrorShape(code string) *Shape { return m.errors()[code] }

func (m *Model) indexErrors() map[string]*Shape {
	byCode := map[string]*Shape{}
	for name, l := range m.shapes {
		if !isException(l) {
			continue
		}
		s := l.get()
		byCode[name] = s
		if s.Error != nil && s.Error.Code != "" {
			byCode[s.Error.Code] = s
		}
	}
	return byCode
}

// isException looks without parsing, so that asking for one error does not parse every shape.
func isException(l *lazy[Shape]) bool {
	return bytes.Contains(l.line, []byte(`"exception":true`))
}

var loaded sync.Map // service -> func() (*Model, error)

// Load is the model of a service, named as its SDK package is. It is decoded once.
func Load(service string) (*Model, error) {
	f, _ := loaded.LoadOrStore(service, sync.OnceValues(func() (*Model, error) { return load(service) }))
	return f.(func() (*Model, error))()
}

// Services are the services there is a table for, sorted.
func Services() []string {
	entries, err := tables.ReadDir("tables")
	if err != nil {
		panic(err) // embedded
	}
	var out []string
	for _, e := range entries {
		if name, ok := bytes.CutSuffix([]byte(e.Name()), []byte(".gz")); ok {
			out = append(out, string(name))
		}
	}
	return out
}

func load(service string) (*Model, error) {
	packed, err := tables.ReadFile("tables/" + service + ".gz")
	if err != nil {
		return nil, fmt.Errorf("no model of service %q", service)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("unpack model of %s: %w", service, err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("unpack model of %s: %w", service, err)
	}
	return Parse(service, text)
}

// Parse reads the text of a table: a line of metadata, then one line an operation ("O name {…}") or shape ("S name {…}").
func Parse(service string, text []byte) (*Model, error) {
	head, rest, _ := bytes.Cut(text, []byte{'\n'})
	n := bytes.Count(rest, []byte{'\n'})
	m := &Model{operations: make(map[string]*lazy[Operation]), shapes: make(map[string]*lazy[Shape], n)}
	m.errors = sync.OnceValue(m.indexErrors)
	if err := json.Unmarshal(head, &m.Metadata); err != nil {
		return nil, fmt.Errorf("read model of %s: %w", service, err)
	}
	for line := range bytes.Lines(rest) {
		kind, line, _ := bytes.Cut(bytes.TrimSuffix(line, []byte{'\n'}), []byte{' '})
		name, body, ok := bytes.Cut(line, []byte{' '})
		switch {
		case ok && string(kind) == "O":
			m.operations[string(name)] = &lazy[Operation]{line: body, v: Operation{Name: string(name)}}
		case ok && string(kind) == "S":
			m.shapes[string(name)] = &lazy[Shape]{line: body, v: Shape{Name: string(name)}}
		default:
			return nil, fmt.Errorf("read model of %s: unexpected line %.40q", service, line)
		}
	}
	return m, nil
}
