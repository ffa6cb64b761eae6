package main

import (
	"go/ast"
	"strconv"
	"strings"

	"github.com/seed-2f228079/neargate/api/model"
)

// schema is a shape as a module's schemas package declares it, with its true name.
type schema struct {
	name    string
	typ     string // "Structure", "Union", "List", …
	traits  traits
	members []schemaMember
}

type schemaMember struct {
	name, target string
	traits       traits
}

// traits maps a trait's name to its fields, as literals.
type traits map[string]map[string]string

// shapeOf is the shape name of a Go expression in the schemas package: Foo, _foo, schemas.Foo, smithyprelude.String.
func shapeOf(expr string) string {
	if n, ok := strings.CutPrefix(expr, "smithyprelude."); ok {
		return "smithy.api#" + n
	}
	return strings.TrimPrefix(strings.TrimPrefix(expr, "schemas."), "_")
}

func exprName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return exprName(e.X) + "." + e.Sel.Name
	case *ast.UnaryExpr:
		return exprName(e.X)
	case *ast.CompositeLit:
		return exprName(e.Type)
	}
	return ""
}

func readTraits(args []ast.Expr) traits {
	t := traits{}
	for _, a := range args {
		name := strings.TrimPrefix(exprName(a), "smithytraits.")
		t[name] = map[string]string{}
		u, ok := a.(*ast.UnaryExpr)
		if !ok {
			continue
		}
		for _, el := range u.X.(*ast.CompositeLit).Elts {
			kv, ok := el.(*ast.KeyValueExpr)
			if !ok {
				continue
			}
			v := literal(kv.Value)
			if l, ok := kv.Value.(*ast.BasicLit); ok && v == "" {
				v = l.Value
			}
			t[name][exprName(kv.Key)] = v
		}
	}
	return t
}

// readSchemas reads `var X = smithy.NewSchema(id, type, n, traits…)` and `X_m = X.AddMember("m", target, traits…)`.
// Go names may differ from shape names in their first letter's case only by the underscore, so the id decides.
func (s *source) readSchemas(f *ast.File) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			if len(n.Values) != 1 {
				return true
			}
			call, ok := n.Values[0].(*ast.CallExpr)
			if !ok || exprName(call.Fun) != "smithy.NewSchema" {
				return true
			}
			sc := &schema{typ: strings.TrimPrefix(exprName(call.Args[1]), "smithy.ShapeType"), traits: readTraits(call.Args[3:])}
			for _, el := range call.Args[0].(*ast.CompositeLit).Elts {
				if kv := el.(*ast.KeyValueExpr); exprName(kv.Key) == "Name" {
					sc.name = literal(kv.Value)
				}
			}
			s.schemas[shapeOf(n.Names[0].Name)] = sc
		case *ast.CallExpr:
			sel, ok := n.Fun.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "AddMember" {
				return true
			}
			sc := s.schemas[shapeOf(exprName(sel.X))]
			sc.members = append(sc.members, schemaMember{literal(n.Args[0]), shapeOf(exprName(n.Args[1])), readTraits(n.Args[2:])})
		}
		return true
	})
}

// fromSchemas makes every shape agree with its schema: type, members, wire names. Constraints stay those of v1.
func (t *table) fromSchemas(s *source) {
	for _, sc := range s.schemas {
		old := t.shapes[sc.name]
		sh := &model.Shape{}
		if old != nil {
			*sh = *old
		}
		switch sc.typ {
		case "Operation", "Service", "Resource":
			continue
		case "Enum":
			sh.Type = "string"
		case "Union":
			sh.Type, sh.Union = "structure", true
			_, sh.EventStream = sc.traits["Streaming"]
		case "Document":
			sh.Type, sh.Document = "structure", true
		default:
			sh.Type = strings.ToLower(sc.typ)
		}
		if e := sc.traits["Error"]; e != nil {
			sh.Exception = true
			sh.Fault = e["Type"] == "server"
		}
		if e := sc.traits["HTTPError"]; e != nil && (sh.Error == nil || sh.Error.Status == 0) {
			code, err := strconv.Atoi(e["Code"])
			if err == nil {
				if sh.Error == nil {
					sh.Error = &model.Error{SenderFault: !sh.Fault}
				}
				sh.Error.Status = code
			}
		}
		if _, ok := sc.traits["Sensitive"]; ok {
			sh.Sensitive = true
		}
		if sc.typ != "Enum" {
			t.schemaMembers(s, sc, sh)
		}
		t.shapes[sc.name] = sh
	}
}

func (t *table) schemaMembers(s *source, sc *schema, sh *model.Shape) {
	ref := func(m schemaMember) model.Ref {
		r := model.Ref{Name: m.name, Shape: t.target(s, m.target)}
		r.LocationName = m.traits["JSONName"]["Name"]
		if t.meta.Protocol != "json" && t.meta.Protocol != "rest-json" { // JSON services carry XML names too, for nothing
			r.LocationName = m.traits["XMLName"]["Name"]
		}
		r.TimestampFormat = m.traits["TimestampFormat"]["Format"]
		if h, ok := m.traits["HTTPHeader"]; ok {
			r.Location, r.LocationName = "header", h["Name"]
		}
		if h, ok := m.traits["HTTPQuery"]; ok {
			r.Location, r.LocationName = "querystring", h["Name"]
		}
		if _, ok := m.traits["HTTPLabel"]; ok {
			r.Location = "uri"
		}
		if _, ok := m.traits["HTTPResponseCode"]; ok {
			r.Location = "statusCode"
		}
		if _, ok := m.traits["HTTPPayload"]; ok {
			sh.Payload = m.name
		}
		return r
	}
	switch sc.typ {
	case "List", "Set":
		r := ref(sc.members[0])
		r.Name = ""
		sh.Type, sh.Member = "list", &r
	case "Map":
		for _, m := range sc.members {
			r := ref(m)
			r.Name = ""
			if m.name == "key" {
				sh.Key = &r
			} else {
				sh.Value = &r
			}
		}
	case "Structure", "Union":
		var members []model.Ref
		for _, m := range sc.members {
			r := ref(m)
			if old := sh.MemberNamed(m.name); old != nil {
				r.IdempotencyToken = old.IdempotencyToken
			}
			members = append(members, r)
		}
		sh.Members = members
	}
}

// target is a member's shape by its true name.
func (t *table) target(s *source, name string) string {
	if p, ok := strings.CutPrefix(name, "smithy.api#"); ok {
		return t.prelude(p)
	}
	return s.schemas[name].name
}
