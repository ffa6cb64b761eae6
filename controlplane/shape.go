package controlplane

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// EncodeShape renders an SDK struct, or a slice of them, as the JSON that records keep: members by their wire names, nothing
// for what is not set, map keys sorted. Equal values give equal text. A nil pointer or slice gives "".
func EncodeShape(v any) string {
	tree := shapeTree(reflect.ValueOf(v))
	if tree == nil {
		return ""
	}
	b, err := json.Marshal(tree)
	if err != nil {
		panic(fmt.Sprintf("controlplane: encode %T: %v", v, err))
	}
	return string(b)
}

// EncodeShapeOver is EncodeShape of v, a struct that old was decoded into and that was changed then: members of old, and of objects within it,
// that this build's types have no field for stay. A newer build may have written them. Those within lists and maps do not: what is
// in them is replaced as a whole.
func EncodeShapeOver(old string, v any) string {
	text := EncodeShape(v)
	var was map[string]any
	if json.Unmarshal([]byte(old), &was) != nil {
		return text // there was nothing
	}
	t := reflect.TypeOf(v)
	tree, ok := shapeTree(reflect.ValueOf(v)).(map[string]any)
	if !ok || !keepMembers(tree, was, t) {
		return text
	}
	b, err := json.Marshal(tree)
	if err != nil {
		panic(fmt.Sprintf("controlplane: encode %s: %v", t, err))
	}
	return string(b)
}

// keepMembers puts into tree, made of a t, what was has beyond t's fields, and says whether there was anything.
func keepMembers(tree, was map[string]any, t reflect.Type) (kept bool) {
	for name, value := range was {
		f, known := t.FieldByNameFunc(func(field string) bool { return strings.EqualFold(field, name) })
		if !known {
			tree[name], kept = value, true
			continue
		}
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		now, isObject := tree[name].(map[string]any)
		then, wasObject := value.(map[string]any)
		if inner.Kind() == reflect.Struct && isObject && wasObject && keepMembers(now, then, inner) {
			kept = true
		}
	}
	return kept
}

// DecodeShape reads what EncodeShape wrote into the zero value of T. A record that cannot be read is a broken invariant.
func DecodeShape[T any](s string) T {
	var v T
	if s == "" {
		return v
	}
	// encoding/json matches member names without regard to case: containerPort finds ContainerPort.
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		panic(fmt.Sprintf("controlplane: decode %T: %v", v, err))
	}
	return v
}

// shapeTree is nil for what is not set: nil pointers, slices and maps, empty enums, zero numbers without a pointer.
func shapeTree(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		if t := shapeTree(v.Elem()); t != nil {
			return t
		}
		return v.Elem().Interface() // a pointer to a zero value is set
	case reflect.Struct:
		if t, ok := v.Interface().(time.Time); ok {
			return t
		}
		m := map[string]any{}
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if !f.IsExported() || f.Anonymous || f.Name == "ResultMetadata" {
				continue
			}
			if t := shapeTree(v.Field(i)); t != nil {
				m[wireName(f.Name)] = t
			}
		}
		return m
	case reflect.Slice:
		if v.IsNil() {
			return nil
		}
		list := make([]any, v.Len())
		for i := range list {
			list[i] = shapeTree(v.Index(i))
			if list[i] == nil {
				list[i] = v.Index(i).Interface()
			}
		}
		return list
	case reflect.Map:
		if v.IsNil() {
			return nil
		}
		m := make(map[string]any, v.Len())
		for it := v.MapRange(); it.Next(); {
			m[it.Key().String()] = it.Value().Interface()
		}
		return m
	default:
		if v.IsZero() {
			return nil
		}
		return v.Interface()
	}
}

func wireName(goName string) string {
	r, n := utf8.DecodeRuneInString(goName)
	return string(unicode.ToLower(r)) + goName[n:]
}
