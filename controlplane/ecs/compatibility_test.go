package ecs

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite generated documents")

// TestCompatibilityDocument: the document says of every member of a request what the table says.
func TestCompatibilityDocument(t *testing.T) {
	var want bytes.Buffer
	fmt.Fprint(&want, `# Compatibility with Amazon ECS

What becomes of each member of the requests that say what runs, by shape. *Honoured*: it does what it does on ECS. *Accepted without
effect*: it is kept and shown; the reason says why that harms nobody. *Refused*: a request that sets it fails and names it, for ignoring it
would change what runs. Operations are listed in [OPERATIONS.md](OPERATIONS.md).

Generated: go test ./controlplane/ecs -run TestCompatibilityDocument -update
`)
	visited := map[string]bool{}
	for _, in := range requestShapes {
		writeCompatibility(t, &want, reflect.TypeOf(in), visited)
	}
	const path = "../../docs/COMPATIBILITY.md"
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want.Bytes()) {
		t.Errorf("%s is out of date: go test ./controlplane/ecs -run TestCompatibilityDocument -update", path)
	}
}

// writeCompatibility writes the shape's table, then those of the shapes that its members are made of.
func writeCompatibility(t *testing.T, w io.Writer, shape reflect.Type, visited map[string]bool) {
	if visited[shape.Name()] {
		return
	}
	visited[shape.Name()] = true
	s := supported[shape.Name()]
	fmt.Fprintf(w, "\n## %s\n\n| member | | |\n|---|---|---|\n", strings.TrimSuffix(shape.Name(), "Input"))
	var inner []reflect.Type
	for i := range shape.NumField() {
		f := shape.Field(i)
		if !f.IsExported() {
			continue
		}
		name := wireName(f.Name)
		ignored, isIgnored := s.ignored[name]
		refused, isRefused := s.refused[name]
		switch {
		case isRefused:
			fmt.Fprintf(w, "| %s | refused | %s |\n", name, refused)
			continue
		case isIgnored:
			fmt.Fprintf(w, "| %s | accepted without effect | %s |\n", name, ignored)
		case s.honours(name):
			fmt.Fprintf(w, "| %s | honoured | %s |\n", name, s.notes[name])
		default:
			t.Errorf("%s.%s is not in the table", shape.Name(), name)
		}
		if elem, ok := structOf(f.Type); ok {
			inner = append(inner, elem)
		}
	}
	for name := range s.notes {
		if !s.honours(name) {
			t.Errorf("%s.%s has a note, but is not honoured", shape.Name(), name)
		}
	}
	for _, elem := range inner {
		writeCompatibility(t, w, elem, visited)
	}
}
