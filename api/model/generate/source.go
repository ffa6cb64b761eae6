package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// source is what the Go source of a v2 service module says.
type source struct {
	dir     string
	structs map[string][]goField // types, inputs and outputs by Go name
	unions  map[string]bool      // interface types
	enums   map[string][]string  // values by Go type
	errors  map[string]goError
	ops     []string
	tokens  map[string]string // operation -> Go field of its idempotency token
	schemas map[string]*schema
	opShape map[string][2]string // operation -> input and output shape, where schemas name them
	in      map[string]*serde    // by Go name of a struct, or list or map shape
	out     map[string]*serde
	// wrappers are the elements that query operations wrap their results in.
	wrappers map[string]bool
	opErrs   map[string][]string // operation -> error shapes its deserializer knows
}

type goField struct {
	name     string
	typ      ast.Expr
	required bool
}

type goError struct {
	code   string
	server bool
}

// readSource parses the files of a module that carry facts.
func readSource(dir string) (*source, error) {
	s := &source{
		dir: dir, structs: map[string][]goField{}, unions: map[string]bool{}, enums: map[string][]string{},
		errors: map[string]goError{}, tokens: map[string]string{}, schemas: map[string]*schema{},
		opShape: map[string][2]string{}, in: map[string]*serde{}, out: map[string]*serde{}, opErrs: map[string][]string{}, wrappers: map[string]bool{},
	}
	fset := token.NewFileSet()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != dir && name != "types" && name != "schemas" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		switch {
		case filepath.Base(filepath.Dir(path)) == "schemas":
			s.readSchemas(f)
		case strings.HasPrefix(name, "api_op_"):
			op := strings.TrimSuffix(strings.TrimPrefix(name, "api_op_"), ".go")
			s.ops = append(s.ops, op)
			s.readDecls(f)
			return s.readOperation(path, op)
		case name == "types.go" || name == "enums.go" || name == "errors.go":
			s.readDecls(f)
		case name == "serializers.go":
			s.readSerializers(f)
		case name == "deserializers.go":
			s.readDeserializers(f)
		}
		return nil
	})
	return s, err
}

var (
	operationSchema = regexp.MustCompile(`NewOperationSchema\(schemas\.\w+, (\S+), (\S+?)\)`)
	idempotency     = regexp.MustCompile(`if input\.(\w+) == nil \{\s+t, err := m\.tokenProvider`)
)

// readOperation finds the operation's shapes and idempotency token, which stand inside function bodies.
func (s *source) readOperation(path, op string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if m := operationSchema.FindSubmatch(b); m != nil {
		s.opShape[op] = [2]string{shapeOf(string(m[1])), shapeOf(string(m[2]))}
	}
	if m := idempotency.FindSubmatch(b); m != nil {
		s.tokens[op] = string(m[1])
	}
	return nil
}

func (s *source) readDecls(f *ast.File) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			s.readErrorMethod(d)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					s.readType(spec)
				case *ast.ValueSpec:
					if t, ok := spec.Type.(*ast.Ident); ok && d.Tok == token.CONST && len(spec.Values) == 1 {
						s.enums[t.Name] = append(s.enums[t.Name], literal(spec.Values[0]))
					}
				}
			}
		}
	}
}

func (s *source) readType(spec *ast.TypeSpec) {
	switch t := spec.Type.(type) {
	case *ast.InterfaceType:
		s.unions[spec.Name.Name] = true
	case *ast.StructType:
		fields := []goField{}
		for _, f := range t.Fields.List {
			if len(f.Names) == 0 || !f.Names[0].IsExported() || f.Names[0].Name == "ResultMetadata" || f.Names[0].Name == "ErrorCodeOverride" {
				continue
			}
			fields = append(fields, goField{f.Names[0].Name, f.Type, strings.Contains(f.Doc.Text(), "This member is required.")})
		}
		s.structs[spec.Name.Name] = fields
	}
}

// readErrorMethod reads an exception's code and fault from its ErrorCode and ErrorFault methods.
func (s *source) readErrorMethod(d *ast.FuncDecl) {
	if d.Recv == nil || d.Body == nil || d.Name.Name != "ErrorCode" && d.Name.Name != "ErrorFault" {
		return
	}
	star, ok := d.Recv.List[0].Type.(*ast.StarExpr)
	if !ok {
		return
	}
	name := star.X.(*ast.Ident).Name
	e := s.errors[name]
	ast.Inspect(d.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BasicLit:
			if d.Name.Name == "ErrorCode" && n.Kind == token.STRING {
				e.code = literal(n)
			}
		case *ast.Ident:
			if n.Name == "FaultServer" {
				e.server = true
			}
		}
		return true
	})
	s.errors[name] = e
}

// literal is the value of a string literal, or "".
func literal(e ast.Expr) string {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		v, err := strconv.Unquote(l.Value)
		if err == nil {
			return v
		}
	}
	return ""
}
