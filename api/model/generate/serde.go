package main

import (
	"go/ast"
	"regexp"
	"slices"
)

// serde is what one serializer or deserializer function says, in modules that have no schemas.
type serde struct {
	fields  map[string]wireField // by Go field
	element string               // name of a list's elements
}

// wireField is a field's name on the wire and the shape its value is read or written with ("" for a scalar).
type wireField struct{ name, shape string }

var serdeFunc = regexp.MustCompile(`^aws\w+?_(?:de)?serialize(OpDocument|Document|OpError|Error)(\w+)$`)

// readSerializers reads statements like
//
//	if v.Tags != nil { objectKey := object.Key("Tags"); if err := aws…_serializeDocumentTagList(v.Tags, objectKey); … }
//
// and, in lists, `array := value.Array("member")`.
func (s *source) readSerializers(f *ast.File) {
	for _, d := range f.Decls {
		fn, m := matchFunc(d)
		if fn == nil {
			continue
		}
		sd := &serde{fields: map[string]wireField{}}
		for _, stmt := range fn.Body.List {
			var field string
			var w wireField
			ast.Inspect(stmt, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "v" && field == "" {
						field = n.Sel.Name
					}
				case *ast.CallExpr:
					switch name := exprName(n.Fun); {
					case (name == "object.Key" || name == "object.FlatKey") && w.name == "":
						w.name = literal(n.Args[0])
					case name == "value.Array" && len(n.Args) == 1: // JSON arrays name no element
						sd.element = literal(n.Args[0])
					default:
						if c := serdeFunc.FindStringSubmatch(name); c != nil && w.shape == "" {
							w.shape = c[2]
						}
					}
				}
				return true
			})
			if field != "" && w.name != "" {
				sd.fields[field] = w
			}
		}
		s.in[m] = sd
	}
}

// readDeserializers reads clauses like
//
//	case strings.EqualFold("vpcSet", t.Name.Local): … aws…_deserializeDocumentVpcList(&sv.Vpcs, nodeDecoder)
func (s *source) readDeserializers(f *ast.File) {
	for _, d := range f.Decls {
		fn, m := matchFunc(d)
		if fn == nil {
			s.readWrapper(d)
			continue
		}
		kind := serdeFunc.FindStringSubmatch(fn.Name.Name)[1]
		sd := &serde{fields: map[string]wireField{}}
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			clause, ok := n.(*ast.CaseClause)
			if !ok || len(clause.List) != 1 {
				return true
			}
			w := wireField{name: literal(clause.List[0])} // JSON: case "name"
			if call, ok := clause.List[0].(*ast.CallExpr); ok && exprName(call.Fun) == "strings.EqualFold" {
				w.name = literal(call.Args[0])
			}
			if w.name == "" {
				return true
			}
			var field string
			for _, stmt := range clause.Body {
				ast.Inspect(stmt, func(n ast.Node) bool {
					switch n := n.(type) {
					case *ast.SelectorExpr:
						if x, ok := n.X.(*ast.Ident); ok && x.Name == "sv" && field == "" {
							field = n.Sel.Name
						}
					case *ast.CallExpr:
						if c := serdeFunc.FindStringSubmatch(exprName(n.Fun)); c != nil && w.shape == "" {
							w.shape = c[2]
						}
					}
					return true
				})
			}
			switch {
			case kind == "OpError":
				s.opErrs[m] = append(s.opErrs[m], w.shape)
			case field != "":
				sd.fields[field] = w
			default:
				sd.element = w.name
			}
			return true
		})
		if kind != "OpError" && kind != "Error" {
			s.out[m] = sd
		}
	}
	for op, errs := range s.opErrs {
		slices.Sort(errs)
		s.opErrs[op] = errs
	}
}

// readWrapper finds the element around a query operation's result: decoder.GetElement("CreateRuleResult").
func (s *source) readWrapper(d ast.Decl) {
	ast.Inspect(d, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && exprName(call.Fun) == "decoder.GetElement" {
			s.wrappers[literal(call.Args[0])] = true
		}
		return true
	})
}

func matchFunc(d ast.Decl) (*ast.FuncDecl, string) {
	fn, ok := d.(*ast.FuncDecl)
	if !ok || fn.Recv != nil || fn.Body == nil {
		return nil, ""
	}
	m := serdeFunc.FindStringSubmatch(fn.Name.Name)
	if m == nil {
		return nil, ""
	}
	return fn, m[2]
}
