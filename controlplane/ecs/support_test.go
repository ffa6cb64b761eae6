package ecs

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecs"
)

var requestShapes = []any{
	ecs.RegisterTaskDefinitionInput{}, ecs.RunTaskInput{}, ecs.StartTaskInput{}, ecs.CreateServiceInput{}, ecs.UpdateServiceInput{},
	ecs.CreateClusterInput{}, ecs.UpdateClusterInput{},
}

// TestSupportCoversSDK: every member of every shape that a request is made of has exactly one answer, and no answer is for a
// member that does not exist.
func TestSupportCoversSDK(t *testing.T) {
	visited := map[string]bool{}
	for _, in := range requestShapes {
		coverShape(t, reflect.TypeOf(in), visited)
	}
	for name := range supported {
		if !visited[name] {
			t.Errorf("%s is in the table, but no request reaches it", name)
		}
	}
}

func coverShape(t *testing.T, shape reflect.Type, visited map[string]bool) {
	if visited[shape.Name()] {
		return
	}
	visited[shape.Name()] = true
	s, ok := supported[shape.Name()]
	if !ok {
		t.Errorf("%s is not in the table", shape.Name())
		return
	}
	honoured := strings.Fields(s.honoured)
	if !slices.IsSorted(honoured) {
		t.Errorf("%s: honoured members are not in order", shape.Name())
	}
	left := map[string]int{}
	for _, m := range honoured {
		left[m]++
	}
	for m := range s.ignored {
		left[m]++
	}
	for m := range s.refused {
		left[m]++
	}
	for i := range shape.NumField() {
		f := shape.Field(i)
		if !f.IsExported() {
			continue
		}
		name := wireName(f.Name)
		if left[name] != 1 {
			t.Errorf("%s.%s has %d answers, want one", shape.Name(), name, left[name])
		}
		delete(left, name)
		if _, no := s.refused[name]; no {
			continue
		}
		if elem, ok := structOf(f.Type); ok {
			coverShape(t, elem, visited)
		}
	}
	for m := range left {
		t.Errorf("%s.%s has an answer, but does not exist", shape.Name(), m)
	}
}

func structOf(t reflect.Type) (reflect.Type, bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t, t.Kind() == reflect.Struct
}
