package main

import (
	"fmt"
	"go/ast"
	"maps"
	"slices"
	"strings"

	"github.com/seed-2f228079/neargate/api/model"
)

// update brings the table to what the v2 module says.
func (t *table) update(s *source) error {
	slices.Sort(s.ops)
	for name := range t.ops {
		if !slices.Contains(s.ops, name) {
			delete(t.ops, name)
		}
	}
	if len(s.schemas) > 0 {
		t.fromSchemas(s)
	}
	for _, name := range s.ops {
		if err := t.updateOperation(s, name); err != nil {
			return fmt.Errorf("operation %s: %w", name, err)
		}
	}
	for goName, e := range s.errors {
		t.updateError(s, goName, e)
	}
	return nil
}

func (t *table) updateOperation(s *source, name string) error {
	o := t.ops[name]
	if o == nil {
		o = &model.Operation{Method: "POST", URI: "/"}
		t.ops[name] = o
	}
	in, out := "Input", "Output" // suffixes of the shapes, where v1 has none to name
	if t.meta.Protocol == "ec2" {
		in, out = "Request", "Result"
	}
	if o.Input == "" && len(s.structs[name+"Input"]) > 0 {
		o.Input = name + in
	}
	if o.Output == "" && len(s.structs[name+"Output"]) > 0 {
		o.Output = name + out
	}
	if s.wrappers[name+"Result"] {
		o.ResultWrapper = name + "Result"
	}
	if sc := s.schemas[name]; sc != nil && sc.traits["HTTP"] != nil {
		o.Method, o.URI = sc.traits["HTTP"]["Method"], sc.traits["HTTP"]["URI"]
	}
	if io, ok := s.opShape[name]; ok {
		o.Input, o.Output = io[0], io[1]
	}
	w := &walk{t: t, s: s, seen: map[string]bool{}}
	if o.Input != "" {
		w.structure(o.Input, name+"Input")
	}
	if o.Output != "" {
		w.structure(o.Output, name+"Output")
	}
	if f := s.tokens[name]; f != "" {
		for i, r := range t.shapes[o.Input].Members {
			if goNameOf(r.Name) == f {
				t.shapes[o.Input].Members[i].IdempotencyToken = true
			}
		}
	}
	for _, e := range s.opErrs[name] {
		if e != "" && !slices.Contains(o.Errors, e) {
			o.Errors = append(o.Errors, e)
		}
	}
	return w.err
}

// updateError adds the exceptions v1 does not know; those it knows keep their statuses.
func (t *table) updateError(s *source, goName string, e goError) {
	sh := t.shapes[goName]
	if sh == nil {
		// v2 gives some exceptions another Go name; the code is what clients see.
		for _, x := range t.shapes {
			if x.Exception && x.Error != nil && x.Error.Code == e.code {
				return
			}
		}
		sh = &model.Shape{Type: "structure"}
		t.shapes[goName] = sh
		w := &walk{t: t, s: s, seen: map[string]bool{}}
		w.structure(goName, goName)
	}
	if !sh.Exception {
		sh.Exception, sh.Fault = true, e.server
	}
	if e.code != goName && (sh.Error == nil || sh.Error.Code == "") {
		if sh.Error == nil {
			sh.Error = &model.Error{SenderFault: !e.server}
		}
		sh.Error.Code = e.code
	}
}

// goNameOf is the Go field of a member: the SDK capitalises the member's name, and keeps clear of its own identifiers.
func goNameOf(member string) string {
	if member == "" {
		return ""
	}
	return strings.ToUpper(member[:1]) + member[1:]
}

// walk goes through a structure and everything it reaches, in the model and in the Go types side by side.
type walk struct {
	t    *table
	s    *source
	seen map[string]bool
	err  error
}

func (w *walk) structure(shape, goType string) {
	key := shape + " " + goType
	if w.seen[key] {
		return
	}
	w.seen[key] = true
	sh := w.t.shapes[shape]
	if sh != nil && sh.Union {
		for _, r := range sh.Members {
			if f := w.s.structs[goType+"Member"+goNameOf(r.Name)]; len(f) > 0 {
				w.value(r.Shape, f[0].typ)
			}
		}
		return
	}
	fields, ok := w.s.structs[goType]
	if !ok {
		return // a document
	}
	if sh == nil {
		sh = &model.Shape{Type: "structure"}
		w.t.shapes[shape] = sh
	}
	var required []string
	for _, f := range fields {
		i := slices.IndexFunc(sh.Members, func(r model.Ref) bool { return model.GoField(w.t.meta.Service, shape, r.Name) == f.name })
		if i < 0 {
			if len(w.s.schemas) > 0 {
				w.err = fmt.Errorf("field %s.%s has no member in the schema of %s", goType, f.name, shape)
				return
			}
			sh.Members = append(sh.Members, w.member(goType, f))
			i = len(sh.Members) - 1
		}
		if f.required {
			required = append(required, sh.Members[i].Name)
		}
		w.value(sh.Members[i].Shape, f.typ)
	}
	sh.Members = slices.DeleteFunc(sh.Members, func(r model.Ref) bool {
		return !slices.ContainsFunc(fields, func(f goField) bool { return f.name == model.GoField(w.t.meta.Service, shape, r.Name) })
	})
	slices.Sort(required)
	sh.Required = required
}

// value goes on below a field of the Go type typ whose shape is known.
func (w *walk) value(shape string, typ ast.Expr) {
	sh := w.t.shapes[shape]
	if sh == nil {
		return
	}
	switch typ := typ.(type) {
	case *ast.StarExpr:
		w.value(shape, typ.X)
	case *ast.ArrayType:
		if sh.Member != nil {
			w.value(sh.Member.Shape, typ.Elt)
		}
	case *ast.MapType:
		if sh.Value != nil {
			w.value(sh.Key.Shape, typ.Key)
			w.value(sh.Value.Shape, typ.Value)
		}
	case *ast.Ident, *ast.SelectorExpr:
		name := strings.TrimPrefix(exprName(typ), "types.")
		if values, ok := w.s.enums[name]; ok && sh.Type == "string" {
			sh.Enum = values
		} else if sh.Type == "structure" {
			w.structure(shape, name)
		}
	}
}

// member makes the reference for a field that only the v2 module has. Its name on the wire is what the module's
// serializer and deserializer use.
func (w *walk) member(goType string, f goField) model.Ref {
	var in, out wireField
	if sd := w.s.in[goType]; sd != nil {
		in = sd.fields[f.name]
	}
	if sd := w.s.out[goType]; sd != nil {
		out = sd.fields[f.name]
	}
	r := model.Ref{Name: f.name}
	if w.t.meta.Protocol == "json" {
		r.Name = first(in.name, out.name, f.name)
	} else if wire := first(out.name, in.name); wire != f.name {
		r.LocationName = wire
		if w.t.meta.Protocol == "query" && strings.EqualFold(wire, f.name) { // the member's own name, not another on the wire
			r.Name, r.LocationName = wire, ""
		}
	}
	if w.t.meta.Protocol == "ec2" && in.name != "" && in.name != goNameOf(r.Wire()) {
		r.QueryName = in.name
	}
	r.Shape = w.shapeFor(f.typ, first(in.shape, out.shape))
	return r
}

func first(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}

// scalars are Go's types for the scalar shapes; the shapes are Smithy's own.
var scalars = map[string]string{
	"string": "String", "int32": "Integer", "int64": "Long", "bool": "Boolean", "float32": "Float", "float64": "Double",
	"time.Time": "Timestamp", "byte": "Blob",
}

// shapeFor is the shape of a Go type, made when there is none. named is its name where a serializer tells it.
func (w *walk) shapeFor(typ ast.Expr, named string) string {
	switch typ := typ.(type) {
	case *ast.StarExpr:
		return w.shapeFor(typ.X, named)
	case *ast.ArrayType:
		if exprName(typ.Elt) == "byte" {
			return w.t.prelude("Blob")
		}
		if w.t.shapes[named] == nil {
			elem := &model.Ref{}
			if sd := w.s.out[named]; sd != nil {
				elem.LocationName = sd.element
			} else if sd := w.s.in[named]; sd != nil {
				elem.LocationName = sd.element
				if w.t.meta.Protocol == "ec2" && (sd.element == "Item" || sd.element == "Member") { // capitalised by the serializer
					elem.LocationName = strings.ToLower(sd.element)
				}
			}
			if elem.LocationName == "member" { // the default
				elem.LocationName = ""
			}
			w.t.shapes[named] = &model.Shape{Type: "list", Member: elem}
			elem.Shape = w.shapeFor(typ.Elt, "")
		}
		return named
	case *ast.MapType:
		if w.t.shapes[named] == nil {
			s := &model.Shape{Type: "map"}
			w.t.shapes[named] = s
			s.Key = &model.Ref{Shape: w.shapeFor(typ.Key, "")}
			s.Value = &model.Ref{Shape: w.shapeFor(typ.Value, "")}
		}
		return named
	}
	name := strings.TrimPrefix(exprName(typ), "types.")
	if s, ok := scalars[name]; ok {
		return w.t.prelude(s)
	}
	if values, ok := w.s.enums[name]; ok {
		if w.t.shapes[name] == nil {
			w.t.shapes[name] = &model.Shape{Type: "string", Enum: values}
		}
		return name
	}
	if w.s.unions[name] {
		return w.union(name)
	}
	w.structure(name, name)
	return name
}

// union is the shape of an interface type: its variants are the structures named after it.
func (w *walk) union(name string) string {
	if w.t.shapes[name] != nil {
		return name
	}
	sh := &model.Shape{Type: "structure", Union: true}
	w.t.shapes[name] = sh
	for _, variant := range slices.Sorted(maps.Keys(w.s.structs)) {
		member, ok := strings.CutPrefix(variant, name+"Member")
		if ok {
			sh.Members = append(sh.Members, model.Ref{Name: member, Shape: w.shapeFor(w.s.structs[variant][0].typ, "")})
		}
	}
	return name
}

// prelude is Smithy's own scalar shape, added to the table on first use.
func (t *table) prelude(name string) string {
	id := "smithy.api#" + name
	if t.shapes[id] == nil {
		t.shapes[id] = &model.Shape{Type: strings.ToLower(strings.TrimPrefix(name, "Primitive"))}
		if name == "Document" {
			t.shapes[id] = &model.Shape{Type: "structure", Document: true}
		}
		if name == "Unit" {
			t.shapes[id] = &model.Shape{Type: "structure"}
		}
	}
	return id
}
