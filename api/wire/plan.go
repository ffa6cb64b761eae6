package wire

import (
	"fmt"
	"reflect"
	"time"

	"github.com/seed-2f228079/neargate/api/model"
)

// kind is how a node's value lies in memory and on the wire.
type kind uint8

const (
	kindString kind = iota
	kindBool
	kindInt  // int32
	kindLong // int64
	kindFloat
	kindDouble
	kindTime
	kindBlob
	kindStruct
	kindList
	kindMap
	kindUnion
	kindDocument
	kindStream // a payload read as it comes: io.Reader
)

// node is the plan for one (shape, Go type). Plans of recursive shapes are cyclic.
type node struct {
	shape    *model.Shape
	kind     kind
	typ      reflect.Type
	fields   []field          // of a structure, in the model's order, with a place in the body or not
	body     []*field         // those in a JSON or XML body
	byName   map[string]int32 // JSON name -> index in body
	required []*field
	elem     *node // of a list or map
	key      *node // of a map
	elemName string
	keyName  string
	valName  string
	enum     map[string]struct{}
	pattern  *model.Pattern
	variants []variant
	document func(any) any // makes the Go value of a document
	checked  bool          // something at or below has a constraint
}

// field is a member of a structure.
type field struct {
	ref       *model.Ref
	node      *node
	offset    uintptr
	ptr       bool   // the Go field is a pointer to node.typ
	name      string // JSON name
	jsonKey   string // `"name":`
	query     string // name in a query request
	flat      bool   // no wrapping element
	timestamp string // format, "" for the protocol's own
}

// variant is a member of a union: *typ implements the union's interface and has the value in its only field.
type variant struct {
	field
	typ reflect.Type
}

type nodeKey struct {
	shape string
	typ   reflect.Type
}

// compile makes the plan for a shape and a Go type, with all it reaches. An empty shape means nothing to say: no plan.
func (c *Codec) compile(shape string, typ reflect.Type) (*node, error) {
	if shape == "" {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh := map[nodeKey]*node{}
	n, err := c.node(shape, typ, fresh)
	if err != nil {
		return nil, fmt.Errorf("wire: %s: %w", c.model.Service, err)
	}
	for _, n := range fresh {
		n.checked = true // until known better: cycles are assumed to have constraints
	}
	for changed := true; changed; {
		changed = false
		for _, n := range fresh {
			if n.checked && !n.constrained() {
				n.checked, changed = false, true
			}
		}
	}
	for k, n := range fresh {
		c.nodes[k] = n
	}
	return n, nil
}

func (c *Codec) mustCompile(shape string, typ reflect.Type) *node {
	n, err := c.compile(shape, typ)
	if err != nil {
		panic(err) // a table and an SDK that do not fit: tests compile every operation
	}
	return n
}

// node looks a plan up or makes it. fresh are those made in this compile: visible to others only when all is well.
func (c *Codec) node(shape string, typ reflect.Type, fresh map[nodeKey]*node) (*node, error) {
	key := nodeKey{shape, typ}
	if n := c.nodes[key]; n != nil {
		return n, nil
	}
	if n := fresh[key]; n != nil {
		return n, nil
	}
	s := c.model.Shape(shape)
	if s == nil {
		s = c.learned[shape]
	}
	if s == nil {
		return nil, fmt.Errorf("no shape %s", shape)
	}
	n := &node{shape: s, typ: typ}
	fresh[key] = n
	k, err := kindOf(s, typ)
	if err != nil {
		return nil, fmt.Errorf("shape %s: %w", shape, err)
	}
	n.kind = k
	if s.Pattern != "" {
		if n.pattern, err = model.Regexp(s.Pattern); err != nil {
			return nil, fmt.Errorf("shape %s: %w", shape, err)
		}
	}
	if len(s.Enum) > 0 {
		n.enum = make(map[string]struct{}, len(s.Enum))
		for _, v := range s.Enum {
			n.enum[v] = struct{}{}
		}
	}
	switch n.kind {
	case kindStruct:
		err = c.structure(n, fresh)
	case kindUnion:
		err = c.union(n, fresh)
	case kindList:
		n.elemName = s.Member.LocationName
		if n.elemName == "" {
			n.elemName = "member"
		}
		n.elem, err = c.node(s.Member.Shape, typ.Elem(), fresh)
	case kindMap:
		n.keyName, n.valName = orElse(s.Key.LocationName, "key"), orElse(s.Value.LocationName, "value")
		if n.key, err = c.node(s.Key.Shape, typ.Key(), fresh); err == nil {
			n.elem, err = c.node(s.Value.Shape, typ.Elem(), fresh)
		}
	case kindDocument:
		if n.document = documents[typ]; n.document == nil {
			err = fmt.Errorf("no constructor of documents for %s", typ)
		}
	}
	if err != nil {
		return nil, err
	}
	return n, nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

var timeType = reflect.TypeFor[time.Time]()

// kindOf says how a shape is kept in a Go type, and refuses every pair whose memory the accessors would misread.
func kindOf(s *model.Shape, t reflect.Type) (kind, error) {
	fits := func(k kind, ok bool) (kind, error) {
		if !ok {
			return 0, fmt.Errorf("a %s cannot be kept in %s", s.Type, t)
		}
		return k, nil
	}
	switch s.Type {
	case "string", "character":
		return fits(kindString, t.Kind() == reflect.String)
	case "boolean":
		return fits(kindBool, t.Kind() == reflect.Bool)
	case "integer":
		return fits(kindInt, t.Kind() == reflect.Int32)
	case "long":
		return fits(kindLong, t.Kind() == reflect.Int64)
	case "float":
		return fits(kindFloat, t.Kind() == reflect.Float32)
	case "double":
		return fits(kindDouble, t.Kind() == reflect.Float64)
	case "timestamp":
		return fits(kindTime, t == timeType)
	case "blob":
		if t.Kind() == reflect.Interface {
			return kindStream, nil
		}
		return fits(kindBlob, t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8)
	case "list":
		return fits(kindList, t.Kind() == reflect.Slice)
	case "map":
		return fits(kindMap, t.Kind() == reflect.Map && t.Key().Kind() == reflect.String)
	case "structure":
		switch {
		case s.Document:
			return fits(kindDocument, t.Kind() == reflect.Interface)
		case s.Union:
			return fits(kindUnion, t.Kind() == reflect.Interface)
		}
		return fits(kindStruct, t.Kind() == reflect.Struct)
	}
	return 0, fmt.Errorf("unknown type %q", s.Type)
}

func (c *Codec) structure(n *node, fresh map[nodeKey]*node) error {
	n.fields = make([]field, len(n.shape.Members)) // never grown: body and required point into it
	n.byName = make(map[string]int32, len(n.fields))
	for i := range n.shape.Members {
		ref := &n.shape.Members[i]
		sf, ok := n.typ.FieldByName(model.GoField(c.model.Service, n.shape.Name, ref.Name))
		if !ok || len(sf.Index) != 1 {
			return fmt.Errorf("%s has no field for %s.%s", n.typ, n.shape.Name, ref.Name)
		}
		if err := c.field(&n.fields[i], ref, sf, fresh); err != nil {
			return fmt.Errorf("%s.%s: %w", n.shape.Name, ref.Name, err)
		}
		f := &n.fields[i]
		if ref.Location == "" {
			n.byName[f.name] = int32(len(n.body))
			n.body = append(n.body, f)
		}
	}
	for _, name := range n.shape.Required {
		for i := range n.fields {
			if n.fields[i].ref.Name == name {
				n.required = append(n.required, &n.fields[i])
			}
		}
	}
	return nil
}

// field fills f for a member kept in the Go field sf.
func (c *Codec) field(f *field, ref *model.Ref, sf reflect.StructField, fresh map[nodeKey]*node) error {
	typ := sf.Type
	if typ.Kind() == reflect.Pointer {
		f.ptr, typ = true, typ.Elem()
	}
	n, err := c.node(ref.Shape, typ, fresh)
	if err != nil {
		return err
	}
	f.ref, f.node, f.offset = ref, n, sf.Offset
	f.timestamp = orElse(ref.TimestampFormat, n.shape.TimestampFormat)
	f.flat = ref.Flattened || n.shape.Flattened
	f.name = c.jsonName(ref)
	f.jsonKey = string(appendString(nil, f.name)) + ":"
	f.query = c.queryName(ref, n)
	return nil
}

// jsonName is a member's name in JSON. The JSON of a query service is ours, the REST API's: there members go by their own
// names.
func (c *Codec) jsonName(ref *model.Ref) string {
	if c.protocol == JSON || c.protocol == RESTJSON {
		return ref.Wire()
	}
	return ref.Name
}

// queryName is a member's name in a query request.
func (c *Codec) queryName(ref *model.Ref, n *node) string {
	if c.protocol == EC2 {
		if ref.QueryName != "" {
			return ref.QueryName
		}
		return model.GoField("", "", ref.Wire()) // capitalised
	}
	if n.kind == kindList && (ref.Flattened || n.shape.Flattened) && n.shape.Member.LocationName != "" {
		return n.shape.Member.LocationName
	}
	return ref.Wire()
}

func (c *Codec) union(n *node, fresh map[nodeKey]*node) error {
	n.variants = make([]variant, 0, len(n.shape.Members))
	for i := range n.shape.Members {
		ref := &n.shape.Members[i]
		want := n.typ.Name() + "Member" + model.GoField(c.model.Service, n.shape.Name, ref.Name)
		for _, t := range unions[n.typ] {
			if t.Name() != want {
				continue
			}
			if !reflect.PointerTo(t).Implements(n.typ) || t.Field(0).Name != "Value" {
				return fmt.Errorf("%s is no variant of %s", t, n.typ)
			}
			v := variant{typ: t}
			if err := c.field(&v.field, ref, t.Field(0), fresh); err != nil {
				return err
			}
			n.variants = append(n.variants, v)
		}
	}
	if len(n.variants) != len(n.shape.Members) {
		return fmt.Errorf("%s knows %d of the %d variants of %s", n.typ, len(n.variants), len(n.shape.Members), n.shape.Name)
	}
	return nil
}
