package controlplane

import (
	"encoding/json"
	"fmt"
	"reflect"
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

// ShapeMembers is what EncodeShape renders of an SDK struct, by members' names, to be rendered with more members beside them.
func ShapeMembers(v any) map[string]any { return shapeTree(reflect.ValueOf(v)).(map[string]any) }

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
