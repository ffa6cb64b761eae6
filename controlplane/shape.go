package controlplane

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// EncodeShape renders an SDK struct, or a slice of them, as the JSON that records keep: members by their wire names, nothing
// for what is not set, map keys sorted. Equal values give equal text. A nil pointer or slice gives "".
func EncodeShape(v any) string {
	of := reflect.ValueOf(v)
	if kind := of.Kind(); (kind == reflect.Pointer || kind == reflect.Slice) && of.IsNil() {
		return "" // most members of most requests: nothing need be allocated for them
	}
	b, set := appendShape(make([]byte, 0, 512), of)
	if !set {
		return ""
	}
	return string(b)
}

// EncodeShapeOver is EncodeShape of v, a struct that old was decoded into and that was changed then: members of old, and of objects within it,
// that this build's types have no field for stay. A newer build may have written them. Those within lists and maps do not: what is
// in them is replaced as a whole.
func EncodeShapeOver(old string, v any) string {
	text := EncodeShape(v)
	var was, tree map[string]any
	if decodeExactly(old, &was) != nil || decodeExactly(text, &tree) != nil { // there was nothing, or there is nothing any more
		return text
	}
	t := reflect.TypeOf(v)
	if !keepMembers(tree, was, t) {
		return text
	}
	b, err := json.Marshal(tree)
	if err != nil {
		panic(fmt.Sprintf("controlplane: encode %s: %v", t, err))
	}
	return string(b)
}

// decodeExactly leaves numbers as they stand there.
func decodeExactly(text string, into *map[string]any) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	return d.Decode(into)
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

// appendShape appends v's JSON, or nothing for what is not set: nil pointers, slices and maps, empty enums, zero numbers without a
// pointer.
func appendShape(b []byte, v reflect.Value) (_ []byte, set bool) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return b, false
		}
		return appendSet(b, v.Elem()), true // a pointer to a zero value is set
	case reflect.Struct:
		if v.Type() == timeType {
			return appendJSON(b, v), true
		}
		b = append(b, '{')
		begin := len(b)
		for _, m := range membersOf(v.Type()) {
			before := len(b)
			if before > begin {
				b = append(b, ',')
			}
			if b, set = appendShape(append(b, m.name...), v.Field(m.field)); !set {
				b = b[:before]
			}
		}
		return append(b, '}'), true
	case reflect.Slice:
		if v.IsNil() {
			return b, false
		}
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendSet(b, v.Index(i))
		}
		return append(b, ']'), true
	case reflect.Map:
		if v.IsNil() {
			return b, false
		}
		return appendJSON(b, v), true
	}
	if v.IsZero() {
		return b, false
	}
	switch v.Kind() {
	case reflect.String:
		return appendText(b, v), true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(b, v.Int(), 10), true
	}
	return appendJSON(b, v), true
}

// appendSet is appendShape of what has to be there, set or not.
func appendSet(b []byte, v reflect.Value) []byte {
	b, set := appendShape(b, v)
	if !set {
		b = appendJSON(b, v)
	}
	return b
}

// appendText appends a string, most of which hold nothing that JSON writes in another way.
func appendText(b []byte, v reflect.Value) []byte {
	s := v.String()
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return appendJSON(b, v)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

func appendJSON(b []byte, v reflect.Value) []byte {
	text, err := json.Marshal(v.Interface())
	if err != nil {
		panic(fmt.Sprintf("controlplane: encode %s: %v", v.Type(), err))
	}
	return append(b, text...)
}

var timeType = reflect.TypeFor[time.Time]()

// shapeMember is a field of a struct that has a wire name.
type shapeMember struct {
	name  string // with quotes and colon
	field int
}

var shapeMembers sync.Map // reflect.Type → []shapeMember, by name

func membersOf(t reflect.Type) []shapeMember {
	if known, ok := shapeMembers.Load(t); ok {
		return known.([]shapeMember)
	}
	var list []shapeMember
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() && !f.Anonymous && f.Name != "ResultMetadata" {
			list = append(list, shapeMember{`"` + wireName(f.Name) + `":`, i})
		}
	}
	slices.SortFunc(list, func(a, b shapeMember) int { return strings.Compare(a.name, b.name) })
	shapeMembers.Store(t, list)
	return list
}

func wireName(goName string) string {
	r, n := utf8.DecodeRuneInString(goName)
	return string(unicode.ToLower(r)) + goName[n:]
}
